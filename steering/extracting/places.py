"""Where directions live: a site's values as rows, heads end to end, named neurons as one sparse vector."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.sites import Site
from affectlens.store import Activations

Sites = str | int | Site | Iterable[str | int | Site]


@dataclass(frozen=True)
class Place:
    """A direction's site; ``neurons`` are the indices of those that a sparse one has, with the layer's ``width``."""

    site: Site
    neurons: tuple[int, ...] = ()
    width: int = 0

    def values(self, acts: Activations, position: str | None) -> Float[np.ndarray, "item d"]:
        """The items' values, those of the named neurons alone if it is sparse."""
        if not self.neurons or self.site.what in acts.sites:
            found = np.asarray(acts[self.site, position] if position else acts[self.site], dtype=np.float64)
            flat = found.reshape(len(found), -1)
            return flat[:, list(self.neurons)] if self.neurons else flat
        parts = [Site.neuron(self.site.layer, index) for index in self.neurons]
        return np.stack([np.asarray(acts[p, position] if position else acts[p], dtype=np.float64) for p in parts], 1)

    def whole(self, vectors: Float[np.ndarray, "*any d"]) -> Float[np.ndarray, "*any site"]:
        """Vectors of the site's full size: zero at the neurons that are not named."""
        if not self.neurons:
            return vectors
        out = np.zeros((*vectors.shape[:-1], self.width), vectors.dtype)
        out[..., list(self.neurons)] = vectors
        return out


def wanted(sites: Sites) -> list[str | Site]:
    """Site names as capture takes them; a number is a layer's ``resid_post``."""
    many = [sites] if isinstance(sites, str | int | Site) else list(sites)
    return [f"L{one}.resid_post" if isinstance(one, int) else one for one in many]


def places(acts: Activations, sites: Sites, width: int = 0) -> list[Place]:
    """The places that are asked for among what was captured; neurons of one layer make one sparse place.

    Args:
        acts: the activations.
        sites: names, with or without a layer, layers, or sites.
        width: how many neurons a layer has, where single ones are named; or 0.

    Raises:
        SteerError: nothing named, attention weights, or single neurons of a model whose width is not known.
    """
    found: list[Site] = []
    for one in wanted(sites):
        if isinstance(one, str) and not one.startswith(("L", "blocks.")):
            what = Site.parse(f"L0.{one}").what
            found += [Site.parse(f"L{layer}.{what}") for layer in acts.layers.get(what, ())] or [
                Site.parse(f"L0.{one}")
            ]
        else:
            found.append(one if isinstance(one, Site) else Site.parse(one))
    if not found:
        raise SteerError("No site is named: give one, for example resid_post, 14 or L12.H3.")
    if patterns := [site for site in found if site.kind == "pattern"]:
        raise SteerError(f"{patterns[0]} are attention weights, which nothing can be added to: name another site.")
    single: dict[int, list[int]] = {}
    out: list[Place] = []
    for site in dict.fromkeys(found):
        if site.kind == "neurons" and site.index is not None:
            if not width:
                raise SteerError(f"{site} is one of how many? Give a model, or activations of all neurons.")
            single.setdefault(site.layer, []).append(site.index)
        else:
            out.append(Place(site))
    return out + [Place(Site("neurons", at), tuple(sorted(index)), width) for at, index in single.items()]
