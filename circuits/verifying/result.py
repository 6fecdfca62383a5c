"""``Verification``: what held of a circuit on scenes that did not choose it, which says, draws and saves itself."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from affectlens.errors import CircuitError
from affectlens.stats import Estimate
from affectlens.tables import load_tables, save_tables
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from affectlens.report import Section

FILE = "verification.json"
UNDIVIDED = "not divided: the interval of the gap between full and none holds zero"


@dataclass(frozen=True, eq=False, repr=False)
class Verification:
    """The outcome of :func:`affectlens.circuits.verifying.verify`. A table whose part was not run is empty.

    Attributes:
        figures: one row an estimate: ``name, value, low, high, n, unit, p, method``.
        values: the metric of each pair under each circuit: ``pair, group, circuit, value, full, none`` and more.
        circuit: the edges at the size that was tested: ``edge, score``.
        sizes: the curve; :meth:`curve` says its columns.
        randoms: one row a random circuit: ``fraction, draw, f``.
        sets: sets of nodes that circuit and model both lose
            (:func:`affectlens.circuits.verifying.completing.incompleteness`).
        drops: what each edge, node and pair of edges costs (:func:`affectlens.circuits.verifying.needing.costs`).
        references: what a random added edge costs: ``path, cost``.
        edges: predicted against exact effects (:func:`affectlens.circuits.verifying.predicting.compared`).
        stability: overlap with circuits of other scenes (:func:`affectlens.circuits.verifying.stability.stability`).
        meta: model, metric, unit, rule, size, ``chosen_on``, counts, passes, as JSON.
    """

    figures: pd.DataFrame
    values: pd.DataFrame
    circuit: pd.DataFrame = field(default_factory=pd.DataFrame)
    sizes: pd.DataFrame = field(default_factory=pd.DataFrame)
    randoms: pd.DataFrame = field(default_factory=pd.DataFrame)
    sets: pd.DataFrame = field(default_factory=pd.DataFrame)
    drops: pd.DataFrame = field(default_factory=pd.DataFrame)
    references: pd.DataFrame = field(default_factory=pd.DataFrame)
    edges: pd.DataFrame = field(default_factory=pd.DataFrame)
    stability: pd.DataFrame = field(default_factory=pd.DataFrame)
    meta: Json = field(default_factory=dict)

    @property
    def divided(self) -> bool:
        """Whether the gap between full and none is told from zero."""
        return bool((self.figures["name"] == "cpr").any())

    @property
    def gap(self) -> Estimate:
        """The mean of m(full) - m(none), in the metric's unit."""
        return self.estimate("gap")

    @property
    def cpr(self) -> Estimate:
        """The area under f."""
        return self.estimate("cpr")

    @property
    def cmd(self) -> Estimate:
        """The area under \\|1 - f\\|."""
        return self.estimate("cmd")

    @property
    def size(self) -> Estimate:
        """The smallest share of the edges from which on f stays within [0.8, 1.2]; infinite if there is none."""
        return self.estimate("size")

    @property
    def worst(self) -> tuple[str, ...]:
        """The nodes of the random set without which circuit and model differ most; none if no set was run."""
        return tuple(self.sets.loc[self.sets["worst"], "names"].iloc[0].split()) if len(self.sets) else ()

    def has(self, name: str) -> bool:
        """Whether there is such a figure.

        Args:
            name: such as ``above_random``.
        """
        return bool((self.figures["name"] == name).any())

    def estimate(self, name: str) -> Estimate:
        """One figure.

        Args:
            name: ``gap, cpr, cmd, size``; of the tested size ``f, complement, lead`` (f less the complement's),
                ``above_random`` (f less the random circuits' mean, with the rank's p), ``near_random`` (the share
                of them that is as near to 1), ``incompleteness`` (without random sets of nodes, on average) and
                ``incompleteness, worst`` (without :attr:`worst`), the shares of edges ``needed`` and ``superfluous``,
                and of the edges ``spearman, sign, slope, nothing``.

        Raises:
            CircuitError: if there is none such.
        """
        found = self.figures[self.figures["name"] == name]
        if found.empty and not self.divided and name in ("cpr", "cmd", "size"):
            n, unit = self.figures.iloc[0][["n", "unit"]]
            return Estimate(float("nan"), float("-inf"), float("inf"), int(n), str(unit), method=UNDIVIDED)
        if found.empty:
            raise CircuitError(f"There is no figure {name!r}; there are {', '.join(self.figures['name'])}.")
        row = found.iloc[0]
        p = None if pd.isna(row["p"]) else float(row["p"])
        return Estimate(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]), str(row["unit"]), p,
                        method=str(row["method"]))  # fmt: skip

    def curve(self) -> pd.DataFrame:
        """One row a size: ``fraction, edges, nodes``; ``f, low, high`` (pointwise), ``band_low, band_high`` (of all
        sizes at once); ``complement`` and ``lead`` (f less the complement's) with their ends; of the random circuits
        ``draws, random_low, random_median, random_high`` (95% of them).
        """  # fmt: skip
        counts = pd.DataFrame(self.meta.get("sizes", []), columns=["fraction", "edges", "nodes"])
        return counts if self.sizes.empty else counts.merge(self.sizes, on="fraction")

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown. If a control undoes a finding, that comes first."""
        from affectlens.circuits.verifying.words import summary

        return summary(self)

    def plot(self) -> "Figure":
        """Faithfulness by size: :func:`affectlens.circuits.verifying.figures.by_size`."""
        from affectlens.circuits.verifying.figures import by_size

        return by_size(self)

    def plot_drops(self) -> "Figure":
        """What each edge costs: :func:`affectlens.circuits.verifying.figures.by_cost`."""
        from affectlens.circuits.verifying.figures import by_cost

        return by_cost(self)

    def plot_edges(self) -> "Figure":
        """Exact against predicted effects: :func:`affectlens.circuits.verifying.figures.by_prediction`."""
        from affectlens.circuits.verifying.figures import by_prediction

        return by_prediction(self)

    def sections(self) -> "list[Section]":
        """For a report: :func:`affectlens.circuits.verifying.sections.sections`."""
        from affectlens.circuits.verifying.sections import sections

        return sections(self)

    def save(self, folder: str | Path) -> None:
        """Write ``verification.*.parquet`` and, last, ``verification.json``.

        Args:
            folder: where to.
        """
        save_tables(Path(folder) / FILE, self.meta, {f"verification.{name}.parquet": getattr(self, name)
                                                     for name in TABLES})  # fmt: skip

    @classmethod
    def load(cls, folder: str | Path) -> "Verification":
        """Read what :meth:`save` wrote.

        Args:
            folder: where it is.

        Raises:
            RunError: if there is none, or it is damaged.
        """
        meta, tables = load_tables(
            Path(folder) / FILE, {name: f"verification.{name}.parquet" for name in TABLES},
            missing=f"{folder} holds no finished verification: it has no {FILE}.", again="verify the circuit anew",
        )  # fmt: skip
        return cls(**tables, meta=meta)

    def __repr__(self) -> str:
        meta = self.meta
        found = f"CPR {self.cpr}, CMD {self.cmd}" if self.divided else f"gap {self.gap}, not told from zero"
        return f"Verification({meta['metric']} on {meta.get('model', 'a model')}: {meta['n_scenes']} scenes; {found})"

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        return lines + self.curve().to_html(index=False, border=0, float_format="{:.3f}".format)


TABLES = tuple(one.name for one in fields(Verification) if one.name != "meta")
