"""A statistic of the directions' shape at every layer, with its interval and its test, as rows of a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.probing.geometry.directions import Directions
from affectlens.probing.geometry.grams import centred
from affectlens.probing.geometry.nulls import BOOTSTRAP, JACKKNIFE, Null, jackknife, percentile

WORD_BLOCKS = 24  # words are left out in this many random blocks
Shape = Callable[[Float[np.ndarray, "many n n"], Int[np.ndarray, " n"]], Float[np.ndarray, "many k"]]
"""A statistic of centred Gram matrices of the names that are kept (an index into all names)."""


@dataclass(frozen=True)
class Curve:
    """Statistics by layer, and what they are in each resample."""

    value: Float[np.ndarray, "layer k"]
    resampled: Float[np.ndarray, "draw layer k"]  # bootstrap draws, or each block of words left out
    method: str

    def interval(self) -> tuple[Float[np.ndarray, "layer k"], Float[np.ndarray, "layer k"]]:
        """The ends of the 95% intervals."""
        return percentile(self.resampled) if self.method == BOOTSTRAP else jackknife(self.value, self.resampled)

    def less(self, other: "Curve", at: int) -> "Curve":
        """One layer of this less the only layer of another, over the same resamples."""
        value, again = (a[..., at : at + 1, :] - b for a, b in ((self.value, other.value),
                        (self.resampled, other.resampled)))  # fmt: skip
        return Curve(value, again, self.method)

    def rows(
        self, directions: Directions, names: Sequence[str], nulls: Sequence[Null | None], column: str,
        least: Sequence[float] | None = None, **labels: object,
    ) -> pd.DataFrame:  # fmt: skip
        """A tidy table, one row a statistic and layer.

        Args:
            directions: that the statistics are of.
            names: of the statistics.
            nulls: the test of each, or None.
            column: what the statistics are called.
            least: the least value that each statistic can have, -1 by default. The largest is 1, or as much.
            labels: columns with one value.
        """
        low, high = self.interval()
        floor = np.array([-1.0] * len(names) if least is None else least, dtype=float)
        low, high = np.maximum(low, floor), np.minimum(high, np.maximum(1.0, -floor))
        parts = []
        for k, (name, null) in enumerate(zip(names, nulls, strict=True)):
            tested = {"p": null.p, "p_adjusted": null.p_adjusted, "attainable": null.attainable} if null else {
                "p": np.nan, "p_adjusted": np.nan, "attainable": np.nan}  # fmt: skip
            parts.append(pd.DataFrame({
                "set": directions.kind, **labels, column: name, "layer": directions.layers,
                "value": self.value[:, k], "low": low[:, k], "high": high[:, k], "n": count(directions),
                "unit": directions.unit, **tested, "method": self.method,
            }))  # fmt: skip
        return pd.concat(parts, ignore_index=True)


def count(directions: Directions) -> int:
    """The clusters that intervals resample."""
    return len(directions.table) if directions.kind == "emotions" else len(directions.names)


def curve(directions: Directions, shape: Shape, *, most: int | None = None) -> Curve:
    """The statistic at every layer, and over bootstrap draws of scenes, or without each of 24 blocks of words.

    Args:
        directions: of emotions or words.
        shape: the statistic.
        most: bootstrap draws to use, all of them by default.
    """
    n = len(directions.names)
    every = np.arange(n)
    value = shape(directions.gram, every)
    if directions.kind == "emotions":
        again = directions.resampled[:most]
        return Curve(value, shape(again.reshape(-1, n, n), every).reshape(*again.shape[:2], -1), BOOTSTRAP)
    blocks = np.random.default_rng(0).permutation(n) % min(WORD_BLOCKS, n)
    left = []
    for block in np.unique(blocks):
        kept = np.flatnonzero(blocks != block)
        left.append(shape(centred(directions.gram[:, kept[:, None], kept[None]]), kept))
    return Curve(value, np.stack(left), JACKKNIFE)
