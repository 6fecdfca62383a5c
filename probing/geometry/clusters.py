"""Do scenes of one emotion lie together? Silhouettes over scenes, before and after the valence axis is taken out.

A scene's silhouette compares its mean distance to its own emotion's scenes with that to the nearest other emotion's
(Rousseeuw 1987, J. Comp. Appl. Math. 20), distance being 1 minus the cosine of centred scene differences. The null
shuffles the emotions of scenes within each domain; once valence is taken out, within each domain and valence, so that
what is tested is emotion beyond the sign that was removed.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.probing.geometry.averaging import leaving_out
from affectlens.probing.geometry.directions import Directions
from affectlens.probing.geometry.grams import centred, cosines
from affectlens.probing.geometry.nulls import JACKKNIFE, compare, jackknife, orders_within
from affectlens.probing.geometry.scenes import arrangements, blocks


def silhouettes(directions: Directions, *, seed: int = 0, draws: int = 999) -> pd.DataFrame:
    """The mean silhouette by layer, of all scenes and of each emotion's; p is of all scenes.

    Args:
        directions: of emotions; from :meth:`Directions.without_valence` for those beyond valence.
        seed: of the shuffles.
        draws: how many.

    Returns:
        A row an emotion (``all`` first) and layer: ``value, low, high, n, unit, p, p_adjusted, attainable``.
    """
    codes, names = directions.labels, ("all", *directions.names)
    distance = 1 - cosines(centred(directions.inner))
    ones = np.ones((1, len(codes)))
    value = scores(distance, codes, ones)[0]
    low, high = jackknife(value, scores(distance, codes, leaving_out(len(codes))))
    among = blocks(directions, valence=directions.valence_removed)
    moved = codes[orders_within(among, seed=seed, draws=draws)]
    null = compare(value[:, 0], np.stack([scores(distance, labels, ones)[0, :, 0] for labels in moved]))
    least = max(null.attainable, 1 / arrangements(codes, among))
    removed = "removed" if directions.valence_removed else "kept"
    parts = []
    for k, name in enumerate(names):
        tested = {"p": null.p, "p_adjusted": null.p_adjusted, "attainable": least} if k == 0 else {
            "p": np.nan, "p_adjusted": np.nan, "attainable": np.nan}  # fmt: skip
        parts.append(pd.DataFrame({
            "valence": removed, "emotion": name, "layer": directions.layers, "value": value[:, k],
            "low": np.maximum(low[:, k], -1), "high": np.minimum(high[:, k], 1), "n": len(codes), "unit": "scene",
            **tested, "method": JACKKNIFE,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def scores(
    distance: Float[np.ndarray, "layer row row"],
    codes: Int[np.ndarray, " row"],
    weights: Float[np.ndarray, "draw row"],
) -> Float[np.ndarray, "draw layer name_and_all"]:
    """Mean silhouettes, of all rows and of each name's; rows of weight 0 are not there.

    As in scikit-learn, a row that is alone in its name has silhouette 0.
    """
    hot = np.eye(int(codes.max()) + 1)[codes]
    out = []
    for weight in weights:
        held = hot * weight[:, None]
        size = held.sum(0)
        total = distance @ held  # layer row name
        own = (total * hot).sum(-1) / np.maximum(size[codes] - 1, 1)
        others = np.where((hot > 0) | (size == 0), np.inf, total / np.maximum(size, 1)).min(-1)
        most = np.maximum(own, others)
        each = np.divide(others - own, most, out=np.zeros_like(own), where=(most > 0) & (size[codes] > 1))
        share = np.divide(held, size, out=np.zeros_like(held), where=size > 0)
        out.append(np.concatenate([(each @ weight / weight.sum())[:, None], each @ share], axis=1))
    return np.stack(out)
