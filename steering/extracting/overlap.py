"""How alike a set's directions are, as they are and without the valence that they share."""

from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.sites import Site
from affectlens.steering.directions import Direction, Directions
from affectlens.steering.extracting.placebo import at_site

_SIDED = 0.5  # mean valence of a class's items, from which on it is pleasant or unpleasant
_NOTHING = 1e-6  # of a unit vector's length


def cosines(directions: Directions, *, site: str | Site | None = None) -> pd.DataFrame:
    """Cosines of every two emotions at a site, before and after removing the shared valence axis.

    The axis is the mean of the pleasant emotions' unit vectors less that of the unpleasant ones'; which those are, the
    fitted items' valence says. Two emotions that make up a side by themselves lose what they have in common: that they
    then point apart is the removal's own doing.

    Args:
        directions: the set.
        site: one of its sites; all of them if None.

    Returns:
        One row a pair: ``site``, ``emotion``, ``other``, ``cosine``, ``without_valence``. The last is NaN where there
        are not both pleasant and unpleasant emotions, or nothing is left of one of the two.

    Raises:
        SteerError: a site where the set has nothing.
    """
    sites = [str(site)] if site is not None else list(dict.fromkeys(d.site for d in directions))
    rows = []
    for name in sites:
        mine = at_site(directions, name)
        vectors = np.stack([d.vector for d in mine]).astype(np.float64)
        axis = valence_axis(mine)
        rest = vectors - np.outer(vectors @ axis, axis) if axis is not None else np.full_like(vectors, np.nan)
        before, after = cosine(vectors), cosine(rest)
        rows += [
            (name, mine[i].emotion, mine[j].emotion, before[i, j], after[i, j])
            for i, j in combinations(range(len(mine)), 2)
        ]
    return pd.DataFrame(rows, columns=["site", "emotion", "other", "cosine", "without_valence"])


def valence_axis(mine: tuple[Direction, ...]) -> Float[np.ndarray, " d"] | None:
    """The unit vector from the unpleasant emotions to the pleasant ones, or None where one side has none.

    Args:
        mine: directions at one site.
    """
    sides = []
    for sign in (1, -1):
        found = [d.vector.astype(np.float64) for d in mine if sign * (d.facts.get("valence") or 0) > _SIDED]
        if not found:
            return None
        sides.append(np.mean(found, axis=0))
    axis = sides[0] - sides[1]
    length = float(np.linalg.norm(axis))
    return axis / length if length > _NOTHING else None


def cosine(vectors: Float[np.ndarray, "emotion d"]) -> Float[np.ndarray, "emotion emotion"]:
    """Of every two rows; NaN where one has no length.

    Args:
        vectors: rows.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    sure = np.where(lengths > _NOTHING, lengths, np.nan)
    return (vectors @ vectors.T) / np.outer(sure, sure)
