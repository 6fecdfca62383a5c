"""``Beside``: plain and steered replies, token by token, as tables, as plain values, and as they are drawn.

Readings of tokens are read-outs, as activations are, not estimates: there is nothing to resample.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.steering import colouring
from affectlens.steering.directions import spelled
from affectlens.steering.plan import SteeringPlan
from affectlens.steering.readers import Reader
from affectlens.types import Json

if TYPE_CHECKING:
    from rich.console import RenderableType

FORWARDS = ("as written", "read anew")


@dataclass(frozen=True, eq=False)
class Reply:
    """One reply, token by token; the end token is left out."""

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]  # joined they are what was written; "" where a sign of several tokens is not complete yet
    as_written: Float[np.ndarray, "pos reader"]
    anew: Float[np.ndarray, "pos reader"]

    def readings(self, forward: str = "read anew") -> Float[np.ndarray, "pos reader"]:
        """The readings of one forward pass.

        Raises:
            SteerError: a pass that is neither ``as written`` nor ``read anew``.
        """
        if forward not in FORWARDS:
            raise SteerError(f"There is no pass {forward!r}: choose {' or '.join(map(repr, FORWARDS))}.")
        return self.anew if forward == "read anew" else self.as_written


@dataclass(frozen=True, eq=False)
class Pair:
    """One prompt and its two replies."""

    prompt: str  # of a conversation the last message
    plain: Reply
    steered: Reply

    @property
    def sides(self) -> tuple[tuple[str, Reply], ...]:
        return ("plain", self.plain), ("steered", self.steered)


@dataclass(frozen=True, eq=False)
class Beside:
    """Plain and steered replies. Draws itself in a terminal and in a notebook."""

    pairs: tuple[Pair, ...]
    readers: tuple[Reader, ...]  # the first colours the replies
    plan: SteeringPlan
    model: str
    decoding: Decoding

    def __len__(self) -> int:
        return len(self.pairs)

    @cached_property
    def centre(self) -> Float[np.ndarray, " reader"]:
        """The colour scale's zero by reader: 0 of a logit, else the median token of the plain replies, read anew."""
        tokens = np.concatenate([pair.plain.anew for pair in self.pairs])
        middle = np.median(tokens, axis=0) if len(tokens) else np.zeros(len(self.readers))
        return np.where([reader.zeroed for reader in self.readers], 0.0, middle)

    def column(self, emotion: str | None = None) -> int:
        """Which reader shows an emotion; by default that of the strongest dose.

        Raises:
            SteerError: an emotion that was not read.
        """
        names = [reader.emotion for reader in self.readers]
        if emotion is not None and spelled(emotion) not in names:
            raise SteerError(f"{emotion!r} was not read; choose {', '.join(dict.fromkeys(names))}.")
        return 0 if emotion is None else names.index(spelled(emotion))

    def frame(self) -> pd.DataFrame:
        """One row a token, reader and pass: ``prompt, version, token, text, emotion, site, forward, value``."""
        rows = []
        for i, pair in enumerate(self.pairs):
            for version, reply in pair.sides:
                for forward in FORWARDS:
                    values = reply.readings(forward)
                    for k, reader in enumerate(self.readers):
                        told = reader.emotion, str(reader.site), forward
                        rows += [(i, version, at, text, *told, float(values[at, k]))
                                 for at, text in enumerate(reply.tokens)]  # fmt: skip
        return pd.DataFrame(rows, columns="prompt version token text emotion site forward value".split())

    def table(self) -> pd.DataFrame:
        """One row a prompt, version and reader, with the mean reading over the reply's tokens.

        Columns are ``prompt, version, tokens, emotion, site, read_anew, as_written, reply``.
        """
        rows = []
        for i, pair in enumerate(self.pairs):
            for version, reply in pair.sides:
                for k, reader in enumerate(self.readers):
                    means = [float(v[:, k].mean()) if len(v) else float("nan") for v in (reply.anew, reply.as_written)]
                    rows.append((i, version, len(reply.tokens), reader.emotion, str(reader.site), *means, reply.text))
        return pd.DataFrame(rows, columns="prompt version tokens emotion site read_anew as_written reply".split())

    def as_json(self) -> Json:
        """All of it as plain values; ``readings`` are by reader and pass, a number a token."""
        pairs = []
        for pair in self.pairs:
            sides = {
                version: {"reply": reply.text, "tokens": list(reply.tokens),
                          "readings": [{f: reply.readings(f)[:, k].tolist() for f in FORWARDS}
                                       for k in range(len(self.readers))]}
                for version, reply in pair.sides
            }  # fmt: skip
            pairs.append({"prompt": pair.prompt, **sides})
        readers = [{"emotion": r.emotion, "site": str(r.site), "says": r.says, "steers": r.own} for r in self.readers]
        decoding = {name: getattr(self.decoding, name) for name in ("max_new_tokens", "temperature", "top_p", "seed")}
        return {"model": self.model, "plan": self.plan.explain(), "steered by": colouring.doses_of(self.plan),
                **decoding, "readers": readers, "shown": colouring.caption(self), "pairs": pairs}  # fmt: skip

    def html(self, *, emotion: str | None = None, forward: str = "read anew", legend: bool = True) -> str:
        """Two columns of coloured tokens, as a fragment of HTML for a page that is light or dark.

        Args:
            emotion: whose reading colours them; by default that of the strongest dose.
            forward: ``read anew``, or ``as written``, in which the added vector itself is seen.
            legend: say what is shown.
        """
        return colouring.as_html(self, self.column(emotion), forward, legend=legend)

    def _repr_html_(self) -> str:
        return self.html()

    def __rich__(self) -> "RenderableType":
        return colouring.for_terminal(self, self.column(), "read anew")

    def __repr__(self) -> str:
        return colouring.as_text(self, self.column())
