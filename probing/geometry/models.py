"""What emotions should be like one another, by people's ratings and by theory: model dissimilarities and trees.

Valence, arousal and dominance are the norms' own ratings, 1 to 9, so a distance in all three weighs them as people
spread them. The wheel is Plutchik's (1980): steps between two of the eight, 0 to 4. The category is Parrott's (2001)
first tier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import pdist, squareform

from affectlens.errors import BatteryError
from affectlens.stimuli.norms import VAD, norms
from affectlens.stimuli.schemes import plutchik, tiers
from affectlens.stimuli.taxonomy import EMOTIONS, PEAK

Norms = Mapping[str, VAD]
LEAST = 5  # names; below, too few orders are left for a test


@dataclass(frozen=True)
class Model:
    """A dissimilarity between some of the names, less what other dissimilarities explain of it."""

    name: str
    kept: Int[np.ndarray, " name"]  # the names that it speaks of
    distance: Float[np.ndarray, "name name"]
    given: tuple[Float[np.ndarray, "name name"], ...] = ()


def coordinates(names: Sequence[str], given: Norms | None = None) -> Float[np.ndarray, "name three"]:
    """Valence, arousal and dominance of each name, NaN where the norms have neither it nor its peak form."""
    table = norms() if given is None else given
    blank = VAD(np.nan, np.nan, np.nan)
    return np.array([table.get(n) or table.get(PEAK.get(n, n)) or blank for n in names], dtype=float)


def norm_contrast(names: Sequence[str], given: Norms | None = None) -> Float[np.ndarray, " name"]:
    """Centred valence of the names, 0 where there is none: the weights whose sum of directions is the valence axis.

    Raises:
        BatteryError: no name has norms.
    """
    valence = coordinates(names, given)[:, 0]
    if np.isnan(valence).all():
        raise BatteryError("None of these names has norms: give norms= of your own.")
    return np.nan_to_num(valence - np.nanmean(valence))


def models(names: Sequence[str], given: Norms | None = None) -> tuple[list[Model], dict[str, str]]:
    """The model dissimilarities that apply to these names; and why others do not."""
    vad = coordinates(names, given)
    rated = np.flatnonzero(np.isfinite(vad).all(1))
    found, skipped = [], {}
    if len(rated) < LEAST:
        skipped["norms"] = f"{len(rated)} of the names have norms, and {LEAST} are needed"
    else:
        valence, arousal = (squareform(pdist(vad[rated, k : k + 1])) for k in (0, 1))
        found += [Model("valence, arousal, dominance", rated, squareform(pdist(vad[rated]))),
                  Model("valence", rated, valence),
                  Model("arousal given valence", rated, arousal, (valence,))]  # fmt: skip
    petals = [plutchik(name) for name in names]
    there = np.array(
        [k for k, petal in enumerate(petals) if petal is not None and np.isfinite(vad[k]).all()], dtype=int
    )
    if len({petals[k] for k in there}) < LEAST:
        skipped["wheel"] = f"fewer than {LEAST} of Plutchik's emotions are among the names"
    else:
        wheel, apart = steps([str(petals[k]) for k in there]), squareform(pdist(vad[there, :1]))
        found += [Model("wheel", there, wheel), Model("wheel given valence", there, wheel, (apart,))]
    tier = [tiers(name) for name in names]
    there = np.array([k for k, one in enumerate(tier) if one], dtype=int)
    first = np.array([tier[k][0] for k in there])
    same = first[:, None] == first[None]
    if same.sum() - len(there) < 2 * len(there):
        skipped["category"] = "hardly two of the names share a category"
    else:
        found.append(Model("category", there, (~same).astype(float)))
    return found, skipped


def steps(petals: Sequence[str]) -> Float[np.ndarray, "name name"]:
    """Steps on Plutchik's wheel between emotions, 0 to 4."""
    place = np.array([EMOTIONS.index(petal) for petal in petals])
    apart = np.abs(place[:, None] - place[None])
    return np.minimum(apart, 8 - apart).astype(float)


def trees(names: Sequence[str]) -> tuple[list[Model], dict[str, str]]:
    """Distances in Parrott's and Plutchik's trees: how many tiers up two names meet; and why a tree does not apply.

    Parrott's has three tiers. Plutchik's has two, an emotion at three intensities; over the eight emotions by
    themselves it says nothing, as all of them are equally far apart.
    """
    found, skipped = [], {}
    paths: dict[str, list[tuple[str, ...] | None]] = {
        "Parrott": [tiers(name) for name in names],
        "Plutchik": [None if (p := plutchik(name)) is None else (p,) for name in names],
    }
    for tree, path in paths.items():
        there = np.array([k for k, one in enumerate(path) if one], dtype=int)
        where = [path[k] or () for k in there]
        far = np.array([[_apart(a, b) if i != j else 0.0 for j, b in enumerate(where)] for i, a in enumerate(where)])
        pairs = far[np.triu_indices(len(there), 1)] if len(there) else far
        if len(there) < LEAST or len(np.unique(pairs)) < 2:
            skipped[tree] = f"all {len(there)} of the names that it has are equally far apart in it"
        else:
            found.append(Model(tree, there, far))
    return found, skipped


def _apart(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    shared = next((k for k, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
    return float(1 + len(a) - shared)
