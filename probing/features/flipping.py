"""Sign-flip tests of thousands of columns at once: all flips up to 16 pairs, beyond them two stages of random ones.

Under the null hypothesis the two twins of a pair are exchangeable, so that each difference is as likely to have the
other sign. The statistic is Student's t. Flips leave the sum of squares as it is, so t rises with the sum alone and the
flips are compared by their sums: one matrix product. For large n the test also holds where differences have mean zero
without being symmetric (Romano 1990, Journal of the American Statistical Association 85).

Two stages: each column gets p1 from a first set of flips; where p1 <= ``BOUND``, a number fixed beforehand, the p
reported is p2, from fresh and more numerous flips, and p1 elsewhere. The reported p is valid at every level a: for a <=
BOUND, P(p <= a) <= P(p2 <= a) <= a; for a > BOUND, p <= a implies p1 <= a.

Sums are of float32 numbers; a flip counts as a hit where its sum comes within the worst rounding error of the one seen,
so that rounding can only raise p.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

EXACT = 16  # pairs, up to which all flips are used
FIRST, SECOND = 9_999, 99_999  # random flips of the two stages
BOUND = 0.02  # of p1, from where on the second stage decides
_ROWS, _AT_ONCE = 8_192, 8_000_000  # flips a product, numbers in its result


def flip_p(
    values: Float[np.ndarray, "pair column"], *, sided: int = 2, draws: int = FIRST, seed: int | tuple[int, ...] = 0
) -> Float[np.ndarray, " column"]:
    """p of each column's mean by sign flips of whole pairs.

    Args:
        values: differences.
        sided: 2, or 1 for the alternative that the mean is positive.
        draws: random flips where there are more than 16 pairs: p = (1 + hits) / (1 + draws).
        seed: of the random flips.

    Returns:
        p, exact up to 16 pairs.
    """
    if not len(values):
        return np.ones(values.shape[1])
    rows = np.ascontiguousarray(values.T, dtype=np.float32)
    exact = len(values) <= EXACT
    wide = rows.astype(np.float64)
    seen = np.abs(wide.sum(1)) if sided == 2 else wide.sum(1)
    limit = (seen - len(values) * 2.0**-23 * np.abs(wide).sum(1)).astype(np.float32)
    limit = np.nextafter(limit, np.float32(-np.inf), dtype=np.float32)
    hits = np.zeros(len(rows), dtype=np.int64)
    half = exact and sided == 2  # a flip and its opposite have the same absolute sum
    for drawn in _every(len(values) - half) if exact else _random(len(values), draws, seed):
        signs = np.concatenate([drawn, np.ones_like(drawn[:1])]) if half else drawn
        width = max(1, _AT_ONCE // signs.shape[1])
        sums = np.empty((min(width, len(rows)), signs.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), width):
            some = slice(start, start + width)
            part = np.matmul(rows[some], signs, out=sums[: len(rows[some])])
            if sided == 2:
                np.abs(part, out=part)
            hits[some] += np.count_nonzero(part >= limit[some, None], axis=1)
    return hits / 2 ** (len(values) - half) if exact else (1 + hits) / (1 + draws)


def two_stage_p(
    values: Float[np.ndarray, "pair column"], *, sided: int = 2, seed: tuple[int, ...] = (0,)
) -> Float[np.ndarray, " column"]:
    """p by :func:`flip_p`, with more and fresh flips for the columns that a first set leaves at or below ``BOUND``.

    Args:
        values: differences.
        sided: 2, or 1 for the alternative that the mean is positive.
        seed: of the random flips.

    Returns:
        p, exact up to 16 pairs.
    """
    p = flip_p(values, sided=sided, draws=FIRST, seed=(*seed, 1))
    if len(values) > EXACT and (left := np.flatnonzero(p <= BOUND)).size:
        p[left] = flip_p(values[:, left], sided=sided, draws=SECOND, seed=(*seed, 2))
    return p


def attainable(values: Float[np.ndarray, "pair column"]) -> Float[np.ndarray, " column"]:
    """The least two-sided p that each column could have got: flipping a difference of zero changes nothing.

    Args:
        values: differences.
    """
    least = 2.0 ** (1 - np.count_nonzero(values, axis=0).astype(float))
    return np.minimum(1.0, least if len(values) <= EXACT else np.maximum(least, 1 / (1 + SECOND)))


def _every(n: int) -> Iterator[Float[np.ndarray, "pair flip"]]:
    """Every flip once, in blocks."""
    for start in range(0, 2**n, _ROWS):
        codes = np.arange(start, min(start + _ROWS, 2**n))
        yield (1 - 2 * ((codes >> np.arange(n)[:, None]) & 1)).astype(np.float32)


def _random(n: int, draws: int, seed: int | tuple[int, ...]) -> Iterator[Float[np.ndarray, "pair flip"]]:
    """Random flips, in blocks."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, _ROWS):
        drawn = rng.integers(0, 2, size=(n, min(_ROWS, draws - start)), dtype=np.int8)
        yield (1 - 2 * drawn).astype(np.float32)
