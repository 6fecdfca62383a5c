"""How large a feature's difference is, how much of it is one emotion's own, and whether it is shown to be negligible.

Units of analysis are scenes. Intervals are the jackknife's with Student's t (for a mean that is the textbook
interval), those of the share of pairs exact binomial. Where no difference varies, there is no interval: NaN.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

BOUNDS = (0.2, 0.5)  # SDs: Cohen's small and medium effect (1988, Statistical Power Analysis)
Columns = dict[str, np.ndarray]


def effects(values: Float[np.ndarray, "pair feature"]) -> Columns:
    """Mean difference, the same in SDs, and P(emotional > neutral) within the pair, each feature's with its interval.

    Args:
        values: differences of one half.

    Returns:
        ``mean``, ``low``, ``high`` in the feature's units; ``d``, mean over SD; ``auroc``, ``auroc_low``,
        ``auroc_high``, ties a half.
    """
    n, (mean, sd) = len(values), _moments(values)
    half = sd / np.sqrt(max(n, 1)) * (stats.t.ppf(0.975, n - 1) if n > 1 else np.nan)
    wins = (values > 0).sum(0) + 0.5 * (values == 0).sum(0)
    share, low, high = shares(wins, np.full(len(wins), n))
    return {"mean": mean, "low": mean - half, "high": mean + half, "d": mean / sd,
            "auroc": share, "auroc_low": low, "auroc_high": high}  # fmt: skip


def shares(
    wins: Float[np.ndarray, " row"], n: Int[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """Shares with their exact (Clopper-Pearson) 95% intervals; NaN out of none.

    Args:
        wins: a tie counts as half a win.
        n: out of how many.
    """
    over = np.where(n > 0, n, np.nan)
    low = np.where(wins > 0, stats.beta.ppf(0.025, np.maximum(wins, 0.5), over - wins + 1), 0 * over)
    high = np.where(wins < n, stats.beta.ppf(0.975, wins + 1, np.maximum(over - wins, 0.5)), 1 + 0 * over)
    return wins / over, low, high


def specific(by_emotion: Mapping[str, Float[np.ndarray, "_ feature"]], own: str) -> Columns:
    """An emotion's mean difference less the mean of the other emotions' means, in SDs within emotions.

    The interval is that of a jackknife stratified by emotion (Shao and Tu 1995, The Jackknife and Bootstrap), the
    SD left out and in with the scenes; degrees of freedom by Satterthwaite.

    Args:
        by_emotion: differences of one half, by emotion.
        own: the emotion.

    Returns:
        ``specific``, ``specific_low``, ``specific_high``; NaN for "affect" and where no other emotion has two scenes.
    """
    usable = {name: x.astype(np.float64) for name, x in by_emotion.items() if len(x) > 1}
    if own not in usable or len(usable) < 2:
        width = next(iter(by_emotion.values())).shape[1]
        return {name: np.full(width, np.nan) for name in ("specific", "specific_low", "specific_high")}
    others = len(usable) - 1
    weight = {name: 1.0 if name == own else -1 / others for name in usable}
    left = {name: x - x.mean(0) for name, x in usable.items()}
    within = sum((r**2).sum(0) for r in left.values())
    df = sum(len(x) for x in usable.values()) - len(usable)
    gap = sum(weight[name] * x.mean(0) for name, x in usable.items())
    with np.errstate(invalid="ignore", divide="ignore"):
        value = gap / np.sqrt(within / df)
        parts = []
        for name, r in left.items():  # of which one scene at a time is left out
            n = len(r)
            rest = np.maximum(within - n / (n - 1) * r**2, 0.0) / (df - 1)
            without = (gap - weight[name] * r / (n - 1)) / np.sqrt(rest)
            parts.append(((n - 1) / n * ((without - without.mean(0)) ** 2).sum(0), n - 1))
        variance = sum(part for part, _ in parts)
        freedom = variance**2 / sum(part**2 / n for part, n in parts)
        half = np.sqrt(variance) * stats.t.ppf(0.975, freedom)
    return {"specific": value, "specific_low": value - half, "specific_high": value + half}


def equivalence_bound(n: int) -> float:
    """The smaller of 0.2 and 0.5 SDs that n pairs without any difference can show in at least half of all cases.

    A bound that the design can't reach says nothing, and one chosen on the data proves nothing: so it hangs on n alone.
    That is 0.2 from 136 pairs on, 0.5 from 23 on, none (NaN) below. For scale, 0.2 SDs are 58 pairs in 100 in which
    the emotional twin is higher, 0.5 SDs 69 (normal differences).

    Args:
        n: pairs.
    """
    reach = (stats.t.ppf(0.95, n - 1) + stats.norm.ppf(0.75)) / np.sqrt(n) if n > 1 else np.inf
    return next((bound for bound in BOUNDS if reach <= bound), float("nan"))


def equivalence_p(values: Float[np.ndarray, "pair feature"], bound: float) -> Float[np.ndarray, " feature"]:
    """p of two one-sided tests (Schuirmann 1987) that the mean is ``bound`` SDs or more from zero.

    The bound is in SDs, which are estimated: then Student's t at the bound is non-central.

    Args:
        values: differences.
        bound: in SDs; NaN gives p = 1, as does a feature without variance.
    """
    n, (mean, sd) = len(values), _moments(values)
    if n < 2 or np.isnan(bound):
        return np.ones(values.shape[1])
    t = np.abs(mean) / sd * np.sqrt(n)  # the nearer bound decides
    return np.where(np.isfinite(t), stats.nct.cdf(np.nan_to_num(t), n - 1, bound * np.sqrt(n)), 1.0)


def _moments(values: Float[np.ndarray, "pair feature"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and SD; an SD of NaN where nothing varies."""
    wide, none = values.astype(np.float64), np.full(values.shape[1], np.nan)
    sd = wide.std(0, ddof=1) if len(values) > 1 else none
    return (wide.mean(0) if len(values) else none), np.where(sd > 0, sd, np.nan)
