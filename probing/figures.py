"""The figures of a probe report."""

import pandas as pd
import plotly.graph_objects as go

from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure, level
from affectlens.probing.report import NESTED, ProbeReport
from affectlens.probing.words import FLOOR_NAMES

_FLOOR_COLOURS = {"tfidf": ORANGE, "function_words": PURPLE, "surface": GREY}


def layer_curve(report: ProbeReport) -> go.Figure:
    """Score by layer under the strictest rung, pointwise 95% intervals, with floors, chance and the nested headline."""
    meta, rung = report.meta, report.rungs[-1]
    here = report.scores[report.scores["rung"] == rung]
    fig = figure(
        f"{report.target}: {meta['metric']} by layer, whole {rung}s held out",
        f"layer of {meta['site']}",
        meta["metric"],
    )
    x: list[float] = []
    for reader, name, colour, dash in (
        ("logistic", "logistic probe", BLUE, "solid"),
        ("mean_difference", "mean difference", GREEN, "dash"),
    ):
        curve = here[(here["reader"] == reader) & (here["layer"] != NESTED)].sort_values("layer")
        x = curve["layer"].astype(float).tolist()
        _band(fig, curve, name, colour, dash)
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
    fig.update_yaxes(range=[0.2 if meta["metric"] == "AUROC" else 0, 1.02])
    return fig


def crossed_curve(report: ProbeReport) -> go.Figure:
    """The share of quadruples won at each layer, with exact intervals; the layer chosen elsewhere is marked."""
    fig = figure("crossed quadruples won, by layer", f"layer of {report.meta['site']}", "share won")
    x: list[float] = []
    for split, colour in (("crossed", BLUE), ("crossed_fact", ORANGE)):
        rows = report.crossed[(report.crossed["split"] == split) & (report.crossed["method"] == "logistic")]
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
