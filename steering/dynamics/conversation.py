"""A live conversation with a mood beside it: what is said moves it, and it sets the doses of the next reply."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.directions import Directions
from affectlens.steering.dynamics.dosing import Dosing
from affectlens.steering.dynamics.feeding import Feed, axes_of
from affectlens.steering.dynamics.lexicons import LexiconFeed
from affectlens.steering.dynamics.policies import fed_by
from affectlens.steering.dynamics.replying import fitting, messages
from affectlens.steering.dynamics.state import AXES, REST, FirstOrder, Mood, MoodState, Rule
from affectlens.steering.shipped import load_directions
from affectlens.steering.writing import write

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Conversation:
    """A conversation whose doses follow a mood.

    Args:
        model: from :func:`affectlens.load_model`, with a chat template.
        rule: by which the mood moves.
        feed: what reads the texts; VADER by default.
        directions: with safe doses; by default those bundled for the model.
        emotions: that are steered; by default all that have directions.
        own: the weight of the model's own last reply beside the user's line.
        full: the offset of the mood, beyond ``still``, at which doses reach the ceiling.
        ceiling: the largest sum of doses; 1.0 is the safe dose.
        nearest: how many emotions share it.
        still: the offset up to which the mood counts as at rest.
        zero: what the feed reads in calm texts, which counts as nothing.
        history: exchanges before the last line that the model is shown, as far as they fit.
        decoding: ``max_new_tokens, temperature, top_p, seed`` as :func:`affectlens.steering.write` takes them.

    Raises:
        SteerError: no chat template, no directions for the model, or none with a safe dose.
    """

    def __init__(self, model: LensModel, *, rule: Rule | None = None, feed: Feed | None = None,
                 directions: Directions | str | Path | None = None, emotions: tuple[str, ...] | None = None,
                 own: float = 0.25, full: float = 0.25, ceiling: float = 1.0, nearest: int = 1,
                 still: float = 0.0, zero: Mood = REST, history: int = 8, **decoding: Any) -> None:  # fmt: skip
        if not model.tokenizer.chat_template:
            raise SteerError(f"{model.name} has no chat template, so it can't hold a conversation.")
        self.model, self.rule, self.feed = model, rule or FirstOrder(), feed or LexiconFeed()
        self.directions = directions if isinstance(directions, Directions) else load_directions(directions, model)
        self.directions.expect(model)
        self.dosing = Dosing.of(
            self.directions, emotions=emotions, axes=axes_of(self.feed), baseline=self.rule.baseline, full=full,
            ceiling=ceiling, nearest=nearest, still=still,
        )  # fmt: skip
        self.own, self.zero, self.history = own, np.asarray(zero, dtype=float), history
        self.decoding: dict[str, Any] = {"max_new_tokens": 64, "temperature": 0.7, "top_p": 0.95, "seed": 0} | decoding
        self.reset()

    def reset(self) -> None:
        """Begin anew, at rest."""
        self._mood = MoodState(self.rule)
        self._said: list[tuple[str, str]] = []
        self._heard = np.zeros(3)
        self._rows: list[dict[str, Any]] = []

    @property
    def state(self) -> Mood:
        """The mood."""
        return self._mood.mood

    @property
    def doses(self) -> dict[str, float]:
        """What the mood asks for now."""
        return self.dosing.doses(self.state)

    @property
    def turns(self) -> pd.DataFrame:
        """One row a turn: ``turn, user, reply``, the mood, ``said.AXIS``, ``heard.AXIS``, ``dose.EMOTION``."""
        return pd.DataFrame(self._rows)

    def say(self, text: str) -> str:
        """Say something; the mood moves, and the reply is steered by it.

        Args:
            text: the user's line.

        Raises:
            SteerError: an empty line.
            CaptureError: a line that does not fit into the context by itself.
        """
        if not text.strip():
            raise SteerError("There is nothing to reply to: say something.")
        shown = [*self._said[len(self._said) - min(self.history, len(self._said)) :], (text, "")]
        _, dropped = fitting(self.model, shown, int(self.decoding["max_new_tokens"]))
        read = self.feed.read([text], progress=False).values[0]
        moved = deepcopy(self._mood)  # kept once there is a reply
        doses = self.dosing.doses(moved.feel(fed_by(read - self.zero, self._heard, self.own)))
        luck = self.decoding | {"seed": int(self.decoding["seed"]) + len(self._said)}
        how: dict[str, Any] = {"doses": doses, "directions": self.directions} if doses else {}
        (reply,) = write(self.model, [messages(shown[dropped:])], progress=False, **how, **luck)
        reply = reply.strip()
        self._mood = moved
        heard = self.feed.read([reply], progress=False).values[0]
        self._heard = heard - self.zero
        self._said.append((text, reply))
        row: dict[str, Any] = {"turn": len(self._rows), "user": text, "reply": reply}
        row |= dict(_columns(self.state, read, heard))
        self._rows.append(row | {f"dose.{name}": doses.get(name, 0.0) for name in self.dosing.emotions})
        return reply

    def plot(self) -> "Figure":
        """Mood and doses by turn: :func:`affectlens.steering.dynamics.drawing.of_conversation`.

        Raises:
            SteerError: before anything was said.
        """
        from affectlens.steering.dynamics.drawing import of_conversation

        if not self._rows:
            raise SteerError("Nothing was said yet: say something first.")
        return of_conversation(self.turns)

    def __repr__(self) -> str:
        mood = ", ".join(f"{axis} {x:+.2f}" for axis, x in zip(AXES, self.state, strict=True))
        doses = ", ".join(f"{name} {dose:.2f}" for name, dose in self.doses.items()) or "none"
        return f"Conversation of {len(self._said)} turns ({self.rule.says}): {mood}; doses: {doses}"


def _columns(mood: Mood, said: np.ndarray, heard: np.ndarray) -> Iterator[tuple[str, float]]:
    for k, axis in enumerate(AXES):
        yield axis, float(mood[k])
        yield f"said.{axis}", float(said[k])
        yield f"heard.{axis}", float(heard[k])
