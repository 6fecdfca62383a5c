"""``TokenScores``: texts with a probe's score of each token, as arrays, tidy tables, and as they are drawn.

The logits of one text are read-outs, as activations are, not estimates: there is nothing to resample.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from affectlens.probing.probes import Probes
from affectlens.probing.tokens import heat
from affectlens.probing.tokens.pieces import Piece, cut
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.console import Console, ConsoleOptions, RenderResult


@dataclass(frozen=True, eq=False)
class TextScores:
    """One text, token by token."""

    name: str
    text: str  # of a conversation, the rendered template
    spans: tuple[tuple[int, int], ...]  # the characters that each token covers
    logits: Float[np.ndarray, "pos layer k"]
    scored: Bool[np.ndarray, "pos"]  # the text's own tokens, without the first of the sequence
    pooled: Bool[np.ndarray, "pos"]  # those that the probe's position pools
    sinks: Bool[np.ndarray, "pos layer"]  # the first token, and norms above SINK times the median

    @property
    def logit(self) -> Float[np.ndarray, "layer k"]:
        """The mean over the pooled tokens: what :meth:`Probes.score` gives for the text."""
        mean: np.ndarray = self.logits[self.pooled].mean(0)
        return mean

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The text in pieces, each character in one."""
        return cut(self.text, self.spans)


@dataclass(frozen=True, eq=False)
class Scale:
    """What is shown of the logits: one class or the one that wins, as they are or against a reference."""

    column: int | None  # None: the winning class, with its margin over the next
    sign: float  # -1 where a probe of two classes is read for its first
    centre: Float[np.ndarray, "layer k"]
    spread: Float[np.ndarray, "layer k"]
    reference: str = ""  # in words; empty: logits as they are

    def __call__(
        self, logits: Float[np.ndarray, "*pos layer k"]
    ) -> tuple[Float[np.ndarray, "*pos layer"], Int[np.ndarray, "*pos layer"] | None]:
        """The scores, and which class wins if that is what is shown."""
        z = (logits - self.centre) / self.spread
        if self.column is not None:
            return self.sign * z[..., self.column], None
        ranked = np.sort(z, axis=-1)
        return ranked[..., -1] - ranked[..., -2], z.argmax(-1)


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Texts and the probe's score of each token. Draws itself in a terminal and in a notebook."""

    texts: tuple[TextScores, ...]
    probes: Probes
    method: str
    layer: int  # the one that colours the text
    layers: tuple[int, ...]  # those that were read
    shown: str  # the class, or empty for the winning one
    scale: Scale

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[TextScores]:
        return iter(self.texts)

    def frame(self) -> pd.DataFrame:
        """One row a token and layer: ``item, token, start, end, text, layer, score, class, scored, pooled, sink``."""
        rows: list[tuple[object, ...]] = []
        for one in self.texts:
            scores, winners = self.scale(one.logits)
            for at, (start, end) in enumerate(one.spans):
                told = (one.name, at, start, end, one.text[start:end])
                marks = (bool(one.scored[at]), bool(one.pooled[at]))
                for i, layer in enumerate(self.layers):
                    rows.append((*told, layer, float(scores[at, i]), self.named(winners, at, i), *marks,
                                 bool(one.sinks[at, i])))  # fmt: skip
        columns = "item token start end text layer score class scored pooled sink".split()
        return pd.DataFrame(rows, columns=columns)

    def table(self) -> pd.DataFrame:
        """One row a text and layer, ``item, layer, score, class, tokens``: the mean over the pooled tokens."""
        rows = []
        for one in self.texts:
            scores, winners = self.scale(one.logit)
            rows += [(one.name, layer, float(scores[i]), self.named(winners, i), int(one.pooled.sum()))
                     for i, layer in enumerate(self.layers)]  # fmt: skip
        return pd.DataFrame(rows, columns=["item", "layer", "score", "class", "tokens"])

    def as_json(self) -> Json:
        """What is shown and what was found, as plain values: ``texts``, each with its ``layers`` and ``tokens``."""
        probes, tokens, means = self.probes, self.frame(), self.table()
        texts = [
            {"id": one.name, "text": one.text,
             "layers": means[means["item"] == one.name].drop(columns="item").to_dict("records"),
             "tokens": tokens[tokens["item"] == one.name].drop(columns="item").to_dict("records")}
            for one in self.texts
        ]  # fmt: skip
        return {
            "shown": heat.caption(self), "model": probes.model, "fingerprint": probes.fingerprint, "site": probes.site,
            "target": probes.target, "position": probes.position, "method": self.method, "layer": self.layer,
            "class": self.shown or None, "reference": self.scale.reference or None, "texts": texts,
        }  # fmt: skip

    def named(self, winners: Int[np.ndarray, "*at"] | None, *at: int) -> str:
        """The class that is shown, or that wins at one place."""
        return self.shown if winners is None else self.probes.classes[int(winners[at])]

    def html(self, *, legend: bool = True) -> str:
        """The coloured texts as a fragment of HTML, for a page that is light or dark; ``legend`` says what is shown."""
        return heat.as_html(self, legend=legend)

    def plot(self, text: int = 0) -> "Figure":
        """The layers of one text as a heat map, token by token; read them with ``by_layer=True``."""
        return heat.by_layer(self, text)

    def __repr__(self) -> str:
        return heat.as_text(self)

    def _repr_html_(self) -> str:
        return self.html()

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        yield from heat.for_terminal(self, coloured=bool(console.color_system) and not console.no_color)

    def _ipython_display_(self) -> None:
        from IPython import display

        ipython: Any = display
        ipython.display(ipython.HTML(self.html()))
        for i in range(len(self) if len(self.layers) > 1 else 0):
            ipython.display(self.plot(i))
