"""The circuit among random ones of its size: connected to the end, with as many edges between the same layers.

p = (1 + random circuits whose f is at least as high) / (1 + random circuits). As f can pass 1, the share that is at
least as near to 1 stands beside it, with a p of its own. The difference from their mean has an
interval over scenes; the random circuits are the same in each resample.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from affectlens.circuits.verifying.ratios import Sums
from affectlens.circuits.verifying.sizing import kept, size_of
from affectlens.stats import Estimate, binomial, less

SHOWN = (0.025, 0.25, 0.5, 0.75, 0.975, 1.0)


def drawn(fraction: float, draw: int) -> str:
    """The name of a random circuit.

    Args:
        fraction: its size.
        draw: its number.
    """
    return f"random {size_of(fraction)} {draw}"


def draws_of(sums: Sums, fraction: float) -> list[str]:
    """The names of the random circuits of a size, in the order of their numbers.

    Args:
        sums: of all circuits.
        fraction: the size.
    """
    start = drawn(fraction, 0)[:-1]
    return sorted((name for name in sums.names if name.startswith(start)), key=lambda name: int(name[len(start) :]))


def randoms(sums: Sums, fractions: Sequence[float]) -> pd.DataFrame:
    """One row a random circuit: ``fraction, draw, f`` on all held-out pairs. A distribution, so without intervals.

    Args:
        sums: of all circuits.
        fractions: the sizes.
    """
    rows = []
    for fraction in fractions:
        if names := draws_of(sums, fraction):
            f = sums.f(names, np.ones((1, len(sums.n))))[0]
            rows += [(fraction, draw, float(value)) for draw, value in enumerate(f)]
    return pd.DataFrame(rows, columns=["fraction", "draw", "f"])


def beside(table: pd.DataFrame, curve: pd.DataFrame) -> pd.DataFrame:
    """The curve with the random circuits' ``draws``, ``random_low, random_median, random_high`` (95% of them).

    Args:
        table: from :func:`randoms`.
        curve: one row a size.
    """
    found = table.groupby("fraction")["f"].agg(
        draws="size",
        random_low=lambda f: float(np.quantile(f, 0.025)),
        random_median="median",
        random_high=lambda f: float(np.quantile(f, 0.975)),
    )
    return curve.merge(found, how="left", left_on="fraction", right_index=True)


def rank(sums: Sums, fraction: float, *, seed: int = 0) -> Estimate | None:
    """f less the mean of the random circuits', with the rank's p; None if there are none.

    Args:
        sums: of all circuits.
        fraction: the size.
        seed: of the bootstrap.
    """
    names = draws_of(sums, fraction)
    if not names:
        return None
    ours = sums.one(kept(fraction))
    found = sums.estimate(less(ours, sums.mean(names)), seed)
    every = np.ones((1, len(sums.n)))
    f, theirs = float(ours(every)[0]), sums.f(names, every)[0]
    p = (1 + int((theirs >= f - 1e-9).sum())) / (1 + len(names))
    return replace(found, p=p)


def near(sums: Sums, fraction: float) -> Estimate:
    """The share of random circuits whose f is at least as near to 1, over random circuits; its p as a rank.

    Args:
        sums: of all circuits.
        fraction: the size.
    """
    every = np.ones((1, len(sums.n)))
    away = np.abs(1 - sums.f([kept(fraction), *draws_of(sums, fraction)], every)[0])
    hits, n = int((away[1:] <= away[0] + 1e-9).sum()), len(away) - 1
    return replace(binomial(float(hits), n, "random circuit"), p=(1 + hits) / (1 + n))
