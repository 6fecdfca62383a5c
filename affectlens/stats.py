"""Estimates that travel with their interval: cluster bootstrap, exact binomial, exact sign flips.

A cluster is a pair, triplet or quadruple: items of one scene are not independent, so scenes are resampled, never
items. Every statistic here is a function of cluster weights ``[draw, group]``: all-ones gives the value,
multinomial counts the bootstrap, and one zero at a time the jackknife. So a value and its interval can't come from
two different formulas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

DRAWS = 2000
AT_BOUND = "exact binomial at the bound"
FEW_CLUSTERS = 30  # below, the percentile bootstrap covers too little and the cluster t takes over

Weights = Float[np.ndarray, "draw group"]
Statistic = Callable[[Weights], Float[np.ndarray, " draw"]]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval.

    >>> print(Estimate(0.84, 0.781, 0.902, 32, "pair"))
    0.84 [0.78, 0.90]
    """

    value: float
    low: float  # of the 95% interval
    high: float
    n: int  # clusters
    unit: str  # what was resampled: pair, scene, quadruple, item
    p: float | None = None
    p_adjusted: float | None = None  # within the family of tests that it belongs to
    method: str = ""  # how the interval was made

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def estimate(
    statistic: Statistic, n: int, unit: str, *, seed: int = 0, bounds: tuple[float, float] | None = (0.0, 1.0),
    folds: int = 0,
) -> Estimate:  # fmt: skip
    """The value of ``statistic`` with a cluster interval.

    With at least 30 clusters, a percentile bootstrap of 2,000 draws; with fewer, the jackknife's standard error and
    Student's t with n - 1 degrees of freedom. A share that sits at its bound resamples to itself, whatever n: then the
    exact binomial interval for n successes in n clusters stands in for it.

    Scores from cross-validation vary more than their items show, because the folds share what they learn from. With
    ``folds``, the interval is the jackknife's whatever n, wider by :func:`shared`.
    """
    value = float(statistic(np.ones((1, n)))[0])
    if bounds and value in bounds:
        edge = binomial(float(n) if value == bounds[1] else 0.0, n, unit)
        return Estimate(value, edge.low, edge.high, n, unit, method=AT_BOUND)
    if n >= FEW_CLUSTERS and not folds:
        draws = statistic(multinomial(n, seed))
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        method = f"cluster bootstrap, {DRAWS} draws"
    else:
        part = jackknife([statistic], n)[:, 0]
        k = int(np.isfinite(part).sum())
        error = float(np.sqrt(np.nansum(part**2))) * shared(folds) if k > 1 else np.inf
        half = float(stats.t.ppf(0.975, k - 1)) * error if k > 1 else np.inf
        low, high = value - half, value + half
        method = "cluster jackknife, Student's t" + (f", widened for {folds} folds" if folds else "")
    if bounds:
        low, high = max(bounds[0], low), min(bounds[1], high)
    return Estimate(value, float(low), float(high), n, unit, method=method)


def jackknife(family: Sequence[Statistic], n: int) -> Float[np.ndarray, "group member"]:
    """Each cluster's part in the deviation of each statistic: the squares sum to the jackknife's variance."""
    left = np.stack([one(np.ones((n, n)) - np.eye(n)) for one in family], axis=1)
    k = np.isfinite(left).sum(0)
    return (left - np.nansum(left, axis=0) / np.maximum(k, 1)) * np.sqrt(np.maximum(k - 1, 0) / np.maximum(k, 1))


def shared(folds: int) -> float:
    """By how much the standard error of a cross-validated score exceeds that of its items: sqrt(1 + K / (K - 1)).

    Nadeau and Bengio (2003): the variance over K folds is (1 / K + test / train) times a fold's, not 1 / K times.
    """
    return float(np.sqrt(1 + folds / (folds - 1))) if folds > 1 else 1.0


@lru_cache(maxsize=4)
def multinomial(n: int, seed: int = 0, draws: int = DRAWS) -> Weights:
    """Bootstrap weights: how often each of ``n`` clusters is drawn. They are shared: don't write into them."""
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    weights.flags.writeable = False
    return weights


def binomial(wins: int | float, n: int, unit: str, *, level: float = 0.95) -> Estimate:
    """A share with its exact (Clopper-Pearson) interval; a tie counts as half a win.

    >>> print(binomial(6, 8, "quadruple"))
    0.75 [0.35, 0.97]
    """
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, wins, n - wins + 1)) if wins > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, wins + 1, n - wins)) if wins < n else 1.0
    return Estimate(wins / n, low, high, n, unit, method="exact binomial (Clopper-Pearson)")


