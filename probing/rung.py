"""One rung of the ladder: probes by layer and nested, floors, the control, and the paired differences between them."""

from collections.abc import Callable, Iterable
from dataclasses import asdict

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.probing import folds
from affectlens.probing.floors import FLOORS, floor
from affectlens.probing.metrics import metric
from affectlens.probing.report import NESTED
from affectlens.probing.sweep import METHODS, Sweep, sweep
from affectlens.probing.targets import Target
from affectlens.stats import Estimate, Statistic, Weights, estimate

Watch = Callable[[Iterable[int]], Iterable[int]]
UNIT = "scene"


def score_rung(
    x: Float[np.ndarray, "item layer d"],
    asked: Target,
    control: Target | None,
    rung: str,
    keys: Int[np.ndarray, " row"],
    seed: int,
    watch: Watch,
) -> pd.DataFrame:
    """Rows of :attr:`ProbeReport.scores` for one rung.

    Args:
        x: activations of all items of the battery.
        asked: the target.
        control: the same labels on the neutral partners, one a scene, or None.
        rung: its name.
        keys: the rung's grouping of the target's items.
        seed: of folds and bootstraps.
        watch: wraps the loop over folds, for a progress bar.
    """
    y, n_classes = asked.y, len(asked.classes)
    clusters, names = pd.factorize(asked.items["group"])
    texts = [str(text) for text in asked.items["text"]]
    fold = folds.split(keys, y, folds.OUTER, seed=seed)
    found = sweep(lambda _: x[asked.rows], y, n_classes, keys, fold, seed=seed, watch=watch)
    table = Rows(rung, len(names), seed)

    def worth(logits: np.ndarray) -> Statistic:
        return metric(logits, y, fold, clusters)

    for method in METHODS:
        table.add("probe", method, worth(found.nested[method]))
        for layer in range(x.shape[1]):
            table.add("probe", method, worth(found.logits[method][:, layer]), layer)
    ours = worth(nested(found))
    floors = {name: worth(nested(floor(name, texts, y, n_classes, keys, fold, seed=seed))) for name in FLOORS}
    for name, statistic in floors.items():
        table.add("floor", name, statistic)
    strongest, least = _strongest(floors, 0.5 if asked.binary else 1 / n_classes, len(names))
    table.add("difference", strongest, less(ours, least), bounded=False)
    if control is not None:
        theirs = _of_control(x, control, rung, pd.Index(names), seed)
        table.add("control", "neutral_pseudo_label", theirs)
        table.add("beyond_control", "neutral_pseudo_label", less(ours, theirs), bounded=False)
    return pd.DataFrame(table.rows)


class Rows:
    """Estimates gathered as the rows of a table."""

    def __init__(self, rung: str, n: int, seed: int) -> None:
        self.rung, self.n, self.seed = rung, n, seed
        self.rows: list[dict[str, object]] = []

    def add(self, kind: str, reader: str, statistic: Statistic, layer: int = NESTED, *, bounded: bool = True) -> None:
        """Estimate a statistic over scenes and keep it."""
        found: Estimate = estimate(statistic, self.n, UNIT, seed=self.seed, bounds=(0.0, 1.0) if bounded else None)
        kept = {k: v for k, v in asdict(found).items() if k not in ("p", "p_adjusted")}
        self.rows.append({"rung": self.rung, "kind": kind, "reader": reader, "layer": layer} | kept)


def nested(found: Sweep) -> Float[np.ndarray, "item k"]:
    """The logistic probe's held-out logits, layer and C chosen inside each fold."""
    return found.nested["logistic"]


def less(a: Statistic, b: Statistic) -> Statistic:
    """The difference of two statistics under the same weights, which pairs them."""

    def difference(weights: Weights) -> Float[np.ndarray, " draw"]:
        return a(weights) - b(weights)

    return difference


def _strongest(floors: dict[str, Statistic], chance: float, n: int) -> tuple[str, Statistic]:
    """The floor to beat: the best of the readers, or chance where all of them fall below it."""
    values = {name: float(statistic(np.ones((1, n)))[0]) for name, statistic in floors.items()}
    best = max(values, key=lambda name: values[name])
    if values[best] >= chance:
        return best, floors[best]
    return "chance", lambda weights: np.full(len(weights), chance)


def _of_control(x: np.ndarray, control: Target, rung: str, names: pd.Index, seed: int) -> Statistic:
    keys = folds.keys(control.items, rung)
    assert not isinstance(keys, str)
    fold = folds.split(keys, control.y, folds.OUTER, seed=seed)
    found = sweep(lambda _: x[control.rows], control.y, len(control.classes), keys, fold, seed=seed)
    return metric(nested(found), control.y, fold, names.get_indexer(pd.Index(control.items["group"])))
