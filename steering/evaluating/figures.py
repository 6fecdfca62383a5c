"""The figures of an evaluation. Intervals are pointwise 95% and resample prompts."""

from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from affectlens.errors import SteerError
from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure, level
from affectlens.steering.evaluating.leakage import NONE, OTHERS
from affectlens.steering.evaluating.phrases import NAMES
from affectlens.steering.evaluating.safety import HIGHEST

if TYPE_CHECKING:
    from affectlens.steering.evaluating.result import SteeringReport

_JUDGES = (BLUE, GREEN, PURPLE)
_BARS = {"plain": GREY, "random": ORANGE, "steer": BLUE, "heads": GREEN, "neurons": PURPLE, "prompted": "#c9a227",
         "fewshot": "#8c6d1f"}  # fmt: skip
_EIGHT = (BLUE, ORANGE, GREEN, PURPLE, GREY, "#c9a227", "#b5446e", "#4aa8b8")
_DIVERGING = [[0, ORANGE], [0.5, "#f4f4f2"], [1, BLUE]]


def dose_curves(report: "SteeringReport", emotion: str) -> go.Figure:
    """Share of replies called the target by each judge above, both perplexity ratios below, the safe dose marked.

    Args:
        report: of an evaluation.
        emotion: the target.

    Raises:
        SteerError: if it was not steered by the headline's method.
    """
    rows = report.doses[(report.doses["condition"] == "steer") & (report.doses["method"] == report.method)]
    rows = rows[(rows["emotion"] == emotion) & rows["dose"].notna()]
    if rows.empty:
        raise SteerError(f"{emotion!r} was not steered by {report.method}; there are {', '.join(report.emotions)}.")
    rows = rows[rows["site"] == rows["site"].iloc[0]]
    fig = figure(f"{emotion}: replies called {emotion}, and what it costs", "", "share of replies")
    for judge, colour in zip(dict.fromkeys(rows["judge"]), (GREY, *_JUDGES), strict=False):
        _curve(fig, rows[(rows["judge"] == judge) & (rows["quantity"] == "share")], f"{judge}", colour, "solid")
        _curve(fig, rows[(rows["judge"] == judge) & (rows["quantity"] == "share masked")], f"{judge}, words masked",
               colour, "dot")  # fmt: skip
    traces: Any = fig.data
    above = len(traces)
    for quantity, name, colour in (("reply ppl ratio", "perplexity of replies", ORANGE),
                                   ("neutral ppl ratio", "perplexity of neutral text", PURPLE)):  # fmt: skip
        _curve(fig, rows[rows["quantity"] == quantity], name, colour, "solid")
    doses = rows["dose"].tolist()
    level(fig, doses, HIGHEST, "1.5: no longer safe", GREY)
    traces = fig.data
    for trace in traces[above:]:
        trace.update(yaxis="y2")
    fig.update_layout(
        yaxis={"domain": [0.42, 1.0], "range": [-0.02, 1.02]}, height=560, xaxis={"anchor": "y2"},
        yaxis2={"domain": [0.0, 0.34], "title": "times plain", "type": "log", "gridcolor": "rgba(128,128,128,.18)"},
    )  # fmt: skip
    fig.update_xaxes(title="dose, as a fraction of the residual norm")
    if (safe := report.safe[emotion]) is not None:
        fig.add_vline(x=safe, line={"color": GREY, "width": 1.5, "dash": "dash"}, annotation_text=f"safe {safe:.2f}",
                      annotation_position="top left")  # fmt: skip
    return fig


def _curve(fig: go.Figure, rows: pd.DataFrame, name: str, colour: str, dash: str) -> None:
    if not rows.empty:
        rows = rows.sort_values("dose")
        x, low, value, high = (rows[column].astype(float).tolist() for column in ("dose", "low", "value", "high"))
        band(fig, x, low, value, high, name, colour, dash=dash)


