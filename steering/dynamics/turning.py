"""Conversations that go on turn by turn, all of a phase at once: what was said moves moods, and moods set doses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.steering.dynamics.dosing import Dosing, as_doses
from affectlens.steering.dynamics.feeding import Feed
from affectlens.steering.dynamics.policies import CLOSED, Schedule, fed_by
from affectlens.steering.dynamics.replying import Asked, Writer
from affectlens.steering.dynamics.scripts import Script
from affectlens.steering.dynamics.state import AXES, MoodState, Rule

KEYS = ["protocol", "script", "repeat", "rule", "policy"]
Kept = Callable[[int], pd.DataFrame | None]  # the rows of a turn, if it was finished before
Keep = Callable[[int, pd.DataFrame], None]


@dataclass(frozen=True)
class Scales:
    """How readings become what a mood is told."""

    user: Float[np.ndarray, " 3"]  # what the feed reads in calm lines of the user's: their zero
    reply: Float[np.ndarray, " 3"]  # what it reads in plain replies to them
    own: float  # the weight of the model's own last reply


@dataclass
class Talk:
    """One conversation of a script under one rule and policy."""

    script: Script
    repeat: int
    policy: str
    readings: Float[np.ndarray, "turn 3"]  # of the user's lines, as the feed reads them
    rule: Rule | None = None  # of a closed loop
    rule_name: str = ""
    schedule: Schedule | None = None  # of a control
    said: list[tuple[str, str]] = field(default_factory=list)
    heard: Float[np.ndarray, " 3"] | None = None  # the last reply, as the feed reads it

    def __post_init__(self) -> None:
        self.state = MoodState(self.rule) if self.rule is not None else None

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """What its rows are found by."""
        return (self.script.protocol, self.script.name, self.repeat, self.rule_name, self.policy)

    def doses(self, turn: int, dosing: Dosing, scales: Scales) -> dict[str, float]:
        """The doses of a turn's reply; a closed loop's mood is moved by what was said.

        Args:
            turn: of the script.
            dosing: from moods to doses.
            scales: of readings.
        """
        if self.state is not None and self.policy == CLOSED:
            reply = np.zeros(3) if self.heard is None else self.heard - scales.reply
            self.state.feel(fed_by(self.readings[turn] - scales.user, reply, scales.own))
            return dosing.doses(self.state.mood)
        return {} if self.schedule is None else as_doses(self.schedule[turn], dosing.emotions)


@dataclass(frozen=True)
class Saying:
    """What a phase needs beside its conversations."""

    writer: Writer
    feed: Feed
    dosing: Dosing
    scales: Scales
    history: int  # exchanges before the last line that the model is shown
    seed: int


def converse(talks: Sequence[Talk], how: Saying, *, kept: Kept, keep: Keep, tick: Callable[[], None]) -> pd.DataFrame:
    """Let conversations go through their scripts, a turn of all of them at a time.

    A turn that was finished before is gone through again from its rows, so that moods are the same to the last bit.

    Args:
        talks: that begin; scripts of one length.
        how: what writes, reads and doses.
        kept: gives the rows of a turn that was finished.
        keep: is given the rows of each turn that was written.
        tick: called after each turn.

    Returns:
        One row a conversation and turn: :data:`KEYS`, ``turn, level, user, reply, dropped``, the mood, ``said.AXIS``
        and ``heard.AXIS`` (what the feed read in the user's line and in the reply), ``dose.EMOTION``.
    """
    tables = []
    for turn in range(len(talks[0].script)):
        doses = [talk.doses(turn, how.dosing, how.scales) for talk in talks]
        rows = kept(turn)
        if rows is None:
            rows = _written(talks, turn, doses, how)
            keep(turn, rows)
        rows = rows.set_index(KEYS, drop=False).loc[[talk.key for talk in talks]].reset_index(drop=True)
        for talk, row in zip(talks, rows.to_dict("records"), strict=True):
            talk.said.append((talk.script.texts[turn], str(row["reply"])))
            talk.heard = np.array([row[f"heard.{axis}"] for axis in AXES], dtype=float)
        tables.append(rows)
        tick()
    return pd.concat(tables, ignore_index=True)


def _written(talks: Sequence[Talk], turn: int, doses: list[dict[str, float]], how: Saying) -> pd.DataFrame:
    asked = []
    for talk, dose in zip(talks, doses, strict=True):
        before = talk.said[len(talk.said) - min(how.history, len(talk.said)) :]
        asked.append(Asked((*before, (talk.script.texts[turn], "")), dose, luck(how.seed, talk, turn)))
    written = how.writer(asked)
    heard = how.feed.read([one.text for one in written], progress=False).values
    rows = []
    for talk, dose, one, ear in zip(talks, doses, written, heard, strict=True):
        mood = talk.state.mood if talk.state is not None else (np.nan,) * 3
        rows.append(
            dict(zip(KEYS, talk.key, strict=True))
            | {"turn": turn, "level": talk.script.levels[turn], "user": talk.script.texts[turn], "reply": one.text,
               "dropped": one.dropped}
            | dict(zip(AXES, map(float, mood), strict=True))
            | {f"said.{axis}": float(x) for axis, x in zip(AXES, talk.readings[turn], strict=True)}
            | {f"heard.{axis}": float(x) for axis, x in zip(AXES, ear, strict=True)}
            | {f"dose.{name}": dose.get(name, 0.0) for name in how.dosing.emotions}
        )  # fmt: skip
    return pd.DataFrame(rows)


def luck(seed: int, talk: Talk, turn: int) -> int:
    """The seed of a reply's sampling: of the script, the repeat and the turn, and the same under every policy.

    Args:
        seed: of the run.
        talk: the conversation.
        turn: of it.
    """
    name = [*f"{talk.script.protocol} {talk.script.name}".encode()]
    return int(np.random.SeedSequence([seed, talk.repeat, turn, *name]).generate_state(1)[0])
