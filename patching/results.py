"""``PatchSweep``: what was patched, pair by pair, which says, draws, saves and compares itself."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from affectlens.errors import PatchError
from affectlens.patching import effects as statistics
from affectlens.patching.effects import CELL, MATCHED, NOTHING, Grid, flipped, lay_out, measured
from affectlens.patching.words import chosen, listed, summary
from affectlens.paths import write_parquet, write_text
from affectlens.stats import Estimate, Weights, estimate
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False)
class PatchSweep:
    """The outcome of :func:`affectlens.patching.patch`.

    ``table`` has one row a pair, metric, source and cell: ``pair, group, contrast, emotion, metric, source, kind,
    layer, index`` (-1: the whole site), ``segment, position`` (in the text that was run; -1: the whole segment),
    ``clean, corrupt, value``. ``pairs`` has the ``tokens`` of the text that was run and its ``segments``.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    meta: Json  # direction, model, battery, sites, positions, metrics and their units, controls, seed, refused

    @property
    def metrics(self) -> list[str]:
        """The metrics, in the order in which they were given."""
        return list(self.table["metric"].unique())

    @cached_property
    def baselines(self) -> pd.DataFrame:
        """What each metric says of the unpatched texts: :func:`affectlens.patching.effects.baselines`."""
        return statistics.baselines(self.table, seed=self.meta["seed"])

    def effects(self, *, metric: str | None = None, source: str | None = None) -> pd.DataFrame:
        """One row a source and cell, with its interval: :func:`affectlens.patching.effects.effects`.

        Args:
            metric: of one metric alone.
            source: of one source alone: ``matched``, or a control.
        """
        return chosen(self._effects, metric=metric, source=source)

    def beside(self, *, metric: str | None = None, control: str | None = None) -> pd.DataFrame:
        """Each cell less each control, and whether it is specific: :func:`affectlens.patching.effects.beside`.

        Args:
            metric: of one metric alone.
            control: of one control alone; ``nothing`` is the effect itself.
        """
        return chosen(self._beside, metric=metric, control=control)

    def at(
        self, *, layer: int | None = None, kind: str | None = None, segment: str | None = None,
        index: int | None = None, metric: str | None = None, source: str = MATCHED, extent: str | None = None,
    ) -> Estimate:  # fmt: skip
        """One effect. What the sweep has only one of need not be said.

        Args:
            layer: the layer.
            kind: of site, such as ``resid_pre``.
            segment: where it was patched.
            index: a head or neuron; -1 is the whole site.
            metric: its name.
            source: ``matched``, or a control.
            extent: ``segment`` (patched as a whole) or ``token`` (one by one).

        Raises:
            PatchError: if that names no cell, or several.
        """
        rows = chosen(self._effects, source=source, metric=metric, kind=kind, layer=layer, index=index,
                       segment=segment, extent=extent)  # fmt: skip
        if len(rows) > 1:
            open_ones = (f"{name} ({listed(rows[name])})" for name in CELL if rows[name].nunique() > 1)
            raise PatchError(f"That names {len(rows)} cells: say which {', '.join(open_ones)}.")
        row = rows.iloc[0].to_dict()
        p, adjusted = (None if pd.isna(row.get(name)) else float(row[name]) for name in ("p", "p_adjusted"))
        method = row["method"] if row["normalised"] else f"{row['method']}; mean change in {self.unit(row['metric'])}"
        return Estimate(row["value"], row["low"], row["high"], int(row["n"]), row["unit"], p, adjusted, method)

    def top(self, n: int = 10, *, metric: str | None = None) -> pd.DataFrame:
        """The cells with the largest effects, specific ones first; ``complete`` ones, which must be, are left out.

        Args:
            n: how many.
            metric: its name; the first by default.
        """
        name = metric or self.metrics[0]
        verdict = self.beside(metric=name, control=NOTHING)[[*CELL, "specific"]]
        cells = self.effects(metric=name, source=MATCHED).merge(verdict, on=CELL)
        cells = cells[~cells["complete"]].sort_values(["specific", "value"], ascending=False, kind="stable")
        return cells.drop(columns=["source", "complete"]).head(n).reset_index(drop=True)

    def unit(self, metric: str) -> str:
        """The unit of a metric."""
        return str(self.meta["metrics"].get(metric, {}).get("unit", "its unit"))

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown. If controls undo a finding, that comes first."""
        return summary(self)

    def plot(self, **options: Any) -> "Figure":
        """Layer by segment: :func:`affectlens.patching.figures.layer_by_segment`."""
        return self._drawn("layer_by_segment", **options)

    def plot_tokens(self, pair: str, **options: Any) -> "Figure":
        """Layer by token of one pair: :func:`affectlens.patching.figures.layer_by_token`."""
        return self._drawn("layer_by_token", pair, **options)

    def plot_heads(self, **options: Any) -> "Figure":
        """Layer by head: :func:`affectlens.patching.figures.layer_by_head`."""
        return self._drawn("layer_by_head", **options)

    def plot_depth(self, **options: Any) -> "Figure":
        """Effect against depth, beside every control: :func:`affectlens.patching.figures.by_depth`."""
        return self._drawn("by_depth", **options)

    def save(self, folder: str | Path) -> None:
        """Write ``results/sweep.parquet``, ``pairs.parquet`` and, last, ``sweep.json``."""
        home = Path(folder) / "results"
        write_parquet(home / "sweep.parquet", self.table)
        write_parquet(home / "pairs.parquet", self.pairs)
        write_text(home / "sweep.json", json.dumps(self.meta, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> "PatchSweep":
        """Read what :meth:`save` wrote.

        Raises:
            PatchError: if there is none, or it is damaged.
        """
        home = Path(folder) / "results"
        if not (home / "sweep.json").is_file():
            raise PatchError(f"{folder} holds no finished sweep: it has no results/sweep.json.")
        try:
            meta = json.loads((home / "sweep.json").read_text(encoding="utf-8"))
            table, pairs = (pd.read_parquet(home / f"{name}.parquet") for name in ("sweep", "pairs"))
        except (ValueError, OSError) as error:
            raise PatchError(f"The sweep in {folder} is damaged ({str(error).splitlines()[0]}): run it anew.") from None
        return cls(table, pairs.assign(tokens=pairs["tokens"].map(list)), meta)

    def _drawn(self, name: str, *given: str, **options: Any) -> "Figure":
        from affectlens.patching import figures

        return getattr(figures, name)(self, *given, **options)

    @cached_property
    def _effects(self) -> pd.DataFrame:
        return statistics.effects(self.table, self.meta["direction"], seed=self.meta["seed"])

    @cached_property
    def _beside(self) -> pd.DataFrame:
        return statistics.beside(self.table, self.meta["direction"], seed=self.meta["seed"])

    def __repr__(self) -> str:
        n, meta = len(self.table.drop_duplicates(["kind", "layer", "index", "segment"])), self.meta
        sources = ", ".join(self.table["source"].unique())
        return f"PatchSweep({meta['direction']} on {meta['model']}: {meta['n_pairs']} pairs, {n} cells; from {sources})"

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        return lines + self.top().to_html(index=False, border=0, float_format="{:.3f}".format)


@dataclass(frozen=True, eq=False)
class Agreement:
    """Denoise and noise of the same pairs, cell by cell.

    ``cells`` has one row a metric and cell: CELL, ``denoise`` and ``noise`` with ``_low`` and ``_high``, their
    ``difference`` with ``low, high, p, p_adjusted`` (max-T over the metric's cells), ``n`` groups, ``normalised``.
    Denoise above noise: the cell is enough, but something else serves when it is gone. Below: it is needed, but not
    enough (Heimersheim and Nanda 2024, arXiv:2404.15255).
    """

    cells: pd.DataFrame
    rho: dict[str, Estimate]  # of each metric the rank correlation over cells, with groups resampled


def agreement(denoise: pd.DataFrame, noise: pd.DataFrame, *, seed: int = 0) -> Agreement:
    """Compare both directions in the cells that both have, paired by pair.

    Args:
        denoise: the tidy table of one sweep.
        noise: that of the other.
        seed: of bootstrap and flips.

    Raises:
        PatchError: if they share no cell of a metric, or their baselines differ.
    """
    known = statistics.baselines(denoise, seed=seed)
    parts, rho = [], {}
    for metric, tells in known.loc[known["metric"].isin(noise["metric"]), ["metric", "tells"]].itertuples(index=False):
        one, two = lay_out(denoise, metric, "denoise"), lay_out(noise, metric, "noise")
        x, y = _matched(one).align(_matched(two), join="inner")
        if x.empty:
            continue
        gap, other = (pd.Series(grid.gap, grid.names)[x.index].to_numpy() for grid in (one, two))
        group = pd.factorize(pd.Series(one.group, one.names)[x.index])[0]
        if np.abs(gap - other).max() > 0.01 * np.abs(gap).mean():
            raise PatchError(f"The sweeps have other baselines in {metric}: they need one model, one cue, one metric.")
        a, b = (x + 0 * y).to_numpy(), (y + 0 * x).to_numpy()
        found = [measured(values, gap, group, seed, tells) for values in (a, b, a - b)]
        cells = x.columns.to_frame(index=False)
        for name, part in zip(("denoise", "noise"), found[:2], strict=True):
            cells[[name, f"{name}_low", f"{name}_high"]] = part[["value", "low", "high"]]
        cells = cells.join(found[2].rename(columns={"value": "difference"})).join(flipped([a - b], group, seed)[0])
        parts.append(cells[cells["n"] > 0])
        kept = ((cells["normalised"] == tells) & (cells["n"] > 0)).to_numpy()
        rho[metric] = _rank_correlation(a[:, kept], b[:, kept], gap if tells else np.ones(len(gap)), group, seed)
    if not parts:
        raise PatchError("The sweeps share no cell that was patched from the pairs' own texts.")
    return Agreement(pd.concat(parts, ignore_index=True), rho)


def _matched(grid: Grid) -> pd.DataFrame:
    return pd.DataFrame(grid.change.get(MATCHED), grid.names, pd.MultiIndex.from_frame(grid.cells))


def _rank_correlation(a: np.ndarray, b: np.ndarray, gap: np.ndarray, group: np.ndarray, seed: int) -> Estimate:
    """Spearman's correlation of effects over cells. Resampling adds noise, so the interval is let reach up to it."""
    member = (group == np.arange(group.max() + 1)[:, None]).astype(float)
    base, *totals = (member @ np.nan_to_num(values) for values in (np.isfinite(a) * gap[:, None], a, b))

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        out = []
        for row in weights:
            under = row @ base
            ranks = [rankdata((row @ total)[under != 0] / under[under != 0]) for total in totals]
            flat = len(ranks[0]) < 2 or min(rank.std() for rank in ranks) == 0
            out.append(np.nan if flat else np.corrcoef(*ranks)[0, 1])
        return np.array(out)

    found = estimate(statistic, len(member), "group", seed=seed, bounds=None)
    return replace(found, low=max(min(found.low, found.value), -1.0), high=min(max(found.high, found.value), 1.0))