def bars(report: "SteeringReport", judge: str | None = None) -> go.Figure:
    """Target shares at the safe dose: plain, placebo, steering, heads, neurons, prompting, few-shot, side by side.

    Args:
        report: of an evaluation.
        judge: whose; the first by default.
    """
    name = judge_of(report, judge)
    found = [one for one in report.verdicts if one.judge == name and not one.rows.empty]
    called = {one.emotion: one.emotion if one.able else f"{one.emotion} (can't tell)" for one in found}
    fig = figure(f"Replies called the target by {name}, at the safe dose", "", "share of replies")
    for condition, colour in _BARS.items():
        values = {one.emotion: one.share if condition == "steer" else one.of(condition) for one in found}
        kept = {emotion: value for emotion, value in values.items() if value is not None}
        if kept:
            fig.add_bar(
                x=[called[emotion] for emotion in kept], y=[one.value for one in kept.values()],
                name=NAMES[condition], marker_color=colour,
                error_y={"type": "data", "array": [one.high - one.value for one in kept.values()],
                         "arrayminus": [one.value - one.low for one in kept.values()], "thickness": 1.2},
                customdata=[str(one) for one in kept.values()], hovertemplate="%{customdata}",
            )  # fmt: skip
    fig.update_layout(barmode="group", bargap=0.25)
    fig.update_yaxes(range=[0, 1.02])
    return fig


def leakage_heat(report: "SteeringReport", judge: str | None = None) -> go.Figure:
    """Steered to the row, called the column: the share less that of plain replies; hover for intervals.

    Args:
        report: of an evaluation.
        judge: whose; the first by default.
    """
    name = judge_of(report, judge)
    rows = report.leakage[(report.leakage["judge"] == name) & (report.leakage["method"] == report.method)]
    rows = rows[(rows["condition"] == "steer") & (rows["quantity"] == "less plain")]
    rows = rows.drop_duplicates(["target", "judged"])
    judged = [one for one in dict.fromkeys(rows["judged"]) if one not in (NONE, OTHERS)]
    judged += [one for one in (NONE, OTHERS) if one in set(rows["judged"])]
    targets = list(dict.fromkeys(rows["target"]))
    cells = {(row["target"], row["judged"]): row for row in rows.to_dict("records")}
    said = [[f"{cells[t, j]['value']:+.2f} [{cells[t, j]['low']:+.2f}, {cells[t, j]['high']:+.2f}]" for j in judged]
            for t in targets]  # fmt: skip
    fig = figure(f"Steered to the row, called the column by {name}, less plain", "called", "steered to")
    fig.add_heatmap(
        z=[[cells[t, j]["value"] for j in judged] for t in targets], x=judged, y=targets, zmin=-1, zmax=1,
        colorscale=_DIVERGING, texttemplate="%{z:+.2f}", customdata=said, hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    fig.update_layout(hovermode="closest")
    fig.update_yaxes(autorange="reversed")
    return fig


def frontier(report: "SteeringReport", judge: str | None = None) -> go.Figure:
    """What a share costs: perplexity of the replies against the target share, a line an emotion, a point a dose.

    Args:
        report: of an evaluation.
        judge: whose; the first by default.
    """
    name = judge_of(report, judge)
    rows = report.doses[(report.doses["condition"] == "steer") & (report.doses["method"] == report.method)]
    rows = rows[(rows["dose"] > 0)].drop_duplicates(["emotion", "dose", "judge", "quantity"])
    fig = figure(f"Share called the target by {name} against perplexity", "perplexity of replies, times plain",
                 "share of replies")  # fmt: skip
    for emotion, colour in zip(report.emotions, _EIGHT, strict=False):
        mine = rows[rows["emotion"] == emotion].set_index("dose")
        cost = mine.loc[mine["quantity"] == "reply ppl ratio", "value"]
        gain = mine[(mine["quantity"] == "share") & (mine["judge"] == name)]
        both = gain.join(cost.rename("cost"), how="inner").sort_index()
        if both.empty:
            continue
        said = [f"dose {dose:.2f}: {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
                for dose, row in both.iterrows()]  # fmt: skip
        size = [12 if dose == report.safe[emotion] else 6 for dose in both.index]
        fig.add_scatter(x=both["cost"].tolist(), y=both["value"].tolist(), name=emotion, mode="lines+markers",
                        customdata=said, hovertemplate="%{customdata}", line={"color": colour, "width": 1.5},
                        marker={"color": colour, "size": size})  # fmt: skip
    fig.add_vline(x=HIGHEST, line={"color": GREY, "width": 1, "dash": "dash"})
    fig.update_layout(hovermode="closest")
    fig.update_xaxes(type="log")
    return fig


def judge_of(report: "SteeringReport", judge: str | None) -> str:
    """The judge that was asked for, or the first.

    Args:
        report: of an evaluation.
        judge: its name, or None.

    Raises:
        SteerError: if there is no such judge.
    """
    names = list(report.facts["judges"])
    if judge is not None and judge not in names:
        raise SteerError(f"There is no judge {judge!r}; there are {', '.join(names)}.")
    return judge or str(names[0])
