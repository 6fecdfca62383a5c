"""The figures of a geometry report."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster.hierarchy import dendrogram as drawn

from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure, level
from affectlens.probing.geometry.report import GeometryReport

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#c2455e", "#6b7a2f")
_DIVERGING = "RdBu"


def heat_maps(report: GeometryReport) -> go.Figure:
    """Centred cosines between emotions at the report's layer, and, by the buttons, at any other."""
    table, names = report.tables["cosines"], report.meta["emotions"]
    fig = figure(f"centred cosines, layer {report.layer}: as they are, and without the valence axis", "", "")
    kinds = list(dict.fromkeys(table["valence"]))
    layers = list(dict.fromkeys(table["layer"]))
    for k, kind in enumerate(kinds):
        for layer in layers:
            rows = table[(table["valence"] == kind) & (table["layer"] == layer)]
            z, text = _square(rows, names)
            fig.add_heatmap(
                z=z, x=names, y=names, xaxis=f"x{k + 1}" if k else "x", yaxis=f"y{k + 1}" if k else "y", text=text,
                zmin=-1, zmax=1, colorscale=_DIVERGING, reversescale=True, showscale=k == 0,
                visible=layer == report.layer,
                hovertemplate="%{y}, %{x}: %{text}<extra></extra>", colorbar={"title": "cosine", "len": 0.8},
            )  # fmt: skip
    fig.update_layout(
        xaxis={"domain": [0, 0.47], "tickangle": -45}, yaxis={"autorange": "reversed"}, hovermode="closest",
        xaxis2={"domain": [0.53, 1], "tickangle": -45}, margin={"b": 100, "l": 90},
        yaxis2={"anchor": "x2", "autorange": "reversed", "showticklabels": False},
        sliders=[{"active": layers.index(report.layer), "currentvalue": {"prefix": "layer "}, "pad": {"t": 60},
                  "steps": [
            {"label": str(layer), "method": "update", "args": [
                {"visible": [one == layer for _ in kinds for one in layers]},
                {"title.text": f"centred cosines, layer {layer}: as they are, and without the valence axis"}]}
            for layer in layers]}], height=520,
    )  # fmt: skip
    return fig


def rsa_curves(report: GeometryReport, of: str) -> go.Figure:
    """Agreement with each model by layer, pointwise 95% intervals; the strongest floor as a line."""
    table = report.tables["rsa"]
    fig = figure(f"{of}: agreement with model distances, by layer", f"layer of {report.meta['site']}", "Spearman")
    rows = table[(table["set"] == of) & (table["kind"] == "model")]
    x: list[float] = []
    for name, colour in zip(dict.fromkeys(rows["model"]), _COLOURS, strict=False):
        one = rows[rows["model"] == name]
        x = one["layer"].astype(float).tolist()
        low, value, high = (one[c].astype(float).tolist() for c in ("low", "value", "high"))
        band(fig, x, low, value, high, str(name), colour)
    floors = table[(table["set"] == of) & (table["kind"] == "floor")]
    best = floors.iloc[int(floors["value"].to_numpy().argmax())]
    level(fig, x, float(best["value"]), f"strongest floor ({best['model']})", GREY)
    fig.add_vline(x=report.layer, line={"color": GREY, "width": 1, "dash": "dot"})
    return fig


