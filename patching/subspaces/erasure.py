"""What erasing a concept does: what is still read of it, and what the model still does with it."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.errors import PatchError
from affectlens.patching.subspaces.ratios import UNIT, Clusters, tells
from affectlens.patching.subspaces.rereading import FRESH, LEACE, NETWORK, NONE, OLD, RANDOM, Logits
from affectlens.patching.subspaces.using import TOGETHER
from affectlens.probing.parts import Stage
from affectlens.stats import Estimate, Statistic, Weights, estimate, paired
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LESS_NONE, LESS_RANDOM = f"{LEACE} - {NONE}", f"{LEACE} - {RANDOM}"
LOST, LOSS, MOVED = "lost", "loss", "moved"
_READERS = {FRESH: "a fresh linear probe", OLD: "a linear probe fitted before", NETWORK: "a fresh small network"}


@dataclass(frozen=True, eq=False, repr=False)
class Erasure:
    """The outcome of :func:`affectlens.patching.subspaces.erasing.erase`.

    ``scores`` has one row a question, method and layer: ``question`` (fresh, old, network: what such a reader scores on
    held-out items; lost: of the metric's gap between the texts of a pair, as a share of it if the metric tells them
    apart, else in its unit; loss: the rise of the language model's loss, in nats a token; moved: the mean absolute
    change of the metric), ``method`` (none, leace, random, and differences of these), ``layer`` (-1: all in one run),
    ``value, low, high, n, unit, interval``. ``runs`` has one row a text and run, empty without a metric.
    """

    scores: pd.DataFrame
    runs: pd.DataFrame
    meta: Json

    def estimate(self, question: str, method: str = LEACE, layer: int = TOGETHER) -> Estimate:
        """One row of ``scores``.

        Args:
            question: fresh, old, network, lost, loss or moved.
            method: none, leace, random, ``leace - none`` or ``leace - random``.
            layer: the layer; -1 where all were erased in one run.

        Raises:
            PatchError: a row that does not exist.
        """
        here = self.scores[(self.scores["question"] == question) & (self.scores["method"] == method)]
        row = here[here["layer"] == layer]
        if len(row) != 1:
            there = ", ".join(f"{q} ({m})" for q, m in self.scores[["question", "method"]].drop_duplicates().to_numpy())
            raise PatchError(f"There is no {question} of {method!r} at layer {layer}; there are {there}, at layers "
                             f"{sorted(set(self.scores['layer']))}.")  # fmt: skip
        one = row.iloc[0]
        return Estimate(float(one["value"]), float(one["low"]), float(one["high"]), int(one["n"]), str(one["unit"]),
                        method=str(one["interval"]))  # fmt: skip

    def table(self) -> pd.DataFrame:
        """``scores``."""
        return self.scores

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown."""
        return [*(self._read(layer) for layer in self.meta["layers"]), *self._used()]

    def plot(self, reader: str = FRESH) -> "Figure":
        """What a reader scores by layer, before and after.

        Args:
            reader: fresh, old or network.
        """
        from affectlens.patching.subspaces.figures import read_after

        return read_after(self, reader)

    def _read(self, layer: int) -> str:
        parts = []
        for reader, name in _READERS.items():
            if not (self.scores["question"] == reader).any():
                continue
            before, after, other = (self.estimate(reader, method, layer) for method in (NONE, LEACE, RANDOM))
            change = self.estimate(reader, LESS_RANDOM, layer)
            parts.append(f"{name} {after} (before {before}, random subspaces {other}; {change} against these)")
        meta = self.meta
        return (f"**Layer {layer}, {meta['target']} erased** ({meta['rank']} direction{'s' * (meta['rank'] > 1)} of "
                f"{meta['d_model']}), {meta['measure']}, chance {meta['chance']:.2f}: {'; '.join(parts)}.")  # fmt: skip

    def _used(self) -> list[str]:
        meta = self.meta
        if self.runs.empty:
            return []
        value, low, high = meta["gap"]
        gap = Estimate(value, low, high, meta["n_groups"], UNIT)
        unit = "of it" if meta["normalised"] else meta["metric_unit"]
        said = [f"**{meta['metric']}**: the gap of {meta['n_pairs']} pairs is {gap} {meta['metric_unit']}"
                + ("." if meta["normalised"] else ", which may be zero: losses of it mean little.")]  # fmt: skip
        for layer in sorted(self.scores.loc[self.scores["question"] == LOST, "layer"].unique().tolist()):
            where = "At all these layers in one run" if layer == TOGETHER else f"At layer {layer}"
            lost, less = self.estimate(LOST, LEACE, layer), self.estimate(LOST, LESS_RANDOM, layer)
            loss, other = self.estimate(LOSS, LEACE, layer), self.estimate(LOSS, RANDOM, layer)
            said.append(f"{where} {lost} {unit} is lost, {less} more than by random changes as large; the loss rises "
                        f"by {loss.value:.3f} [{loss.low:.3f}, {loss.high:.3f}] nats a token (random {other.value:.3f} "
                        f"[{other.low:.3f}, {other.high:.3f}]).")  # fmt: skip
        return said

    def __repr__(self) -> str:
        return "\n".join(line.replace("**", "") for line in self.summary())

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        table = self.scores.to_html(index=False, border=0, float_format="{:.3f}".format)
        return f"<h3>{escape(str(self.meta['target']))} erased</h3>{lines}{table}"


