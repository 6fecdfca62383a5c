"""Predict, intervene, compare: each edge's score on discovery scenes against its exact patch on held-out ones.

Half of the edges are the first by score, half are drawn from all others and stand for them. The exact effect is the
drop of the metric when this edge alone carries the counterfactual, everything downstream computed anew. Predictions are
fixed; scenes of the exact effects are resampled. So a disagreement is the estimate's error, or a difference of scenes.

An edge is *predicted to be nothing* if its score is within 1% of the gap between full and none, and *is nothing* if the
95% interval of its exact effect lies within that margin: an equivalence test at 2.5% a side.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from affectlens.circuits.numbering import exact_effects
from affectlens.circuits.space import EdgeSpace
from affectlens.circuits.verifying.ratios import UNIT
from affectlens.circuits.verifying.removing import DRAWN, FIRST
from affectlens.patching import agreeing
from affectlens.stats import Estimate, binomial

MARGIN = 0.01  # of the gap
_FIGURES = {"spearman": (agreeing.rank_correlation, (-1.0, 1.0)), "sign": (agreeing.sign_agreement, (0.0, 1.0)),
            "slope": (agreeing.regression_slope, (-np.inf, np.inf))}  # fmt: skip


def chosen_edges(space: EdgeSpace, scores: np.ndarray, n: int, *, seed: int = 0) -> pd.DataFrame:
    """One row an edge: ``edge, chosen, weight`` (how many edges it stands for), ``estimate`` (its mean score).

    Args:
        space: of the model.
        scores: mean score of every edge.
        n: how many edges; half of them the first by the size of the score.
        seed: of the others' draw.
    """
    at = np.argwhere(space.allowed)
    at = at[np.argsort(-np.abs(scores[tuple(at.T)]), kind="stable")]
    top = min((n + 1) // 2, len(at))
    others = np.random.default_rng(seed).permutation(len(at) - top)[: n - top] + top
    weight = (len(at) - top) / max(len(others), 1)
    rows = [(space.name(*map(int, at[i])), FIRST, 1.0, float(scores[tuple(at[i])])) for i in range(top)]
    rows += [(space.name(*map(int, at[i])), DRAWN, weight, float(scores[tuple(at[i])])) for i in others]
    return pd.DataFrame(rows, columns=["edge", "chosen", "weight", "estimate"])


def compared(edges: pd.DataFrame, effects: pd.DataFrame, gap: float, *, seed: int = 0) -> pd.DataFrame:
    """The edges with ``effect, low, high`` (exact, in the metric's unit), ``p, p_adjusted`` (signs flipped over scenes,
    max-T over all), ``predicted_nothing, is_nothing``, ``n`` scenes.

    Args:
        edges: from :func:`chosen_edges`.
        effects: from ``path_patch``: ``pair, group, edge, effect``.
        gap: between full and none.
        seed: of bootstrap and flips.
    """  # fmt: skip
    exact, margin = exact_effects(effects, seed=seed)[0], MARGIN * abs(gap)
    exact = exact.rename(columns={"effect_low": "low", "effect_high": "high"}).drop(columns="effect_n")
    out = edges.reset_index(drop=True).join(exact, on="edge").assign(n=effects["group"].nunique())
    nothing = (out["low"] >= -margin) & (out["high"] <= margin)
    return out.assign(predicted_nothing=out["estimate"].abs() <= margin, is_nothing=nothing)


def agreement(edges: pd.DataFrame, effects: pd.DataFrame) -> dict[str, Estimate]:
    """Spearman's correlation, agreement of signs and slope of exact on estimated effects, over the first edges by score
    and (``, all``) over all edges with the drawn ones standing for the others; and the share of edges predicted to be
    nothing that are.

    Args:
        edges: from :func:`compared`.
        effects: from ``path_patch``.
    """
    total, n = _by_scene(edges, effects)
    top = (edges["chosen"] == FIRST).to_numpy()
    out: dict[str, Estimate] = {}
    for which, name in ((top, ""), (np.ones(len(edges), dtype=bool), ", all")):
        counts = np.repeat(n[:, None], int(which.sum()), axis=1)
        weight = edges["weight"].to_numpy(dtype=float)[which]
        sums = agreeing.Sums(counts * edges["estimate"].to_numpy(dtype=float)[None, which], total[:, which], counts,
                             weight, np.zeros(len(weight), dtype=bool), top[which])  # fmt: skip
        for kind, (figure, bounds) in _FIGURES.items():
            found = agreeing.with_interval(sums, figure, bounds)
            low, high = np.fmin(found.low, found.value), np.fmax(found.high, found.value)
            out[kind + name] = replace(found, low=float(low), high=float(high), unit=UNIT)
    expected = edges[edges["predicted_nothing"]]
    if len(expected):
        out["nothing"] = binomial(float(expected["is_nothing"].sum()), len(expected), "edge")
    return out


def _by_scene(edges: pd.DataFrame, effects: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Sums of exact effects over each scene's pairs, and how many pairs it has."""
    table = effects.pivot_table(index=["group", "pair"], columns="edge", values="effect")[list(edges["edge"])]
    by = table.groupby(level="group", sort=True)
    return by.sum().to_numpy(dtype=float), by.size().to_numpy(dtype=float)
