"""The figures of a verification. Intervals are pointwise 95% intervals over scenes."""

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from affectlens.circuits.verifying.removing import EDGE, FIRST
from affectlens.circuits.verifying.sizing import WITHIN
from affectlens.errors import CircuitError
from affectlens.plots import BLUE, GREY, ORANGE, PURPLE, band, figure, level

if TYPE_CHECKING:
    from affectlens.circuits.verifying.result import Verification


def by_size(found: "Verification") -> go.Figure:
    """Faithfulness against size on a logarithmic axis, with 95% of the random circuits and the complement.

    Args:
        found: the verification.

    Raises:
        CircuitError: if nothing was divided.
    """
    table = found.curve()
    if found.sizes.empty:
        raise CircuitError("There is no faithfulness to draw: the gap between full and none is not told from zero.")
    fig = figure("Faithfulness by size, pointwise 95% intervals", "share of the edges kept", "f")
    for rows, columns, name, colour, dash in (
        (table.dropna(subset=["draws"]), ("random_low", "random_median", "random_high"), "random circuits, 95%", ORANGE,
         "dot"),
        (table.dropna(subset=["complement"]), ("complement_low", "complement", "complement_high"),
         "all edges but the circuit's", PURPLE, "dash"),
        (table, ("low", "f", "high"), "circuit", BLUE, "solid"),
    ):  # fmt: skip
        if len(rows):
            low, value, high = (rows[column].tolist() for column in columns)
            band(fig, rows["fraction"].tolist(), low, value, high, name, colour, dash=dash)
    sizes = table["fraction"].tolist()
    for edge in WITHIN:
        level(fig, sizes, edge, f"{edge:g}", GREY)
    fig.update_xaxes(type="log", tickvals=sizes, ticktext=[f"{one:g}" for one in sizes])
    return fig


def by_cost(found: "Verification") -> go.Figure:
    """What each edge costs when it is dropped, with its interval, beside random added edges.

    Args:
        found: the verification.

    Raises:
        CircuitError: if no edge was dropped.
    """
    edges = found.drops[found.drops["kind"] == EDGE] if len(found.drops) else found.drops
    if edges.empty:
        raise CircuitError("No edge was dropped from the circuit, so there is no cost to draw.")
    rows = edges.sort_values("cost", kind="stable")
    fig = figure("f lost when one edge is dropped, 95% intervals", "f lost", "")
    for needed, colour in ((True, BLUE), (False, GREY)):
        part = rows[rows["needed"] == needed]
        fig.add_scatter(
            x=part["cost"], y=part["removed"], mode="markers", name="needed (max-T)" if needed else "not from zero",
            marker={"color": colour, "size": 8}, error_x={"type": "data", "symmetric": False, "color": colour,
            "array": part["cost_high"] - part["cost"], "arrayminus": part["cost"] - part["cost_low"]},
        )  # fmt: skip
    if len(found.references):
        name = "random added edges"
        fig.add_scatter(x=found.references["cost"], y=[name] * len(found.references), mode="markers", name=name,
                        marker={"color": ORANGE, "size": 6, "opacity": 0.5})  # fmt: skip
    fig.update_layout(height=200 + 22 * len(rows), hovermode="closest")
    return fig


def by_prediction(found: "Verification") -> go.Figure:
    """Exact effects on held-out scenes against scores on discovery scenes, with intervals.

    Args:
        found: the verification.

    Raises:
        CircuitError: if no edge was patched.
    """
    if found.edges.empty:
        raise CircuitError("No edge was patched exactly, so there is no prediction to compare.")
    unit = found.meta["unit"]
    fig = figure("Predicted and exact effect of single edges", f"score, {unit}", f"exact effect, {unit}")
    for chosen, colour in ((FIRST, BLUE), (None, GREY)):
        part = found.edges[(found.edges["chosen"] == FIRST) == (chosen == FIRST)]
        fig.add_scatter(
            x=part["estimate"], y=part["effect"], mode="markers", name=chosen or "drawn from the others",
            text=part["edge"], marker={"color": colour, "size": 8}, error_y={"type": "data", "symmetric": False,
            "array": part["high"] - part["effect"], "arrayminus": part["effect"] - part["low"], "color": colour},
        )  # fmt: skip
    ends = [float(found.edges["estimate"].min()), float(found.edges["estimate"].max())]
    fig.add_scatter(x=ends, y=ends, mode="lines", name="as predicted", line={"color": GREY, "dash": "dot"})
    fig.update_layout(hovermode="closest")
    return fig
