"""The nested sweep: every layer scored on folds that chose nothing, and a headline whose layer was chosen inside.

For each outer fold: (1) inner folds of its training items, by the same grouping, give a loss to every layer and
penalty; (2) each layer is refitted on the whole training part at its best penalty and scores the held-out items;
(3) the nested score of the held-out items is that of the layer with the least inner loss. What is trained on and what
is tested may be different items that share their folds: a transfer is the same sweep with two parts. A reader that
chooses its inputs by the labels does so in ``prepare``, anew in each inner fold, from the rows it learns from alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Shaped

from affectlens.errors import BatteryError
from affectlens.probing import fits
from affectlens.probing.fits import C_GRID, RIDGE_GRID
from affectlens.probing.folds import INNER, split
from affectlens.probing.linear import Linear, log_losses

Features = Callable[[Int[np.ndarray, " train"]], Float[np.ndarray, "every layer d"]]
Turn = Callable[[fits.Values], fits.Values]
Prepare = Callable[[fits.Values, fits.Labels, int], Turn]  # training rows, their labels, the number of classes
METHODS = ("logistic", "mean_difference", "lda", "ridge")
ORDERED = ("ridge", "mean_difference")


@dataclass(frozen=True)
class Part:
    """Items with their labels and folds; ``rows`` point into the features."""

    rows: Int[np.ndarray, " item"]
    y: Shaped[np.ndarray, " item"]
    n_classes: int  # 0 for an order
    keys: Int[np.ndarray, " item"]  # what inner folds hold whole
    folds: Int[np.ndarray, " item"]

    @property
    def width(self) -> int:
        """Columns of logits."""
        return self.n_classes if self.n_classes > 2 else 1

    @property
    def main(self) -> str:
        """The method that chooses the layer and carries the headline."""
        return "logistic" if self.n_classes else "ridge"

    @property
    def methods(self) -> tuple[str, ...]:
        return METHODS if self.n_classes else ORDERED


@dataclass(frozen=True)
class Choice:
    """What the inner folds chose, and the training items' logits there, each from a fold that held it out."""

    layer: int
    settings: Int[np.ndarray, " layer"]  # index into the grid, a layer
    logits: Float[np.ndarray, "train k"]


@dataclass(frozen=True)
class Sweep:
    """Held-out logits of one part under one rung."""

    logits: dict[str, Float[np.ndarray, "item layer k"]]  # by method
    nested: dict[str, Float[np.ndarray, "item k"]]  # at the layer chosen inside each fold
    layers: tuple[int, ...]  # chosen, one a fold
    inner: dict[int, Float[np.ndarray, "train k"]] = field(default_factory=dict)  # by fold: see Choice.logits
    main: str = "logistic"

    @property
    def headline(self) -> Float[np.ndarray, "item k"]:
        return self.nested[self.main]


def as_they_are(_x: fits.Values, _y: fits.Labels, _n_classes: int) -> Turn:
    """No preparation: every input is read."""
    return lambda values: values


