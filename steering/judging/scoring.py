"""A judge's record: its verdicts against the truth, with intervals by cluster.

Texts whose truth is none of the judge's classes (``other``) count too: calling one of them joy is a false alarm and
lowers the precision of joy; abstaining is right. Accuracy and recall are over the texts whose truth the judge has, an
abstention being a miss. Precision depends on how many texts of each class there are; recall does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import SteerError
from affectlens.stats import Estimate, Statistic, Weights, estimate
from affectlens.types import Json

ABSTAINED = ""
_Measure = Callable[[Float[np.ndarray, "draw truth said"]], Float[np.ndarray, " draw"]]
MEASURES = ("recall", "precision", "false_alarm")


@dataclass(frozen=True, eq=False)
class Record:
    """What a judge got right on texts of one source.

    Attributes:
        source: of the texts.
        classes: the judge's.
        truths: the rows of ``confusion``: the classes, then what else the texts were.
        confusion: texts by truth and by what was said: the classes, then abstention.
        accuracy: the share said rightly of the texts whose truth is a class.
        macro_recall: the mean of the classes' recalls: accuracy if the classes were equally frequent.
        macro_f1: the mean of the classes' F1.
        recall: by class.
        precision: by class.
        false_alarm: by class, the share of texts of another truth that are called so.
    """

    source: str
    classes: tuple[str, ...]
    truths: tuple[str, ...]
    confusion: Int[np.ndarray, "truth said"]
    accuracy: Estimate
    macro_recall: Estimate
    macro_f1: Estimate
    recall: dict[str, Estimate]
    precision: dict[str, Estimate]
    false_alarm: dict[str, Estimate]

    def table(self) -> pd.DataFrame:
        """One row a class that the texts have: ``source``, ``class``, ``n`` and each measure with its interval."""
        rows = []
        for k, name in enumerate(self.truths):
            if name in self.recall and self.confusion[k].sum():
                row: dict[str, object] = {"source": self.source, "class": name, "n": int(self.confusion[k].sum())}
                for measure in MEASURES:
                    found = getattr(self, measure)[name]
                    row |= {measure: found.value, f"{measure}.low": found.low, f"{measure}.high": found.high}
                rows.append(row)
        return pd.DataFrame(rows)

    def matrix(self) -> pd.DataFrame:
        """The confusion matrix with its names: a row a truth, a column what was said."""
        return pd.DataFrame(self.confusion, list(self.truths), [*self.classes, "abstained"])

    def as_json(self) -> Json:
        """As plain values, for a manifest."""
        plain = {name: {k: _plain(v) for k, v in getattr(self, name).items()} for name in MEASURES}
        one = {name: _plain(getattr(self, name)) for name in ("accuracy", "macro_recall", "macro_f1")}
        return {"source": self.source, "classes": list(self.classes), "truths": list(self.truths),
                "confusion": self.confusion.tolist(), **one, **plain}  # fmt: skip

    @classmethod
    def from_json(cls, facts: Json) -> "Record":
        """From :meth:`as_json`."""
        many = {name: {k: _estimate(v) for k, v in facts[name].items()} for name in MEASURES}
        return cls(
            facts["source"], tuple(facts["classes"]), tuple(facts["truths"]),
            np.array(facts["confusion"], dtype=np.int64), _estimate(facts["accuracy"]),
            _estimate(facts["macro_recall"]), _estimate(facts["macro_f1"]), many["recall"], many["precision"],
            many["false_alarm"],
        )  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.source}: accuracy {self.accuracy}, macro recall {self.macro_recall}, macro F1 {self.macro_f1} "
            f"({self.accuracy.n} {self.accuracy.unit}s)"
        )


def record(
    truth: Sequence[str], said: Sequence[str], classes: Sequence[str], *, source: str,
    groups: Sequence[str] | None = None, unit: str = "text", seed: int = 0,
) -> Record:  # fmt: skip
    """Compare verdicts with the truth.

    Args:
        truth: of each text; names that are no class are what the judge should abstain from.
        said: the judge's best class, or "".
        classes: the judge's.
        source: of the texts.
        groups: the cluster of each text; by default each is its own.
        unit: what a cluster is.
        seed: of the bootstrap.

    Raises:
        SteerError: lists of different lengths, no texts, or a verdict that is no class.
    """
    if not len(truth) == len(said) == len(groups if groups is not None else said) or not truth:
        raise SteerError(f"{len(truth)} truths, {len(said)} verdicts: give one of each, and a group, for every text.")
    if alien := sorted(set(said) - {*classes, ABSTAINED}):
        raise SteerError(f"The verdict {alien[0]!r} is none of {', '.join(classes)}.")
    truths = (*classes, *sorted(set(truth) - set(classes)))
    columns = (*classes, ABSTAINED)
    cluster = np.unique(list(groups) if groups is not None else np.arange(len(said)), return_inverse=True)[1]
    counts = np.zeros((int(cluster.max()) + 1, len(truths), len(columns)))
    for group, was, called in zip(cluster, truth, said, strict=True):
        counts[group, truths.index(was), columns.index(called)] += 1
    n = len(counts)

    matrices: dict[tuple[int, ...], np.ndarray] = {}  # by the weights' shape, which tells value, bootstrap, jackknife

    def found(measure: _Measure) -> Estimate:
        statistic = _statistic(counts, measure, matrices)
        if not np.isfinite(statistic(np.ones((1, n)))[0]):
            return Estimate(np.nan, 0.0, 1.0, n, unit, method="there are none")
        return estimate(statistic, n, unit, seed=seed)

    def by_class(name: str) -> dict[str, Estimate]:
        def of(k: int) -> _Measure:
            return lambda m: _PARTS[name](m)[:, k]

        return {label: found(of(k)) for k, label in enumerate(classes)}

    size = len(classes)
    return Record(
        source, tuple(classes), truths, counts.sum(0).astype(np.int64),
        found(lambda m: _share(np.einsum("dkk->d", m[:, :size, :size]), m[:, :size].sum((1, 2)))),
        found(lambda m: np.nanmean(_recall(m)[:, m[:, :size].sum((0, 2)) > 0], axis=1)),
        found(lambda m: np.nanmean(_f1(m)[:, m[:, :size].sum((0, 2)) > 0], axis=1)),
        by_class("recall"), by_class("precision"), by_class("false_alarm"),
    )  # fmt: skip


def _plain(one: Estimate) -> Json:
    """With what JSON has: no NaN."""
    value = None if np.isnan(one.value) else round(one.value, 6)
    return {"value": value, "low": round(one.low, 6), "high": round(one.high, 6), "n": one.n, "unit": one.unit,
            "method": one.method}  # fmt: skip


def _estimate(said: Json) -> Estimate:
    return Estimate(**{**said, "value": np.nan if said["value"] is None else said["value"]})


def _statistic(
    counts: Float[np.ndarray, "group truth said"], measure: _Measure, matrices: dict[tuple[int, ...], np.ndarray]
) -> Statistic:
    """The measure of weighted clusters; the matrices of a set of weights are made once for all measures."""

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        if weights.shape not in matrices:
            matrices[weights.shape] = (weights @ counts.reshape(len(counts), -1)).reshape(-1, *counts.shape[1:])
        return measure(matrices[weights.shape])

    return statistic


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _hits(m: np.ndarray) -> np.ndarray:
    size = m.shape[2] - 1
    return np.einsum("dkk->dk", m[:, :size, :size])


def _recall(m: np.ndarray) -> np.ndarray:
    return _share(_hits(m), m[:, : m.shape[2] - 1].sum(2))


def _precision(m: np.ndarray) -> np.ndarray:
    return _share(_hits(m), m[:, :, :-1].sum(1))


def _false_alarm(m: np.ndarray) -> np.ndarray:
    size = m.shape[2] - 1
    called, own = m[:, :, :-1].sum(1), m[:, :size].sum(2)
    return _share(called - _hits(m), m.sum((1, 2))[:, None] - own)


def _f1(m: np.ndarray) -> np.ndarray:
    return _share(2 * _hits(m), m[:, :, :-1].sum(1) + m[:, : m.shape[2] - 1].sum(2))


_PARTS = {"recall": _recall, "precision": _precision, "false_alarm": _false_alarm}
