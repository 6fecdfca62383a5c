"""What noise alone gives: the band within which replies count as settled, and the figures of replies that never moved.

Plain replies to calm turns differ too. Their residuals are drawn anew as whole scripts; both the level at rest (a mean
over few calm turns) and each smoothed turn after the push carry that noise, and a figure over many turns takes the
furthest of them. So the band is a quantile of the largest distance over the recovery, not of a single turn's.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.steering.dynamics.measuring import BAND, overshoot, recovery, settling
from affectlens.steering.dynamics.policies import PLAIN
from affectlens.steering.dynamics.scripts import Phases

DRAWN = 4000  # scripts of noise


def calm_noise(rows: pd.DataFrame) -> Float[np.ndarray, " turn"]:
    """What is left of plain replies to calm turns without their mean in each script.

    Args:
        rows: one a conversation and turn, with ``measured``.
    """
    calm = rows[(rows["policy"] == PLAIN) & (rows["level"] == 0)]
    by_turn = calm.groupby(["protocol", "script", "turn"])["measured"].mean()
    of_script = by_turn.groupby(level=[0, 1])
    n = of_script.transform("size").to_numpy(dtype=float)
    left = (by_turn - of_script.transform("mean")).to_numpy(dtype=float)
    return left * np.sqrt(n / np.maximum(n - 1, 1))


def calm_band(rows: pd.DataFrame, window: int, *, seed: int = 0) -> float:
    """Half the width within which noise stays, smoothed, over all turns after a push, in 95% of scripts.

    Args:
        rows: one a conversation and turn, with ``measured``.
        window: of smoothing.
        seed: of the draws.
    """
    phases = _phases(rows)
    furthest = np.abs(recovery(_drawn(rows, phases, seed), phases, window=window)).max(-1)
    return max(BAND, float(np.quantile(furthest, 0.95)))


def by_noise(rows: pd.DataFrame, *, band: float, window: int, seed: int = 0) -> Mapping[str, float]:
    """Settling and overshoot, in the mean, of replies that nothing moved.

    Args:
        rows: one a conversation and turn, with ``measured``.
        band: of settling.
        window: of smoothing.
        seed: of the draws.
    """
    phases = _phases(rows)
    drawn = _drawn(rows, phases, seed)
    return {
        "settling": float(settling(drawn, phases, band=band, window=window).mean()),
        "overshoot": float(overshoot(drawn, phases, window=window).mean()),
    }


def _phases(rows: pd.DataFrame) -> Phases:
    """Of the push, or of what there is."""
    mine = rows[rows["protocol"] == ("push" if (rows["protocol"] == "push").any() else rows["protocol"].iloc[0])]
    first = mine[mine["script"] == mine["script"].iloc[0]].drop_duplicates("turn").sort_values("turn")
    return Phases.of(first["level"].tolist())


def _drawn(rows: pd.DataFrame, phases: Phases, seed: int) -> Float[np.ndarray, "draw turn"]:
    return np.random.default_rng(seed).choice(calm_noise(rows), size=(DRAWN, len(phases.levels)))
