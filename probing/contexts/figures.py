"""The figures of the studies of new contexts."""

import plotly.graph_objects as go

from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure, level
from affectlens.probing.contexts.results import ALL, NONE, Formats, Malleability, Persistence

_COLOURS = (GREEN, ORANGE, PURPLE)


def fading_curve(found: Persistence) -> go.Figure:
    """The difference by token: its simultaneous band, each continuation, and what random directions reach."""
    meta, whole = found.meta, found.of()
    x = whole["token"].astype(float).tolist()
    fig = figure(
        f"{meta['target']} after the passage has ended, layer {meta['layer']}",
        "token after the passage",
        "emotional less neutral (sd)",
    )
    names = [name for name in found.curve["continuation"].unique() if name != ALL]
    for i, name in enumerate(names if len(names) > 1 else []):
        fig.add_scatter(x=x, y=found.of(name)["value"].tolist(), name=f"continuation {name}", mode="lines",
                        line={"color": _COLOURS[i % 3], "width": 1.2, "dash": "dot"}, hoverinfo="skip")  # fmt: skip
    low, value, high = (whole[c].tolist() for c in ("band_low", "value", "band_high"))
    band(fig, x, low, value, high, "difference, simultaneous 95% band", BLUE)
    for sign in (1, -1):
        fig.add_scatter(x=x, y=(sign * whole["random_limit"]).tolist(), mode="lines", hoverinfo="skip",
                        name="95% of random directions, all tokens", showlegend=sign > 0, legendgroup="random",
                        line={"color": GREY, "width": 1.2, "dash": "dash"})  # fmt: skip
    level(fig, x, found.passage.value, f"on the passages {found.passage}", GREY)
    level(fig, x, 0.0, "none", GREY, dash="longdash")
    return fig


def prompt_shifts(found: Malleability) -> go.Figure:
    """Each prompt's shift of all scores, and its change of emotional less neutral, against no prompt."""
    fig = figure(
        f"system prompts, layer {found.meta['layer']}",
        "against no system prompt (sd of neutral texts)",
        "",
    )
    for measure, name, colour, symbol in (
        ("shift", "shift of all scores", BLUE, "circle"),
        ("contrast", "change of emotional less neutral", ORANGE, "diamond"),
    ):
        rows = found.rows(measure, NONE)
        cells = [found.estimate(measure, prompt) for prompt in rows["prompt"]]
        fig.add_scatter(
            x=[one.value for one in cells], y=rows["prompt"].tolist(), name=name, mode="markers",
            customdata=[str(one) for one in cells], hovertemplate="%{customdata}",
            marker={"color": colour, "size": 9, "symbol": symbol},
            error_x={"type": "data", "array": [one.high - one.value for one in cells],
                     "arrayminus": [one.value - one.low for one in cells], "color": colour},
        )  # fmt: skip
    fig.add_vline(x=0, line={"color": GREY, "width": 1, "dash": "dash"})
    fig.update_layout(hovermode="closest")
    fig.update_yaxes(autorange="reversed")
    return fig


def transfer_map(found: Formats) -> go.Figure:
    """AUROC by the format of the fit and the format that is read; intervals in the cells and on hover."""
    value, low, high = (found.matrix(column).to_numpy() for column in ("auroc", "low", "high"))
    names = list(found.names)
    cells = [[f"{v:.2f}<br>[{a:.2f}, {b:.2f}]" for v, a, b in zip(*row, strict=True)]
             for row in zip(value, low, high, strict=True)]  # fmt: skip
    fig = figure(f"AUROC of affect by format, layer {found.meta['layer']}", "read in", "fitted in")
    fig.add_heatmap(
        z=value.tolist(), x=names, y=names, zmin=0.5, zmax=1.0, colorscale="Blues", text=cells, texttemplate="%{text}",
        textfont={"size": 10}, hovertemplate="fitted in %{y}, read in %{x}: %{text}<extra></extra>",
        colorbar={"title": "AUROC"},
    )  # fmt: skip
    fig.update_layout(hovermode="closest", height=120 + 60 * len(names))
    fig.update_yaxes(autorange="reversed")
    return fig
