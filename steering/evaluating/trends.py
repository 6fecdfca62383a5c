"""Does a share rise with the dose? Three numbers of a curve, with intervals and exchanges of doses within prompts.

``rise`` is the least-squares rise of the share over the dose ranks, from the first dose to the last. ``spearman`` is
the rank correlation of share and dose; a flat curve has 0. ``isotonic`` is the largest distance of the curve from the
nearest curve that never falls (pool adjacent violators), 0 if it never does. Under the null a prompt's replies would
have been the same at any dose, so doses are exchanged within each prompt (the design of Page 1963); each statistic has
its own null. ``isotonic`` has no p: noise alone gives falls.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from affectlens.stats import Estimate, Statistic, Weights, estimate
from affectlens.steering.evaluating.shares import sound

DRAWS = 1999  # p of 0.0005 is attainable

Curves = Float[np.ndarray, "draw dose"]
Measure = Callable[[Curves], Float[np.ndarray, " draw"]]


def trend(by_prompt: Float[np.ndarray, "prompt dose"], *, seed: int = 0) -> dict[str, Estimate]:
    """``rise``, ``spearman`` and ``isotonic`` of the mean curve.

    Args:
        by_prompt: each prompt's share at each dose, doses in order.
        seed: of bootstrap and exchanges.
    """
    n, doses = by_prompt.shape
    drawn = np.take_along_axis(by_prompt[None], exchanges(n, doses, seed), axis=2).mean(1)
    out = {}
    for name, measure in MEASURES.items():
        found = sound(estimate(_weighted(by_prompt, measure), n, "prompt", seed=seed, bounds=None))
        least, most = _WITHIN[name]
        low, high = min(found.low, found.value), max(found.high, found.value)  # resampling adds noise, hence falls
        found = replace(found, low=max(low, least), high=min(high, most))
        if name != "isotonic":
            hits = int((measure(drawn) >= found.value - 1e-9).sum())
            found = replace(found, p=(1 + hits) / (1 + DRAWS))
        out[name] = found
    return out


def rise(curves: Curves) -> Float[np.ndarray, " draw"]:
    """The least-squares rise over the dose ranks, from the first to the last.

    Args:
        curves: a share at each dose.
    """
    rank = np.arange(curves.shape[1]) - (curves.shape[1] - 1) / 2
    return curves @ rank / (rank @ rank) * (curves.shape[1] - 1)


def spearman(curves: Curves) -> Float[np.ndarray, " draw"]:
    """Spearman's correlation with the dose, ties at their mean rank; 0 where the curve is flat.

    Args:
        curves: a share at each dose.
    """
    ranks = rankdata(np.round(curves, 9), axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    dose = np.arange(curves.shape[1]) - (curves.shape[1] - 1) / 2
    under = np.sqrt((ranks**2).sum(1) * (dose @ dose))
    return np.divide(ranks @ dose, under, out=np.zeros(len(curves)), where=under > 0)


def off_isotonic(curves: Curves) -> Float[np.ndarray, " draw"]:
    """The largest distance from the least-squares curve that never falls: max over j <= i of min over k >= i of means.

    Args:
        curves: a share at each dose.
    """
    n = curves.shape[1]
    total = np.concatenate([np.zeros((len(curves), 1)), np.cumsum(curves, axis=1)], axis=1)
    fitted = np.empty_like(curves)
    for i in range(n):
        least = [
            np.min([(total[:, k + 1] - total[:, j]) / (k + 1 - j) for k in range(i, n)], axis=0) for j in range(i + 1)
        ]
        fitted[:, i] = np.max(least, axis=0)
    return np.abs(curves - fitted).max(1)


MEASURES: dict[str, Measure] = {"rise": rise, "spearman": spearman, "isotonic": off_isotonic}
_WITHIN = {"rise": (-np.inf, np.inf), "spearman": (-1.0, 1.0), "isotonic": (0.0, 1.0)}


@lru_cache(maxsize=4)
def exchanges(n: int, doses: int, seed: int) -> Int[np.ndarray, "draw prompt dose"]:
    """An order of the doses for each draw and prompt. They are shared: don't write into them."""
    order = np.random.default_rng(seed).random((DRAWS, n, doses)).argsort(axis=2)
    order.flags.writeable = False
    return order


def _weighted(by_prompt: Float[np.ndarray, "prompt dose"], measure: Measure) -> Statistic:
    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        return measure(weights @ by_prompt / weights.sum(1, keepdims=True))

    return statistic
