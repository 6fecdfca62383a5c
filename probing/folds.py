"""Folds that never split a group: the rungs of the ladder.

``pair`` holds out whole pairs or triplets; ``domain`` holds out whole domains, so that no topic is on both sides. Inner
folds, in which layer and regularisation are chosen, use the outer rung's own grouping.
"""

import warnings

import numpy as np
import pandas as pd
from jaxtyping import Int
from sklearn.model_selection import StratifiedGroupKFold

from affectlens.errors import BatteryError

RUNGS = ("pair", "domain")
OUTER, INNER = 8, 4
_COLUMN = {"pair": "group", "domain": "domain"}


def keys(items: pd.DataFrame, rung: str) -> Int[np.ndarray, " item"] | str:
    """The grouping of a rung as integers, or the reason why the rung does not apply to these items."""
    column = items[_COLUMN[rung]]
    if column.isna().any():
        return f"{int(column.isna().sum())} items have no {rung}"
    if column.nunique() < 2:
        return f"there is only one {rung}"
    if rung != "pair" and (items.groupby("group")[_COLUMN[rung]].nunique() > 1).any():
        return f"some groups span two {rung}s"
    codes, _ = pd.factorize(column)
    return codes


def split(
    groups: Int[np.ndarray, " item"], y: Int[np.ndarray, " item"], most: int, *, seed: int = 0
) -> Int[np.ndarray, " item"]:
    """The fold of each item: at most ``most`` folds, whole groups, classes as even as groups allow.

    Raises:
        BatteryError: with fewer than two groups, or no class with two items, nothing can be held out.
    """
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise BatteryError("Folds need at least two groups: give the items a group, or more scenes.")
    if len(names) <= most:
        return codes  # leave one group out
    n = min(most, int(np.bincount(y).max()))
    if n < 2:
        raise BatteryError("Folds need two items of a class at least: give the battery more scenes.")
    folds = np.empty(len(y), dtype=int)
    maker = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # uneven is stated, not hidden
        for fold, (_, test) in enumerate(maker.split(y, y, groups)):
            folds[test] = fold
    return folds