def sweep(
    features: Features,
    part: Part,
    *,
    tests: dict[str, Part] | None = None,
    grid: tuple[float, ...] = C_GRID,
    scale: bool = True,
    methods: tuple[str, ...] | None = None,
    prepare: Prepare = as_they_are,
    seed: int = 0,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, Sweep]:
    """Run the three phases over all outer folds.

    Args:
        features: the inputs of all items, given the training rows (a text vectoriser learns its vocabulary from
            them alone).
        part: the items to learn from.
        tests: the items to score, by name; ``{"": part}`` if None. They share the numbering of folds with ``part``.
        grid: values of C; an order has its own.
        scale: standardise the inputs.
        methods: which to fit; all that apply if None.
        prepare: given the rows that a fit learns from and their labels, how it turns any rows into its inputs
            ``[item, layer, d]``; the layers may be others than those of ``features``.
        seed: of the inner folds.
        watch: wraps the loop over folds, for a progress bar.
    """
    tested = {"": part} if tests is None else tests
    kinds = methods or part.methods
    logits: dict[str, dict[str, np.ndarray]] = {name: {} for name in tested}
    nested = {name: {m: np.full((len(t.y), part.width), np.nan) for m in kinds} for name, t in tested.items()}
    layers, inner = [], {}
    for fold in watch(range(1 + max(int(p.folds.max()) for p in (part, *tested.values())))):
        train = np.flatnonzero(part.folds != fold)
        scored = {name: np.flatnonzero(t.folds == fold) for name, t in tested.items()}
        if not any(map(len, scored.values())):
            continue
        if len(np.unique(part.y[train])) < 2:
            raise BatteryError("holding out one fold leaves items of a single class to learn from")
        every = features(part.rows[train])
        x = np.asarray(every[part.rows[train]])
        choice = choose(x, part, train, grid=grid, scale=scale, prepare=prepare, seed=seed)
        layers.append(choice.layer)
        inner[fold] = choice.logits
        turn = prepare(x, part.y[train], part.n_classes)
        x = turn(x)
        for method in kinds:
            linear = refit(method, x, part.y[train], part.n_classes, choice, grid, scale)
            for name, rows in scored.items():
                held = linear(np.asarray(turn(np.asarray(every[tested[name].rows[rows]])), dtype=np.float64))
                whole = logits[name].setdefault(method, np.full((len(tested[name].y), *held.shape[1:]), np.nan))
                whole[rows] = held
                nested[name][method][rows] = held[:, choice.layer]
    return {name: Sweep(logits[name], nested[name], tuple(layers), inner, part.main) for name in tested}


def refit(
    method: str, x: fits.Values, y: fits.Labels, n_classes: int, choice: Choice, grid: tuple[float, ...], scale: bool
) -> Linear:
    """One method's fit of every layer, at the penalty that the inner folds chose for it."""
    if method == "logistic":
        return fits.logistic(x, y, n_classes, np.array(grid)[choice.settings][:, None], scale=scale)[0]
    if method == "ridge":
        if n_classes:
            return fits.ridge(x, y, n_classes)[0]
        path = fits.ridge(x, y, n_classes, RIDGE_GRID, scale=scale)
        weights, bias = (np.stack([getattr(f, name) for f in path]) for name in ("weights", "bias"))
        every = np.arange(len(choice.settings))
        return Linear(weights[choice.settings, every], bias[choice.settings, every])
    return fits.lda(x, y, n_classes) if method == "lda" else fits.mean_difference(x, y, n_classes)


def choose(
    x: Float[np.ndarray, "train layer d"],
    part: Part,
    train: Int[np.ndarray, " train"],
    *,
    grid: tuple[float, ...] = C_GRID,
    scale: bool = True,
    prepare: Prepare = as_they_are,
    seed: int = 0,
) -> Choice:
    """The best penalty of each layer and the best layer, by loss over inner folds (whole groups held out)."""
    y, keys = part.y[train], part.keys[train]
    folds = split(keys, y, INNER, seed=seed)
    read: list[tuple[np.ndarray, np.ndarray]] = []
    for fold in np.unique(folds):
        seen, held = folds != fold, folds == fold
        if len(np.unique(y[seen])) < 2:
            continue
        turn = prepare(x[seen], y[seen], part.n_classes)
        inside, wide = turn(x[seen]), turn(x[held]).astype(np.float64)
        if part.n_classes:
            penalties = np.tile(np.array(grid), (inside.shape[1], 1))
            path = fits.logistic(inside, y[seen], part.n_classes, penalties, scale=scale, tol=3e-3)
        else:
            path = fits.ridge(inside, y[seen], 0, RIDGE_GRID, scale=scale)
        read.append((held, np.stack([linear(wide) for linear in path])))
    if not read:
        raise BatteryError("the inner folds leave items of a single class to learn from")
    settings, _, *rest = read[0][1].shape
    out = np.full((settings, len(y), *rest), np.nan)
    for held, logits in read:
        out[:, held] = logits
    known = np.isfinite(out[0, :, 0, 0])
    loss = np.stack([log_losses(part_[known], y[known]).sum(0) for part_ in out], axis=1)
    best = loss.argmin(1)
    layer = int(loss.min(1).argmin())
    return Choice(layer, best, out[best[layer], :, layer])
