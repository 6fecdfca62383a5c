"""A row of a sparse autoencoder's decoder as a direction."""

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering.directions import Direction, spelled, unit
from affectlens.steering.norms import median_norms
from affectlens.stimuli.battery import load_battery
from affectlens.texts import Texts
from affectlens.types import Json


def from_decoder(
    row: Float[np.ndarray, " d"],
    site: str | Site,
    *,
    model: LensModel,
    emotion: str,
    norm: float | None = None,
    texts: Texts | None = None,
    facts: Json | None = None,
) -> Direction:
    """The direction along which a feature writes, at the site that its autoencoder reads.

    Args:
        row: the feature's row of the decoder, in the model's own space (not in that of a normalised input).
        site: which the autoencoder was trained on, for example ``L12.resid_post``.
        model: whose activations these are.
        emotion: the name under which the direction is kept, for example what the feature responds to.
        norm: the site's median norm; measured on ``texts`` if None.
        texts: what the norm is measured on; the neutral items of ``starter`` if None.
        facts: what else to keep, for example the dictionary and the feature's number.

    Raises:
        SteerError: a row of another length than the site's, or without one.
        SiteError: a site that the model lacks.
    """
    at = site if isinstance(site, Site) else Site.parse(site)
    size = int(np.prod(model.sites.shape(at)))
    if len(row) != size:
        raise SteerError(f"This decoder row has {len(row)} numbers, and {at} of {model.name} has {size}.")
    vector = unit(np.asarray(row))
    if norm is None:
        given = texts if texts is not None else load_battery("starter").where(role="neutral", split="vignettes")
        norm = median_norms(model, at, given)[at]
    return Direction(spelled(emotion), at.text, vector, float(norm), "sae", model.name, model.fingerprint,
                     fixed=np.zeros((0, size), np.float32), facts=dict(facts or {}))  # fmt: skip
