"""Means and ratios of means over pairs, as functions of the weights of groups."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.stats import Estimate, Statistic, Weights, estimate, less

UNIT = "group"


class Clusters:
    """The groups of a table's rows; each group's sums are weighted together."""

    def __init__(self, groups: Sequence[str]) -> None:
        self.codes, self.names = pd.factorize(np.asarray(groups, dtype=object))

    @property
    def n(self) -> int:
        return len(self.names)

    def sums(self, values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " group"]:
        """The sum of each group."""
        return np.bincount(self.codes, weights=values, minlength=self.n)

    def ratio(self, over: Float[np.ndarray, " row"], under: Float[np.ndarray, " row"]) -> Statistic:
        """The sum of one over the sum of the other."""
        high, low = self.sums(over), self.sums(under)

        def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
            total = weights @ low
            return np.divide(weights @ high, total, out=np.full_like(total, np.nan), where=total != 0)

        return statistic

    def mean(self, values: Float[np.ndarray, " row"]) -> Statistic:
        """The mean over rows."""
        return self.ratio(values, np.ones(len(values)))

    def estimate(self, one: Statistic, other: Statistic | None = None, *, folds: int = 0, seed: int = 0) -> Estimate:
        """A statistic, or its difference from another one, with the interval of :func:`affectlens.stats.estimate`."""
        return estimate(less(one, other) if other else one, self.n, UNIT, bounds=None, folds=folds, seed=seed)


def tells(found: Estimate) -> bool:
    """Whether the interval leaves out zero."""
    return found.low > 0 or found.high < 0
