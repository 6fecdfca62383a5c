"""Which features a k-sparse probe reads: those whose variance over the training rows the labels explain most.

For two classes the order is that of the absolute standardised mean difference (Gurnee et al. 2023; Kantamneni et al.
2025), for several that of the F statistic, for an order that of the absolute correlation: one rule, as each is a
growing function of the explained share. ``best`` and ``matched_in_density`` prepare a sweep
(:func:`affectlens.probing.sweep.sweep`), which calls them anew with the rows that each fit learns from.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from affectlens.probing.sweep import Prepare

Rows = Float[np.ndarray, "item feature"]
Columns = Callable[[Rows, Shaped[np.ndarray, " item"], int], Int[np.ndarray, "choice column"]]
ALIKE = 1e-12  # of a feature's sum of squares: less is rounding, not variance


def explained(x: Rows, y: Shaped[np.ndarray, " item"], n_classes: int) -> Float[np.ndarray, " feature"]:
    """The share of each feature's variance that the labels explain: 0 for a feature that does not vary.

    Args:
        x: the training rows.
        y: class indices, or floats for an order.
        n_classes: 0 for an order.
    """
    z = x.astype(np.float64)
    square = (z**2).sum(0)
    z -= z.mean(0)
    total = (z**2).sum(0)
    if n_classes:
        hot = np.eye(n_classes)[y][:, np.unique(y)]
        between = ((hot.T @ z) ** 2 / hot.sum(0)[:, None]).sum(0)
    else:
        away = y - y.mean()
        between = (away @ z) ** 2 / max(float(away @ away), 1e-300)
    return np.divide(between, total, out=np.zeros_like(total), where=total > ALIKE * square)


def ranked(x: Rows, y: Shaped[np.ndarray, " item"], n_classes: int) -> Int[np.ndarray, " feature"]:
    """Features by their explained share, the largest first; of equals, the one with the lower number."""
    return np.argsort(-explained(x, y, n_classes), kind="stable")


def best(ks: Sequence[int]) -> Prepare:
    """A layer for each k, which holds the k best features, and zeros in the places that are left.

    A column of zeros moves no penalised fit, so that every layer is the fit of its own columns alone.

    Args:
        ks: how many features; more than there are means all of them.
    """

    def prepare(
        x: Float[np.ndarray, "item layer feature"], y: Shaped[np.ndarray, " item"], n_classes: int
    ) -> Callable[[Float[np.ndarray, "some layer feature"]], Float[np.ndarray, "some k place"]]:
        order = ranked(x[:, 0], y, n_classes)[: max(ks)]
        kept = np.arange(len(order)) < np.array(ks)[:, None]
        return lambda values: values[:, :1, order] * kept.astype(values.dtype)

    return prepare


def described(
    x: Rows, y: Shaped[np.ndarray, " item"], classes: tuple[str, ...], most: int, density: Float[np.ndarray, " feature"]
) -> pd.DataFrame:
    """The best features in order: ``rank, feature, share, effect, towards, density``.

    ``share`` is the explained share of the training rows. ``effect`` is the standardised mean difference of two
    classes (Cohen's d), the correlation with an order, or for several classes how far the highest mean lies above the
    mean of all rows, in the feature's standard deviations. ``towards`` names the class with the highest mean.

    Args:
        x: the training rows.
        y: class indices, or floats for an order.
        classes: their names; empty for an order.
        most: how many features.
        density: the share of tokens at which each feature is active.
    """
    shares = explained(x, y, len(classes))
    order = np.argsort(-shares, kind="stable")[:most]
    z = x[:, order].astype(np.float64)
    spread = np.maximum(z.std(0), 1e-300)
    if classes:
        present = np.unique(y)
        means = np.stack([z[y == k].mean(0) for k in present])
        towards = np.array(classes)[present[means.argmax(0)]]
        effect = (means.max(0) - z.mean(0)) / spread
        if len(classes) == 2:
            effect = (means[-1] - means[0]) / spread / np.sqrt(np.maximum(1 - shares[order], 1e-12))
    else:
        effect = ((y - y.mean()) @ (z - z.mean(0))) / len(y) / spread / float(np.std(y))
        towards = np.where(effect > 0, "high", "low")
    return pd.DataFrame({
        "rank": np.arange(1, len(order) + 1), "feature": order, "share": shares[order], "effect": effect,
        "towards": towards, "density": density[order],
    })  # fmt: skip
