"""The figures of a probe report."""

import pandas as pd
import plotly.graph_objects as go

from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure, level
from affectlens.probing.names import FLOOR_NAMES, METHOD_NAMES, UNITS
from affectlens.probing.report import NESTED, ProbeReport

_FLOOR_COLOURS = {"tfidf": ORANGE, "function_words": PURPLE, "surface": GREY}


def layer_curve(report: ProbeReport) -> go.Figure:
    """Score by layer under the headline's rung: pointwise 95% intervals, floors, chance, the nested headline."""
    meta, rung = report.meta, report.meta["rung"]
    here = report.scores[report.scores["rung"] == rung]
    fig = figure(
        f"{report.target}: {meta['metric']} by layer, whole {UNITS[rung]} held out",
        f"layer of {meta['site']}",
        meta["metric"],
    )
    x: list[float] = []
    styles = [(report.main, BLUE, "solid"), ("mean_difference", GREEN, "dash")]
    for reader, colour, dash in styles:
        curve = here[(here["reader"] == reader) & (here["layer"] != NESTED)].sort_values("layer")
        x = curve["layer"].astype(float).tolist()
        _band(fig, curve, METHOD_NAMES[reader], colour, dash)
    for floor, colour in _FLOOR_COLOURS.items():
        found = report.estimate("floor", floor)
        level(fig, x, found.value, f"{FLOOR_NAMES[floor]} {found}", colour)
    level(fig, x, meta["chance"], "chance", GREY, dash="longdash")
    best = report.headline
    fig.add_scatter(
        x=[x[-1] + 1], y=[best.value], name=f"nested: {best}", mode="markers", hovertemplate=f"nested {best}",
        marker={"color": BLUE, "size": 10, "symbol": "diamond"},
        error_y={"type": "data", "array": [best.high - best.value], "arrayminus": [best.value - best.low],
                 "color": BLUE},
    )  # fmt: skip
    fig.update_yaxes(range=[0.2 if meta["chance"] == 0.5 else 0, 1.02])
    return fig


def floor_band(report: ProbeReport) -> go.Figure:
    """Probe minus its strongest floor by layer, in a band that holds for all layers at once."""
    table = report.layers.rename(columns={"difference": "value"})
    name = report.strongest_floor
    fig = figure(
        f"{report.target}: probe minus {FLOOR_NAMES.get(name, name)}, simultaneous 95% band",
        f"layer of {report.meta['site']}",
        f"difference in {report.meta['metric']}",
    )
    _band(fig, table, "probe minus floor", BLUE, "solid")
    level(fig, table["layer"].astype(float).tolist(), 0.0, "no difference", GREY, dash="longdash")
    return fig


def ladder_figure(report: ProbeReport) -> go.Figure:
    """Every rung's nested score beside its strongest floor, with intervals."""
    rungs = list(report.rungs)
    metric = report.meta["metric"]
    fig = figure(f"{report.target}: every rung of the ladder", "held out", metric)
    series = [(METHOD_NAMES[report.main], BLUE, [report.estimate("probe", report.main, r) for r in rungs])]
    for floor, colour in _FLOOR_COLOURS.items():
        series.append((FLOOR_NAMES[floor], colour, [report.estimate("floor", floor, r) for r in rungs]))
    for name, colour, found in series:
        fig.add_scatter(
            x=rungs, y=[e.value for e in found], name=name, mode="markers", text=[str(e) for e in found],
            hovertemplate="%{text}", marker={"color": colour, "size": 10},
            error_y={"type": "data", "array": [e.high - e.value for e in found],
                     "arrayminus": [e.value - e.low for e in found], "color": colour},
        )  # fmt: skip
    fig.update_layout(scattermode="group", scattergap=0.7)
    fig.add_hline(y=report.meta["chance"], line={"color": GREY, "width": 1, "dash": "dash"})
    return fig


def transfer_heat(report: ProbeReport) -> go.Figure:
    """The transfer matrix: trained on the row, tested on the column; hover for intervals and what words reach."""
    cells, names = report.transfer_cells(), report.transfer
    trained, tested = (list(names[column].unique()) for column in ("trained", "tested"))
    metrics = dict(zip(names["tested"], names["metric"], strict=True))
    said = [
        [f"{metrics[c]} {cells[report.main, r, c]}<br>words: {cells['tfidf', r, c]}" for c in tested] for r in trained
    ]
    fig = figure(f"{report.target}: trained on the row, tested on the column", "tested on", "trained on")
    fig.add_heatmap(
        z=[[cells[report.main, r, c].value for c in tested] for r in trained], x=tested, y=trained, zmin=0, zmax=1,
        colorscale=[[0, ORANGE], [0.5, "#f4f4f2"], [1, BLUE]], texttemplate="%{z:.2f}", customdata=said,
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    fig.update_layout(hovermode="closest")
    return fig


def crossed_curve(report: ProbeReport) -> go.Figure:
    """The share of quadruples won at each layer, with exact intervals; the layer chosen elsewhere is marked."""
    fig = figure("crossed quadruples won, by layer", f"layer of {report.meta['site']}", "share won")
    x: list[float] = []
    for split, colour in (("crossed", BLUE), ("crossed_fact", ORANGE)):
        rows = report.crossed[(report.crossed["split"] == split) & (report.crossed["method"] == report.main)]
        if rows.empty:
            continue
        x = rows["layer"].astype(float).tolist()
        renamed = rows.rename(columns={"wins": "value", "wins_low": "low", "wins_high": "high"})
        _band(fig, renamed, f"{split} ({int(rows['n'].iloc[0])} quadruples)", colour, "solid")
    level(fig, x, 0.5, "chance", GREY, dash="longdash")
    fig.add_vline(x=report.meta["crossed_layer"], line={"color": GREY, "width": 1, "dash": "dot"})
    fig.update_yaxes(range=[-0.02, 1.02])
    return fig


def _band(fig: go.Figure, curve: pd.DataFrame, name: str, colour: str, dash: str) -> None:
    x, low, value, high = (curve[c].astype(float).tolist() for c in ("layer", "low", "value", "high"))
    band(fig, x, low, value, high, name, colour, dash=dash)