def read_scores(logits: Logits, stage: Stage, layers: list[int]) -> pd.DataFrame:
    """The readers' rows of the table. Random subspaces' scores are averaged over draws."""
    rows = []
    for reader in dict.fromkeys(name for name, _, _ in logits):
        for i, layer in enumerate(layers):
            here: dict[str, list[Statistic]] = {NONE: [], LEACE: [], RANDOM: []}
            for (name, method, _), found in logits.items():
                if name == reader:
                    here[method].append(stage.worth(found[:, i]))
            worth = {method: _mean(family) for method, family in here.items()}
            out = {m: estimate(one, stage.n, stage.unit, folds=stage.n_folds) for m, one in worth.items()}
            for name, other in ((LESS_NONE, NONE), (LESS_RANDOM, RANDOM)):
                out[name] = paired(worth[LEACE], worth[other], stage.n, stage.unit, folds=stage.n_folds)
            rows += [_row(reader, method, layer, one) for method, one in out.items()]
    return pd.DataFrame(rows)


def use_scores(runs: pd.DataFrame, folds: int) -> tuple[pd.DataFrame, Estimate]:
    """The runs' rows of the table, and the metric's gap before anything is erased."""
    wide = runs.groupby(["pair", "group", "method", "layer", "draw", "side"], sort=True)[["value", "loss"]].mean()
    sides = wide.unstack("side")
    before = sides.xs(NONE, level="method").droplevel(["layer", "draw"])
    clusters = Clusters(before.index.get_level_values("group").tolist())
    gap = (before["value", "clean"] - before["value", "corrupt"]).to_numpy()
    whole = clusters.estimate(clusters.mean(gap))
    over = clusters.ratio if tells(whole) else (lambda values, _: clusters.mean(values))
    rows = []
    named = runs.loc[runs["method"] != NONE, ["method", "layer", "draw"]].drop_duplicates()
    keys = list(named.itertuples(index=False, name=None))
    for layer in dict.fromkeys(key[1] for key in keys):
        made: dict[str, list[dict[str, Statistic]]] = {LEACE: [], RANDOM: []}
        for method, _, draw in (key for key in keys if key[1] == layer):
            after = sides.xs((method, layer, draw), level=("method", "layer", "draw")).loc[before.index]
            change = (after - before).to_numpy()  # value of clean and corrupt, loss of clean and corrupt
            made[method].append({
                LOST: over(change[:, 1] - change[:, 0], gap), LOSS: clusters.mean(change[:, 2:].mean(1)),
                MOVED: clusters.mean(np.abs(change[:, :2]).mean(1)),
            })  # fmt: skip
        for question in (LOST, LOSS, MOVED):
            one, other = (_mean([each[question] for each in made[method]]) for method in (LEACE, RANDOM))
            rows += [
                _row(question, LEACE, layer, clusters.estimate(one, folds=folds)),
                _row(question, RANDOM, layer, clusters.estimate(other, folds=folds)),
                _row(question, LESS_RANDOM, layer, clusters.estimate(one, other, folds=folds)),
            ]
    return pd.DataFrame(rows), whole


def _row(question: str, method: str, layer: int, found: Estimate) -> Json:
    return {"question": question, "method": method, "layer": int(layer), "value": found.value, "low": found.low,
            "high": found.high, "n": found.n, "unit": found.unit, "interval": found.method}  # fmt: skip


def _mean(family: list[Statistic]) -> Statistic:
    def mean(weights: Weights) -> Float[np.ndarray, " draw"]:
        return np.mean([one(weights) for one in family], axis=0)

    return mean
