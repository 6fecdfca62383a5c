"""The closed loop less each control, script by script: what is tested, and what so few scripts could show.

Tested are the primary figures alone, ``response`` and ``hysteresis``, each against every control and under every rule:
signs of whole scripts are flipped, with max-T over all of them (Westfall and Young 1993). The other figures are
described by their intervals.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from affectlens.stats import Estimate, estimate, sign_flips
from affectlens.steering.dynamics.inferring import UNIT, Measured, mean_of, names_of, said
from affectlens.steering.dynamics.measuring import figure_of
from affectlens.steering.dynamics.policies import CLOSED, CONTROLS
from affectlens.types import Json

PRIMARY = ("response", "hysteresis")
LEVEL, POWER = 0.05, 0.8


def differences(
    protocols: Sequence[Measured], *, band: float, window: int, seed: int = 0, primary: Sequence[str] = PRIMARY
) -> pd.DataFrame:
    """The closed loop less each control, in pairs by script.

    Args:
        protocols: push and ramp, or one of them; of the same scripts, in one order.
        band: of settling.
        window: of smoothing.
        seed: of the bootstrap and of the flips.
        primary: figures that are tested; the others have no p.

    Returns:
        A row a figure, rule and control: ``value, low, high, n, method, primary, p, p_adjusted``, ``attainable`` (the
        least p that so many scripts can give) and ``detectable`` (the least difference that this very test, corrected,
        finds with 80% power; infinite where it can find none).
    """
    columns: list[Float[np.ndarray, " script"]] = []
    heads: list[Json] = []
    for one in protocols:
        for rule in one.states:
            for name in names_of(one):
                of = figure_of(name, band=band, window=window)
                loop = of(one.values[rule, CLOSED], one.states[rule], one.phases, one.rest)
                for control in CONTROLS:
                    if (rule, control) in one.values:
                        columns.append(loop - of(one.values[rule, control], one.states[rule], one.phases, one.rest))
                        heads.append({"figure": name, "rule": rule, "control": control, "primary": name in primary})
    table = np.stack(columns, axis=1)
    main = np.flatnonzero([bool(head["primary"]) for head in heads])
    p, adjusted, critical = np.full(len(heads), np.nan), np.full(len(heads), np.nan), np.inf
    flips = sign_flips(np.nan_to_num(table[:, main]), seed=seed) if len(main) else None
    if flips is not None:
        p[main], adjusted[main] = flips.p, flips.p_adjusted
        critical = critical_t(np.nan_to_num(table[:, main]), seed=seed)
    rows = []
    for k, head in enumerate(heads):
        found = estimate(mean_of(table[:, k]), len(table), UNIT, seed=seed, bounds=None)
        least = _detectable(found, critical) if head["primary"] else np.nan
        rows.append(head | said(found) | {
            "p": p[k], "p_adjusted": adjusted[k], "attainable": flips.attainable if flips else np.nan,
            "detectable": least,
        })  # fmt: skip
    return pd.DataFrame(rows)


def critical_t(table: Float[np.ndarray, "script column"], *, seed: int = 0, draws: int = 9999) -> float:
    """The least t that max-T over flipped signs calls sure; infinite if so few scripts can't give it.

    The columns' means are taken out first: it is the threshold where there is nothing to find.

    Args:
        table: a difference a script and contrast.
        seed: of the flips, if there are too many for all.
        draws: how many then.
    """
    n = len(table)
    if n < 2:
        return np.inf
    signs = (
        np.array(list(product((1.0, -1.0), repeat=n))) if n <= 14
        else np.random.default_rng(seed).choice([1.0, -1.0], size=(draws, n))
    )  # fmt: skip
    left = table - table.mean(0)
    mean, square = signs @ left / n, (left**2).sum(0)
    kept = square > 1e-18
    if not kept.any():
        return np.inf
    spread = np.sqrt(np.maximum(square - n * mean**2, 1e-12 * (square + 1e-300)) / (n - 1) / n)
    largest = np.sort((np.abs(mean) / np.where(spread > 0, spread, np.inf))[:, kept].max(1))[::-1]
    allowed = int(np.floor(LEVEL * len(signs) + 1e-9))
    allowed -= allowed % 2 if n <= 14 else 0  # a flip and its mirror are as large: of all flips they come in pairs
    if allowed < 2:
        return np.inf
    return float(largest[allowed - 1])


def _detectable(found: Estimate, critical: float) -> float:
    """The threshold and the power's share of it, in standard errors of the difference."""
    df = max(found.n - 1, 1)
    error = (found.high - found.low) / 2 / float(stats.t.ppf(0.975, df))
    return float(error * (critical + stats.t.ppf(POWER, df))) if np.isfinite(critical) else np.inf
