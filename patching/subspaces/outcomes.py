"""What a search for subspaces found: effects on held-out pairs beside the controls', and how natural it is."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.errors import PatchError
from affectlens.patching.subspaces.judging import FOUND, MEAN, NATURAL, RANDOM, SITE, TURNED
from affectlens.patching.subspaces.ratios import Clusters, tells
from affectlens.stats import Estimate
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LEARNT = (FOUND, NATURAL, TURNED, MEAN)  # fitted on other folds, which share what they learn from


@dataclass(frozen=True, eq=False, repr=False)
class SubspaceSearch:
    """The outcome of :func:`affectlens.patching.subspaces.searching.das`.

    ``rows`` has one row a held-out pair and interchange: ``pair, group, contrast, fold``; ``method`` (das; das_natural,
    its part along natural axes; turned, the control with random signs; random; mean_difference; site, all dimensions);
    ``k`` dimensions, ``draw``; ``clean, corrupt, value`` in the metric's unit; ``strain``, the interchange's mean
    squared length, a dimension, in the metric of the differences between the training pairs' texts. ``facts`` has one
    row a fold and subspace: ``share`` of it along the axes that hold 95% of these differences, ``chance`` (a random
    subspace's), and ``spread``, how large differences along it are, over those along a random direction. ``bases`` has,
    for each fold, size to ``[d_model, k]``.
    """

    rows: pd.DataFrame
    facts: pd.DataFrame
    bases: tuple[dict[int, Float[np.ndarray, "d_model k"]], ...]
    meta: Json

    @property
    def gap(self) -> Estimate:
        """Clean less corrupt, the mean over pairs, in the metric's unit."""
        one = self._of(SITE, self.meta["d_model"])
        clusters = Clusters(one["group"].tolist())
        return clusters.estimate(clusters.mean((one["clean"] - one["corrupt"]).to_numpy()))

    @property
    def normalised(self) -> bool:
        """Whether effects are shares of the gap; where it may be zero nothing is divided, and they are mean changes."""
        return tells(self.gap)

    def effect(self, method: str = FOUND, k: int = 1, *, beside: str | None = None) -> Estimate:
        """How far an interchange moves the metric over the gap, or by how much more than another one does.

        Args:
            method: one of those in ``rows``; random subspaces are averaged.
            k: dimensions; the mean difference has 1 and the site all, whatever is given.
            beside: another method, whose effect is subtracted pair by pair.

        Raises:
            PatchError: a method or size that was not run.
        """
        names = [method] if beside is None else [method, beside]
        parts = [self._of(name, k) for name in names]
        clusters = Clusters(parts[0]["group"].tolist())
        found = []
        for part in parts:
            change = part["value"] - part["corrupt"] if self._denoise else part["clean"] - part["value"]
            gap = (part["clean"] - part["corrupt"]).to_numpy()
            move = change.to_numpy()
            found.append(clusters.ratio(move, gap) if self.normalised else clusters.mean(move))
        return clusters.estimate(*found, folds=self._folds(*names))

    def strain(self, method: str = FOUND, k: int = 1) -> Estimate:
        """How unnatural the interchange is: 1 along principal axes of natural differences; compare with random ones.

        Args:
            method: one of those in ``rows``.
            k: dimensions.
        """
        part = self._of(method, k)
        clusters = Clusters(part["group"].tolist())
        return clusters.estimate(clusters.mean(part["strain"].to_numpy()), folds=self._folds(method))

    def _folds(self, *methods: str) -> int:
        return int(self.meta["folds"]) if set(methods) & set(LEARNT) else 0

    def table(self) -> pd.DataFrame:
        """One row a method and size: ``effect`` and ``strain`` with intervals, mean ``share`` and ``spread``."""
        out = []
        for method, k in self.rows[["method", "k"]].drop_duplicates().itertuples(index=False):
            row: Json = {"method": method, "k": k}
            for name, one in (("effect", self.effect(method, k)), ("strain", self.strain(method, k))):
                row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
            fact = self.facts[(self.facts["method"] == method) & (self.facts["k"] == k)]
            row |= {"share": fact["share"].mean(), "chance": fact["chance"].mean(), "spread": fact["spread"].mean()}
            out.append(row | {"n": one.n, "unit": one.unit, "method_of_interval": self.effect(method, k).method})
        return pd.DataFrame(out)

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown."""
        meta, gap = self.meta, self.gap
        unit = "of the gap" if self.normalised else meta["unit"]
        said = [
            f"**{meta['metric']}**: the gap of {meta['n_pairs']} pairs is {gap} {meta['unit']}"
            + ("." if self.normalised else ", which may be zero: effects are mean changes, and mean little.")
            + f" Interchanging all of the stream that leaves layer {meta['layer']} ({meta['segment']}) moves "
            f"{self.effect(SITE)} {unit}; the direction of the mean difference {self.effect(MEAN)}."
        ]
        for k in meta["sizes"]:
            turned = f", of the search with random signs {self.effect(TURNED, k)}" if self._has(TURNED) else ""
            more = self.effect(FOUND, k, beside=RANDOM)
            said.append(
                f"**{k} dimension{'s' * (k > 1)}**: {self.effect(FOUND, k)} {unit} on pairs held out; of random "
                f"subspaces {self.effect(RANDOM, k)}{turned}. More than random by {more}"
                + ("." if more.low > 0 else ", which may be nothing.")
                + f" Of the part along the main axes of natural differences {self.effect(NATURAL, k)}; the strain is "
                f"{self.strain(FOUND, k)}, of random subspaces {self.strain(RANDOM, k)}."
            )
        return said

    def plot(self) -> "Figure":
        """The effect by the number of dimensions, beside the controls."""
        from affectlens.patching.subspaces.figures import dimension_curve

        return dimension_curve(self)

    @property
    def _denoise(self) -> bool:
        return bool(self.meta["direction"] == "denoise")

    def _has(self, method: str) -> bool:
        return bool((self.rows["method"] == method).any())

    def _of(self, method: str, k: int) -> pd.DataFrame:
        """One row a pair, draws averaged; the pairs are in one order whatever the method."""
        size = {MEAN: 1, SITE: self.meta["d_model"]}.get(method, k)
        chosen = self.rows[(self.rows["method"] == method) & (self.rows["k"] == size)]
        if chosen.empty:
            there = ", ".join(self.rows["method"].unique())
            raise PatchError(f"{method!r} with {k} dimensions was not run; there are {there}, of {self.meta['sizes']}.")
        numbers = ["clean", "corrupt", "value", "strain"]
        return chosen.groupby(["pair", "group"], sort=True)[numbers].mean().reset_index()

    def __repr__(self) -> str:
        return "\n".join(line.replace("**", "") for line in self.summary())

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        table = self.table().to_html(index=False, border=0, float_format="{:.3f}".format)
        return f"<h3>{escape('Subspaces that move ' + self.meta['metric'])}</h3>{lines}{table}"
