"""Random features that are active as often as given ones: what a placebo for chosen features must be matched in."""

import numpy as np
from jaxtyping import Float, Int

from affectlens.errors import BatteryError

NEAREST = 20  # features nearest in density, from which a match is drawn


def matched(
    density: Float[np.ndarray, " feature"], chosen: Int[np.ndarray, " k"], draws: int, *, seed: int = 0
) -> Int[np.ndarray, "draw k"]:
    """For each chosen feature and draw a random one of about its density; none is chosen, none comes twice in a draw.

    The r-th match, from 0, is one of the 20 + r free features that are nearest in the logarithm of their density.

    Args:
        density: the share of tokens at which each feature is active.
        chosen: features to match, the most important first.
        draws: how many sets.
        seed: of the draws.

    Raises:
        BatteryError: fewer active features are left than are chosen.
    """
    rng = np.random.default_rng(seed)
    free = density > 0
    free[chosen] = False
    candidates = np.flatnonzero(free)
    if len(candidates) < len(chosen):
        raise BatteryError(
            f"{len(chosen)} features can't be matched by as many others: {len(candidates)} of the rest are ever active."
        )
    logs = np.log(np.maximum(density, density[free].min() / 2))
    taken = np.zeros((draws, len(density)), dtype=bool)
    out = np.empty((draws, len(chosen)), dtype=int)
    every = np.arange(draws)
    for r, feature in enumerate(chosen):
        gaps = np.abs(logs[candidates] - logs[feature])
        near = candidates[np.argsort(gaps, kind="stable")[: NEAREST + r]]
        picked = near[(rng.random((draws, len(near))) + taken[:, near]).argmin(1)]
        taken[every, picked] = True
        out[:, r] = picked
    return out
