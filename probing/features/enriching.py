"""Whether more features survive than under random labels of the same structure.

Features of one dictionary fire together, so that how many pass is no sum of independent tests, and no formula gives
its null. Here discovery and confirmation are run whole on random labels:

- *emotional less neutral*: emotional and neutral are swapped at random within each pair, which asks whether there is
  anything to find.
- *own less others*: emotions are dealt anew among the scenes of each domain and half, so that each emotion gets a
  random set of scenes of the same size and balance. This asks whether an emotion has features that are its own.

One statistic, one null: counts of true and of random labels come from the same p, that of Student's t (paired; or of
two samples with one variance), as exact p would take hours. It need not be right for that: it only ranks. So the
counts differ from those of the exact tests, which stand beside them. What the labels can't change chooses the features.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import special, stats

from affectlens.errors import BatteryError
from affectlens.probing.features.differing import tested
from affectlens.probing.features.halving import AFFECT, Pairs, pair
from affectlens.probing.features.relabelling import Half, dealt, swapped

PAIRED, OWN = "emotional less neutral", "own less others"
_AT_ONCE = 2_000_000  # p values of one block of draws


def enrichment(
    pooled: Float[np.ndarray, "item feature"],
    items: pd.DataFrame,
    table: pd.DataFrame,
    *,
    draws: int = 199,
    seed: int = 0,
    q: float = 0.05,
    fewest: int = 8,
) -> pd.DataFrame:
    """Counts of features that survive, against the same counts under random labels.

    Args:
        pooled: one number an item and feature, those of the table.
        items: the battery's table.
        table: by :func:`differential`, with the same seed.
        draws: random labellings.
        seed: of the table; the halves hang on it, and so do the labellings.
        q: false discovery rate of each half.
        fewest: discovery pairs in which a feature must be active, for "own less others" (of all emotions together).

    Returns:
        One row a contrast and emotion: ``count``, ``null_mean``, ``null_low``, ``null_high`` (the range of 95% of the
        draws), ``p`` = (1 + hits) / (1 + draws), ``p_adjusted`` (with the largest count over the emotions of the
        contrast; "affect" by itself), ``attainable`` (the least p), ``draws``, and ``survived``, the count by the exact
        tests of the table.

    Raises:
        BatteryError: the table is not of these activations and this seed, or columns or pairs are missing.
    """
    pairs = pair(pooled, items, seed=seed)
    _same(pairs, table)
    columns = {str(name): part["feature"].to_numpy(dtype=int) for name, part in table.groupby("emotion", sort=False)}
    survived = {str(name): int(part["survives"].sum()) for name, part in table.groupby("emotion", sort=False)}
    rows = []
    for family in ([name for name in columns if name != AFFECT], [name for name in columns if name == AFFECT]):
        if family:
            half = swapped(pairs, {name: columns[name] for name in family}, draws, seed)
            counts = _counts(half, [len(columns[name]) for name in family], draws, q)
            rows += _rows(PAIRED, family, counts, survived)
    features = tested(pairs, AFFECT, fewest)
    if len(pairs.emotions) > 1 and features.size:
        counts = _counts(dealt(pairs, features, draws, seed), [len(features)] * len(pairs.emotions), draws, q)
        rows += _rows(OWN, pairs.emotions, counts, {})
    return pd.DataFrame(rows)


def _same(pairs: Pairs, table: pd.DataFrame) -> None:
    """Refuse a table whose counts of active pairs are not those of these pairs and halves."""
    for emotion, part in table.groupby("emotion"):
        features = part["feature"].to_numpy(dtype=int)
        if features.max() < pairs.active.shape[1]:
            active = pairs.active[np.ix_(pairs.rows(str(emotion), True), features)].sum(0)
            if (active == part["active"].to_numpy()).all():
                continue
        raise BatteryError(
            f"The table's rows for {emotion} are not of these activations: give both the same and one seed."
        )


def _counts(half: Half, widths: list[int], draws: int, q: float) -> Float[np.ndarray, "draw emotion"]:
    """How many features of each emotion are found and confirmed, in each draw."""
    ends, out = np.cumsum([0, *widths]), []
    step = max(1, _AT_ONCE // max(int(ends[-1]), 1))
    for start in range(0, draws + 1, step):
        (found, df_found), (held, df_held) = (
            half(discovery, slice(start, start + step)) for discovery in (True, False)
        )
        both = [_survive(found[:, a:b], held[:, a:b], df_found[a:b], df_held[a:b], q) for a, b in pairwise(ends)]
        out.append(np.stack([one.sum(1) for one in both], axis=1).astype(float))
    return np.concatenate(out)


def _survive(
    found: Float[np.ndarray, "draw column"],
    held: Float[np.ndarray, "draw column"],
    df_found: Float[np.ndarray, " column"],
    df_held: Float[np.ndarray, " column"],
    q: float,
) -> Bool[np.ndarray, "draw column"]:
    """Benjamini-Hochberg on the discovery half, then, one-sided, on the confirmation half over what was found."""
    passed = stats.false_discovery_control(2 * special.stdtr(df_found, -np.abs(found)), axis=1) <= q
    p = special.stdtr(df_held, -held * np.sign(found))
    for draw in np.flatnonzero(passed.any(1)):
        some = np.flatnonzero(passed[draw])
        passed[draw, some] = stats.false_discovery_control(p[draw, some]) <= q
    return passed


def _rows(
    contrast: str, emotions: Sequence[str], counts: Float[np.ndarray, "draw emotion"], survived: Mapping[str, int]
) -> list[dict[str, object]]:
    """The table's rows of one family; the first draw is what was seen."""
    seen, null = counts[0], counts[1:]
    total = len(counts)
    out = []
    for i, emotion in enumerate(emotions):
        low, high = np.percentile(null[:, i], [2.5, 97.5])
        out.append(
            {
                "contrast": contrast, "emotion": emotion, "count": int(seen[i]), "null_mean": float(null[:, i].mean()),
                "null_low": float(low), "null_high": float(high),
                "p": float((1 + (null[:, i] >= seen[i]).sum()) / total),
                "p_adjusted": float((1 + (null.max(1) >= seen[i]).sum()) / total), "attainable": 1 / total,
                "draws": total - 1, "survived": survived.get(emotion),
            }
        )  # fmt: skip
    return out
