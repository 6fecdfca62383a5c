"""Means of scenes as weights of rows, so that leaving a scene out is another row of weights."""

import numpy as np
from jaxtyping import Float, Int

from affectlens.errors import BatteryError


def averages(
    codes: Int[np.ndarray, " row"], n: int, weights: Float[np.ndarray, "draw row"], *, centre: bool
) -> Float[np.ndarray, "draw name row"]:
    """Weights that average the rows of each name, less the mean over names with ``centre``.

    A name whose rows are all left out gives NaN.
    """
    hats = np.eye(n)[codes].T[None] * weights[:, None]
    size = hats.sum(-1, keepdims=True)
    hats = np.where(size > 0, hats / np.where(size > 0, size, 1), np.nan)
    return hats - hats.mean(1, keepdims=True) if centre else hats


def products(
    inner: Float[np.ndarray, "layer row row"], hats: Float[np.ndarray, "draw name row"]
) -> Float[np.ndarray, "draw layer name name"]:
    """Inner products between averages, from those between rows."""
    draws, names, _ = hats.shape
    flat = hats.reshape(draws * names, -1)
    return np.stack([(flat @ one).reshape(hats.shape) @ hats.swapaxes(-1, -2) for one in inner], axis=1)


def leaving_out(n: int) -> Float[np.ndarray, "draw row"]:
    """Weights that leave out one row at a time."""
    return np.ones((n, n)) - np.eye(n)


def signed(valence: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Weights that give the pleasant rows' mean less the unpleasant ones'.

    Raises:
        BatteryError: fewer than two rows of either valence.
    """
    high, low = valence > 0, valence < 0
    if min(high.sum(), low.sum()) < 2:
        raise BatteryError("There is no valence axis: it takes two pleasant and two unpleasant scenes at least.")
    return high / high.sum() - low / low.sum()
