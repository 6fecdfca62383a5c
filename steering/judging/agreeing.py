"""Agreement between two judges beyond chance, and shares corrected for a judge's errors.

Cohen (1960), A coefficient of agreement for nominal scales, EPM 20; Rogan and Gladen (1978), AJE 107.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.stats import Estimate, Weights, estimate

DRAWS = 4000


def kappa(
    a: Sequence[str], b: Sequence[str], *, labels: Sequence[str] | None = None, groups: Sequence[str] | None = None,
    unit: str = "", seed: int = 0,
) -> Estimate:  # fmt: skip
    """Cohen's kappa on the texts that both judged, with an interval by cluster.

    Texts from which either abstained are left out, and those to which either gave a class that the other lacks.

    >>> round(kappa(["joy", "joy", "fear", "fear"], ["joy", "joy", "fear", "joy"]).value, 3)
    0.5

    Args:
        a: the first judge's verdicts, "" where it abstained.
        b: the second's, on the same texts.
        labels: the classes that both judges have; by default all that occur.
        groups: the cluster of each text, such as its prompt; by default each is its own.
        unit: what a cluster is.
        seed: of the bootstrap.

    Raises:
        SteerError: lists of different lengths, no text that both judged, or one and the same verdict on all of them.
    """
    if len(a) != len(b) or (groups is not None and len(groups) != len(a)):
        raise SteerError(f"Kappa needs verdicts on the same texts: {len(a)} and {len(b)} were given.")
    shared = ({*a, *b} if labels is None else set(labels)) - {""}
    kept = [i for i in range(len(a)) if a[i] in shared and b[i] in shared]
    names = sorted({a[i] for i in kept} | {b[i] for i in kept})
    if len(names) < 2:
        raise SteerError(
            f"Kappa is undefined: both judges gave {len(kept)} verdicts of {len(names)} classes. It needs texts that "
            "both judged, and two classes among the verdicts."
        )
    clusters = np.unique([groups[i] if groups is not None else f"{i:09}" for i in kept], return_inverse=True)[1]
    counts = np.zeros((int(clusters.max()) + 1, len(names), len(names)))
    for cluster, i in zip(clusters, kept, strict=True):
        counts[cluster, names.index(a[i]), names.index(b[i])] += 1

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        table = (weights @ counts.reshape(len(counts), -1)).reshape(-1, *counts.shape[1:])
        table = table / np.maximum(table.sum((1, 2), keepdims=True), 1e-12)
        chance = (table.sum(1) * table.sum(2)).sum(1)
        agreed = np.einsum("dkk->d", table)
        return np.where(chance < 1, (agreed - chance) / np.maximum(1 - chance, 1e-12), np.nan)

    found = estimate(
        statistic, len(counts), unit or ("group" if groups is not None else "text"), seed=seed, bounds=None
    )
    if found.value == 1.0:  # every resample agrees too: the interval is that of the share of clusters that agree
        edge = estimate(lambda w: np.ones(len(w)), len(counts), found.unit)
        return replace(edge, value=1.0)
    return replace(found, high=min(found.high, 1.0))


def corrected(share: Estimate, recall: Estimate, false_alarm: Estimate, *, seed: int = 0) -> Estimate:
    """The true share of a class from the share that a judge calls so: (share - false alarm) / (recall - false alarm).

    The interval is wider than the share's, because the judge's own rates are estimates: all three are drawn anew, each
    from two half normals that have its interval, and the middle 95% of the results are kept. It assumes that the judge
    errs on these texts as it does on those of its record, which for a model's replies nobody has shown.

    Args:
        share: of texts that the judge calls by the class.
        recall: the judge's, of that class.
        false_alarm: the share of other texts that it calls so.
        seed: of the draws.

    Raises:
        SteerError: a recall that is not above the false alarms: this judge can't tell the class.
    """
    if recall.low <= false_alarm.high:
        raise SteerError(
            f"The judge's recall, {recall}, is not surely above its false alarms, {false_alarm}: its verdicts on this "
            "class tell nothing, and no correction mends that. Use another judge."
        )
    rng = np.random.default_rng(seed)
    s, r, f = (_draws(one, rng) for one in (share, recall, false_alarm))
    low, high = np.percentile(_rogan_gladen(s, r, f), [2.5, 97.5])
    value = float(_rogan_gladen(*(np.array([one.value]) for one in (share, recall, false_alarm)))[0])
    return Estimate(value, min(float(low), value), max(float(high), value), share.n, share.unit,
                    method=f"Rogan and Gladen, {DRAWS} draws of all three rates")  # fmt: skip


def _rogan_gladen(share: np.ndarray, recall: np.ndarray, false_alarm: np.ndarray) -> np.ndarray:
    return np.clip((share - false_alarm) / np.maximum(recall - false_alarm, 1e-6), 0.0, 1.0)


def _draws(one: Estimate, rng: np.random.Generator) -> np.ndarray:
    z = rng.normal(size=DRAWS)
    half = np.where(z < 0, one.value - one.low, one.high - one.value) / 1.96
    return np.clip(one.value + z * half, 0.0, 1.0)
