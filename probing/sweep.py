"""The nested sweep: every layer scored on folds that chose nothing, and a headline whose layer was chosen inside.

For each outer fold: (1) inner folds of its training items, by the same grouping, give a log-loss to every layer and
C; (2) each layer is refitted on the whole training part at its best C and scores the held-out items; (3) the nested
score of the held-out items is that of the layer with the least inner loss.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.probing.estimators import C_GRID, Linear, log_loss, logistic_path, mean_difference
from affectlens.probing.folds import INNER, split

Features = Callable[[Int[np.ndarray, " train"]], Float[np.ndarray, "item layer d"]]
METHODS = ("logistic", "mean_difference")


@dataclass(frozen=True)
class Sweep:
    """Held-out logits of one target under one rung."""

    logits: dict[str, Float[np.ndarray, "item layer k"]]  # by method
    nested: dict[str, Float[np.ndarray, "item k"]]  # at the layer chosen inside each fold
    layers: tuple[int, ...]  # chosen, one a fold


@dataclass(frozen=True)
class Choice:
    """What the inner folds chose."""

    layer: int
    c: tuple[int, ...]  # index into the grid, a layer


def sweep(
    features: Features,
    y: Int[np.ndarray, " item"],
    n_classes: int,
    groups: Int[np.ndarray, " item"],
    folds: Int[np.ndarray, " item"],
    *,
    grid: tuple[float, ...] = C_GRID,
    scale: bool = True,
    seed: int = 0,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Sweep:
    """Run the three phases over all outer folds.

    Args:
        features: the inputs, given the training rows (a text vectoriser learns its vocabulary from them alone).
        y: class indices.
        n_classes: how many classes there are.
        groups: the rung's grouping, for the inner folds.
        folds: the outer fold of each item.
        grid: values of C.
        scale: standardise the inputs.
        seed: of the inner folds.
        watch: wraps the loop over folds, for a progress bar.
    """
    k = 1 if n_classes == 2 else n_classes
    logits: dict[str, np.ndarray] = {}
    nested = {m: np.empty((len(y), k)) for m in METHODS}
    layers = []
    for fold in watch(range(int(folds.max()) + 1)):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(np.unique(y[train])) < 2:
            raise BatteryError("holding out one fold leaves items of a single class to learn from")
        x = features(train)
        if not logits:
            logits = {m: np.empty((len(y), x.shape[1], k)) for m in METHODS}
        choice = choose(x[train], y[train], n_classes, groups[train], grid=grid, scale=scale, seed=seed)
        for layer in range(x.shape[1]):
            for method, probe in fit(x[train, layer], y[train], n_classes, grid[choice.c[layer]], scale).items():
                logits[method][test, layer] = probe(x[test, layer])
        for method in METHODS:
            nested[method][test] = logits[method][test, choice.layer]
        layers.append(choice.layer)
    return Sweep(logits, nested, tuple(layers))


def fit(
    x: Float[np.ndarray, "item d"], y: Int[np.ndarray, " item"], n_classes: int, c: float, scale: bool
) -> dict[str, Linear]:
    """The probes of one layer, by method."""
    (logistic,) = logistic_path(x, y, n_classes, (c,), scale=scale)
    return {"logistic": logistic, "mean_difference": mean_difference(x, y, n_classes)}


def choose(
    x: Float[np.ndarray, "item layer d"],
    y: Int[np.ndarray, " item"],
    n_classes: int,
    groups: Int[np.ndarray, " item"],
    *,
    grid: tuple[float, ...] = C_GRID,
    scale: bool = True,
    seed: int = 0,
) -> Choice:
    """The best C of each layer and the best layer, by log-loss over inner folds (whole groups held out)."""
    folds = split(groups, y, INNER, seed=seed)
    loss = np.zeros((x.shape[1], len(grid)))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        if len(np.unique(y[train])) < 2:
            continue
        for layer in range(x.shape[1]):
            path = logistic_path(x[train, layer], y[train], n_classes, grid, scale=scale)
            loss[layer] += [log_loss(probe(x[test, layer]), y[test]) * test.sum() for probe in path]
    if not loss.any():
        raise BatteryError("the inner folds leave items of a single class to learn from")
    best = loss.argmin(1)
    least = loss[np.arange(len(loss)), best]
    return Choice(int(least.argmin()), tuple(int(c) for c in best))
