"""The methods: from activations and a contrast to one raw vector a class and layer.

=================== ============================================================================================
``mean_difference`` the mean over groups of an emotional item less its neutral partner; against the others: the
                    class mean less the mean of the other classes' means (Marks and Tegmark 2023, arXiv 2310.06824)
``centred``         the class mean less the grand mean of the class means (Jorgensen et al. 2023, arXiv 2312.03813);
                    against neutral: the mean difference from the partners, less the mean of all classes' such
                    differences, so that neither a class's topics nor what all emotions share is left
``pca``             the first principal component of the paired differences, which are not centred, so that the mean
                    counts; its sign is the mean's (Zou et al. 2023, arXiv 2310.01405)
``logistic``        one against the rest, L2 on standardised activations, C by grouped folds, weights in raw space
``ridge``           least squares of the class indicator, penalty 1 in mean eigenvalues (:mod:`~.probing.fits`)
``lda``             the class mean less the mean of means, whitened by the within-class covariance under the
                    shrinkage of Ledoit and Wolf (2004)
=================== ============================================================================================

``x`` is ``[item, layer, d]`` in float64; what comes back is ``[name, layer, d]``, not yet of unit length.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int

from affectlens.errors import BatteryError, SteerError
from affectlens.probing import fits
from affectlens.probing.fits import C_GRID, Standard
from affectlens.probing.folds import INNER, split
from affectlens.probing.problem import Problem
from affectlens.probing.solver import solve
from affectlens.steering.extracting.contrasts import Contrast

Values = Float[np.ndarray, "item layer d"]
Vectors = Float[np.ndarray, "name layer d"]
AGAINST = {
    "mean_difference": ("neutral", "others"), "centred": ("others", "neutral"), "pca": ("neutral",),
    "logistic": ("others", "neutral"), "ridge": ("others", "neutral"), "lda": ("others", "neutral"),
}  # fmt: skip
METHODS = tuple(AGAINST)
PLACEBOS = ("random", "matched", "shuffled", "mean_of_all", "orthogonal")


@dataclass(frozen=True)
class Fitted:
    """Raw vectors and what else a method found, by name of the fact, one number a class and layer."""

    vectors: Vectors
    facts: dict[str, Float[np.ndarray, "name layer"]] = field(default_factory=dict)


def contrasted(method: str, against: str | None, asked: Contrast) -> str:
    """``others`` or ``neutral``: what the method contrasts a class with, by default its own first choice.

    Raises:
        SteerError: an unknown method, or a contrast that the method or the battery does not have.
    """
    if method not in METHODS:
        more = " A placebo is made by placebos()." if method in PLACEBOS else ""
        more = " An SAE's decoder row becomes a direction by from_decoder()." if method == "sae" else more
        raise SteerError(f"There is no method {method!r}; choose from {', '.join(METHODS)}.{more}")
    if asked.binary:
        return "neutral"
    found = against or AGAINST[method][0]
    if found not in AGAINST[method]:
        raise SteerError(f"{method} contrasts a class with {' or '.join(AGAINST[method])}, not with {found!r}.")
    needed = asked.classes if method == "centred" else asked.names
    lacking = [name for name in needed if not (asked.baseline == asked.classes.index(name)).any()]
    if found == "neutral" and lacking:
        raise SteerError(
            f"{method} against neutral needs neutral partners, and {', '.join(lacking)} has none: "
            "choose a method against the others, such as centred."
        )
    if found == "others" and len(asked.classes) < 2:
        raise SteerError("There is one class only: give it neutral partners, or positive= and negative=.")
    return found


def fit(method: str, x: Values, asked: Contrast, against: str, *, seed: int = 0) -> Fitted:
    """Fit one method to all layers.

    Args:
        method: one of :data:`METHODS`.
        x: the activations of the contrast's items.
        asked: the contrast.
        against: what :func:`contrasted` gave.
        seed: of the folds in which ``logistic`` chooses C.

    Raises:
        SteerError: too few items of a class, or no pairs where the method needs them.
    """
    needed = range(len(asked.classes)) if against == "others" or method == "centred" else asked.asked
    for k in needed:
        if not (asked.code == k).any() or (against == "neutral" and not (asked.baseline == k).any()):
            raise SteerError(f"{asked.classes[k]} has no item left to fit on: give it more groups.")
    if method in ("mean_difference", "centred"):
        every = range(len(asked.classes)) if method == "centred" else asked.asked
        weights = np.stack([_weights(asked, k, against) for k in every])
        if method == "centred":
            weights = (weights - weights.mean(0) * (not asked.binary))[asked.asked]
        return Fitted(np.einsum("ki,ild->kld", weights, x, optimize=True))
    if method == "pca":
        return _pca(x, asked)
    if method == "logistic":
        return _logistic(x, asked, against, seed)
    if against == "others":
        mine = asked.code >= 0
        return Fitted(_closed(method, x[mine], asked.code[mine], len(asked.classes))[asked.asked])
    found = []
    for k in asked.asked:
        mine, y = _two(asked, k)
        found.append(_closed(method, x[mine], y, 2)[0])
    return Fitted(np.stack(found))


def differences(group: Int[np.ndarray, " item"], plus: np.ndarray, minus: np.ndarray) -> Float[np.ndarray, "pair item"]:
    """One row of weights a group that has both: the mean of its ``plus`` items less the mean of its ``minus`` ones."""
    shared = np.intersect1d(group[plus], group[minus])
    inside = group[None] == shared[:, None]
    up, down = (inside & side for side in (plus, minus))
    return up / up.sum(1, keepdims=True).clip(min=1) - down / down.sum(1, keepdims=True).clip(min=1)


def share(mask: np.ndarray) -> Float[np.ndarray, " item"]:
    """The weights of a mean."""
    return mask / max(int(mask.sum()), 1)


def _weights(asked: Contrast, k: int, against: str) -> Float[np.ndarray, " item"]:
    """Of the items in the difference of means: both methods are linear in them."""
    mine = asked.code == k
    if against == "neutral":
        pairs = differences(asked.group, mine, asked.baseline == k)
        return pairs.mean(0) if len(pairs) else share(mine) - share(asked.baseline == k)
    every = np.stack([share(asked.code == j) for j in range(len(asked.classes))])
    return every[k] - every.mean(0)  # less the others' mean, it is k / (k - 1) times as long: one direction


def _pca(x: Values, asked: Contrast) -> Fitted:
    vectors, shares = [], []
    for k in asked.asked:
        pairs = differences(asked.group, asked.code == k, asked.baseline == k)
        if len(pairs) < 2:
            raise SteerError(f"pca needs pairs of one group, and {asked.classes[k]} has {len(pairs)}.")
        gaps = np.einsum("pi,ild->lpd", pairs, x, optimize=True)
        _, sizes, turned = np.linalg.svd(gaps, full_matrices=False)
        first = turned[:, 0]
        sign = np.where((first * gaps.mean(1)).sum(1) < 0, -1.0, 1.0)
        vectors.append(first * sign[:, None])
        shares.append(sizes[:, 0] ** 2 / (sizes**2).sum(1).clip(min=1e-300))
    return Fitted(np.stack(vectors), {"variance_share": np.stack(shares)})


def _two(asked: Contrast, k: int) -> tuple[np.ndarray, Int[np.ndarray, " fitted"]]:
    """A class and its baseline: which items, and 1 for the class."""
    mine = (asked.code == k) | (asked.baseline == k)
    return mine, (asked.code[mine] == k).astype(int)


def _closed(method: str, x: Values, y: np.ndarray, n_classes: int) -> Vectors:
    found = fits.ridge(x, y, n_classes)[0] if method == "ridge" else fits.lda(x, y, n_classes)
    return np.moveaxis(found.weights, 1, 0)


def _logistic(x: Values, asked: Contrast, against: str, seed: int) -> Fitted:
    if against == "others":
        mine = asked.code >= 0
        one = (asked.code[mine][:, None] == np.array(asked.asked)).astype(float)
        return _chosen(x[mine], one, asked.code[mine], asked.keys[mine], seed)
    parts = []
    for k in asked.asked:
        mine, y = _two(asked, k)
        parts.append(_chosen(x[mine], y[:, None].astype(float), y, asked.keys[mine], seed))
    c = np.concatenate([part.facts["C"] for part in parts])
    return Fitted(np.concatenate([part.vectors for part in parts]), {"C": c})


def _chosen(x: Values, one: Float[np.ndarray, "item name"], strata: np.ndarray, keys: np.ndarray, seed: int) -> Fitted:
    """Each class's and layer's C is that of the least loss over inner folds."""
    grid = np.array(C_GRID)
    n_layers, n_names = x.shape[1], one.shape[1]
    losses = np.zeros((n_layers, n_names, len(grid)))
    try:
        fold = split(keys, strata, INNER, seed=seed)
    except BatteryError as error:
        raise SteerError(f"logistic can't choose C: {error}; choose mean_difference or centred.") from None
    for held in np.unique(fold):
        seen, test = fold != held, fold == held
        weights, bias = _solved(
            x[seen], np.repeat(one[seen], len(grid), 1), np.tile(grid, (n_layers, n_names)), tol=3e-3
        )
        logits = np.einsum("ild,lcd->ilc", x[test], weights, optimize=True) + bias
        signed = np.where(np.repeat(one[test], len(grid), 1)[:, None] > 0, logits, -logits)
        losses += np.logaddexp(0.0, -signed).sum(0).reshape(losses.shape)
    best = grid[losses.argmin(2)]
    weights, _ = _solved(x, one, best)
    return Fitted(np.moveaxis(weights, 1, 0), {"C": best.T})


def _solved(
    x: Values, one: Float[np.ndarray, "item c"], c: Float[np.ndarray, "layer c"], *, tol: float = 1e-3
) -> tuple[Float[np.ndarray, "layer c d"], Float[np.ndarray, "layer c"]]:
    """Logistic regressions of one set of rows, each with labels and C of its own, in raw space."""
    rows = Standard.of(x, True)
    problem = Problem(rows.rows(), rows.spanned, torch.as_tensor(one)[:, :, None].contiguous(), torch.as_tensor(c))
    weights, bias = rows.raw(*solve(problem, tol=tol))
    return weights[:, :, 0], bias[:, :, 0]
