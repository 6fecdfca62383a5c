"""Representational similarity: does the distance between directions follow a model's distance between emotions?

Spearman correlation over pairs, of 1 minus the centred cosine with the model's dissimilarity (Kriegeskorte, Mur and
Bandettini 2008, Frontiers in Systems Neuroscience 2), or a partial one with other dissimilarities' ranks taken out of
both. The null re-orders the names in what is left of the model (Dekker, Krackhardt and Snijders 2007, Psychometrika
72): all orders up to eight names, else 9,999. Pairs share names, so no textbook p of a correlation holds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import rankdata

from affectlens.probing.geometry.curves import Curve, curve
from affectlens.probing.geometry.directions import Directions
from affectlens.probing.geometry.grams import centred, cosines, upper
from affectlens.probing.geometry.models import Model, Norms, models
from affectlens.probing.geometry.nulls import DRAWS, Null, compare, orders

CHUNK = 100_000  # pairs at a time: what stays in a processor's cache


def rsa(directions: Directions, *, norms: Norms | None = None, seed: int = 0, draws: int = DRAWS) -> pd.DataFrame:
    """Agreement of the directions with every model that applies, at each layer.

    Args:
        directions: of emotions or words.
        norms: valence, arousal and dominance of the names; the Glasgow Norms by default.
        seed: of the random orders, where there are more than eight names.
        draws: how many.

    Returns:
        A row a model and layer: ``value, low, high, n, unit, p, p_adjusted`` (max-T over layers), ``attainable``.
    """
    found, _ = models(directions.names, norms)
    nulls = [null(directions, model, seed=seed, draws=draws) for model in found]
    return rsa_curve(directions, found).rows(directions, [model.name for model in found], nulls, "model")


def rsa_curve(directions: Directions, found: Sequence[Model]) -> Curve:
    """The agreement with each model by layer, and with each cluster left out."""

    def shape(gram: Float[np.ndarray, "many n n"], kept: Int[np.ndarray, " n"]) -> Float[np.ndarray, "many k"]:
        out, ranks = [], {}
        for model in found:
            rows = np.flatnonzero(np.isin(kept, model.kept))
            chosen = np.flatnonzero(np.isin(model.kept, kept))
            if (key := tuple(rows)) not in ranks:
                ranks[key] = _ranks(dissimilarity(gram, rows))
            wanted, basis = _wanted(model, chosen)
            out.append(_left(ranks[key], basis) @ _unit(wanted[upper(len(chosen))]))
        return np.stack(out, axis=-1) if out else np.zeros((len(gram), 0))

    return curve(directions, shape)


def null(directions: Directions, model: Model, *, seed: int = 0, draws: int = DRAWS) -> Null:
    """The test of one model over layers."""
    every = np.arange(len(model.kept))
    wanted, basis = _wanted(model, every)
    neural = _left(_ranks(dissimilarity(directions.gram, model.kept)), basis)
    seen = neural @ _unit(wanted[upper(len(every))])
    moved, exact = orders(len(every), seed=seed, draws=draws)
    first, second = upper(len(every))
    n, flat, power = len(every), wanted.ravel(), (wanted[first, second] ** 2).sum()
    sides = np.concatenate([neural, basis.T])
    drawn = []
    for part in chunks(moved, len(first)):
        both = flat.take(part[:, first] * n + part[:, second]) @ sides.T
        shown, explained = both[:, : len(neural)], (both[:, len(neural) :] ** 2).sum(1, keepdims=True)
        drawn.append(shown / np.sqrt(np.maximum(power - explained, 1e-9 * power)))
    return compare(seen, np.concatenate(drawn), exact=exact)


def dissimilarity(
    gram: Float[np.ndarray, "many n n"], rows: Int[np.ndarray, " name"]
) -> Float[np.ndarray, "many pair"]:
    """1 minus the cosine between the names of ``rows``, centred on all names that there are."""
    first, second = upper(len(rows))
    return (1 - cosines(centred(gram))[:, rows[:, None], rows[None]])[:, first, second]


def chunks(moved: Int[np.ndarray, "draw n"], pairs: int) -> list[Int[np.ndarray, "some n"]]:
    """Orders in portions whose pairs fit into a processor's cache."""
    return np.array_split(moved, max(1, len(moved) * pairs // CHUNK))


def _wanted(model: Model, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of a model's dissimilarity as a square, the covariates' share removed; and the covariates' basis."""
    first, second = upper(len(chosen))
    sides = [rankdata(square[np.ix_(chosen, chosen)][first, second]) for square in (model.distance, *model.given)]
    basis = np.linalg.qr(np.stack([np.ones(len(first)), *sides[1:]], axis=1))[0]
    out = np.zeros((len(chosen), len(chosen)))
    out[first, second] = sides[0] - basis @ (basis.T @ sides[0])
    return out + out.T, basis


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of the pairs; distances that differ by rounding alone are tied."""
    return np.asarray(rankdata(values.round(12), axis=-1), dtype=float)


def _left(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Rows of unit length, once a basis is taken out of them."""
    return _unit(values - (values @ basis) @ basis.T)


def _unit(values: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, size, out=np.zeros_like(values), where=size > 1e-9)
