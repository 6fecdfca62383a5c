"""One rung of the sparse probes: the curve by k, the headline, dense probes, floors, controls, differences."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from affectlens.errors import BatteryError
from affectlens.probing.features.sparse_choosing import best, described
from affectlens.probing.features.sparse_controls import (
    DRAWS,
    Maker,
    held_out,
    random_directions,
    random_features,
    spread,
)
from affectlens.probing.fits import C_GRID
from affectlens.probing.floors import FLOORS, floor
from affectlens.probing.parts import Stage
from affectlens.probing.report import NESTED
from affectlens.probing.rung import Rows, _strongest
from affectlens.probing.rung import held_out as by_item
from affectlens.probing.sweep import Sweep, sweep
from affectlens.stats import Statistic, band, less

GRID = (*C_GRID, 1.0)  # of C for the readers of features: few inputs bear a weaker penalty
EVERY = 0  # in the column ``k``: a reader that reads all it has


@dataclass(frozen=True)
class Inputs:
    """What all readers read, a row an item of the battery."""

    codes: Float32[np.ndarray, "item 1 feature"]
    residual: Float32[np.ndarray, "item 1 d_model"]
    density: Float[np.ndarray, " feature"]
    items: pd.DataFrame


@dataclass(frozen=True)
class ScoredSparse:
    """What one rung gives."""

    scores: pd.DataFrame  # rows of SparseReport.scores
    chosen: pd.DataFrame  # rows of SparseReport.chosen
    held_out: pd.DataFrame  # rows of SparseReport.held_out
    curve: pd.DataFrame  # SparseReport.curve, for the headline's rung
    skipped: dict[str, str]  # controls that do not apply, and why


def score_sparse(
    inputs: Inputs, stage: Stage, ks: tuple[int, ...], *, headline: bool = False, seed: int = 0
) -> ScoredSparse:
    """Score one rung.

    Args:
        inputs: of all items of the battery.
        stage: the rung with its parts.
        ks: how many features, ascending.
        headline: whether this rung carries the headline, and so the controls and the simultaneous band.
        seed: of inner folds, bootstraps and draws.
    """
    readers = _readers(inputs, stage, ks, seed)
    texts = [str(text) for text in inputs.items["text"]]
    tests = {"": stage.part}
    floors = {name: floor(name, texts, stage.source, tests=tests, seed=seed)[""] for name in FLOORS}
    table, found = Rows(stage, seed), readers["sparse"]
    by_k = {NESTED: stage.worth(found.headline)}
    by_k |= {k: stage.worth(found.logits[stage.part.main][:, i]) for i, k in enumerate(ks)}
    wide = {name: stage.worth(readers[name].headline) for name in ("codes", "residual")}
    for k, statistic in by_k.items():
        table.add("probe", "sparse", statistic, k)
    for name, statistic in wide.items():
        table.add("probe", name, statistic, EVERY)
    theirs = {name: stage.worth(one.headline) for name, one in floors.items()}
    for name, statistic in theirs.items():
        table.add("floor", name, statistic, EVERY)
    strongest, least = _strongest(theirs, stage.asked.chance, stage.n)
    for k, statistic in by_k.items():
        table.subtract("difference", strongest, statistic, least, k)
        for name, other in wide.items():
            table.subtract("dense_less_sparse", name, other, statistic, k)
    skipped: dict[str, str] = {}
    curve = pd.DataFrame()
    if headline:
        skipped = _controls(table, inputs, found, by_k, ks)
        curve = _curve(stage, ks, by_k, least, wide, seed)
    held = pd.concat([by_item(stage, name, s) for name, s in (readers | floors).items()], ignore_index=True)
    scores = pd.DataFrame(table.rows).rename(columns={"layer": "k"}).astype({"p": float, "p_adjusted": float})
    return ScoredSparse(scores, _chosen(inputs, stage, ks, found), held, curve, skipped)


def _readers(inputs: Inputs, stage: Stage, ks: tuple[int, ...], seed: int) -> dict[str, Sweep]:
    """The three probes under the stage's folds."""
    read = partial(sweep, part=stage.source, tests={"": stage.part}, methods=(stage.part.main,), seed=seed)
    return {
        "sparse": read(lambda _: inputs.codes, grid=GRID, prepare=best(ks))[""],
        "codes": read(lambda _: inputs.codes, grid=GRID)[""],
        "residual": read(lambda _: inputs.residual)[""],
    }


