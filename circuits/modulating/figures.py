"""The figure of a comparison. Intervals are pointwise 95% and resample prompts."""

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from affectlens.circuits.modulating.words import NAMES
from affectlens.errors import CircuitError
from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, figure

if TYPE_CHECKING:
    from affectlens.circuits.modulating.comparison import Comparison

_COLOURS = {"scale": GREEN, "replace": BLUE, "steer": ORANGE, "prompted": PURPLE, "plain": GREY}


def frontier(found: "Comparison", judge: str | None = None, emotion: str | None = None) -> go.Figure:
    """Share of replies called the target against perplexity ratio, a line a way, a point a dose; budgets are dashed.

    Args:
        found: the comparison.
        judge: whose; the first by default.
        emotion: the target; the first by default.

    Raises:
        CircuitError: a judge or emotion that is not there.
    """
    name, target = judge or found.facts["judges"][0], emotion or found.emotions[0]
    rows = found.curves[(found.curves["judge"] == name) & (found.curves["emotion"] == target)]
    if rows.empty:
        raise CircuitError(
            f"There is no {target!r} judged by {name!r}; there are {', '.join(found.emotions)}, judged by "
            f"{', '.join(found.facts['judges'])}."
        )
    fig = figure(f"Replies called {target} by {name}, and what they cost", "perplexity, times plain (the larger ratio)",
                 "share of replies")  # fmt: skip
    for way, colour in _COLOURS.items():
        mine = rows[(rows["way"] == way) & rows["cost.value"].notna()].sort_values("dose")
        said = [f"dose {row['dose']:g}: {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}] at "
                f"{row['cost.value']:.2f} [{row['cost.low']:.2f}, {row['cost.high']:.2f}]"
                for row in mine.to_dict("records")]  # fmt: skip
        fig.add_scatter(
            x=mine["cost.value"].tolist(), y=mine["value"].tolist(), name=NAMES[way], mode="lines+markers",
            customdata=said, hovertemplate="%{customdata}", line={"color": colour, "width": 2}, marker={"size": 8},
            error_y={**_bars(mine, ""), "thickness": 1}, error_x={**_bars(mine, "cost."), "thickness": 0.6},
        )  # fmt: skip
    for budget in found.budgets:
        fig.add_vline(x=budget, line={"color": GREY, "width": 1, "dash": "dash"})
    fig.update_layout(hovermode="closest")
    fig.update_xaxes(type="log")
    fig.update_yaxes(range=[-0.02, 1.02])
    return fig


def _bars(rows: Any, of: str) -> dict[str, Any]:
    value = rows[f"{of}value"]
    more, less = (rows[f"{of}high"] - value).fillna(0), (value - rows[f"{of}low"]).fillna(0)
    return {"type": "data", "array": more.tolist(), "arrayminus": less.tolist()}
