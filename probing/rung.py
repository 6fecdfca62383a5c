"""One rung of the ladder: probes by layer and nested, floors, the control, and the paired differences between them."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.metrics import metric
from affectlens.probing import folds
from affectlens.probing.floors import FLOORS, floor
from affectlens.probing.report import NESTED
from affectlens.probing.sweep import METHODS, Sweep, sweep
from affectlens.probing.targets import Target
from affectlens.stats import AT_BOUND, Estimate, Statistic, estimate, less

Watch = Callable[[Iterable[int]], Iterable[int]]
UNIT = "scene"


def score_rung(
    x: Float[np.ndarray, "item layer d"],
    asked: Target,
    control: Int[np.ndarray, " row"] | None,
    rung: str,
    keys: Int[np.ndarray, " row"],
    seed: int,
    watch: Watch,
) -> pd.DataFrame:
    """Rows of :attr:`ProbeReport.scores` for one rung.

    Args:
        x: activations of all items of the battery.
        asked: the target.
        control: rows of the neutral partners, in the target's order, to be read under the same labels; or None.
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
    table.subtract("difference", strongest, ours, least)
    if control is not None:
        partners = sweep(lambda _: x[control], y, n_classes, keys, fold, seed=seed)
        theirs = worth(nested(partners))
        table.add("control", "neutral_pseudo_label", theirs)
        table.subtract("beyond_control", "neutral_pseudo_label", ours, theirs)
    return pd.DataFrame(table.rows)


class Rows:
    """Estimates gathered as the rows of a table."""

    def __init__(self, rung: str, n: int, seed: int) -> None:
        self.rung, self.n, self.seed = rung, n, seed
        self.rows: list[dict[str, object]] = []

    def add(self, kind: str, reader: str, statistic: Statistic, layer: int = NESTED) -> None:
        """Estimate a statistic over scenes and keep it."""
        self.keep(kind, reader, layer, estimate(statistic, self.n, UNIT, seed=self.seed))

    def subtract(self, kind: str, reader: str, a: Statistic, b: Statistic) -> None:
        """Keep ``a`` less ``b``, resampled together; where either sits at its bound, the worst of both intervals.

        At a bound every resample gives the same value, and so would their difference.
        """
        one, other = (estimate(statistic, self.n, UNIT, seed=self.seed) for statistic in (a, b))
        found = estimate(less(a, b), self.n, UNIT, seed=self.seed, bounds=None)
        if AT_BOUND in (one.method, other.method) or found.low == found.high:
            found = replace(found, low=one.low - other.high, high=one.high - other.low, method=AT_BOUND)
        self.keep(kind, reader, NESTED, found)

    def keep(self, kind: str, reader: str, layer: int, found: Estimate) -> None:
        """One row."""
        kept = {k: v for k, v in asdict(found).items() if k not in ("p", "p_adjusted")}
        self.rows.append({"rung": self.rung, "kind": kind, "reader": reader, "layer": layer} | kept)


def nested(found: Sweep) -> Float[np.ndarray, "item k"]:
    """The logistic probe's held-out logits, layer and C chosen inside each fold."""
    return found.nested["logistic"]


def _strongest(floors: dict[str, Statistic], chance: float, n: int) -> tuple[str, Statistic]:
    """The floor to beat: the best of the readers, or chance where all of them fall below it."""
    values = {name: float(statistic(np.ones((1, n)))[0]) for name, statistic in floors.items()}
    best = max(values, key=lambda name: values[name])
    if values[best] >= chance:
        return best, floors[best]
    return "chance", lambda weights: np.full(len(weights), chance)
