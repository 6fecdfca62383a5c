"""The latents of a supervised dictionary: labels as numbers, decoder rows, read-out codes, and what they are worth."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from affectlens.probing.features.sparse_choosing import best
from affectlens.probing.features.sparse_rung import GRID, Inputs
from affectlens.probing.parts import Stage
from affectlens.probing.rung import Rows
from affectlens.probing.sweep import Part, sweep
from affectlens.probing.targets import Target
from affectlens.stats import Estimate, Statistic, estimate, paired

PENALTY = 1.0  # of the read-out, in mean eigenvalues of the standardised rows: the ladder's ridge for classes
SHUFFLES = 99

Matrix = Float[np.ndarray, "item d"]
Labels = Float[np.ndarray, "item label"]
Kept = Bool[np.ndarray, " item"]


def label_table(asked: Target) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels ``[item, label]`` of the target affect's items, and which items each label is scored among.

    ``affect`` is 1 or 0, a domain 1 or 0; an emotion is 1 for its emotional items, less the share of one emotion in
    all for every emotional item, and 0 for neutral items: so it holds what it is beyond affect.
    """
    items, emotional = asked.items, asked.y == 1
    emotions, domains = (sorted(items[name].dropna().unique()) for name in ("emotion", "domain"))
    labels = {"affect": emotional.astype(float)}
    labels |= {str(e): emotional * ((items["emotion"] == e).to_numpy() - 1 / len(emotions)) for e in emotions}
    labels |= {str(d): (items["domain"] == d).to_numpy().astype(float) for d in domains}
    among = {name: emotional if name in emotions else np.ones(len(items), dtype=bool) for name in labels}
    return pd.DataFrame(labels), pd.DataFrame(among)


@dataclass(frozen=True)
class Dictionary:
    """``x = mean + (labels - centre) @ rows``."""

    mean: Float[np.ndarray, " d"]
    centre: Float[np.ndarray, " label"]
    rows: Float[np.ndarray, "label d"]

    @classmethod
    def of(cls, x: Matrix, labels: Labels) -> "Dictionary":
        """By least squares, of least norm where labels add up to a constant."""
        mean, centre = x.mean(0), labels.mean(0)
        return cls(mean, centre, np.linalg.lstsq(labels - centre, x - mean, rcond=None)[0])

    def __call__(self, labels: Labels) -> Matrix:
        return self.mean + (labels - self.centre) @ self.rows


def read_out(x: Matrix, labels: Labels) -> Callable[[Matrix], Labels]:
    """Ridge regression of all labels on standardised activations."""
    mean, spread, centre = x.mean(0), x.std(0) + 1e-8, labels.mean(0)
    z = (x - mean) / spread
    typical = float((z**2).sum()) / len(z) + 1e-12
    coef = z.T @ np.linalg.solve(z @ z.T + PENALTY * typical * np.eye(len(z)), labels - centre)
    return lambda values: centre + (values - mean) / spread @ coef


def held_out_codes(x: Matrix, labels: Labels, folds: Int[np.ndarray, " item"]) -> Labels:
    """Each item's codes by a read-out that was fitted without its fold."""
    out = np.full(labels.shape, np.nan)
    for fold in np.unique(folds):
        train = folds != fold
        out[~train] = read_out(x[train], labels[train])(x[~train])
    return out


