"""Figures of a set of directions."""

import numpy as np
import plotly.graph_objects as go

from affectlens.plots import BLUE, ORANGE, band, figure, level
from affectlens.sites import Site
from affectlens.steering.directions import Directions
from affectlens.steering.extracting.overlap import cosines
from affectlens.steering.extracting.placebo import at_site

_COLOURS = ("#3b7dd8", "#d9791c", "#2a9d74", "#9b5fc0", "#8a8f98", "#c0455e", "#1f9ec4", "#a08417")


def cosine_heat(directions: Directions, *, site: str | Site | None = None, without_valence: bool = False) -> go.Figure:
    """Cosines between a site's directions.

    Args:
        directions: the set.
        site: one of its sites, which must be named where there are several.
        without_valence: after removing the axis from the unpleasant emotions to the pleasant ones.

    Raises:
        SteerError: no such site, or several and none named.
    """
    mine = at_site(directions, site)
    names = [d.emotion for d in mine]
    found = cosines(directions, site=mine[0].site)
    value = found["without_valence" if without_valence else "cosine"].to_numpy()
    z = np.eye(len(names))
    z[np.triu_indices(len(names), 1)] = value
    z = np.triu(z) + np.triu(z, 1).T
    said = ", without the shared valence axis" if without_valence else ""
    fig = figure(f"cosines between directions at {mine[0].site}{said}", "", "")
    fig.add_heatmap(
        z=z.tolist(), x=names, y=names, zmin=-1, zmax=1, texttemplate="%{z:.2f}",
        colorscale=[[0, ORANGE], [0.5, "#f4f4f2"], [1, BLUE]], hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    fig.update_layout(hovermode="closest")
    fig.update_yaxes(autorange="reversed")
    return fig


def score_curve(directions: Directions, *, score: str = "auroc") -> go.Figure:
    """Held-out AUROC by layer, a curve an emotion with its interval.

    Args:
        directions: a set of one kind of site at several layers, from ``extract``.
        score: ``auroc``, ``auroc_neutral``, ``auroc_topic`` or ``auroc_paired``.
    """
    fig = figure(f"held-out {score} of the projection", f"layer of {directions.all[0].at.what}", "AUROC")
    layers: list[float] = []
    for name, colour in zip(directions.emotions, _COLOURS * len(directions.emotions), strict=False):
        mine = sorted((d for d in directions[name] if d.facts.get(score)), key=lambda d: d.at.layer)
        if not mine:
            continue
        layers = [float(d.at.layer) for d in mine]
        low, value, high = ([d.facts[score][key] for d in mine] for key in ("low", "value", "high"))
        band(fig, layers, low, value, high, name, colour)
    if layers:
        level(fig, layers, 0.5, "chance", "#8a8f98", dash="longdash")
    return fig
