"""The curve of faithfulness over sizes, and the smallest size that stays near the model's value.

The size at 0.8 is the smallest from which on f stays within [0.8, 1.2]: f can pass 1, so reaching 0.8 once is not
enough. Its interval inverts the simultaneous band of f over the sizes: it begins at the first size from which on the
band meets [0.8, 1.2], and ends at the first from which on the band lies inside. Where the band holds, so does this
interval. A bootstrap of the size itself would jump between few values.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from affectlens.circuits.verifying.ratios import UNIT, Sums
from affectlens.stats import Band, Estimate, band, less

WITHIN = (0.8, 1.2)
INVERTED = "inverted simultaneous band (sup-t) of f"


def size_of(value: float) -> str:
    """A size in the name of a circuit.

    Args:
        value: the share of the edges.
    """
    return f"{value:g}"


def kept(fraction: float) -> str:
    """The name of the circuit of a size."""
    return f"size {size_of(fraction)}"


def rest(fraction: float) -> str:
    """The name of its complement: every other edge."""
    return f"complement {size_of(fraction)}"


def curve(sums: Sums, fractions: Sequence[float], *, seed: int = 0) -> tuple[pd.DataFrame, Band]:
    """One row a size: ``fraction, f, low, high`` (pointwise), ``band_low, band_high`` (of all sizes at once),
    ``complement`` and ``lead`` (f less the complement's), each with ``_low`` and ``_high``.

    Args:
        sums: with circuits named by :func:`kept` and :func:`rest`.
        fractions: the sizes.
        seed: of the bootstrap.
    """  # fmt: skip
    rows = []
    whole = band([sums.one(kept(one)) for one in fractions], len(sums.n), seed=seed)
    for at, fraction in enumerate(fractions):
        row: dict[str, float] = {"fraction": fraction}
        ours = sums.one(kept(fraction))
        put(row, "f", sums.estimate(ours, seed), bare=True)
        row |= {"band_low": float(whole.low[at]), "band_high": float(whole.high[at])}
        if rest(fraction) in sums.at:
            theirs = sums.one(rest(fraction))
            put(row, "complement", sums.estimate(theirs, seed))
            put(row, "lead", sums.estimate(less(ours, theirs), seed))
        rows.append(row)
    return pd.DataFrame(rows), whole


def put(row: dict[str, float], name: str, found: Estimate, *, bare: bool = False) -> None:
    """Write an estimate and its ends into a row.

    Args:
        row: of a table.
        name: of the column.
        found: the estimate.
        bare: call the ends ``low`` and ``high`` alone.
    """
    low, high = ("low", "high") if bare else (f"{name}_low", f"{name}_high")
    row |= {name: found.value, low: found.low, high: found.high}


def size_at(fractions: Sequence[float], whole: Band, n: int) -> Estimate:
    """The size at 0.8 with its interval; infinite where no size tried stays within the band.

    Args:
        fractions: rising sizes.
        whole: f at each with its simultaneous band.
        n: scenes.
    """
    low, high = WITHIN
    value = _from_there_on((whole.value >= low) & (whole.value <= high), fractions)
    first = _from_there_on((whole.high >= low) & (whole.low <= high), fractions)
    last = _from_there_on((whole.low >= low) & (whole.high <= high), fractions)
    return Estimate(value, first, last, n, UNIT, method=INVERTED)


def sizes_within(whole: Band, middle: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far values lie from a middle, and the least and the most that their simultaneous band leaves room for.

    A distance is never below zero, so an uncertain one is too large on average and resamples make it larger still: in
    simulations percentiles of a bootstrap covered a mean of distances 0.2 to 0.95 of the time. These ends hold where
    the band does.

    Args:
        whole: of the values.
        middle: from which distances count.
    """
    away, low, high = (np.abs(one - middle) for one in (whole.value, whole.low, whole.high))
    least = np.where((whole.low <= middle) & (whole.high >= middle), 0.0, np.minimum(low, high))
    return away, least, np.maximum(low, high)


def cmd_of(fractions: Sequence[float], whole: Band, n: int) -> Estimate:
    """The area under \\|1 - f\\| with the interval that the simultaneous band of f leaves room for.

    Args:
        fractions: rising sizes.
        whole: f at each.
        n: scenes.
    """
    value, low, high = (float(np.trapezoid(one, np.asarray(fractions))) for one in sizes_within(whole, 1.0))
    return Estimate(value, low, high, n, UNIT, method=INVERTED)


def _from_there_on(holds: Bool[np.ndarray, " size"], fractions: Sequence[float]) -> float:
    """The first size from which on it always holds."""
    stays = np.logical_and.accumulate(holds[::-1])[::-1]
    return float(fractions[int(np.argmax(stays))]) if stays.any() else float("inf")


def to_test(fractions: Sequence[float], whole: Band, n: int, full: Sequence[float]) -> float:
    """The size that the other tests are made at: the one at 0.8, or the proper size whose f is nearest to 1.

    Args:
        fractions: rising sizes.
        whole: f at each.
        n: scenes.
        full: the sizes whose circuits have edges, one of them proper.
    """
    found = size_at(fractions, whole, n).value
    if found < 1:
        return found
    proper = [at for at, one in enumerate(fractions) if one < 1 and one in full]
    return float(fractions[min(proper, key=lambda at: abs(1 - whole.value[at]))])
