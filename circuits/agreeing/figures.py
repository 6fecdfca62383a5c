"""The story of a model in one picture: layer by emotion, five marks a cell."""

from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from affectlens.circuits.agreeing.marks import NO, NOT_MEASURED, QUESTIONS, UNDECIDED, VERDICTS, YES
from affectlens.circuits.agreeing.words import FLAGS, NAMES
from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, figure
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.circuits.agreeing.report import AgreementReport

COLOURS = {"read": BLUE, "causal": ORANGE, "feature": GREEN, "steerable": PURPLE, "circuit": "#c0392b"}
_SHAPES = {  # symbol, size, width of its line
    YES: ("square", 9.5, 0.0),
    NO: ("x-thin", 5.0, 1.2),
    UNDECIDED: ("circle-open", 5.0, 1.1),
    NOT_MEASURED: ("circle", 1.8, 0.0),
}
_STEP, _HALF = 0.17, 0.46  # between the marks of a cell, and half a cell's height
_ROW = 78  # pixels an emotion


def grid(report: "AgreementReport") -> go.Figure:
    """Marks by layer and emotion; frames where reading and using differ surely; hover for the estimate.

    Args:
        report: what was joined.
    """
    emotions, layers = report.emotions, report.layers
    rank = {emotion: len(emotions) - 1 - i for i, emotion in enumerate(emotions)}
    fig = figure(_title(report), "layer (the stream that leaves it)", "")
    for i, emotion in enumerate(emotions):
        if i % 2 == 0:
            fig.add_shape(type="rect", xref="paper", x0=0, x1=1, y0=rank[emotion] - 0.5, y1=rank[emotion] + 0.5,
                          fillcolor="rgba(128,128,128,.09)", line_width=0, layer="below")  # fmt: skip
    for number, question in enumerate(QUESTIONS):
        rows = report.table[report.table["question"] == question]
        _legend(fig, NAMES[question], "square", 10.0, COLOURS[question], 1)
        for verdict in VERDICTS:
            _marks(fig, rows[rows["verdict"] == verdict], verdict, COLOURS[question], rank, (2 - number) * _STEP)
    for verdict in VERDICTS:
        symbol, size, _ = _SHAPES[verdict]
        _legend(fig, verdict, symbol, max(size, 3.0), GREY, 2)
    _frames(fig, report, rank)
    fig.update_xaxes(range=[layers[0] - 0.7, layers[-1] + 0.7], tick0=0, dtick=1 + len(layers) // 16, showgrid=False)
    fig.update_yaxes(range=[-0.5, len(emotions) - 0.5], tickvals=list(rank.values()), ticktext=list(rank),
                     showgrid=False)  # fmt: skip
    fig.update_layout(
        height=190 + _ROW * len(emotions), hovermode="closest", margin={"t": 95, "b": 110, "l": 90},
        legend={"y": -64 / (_ROW * len(emotions)), "yanchor": "top", "traceorder": "normal", "itemclick": False,
                "itemdoubleclick": False, "itemwidth": 30, "font": {"size": 12}},
    )  # fmt: skip
    return fig


def _title(report: "AgreementReport") -> str:
    counts = report.counts()
    measured = dict(zip(counts.index, counts.drop(columns=NOT_MEASURED).sum(axis=1).astype(int), strict=True))
    said = [f"{NAMES[str(name)]} {int(counts[YES][name])}/{of}" for name, of in measured.items() if of]
    order = ", ".join(NAMES[name] for name in QUESTIONS)
    return (
        f"{report.meta['model']}: yes in cells measured: {', '.join(said)}"
        f"<br><sub>In each cell from top to bottom: {order}. Hover for estimates and controls.</sub>"
    )


def _marks(fig: go.Figure, rows: pd.DataFrame, verdict: str, colour: str, rank: dict[str, int], shift: float) -> None:
    if rows.empty:
        return
    symbol, size, width = _SHAPES[verdict]
    shade = colour if verdict == YES else GREY
    said = [_said({str(name): value for name, value in row.items()}) for row in rows.to_dict("records")]
    fig.add_scatter(
        x=rows["layer"].tolist(), y=[rank[emotion] + shift for emotion in rows["emotion"]], mode="markers", text=said,
        marker={"symbol": symbol, "size": size, "color": shade, "line": {"width": width, "color": shade}},
        opacity=0.75 if verdict in (NO, NOT_MEASURED) else 1.0, showlegend=False,
        hovertemplate="%{text}<extra></extra>", name=verdict,
    )  # fmt: skip


def _said(row: Json) -> str:
    """What a mark says when it is pointed at."""
    lines = [f"<b>{row['emotion']}, layer {row['layer']}: {NAMES[str(row['question'])]}: {row['verdict']}</b>"]
    if row["value"] == row["value"]:
        lines.append(f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] above {row['control']}")
    if row["p_adjusted"] == row["p_adjusted"]:
        lines.append(f"p over the family {row['p_adjusted']:.3g}; n {row['n']}")
    return "<br>".join([*lines, str(row["why"])])


def _legend(fig: go.Figure, name: str, symbol: str, size: float, colour: str, rank: int) -> None:
    """An entry of the legend without a point."""
    marker = {"symbol": symbol, "size": size, "color": colour, "line": {"width": 1.2, "color": colour}}
    fig.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, legendrank=1000 + rank)


def _frames(fig: go.Figure, report: "AgreementReport", rank: dict[str, int]) -> None:
    """A frame around each flagged cell, one trace a flag."""
    flags = report.flags()
    for flag, dash in zip(FLAGS, ("solid", "dot"), strict=True):
        x: list[float | None] = []
        y: list[float | None] = []
        for row in flags[flags["flag"] == flag].to_dict("records"):
            left, middle = float(row["layer"]), rank[str(row["emotion"])]
            x += [left - 0.45, left + 0.45, left + 0.45, left - 0.45, left - 0.45, None]
            y += [middle - _HALF, middle - _HALF, middle + _HALF, middle + _HALF, middle - _HALF, None]
        fig.add_scatter(x=x or [None], y=y or [None], mode="lines", line={"color": GREY, "width": 2, "dash": dash},
                        name=flag, hoverinfo="skip", legendrank=1003)  # fmt: skip
