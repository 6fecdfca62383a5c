"""``GeometryReport``: what was found of the geometry, as tables that print, draw, write and load themselves."""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from affectlens.errors import RunError
from affectlens.paths import write_parquet, write_text
from affectlens.stats import Estimate
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TABLES = ("reliability", "agreement", "axis", "cosines", "rsa", "differences", "silhouettes", "circumplex",
          "coordinates", "trees", "linkage", "cka")  # fmt: skip


@dataclass(frozen=True)
class GeometryReport:
    """The outcome of :func:`affectlens.probing.geometry.geometry`.

    Tables have a row a statistic and layer with ``value, low, high, n, unit, p, p_adjusted`` (max-T over layers),
    ``set`` (emotions or words) and ``kind`` (model, or floor: the same on vectors of words alone, layer -1).
    """

    meta: Json  # model, battery, site, position, layer (of the sentences), emotions, counts, seed, notes
    tables: dict[str, pd.DataFrame]

    @property
    def layer(self) -> int:
        """The layer that sentences and pictures speak of."""
        return int(self.meta["layer"])

    @property
    def sets(self) -> tuple[str, ...]:
        """``emotions``, and ``words`` if terms were given."""
        return ("emotions", "words") if self.meta["terms"] else ("emotions",)

    def find(self, table: str, **where: object) -> Estimate | None:
        """One row of a table as an estimate, at the report's layer (of a floor, its one) unless it is named; or None.

        Args:
            table: its name in ``tables``.
            where: columns with their values, for example ``set="words", model="valence"``.
        """
        rows = self.tables.get(table, pd.DataFrame())
        if "layer" in rows and "layer" not in where:
            where = {**where, "layer": -1 if where.get("kind") == "floor" else self.layer}
        for column, value in where.items():
            if column not in rows:
                return None
            rows = rows[rows[column] == value]
        if rows.empty:
            return None
        row = rows.iloc[0]
        return Estimate(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]), str(row["unit"]),
                        float(row.get("p", float("nan"))), float(row.get("p_adjusted", float("nan"))),
                        str(row["method"]))  # fmt: skip

    def summary(self) -> list[str]:
        """What was found, in sentences, with floors, intervals and p; Markdown."""
        from affectlens.probing.geometry.wording import summary

        return summary(self)

    def plot(self) -> "Figure":
        """Centred cosines between emotions, as they are and with the valence axis removed."""
        from affectlens.probing.geometry.figures import heat_maps

        return heat_maps(self)

    def plot_rsa(self, of: str | None = None) -> "Figure":
        """Agreement with each model by layer; ``of`` is emotions or words, words by default where there are any."""
        from affectlens.probing.geometry.figures import rsa_curves

        return rsa_curves(self, of or self.sets[-1])

    def plot_circumplex(self, of: str | None = None) -> "Figure":
        """The names on the first two components, turned to people's valence and arousal."""
        from affectlens.probing.geometry.figures import circle

        return circle(self, of or self.sets[-1])

    def plot_cka(self, rows: str = "items") -> "Figure":
        """CKA of every layer with every layer, of the other model if there is one."""
        from affectlens.probing.geometry.figures import cka_map

        return cka_map(self, rows)

    def plot_tree(self, of: str = "emotions") -> "Figure":
        """The dendrogram of the directions at the report's layer."""
        from affectlens.probing.geometry.figures import dendrogram

        return dendrogram(self, of)

    def figures(self) -> "list[Figure]":
        """All figures that apply."""
        out = [self.plot(), *(self.plot_rsa(s) for s in self.sets if self._has("rsa", s))]
        out += [self.plot_circumplex(s) for s in self.sets if self._has("coordinates", s)]
        out += [self.plot_cka(rows) for rows in self.tables["cka"]["rows"].unique()]
        return [*out, *(self.plot_tree(s) for s in self.sets)]

    def _has(self, table: str, of: str) -> bool:
        return table in self.tables and bool((self.tables[table]["set"] == of).any())

    def save(self, folder: str | Path) -> None:
        """Write ``geometry/*.parquet`` and, last, ``geometry/geometry.json``, which marks completeness."""
        home = Path(folder) / "geometry"
        for name, table in self.tables.items():
            write_parquet(home / f"{name}.parquet", table)
        write_text(home / "geometry.json", json.dumps(self.meta, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> "GeometryReport":
        """Read what :meth:`save` wrote.

        Raises:
            RunError: if there is none, or it is damaged.
        """
        home = Path(folder) / "geometry"
        try:
            meta = json.loads((home / "geometry.json").read_text(encoding="utf-8"))
            tables = {n: pd.read_parquet(file) for n in TABLES if (file := home / f"{n}.parquet").is_file()}
        except (OSError, ValueError) as error:
            raise RunError(f"{folder} holds no finished geometry ({error}): run it again.") from None
        return cls(meta, tables)

    def __repr__(self) -> str:
        from affectlens.probing.names import plain

        return "\n".join(plain(line) for line in self.summary())

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        return f"<h3>Geometry of emotion in {escape(str(self.meta['model']))}</h3>{lines}"

    def _ipython_display_(self) -> None:
        from IPython import display

        ipython: Any = display
        ipython.display(ipython.HTML(self._repr_html_()))
        for figure in self.figures():
            ipython.display(figure)
