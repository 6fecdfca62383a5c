"""The norm that doses count in, for the places of a set."""

from collections.abc import Mapping

import numpy as np

from affectlens.model import LensModel
from affectlens.steering.extracting.contrasts import Contrast
from affectlens.steering.extracting.places import Place
from affectlens.steering.norms import median_norms
from affectlens.store import Activations

NORM_TEXTS = 64  # that the median norm is taken over: thousands of tokens


def normed(
    model: LensModel | Activations,
    acts: Activations,
    where: list[Place],
    position: str,
    asked: Contrast,
    given: Mapping[str, float] | None,
    progress: bool | None,
) -> dict[str, tuple[float, str]]:
    """By site, the norm and what it was taken over: tokens of calm texts, or without a model the pooled items.

    Args:
        model: whose tokens are measured; activations have none.
        acts: the items' activations.
        where: the places.
        position: how the items were pooled.
        asked: the contrast.
        given: norms that are known, by site.
        progress: show a bar.
    """
    known = {str(site): float(norm) for site, norm in (given or {}).items()}
    out = {p.site.text: (known[p.site.text], "given") for p in where if p.site.text in known}
    missing = [p for p in where if p.site.text not in out]
    if isinstance(model, LensModel) and missing:
        rows = asked.rows[asked.baseline >= 0] if (asked.baseline >= 0).any() else asked.rows
        some = rows[np.unique(np.linspace(0, len(rows) - 1, NORM_TEXTS).round().astype(int))]
        texts = acts.items.iloc[some].reset_index(drop=True)
        found = median_norms(model, [p.site for p in missing], texts, progress=progress)
        return out | {site.text: (norm, f"tokens of {len(some)} texts") for site, norm in found.items()}
    for place in missing:
        whole = Place(place.site) if place.site.what in acts.sites else place
        lengths = np.linalg.norm(whole.values(acts, position)[asked.rows], axis=1)
        out[place.site.text] = (float(np.median(lengths)), "pooled items")
    return out
