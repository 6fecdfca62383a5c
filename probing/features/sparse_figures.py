"""The figure of sparse probes: score against k."""

import plotly.graph_objects as go

from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure, level
from affectlens.probing.features.sparse_report import SparseReport
from affectlens.probing.names import FLOOR_NAMES, UNITS

_DENSE = {"codes": ("all features", GREEN), "residual": ("residual stream", PURPLE)}
_CONTROLS = {"random_features": "random features, same density", "random_directions": "random directions"}


def curve(report: SparseReport) -> go.Figure:
    """Score by number of features under the headline's rung: 95% intervals, dense probes, floor, controls."""
    meta, rung = report.meta, report.meta["rung"]
    fig = figure(
        f"{report.target}: {meta['metric']} by number of features, whole {UNITS[rung]} held out",
        f"features of {meta['sae']} read (logarithmic)",
        meta["metric"],
    )
    here = report.scores[(report.scores["rung"] == rung) & (report.scores["k"] > 0)]
    series = [("probe", "sparse", "sparse probe", BLUE, "solid")]
    series += [("control", kind, name, GREY, "dot") for kind, name in _CONTROLS.items()]
    for kind, reader, name, colour, dash in series:
        rows = here[(here["kind"] == kind) & (here["reader"] == reader)].sort_values("k")
        if not rows.empty:
            x, low, value, high = (rows[c].astype(float).tolist() for c in ("k", "low", "value", "high"))
            band(fig, x, low, value, high, name, colour, dash=dash)
    x = [float(k) for k in meta["ks"]]
    for reader, (name, colour) in _DENSE.items():
        found = report.estimate("probe", reader, 0)
        level(fig, x, found.value, f"{name} {found}", colour, dash="dash")
    if report.strongest_floor != "chance":
        found = report.estimate("floor", report.strongest_floor, 0)
        level(fig, x, found.value, f"{FLOOR_NAMES[report.strongest_floor]} {found}", ORANGE)
    level(fig, x, meta["chance"], "chance", GREY, dash="longdash")
    fig.update_xaxes(type="log", tickvals=x, ticktext=[str(k) for k in meta["ks"]])
    return fig
