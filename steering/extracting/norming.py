"""The norm that doses count in, and the percentiles that clamps and gates read, for the places of a set.

Both act on tokens, so with a model both are taken over tokens, in one pass. Activations have pooled items alone, whose
projections spread less than tokens' do.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from affectlens.model import LensModel
from affectlens.steering.directions import Direction
from affectlens.steering.extracting.contrasts import Contrast
from affectlens.steering.extracting.places import Place
from affectlens.steering.norms import norms_and_levels
from affectlens.store import Activations

NORM_TEXTS = 64  # that norms and percentiles are taken over: thousands of tokens


def pooled_norms(
    acts: Activations, where: list[Place], position: str, asked: Contrast, given: Mapping[str, float] | None
) -> dict[str, tuple[float, str]]:
    """By site, the norm and what it was taken over: what is given, or the pooled items.

    Args:
        acts: the items' activations.
        where: the places.
        position: how the items were pooled.
        asked: the contrast.
        given: norms that are known, by site.
    """
    known = {str(site): float(norm) for site, norm in (given or {}).items()}
    out = {}
    for place in where:
        if place.site.text in known:
            out[place.site.text] = (known[place.site.text], "given")
            continue
        whole = Place(place.site) if place.site.what in acts.sites else place
        lengths = np.linalg.norm(whole.values(acts, position)[asked.rows], axis=1)
        out[place.site.text] = (float(np.median(lengths)), "pooled items")
    return out


def over_tokens(
    model: LensModel, found: list[Direction], acts: Activations, asked: Contrast, progress: bool | None
) -> list[Direction]:
    """The same directions with norms and percentiles over the tokens of calm texts; norms that were given stay.

    Args:
        model: whose tokens are measured.
        found: the directions.
        acts: the items' activations, for their texts.
        asked: the contrast, for which texts are calm.
        progress: show a bar.
    """
    rows = asked.rows[asked.baseline >= 0] if (asked.baseline >= 0).any() else asked.rows
    some = rows[np.unique(np.linspace(0, len(rows) - 1, NORM_TEXTS).round().astype(int))]
    at = {site: [d for d in found if d.at == site] for site in dict.fromkeys(d.at for d in found)}
    aims = {site: np.stack([d.vector for d in mine]) for site, mine in at.items()}
    seen = norms_and_levels(model, aims, acts.items.iloc[some].reset_index(drop=True), progress=progress)
    out = {}
    for site, mine in at.items():
        norm, levels = seen[site]
        for one, row in zip(mine, levels.astype(np.float32), strict=True):
            over = {"norm_over": f"tokens of {len(some)} texts"}
            given = one.facts["norm_over"] == "given"
            facts = one.facts | {"levels_over": "tokens"} | ({} if given else over)
            out[id(one)] = replace(one, norm=one.norm if given else norm, levels=row, facts=facts)
    return [out[id(one)] for one in found]
