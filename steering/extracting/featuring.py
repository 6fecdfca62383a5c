"""SAE features as directions: each emotion's strongest features, as rows of the dictionary's decoder."""

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.probing.sae import Sae
from affectlens.steering.directions import Directions, unit
from affectlens.steering.extracting.decoding import from_decoder
from affectlens.steering.norms import norms_and_levels
from affectlens.stimuli.battery import load_battery
from affectlens.texts import Texts

COLUMNS = ("emotion", "feature", "d")


def feature_directions(
    model: LensModel,
    sae: Sae,
    table: pd.DataFrame,
    *,
    per_emotion: int = 1,
    texts: Texts | None = None,
    progress: bool | None = None,
) -> Directions:
    """One direction an emotion: what its strongest feature writes, or its strongest ones, weighted by their effects.

    A direction is added, projected out or clamped like any other: that moves the site along what the features write,
    and does not set their activations (:func:`affectlens.patching.features.feature_effects` does).

    Args:
        model: from :func:`affectlens.load_model`.
        sae: the dictionary.
        table: one row an emotion and feature: ``emotion``, ``feature`` and ``d``, the effect size; other columns and
            rows whose ``d`` is not above zero are left out.
        per_emotion: how many features at most make a direction, by the largest ``d``.
        texts: what norms and the percentiles of ``clamp`` are measured on; the neutral items of ``starter`` if None.
        progress: show a bar; by default where a person is looking.

    Raises:
        SteerError: a table without those columns, a feature that the dictionary lacks, no feature at all, or weighted
            rows that cancel.
        SiteError: a dictionary that does not fit the model.
    """
    sae.check_fits(model)
    if missing := [name for name in COLUMNS if name not in table]:
        raise SteerError(f"The table of features has no column {missing[0]}; it needs {', '.join(COLUMNS)}.")
    if per_emotion < 1:
        raise SteerError(f"per_emotion is {per_emotion}: take at least one feature.")
    rows = table[table["d"] > 0].sort_values("d", ascending=False, kind="stable")
    rows = rows.drop_duplicates(["emotion", "feature"]).groupby("emotion", sort=False).head(per_emotion)
    if rows.empty:
        raise SteerError("No feature of the table has d above zero: there is nothing to make a direction of.")
    if odd := [one for one in rows["feature"] if not 0 <= one < sae.n_features]:
        raise SteerError(f"{sae.name} has no feature {odd[0]}; it has 0 to {sae.n_features - 1}.")
    order = [name for name in dict.fromkeys(table["emotion"]) if name in set(rows["emotion"])]
    parts = {name: rows[rows["emotion"] == name] for name in order}
    vectors = np.stack([_weighted(sae, part) for part in parts.values()])
    given = texts if texts is not None else load_battery("starter").where(role="neutral", split="vignettes")
    norm, levels = norms_and_levels(model, {sae.site: vectors}, given, progress=progress)[sae.site]
    out = []
    for (name, part), vector, level in zip(parts.items(), vectors, levels, strict=True):
        facts = {"sae": sae.name, "sae_sha256": sae.sha256, "features": [int(one) for one in part["feature"]],
                 "d": [float(one) for one in part["d"]], "levels_over": "tokens"}  # fmt: skip
        one = from_decoder(vector, sae.site, model=model, emotion=str(name), norm=norm, facts=facts)
        out.append(replace(one, levels=level.astype(np.float32)))
    return Directions(out)


def _weighted(sae: Sae, rows: pd.DataFrame) -> Float[np.ndarray, " d_in"]:
    """The decoder's rows, each of length one, summed by effect size; a row by itself is that row."""
    chosen = sae.decoder[rows["feature"].to_numpy(dtype=int)].astype(np.float64)
    lengths = np.linalg.norm(chosen, axis=1, keepdims=True)
    return unit(rows["d"].to_numpy(dtype=float) @ (chosen / np.maximum(lengths, 1e-12)))