def circle(report: GeometryReport, of: str) -> go.Figure:
    """The names at the report's layer, turned to people's valence and arousal; arrows lead to where people put them."""
    table = report.tables["coordinates"]
    rows = table[(table["set"] == of) & (table["kind"] == "model") & (table["layer"] == report.layer)]
    fig = figure(f"{of}, layer {report.layer}: first two components, turned to people's ratings", "valence", "arousal")
    lines = np.stack([rows[["x", "valence"]].to_numpy(), rows[["y", "arousal"]].to_numpy()])
    gap = np.full((len(rows), 1), np.nan)
    fig.add_scatter(x=np.concatenate([lines[0], gap], 1).ravel(), y=np.concatenate([lines[1], gap], 1).ravel(),
                    mode="lines", line={"color": GREY, "width": 0.7}, opacity=0.5, name="to people's rating",
                    hoverinfo="skip")  # fmt: skip
    fig.add_scatter(x=rows["valence"], y=rows["arousal"], mode="markers", name="people (norms)", text=rows["name"],
                    marker={"color": ORANGE, "size": 6, "symbol": "diamond-open"},
                    hovertemplate="%{text}, people<extra></extra>")  # fmt: skip
    fig.add_scatter(x=rows["x"], y=rows["y"], mode="markers+text", name="model", text=rows["name"],
                    textposition="top center", textfont={"size": 9 if len(rows) > 20 else 12},
                    marker={"color": BLUE, "size": 7}, hovertemplate="%{text}, model<extra></extra>")  # fmt: skip
    fig.update_layout(hovermode="closest", height=620)
    fig.update_yaxes(scaleanchor="x")
    return fig


def cka_map(report: GeometryReport, rows: str) -> go.Figure:
    """Debiased CKA of all pairs of layers; the other model's if there is one."""
    table = report.tables["cka"]
    table = table[table["rows"] == rows]
    one = table[table["models"] == table["models"].iloc[-1]]
    names = (report.meta["model"], report.meta["against"] or report.meta["model"])
    z = one.pivot(index="a", columns="b", values="value")
    said = one.assign(said=[f"{v:.2f} [{lo:.2f}, {hi:.2f}], chance {c:.2f}" for v, lo, hi, c in
                            zip(one["value"], one["low"], one["high"], one["null"], strict=True)])  # fmt: skip
    fig = figure(f"debiased linear CKA over {rows}", f"layer of {names[-1]}", f"layer of {names[0]}")
    fig.add_heatmap(z=z.to_numpy(), x=list(z.columns), y=list(z.index), zmin=min(0.0, float(z.min().min())), zmax=1,
                    colorscale="Viridis", text=said.pivot(index="a", columns="b", values="said").to_numpy(),
                    hovertemplate="%{y} with %{x}: %{text}<extra></extra>", colorbar={"title": "CKA"})  # fmt: skip
    fig.update_layout(hovermode="closest")
    return fig


def dendrogram(report: GeometryReport, of: str) -> go.Figure:
    """Average linkage on 1 minus the centred cosine, at the report's layer."""
    table = report.tables["linkage"]
    rows = table[table["set"] == of]
    names = rows["names"].iloc[0].split("|")
    plan = drawn(rows[["left", "right", "height", "size"]].to_numpy(dtype=float), labels=names, no_plot=True)
    many = len(names) > 20
    fig = figure(f"{of} clustered, layer {report.layer}", "1 - centred cosine", "")
    for ys, xs in zip(plan["icoord"], plan["dcoord"], strict=True):
        fig.add_scatter(
            x=xs, y=ys, mode="lines", line={"color": BLUE, "width": 1.3}, showlegend=False, hoverinfo="skip"
        )
    fig.update_yaxes(tickvals=[5 + 10 * k for k in range(len(names))], ticktext=plan["ivl"],
                     tickfont={"size": 9 if many else 13}, showgrid=False)  # fmt: skip
    fig.update_xaxes(range=[0, 1.03 * float(rows["height"].max())])
    fig.update_layout(height=14 * len(names) + 120 if many else 430, margin={"l": 110}, hovermode="closest")
    return fig


def _square(rows: pd.DataFrame, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    place = {name: k for k, name in enumerate(names)}
    z = np.eye(len(names))
    text = np.full(z.shape, "1", dtype=object)
    for a, b, value, low, high in rows[["a", "b", "value", "low", "high"]].itertuples(index=False):
        i, j = place[a], place[b]
        z[i, j] = z[j, i] = value
        text[i, j] = text[j, i] = f"{value:.2f} [{low:.2f}, {high:.2f}]"
    return z, text
