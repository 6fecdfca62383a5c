"""The shared valence axis: how much of the geometry it is, and what the cosines are without it.

Directions of emotions tend to fall onto one axis, pleasant against unpleasant, and cosines between them then say little
beyond their sign. The share of the variance between directions that lies on the axis is tested by re-ordering the
emotions' valences, since an axis that is fitted to eight points takes some share of any eight points. The gap is the
mean cosine of pairs of one valence less that of pairs of opposite valence; emotions of neither valence are left out
of it.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.probing.geometry.curves import curve
from affectlens.probing.geometry.directions import Directions
from affectlens.probing.geometry.grams import cosines, less_contrast, share_along, upper
from affectlens.probing.geometry.nulls import BOOTSTRAP, DRAWS, compare, orders, percentile

SHARE, BEFORE, AFTER = "share of variance", "gap before", "gap after"


def axis_table(
    directions: Directions, contrast: Float[np.ndarray, " name"], *, seed: int = 0, draws: int = DRAWS
) -> pd.DataFrame:
    """The valence axis's share at each layer with its test, and the gap of cosines with and without the axis.

    Args:
        directions: of emotions or words.
        contrast: weights of the names: :meth:`Directions.valence_contrast`, or norm_contrast.
        seed: of the random orders, where there are more than eight names.
        draws: how many.
    """

    def shape(gram: Float[np.ndarray, "many n n"], kept: Int[np.ndarray, " n"]) -> Float[np.ndarray, "many k"]:
        c = contrast[kept] - contrast[kept].mean()
        gaps = [_gap(cosines(one), contrast[kept]) for one in (gram, less_contrast(gram, c))]
        return np.stack([share_along(gram, c[None])[0], *gaps], axis=-1)

    found = curve(directions, shape)
    moved, exact = orders(len(contrast), seed=seed, draws=draws)
    c = contrast - contrast.mean()
    drawn = np.concatenate([share_along(directions.gram, c[part]) for part in np.array_split(moved, 20)])
    null = compare(found.value[:, 0], drawn, exact=exact)
    return found.rows(directions, (SHARE, BEFORE, AFTER), (null, None, None), "statistic", (0.0, -1.0, -1.0))


def cosine_table(directions: Directions, contrast: Float[np.ndarray, " name"] | None) -> pd.DataFrame:
    """Every pair's centred cosine at every layer with its interval: as it is, and with the valence axis removed."""
    first, second = upper(len(directions.names))
    parts = []
    for removed, one in (
        (False, directions),
        (True, None if contrast is None else directions.without_valence(contrast)),
    ):
        if one is None:
            continue
        value = cosines(one.gram)[:, first, second]
        low = high = np.full_like(value, np.nan)
        if one.kind == "emotions":
            low, high = percentile(cosines(one.resampled)[..., first, second])
        layers = np.repeat(one.layers, len(first))
        parts.append(pd.DataFrame({
            "set": one.kind, "valence": "removed" if removed else "kept", "layer": layers,
            "a": [one.names[k] for k in first] * len(one.layers), "b": [one.names[k] for k in second] * len(one.layers),
            "value": value.ravel(), "low": np.maximum(low, -1).ravel(), "high": np.minimum(high, 1).ravel(),
            "n": len(one.table), "unit": one.unit, "method": BOOTSTRAP,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _gap(values: np.ndarray, valence: np.ndarray) -> np.ndarray:
    sign = np.where(np.abs(valence) > 0.02 * np.abs(valence).max(), np.sign(valence), 0)
    first, second = upper(len(sign))
    product = (sign[:, None] * sign[None])[first, second]
    pairs = values[:, first, second]
    if not ((product > 0).any() and (product < 0).any()):
        return np.full(len(values), np.nan)
    return pairs[:, product > 0].mean(1) - pairs[:, product < 0].mean(1)
