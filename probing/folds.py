"""Folds that never split a group: the rungs of the ladder.

``random`` splits items, twins and all: what a leaky split would give, shown for comparison. ``pair`` holds out whole
pairs, triplets or quadruples; ``domain``, ``author`` and ``emotion`` hold out all of a topic, a writer, an emotion.
``split`` learns from the keyword-rich twins and is tested on the keyword-free ones of other domains. Inner folds, in
which layer and regularisation are chosen, use the outer rung's own grouping.
"""

import warnings

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped
from sklearn.model_selection import StratifiedGroupKFold

from affectlens.errors import BatteryError

RUNGS = ("random", "pair", "domain", "author", "emotion", "split")
QUICK = ("pair", "domain")
HEADLINE = ("domain", "pair", "random")  # the first that applies carries the headline
OUTER, INNER = 8, 3
_COLUMN = {"pair": "group", "domain": "domain", "author": "author", "emotion": "emotion"}
_FEWEST = 3  # one to hold out, and two between which the inner folds choose


def keys(items: pd.DataFrame, rung: str, *, target: str = "") -> Int[np.ndarray, " item"] | str:
    """The grouping of a rung as integers, or the reason why the rung does not apply to these items."""
    if rung == "random":
        return np.arange(len(items))
    if rung == "emotion" and target == "category":
        return "an emotion that is held out leaves no example of its class"
    name = _COLUMN[rung]
    if name not in items or items[name].isna().all():
        return f"no item has a named {rung}"
    column = items[name]
    if column.isna().any():
        return f"{int(column.isna().sum())} items have no {rung}"
    if column.nunique() < _FEWEST:
        return ("there is only one {}", "there are only two {}s")[column.nunique() - 1].format(rung)
    if rung != "pair" and "group" in items and (items.groupby("group")[name].nunique() > 1).any():
        return f"some groups span two {rung}s"
    codes, _ = pd.factorize(column)
    return np.asarray(codes)


def split(
    groups: Int[np.ndarray, " item"], y: Shaped[np.ndarray, " item"], most: int, *, seed: int = 0
) -> Int[np.ndarray, " item"]:
    """The fold of each item: whole groups, labels as even as groups allow, and something to compare in every fold.

    The number of folds is the largest up to ``most`` that allows this: two labels at least in each fold, where a target
    of two classes or an order is compared within folds.

    Raises:
        BatteryError: if no number does; the message is a reason, for a sentence about the rung.
    """
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise BatteryError("there are too few groups to hold one out")
    labels = strata(y)
    many = y.dtype.kind != "f" and y.max() > 1
    for n in range(min(most, len(names)), 1, -1):
        folds = codes if n == len(names) else _stratified(codes, labels, n, seed)
        if folds is not None and (many or _comparable(folds, y)):
            return folds
    raise BatteryError("no split leaves items of both classes in every fold")


def strata(y: Shaped[np.ndarray, " item"]) -> Int[np.ndarray, " item"]:
    """Classes as they are; an order by its values if they are few, else by quarters."""
    if y.dtype.kind != "f":
        return y
    values = np.unique(y)
    if len(values) <= 8:
        return np.searchsorted(values, y)
    return np.searchsorted(np.quantile(y, [0.25, 0.5, 0.75]), y)


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


def _comparable(folds: np.ndarray, y: np.ndarray) -> bool:
    """Whether each fold has two labels: AUROC compares within a fold, and a fold of one label compares nothing."""
    return all(len(np.unique(y[folds == fold])) > 1 for fold in np.unique(folds))
