"""One rung of the ladder: probes by layer and nested, floors, the paired difference; for the headline, its controls."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.metrics import average, metric
from affectlens.probing import controls, permuting
from affectlens.probing.fits import coded
from affectlens.probing.floors import FLOORS, floor
from affectlens.probing.parts import Stage
from affectlens.probing.report import NESTED
from affectlens.probing.sweep import Part, Sweep, sweep
from affectlens.stats import Estimate, Statistic, band, estimate, less, paired

Watch = Callable[[Iterable[int]], Iterable[int]]
QUICK = 2  # methods of a rung that does not carry the headline: its main one and the mean difference


@dataclass(frozen=True)
class Scored:
    """What one rung gives."""

    scores: pd.DataFrame  # rows of ProbeReport.scores
    held_out: pd.DataFrame  # rows of ProbeReport.held_out
    layers: pd.DataFrame  # ProbeReport.layers, for the headline's rung
    skipped: dict[str, str]  # controls that do not apply, and why


class Rows:
    """Estimates gathered as the rows of a table."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage, self.seed = stage, seed
        self.rows: list[dict[str, object]] = []

    def add(
        self, kind: str, reader: str, statistic: Statistic, layer: int = NESTED,
        bounds: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:  # fmt: skip
        """Estimate a statistic over clusters and keep it."""
        self.keep(kind, reader, self._estimate(statistic, bounds), layer)

    def subtract(self, kind: str, reader: str, a: Statistic, b: Statistic, layer: int = NESTED) -> None:
        """Keep ``a`` less ``b``, resampled together."""
        stage = self.stage
        self.keep(kind, reader, paired(a, b, stage.n, stage.unit, seed=self.seed, folds=stage.n_folds), layer)

    def keep(self, kind: str, reader: str, found: Estimate, layer: int = NESTED) -> None:
        """One row."""
        self.rows.append({"rung": self.stage.rung, "kind": kind, "reader": reader, "layer": layer} | asdict(found))

    def _estimate(self, statistic: Statistic, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Estimate:
        stage = self.stage
        return estimate(statistic, stage.n, stage.unit, seed=self.seed, bounds=bounds, folds=stage.n_folds)


def score_rung(
    x: Float[np.ndarray, "item layer d"],
    texts: list[str],
    stage: Stage,
    *,
    partners: Int[np.ndarray, " row"] | None = None,
    headline: bool = False,
    seed: int = 0,
    watch: Watch = iter,
) -> Scored:
    """Score one rung.

    Args:
        x: activations of all items of the battery.
        texts: all their texts.
        stage: the rung with its parts.
        partners: rows of the neutral partners, in the target's order, to be read under the same labels; or None.
        headline: whether this rung carries the headline, and so all methods and controls.
        seed: of inner folds and bootstraps.
        watch: wraps the loop over folds, for a progress bar.
    """
    part = stage.part
    tests = {"": part}
    methods = part.methods if headline else part.methods[:QUICK]
    found = sweep(lambda _: x, stage.source, tests=tests, methods=methods, seed=seed, watch=watch)[""]
    table = Rows(stage, seed)
    for method in methods:
        table.add("probe", method, stage.worth(found.nested[method]))
        for layer in range(x.shape[1]):
            table.add("probe", method, stage.worth(found.logits[method][:, layer]), layer)
    floors = {name: floor(name, texts, stage.source, tests=tests, seed=seed)[""] for name in FLOORS}
    ours, theirs = stage.worth(found.headline), {n: stage.worth(f.headline) for n, f in floors.items()}
    for name, statistic in theirs.items():
        table.add("floor", name, statistic)
    strongest, least = _strongest(theirs, stage.asked.chance, stage.n)
    table.subtract("difference", strongest, ours, least)
    skipped: dict[str, str] = {}
    layers = pd.DataFrame()
    if headline:
        best = strongest if strongest in floors else next(iter(floors))
        _simple_controls(table, x, found, floors[best], partners)
        skipped = _control_task(table, x, texts, found)
        layers = _by_layer(table, x, found, floors[best], least)
    readers = {part.main: found} | floors
    held = pd.concat([held_out(stage, name, s) for name, s in readers.items()], ignore_index=True)
    return Scored(pd.DataFrame(table.rows), held, layers, skipped)


def _simple_controls(table: Rows, x: np.ndarray, found: Sweep, floor_: Sweep, partners: np.ndarray | None) -> None:
    """Layer 0, random directions, a small network, conditional probing, the neutral partners."""
    stage, part, seed = table.stage, table.stage.part, table.seed
    ours = stage.worth(found.headline)
    table.subtract("beyond_control", "layer_0", ours, stage.worth(found.logits[part.main][:, 0]))
    here = x[part.rows]
    drawn = controls.random_directions(here, part, found.layers, seed=seed)
    one = np.ones((1, stage.n))
    values = np.array([float(stage.worth(logits)(one)[0]) for logits in drawn])
    low, high = np.quantile(values, [0.025, 0.975])
    spread = Estimate(float(values.mean()), float(low), float(high), len(values), "direction",
                      method=f"mean and 95% range of {len(values)} random directions")  # fmt: skip
    table.keep("control", "random_directions", spread)
    bent = stage.worth(controls.network(here, part, found.layers, seed=seed))
    table.add("probe", "network", bent)
    table.subtract("beyond_linear", "network", bent, ours)
    gained = controls.gains(floor_, found, part)
    table.add("conditional", "gain", average(gained, stage.clusters), bounds=None)
    if partners is not None:
        twin = sweep(lambda _: x, replace(part, rows=partners), methods=(part.main,), seed=seed)[""]
        theirs = stage.worth(twin.headline)
        table.add("control", "neutral_pseudo_label", theirs)
        table.subtract("beyond_control", "neutral_pseudo_label", ours, theirs)


def _control_task(table: Rows, x: np.ndarray, texts: list[str], found: Sweep) -> dict[str, str]:
    """The probe on a random function of a word, at the layers that the target chose; selectivity is the difference."""
    stage, part = table.stage, table.stage.part
    try:
        kept, labels = controls.control_labels([texts[i] for i in part.rows], part, table.seed)
        task = Part(part.rows[kept], labels, part.n_classes, part.keys[kept], part.folds[kept])
        chosen = sorted(set(found.layers))
        seen = sweep(lambda _: x[:, chosen], task, methods=(task.main,), seed=table.seed)[""]
    except BatteryError as error:
        return {"control_task": str(error)}
    layer_of = dict(zip(np.unique(part.folds).tolist(), found.layers, strict=True))
    at = np.array([chosen.index(layer_of[int(fold)]) for fold in task.folds])
    logits = seen.logits[task.main][np.arange(len(labels)), at]
    codes, inside = np.unique(stage.clusters[kept], return_inverse=True)
    if len(codes) < stage.n:
        return {"control_task": f"some {stage.unit}s hold no item with such a word"}
    statistic = metric(logits, labels, task.folds, inside)
    table.add("control", "control_task", statistic)
    spelt = floor("tfidf", texts, task, seed=table.seed)[""].headline
    table.add("control", "control_task_words", metric(spelt, labels, task.folds, inside))
    table.subtract("selectivity", "control_task", stage.worth(found.headline), statistic)
    return {}


def _by_layer(table: Rows, x: np.ndarray, found: Sweep, floor_: Sweep, least: Statistic) -> pd.DataFrame:
    """Each layer's difference from the floor with a simultaneous band, and its permutation p against both nulls."""
    stage, part = table.stage, table.stage.part
    n_layers = x.shape[1]
    gaps = [less(stage.worth(found.logits[part.main][:, layer]), least) for layer in range(n_layers)]
    all_at_once = band(gaps, stage.n, seed=table.seed, folds=stage.n_folds)
    groups = np.asarray(pd.factorize(stage.asked.items["group"])[0])
    exchange = permuting.Exchange.of(stage.asked.items, part.y)
    truth = coded(part.y, part.n_classes)
    here = x[part.rows]
    nulls = {"chance": lambda _fold: truth, "floor": permuting.beyond(floor_, part)}
    out: dict[str, object] = {
        "layer": np.arange(n_layers), "difference": all_at_once.value,
        "low": all_at_once.low, "high": all_at_once.high,
    }  # fmt: skip
    for name, aim in nulls.items():
        test = permuting.permute(here, part, aim, groups, exchange, seed=table.seed)
        out |= {f"t_{name}": test.t, f"p_{name}": test.p, f"p_{name}_adjusted": test.p_adjusted}
    return pd.DataFrame(out)


def held_out(stage: Stage, reader: str, found: Sweep) -> pd.DataFrame:
    """The nested held-out logits of one reader, item by item."""
    logits = {f"logit_{k}": found.headline[:, k] for k in range(found.headline.shape[1])}
    return pd.DataFrame({
        "rung": stage.rung, "reader": reader, "id": stage.asked.items["id"].to_numpy(),
        "y": stage.asked.y.astype(float), "fold": stage.part.folds, "cluster": stage.clusters, **logits,
    })  # fmt: skip


def _strongest(floors: dict[str, Statistic], chance: float, n: int) -> tuple[str, Statistic]:
    """The floor to beat: the best of the readers, or chance where all of them fall below it."""
    values = {name: float(statistic(np.ones((1, n)))[0]) for name, statistic in floors.items()}
    best = max(values, key=lambda name: values[name])
    if values[best] >= chance:
        return best, floors[best]
    return "chance", lambda weights: np.full(len(weights), chance)
