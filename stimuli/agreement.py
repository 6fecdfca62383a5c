"""Krippendorff's alpha, with an interval over items: how far raters agree beyond chance, with gaps allowed.

Krippendorff (2019), Content Analysis, 4th edition, chapter 12. alpha = 1 - D_observed / D_expected, from the
coincidences of values within an item.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from affectlens.errors import BatteryError
from affectlens.stats import Estimate, Statistic, Weights, estimate

LEVELS = ("nominal", "ordinal", "interval")


def alpha(ratings: Float[np.ndarray, "rater item"], level: str = "nominal", *, seed: int = 0) -> Estimate:
    """Krippendorff's alpha with an interval over items: bootstrap from 30 items on, jackknife below; 1 at most.

    >>> print(alpha(np.array([[1.0, 2, 3, 3], [1, 2, 3, 3]])).value)
    1.0

    Args:
        ratings: one row a rater, NaN where an item was not rated; codes for nominal values.
        level: nominal, ordinal or interval.
        seed: of the bootstrap.

    Raises:
        BatteryError: an unknown level, fewer than two items that two raters rated, or no two ratings that differ.
    """
    if level not in LEVELS:
        raise BatteryError(f"The level is {level!r}, expected {', '.join(LEVELS)}.")
    kept = ratings[:, (~np.isnan(ratings)).sum(0) >= 2]
    if kept.shape[1] < 2:
        raise BatteryError("Alpha needs at least two items that two raters rated.")
    values = np.unique(kept[~np.isnan(kept)])
    if len(values) < 2:
        raise BatteryError(
            "All ratings are equal: alpha is undefined (0/0) without variation. Report the share of agreement."
        )
    counts = np.stack([(kept == value).sum(0) for value in values], axis=1).astype(float)  # item, value
    found = estimate(_statistic(counts, values, level), len(counts), "item", seed=seed, bounds=None)
    return replace(found, high=min(found.high, 1.0))


def _statistic(counts: Float[np.ndarray, "item value"], values: Float[np.ndarray, " value"], level: str) -> Statistic:
    """Alpha of weighted items; NaN where a draw has no variation."""
    size = counts.sum(1)
    both = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    pairs = both / (size - 1)[:, None, None]

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        out = np.empty(len(weights))
        for draw, weight in enumerate(weights):
            coincidence = np.tensordot(weight, pairs, axes=1)
            total = coincidence.sum(1)
            n = total.sum()
            distance = METRICS[level](values, total)
            expected = (np.outer(total, total) * distance).sum() / max(n - 1, 1)
            out[draw] = np.nan if expected == 0 else 1 - (coincidence * distance).sum() / expected
        return out

    return statistic


def _ordinal(_values: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Squared sum of frequencies between two ranks, less half of each end."""
    upto = np.cumsum(total)
    middle = upto - total / 2
    return (middle[:, None] - middle[None]) ** 2


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "nominal": lambda values, _total: (values[:, None] != values[None]).astype(float),
    "ordinal": _ordinal,
    "interval": lambda values, _total: (values[:, None] - values[None]) ** 2,
}
