"""Placebo features: active as often, and as strongly, as the features that are tested.

A frequent feature changes more than a rare one whatever it stands for, so what an edit of a feature does must be set
beside the same edit of features of its frequency and size. Distance is Euclidean in the logarithms of density and of
mean activation, each in units of its standard deviation over the features that are active at all.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from affectlens.errors import PatchError

NEAREST = 5  # a placebo is drawn among so many that are nearest


def matched(
    density: Float[np.ndarray, " feature"],
    mean: Float[np.ndarray, " feature"],
    features: Sequence[int],
    n: int,
    *,
    placed: Collection[int] = (),
    allowed: Bool[np.ndarray, " feature"] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw ``n`` placebos for each feature, no feature twice.

    Draw by draw each feature, in an order drawn anew, takes one of the five nearest that are left: so none is served
    with the leavings of the others.

    Args:
        density: the share of tokens at which each feature is active.
        mean: its mean activation there.
        features: those that are tested.
        n: placebos of each.
        placed: other features that may not serve, for example all that respond to some emotion.
        allowed: which may serve at all.
        seed: of the draws.

    Returns:
        One row a draw and feature: ``feature, draw, placebo``, and ``density, mean`` of both (the placebo's as
        ``placebo_density, placebo_mean``).

    Raises:
        PatchError: a tested feature that is never active, or too few features to draw from.
    """
    alive = density > 0
    if silent := [int(f) for f in features if not alive[f]]:
        raise PatchError(f"Features {silent[:8]} are active nowhere in these texts: nothing can be matched to them.")
    free = alive.copy() if allowed is None else alive & allowed
    free[[*features, *placed]] = False
    if free.sum() < n * len(features):
        raise PatchError(
            f"{n} placebos for each of {len(features)} features are {n * len(features)}, and {int(free.sum())} other "
            "features are active in these texts: ask for fewer, or give more texts."
        )
    at = _coordinates(density, mean, alive)
    rng, rows = np.random.default_rng(seed), []
    for draw in range(n):
        for feature in np.asarray(features)[rng.permutation(len(features))].tolist():
            left = np.flatnonzero(free)
            distance = np.linalg.norm(at[left] - at[feature], axis=1)
            one = int(rng.choice(left[np.argsort(distance, kind="stable")[:NEAREST]]))
            free[one] = False
            rows.append((feature, draw, one, density[feature], density[one], mean[feature], mean[one]))
    columns = ["feature", "draw", "placebo", "density", "placebo_density", "mean", "placebo_mean"]
    return pd.DataFrame(rows, columns=columns)


def _coordinates(
    density: Float[np.ndarray, " feature"], mean: Float[np.ndarray, " feature"], alive: Bool[np.ndarray, " feature"]
) -> Float[np.ndarray, "feature 2"]:
    out = np.full((len(density), 2), np.nan)
    logs = np.log(np.stack([density[alive], np.maximum(np.abs(mean[alive]), 1e-12)], axis=1))
    spread = logs.std(axis=0)
    out[alive] = logs / np.where(spread > 0, spread, 1.0)
    return out
