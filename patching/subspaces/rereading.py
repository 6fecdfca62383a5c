"""What is still read of a concept after it was erased, on items that neither the eraser nor the reader has seen.

A reader fitted on the rows of the eraser's own fit finds nothing, by construction. So the training groups of each outer
fold are halved: the eraser is fitted on one half, and readers that are new on what it leaves of the other.

========= ================================================================================================
``fresh``   a linear probe, fitted on erased activations: how much of the concept linear readers can find again
``old``     a linear probe, fitted before erasure; here eraser and probe have all training groups
``network`` one hidden layer, fitted on erased activations: LEACE guards against linear readers only
========= ================================================================================================
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Shaped

from affectlens.patching.subspaces.leace import Leace, project_out, random_basis
from affectlens.probing.estimators import MLPProbe
from affectlens.probing.fits import logistic, ridge
from affectlens.probing.linear import Linear
from affectlens.probing.parts import Stage
from affectlens.progress import tracked

FRESH, OLD, NETWORK = "fresh", "old", "network"
NONE, LEACE, RANDOM = "none", "leace", "random"
Rows = Float[np.ndarray, "item layer d"]
Change = Callable[[Rows], Rows]
Logits = dict[tuple[str, str, int], Float[np.ndarray, "item layer k"]]  # reader, method, draw


def reread(
    x: Shaped[np.ndarray, "item layer d"], stage: Stage, *, shrinkage: float = 0.0, draws: int = 5, c: float = 1e-2,
    network: bool = True, seed: int = 0, progress: bool | None = None,
) -> Logits:  # fmt: skip
    """Held-out logits of every reader, with nothing, the concept, or random subspaces erased.

    Args:
        x: activations of the stage's items at some layers.
        stage: the items' labels and folds.
        shrinkage: of the erasers.
        draws: random subspaces of the eraser's rank, for each layer; of the network only the first is read.
        c: inverse penalty of the linear probes on standardised activations; of an order, a ridge of penalty 1.
        network: fit networks too; an order has none.
        seed: of halves, subspaces and networks.
        progress: show a bar.
    """
    part, rows = stage.part, x.astype(np.float64)
    scenes = np.unique(stage.asked.items["group"].to_numpy(dtype=str), return_inverse=True)[1]
    out: Logits = {}

    def keep(reader: str, method: str, draw: int, test: np.ndarray, found: Float[np.ndarray, "held layer k"]) -> None:
        blank = np.full((len(rows), *found.shape[1:]), np.nan)
        out.setdefault((reader, method, draw), blank)[test] = found

    for fold in tracked(np.unique(part.folds).tolist(), "reading after erasure", show=progress):
        train, test = np.flatnonzero(part.folds != fold), np.flatnonzero(part.folds == fold)
        first = _half(scenes[train], seed + int(fold))
        own, other = train[first], train[~first]
        changes = _changes(rows[own], part.y[own], shrinkage, draws, seed)
        for (method, draw), change in changes.items():
            seen, held = change(rows[other]), change(rows[test])
            keep(FRESH, method, draw, test, _probe(seen, part.y[other], part.n_classes, c)(held))
            if network and part.n_classes and draw == 0:
                keep(NETWORK, method, draw, test, _network(seen, part.y[other], held, part.n_classes, seed))
        reader = _probe(rows[train], part.y[train], part.n_classes, c)
        for (method, draw), change in _changes(rows[train], part.y[train], shrinkage, draws, seed).items():
            keep(OLD, method, draw, test, reader(change(rows[test])))
    return out


def _half(scenes: Int[np.ndarray, " item"], seed: int) -> Shaped[np.ndarray, " item"]:
    """Which items are in the first half: whole scenes."""
    names = np.random.default_rng(seed).permutation(np.unique(scenes))
    return np.isin(scenes, names[: len(names) // 2])


def _changes(
    x: Rows, y: Shaped[np.ndarray, " item"], shrinkage: float, draws: int, seed: int
) -> dict[tuple[str, int], Change]:
    """What is done to activations, layer by layer, fitted on these rows."""
    erasers = [Leace.fit(x[:, i], y, shrinkage=shrinkage) for i in range(x.shape[1])]
    out: dict[tuple[str, int], Change] = {
        (NONE, 0): lambda rows: rows,
        (LEACE, 0): lambda rows: np.stack([one.erase(rows[:, i]) for i, one in enumerate(erasers)], axis=1),
    }
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        bases = [random_basis(x.shape[2], one.rank, rng) for one in erasers]

        def project(rows: Rows, bases: list[np.ndarray] = bases) -> Rows:
            pairs = zip(erasers, bases, strict=True)
            return np.stack([project_out(rows[:, i], one.mean, b) for i, (one, b) in enumerate(pairs)], axis=1)

        out[RANDOM, draw] = project
    return out


def _probe(x: Rows, y: Shaped[np.ndarray, " item"], n_classes: int, c: float) -> Linear:
    if not n_classes:
        return ridge(x, y, 0, (1.0,))[0]
    return logistic(x, y, n_classes, np.full((x.shape[1], 1), c))[0]


def _network(
    x: Rows, y: Shaped[np.ndarray, " item"], held: Float[np.ndarray, "held layer d"], n_classes: int, seed: int
) -> Float[np.ndarray, "held layer k"]:
    layers = []
    for i in range(x.shape[1]):
        probe = MLPProbe(random_state=seed).fit(x[:, i], y)
        found = np.log(np.maximum(probe.predict_proba(held[:, i]), 1e-12))
        if n_classes == 2:
            layers.append(found[:, 1:] - found[:, :1])
            continue
        wide = np.full((len(held), n_classes), -30.0)
        wide[:, probe.classes_] = found
        layers.append(wide)
    return np.stack(layers, axis=1)