def _chosen(inputs: Inputs, stage: Stage, ks: tuple[int, ...], found: Sweep) -> pd.DataFrame:
    """What each fold chose from its training items, as deep as the largest k, and the k that it chose."""
    source, tables = stage.source, []
    for fold, layer in zip(np.unique(stage.part.folds), found.layers, strict=True):
        train = source.folds != fold
        rows = inputs.codes[source.rows[train], 0]
        one = described(rows, source.y[train], stage.asked.classes, max(ks), inputs.density)
        tables.append(one.assign(rung=stage.rung, fold=int(fold), k=ks[layer]))
    table = pd.concat(tables, ignore_index=True)
    return table[["rung", "fold", "k", *[c for c in table if c not in ("rung", "fold", "k")]]]


def _controls(
    table: Rows, inputs: Inputs, found: Sweep, by_k: dict[int, Statistic], ks: tuple[int, ...]
) -> dict[str, str]:
    """Random features of the same density and random directions, at each k and at the k that each fold chose."""
    stage, seed, skipped = table.stage, table.seed, {}
    d = inputs.residual.shape[2]
    kinds: dict[str, tuple[np.ndarray, dict[int, Maker]]] = {
        "random_features": (inputs.codes, {k: random_features(inputs.density, k, seed=seed) for k in ks}),
        "random_directions": (inputs.residual, {k: random_directions(d, k, seed=seed) for k in ks if k <= d}),
    }
    one = np.ones((1, stage.n))
    for kind, (x, makers) in kinds.items():
        drawn: dict[int, np.ndarray] = {}
        for k, make in makers.items():
            try:
                drawn[k] = held_out(x, stage, make, grid=GRID, draws=DRAWS, seed=seed)
            except BatteryError as error:
                skipped[f"{kind} at k = {k}"] = str(error)
        if set(found.layers) <= {ks.index(k) for k in drawn}:
            drawn[NESTED] = _nested(stage, found, drawn, ks)
        for k, logits in drawn.items():
            score = spread(float(by_k[k](one)[0]), logits, stage, kind.replace("_", " "))[0]
            table.keep("control", kind, score, k)
        if NESTED in drawn:
            mean = _mean([stage.worth(logits) for logits in drawn[NESTED]])
            table.subtract("beyond_control", kind, by_k[NESTED], mean)
    return skipped


def _nested(stage: Stage, found: Sweep, drawn: dict[int, np.ndarray], ks: tuple[int, ...]) -> np.ndarray:
    """Each fold's logits from the draws of the k that it chose."""
    out = np.full_like(next(iter(drawn.values())), np.nan)
    for fold, layer in zip(np.unique(stage.part.folds), found.layers, strict=True):
        test = stage.part.folds == fold
        out[:, test] = drawn[ks[layer]][:, test]
    return out


def _mean(family: list[Statistic]) -> Statistic:
    return lambda weights: np.mean([one(weights) for one in family], axis=0)


def _curve(
    stage: Stage, ks: tuple[int, ...], by_k: dict[int, Statistic], least: Statistic, wide: dict[str, Statistic],
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Differences by k, each kind in a band that holds for all k at once: ``kind, k, difference, low, high``."""
    families = {"sparse_less_floor": [less(by_k[k], least) for k in ks]}
    families |= {f"{name}_less_sparse": [less(other, by_k[k]) for k in ks] for name, other in wide.items()}
    tables = []
    for kind, family in families.items():
        found = band(family, stage.n, seed=seed, folds=stage.n_folds)
        columns = {"kind": kind, "k": ks, "difference": found.value, "low": found.low, "high": found.high}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
