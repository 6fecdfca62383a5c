"""The figures of a sweep. Intervals are pointwise 95% intervals; p values are adjusted over all cells of a metric."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from affectlens.errors import PatchError
from affectlens.patching.effects import CELL, LEVEL, MATCHED, NOTHING, usable
from affectlens.patching.pairs import SEGMENTS
from affectlens.patching.words import CONTROLS, chosen, p_value, place, spoken
from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure, level

if TYPE_CHECKING:
    from affectlens.patching.results import PatchSweep

_COLOURS = {"random": ORANGE, "neutral": PURPLE, "wrong_position": GREY, "same_emotion": GREEN, "random_change": ORANGE}
_DIVERGING = [[0, ORANGE], [0.5, "#f4f4f2"], [1, BLUE]]


def layer_by_segment(
    sweep: "PatchSweep", *, metric: str | None = None, kind: str | None = None, source: str = MATCHED
) -> go.Figure:
    """Effects of whole sites by layer and segment; hover for intervals, adjusted p and controls.

    Args:
        sweep: what was patched.
        metric: its name; the first by default.
        kind: of site; the first that was patched as a whole by default.
        source: ``matched``, or a control.

    Raises:
        PatchError: if there is no such effect.
    """
    cells = _cells(sweep, metric, source, kind=kind, index=-1)
    segments = _ordered(cells["segment"].unique())
    layers = [int(layer) for layer in sorted(cells["layer"].unique())]
    fig = figure(f"{_title(sweep, cells)} by layer and segment", "patched at", f"layer of {cells['kind'].iloc[0]}")
    _heat(fig, sweep, cells, "segment", segments, layers)
    return fig


def layer_by_head(
    sweep: "PatchSweep", *, metric: str | None = None, kind: str | None = None, segment: str | None = None
) -> go.Figure:
    """Effects of single heads by layer; those that survive max-T are outlined, dotted if controls do as much.

    Args:
        sweep: what was patched.
        metric: its name; the first by default.
        kind: ``z``, ``q``, ``k``, ``v`` or ``pattern``; the first that was patched head by head by default.
        segment: where; ``all`` by default, or the first.

    Raises:
        PatchError: if no head was patched by itself there.
    """
    cells = _cells(sweep, metric, MATCHED, kind=kind)
    cells = cells[(cells["index"] >= 0) & (cells["kind"] != "neurons")]
    if cells.empty:
        raise PatchError("No head was patched by itself: patch heads, or q.each, k.each, v.each, pattern.each.")
    kinds, there = cells["kind"].unique(), _ordered(cells["segment"].unique())
    at = segment or ("all" if "all" in there else there[0])
    cells = chosen(cells, kind=kind or kinds[0], segment=at)
    heads, layers = (list(range(int(cells[name].max()) + 1)) for name in ("index", "layer"))
    fig = figure(f"{_title(sweep, cells)} by head at {at}; outlined: p < 0.05, max-T", "head",
                 f"layer of {cells['kind'].iloc[0]}")  # fmt: skip
    _heat(fig, sweep, cells, "index", heads, layers)
    fig.update_xaxes(tick0=0, dtick=1 + len(heads) // 16)
    specific = sweep.beside(metric=cells["metric"].iloc[0], control=NOTHING)[[*CELL, "specific"]]
    for row in cells[cells["p_adjusted"] <= LEVEL].merge(specific, on=CELL).to_dict("records"):
        fig.add_shape(
            type="rect", x0=row["index"] - 0.5, x1=row["index"] + 0.5, y0=row["layer"] - 0.5, y1=row["layer"] + 0.5,
            line={"color": "#22262b", "width": 2, "dash": "solid" if row["specific"] else "dot"},
        )  # fmt: skip
    return fig


def by_depth(
    sweep: "PatchSweep", *, metric: str | None = None, kind: str | None = None, segment: str | None = None,
    index: int = -1,
) -> go.Figure:  # fmt: skip
    """Effect against depth with its pointwise interval, and every control as a line with its own.

    Args:
        sweep: what was patched.
        metric: its name; the first by default.
        kind: of site; the first by default.
        segment: where; ``last`` by default, or the first.
        index: a head or neuron; -1 is the whole site.

    Raises:
        PatchError: if there is no such effect.
    """
    first = _cells(sweep, metric, MATCHED, kind=kind, index=index)
    there = _ordered(first["segment"].unique())
    at = segment or ("last" if "last" in there else there[0])
    title = f"{_title(sweep, first)} at {at}, by depth, pointwise 95% intervals"
    fig = figure(title, f"layer of {first['kind'].iloc[0]}", _scale(sweep, first))
    layers: list[float] = []
    for source in sweep.effects(metric=first["metric"].iloc[0])["source"].unique():
        cells = _cells(sweep, metric, source, kind=str(first["kind"].iloc[0]), index=index)
        curve = cells[(cells["segment"] == at) & (cells["normalised"] == first["normalised"].iloc[0])].sort_values(
            "layer"
        )
        x, low, value, high = (curve[name].astype(float).tolist() for name in ("layer", "low", "value", "high"))
        layers = layers or x
        own = source == MATCHED
        name = "the pair's other text" if own else CONTROLS.get(str(source), str(source))
        band(
            fig, x, low, value, high, name, BLUE if own else _COLOURS.get(source, GREY), dash="solid" if own else "dash"
        )
    if not layers:
        raise PatchError(f"Nothing was patched at {at!r}; there is {', '.join(there)}.")
    fig.update_xaxes(tick0=0, dtick=1 + len(layers) // 12)
    level(fig, layers, 0.0, "nothing", GREY)
    if first["normalised"].iloc[0]:
        level(fig, layers, 1.0, "the whole gap", GREY, dash="longdash")
    return fig


def layer_by_token(
    sweep: "PatchSweep", pair: str, *, metric: str | None = None, kind: str | None = None, index: int = -1,
    source: str = MATCHED,
) -> go.Figure:  # fmt: skip
    """One pair's effects, each token patched by itself: a description of one text, without an interval.

    Args:
        sweep: what was patched.
        pair: its name.
        metric: its name; the first by default.
        kind: of site; the first by default.
        index: a head or neuron; -1 is the whole site.
        source: ``matched``, or a control.

    Raises:
        PatchError: if there is no such pair, or its tokens were not patched one by one.
    """
    rows = chosen(sweep.table, pair=pair, metric=metric or sweep.metrics[0], source=source, kind=kind, index=index)
    rows = rows[(rows["position"] >= 0) & (rows["kind"] == rows["kind"].iloc[0])]
    if rows.empty:
        raise PatchError(f"The tokens of {pair} were not patched one by one: patch at position each.")
    denoise, gap = sweep.meta["direction"] == "denoise", float((rows["clean"] - rows["corrupt"]).iloc[0])
    changes = rows["value"] - rows["corrupt"] if denoise else rows["clean"] - rows["value"]
    told = pair in usable(chosen(sweep.table, metric=rows["metric"].iloc[0]))[0].index
    z = rows.assign(z=changes / gap if told else changes).pivot_table(index="layer", columns="position", values="z")
    tokens = list(chosen(sweep.pairs, pair=pair)["tokens"].iloc[0])
    scale = f"share of its gap ({gap:+.3g} {sweep.unit(rows['metric'].iloc[0])})" if told else "change, in its unit"
    fig = figure(f"{pair}: {rows['metric'].iloc[0]}, {scale}", "token of the text that was run",
                 f"layer of {rows['kind'].iloc[0]}")  # fmt: skip
    x = [int(at) for at in z.columns]
    said = [[f"{tokens[at]!r} ({at})<br>layer {layer}: {z.at[layer, at]:+.2f}" for at in x] for layer in z.index]
    _map(fig, z.to_numpy(), x, [int(one) for one in z.index], said, told)
    fig.update_xaxes(tickmode="array", tickvals=x, ticktext=[tokens[at].strip() or "␣" for at in x], tickangle=-60)
    return fig


def _cells(
    sweep: "PatchSweep", metric: str | None, source: str, *, kind: str | None, index: int | None = None
) -> pd.DataFrame:  # fmt: skip
    """Cells of one metric and source: whole segments where there are such, else means over their tokens."""
    cells = chosen(sweep.effects(metric=metric or sweep.metrics[0], source=source), kind=kind, index=index)
    cells = cells[cells["extent"] == ("segment" if (cells["extent"] == "segment").any() else "token")]
    first = next(one for one in sweep.table["kind"] if one in set(cells["kind"]))
    return chosen(cells, kind=first) if index is not None else cells.reset_index(drop=True)


def _heat(
    fig: go.Figure, sweep: "PatchSweep", cells: pd.DataFrame, column: str, xs: Sequence[int | str], layers: list[int]
) -> None:  # fmt: skip
    """A map of effects; a cell that can't be divided by its gap where others can is left blank."""
    divided = bool(cells["normalised"].any())
    shown = cells.assign(z=cells["value"].where(cells["normalised"] == divided))
    said = _said(sweep, cells)
    z, hover = np.full((len(layers), len(xs)), np.nan), [["not patched"] * len(xs) for _ in layers]
    for number, (x, layer, value) in enumerate(shown[[column, "layer", "z"]].itertuples(index=False)):
        row, at = layers.index(layer), list(xs).index(x)
        z[row, at], hover[row][at] = value, said[number]
    _map(fig, z, xs, layers, hover, divided)


