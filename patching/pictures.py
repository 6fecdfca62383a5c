"""Which figures a report shows of a sweep, and those that several sweeps or rates are drawn in."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go

from affectlens.patching.ablation import AblationSweep
from affectlens.patching.effects import MATCHED, usable
from affectlens.patching.flipping import Flip
from affectlens.patching.results import Agreement, PatchSweep
from affectlens.patching.words import chosen, place
from affectlens.plots import BLUE, GREY, ORANGE, band, figure, level

FIRST = ("changed", "last")  # segments whose effects are drawn by depth, where they were patched
RATES = {"accuracy_drop": "drop in accuracy", "change_rate": "likeliest token changed"}


def pictures(sweep: PatchSweep, metric: str) -> Iterator[go.Figure]:
    """Layer by segment, effect by depth, heads, and one pair's tokens: of these what was patched.

    Args:
        sweep: what was patched.
        metric: its name.
    """
    rows = sweep.table[(sweep.table["metric"] == metric) & (sweep.table["source"] == MATCHED)]
    if rows.empty or usable(rows)[0].empty:
        return
    whole, headed = rows[rows["index"] < 0], rows[(rows["index"] >= 0) & (rows["kind"] != "neurons")]
    for kind in whole["kind"].unique():
        here = whole[whole["kind"] == kind]
        yield sweep.plot(metric=metric, kind=kind)
        for segment in _segments(here) if here["layer"].nunique() > 1 else ():
            yield sweep.plot_depth(metric=metric, kind=kind, segment=segment)
    for kind in headed["kind"].unique():
        yield sweep.plot_heads(metric=metric, kind=kind)
    if len(singly := whole[whole["position"] >= 0]):
        there = set(usable(rows)[0].index)
        pair = next(one for one in singly["pair"] if one in there)
        yield sweep.plot_tokens(pair, metric=metric, kind=singly["kind"].iloc[0])


def titled(fig: go.Figure, view: str) -> go.Figure:
    """The figure with what it is of before its title."""
    text = fig.to_dict()["layout"]["title"]["text"]
    fig.update_layout(title={"text": f"{view}: {text}" if view else text})
    return fig


def both_ways(found: Agreement, metric: str) -> go.Figure:
    """Each cell's effect in both directions.

    Args:
        found: from :func:`affectlens.patching.results.agreement`.
        metric: its name.
    """
    cells = found.cells[(found.cells["metric"] == metric) & found.cells["normalised"]]
    fig = figure(f"{metric}: each cell both ways, shares of the gap", "restored by denoising", "removed by noising")
    for (segment, kind), part in cells.groupby(["segment", "kind"], sort=False):
        said = [place(row) for row in part.to_dict("records")]
        x, y = (part[name].astype(float).tolist() for name in ("denoise", "noise"))
        fig.add_scatter(x=x, y=y, mode="markers", name=f"{segment}, {kind}", customdata=said, marker={"size": 7},
                        hovertemplate="%{customdata}<br>%{x:.2f}, %{y:.2f}<extra></extra>")  # fmt: skip
    ends = [float(cells[["denoise", "noise"]].min().min()), float(cells[["denoise", "noise"]].max().max())]
    fig.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"color": GREY, "dash": "dot"}, hoverinfo="skip")
    fig.update_layout(hovermode="closest")
    return fig


def turned(found: Flip, metric: str) -> Iterator[go.Figure]:
    """The share of d that is turned by patching the facts, one figure a kind of site that was patched as a whole.

    Args:
        found: the quadruples.
        metric: its name.
    """
    sweeps = {name: one for name, one in found.sweeps.items() if metric in one.metrics}
    kinds = dict.fromkeys(kind for one in sweeps.values() for kind in one.table.loc[one.table["index"] < 0, "kind"])
    for kind in kinds:
        parts = {name: _only(one, metric, kind) for name, one in sweeps.items()}
        parts = {name: one for name, one in parts.items() if len(one.table) and one.baselines["pairs"].any()}
        if parts:
            yield titled(Flip(parts).plot(metric=metric), f"{metric}, {kind}")


def rates(ablation: AblationSweep, metric: str) -> Iterator[go.Figure]:
    """The true drop in accuracy and the change rate by layer, each beside the random change's.

    Args:
        ablation: what was ablated.
        metric: its name.
    """
    found = chosen(ablation.rates, metric=metric)
    found = found[found["index"] < 0]
    for (kind, segment), part in found.groupby(["kind", "segment"], sort=False):
        if part["layer"].nunique() < 2:
            continue
        fig = figure(f"{metric}: {kind} ablated at {segment}, pointwise 95% intervals", f"layer of {kind}", "share")
        for (measure, source), colour in zip(_curves(), (BLUE, ORANGE, BLUE, ORANGE), strict=True):
            curve = part[(part["measure"] == measure) & (part["source"] == source)].sort_values("layer")
            x, low, value, high = (curve[name].astype(float).tolist() for name in ("layer", "low", "value", "high"))
            if x:
                name = RATES[measure] + ("" if source == MATCHED else ", random change")
                band(fig, x, low, value, high, name, colour, dash="solid" if measure == "accuracy_drop" else "dash")
        level(fig, part["layer"].astype(float).tolist(), 0.0, "nothing", GREY)
        yield fig


def _curves() -> list[tuple[str, str]]:
    return [(measure, source) for measure in RATES for source in (MATCHED, "random_change")]


def _segments(rows: pd.DataFrame) -> list[str]:
    there = list(dict.fromkeys(rows["segment"]))
    return [one for one in FIRST if one in there] or there[:2]


def _only(sweep: PatchSweep, metric: str, kind: str) -> PatchSweep:
    table = sweep.table
    return replace(sweep, table=table[(table["metric"] == metric) & (table["kind"] == kind) & (table["index"] < 0)])
