"""Placebos: unit vectors that a direction is compared with at the same norm, site and dose.

=============== ===================================================================================================
``random``      uniform on the sphere
``matched``     normal with the covariance of the activations fitted on: it lies where activations vary
``shuffled``    the same method on labels that whole groups swapped within their domain; draw i is that of class
                i mod the number of classes, without what was taken out of that class's own direction. Against
                neutral it still holds what all classes share; and of two values in pairs ``pca`` finds the same
                component whichever way round the pairs are
``mean_of_all`` the mean of the site's directions, one vector; of directions that are centred little is left of it
``orthogonal``  uniform on the sphere, less the span of all the site's directions
=============== ===================================================================================================

A sparse direction's placebos are of the same neurons.
"""

import numpy as np
from jaxtyping import Float32

from affectlens.errors import SteerError
from affectlens.sites import Site
from affectlens.steering.directions import Direction, Directions, unit
from affectlens.steering.extracting.contrasts import Contrast, contrast
from affectlens.steering.extracting.methods import METHODS, PLACEBOS, fit
from affectlens.steering.extracting.places import Place
from affectlens.steering.extracting.purifying import joined, without
from affectlens.steering.extracting.shuffling import shuffle
from affectlens.store import Activations


def placebos(
    directions: Directions,
    acts: Activations | None = None,
    *,
    kind: str = "random",
    draws: int = 199,
    site: str | Site | None = None,
    seed: int = 0,
) -> Float32[np.ndarray, "draw d"]:
    """Unit vectors at the site of a set's directions.

    Args:
        directions: the set.
        acts: what it was fitted on; ``matched`` and ``shuffled`` need it.
        kind: ``random``, ``matched``, ``shuffled``, ``mean_of_all`` or ``orthogonal``.
        draws: how many; ``mean_of_all`` is one whatever is asked.
        site: which, where the set has several.
        seed: of the draws.

    Raises:
        SteerError: an unknown kind or site, no activations where they are needed, or those of another model.
    """
    if kind not in PLACEBOS or draws < 1:
        raise SteerError(
            f"There is no placebo {kind!r} of {draws} draws; choose from {', '.join(PLACEBOS)}, 1 or more."
        )
    mine = at_site(directions, site)
    neurons = tuple(mine[0].facts.get("neurons", ()))
    place = Place(mine[0].at, neurons, len(mine[0].vector))
    vectors = np.stack([d.vector[list(neurons)] if neurons else d.vector for d in mine]).astype(np.float64)
    rng = np.random.default_rng(seed)
    if kind in ("matched", "shuffled"):
        if acts is None:
            raise SteerError(f"Placebo {kind} needs the activations that the directions were fitted on: give acts=.")
        if acts.fingerprint != directions.fingerprint:
            raise SteerError(f"These activations are of {acts.model}, the directions of {directions.model}.")
        drawn = (
            _matched(acts, place, mine, draws, rng) if kind == "matched" else _shuffled(acts, place, mine, draws, rng)
        )
    elif kind == "mean_of_all":
        drawn = vectors.mean(0, keepdims=True)
    else:
        drawn = rng.standard_normal((draws, vectors.shape[1]))
        if kind == "orthogonal":
            basis = joined(np.zeros((0, vectors.shape[1])), vectors)
            drawn = np.stack([without(one, basis) for one in drawn])
    return np.stack([place.whole(unit(one)) for one in drawn])


def at_site(directions: Directions, site: str | Site | None) -> tuple[Direction, ...]:
    """The set's directions at one site.

    Raises:
        SteerError: none there, or several sites and none named.
    """
    sites = dict.fromkeys(d.site for d in directions)
    if site is None and len(sites) > 1:
        raise SteerError(f"The set has directions at {', '.join(sites)}: name one, site={next(iter(sites))!r}.")
    asked = next(iter(sites)) if site is None else str(site)
    found = tuple(d for d in directions if d.site == asked)
    if not found:
        raise SteerError(f"The set has no direction at {asked}, only at {', '.join(sites)}.")
    return found


def recalled(acts: Activations, one: Direction) -> Contrast:
    """The contrast that a direction was fitted on, as its facts have it."""
    kept = {name: one.facts.get(name) for name in ("positive", "negative", "leave_out")}
    return contrast(acts.items, label=one.facts.get("label", "emotion"), **kept)


def _matched(
    acts: Activations, place: Place, mine: tuple[Direction, ...], draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Normal combinations of the centred rows: their covariance is the activations' own."""
    asked = recalled(acts, mine[0])
    x = place.values(acts, mine[0].position)[asked.rows[(asked.code >= 0) | (asked.baseline >= 0)]]
    return rng.standard_normal((draws, len(x))) @ (x - x.mean(0))


def _shuffled(
    acts: Activations, place: Place, mine: tuple[Direction, ...], draws: int, rng: np.random.Generator
) -> np.ndarray:
    one = mine[0]
    if one.method not in METHODS:
        raise SteerError(f"{one.method} has no labels to shuffle; choose another placebo.")
    asked = recalled(acts, one)
    x = place.values(acts, one.position)[asked.rows][:, None]
    out = []
    for draw in range(draws):
        at = draw % len(mine)
        part = shuffle(asked, rng)
        found = fit(one.method, x, part, one.facts["against"], seed=one.facts.get("seed", 0)).vectors
        vector = found[asked.names.index(mine[at].emotion), 0]
        fixed = mine[at].fixed.astype(np.float64)
        out.append(without(vector, fixed[:, list(place.neurons)] if place.neurons else fixed) if fixed.size else vector)
    return np.stack(out)
