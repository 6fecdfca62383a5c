"""What was said and what was replied: text, tokens and readings of one exchange, steered and, if asked for, plain.

Readings are *read anew*: the plain model reads the finished reply with nothing added, so they show what its words hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from affectlens.generating import Decoding
from affectlens.layouts import Message
from affectlens.probing.tokens.pieces import Shown, cut
from affectlens.steering.directions import spelled


@dataclass(frozen=True)
class Column:
    """What one column of readings is."""

    emotion: str  # or the class of a probe
    site: str
    kind: str  # projection, or the probe by its target
    says: str
    zeroed: bool  # a logit: its zero means something by itself
    chance: str = ""  # how logits become probabilities: softmax over the kind's columns, sigmoid, or not at all


@dataclass(frozen=True, eq=False)
class Side:
    """One reply, token by token; the end token is left out."""

    text: str  # as it was written
    ids: tuple[int, ...]
    tokens: tuple[str, ...]  # joined they are what was written
    readings: Float[np.ndarray, "pos column"]

    def means(self) -> Float[np.ndarray, " column"]:
        """Each column's mean over the tokens; not a number where there are none."""
        return self.readings.mean(0) if len(self.readings) else np.full(self.readings.shape[1], np.nan)


@dataclass(frozen=True, eq=False)
class Exchange:
    """What a user said, and the reply. Draws itself in a notebook."""

    said: str
    reply: Side
    plain: Side | None  # the unsteered reply to the same conversation
    columns: tuple[Column, ...]
    doses: dict[str, float]
    plan: str  # in words; empty where nothing steered
    mark: str  # a hash of the plan's vectors; empty where nothing steered
    decoding: Decoding
    stopped: bool = False  # by the user, before its end
    left_out: int = 0  # exchanges before it that the context had no room for
    shown: str = ""  # the emotion whose reading colours it; the first column's by default

    @property
    def text(self) -> str:
        """The reply as the conversation goes on with it."""
        return self.reply.text.strip()

    @property
    def messages(self) -> list[Message]:
        """Both sides of it, as a chat template takes them."""
        return [{"role": "user", "content": self.said}, {"role": "assistant", "content": self.text}]

    @property
    def sides(self) -> tuple[tuple[str, Side], ...]:
        """The replies by name, the plain one first."""
        steered = ("steered" if self.doses else "plain", self.reply)
        return (steered,) if self.plain is None else (("plain", self.plain), steered)

    @property
    def column(self) -> int | None:
        """The column that colours it; None where nothing was read."""
        names = [column.emotion for column in self.columns]
        wanted = among(names, self.shown)
        return names.index(wanted) if wanted else 0 if names and self.reply.readings.size else None

    def centre(self, column: int) -> float:
        """The colours' zero: 0 of a logit, else the median token of the plain reply, or of the only one.

        Args:
            column: whose.
        """
        base = self.reply if self.plain is None else self.plain
        if self.columns[column].zeroed or not len(base.readings):
            return 0.0
        return float(np.median(base.readings[:, column]))

    def pieces(self, side: Side) -> list[Shown]:
        """A reply in pieces to look at, each with its distance from the colours' zero.

        Args:
            side: the reply.
        """
        column = self.column
        if column is None or not side.readings.size:
            return [Shown(side.text, 0.0, "", "not read", 0)] if side.text else []
        return _pieces(side.tokens, side.readings[:, column] - self.centre(column))

    def __repr__(self) -> str:
        from affectlens.steering.talking.summing import in_lines

        return in_lines(self)

    def _repr_html_(self) -> str:
        from affectlens.steering.talking.pages import as_html

        return as_html(self)


def among(names: Sequence[str], wanted: str) -> str | None:
    """The name that is meant: itself if it is there, else the other word, basic or peak, of the same emotion.

    >>> among(["fear", "grief"], "Sadness"), among(["sadness", "grief"], "grief"), among(["fear"], "joy")
    ('grief', 'grief', None)

    Args:
        names: of columns.
        wanted: as typed.
    """
    own = wanted.strip()
    for alike in (str, str.lower, spelled):
        for name in names:
            if alike(name) == alike(own):
                return name
    return None


def _pieces(tokens: Sequence[str], values: Float[np.ndarray, " pos"]) -> list[Shown]:
    text = "".join(tokens)
    ends = np.cumsum([len(token) for token in tokens], dtype=int)
    spans = [(int(end) - len(token), int(end)) for token, end in zip(tokens, ends, strict=True)]
    return [
        Shown(text[p.start : p.end], float(values[list(p.tokens)].mean()) if p.tokens else 0.0, "",
              "" if p.tokens else "no token", len(p.tokens))
        for p in (cut(text, spans) if text else ())
    ]  # fmt: skip
