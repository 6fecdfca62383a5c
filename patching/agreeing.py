"""How well estimates of many cells agree with exact patches: figures over weighted cells, and their intervals."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from affectlens.patching.columns import CELL
from affectlens.stats import DRAWS, FEW_CLUSTERS, Estimate, Weights, estimate, multinomial

Cells = Float[np.ndarray, " cell"]
Which = Bool[np.ndarray, " cell"]
Figure = Callable[[Cells, Cells, Cells, Which], float]


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of changes over each group's pairs, for each cell."""

    estimate: Float[np.ndarray, "group cell"]
    exact: Float[np.ndarray, "group cell"]
    n: Float[np.ndarray, "group cell"]
    weight: Cells
    own: Which  # of one pair, so that it is drawn with its group
    top: Which

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Sums":
        """From one row a pair and cell: its group, the cell's columns, both changes, ``chosen`` and ``weight``."""
        group = pd.factorize(rows["group"])[0]
        cell = rows.groupby([*CELL, "own"], sort=False).ngroup().to_numpy()
        shape = (group.max() + 1, cell.max() + 1)
        totals = []
        for values in (rows["estimate"].to_numpy(), rows["exact"].to_numpy(), np.ones(len(rows))):
            total = np.zeros(shape)
            np.add.at(total, (group, cell), values)
            totals.append(total)
        facts = rows.iloc[np.unique(cell, return_index=True)[1]]
        own, top = (facts["own"] != "").to_numpy(), (facts["chosen"] == "top").to_numpy()
        return cls(totals[0], totals[1], totals[2], facts["weight"].to_numpy(), own, top)

    def drawn(self, groups: Float[np.ndarray, " group"]) -> tuple[Cells, Cells, Cells, Which]:
        """Estimates, exact changes, weights, and which are of the top, with each group as often as is said."""
        n = groups @ self.n
        there = n > 0
        weight = self.weight * np.where(self.own, n, 1.0)
        estimates, exact = (groups @ sums / np.maximum(n, 1.0) for sums in (self.estimate, self.exact))
        return estimates[there], exact[there], weight[there], self.top[there]


def with_interval(sums: Sums, figure: Figure, bounds: tuple[float, float]) -> Estimate:
    """A figure over cells, with groups of pairs resampled.

    Ranks and shares move in steps, which leaving out one group may not show. So below 30 groups the interval is the
    jackknife's and the bootstrap's together.

    Args:
        sums: what is resampled.
        figure: of estimates, exact changes, weights, and which cells are of the top.
        bounds: between which it lies; 0 and 1 are a share's.
    """

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        return np.array([figure(*sums.drawn(groups)) for groups in weights])

    n = len(sums.n)
    value = float(statistic(np.ones((1, n)))[0])
    if n < 2 or not np.isfinite(value):
        why = "no interval from one group" if n < 2 else "not defined: no cell differs from the others"
        return Estimate(value, *bounds, n, "group", method=why)
    found = estimate(statistic, n, "group", bounds=bounds if bounds == (0.0, 1.0) else None)
    if n < FEW_CLUSTERS:
        low, high = np.nanpercentile(statistic(multinomial(n)), [2.5, 97.5])
        both = f"{found.method}, and cluster bootstrap, {DRAWS} draws"
        found = replace(found, low=min(found.low, float(low)), high=max(found.high, float(high)), method=both)
    return replace(found, low=max(found.low, bounds[0]), high=min(found.high, bounds[1]))


def rank_correlation(estimates: Cells, exact: Cells, weight: Cells, _top: Which) -> float:
    """Spearman's correlation, each cell counted as often as its weight says."""
    return _correlation(midranks(estimates, weight), midranks(exact, weight), weight)


def regression_slope(estimates: Cells, exact: Cells, weight: Cells, _top: Which) -> float:
    """The slope of the exact change on the estimated one, by weighted least squares with a constant."""
    if not weight.sum():
        return float("nan")
    away, off = (values - np.average(values, weights=weight) for values in (estimates, exact))
    square = float((weight * away**2).sum())
    return float((weight * away * off).sum()) / square if square > 0 else float("nan")


def sign_agreement(estimates: Cells, exact: Cells, weight: Cells, _top: Which) -> float:
    """The weighted share of one sign, among cells of which the estimate or the exact change is not zero."""
    moved = (estimates != 0) | (exact != 0)
    same = np.sign(estimates) == np.sign(exact)
    return float(np.average(same[moved], weights=weight[moved])) if weight[moved].sum() else float("nan")


def recall_of(_estimates: Cells, exact: Cells, weight: Cells, top: Which, *, k: int) -> float:
    """The share of the ``k`` largest exact changes, weights counted, that the screen has among its first."""
    order = np.argsort(-np.abs(exact), kind="stable")
    before = np.cumsum(weight[order]) - weight[order]
    share = np.clip(k - before, 0.0, weight[order])
    return float((share * top[order]).sum() / share.sum()) if share.sum() else float("nan")


def midranks(values: Cells, weight: Cells) -> Cells:
    """Ranks with ties at their middle, each value counted as often as its weight says; from 0."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    below = np.concatenate([[0.0], np.cumsum(weight[order])])
    return (below[np.searchsorted(ordered, values, "left")] + below[np.searchsorted(ordered, values, "right")]) / 2


def _correlation(a: Cells, b: Cells, weight: Cells) -> float:
    if not weight.sum():
        return float("nan")
    a, b = (values - np.average(values, weights=weight) for values in (a, b))
    size = float(np.sqrt((weight * a**2).sum() * (weight * b**2).sum()))
    return float((weight * a * b).sum()) / size if size > 0 else float("nan")
