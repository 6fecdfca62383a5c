"""The keyword-affect plane as a figure."""

from html import escape

import pandas as pd
import plotly.graph_objects as go

from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, figure
from affectlens.probing.features.classing import BOUND, CLASSES

COLOURS = {"keyword": ORANGE, "affect": BLUE, "both": PURPLE, "style": GREEN, "unclear": GREY}
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star", "hexagon")
SAID = ("affect", "words", "added", "decoy", "vivid", "crossed")


def plane_figure(placed: pd.DataFrame, *, intervals: bool = False, bound: float = BOUND) -> go.Figure:
    """Every placed feature by its response to the words and its response to affect without them.

    The lines part the classes by the estimates alone: below the flatter one affect is less than ``bound`` of the words,
    left of the steeper one the words are less than ``bound`` of affect. Colour is the class that intervals show, symbol
    the emotion. A point's ``customdata`` is its row in the table and what its label says.

    Args:
        placed: the table of :func:`affectlens.probing.features.classing.classed`.
        intervals: draw each point's 95% intervals.
        bound: r of the rule.
    """
    fig = figure(
        "Words or affect: every placed feature", "response to the words, SD", "response to affect without the words, SD"
    )
    emotions = list(dict.fromkeys(placed["emotion"].astype(str)))
    symbols = {emotion: SYMBOLS[i % len(SYMBOLS)] for i, emotion in enumerate(emotions)}
    _rays(fig, placed, bound)
    rows = placed.reset_index(drop=True)
    for name in CLASSES:
        part = rows[rows["class"] == name]
        if part.empty:
            continue
        x, y = (part[column].astype(float).tolist() for column in ("words", "affect"))
        bars = {f"error_{axis}": _bars(part, column, COLOURS[name], shown=intervals)
                for axis, column in (("x", "words"), ("y", "affect"))}  # fmt: skip
        fig.add_scatter(
            x=x, y=y, mode="markers", name=f"{name} ({len(part)})",
            marker={"color": COLOURS[name], "size": 8, "opacity": 0.5 if name == "unclear" else 0.9,
                    "symbol": [symbols[str(emotion)] for emotion in part["emotion"]]},
            customdata=[[int(row), said(part.loc[row])] for row in part.index],
            hovertemplate="%{customdata[1]}<extra></extra>", **bars,
        )  # fmt: skip
    fig.update_layout(hovermode="closest", height=520)
    fig.update_xaxes(zeroline=True, zerolinecolor="rgba(128,128,128,.5)")
    fig.update_yaxes(zeroline=True, zerolinecolor="rgba(128,128,128,.5)")
    return fig


def said(row: pd.Series) -> str:
    """A point's label, escaped: class, support and responses with their intervals.

    Args:
        row: of the table of placed features.
    """
    lines = [f"<b>feature {int(row['feature'])}</b>, {escape(str(row['emotion']))}: {escape(str(row['class']))}",
             f"nearest {escape(str(row['nearest']))}, in {row['support']:.0%} of draws"]  # fmt: skip
    lines += [f"{name} {row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
              for name in SAID if pd.notna(row[name])]  # fmt: skip
    return "<br>".join(lines)


def _bars(part: pd.DataFrame, column: str, colour: str, *, shown: bool) -> dict[str, object]:
    up, down = part[f"{column}_high"] - part[column], part[column] - part[f"{column}_low"]
    return {"type": "data", "symmetric": False, "array": up.clip(lower=0).tolist(), "color": colour, "width": 0,
            "arrayminus": down.clip(lower=0).tolist(), "thickness": 0.8, "visible": shown}  # fmt: skip


def _rays(fig: go.Figure, placed: pd.DataFrame, bound: float) -> None:
    """Where the classes part, as far as there are points."""
    far = 1.05 * float(placed[["words", "affect"]].abs().max().max()) if len(placed) else 1.0
    far = far if far > 0 else 1.0
    for x, y, name in (
        (far, bound * far, f"affect = {bound:.2f} words"),
        (bound * far, far, f"words = {bound:.2f} affect"),
    ):
        fig.add_scatter(x=[-x, 0, x], y=[-y, 0, y], mode="lines", name=name, hoverinfo="skip", showlegend=False,
                        line={"color": GREY, "width": 1, "dash": "dot"})  # fmt: skip
