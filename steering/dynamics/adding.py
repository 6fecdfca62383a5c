"""How long the vector is that doses add: emotions that are steered at once cancel in part."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from affectlens.steering.directions import Directions

Gram = Float[np.ndarray, "emotion emotion"]


def gram_of(directions: Directions, emotions: Sequence[str]) -> Gram:
    """Inner products of what a dose of 1 of each emotion adds, as shares of the sites' norms, summed over sites.

    Args:
        directions: with safe doses.
        emotions: in order.
    """
    sites = sorted({d.site for name in emotions for d in directions[name]})
    found = np.zeros((len(emotions), len(emotions)))
    for site in sites:
        here = [[d for d in directions[name] if d.site == site] for name in emotions]
        size = next(len(d.vector) for mine in here for d in mine)
        parts = np.array([
            np.sum([(d.safe or 0.0) * d.vector.astype(np.float64) for d in mine], axis=0) if mine else np.zeros(size)
            for mine in here
        ])  # fmt: skip
        found += parts @ parts.T
    return found


def lengths(doses: Float[np.ndarray, "turn emotion"], gram: Gram) -> Float[np.ndarray, " turn"]:
    """The length of what is added at each turn, in shares of the site's norm.

    Args:
        doses: of each emotion.
        gram: inner products of what a dose of 1 of each adds.
    """
    return np.sqrt(np.maximum(np.einsum("te,ef,tf->t", doses, gram, doses), 0.0))