def _map(
    fig: go.Figure, z: np.ndarray, x: Sequence[int | str], y: list[int], said: list[list[str]], divided: bool
) -> None:  # fmt: skip
    """A heat map whose colours are even around zero; a share of the gap has at least the whole gap in its scale."""
    most = max(float(np.nanmax(np.abs(z), initial=0.0)), 1.0 if divided else 1e-12)
    fig.add_heatmap(z=z.tolist(), x=list(x), y=y, zmin=-most, zmax=most, zmid=0, colorscale=_DIVERGING, customdata=said,
                    hovertemplate="%{customdata}<extra></extra>", hoverongaps=True)  # fmt: skip
    fig.update_layout(hovermode="closest")
    fig.update_yaxes(tick0=0, dtick=1 + len(y) // 12)


def _said(sweep: "PatchSweep", cells: pd.DataFrame) -> list[str]:
    """What hovering over each cell says."""
    every = sweep.effects(metric=cells["metric"].iloc[0])
    rows = {(row["source"], *(row[name] for name in CELL)): row for row in every.to_dict("records")}
    sources, out = every["source"].unique(), []
    for row in cells.to_dict("records"):
        lines = [f"{place(row)}: {spoken(row)}".replace("`", "")]
        if row["source"] == MATCHED:
            lines.append(f"adjusted {p_value(row['p_adjusted'])}, {row['n']} groups")
        for source in sources:
            other = rows.get((source, *(row[name] for name in CELL)))
            if other and source != row["source"]:
                lines.append(f"{CONTROLS.get(source, source)}: {spoken(other)}")
        out.append("<br>".join(lines))
    return out


def _title(sweep: "PatchSweep", cells: pd.DataFrame) -> str:
    source = str(cells["source"].iloc[0])
    by = "" if source == MATCHED else f", from {CONTROLS.get(source, source)}"
    return f"{cells['metric'].iloc[0]}: {_scale(sweep, cells)}{by},"


def _scale(sweep: "PatchSweep", cells: pd.DataFrame) -> str:
    """What the numbers are."""
    if not cells["normalised"].any():
        return f"mean change in {sweep.unit(str(cells['metric'].iloc[0]))}"
    return f"share of the gap {'restored' if sweep.meta['direction'] == 'denoise' else 'removed'}"


def _ordered(segments: Iterable[str]) -> list[str]:
    """In the order of the text."""
    found = list(segments)
    return [one for one in SEGMENTS if one in found] + [one for one in found if one not in SEGMENTS]
