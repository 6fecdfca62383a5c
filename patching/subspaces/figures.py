"""The figures of subspaces."""

import plotly.graph_objects as go

from affectlens.patching.subspaces.erasure import Erasure
from affectlens.patching.subspaces.judging import FOUND, MEAN, NATURAL, RANDOM, SITE, TURNED
from affectlens.patching.subspaces.outcomes import SubspaceSearch
from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure, level

_NAMES = ((FOUND, "search", BLUE, "solid"), (NATURAL, "its natural part", GREEN, "dash"),
          (TURNED, "search with random signs", ORANGE, "dot"), (RANDOM, "random", GREY, "dot"))  # fmt: skip


def dimension_curve(found: SubspaceSearch) -> go.Figure:
    """Effect by dimensions on held-out pairs, with intervals; the whole site and the mean difference as levels."""
    meta = found.meta
    fig = figure(
        f"interchange at layer {meta['layer']}, {meta['segment']}", "dimensions",
        "share of the gap" if found.normalised else meta["unit"],
    )  # fmt: skip
    x = sorted(float(k) for k in meta["sizes"])
    for method, name, colour, dash in _NAMES:
        if (found.rows["method"] == method).any():
            every = [found.effect(method, int(k)) for k in x]
            low, value, high = ([getattr(one, side) for one in every] for side in ("low", "value", "high"))
            band(fig, x, low, value, high, name, colour, dash=dash)
    for method, name, colour in ((SITE, "all dimensions", PURPLE), (MEAN, "mean difference, 1 dimension", ORANGE)):
        one = found.effect(method)
        level(fig, x, one.value, f"{name} {one}", colour)
    fig.update_xaxes(type="log", tickvals=x, ticktext=[f"{k:g}" for k in x])
    return fig


def read_after(found: Erasure, reader: str) -> go.Figure:
    """What is still read by layer after LEACE, after random projections, and before either."""
    fig = figure(f"{found.meta['target']} after erasure, {reader} reader", "layer", found.meta["measure"])
    x = [float(layer) for layer in found.meta["layers"]]
    for method, name, colour, dash in (("none", "nothing erased", BLUE, "solid"), ("leace", "LEACE", ORANGE, "solid"),
                                       ("random", "random subspaces", GREY, "dot")):  # fmt: skip
        every = [found.estimate(reader, method, int(layer)) for layer in x]
        low, value, high = ([getattr(one, side) for one in every] for side in ("low", "value", "high"))
        band(fig, x, low, value, high, name, colour, dash=dash)
    level(fig, x, found.meta["chance"], "chance", GREY, dash="longdash")
    return fig
