"""Faithfulness and the areas under it, as functions of the weights of scenes.

Of a circuit C, ``f = (mean m(C) - mean m(none)) / (mean m(full) - mean m(none))``: a ratio of means over pairs, not a
mean of ratios. ``none`` keeps no edge, ``full`` keeps every one. Over sizes s of the edges, CPR is the area under f and
CMD that under |1 - f|, by trapezoids between the sizes on their linear axis (MIB, Mueller et al. 2025,
arXiv:2504.13151). The area begins at the smallest size, as in MIB's code, which adds no point at 0; so from .001 to 1 a
circuit that is all at every size has CPR 0.999 and CMD 0. A size's own f can pass 1. Unlike MIB's, a circuit of a size
has so many edges after pruning, not before.

In a resample of scenes everything is computed anew from the scenes' sums: both means, all sizes, the areas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import t as student

from affectlens.errors import CircuitError
from affectlens.stats import Estimate, Statistic, Weights, estimate, jackknife

UNIT = "scene"


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over each scene's pairs of a metric less its value without any edge."""

    names: tuple[str, ...]  # of the circuits
    value: Float[np.ndarray, "group circuit"]
    gap: Float[np.ndarray, " group"]  # of the full model
    n: Float[np.ndarray, " group"]  # pairs

    @classmethod
    def of(cls, values: pd.DataFrame) -> "Sums":
        """From one row a pair and circuit: ``pair, group, circuit, value, full, none``.

        Args:
            values: of several calls; each circuit's name is its own.

        Raises:
            CircuitError: a circuit that lacks a pair, or values that are not finite.
        """
        pairs = values.groupby("pair", sort=True)[["full", "none"]].mean()
        group = values.drop_duplicates("pair").set_index("pair")["group"].reindex(pairs.index)
        wide = values.pivot_table(index="pair", columns="circuit", values="value", sort=True).reindex(pairs.index)
        table = wide.sub(pairs["none"], axis=0)
        table[GAP], table[N] = pairs["full"] - pairs["none"], 1.0
        if not np.isfinite(table.to_numpy()).all():
            raise CircuitError(
                "Some pairs have no finite value for some circuit: run the verification anew, in float32."
            )
        sums = table.groupby(group.to_numpy(), sort=True).sum()
        names = tuple(str(name) for name in wide.columns)
        return cls(names, sums[list(wide.columns)].to_numpy(), sums[GAP].to_numpy(), sums[N].to_numpy())

    @cached_property
    def at(self) -> dict[str, int]:
        """Each circuit's column."""
        return {name: column for column, name in enumerate(self.names)}

    def f(self, names: Sequence[str], weights: Weights) -> Float[np.ndarray, "draw circuit"]:
        """Faithfulness under each draw's weights.

        Args:
            names: of the circuits.
            weights: of the scenes.
        """
        chosen = self.value[:, [self.at[name] for name in names]]
        return (weights @ chosen) / (weights @ self.gap)[:, None]

    def one(self, name: str) -> Statistic:
        """Faithfulness of one circuit.

        Args:
            name: its name.
        """

        def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
            return self.f([name], weights)[:, 0]

        return statistic

    def mean(self, names: Sequence[str]) -> Statistic:
        """The mean faithfulness of several circuits.

        Args:
            names: theirs.
        """

        def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
            return self.f(names, weights).mean(1)

        return statistic

    def estimate(self, statistic: Statistic, seed: int = 0) -> Estimate:
        """A value with its interval over scenes; by :func:`affectlens.stats.estimate`, unbounded.

        Args:
            statistic: of weights.
            seed: of the bootstrap.
        """
        return estimate(statistic, len(self.n), UNIT, seed=seed, bounds=None)

    def by_jackknife(self, statistic: Statistic) -> Estimate:
        """A value with Student's t on the jackknife over scenes, however many there are: closer to 95% for the CPR.

        Args:
            statistic: of weights.
        """
        n = len(self.n)
        value = float(statistic(np.ones((1, n)))[0])
        half = float("inf")
        if n > 1:
            half = float(student.ppf(0.975, n - 1) * np.sqrt((jackknife([statistic], n) ** 2).sum()))
        return Estimate(value, value - half, value + half, n, UNIT, method="cluster jackknife, Student's t")

    def gap_mean(self, weights: Weights) -> Float[np.ndarray, " draw"]:
        """The mean of m(full) - m(none) over pairs, in the metric's unit.

        Args:
            weights: of the scenes.
        """
        return (weights @ self.gap) / (weights @ self.n)


GAP, N = "__gap__", "__n__"


def cpr(fractions: Sequence[float], f: Float[np.ndarray, "draw size"]) -> Float[np.ndarray, " draw"]:
    """The area under f.

    >>> cpr([0.0, 0.5, 1.0], np.array([[0.0, 0.5, 1.0]])).tolist()
    [0.5]

    Args:
        fractions: rising sizes.
        f: at each size.
    """
    return np.trapezoid(f, np.asarray(fractions), axis=1)


def cmd(fractions: Sequence[float], f: Float[np.ndarray, "draw size"]) -> Float[np.ndarray, " draw"]:
    """The area under \\|1 - f\\|.

    >>> cmd([0.0, 0.5, 1.0], np.array([[1.0, 1.5, 1.0]])).tolist()
    [0.25]

    Args:
        fractions: rising sizes.
        f: at each size.
    """
    return np.trapezoid(np.abs(1 - f), np.asarray(fractions), axis=1)