def less(a: Statistic, b: Statistic) -> Statistic:
    """The difference of two statistics under the same weights, which pairs them."""

    def difference(weights: Weights) -> Float[np.ndarray, " draw"]:
        return a(weights) - b(weights)

    return difference


def paired(a: Statistic, b: Statistic, n: int, unit: str, *, seed: int = 0, folds: int = 0) -> Estimate:
    """``a`` less ``b``, resampled together; where either sits at its bound, the worst of both intervals.

    At a bound every resample gives the same value, and so would their difference.
    """
    one, other = (estimate(statistic, n, unit, seed=seed, folds=folds) for statistic in (a, b))
    found = estimate(less(a, b), n, unit, seed=seed, bounds=None, folds=folds)
    if AT_BOUND in (one.method, other.method) or found.low == found.high:
        return replace(found, low=one.low - other.high, high=one.high - other.low, method=AT_BOUND)
    return found


@dataclass(frozen=True)
class Band:
    """Values of a family (layers, offsets) with intervals that hold for all of them at once."""

    value: Float[np.ndarray, " member"]
    low: Float[np.ndarray, " member"]
    high: Float[np.ndarray, " member"]
    critical: float  # how many standard errors wide to each side


def band(family: Sequence[Statistic], n: int, *, seed: int = 0, draws: int = DRAWS, folds: int = 0) -> Band:
    """A simultaneous 95% band by sup-t: the half-width is one multiple of each member's standard error.

    The standard errors are the jackknife's, the multiple is the 95% quantile of the largest absolute t over the family
    (Montiel Olea and Plagborg-Moller 2019), drawn with the jackknife's covariance: below 30 clusters as clusters, each
    member studentised anew. With ``folds`` the band is wider by :func:`shared`.
    """
    value = np.array([float(one(np.ones((1, n)))[0]) for one in family])
    part = np.nan_to_num(jackknife(family, n))
    error = np.sqrt((part**2).sum(0))
    rng = np.random.default_rng(seed)
    if n >= FEW_CLUSTERS:
        t = rng.normal(size=(draws, n)) @ part / np.maximum(error, 1e-12)
    else:
        drawn = rng.normal(size=(draws, n, n)) @ part
        t = drawn.mean(1) / np.maximum(drawn.std(1, ddof=1) / np.sqrt(n), 1e-12)
    t[:, error < 1e-9] = 0.0
    critical = float(np.quantile(np.abs(t).max(1), 0.95))
    half = critical * error * shared(folds)
    return Band(value, value - half, value + half, critical)


def detectable(found: Estimate) -> float:
    """The least difference from zero that a two-sided 5% test of this precision finds with 80% power."""
    df = max(found.n - 1, 1)
    error = (found.high - found.low) / 2 / float(stats.t.ppf(0.975, df))
    return error * float(stats.t.ppf(0.975, df) + stats.t.ppf(0.8, df))


@dataclass(frozen=True)
class SignFlips:
    """The outcome of a sign-flip test over columns."""

    p: Float[np.ndarray, " column"]  # two-sided, each column by itself
    p_adjusted: Float[np.ndarray, " column"]  # max-T over the columns
    exact: bool  # all flips, or a sample
    attainable: float  # the least p that this many clusters can give


def sign_flips(values: Shaped[np.ndarray, "group column"], *, seed: int = 0, draws: int = 9999) -> SignFlips:
    """Test each column's mean against zero by flipping the sign of whole rows; max-T corrects over columns.

    The statistic is Student's t of the column. Up to 14 rows all flips are used; beyond, ``draws`` random ones with
    p = (1 + hits) / (1 + draws).
    """
    n = len(values)
    exact = n <= 14
    signs = (
        np.array(list(product((1.0, -1.0), repeat=n)))
        if exact
        else np.random.default_rng(seed).choice([1.0, -1.0], size=(draws, n))
    )
    square = (values**2).sum(0)
    seen, drawn = np.abs(_t(values.mean(0), square, n)), np.abs(_t(signs @ values / n, square, n))
    slack = 1e-9 * (1 + seen)
    hits = (drawn >= seen - slack).sum(0)
    hits_any = (drawn.max(1, keepdims=True) >= seen - slack).sum(0)
    total = len(signs) if exact else draws + 1
    extra = 0 if exact else 1
    return SignFlips((hits + extra) / total, (hits_any + extra) / total, exact, (2 if exact else 1) / total)


def _t(mean: np.ndarray, square: np.ndarray, n: int) -> np.ndarray:
    """Student's t from the mean and the (flip-invariant) sum of squares."""
    variance = np.maximum(square - n * mean**2, 1e-12 * (square + 1e-300)) / max(n - 1, 1)
    return np.where(square > 0, mean / np.sqrt(variance / n), 0.0)
