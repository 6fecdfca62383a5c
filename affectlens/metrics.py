"""What a set of held-out logits is worth: within-fold AUROC, concordance and accuracy, as functions of cluster weights.

AUROC compares only items that one and the same probe scored: pairs of a positive and a negative item of one fold.
Logits of different folds come from different probes and are never pooled. Concordance (Harrell's C) is the same share
for labels in an order: of the comparisons whose labels differ, those that are ordered right.
"""

import numpy as np
from jaxtyping import Float, Int, Shaped

from affectlens.stats import Statistic, Weights


def auroc(
    scores: Float[np.ndarray, " item"],
    y: Shaped[np.ndarray, " item"],
    folds: Int[np.ndarray, " item"],
    groups: Int[np.ndarray, " item"],
) -> Statistic:
    """The share of within-fold comparisons that are ordered right, ties one half, as a statistic over groups.

    ``y`` is 0 and 1, or numbers in an order: every two items with different numbers are compared.

    ``groups`` are integers from 0. A comparison between two groups weighs the product of their weights, one within a
    group that group's weight: copies of one group in a bootstrap draw are not compared with each other, which would
    count the matched comparisons twice and shift the interval.
    """
    high, low = np.flatnonzero(y > y.min()), np.flatnonzero(y < y.max())
    same = (folds[high][:, None] == folds[low][None]) & (y[high][:, None] > y[low][None])
    gap = scores[high][:, None] - scores[low][None]
    won = np.where(same, (gap > 0) + 0.5 * (gap == 0), 0.0)
    n = int(groups.max()) + 1
    wins, total = np.zeros((n, n)), np.zeros((n, n))
    cells = np.ix_(groups[high], groups[low])
    np.add.at(wins, cells, won)
    np.add.at(total, cells, same.astype(float))
    own_wins, own_total = wins.diagonal().copy(), total.diagonal().copy()
    np.fill_diagonal(wins, 0.0)
    np.fill_diagonal(total, 0.0)

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        won = np.einsum("wg,wg->w", weights @ wins, weights) + weights @ own_wins
        over = np.einsum("wg,wg->w", weights @ total, weights) + weights @ own_total
        return np.divide(won, over, out=np.full_like(won, np.nan), where=over > 0)

    return statistic


def accuracy(
    logits: Float[np.ndarray, "item k"], y: Int[np.ndarray, " item"], groups: Int[np.ndarray, " item"]
) -> Statistic:
    """Balanced accuracy (the mean over classes of the share named right), as a statistic over groups."""
    right = (logits.argmax(1) == y).astype(float)
    n, k = int(groups.max()) + 1, logits.shape[1]
    hits, size = np.zeros((n, k)), np.zeros((n, k))
    np.add.at(hits, (groups, y), right)
    np.add.at(size, (groups, y), 1.0)

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        over = weights @ size
        shares = np.divide(weights @ hits, over, out=np.full_like(over, np.nan), where=over > 0)
        present = np.isfinite(shares)
        return np.where(present, shares, 0.0).sum(1) / np.maximum(present.sum(1), 1)

    return statistic


def average(values: Float[np.ndarray, " item"], groups: Int[np.ndarray, " item"]) -> Statistic:
    """The mean over items, as a statistic over groups."""
    n = int(groups.max()) + 1
    total, size = np.zeros(n), np.zeros(n)
    np.add.at(total, groups, values)
    np.add.at(size, groups, 1.0)

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        over = weights @ size
        return np.divide(weights @ total, over, out=np.full_like(over, np.nan), where=over > 0)

    return statistic


def metric(
    logits: Float[np.ndarray, "item k"],
    y: Shaped[np.ndarray, " item"],
    folds: Int[np.ndarray, " item"],
    groups: Int[np.ndarray, " item"],
) -> Statistic:
    """AUROC or concordance for one column of logits, balanced accuracy for several."""
    return auroc(logits[:, 0], y, folds, groups) if logits.shape[1] == 1 else accuracy(logits, y, groups)


def metric_name(n_classes: int) -> str:
    """What :func:`metric` computes for this many classes; none means an order."""
    return {0: "concordance", 2: "AUROC"}.get(n_classes, "balanced accuracy")
