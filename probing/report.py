"""``ProbeReport``: what a probe found, as tidy tables that write, load, print and draw themselves."""

from dataclasses import dataclass, field, fields, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from affectlens.errors import RunError, StoreError
from affectlens.probing.probes import Probes
from affectlens.stats import Estimate
from affectlens.tables import load_tables, save_tables
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NESTED = -1  # in the column ``layer``: chosen inside each fold


@dataclass(frozen=True)
class ProbeReport:
    """The outcome of :func:`affectlens.probing.probe` for one target.

    ``scores`` has one row a rung, reader and layer: ``rung, kind, reader, layer, value, low, high, n, unit, p,
    p_adjusted, method``. ``kind`` is probe or floor (a score); difference (probe less its strongest floor); control
    (what a control reaches), beyond_control and selectivity (probe less control); beyond_linear (network less probe);
    conditional (held-out loss that the probe takes off the floor's, in nats, for an order as a share of the variance).
    ``layer`` is -1 where it was chosen inside each fold. ``layers`` has the headline rung's difference by layer with a
    simultaneous band, and the permutation p against chance and against the floor.
    """

    meta: Json  # target, metric, chance, model, source, site, position, battery, counts, seed
    scores: pd.DataFrame
    probes: Probes
    crossed: pd.DataFrame = field(default_factory=pd.DataFrame)  # affect only: wins and d by split, method and layer
    false_alarms: pd.DataFrame = field(default_factory=pd.DataFrame)  # affect only
    layers: pd.DataFrame = field(default_factory=pd.DataFrame)
    held_out: pd.DataFrame = field(default_factory=pd.DataFrame)  # nested logits by rung, reader and item
    quadruples: pd.DataFrame = field(default_factory=pd.DataFrame)  # affect only: each d at the chosen layer
    transfer: pd.DataFrame = field(default_factory=pd.DataFrame)  # trained on one kind of item, tested on another
    asked: pd.DataFrame = field(default_factory=pd.DataFrame)  # what the model answers when it is asked
    checks: pd.DataFrame = field(default_factory=pd.DataFrame)  # its answers to the quadruples' factual checks

    @property
    def target(self) -> str:
        return str(self.meta["target"])

    @property
    def rungs(self) -> tuple[str, ...]:
        """The rungs that were run, in the ladder's order."""
        return tuple(self.scores["rung"].unique())

    @property
    def headline(self) -> Estimate:
        """The main probe under the headline's rung, its layer and penalty chosen inside each fold."""
        return self.estimate("probe", self.main)

    @property
    def main(self) -> str:
        """The method that chose the layers: logistic, or ridge for an order."""
        return self.probes.main

    def has(self, kind: str, reader: str | None = None) -> bool:
        """Whether the headline's rung has such a row."""
        table = self.scores[(self.scores["rung"] == self.meta["rung"]) & (self.scores["kind"] == kind)]
        return bool((table["reader"] == reader).any()) if reader else not table.empty

    def with_tables(self, meta: Json, **tables: pd.DataFrame) -> "ProbeReport":
        """This report with another ``meta`` and more tables."""
        changed: dict[str, Any] = {"meta": meta, **tables}
        return replace(self, **changed)

    def estimate(self, kind: str, reader: str, rung: str | None = None) -> Estimate:
        """The nested estimate of one reader; the headline's rung by default."""
        table = self.scores
        chosen = table[
            (table["rung"] == (rung or self.meta["rung"]))
            & (table["kind"] == kind)
            & (table["reader"] == reader)
            & (table["layer"] == NESTED)
        ]
        if chosen.empty:
            raise KeyError(f"no {kind} {reader} in this report")
        row = chosen.iloc[0]
        return Estimate(row["value"], row["low"], row["high"], int(row["n"]), row["unit"], method=row["method"])

    @property
    def strongest_floor(self) -> str:
        """The floor with the highest score under the headline's rung: what the difference is taken from."""
        return self.strongest(self.meta["rung"])

    def strongest(self, rung: str) -> str:
        """The floor with the highest score under a rung, or ``chance``."""
        table = self.scores
        return str(table[(table["rung"] == rung) & (table["kind"] == "difference")]["reader"].iloc[0])

    def transfer_cells(self) -> dict[tuple[str, str, str], Estimate]:
        """The transfer matrix by reader, kind trained on and kind tested on."""
        return {
            (row["reader"], row["trained"], row["tested"]): Estimate(
                row["value"], row["low"], row["high"], int(row["n"]), row["unit"]
            )
            for row in self.transfer.to_dict("records")
        }

    def summary(self) -> list[str]:
        """What was found, in sentences, with floors and intervals; Markdown."""
        from affectlens.probing.words import summary

        return summary(self)

    def table(self) -> pd.DataFrame:
        """The nested scores of every reader under every rung: the table of a paper."""
        nested = self.scores[self.scores["layer"] == NESTED]
        return nested[["rung", "kind", "reader", "value", "low", "high", "n", "unit"]].reset_index(drop=True)

    def plot(self) -> "Figure":
        """Score by layer with its interval, floors and chance."""
        from affectlens.probing.figures import layer_curve

        return layer_curve(self)

    def plot_crossed(self) -> "Figure":
        """Wins on ``crossed`` by layer, beside ``crossed_fact``."""
        from affectlens.probing.figures import crossed_curve

        return crossed_curve(self)

    def save(self, folder: str | Path) -> None:
        """Write ``results/TARGET.*`` and ``probes/TARGET.safetensors``; the JSON comes last and marks completeness."""
        home = Path(folder)
        self.probes.save(home / "probes" / f"{self.target}.safetensors")
        path = home / "results" / f"{self.target}.json"
        save_tables(path, self.meta, {f"{self.target}.{name}.parquet": getattr(self, name) for name in TABLES})

    @classmethod
    def load(cls, folder: str | Path, target: str) -> "ProbeReport":
        """Read what :meth:`save` wrote.

        Raises:
            RunError: if the target is not there.
        """
        home = Path(folder)
        path = home / "results" / f"{target}.json"
        meta, tables = load_tables(
            path, {name: f"{target}.{name}.parquet" for name in TABLES}, again="remove it and resume",
            missing=f"{home} holds no finished result for {target}.",
        )  # fmt: skip
        try:
            return cls(meta, probes=Probes.load(home / "probes" / f"{target}.safetensors"), **tables)
        except (TypeError, StoreError) as error:
            raise RunError(
                f"The results for {target} in {home} are damaged ({error}): remove {path} and resume."
            ) from None

    def __repr__(self) -> str:
        from affectlens.probing.names import plain

        return "\n".join(plain(line) for line in self.summary())

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        table = self.table().to_html(index=False, border=0, float_format="{:.2f}".format)
        return f"<h3>{escape(self.target)}</h3>{lines}{table}"

    def _ipython_display_(self) -> None:
        from IPython import display

        ipython: Any = display
        show = ipython.display
        show(ipython.HTML(self._repr_html_()))
        show(self.plot())
        if not self.crossed.empty:
            show(self.plot_crossed())


TABLES = tuple(f.name for f in fields(ProbeReport) if f.name not in ("meta", "probes"))
