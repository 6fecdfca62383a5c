"""``confirm``: the first cells of a screen patched exactly, with a random sample of the others, beside the estimates.

The first cells alone would flatter the screen or wrong it: they were chosen by the estimate. So as many others are
drawn at random, and in every figure each stands for as many as it was drawn from (Horvitz and Thompson 1952), so that
the figure is about all cells that were screened. Intervals resample groups of pairs, with the drawn cells as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.agreeing import (
    Figure,
    Sums,
    rank_correlation,
    recall_of,
    regression_slope,
    sign_agreement,
    with_interval,
)  # fmt: skip
from affectlens.patching.cells import Cell, Change
from affectlens.patching.choosing import runner_for
from affectlens.patching.columns import CELL, Place
from affectlens.patching.gradients import Ends
from affectlens.patching.job import Job
from affectlens.patching.pairs import Match, PatchPair
from affectlens.patching.screening import Screen, change, places
from affectlens.patching.sweeping import prepared
from affectlens.patching.tabling import Given
from affectlens.patching.units import units
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.stats import Estimate
from affectlens.types import Json

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROUNDING = 1e-5  # of the metric's size: smaller changes are the arithmetic's, and count as none


@dataclass(frozen=True, eq=False, repr=False)
class Confirmation:
    """The outcome of :func:`confirm`.

    ``table`` has one row a pair and cell that was patched, with the columns of a sweep's table, and ``estimate`` (what
    the screen said ``value`` would be), ``chosen`` (``top`` or ``others``) and ``weight`` (how many screened cells it
    stands for). ``meta`` is the screen's, with ``top``, ``others``, ``screened`` (numbers of cells) and ``seed``.
    """

    table: pd.DataFrame
    meta: Json

    def cells(self) -> pd.DataFrame:
        """One row a cell: the mean changes ``estimate`` and ``exact`` over pairs, ``chosen``, ``weight``."""
        rows = self._changes()
        return rows.groupby([*CELL, "own", "chosen", "weight"], sort=False)[["estimate", "exact"]].mean().reset_index()

    def spearman(self, chosen: str | None = None) -> Estimate:
        """The rank correlation of estimated and exact mean changes over cells.

        Args:
            chosen: of ``top`` or of ``others`` alone; by default of all that were screened.
        """
        return self._figure(rank_correlation, chosen, (-1.0, 1.0))

    def slope(self, chosen: str | None = None) -> Estimate:
        """By how much the exact change rises with the estimated one: least squares with a constant; 1 is right.

        Args:
            chosen: as in :meth:`spearman`.
        """
        return self._figure(regression_slope, chosen, (-np.inf, np.inf))

    def sign(self, chosen: str | None = None) -> Estimate:
        """The share of cells whose estimate has the exact change's sign, of those that change anything.

        Args:
            chosen: as in :meth:`spearman`.
        """
        return self._figure(sign_agreement, chosen, (0.0, 1.0))

    def recall(self, k: int = 10) -> Estimate:
        """Which share of the ``k`` cells with the largest exact changes is among the first of the screen.

        Args:
            k: how many; with more than ``top``, the share can't reach one.
        """
        if k < 1:
            raise PatchError(f"k is {k}: ask for the recall of one cell or more.")
        return self._figure(partial(recall_of, k=k), None, (0.0, 1.0))

    def plot(self) -> "go.Figure":
        """The exact change against the estimated one, a point a cell; on the diagonal both are equal."""
        from affectlens.plots import BLUE, GREY, ORANGE, figure

        cells = self.cells()
        ends = [float(f(cells[["estimate", "exact"]].to_numpy())) for f in (np.min, np.max)]
        fig = figure(f"patched exactly, beside the screen: rank correlation {self.spearman()}",
                     "estimated change", "exact change")  # fmt: skip
        fig.add_scatter(x=ends, y=ends, mode="lines", name="equal", hoverinfo="skip",
                        line={"color": GREY, "dash": "dot", "width": 1.8})  # fmt: skip
        for chosen, name, colour in (("others", "drawn from the others", ORANGE), ("top", "first of the screen", BLUE)):
            part = cells[cells["chosen"] == chosen]
            said = [place.text for place in places(part.rename(columns={"own": "pair"}))]
            fig.add_scatter(x=part["estimate"].tolist(), y=part["exact"].tolist(), mode="markers", name=name, text=said,
                            marker={"color": colour, "size": 7, "opacity": 0.75},
                            hovertemplate="%{text}: estimated %{x:.3g}, exact %{y:.3g}<extra></extra>")  # fmt: skip
        fig.update_layout(hovermode="closest")
        return fig

    def _figure(self, figure: Figure, chosen: str | None, bounds: tuple[float, float]) -> Estimate:
        if chosen not in (None, "top", "others"):
            raise PatchError(f"chosen is {chosen!r}; it is top, others, or None for all.")
        rows = self._changes()
        rows = rows if chosen is None else rows[rows["chosen"] == chosen]
        if rows.empty:
            raise PatchError(f"No cell of {chosen} was patched: ask confirm for some.")
        return with_interval(Sums.of(rows), figure, bounds)

    def _changes(self) -> pd.DataFrame:
        """The table with changes in place of values, what is within rounding as zero."""
        rows, direction = self.table, self.meta["direction"]
        least = ROUNDING * float(rows[["clean", "corrupt"]].abs().to_numpy().max())
        found = {
            "estimate": change(rows.assign(value=rows["estimate"]), direction), "exact": change(rows, direction),
        }  # fmt: skip
        found = {name: values.where(values.abs() > least, 0.0) for name, values in found.items()}
        return rows.assign(own=rows["pair"].where(rows["position"] >= 0, ""), **found)

    def __repr__(self) -> str:
        meta, n = self.meta, self.table["pair"].nunique()
        return (
            f"Confirmation({meta['method']}: {meta['top']} first and {meta['others']} other cells of "
            f"{meta['screened']}, patched exactly in {n} pairs; of all that were screened: rank correlation "
            f"{self.spearman()}, slope {self.slope()}, same sign {self.sign()}, recall of the largest ten "
            f"{self.recall()})"
        )

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(repr(self))}</p>"


def confirm(
    model: LensModel,
    screen: Screen,
    pairs: Given | Sequence[PatchPair],
    *,
    top: int = 50,
    others: int | None = None,
    seed: int = 0,
    memory: float = 1.0,
    progress: bool | None = None,
) -> Confirmation:
    """Patch a screen's first cells, and a random sample of its others, exactly.

    Args:
        model: that was screened.
        screen: from :func:`affectlens.patching.screening.screen`.
        pairs: those that were screened, or some of them.
        top: how many of the cells with the largest mean estimate.
        others: how many of the rest; as many as ``top`` by default.
        seed: of their choice.
        memory: what a batch may take beyond the model, in GB.
        progress: show a bar; by default where a person is looking.

    Raises:
        PatchError: another model or other pairs than were screened, or no cell asked for.
    """
    if model.fingerprint != screen.meta["fingerprint"]:
        raise PatchError(
            f"The screen is of {screen.meta['model']} with other weights: confirm on the model it was made on."
        )
    if top < 1 or (others is not None and others < 0):
        raise PatchError(f"top is {top} and others is {others}: ask for one cell or more.")
    ready = prepared(model, pairs, [screen.metric], cue=screen.meta["cue"], chat=screen.meta["chat"])
    if foreign := [pair.name for pair in ready if pair.name not in set(screen.pairs["pair"])]:
        raise PatchError(f"{foreign[0]} was not screened: give pairs of the screen.")
    cells = _drawn_cells(screen, top, top if others is None else others, seed)
    denoise = screen.meta["direction"] == "denoise"
    whole = tuple(dict.fromkeys(Site(*at) for at in cells[["kind", "layer"]].itertuples(index=False)))
    job = Job(runner_for(model, memory=memory), [screen.metric], whole, denoise=denoise)
    tables = []
    for pair in tracked(ready, "patching the first cells", show=progress):
        turned = pair if denoise else pair.swapped()
        rows = screen.table[screen.table["pair"] == pair.name]
        rows = rows.assign(own=rows["pair"].where(rows["position"] >= 0, "")).merge(cells, on=[*CELL, "own"])
        if len(rows):
            tables.append(_patched(job, turned, rows, screen))
    if not tables:
        raise PatchError("None of the cells is in these pairs: give more of the screened pairs.")
    count = cells["chosen"].value_counts()
    meta = screen.meta | {
        "top": int(count.get("top", 0)), "others": int(count.get("others", 0)),
        "screened": len(screen.cells()), "seed": seed,
    }  # fmt: skip
    return Confirmation(pd.concat(tables, ignore_index=True), meta)


def _drawn_cells(screen: Screen, top: int, others: int, seed: int) -> pd.DataFrame:
    """The cells to patch: where, whether of the top or the others, and how many each stands for."""
    every = screen.cells().rename(columns={"pair": "own"})
    first, rest = every.head(top), every.iloc[top:]
    n = min(others, len(rest))
    drawn = rest.iloc[np.sort(np.random.default_rng(seed).choice(len(rest), n, replace=False))]
    weight = len(rest) / n if n else 1.0
    both = pd.concat([first.assign(chosen="top", weight=1.0), drawn.assign(chosen="others", weight=weight)])
    return both.drop(columns=["estimate", "n"])


def _patched(job: Job, pair: PatchPair, rows: pd.DataFrame, screen: Screen) -> pd.DataFrame:
    """One pair's rows of a screen's table with their exact values."""
    ends = Ends.of(job, pair)
    asked = [int(name) if name.startswith("-") else name for name in screen.meta["positions"]]
    where = {(unit.segment, unit.position): unit.matches for unit in units(pair, asked) if not isinstance(unit, str)}
    cells = [_cell(ends, place, where[place.segment, place.position]) for place in places(rows)]
    found, _ = job.read(pair, pair.corrupt, ends.base, cells, ends.read)
    return rows.rename(columns={"value": "estimate"}).drop(columns="own").assign(value=found[screen.metric.name])


def _cell(ends: Ends, place: Place, matches: Sequence[Match]) -> Cell:
    there, here = zip(*matches, strict=True)
    value = ends.source.sites[replace(place.site, index=None)][list(there)]
    return (Change(place.site, here, value if place.index < 0 else value[:, place.index]),)
