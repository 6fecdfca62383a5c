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
    if column.nunique() < 3:  # one to hold out, and two between which the inner folds choose
        return ("there is no {}", "there is only one {}", "there are only two {}s")[column.nunique()].format(rung)
    if rung != "pair" and (items.groupby("group")[_COLUMN[rung]].nunique() > 1).any():
        return f"some groups span two {rung}s"
    codes, _ = pd.factorize(column)
    return codes


def split(
    groups: Int[np.ndarray, " item"], y: Int[np.ndarray, " item"], most: int, *, seed: int = 0
) -> Int[np.ndarray, " item"]:
    """The fold of each item: whole groups, classes as even as groups allow, and both classes in every fold of two.

    The number of folds is the largest up to ``most`` that allows this.

    Raises:
        BatteryError: if no number does; the message is a reason, for a sentence about the rung.
    """
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise BatteryError("there are too few groups to hold one out")
    for n in range(min(most, len(names)), 1, -1):
        folds = codes if n == len(names) else _stratified(codes, y, n, seed)
        if folds is not None and (y.max() > 1 or _both_classes(folds, y)):
            return folds
    raise BatteryError("no split leaves items of both classes in every fold")


def _stratified(codes: np.ndarray, y: np.ndarray, n: int, seed: int) -> np.ndarray | None:
    if n > np.bincount(y).max():
        return None
    folds = np.empty(len(y), dtype=int)
    maker = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # uneven classes are no fault here
        for fold, (_, test) in enumerate(maker.split(y, y, codes)):
            folds[test] = fold
    return folds


def _both_classes(folds: np.ndarray, y: np.ndarray) -> bool:
    """Whether each fold has both classes: AUROC compares within a fold, and a fold of one class compares nothing."""
    return all(len(np.unique(y[folds == fold])) == 2 for fold in np.unique(folds))