def variance(x: Matrix, labels: Labels, codes: Labels, stage: Stage, *, seed: int = 0) -> pd.DataFrame:
    """Shares of held-out variance about the training mean, a row a reader (see :class:`Supervised`)."""
    folds, rng = stage.part.folds, np.random.default_rng(seed)

    def share(rebuilt: Callable[[Kept], Float[np.ndarray, "held d"]]) -> Statistic:
        left, total = np.zeros(len(x)), np.zeros(len(x))
        for fold in np.unique(folds):
            train = folds != fold
            left[~train] = ((x[~train] - rebuilt(train)) ** 2).sum(1)
            total[~train] = ((x[~train] - x[train].mean(0)) ** 2).sum(1)
        sums = [np.bincount(stage.clusters, weights=part, minlength=stage.n) for part in (left, total)]
        return lambda weights: 1 - (weights @ sums[0]) / (weights @ sums[1])

    def given(those: Labels) -> Statistic:
        return share(lambda train: Dictionary.of(x[train], those[train])(those[~train]))

    def components(train: Kept) -> Float[np.ndarray, "held d"]:
        mean = x[train].mean(0)
        axes = np.linalg.svd(x[train] - mean, full_matrices=False)[2][: labels.shape[1]]
        return mean + (x[~train] - mean) @ axes.T @ axes

    readers = {
        "labels": given(labels),
        "codes": share(lambda train: Dictionary.of(x[train], labels[train])(codes[~train])),
        "components": share(components),
    }
    found = {
        name: estimate(one, stage.n, stage.unit, seed=seed, bounds=None, folds=stage.n_folds)
        for name, one in readers.items()
    }
    shuffled = [given(labels[rng.permutation(len(labels))]) for _ in range(SHUFFLES)]
    one = np.ones((1, stage.n))
    values = np.array([float(statistic(one)[0]) for statistic in shuffled])
    ours = float(readers["labels"](one)[0])
    low, high = np.quantile(values, [0.025, 0.975])
    p = (1 + int((values >= ours).sum())) / (1 + SHUFFLES)
    found["shuffled"] = Estimate(float(values.mean()), float(low), float(high), SHUFFLES, "shuffle", p=p,
                                 method=f"mean and 95% range of {SHUFFLES} shuffles")  # fmt: skip
    found["components_less_codes"] = paired(
        readers["components"], readers["codes"], stage.n, stage.unit, seed=seed, folds=stage.n_folds
    )
    return pd.DataFrame([{"reader": name} | vars(one) for name, one in found.items()])


def score_latent(
    name: str, label: Float[np.ndarray, " item"], among: Kept, code: Float[np.ndarray, " item"], stage: Stage,
    inputs: Inputs, *, seed: int = 0,
) -> pd.DataFrame | str:  # fmt: skip
    """One latent beside the best single feature and the dense probe, or why it can't be scored.

    Args:
        name: of the label.
        label: its numbers.
        among: the items that it is scored among.
        code: held-out codes of its latent.
        stage: the folds.
        inputs: of all items of the battery.
        seed: of inner folds and bootstraps.
    """
    y = (label > 0).astype(int)[among]
    whole, folds = stage.part, stage.part.folds[among]
    if any(len(np.unique(y[folds != fold])) < 2 for fold in np.unique(folds)):
        return "the training items of some fold lack them"
    if all(len(np.unique(y[folds == fold])) < 2 for fold in np.unique(folds)):
        return "no fold holds items with and without them"
    part = Part(whole.rows[among], y, 2, whole.keys[among], folds)
    asked = replace(stage.asked, name=name, rows=part.rows, y=y, items=stage.asked.items[among])
    clusters = np.unique(stage.clusters[among], return_inverse=True)[1]
    one = replace(stage, asked=asked, part=part, source=part, clusters=clusters)
    read = {
        "feature": sweep(lambda _: inputs.codes, part, grid=GRID, prepare=best((1,)), methods=("logistic",), seed=seed),
        "dense": sweep(lambda _: inputs.residual, part, methods=("logistic",), seed=seed),
    }
    worth = {"latent": one.worth(code[among][:, None])} | {k: one.worth(v[""].headline) for k, v in read.items()}
    table = Rows(one, seed)
    for reader, statistic in worth.items():
        table.add("auroc", reader, statistic)
    for reader in read:
        table.subtract("latent_less", reader, worth["latent"], worth[reader])
    return pd.DataFrame(table.rows).drop(columns=["rung", "layer"]).assign(label=name)
