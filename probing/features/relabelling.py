"""Student's t of every feature under random labels of the true ones' structure; the first draw is the true labels."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.probing.features.halving import AFFECT, Pairs

Half = Callable[[bool, slice], tuple[Float[np.ndarray, "draw column"], Float[np.ndarray, " column"]]]  # t, its df


def swapped(pairs: Pairs, features: dict[str, np.ndarray], draws: int, seed: int) -> Half:
    """Paired t of each emotion's features, the twins of each pair swapped at random.

    Args:
        pairs: of the battery.
        features: which, by emotion.
        draws: how many, after the true labels.
        seed: of the swaps.
    """
    signs = np.where(np.random.default_rng((seed, 3)).random((draws + 1, len(pairs.scenes))) < 0.5, -1.0, 1.0)
    signs[0] = 1.0

    def half(discovery: bool, some: slice) -> tuple[np.ndarray, np.ndarray]:
        parts, df = [], []
        for emotion, own in features.items():
            rows = pairs.rows(emotion, discovery)
            values, n = pairs.differences[np.ix_(rows, own)].astype(np.float64), max(len(rows), 2)
            mean = signs[some][:, rows] @ values / n
            variance = ((values**2).sum(0) - n * mean**2) / (n - 1)
            parts.append(_ratio(mean, variance / n))
            df.append(np.full(len(own), n - 1.0))
        return np.concatenate(parts, axis=1), np.concatenate(df)

    return half


def dealt(pairs: Pairs, features: np.ndarray, draws: int, seed: int) -> Half:
    """Two-sample t of each emotion's scenes against the other emotions', emotions dealt anew.

    Args:
        pairs: of the battery.
        features: which, the same for all emotions.
        draws: how many, after the true labels.
        seed: of the deals.
    """
    labels = deals(pairs, draws, seed)

    def half(discovery: bool, some: slice) -> tuple[np.ndarray, np.ndarray]:
        rows = pairs.rows(AFFECT, discovery)
        values = pairs.differences[np.ix_(rows, features)].astype(np.float64)
        total, square, parts = values.sum(0), (values**2).sum(0), []
        for i in range(len(pairs.emotions)):
            mine = labels[some][:, rows] == i
            n = np.maximum(mine.sum(1, keepdims=True), 1)
            rest = np.maximum(len(rows) - n, 1)
            own = mine.astype(float) @ values
            within = (square - own**2 / n - (total - own) ** 2 / rest) / max(len(rows) - 2, 1)
            parts.append(_ratio(own / n - (total - own) / rest, within * (1 / n + 1 / rest)))
        return np.concatenate(parts, axis=1), np.full(len(pairs.emotions) * len(features), max(len(rows) - 2.0, 1.0))

    return half


def deals(pairs: Pairs, draws: int, seed: int) -> Int[np.ndarray, "draw pair"]:
    """Emotions of the scenes, dealt anew within each domain and half, as numbers in the order of ``pairs.emotions``.

    Args:
        pairs: of the battery.
        draws: how many deals, after a first line of the true ones.
        seed: of the deals.
    """
    rng = np.random.default_rng((seed, 4))
    codes = np.array([pairs.emotions.index(name) for name in pairs.scenes["emotion"]])
    labels = np.tile(codes, (draws + 1, 1))
    blocks = 2 * pd.factorize(pairs.scenes["domain"])[0] + pairs.found_in
    for block in np.unique(blocks):
        rows = np.flatnonzero(blocks == block)
        labels[1:, rows] = codes[rows][rng.random((draws, len(rows))).argsort(1)]
    return labels


def _ratio(value: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Student's t; 0 where there is no difference at all."""
    error = np.sqrt(np.maximum(variance, 1e-12 * value**2))
    return np.divide(value, error, out=np.zeros_like(value), where=error > 0)
