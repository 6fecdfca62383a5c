"""The figures: moods, doses and replies by turn, and tracking by lag. Bands are pointwise 95% over scripts."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure
from affectlens.steering.dynamics.policies import CLOSED, EQUAL, OPEN, PLAIN, SHUFFLED
from affectlens.steering.dynamics.state import AXES

if TYPE_CHECKING:
    from affectlens.steering.dynamics.result import DynamicsReport

COLOURS = {CLOSED: BLUE, PLAIN: GREY, OPEN: ORANGE, EQUAL: GREEN, SHUFFLED: PURPLE}
_SHADE = "rgba(128,128,128,.13)"


def replies_by_turn(report: "DynamicsReport", protocol: str, rule: str, *, window: int = 3) -> go.Figure:
    """What the instrument reads in the replies, under each policy, as a moving mean; pushed turns are shaded.

    Args:
        report: of a study.
        protocol: push or ramp.
        rule: in words.
        window: turns of the moving mean.
    """
    rows = report.turns[report.turns["protocol"] == protocol]
    fig = figure(f"Replies on the {protocol}, {rule}: {report.facts.get('instrument', 'the instrument')}", "turn",
                 "valence of replies")  # fmt: skip
    for policy, colour in COLOURS.items():
        mine = rows[(rows["policy"] == policy) & ((rows["rule"] == rule) | (policy == PLAIN))]
        if not mine.empty:
            _curve(fig, smoothed(_grid(mine, "measured"), window), policy, colour)
    return _shaded(fig, rows)


def moods_by_turn(report: "DynamicsReport", protocol: str, rule: str) -> go.Figure:
    """The closed loop's mood by turn.

    Args:
        report: of a study.
        protocol: push or ramp.
        rule: in words.
    """
    rows = report.turns[(report.turns["protocol"] == protocol) & (report.turns["rule"] == rule)]
    fig = figure(f"The mood on the {protocol}, {rule}", "turn", "state")
    for axis, colour in zip(AXES, (BLUE, ORANGE, GREEN), strict=True):
        _curve(fig, _grid(rows[rows["policy"] == CLOSED], axis), axis, colour)
    return _shaded(fig, rows)


def doses_by_turn(report: "DynamicsReport", protocol: str, rule: str) -> go.Figure:
    """The sum of doses by turn, under each policy that steers.

    Args:
        report: of a study.
        protocol: push or ramp.
        rule: in words.
    """
    rows = report.turns[(report.turns["protocol"] == protocol) & (report.turns["rule"] == rule)]
    doses = [column for column in rows if str(column).startswith("dose.")]
    rows = rows.assign(total=rows[doses].sum(axis=1))
    fig = figure(f"Doses on the {protocol}, {rule}", "turn", "sum of doses (1.0 is safe)")
    for policy, colour in COLOURS.items():
        mine = rows[rows["policy"] == policy]
        if not mine.empty:
            _curve(fig, _grid(mine, "total"), policy, colour)
    return _shaded(fig, rows)


def tracking_by_lag(report: "DynamicsReport", rule: str) -> go.Figure:
    """The correlation of replies with the mood so many turns before, under each policy.

    Args:
        report: of a study.
        rule: in words.
    """
    fig = figure(f"Replies behind the mood, {rule}", "lag in turns", "correlation over turns")
    for policy, colour in COLOURS.items():
        mine = report.lags[(report.lags["rule"] == rule) & (report.lags["policy"] == policy)].sort_values("lag")
        if not mine.empty:
            lag, low, value, high = (mine[name].astype(float).tolist() for name in ("lag", "low", "value", "high"))
            band(fig, lag, low, value, high, policy, colour)
    return fig


def of_conversation(turns: pd.DataFrame) -> go.Figure:
    """One live conversation: mood, doses and what was heard by turn; hover for what was said.

    Args:
        turns: of :class:`affectlens.steering.dynamics.Conversation`.
    """
    fig = figure("A conversation and its mood", "turn", "from -1 to 1; doses from 0")
    turn = [int(t) + 1 for t in turns["turn"]]
    said = [f"{user}<br>{reply}" for user, reply in zip(turns["user"], turns["reply"], strict=True)]
    for axis, colour in zip(AXES, (BLUE, ORANGE, GREEN), strict=True):
        fig.add_scatter(x=turn, y=turns[axis].tolist(), name=axis, mode="lines+markers", line={"color": colour},
                        customdata=said, hovertemplate="%{y:.2f}<br>%{customdata}")  # fmt: skip
    for name in [column for column in turns if str(column).startswith("dose.")]:
        if turns[name].abs().sum():
            fig.add_bar(x=turn, y=turns[name].tolist(), name=str(name).removeprefix("dose."), opacity=0.4)
    fig.update_layout(hovermode="closest", barmode="stack")
    return fig


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """A centred moving mean over turns, shorter at the ends.

    Args:
        values: ``[script, turn]``.
        window: turns.
    """
    n, half = values.shape[1], window // 2
    return np.stack([values[:, max(0, k - half) : k + half + 1].mean(1) for k in range(n)], axis=1)


def _grid(rows: pd.DataFrame, column: str) -> np.ndarray:
    return rows.pivot_table(index="script", columns="turn", values=column).to_numpy(dtype=float)


def _curve(fig: go.Figure, values: np.ndarray, name: str, colour: str) -> None:
    n, mean = len(values), values.mean(0)
    half = stats.t.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(len(mean))
    turn = [float(t) for t in range(1, values.shape[1] + 1)]
    band(fig, turn, (mean - half).tolist(), mean.tolist(), (mean + half).tolist(), name, colour)


def _shaded(fig: go.Figure, rows: pd.DataFrame) -> go.Figure:
    pushed = rows.loc[rows["level"] > 0, "turn"]
    fig.add_vrect(
        x0=float(pushed.min()) + 0.5, x1=float(pushed.max()) + 1.5, fillcolor=_SHADE, line_width=0, layer="below"
    )
    return fig
