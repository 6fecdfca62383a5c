"""Quadruples of two contexts by two endings, and the difference in which all that adds up over sentences cancels.

d = s(ax) + s(by) - s(ay) - s(bx). Each sentence is in one emotional and in one neutral cell, so a reader that sums over
sentences has d = 0 exactly, whatever its weights.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.stimuli.stimulus import CELLS

ROUNDING = 1e-9  # of the cells' sizes


def quadruples(items: pd.DataFrame, split: str) -> Int[np.ndarray, "group 4"]:
    """Rows of the table: one line a complete quadruple, in the order ax, ay, bx, by."""
    part = items[items["split"] == split]
    if (twice := part[part.duplicated(["group", "cell"])]).size:
        raise BatteryError(f"Quadruple {twice.iloc[0]['group']} has two items in cell {twice.iloc[0]['cell']}.")
    wide = part.reset_index(names="row").pivot(index="group", columns="cell", values="row")
    if not set(CELLS) <= set(wide.columns):
        return np.empty((0, 4), dtype=int)
    return wide[list(CELLS)].dropna().to_numpy(dtype=int)


def differences(
    scores: Float[np.ndarray, "item ..."], rows: Int[np.ndarray, "group 4"]
) -> Float[np.ndarray, "group ..."]:
    """d for each quadruple; 0 where the four cells cancel to rounding."""
    ax, ay, bx, by = (scores[rows[:, i]] for i in range(4))
    d = ax + by - ay - bx
    size = np.abs(ax) + np.abs(ay) + np.abs(bx) + np.abs(by)
    return np.where(np.abs(d) <= ROUNDING * size, 0.0, d)
