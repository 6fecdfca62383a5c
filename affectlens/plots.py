"""Plotly figures in one style: transparent ground, colours told apart by the colour-blind, legible on a phone."""

from collections.abc import Sequence

import plotly.graph_objects as go

BLUE, ORANGE, GREEN, PURPLE, GREY = "#3b7dd8", "#d9791c", "#2a9d74", "#9b5fc0", "#8a8f98"


def figure(title: str, x: str, y: str) -> go.Figure:
    """An empty figure with our layout. Text colours are left to the page, which may be light or dark."""
    fig = go.Figure()
    fig.update_layout(
        title={"text": title, "font": {"size": 15}, "x": 0, "xref": "paper"},
        xaxis={"title": x, "gridcolor": "rgba(128,128,128,.18)", "zeroline": False},
        yaxis={"title": y, "gridcolor": "rgba(128,128,128,.18)", "zeroline": False},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", hovermode="x unified",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#767b84"},
        legend={"orientation": "h", "y": -0.22, "x": 0}, margin={"l": 55, "r": 15, "t": 45, "b": 60}, height=430,
    )  # fmt: skip
    return fig


def band(
    fig: go.Figure, x: Sequence[float], low: Sequence[float], value: Sequence[float], high: Sequence[float],
    name: str, colour: str, *, dash: str = "solid",
) -> None:  # fmt: skip
    """A curve with its interval as a band."""
    around = [*x, *list(x)[::-1]], [*high, *list(low)[::-1]]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    fig.add_scatter(x=around[0], y=around[1], fill="toself", fillcolor=f"rgba({red},{green},{blue},.15)", mode="lines",
                    line={"width": 0}, hoverinfo="skip", showlegend=False, legendgroup=name)  # fmt: skip
    said = [f"{v:.2f} [{lo:.2f}, {hi:.2f}]" for v, lo, hi in zip(value, low, high, strict=True)]
    fig.add_scatter(x=list(x), y=list(value), name=name, mode="lines", legendgroup=name, customdata=said,
                    line={"color": colour, "width": 2.5, "dash": dash}, hovertemplate="%{customdata}")  # fmt: skip


def level(fig: go.Figure, x: Sequence[float], value: float, name: str, colour: str, dash: str = "dot") -> None:
    """A horizontal line with a place in the legend."""
    fig.add_scatter(x=[min(x), max(x)], y=[value, value], name=name, mode="lines",
                    line={"color": colour, "width": 1.8, "dash": dash}, hovertemplate=f"{value:.2f}")  # fmt: skip
