"""``SparseReport``: what sparse probes found, as tidy tables that write, load, print and draw themselves."""

from dataclasses import dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from affectlens.probing.report import NESTED
from affectlens.stats import Estimate
from affectlens.tables import load_tables, save_tables
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class SparseReport:
    """The outcome of :func:`affectlens.probing.features.sparse.sparse_probe` for one target.

    ``scores`` has one row a rung, reader and k: ``rung, kind, reader, k, value, low, high, n, unit, p, p_adjusted,
    method``. ``kind`` is probe (readers sparse, codes: all features, residual: the activations that the dictionary
    reads) or floor; difference (sparse less its strongest floor); dense_less_sparse (of the reader named); control
    (random_features, random_directions: mean and 95% range of the draws, with p that a draw reaches the sparse probe)
    and beyond_control (sparse less the draws' mean). ``k`` is -1 where it was chosen inside each fold and 0 for a
    reader of all that there is. Intervals are pointwise; ``curve`` has the differences of the headline's rung in bands
    that hold for all k at once.
    """

    meta: Json  # target, metric, chance, dictionary, model, site, pooling, battery, counts, seed
    scores: pd.DataFrame
    chosen: pd.DataFrame = field(default_factory=pd.DataFrame)  # rung, fold, k, rank, feature, share, effect, ...
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)  # kind, k, difference, low, high
    held_out: pd.DataFrame = field(default_factory=pd.DataFrame)  # nested logits by rung, reader and item

    @property
    def target(self) -> str:
        return str(self.meta["target"])

    @property
    def rungs(self) -> tuple[str, ...]:
        """The rungs that were run, in the ladder's order."""
        return tuple(self.scores["rung"].unique())

    @property
    def headline(self) -> Estimate:
        """The sparse probe under the headline's rung, k and penalty chosen inside each fold."""
        return self.estimate("probe", "sparse", NESTED)

    @property
    def strongest_floor(self) -> str:
        """The floor with the highest score under the headline's rung, or ``chance``."""
        return self.strongest(self.meta["rung"])

    def strongest(self, rung: str) -> str:
        """The floor with the highest score under a rung, or ``chance``."""
        table = self.scores
        return str(table[(table["rung"] == rung) & (table["kind"] == "difference")]["reader"].iloc[0])

    def has(self, kind: str, reader: str, k: int = NESTED) -> bool:
        """Whether the headline's rung has such a row."""
        return not self._rows(kind, reader, k, self.meta["rung"]).empty

    def estimate(self, kind: str, reader: str, k: int = NESTED, rung: str | None = None) -> Estimate:
        """One row of ``scores`` as an estimate; the headline's rung by default.

        Raises:
            KeyError: no such row.
        """
        chosen = self._rows(kind, reader, k, rung or self.meta["rung"])
        if chosen.empty:
            raise KeyError(f"no {kind} {reader} at k = {k} in this report")
        row = chosen.iloc[0]
        p = None if pd.isna(row["p"]) else float(row["p"])
        return Estimate(row["value"], row["low"], row["high"], int(row["n"]), row["unit"], p, method=row["method"])

    def _rows(self, kind: str, reader: str, k: int, rung: str) -> pd.DataFrame:
        table = self.scores
        asked = {"rung": rung, "kind": kind, "reader": reader, "k": k}
        return table[pd.concat([table[name] == value for name, value in asked.items()], axis=1).all(axis=1)]

    def often(self, k: int | None = None, rung: str | None = None) -> pd.DataFrame:
        """How often each feature was chosen: ``feature, times, folds, share, effect, towards``, the most often first.

        The folds share most of what they learn from, so that this tells how firm a choice is, not how likely.
        ``share`` and ``effect`` are means over the folds that chose it.

        Args:
            k: among how many; by default what each fold chose for the headline.
            rung: the headline's by default.
        """
        table = self.chosen[self.chosen["rung"] == (rung or self.meta["rung"])]
        within = table[table["rank"] <= (table["k"] if k is None else k)]
        found = within.groupby("feature").agg(
            times=("fold", "nunique"), share=("share", "mean"), effect=("effect", "mean"),
            towards=("towards", lambda names: names.mode().iloc[0]),
        )  # fmt: skip
        found.insert(1, "folds", table["fold"].nunique())
        return found.sort_values(["times", "share"], ascending=False, kind="stable").reset_index()

    def summary(self) -> list[str]:
        """What was found, in sentences, with floors and intervals; Markdown."""
        from affectlens.probing.features.sparse_words import summary

        return summary(self)

    def table(self) -> pd.DataFrame:
        """Every score without its test: the table of a paper."""
        columns = ["rung", "kind", "reader", "k", "value", "low", "high", "n", "unit"]
        return self.scores[columns].reset_index(drop=True)

    def plot(self) -> "Figure":
        """Score against k with its interval, beside dense probes, floors, controls and chance."""
        from affectlens.probing.features.sparse_figures import curve

        return curve(self)

    def save(self, folder: str | Path) -> None:
        """Write ``sparse/TARGET.*``."""
        path = Path(folder) / "sparse" / f"{self.target}.json"
        save_tables(path, self.meta, {f"{self.target}.{name}.parquet": getattr(self, name) for name in TABLES})

    @classmethod
    def load(cls, folder: str | Path, target: str) -> "SparseReport":
        """Read what :meth:`save` wrote.

        Raises:
            RunError: if the target is not there, or damaged.
        """
        meta, tables = load_tables(
            Path(folder) / "sparse" / f"{target}.json", {name: f"{target}.{name}.parquet" for name in TABLES},
            missing=f"{folder} holds no finished sparse probes of {target}.", again="remove it and run them again",
        )  # fmt: skip
        return cls(meta, **tables)

    def __repr__(self) -> str:
        from affectlens.probing.names import plain

        return "\n".join(plain(line) for line in self.summary())

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        table = self.table().to_html(index=False, border=0, float_format="{:.2f}".format)
        return f"<h3>{escape(self.target)}, sparse probes</h3>{lines}{table}"

    def _ipython_display_(self) -> None:
        from IPython import display

        ipython: Any = display
        ipython.display(ipython.HTML(self._repr_html_()))
        ipython.display(self.plot())


TABLES = tuple(f.name for f in fields(SparseReport) if f.name != "meta")
