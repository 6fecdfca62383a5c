"""The phases of a study: plain replies, the loops and their open-loop twins, then what needs the loops' doses.

Each turn of a phase is kept once it is written, so that a stopped run goes on behind its last whole turn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.paths import write_parquet
from affectlens.steering.dynamics.adding import Gram, lengths
from affectlens.steering.dynamics.dosing import Dosing
from affectlens.steering.dynamics.feeding import Feed
from affectlens.steering.dynamics.policies import (
    CLOSED,
    EQUAL,
    OPEN,
    PLAIN,
    SHUFFLED,
    Schedule,
    equal_mean,
    fed_by,
    open_loop,
    shuffled,
)
from affectlens.steering.dynamics.replying import Writer
from affectlens.steering.dynamics.scripts import Script
from affectlens.steering.dynamics.settings import Setup
from affectlens.steering.dynamics.state import AXES, Rule, trajectory
from affectlens.steering.dynamics.turning import KEYS, Saying, Scales, Talk, converse
from affectlens.types import Json

PHASES = 3


@dataclass(frozen=True)
class Work:
    """A study that is going on in a folder."""

    folder: Path
    setup: Setup
    scripts: list[Script]
    writer: Writer
    feed: Feed
    dosing: Dosing
    gram: Gram
    tick: Callable[[], None]

    def turns(self) -> tuple[pd.DataFrame, Json]:
        """Every row of every conversation; the feed's zeros, and the length up to which a mood counts as at rest."""
        said = self._read()
        calm = np.concatenate([said[i][np.array(one.levels) == 0] for i, one in enumerate(self.scripts)])
        scales = Scales(_zero(calm), np.zeros(3), self.setup.own)
        plain = self._phase("plain", self._talks(PLAIN, said), scales)
        heard = plain.loc[plain["level"] == 0, [f"heard.{axis}" for axis in AXES]].to_numpy(dtype=float)
        scales = replace(scales, reply=_zero(heard))
        dosing = replace(self.dosing, still=self._still(plain, scales))
        loops = self._phase("loops", list(self._loops(said, scales, dosing)), scales, dosing)
        rest = self._phase("controls", list(self._controls(said, loops)), scales, dosing)
        zeros = {"user": scales.user.tolist(), "reply": scales.reply.tolist()}
        return self._told(pd.concat([plain, loops, rest], ignore_index=True), scales), zeros | {"still": dosing.still}

    def _still(self, plain: pd.DataFrame, scales: Scales) -> float:
        """How far moods stray when nothing happens: the given length, or what 95% of calm turns stay within.

        Each rule is fed with the calm turns of plain conversations alone, one after another.
        """
        if self.setup.still is not None:
            return self.setup.still
        calm = plain[plain["level"] == 0].sort_values(["protocol", "script", "repeat", "turn"])
        user, reply = (calm[[f"{what}.{axis}" for axis in AXES]].to_numpy(float) for what in ("said", "heard"))
        fed = np.stack(
            [fed_by(u, r, scales.own) for u, r in zip(user - scales.user, reply - scales.reply, strict=True)]
        )
        axes = list(self.dosing.axes)
        far = [np.linalg.norm((trajectory(rule, fed) - np.asarray(rule.baseline))[:, axes], axis=1)
               for rule in self.setup.rules]  # fmt: skip
        return float(np.quantile(np.concatenate(far), 0.95))

    def _told(self, rows: pd.DataFrame, scales: Scales) -> pd.DataFrame:
        """With the valence of the mood that the user's lines alone would make, and the length of what is added."""
        user = rows[[f"said.{axis}" for axis in AXES]].to_numpy(float) - scales.user
        alone = np.full(len(rows), np.nan)
        for rule in self.setup.rules:
            for _, talk in rows[rows["rule"] == rule.says].groupby(KEYS):
                here = talk.sort_values("turn").index.to_numpy()
                alone[here] = trajectory(rule, np.clip(np.nan_to_num(user[here]), -1.0, 1.0))[:, 0]
        doses = rows[[f"dose.{name}" for name in self.dosing.emotions]].to_numpy(float)
        return rows.assign(alone=alone, added=lengths(doses, self.gram))

    def _read(self) -> list[Float[np.ndarray, "turn 3"]]:
        """The feed's readings of the scripts."""
        every = self.feed.read([text for one in self.scripts for text in one.texts], progress=False).values
        ends = np.cumsum([len(one) for one in self.scripts])
        return [part.astype(float) for part in np.split(every, ends[:-1])]

    def _talks(self, policy: str, said: list[Float[np.ndarray, "turn 3"]], rule: Rule | None = None) -> list[Talk]:
        return [
            Talk(script, repeat, policy, said[i], rule if policy == CLOSED else None, rule.says if rule else "")
            for i, script in enumerate(self.scripts)
            for repeat in range(self.setup.repeats)
        ]

    def _loops(self, said: list[Float[np.ndarray, "turn 3"]], scales: Scales, dosing: Dosing) -> Iterator[Talk]:
        for rule in self.setup.rules:
            yield from self._talks(CLOSED, said, rule)
            plans: dict[tuple[str, str], Schedule] = {}
            for one in self.scripts:
                others = [
                    i for i, other in enumerate(self.scripts) if other.protocol == one.protocol and other is not one
                ]
                others = others or [self.scripts.index(one)]  # a single script has only itself
                fed = np.stack([np.clip(np.nan_to_num(said[i] - scales.user), -1, 1) for i in others])
                plans[one.protocol, one.name] = open_loop(rule, dosing, fed)
            for talk in self._talks(OPEN, said, rule):
                talk.schedule = plans[talk.script.protocol, talk.script.name]
                yield talk

    def _controls(self, said: list[Float[np.ndarray, "turn 3"]], loops: pd.DataFrame) -> Iterator[Talk]:
        columns = [f"dose.{name}" for name in self.dosing.emotions]
        closed = loops[loops["policy"] == CLOSED].sort_values("turn")
        for k, rule in enumerate(self.setup.rules):
            for policy in (EQUAL, SHUFFLED):
                for i, talk in enumerate(self._talks(policy, said, rule)):
                    own = closed[(closed["rule"] == rule.says) & (closed["script"] == talk.script.name)]
                    own = own[(own["protocol"] == talk.script.protocol) & (own["repeat"] == talk.repeat)]
                    doses = own[columns].to_numpy(dtype=float)
                    luck = int(np.random.SeedSequence([self.setup.seed, k, i]).generate_state(1)[0])
                    talk.schedule = equal_mean(doses, self.gram) if policy == EQUAL else shuffled(doses, luck)
                    yield talk

    def _phase(self, name: str, talks: list[Talk], scales: Scales, dosing: Dosing | None = None) -> pd.DataFrame:
        path = self.folder / "turns" / f"{name}.parquet"
        done = pd.read_parquet(path) if path.is_file() else pd.DataFrame()
        tables = {int(str(turn)): rows for turn, rows in done.groupby("turn")} if len(done) else {}

        def keep(turn: int, rows: pd.DataFrame) -> None:
            tables[turn] = rows
            write_parquet(path, pd.concat([tables[k] for k in sorted(tables)], ignore_index=True))

        how = Saying(self.writer, self.feed, dosing or self.dosing, scales, self.setup.history, self.setup.seed)
        return converse(talks, how, kept=tables.get, keep=keep, tick=self.tick)


def _zero(values: Float[np.ndarray, "text 3"]) -> Float[np.ndarray, " 3"]:
    """The mean of what was read; 0 for an axis that was not."""
    known = np.isfinite(values)
    return np.nan_to_num(values).sum(0) / np.maximum(known.sum(0), 1)
