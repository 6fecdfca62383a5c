"""Hierarchical clustering of the directions, against the trees that psychologists drew.

Average linkage on 1 minus the centred cosine. The agreement is the correlation, over pairs of names, of the height at
which the dendrogram joins them with the tier at which a tree does (Sokal and Rohlf's cophenetic correlation, 1962,
with the tree in the place of the data). The null re-orders the names in the tree.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import cophenet, linkage

from affectlens.probing.geometry.curves import curve
from affectlens.probing.geometry.directions import Directions
from affectlens.probing.geometry.grams import upper
from affectlens.probing.geometry.models import Model, trees
from affectlens.probing.geometry.nulls import DRAWS, Null, compare, orders
from affectlens.probing.geometry.relating import chunks, dissimilarity

SOME = 200  # resamples: clustering is slow


def tree_agreement(directions: Directions, *, seed: int = 0, draws: int = DRAWS) -> pd.DataFrame:
    """Cophenetic correlation with each tree that applies, at each layer; empty if none does.

    Args:
        directions: of emotions or words.
        seed: of the random orders, where there are more than eight names.
        draws: how many.
    """
    found, _ = trees(directions.names)
    if not found:
        return pd.DataFrame()

    def shape(gram: Float[np.ndarray, "many n n"], kept: Int[np.ndarray, " n"]) -> Float[np.ndarray, "many k"]:
        out = []
        for tree in found:
            rows = np.flatnonzero(np.isin(kept, tree.kept))
            chosen = np.flatnonzero(np.isin(tree.kept, kept))
            wanted = tree.distance[np.ix_(chosen, chosen)][upper(len(chosen))]
            out.append(_standard(heights(gram, rows)) @ _standard(wanted[None])[0])
        return np.stack(out, axis=-1)

    nulls = [_null(directions, tree, seed, draws) for tree in found]
    return curve(directions, shape, most=SOME).rows(directions, [tree.name for tree in found], nulls, "tree")


def heights(gram: Float[np.ndarray, "many n n"], rows: Int[np.ndarray, " name"]) -> Float[np.ndarray, "many pair"]:
    """The height at which average linkage joins each pair of the names in ``rows``."""
    return np.stack([cophenet(linkage(one, "average")) for one in dissimilarity(gram, rows)])


def linkages(directions: Directions, layer: int) -> Float[np.ndarray, "join four"]:
    """SciPy's linkage matrix of all names at one layer of the model."""
    at = directions.layers.index(layer)
    return linkage(dissimilarity(directions.gram[at : at + 1], np.arange(len(directions.names)))[0], "average")


def _null(directions: Directions, tree: Model, seed: int, draws: int) -> Null:
    n = len(tree.kept)
    first, second = upper(n)
    joined = _standard(heights(directions.gram, tree.kept))
    wanted = np.zeros((n, n))
    wanted[first, second] = _standard(tree.distance[first, second][None])[0]
    wanted += wanted.T
    moved, exact = orders(n, seed=seed, draws=draws)
    drawn = [wanted.ravel().take(part[:, first] * n + part[:, second]) @ joined.T
             for part in chunks(moved, len(first))]  # fmt: skip
    return compare(joined @ wanted[first, second], np.concatenate(drawn), exact=exact)


def _standard(values: np.ndarray) -> np.ndarray:
    values = values - values.mean(-1, keepdims=True)
    size = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, size, out=np.zeros_like(values), where=size > 1e-12)
