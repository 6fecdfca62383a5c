"""A target share among those of placebo draws: the rank's p, corrected over the emotions.

The statistic is the share of replies called the target, over the prompts and seeds that the steered replies and all
draws have in common, the same for both. p = (1 + hits) / (1 + draws), where a hit is a draw with at least the steered
share. Where the emotions have the same draw numbers, the family is corrected by the largest standardised share of each
draw (max-T, Westfall and Young 1993), else by Benjamini and Hochberg (1995).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import false_discovery_control

from affectlens.steering.evaluating.shares import called

MAX_T, BH, ALONE = "max-T", "Benjamini-Hochberg", "one test"


@dataclass(frozen=True)
class Rank:
    """Where the steered share stands."""

    seen: float
    drawn: Float[np.ndarray, " draw"]  # in the order of ``draws``
    draws: tuple[int, ...]
    cells: int  # replies behind each share
    p: float
    p_adjusted: float | None = None
    correction: str = ""

    @property
    def attainable(self) -> float:
        """The least p that so many draws can give."""
        return 1 / (1 + len(self.draws))


def rank(steered: pd.DataFrame, placebo: pd.DataFrame, column: str, label: str) -> Rank | None:
    """The steered share among the draws'; None if they have no prompt and seed in common.

    Args:
        steered: the steered replies.
        placebo: those of all draws of one kind.
        column: of labels.
        label: the target.
    """
    if steered.empty or placebo.empty:
        return None
    cell = ["prompt", "seed"]
    mine = steered.assign(hit=called(steered, column, label)).set_index(cell)["hit"]
    table = placebo.assign(hit=called(placebo, column, label)).pivot_table(index=cell, columns="draw", values="hit")
    table = table.dropna().loc[lambda one: one.index.isin(mine.index)]
    if table.empty:
        return None
    seen, drawn = float(mine.loc[table.index].mean()), table.to_numpy(dtype=float).mean(0)
    p = (1 + int((drawn >= seen - 1e-9).sum())) / (1 + len(drawn))
    return Rank(seen, drawn, tuple(int(one) for one in table.columns), len(table), p)


def corrected(ranks: Mapping[int, Rank]) -> dict[int, Rank]:
    """The ranks with p adjusted over the family.

    Args:
        ranks: of each member of the family, most often an emotion.
    """
    if len(ranks) < 2:
        return {name: replace(one, p_adjusted=one.p, correction=ALONE) for name, one in ranks.items()}
    if len({one.draws for one in ranks.values()}) > 1:
        adjusted = false_discovery_control([one.p for one in ranks.values()])
        return {name: replace(one, p_adjusted=float(p), correction=BH)
                for (name, one), p in zip(ranks.items(), adjusted, strict=True)}  # fmt: skip
    t = np.stack([_standardised(one) for one in ranks.values()], axis=1)  # the steered share first, then the draws
    most = t[1:].max(1)
    return {
        name: replace(one, p_adjusted=(1 + int((most >= seen - 1e-9).sum())) / (1 + len(most)), correction=MAX_T)
        for (name, one), seen in zip(ranks.items(), t[0], strict=True)
    }


def _standardised(one: Rank) -> Float[np.ndarray, " draw_plus_one"]:
    """The steered share and the draws' less their mean, over their deviation; all alike have 0."""
    every = np.array([one.seen, *one.drawn])
    spread = every.std()
    return (every - every.mean()) / spread if spread > 0 else np.zeros(len(every))
