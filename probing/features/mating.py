"""Whether features come back in a dictionary trained from another seed: mates by decoder cosine, and what they share.

Two dictionaries of one model and site have no order in common. Their features are matched one to one so that the sum of
cosines between decoder rows is the largest (Hungarian algorithm), as in Paulo and Belrose (2025, arXiv 2501.16615).
"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats
from scipy.optimize import linear_sum_assignment

from affectlens.errors import StoreError
from affectlens.probing.features.effecting import shares

SHARE, MATED = ("share", "low", "high"), ("mated", "mated_low", "mated_high")
CONTROL = ("control_share", "control_low", "control_high")
CONTROL_MATED = ("control_mated", "control_mated_low", "control_mated_high")


def mates(a: Float[np.ndarray, "feature d"], b: Float[np.ndarray, "other _"]) -> pd.DataFrame:
    """Match the features of two dictionaries by the cosine of their decoder rows, one to one.

    Args:
        a: decoder rows of one dictionary.
        b: those of the other, in the same space.

    Returns:
        ``feature``, ``mate``, ``cosine``, and ``mutual``: whether each is the other's nearest of all. As many rows as
        the smaller dictionary has features.

    Raises:
        StoreError: the rows differ in length, so that the dictionaries read different spaces.
    """
    if a.shape[1] != b.shape[1]:
        raise StoreError(
            f"Decoder rows are {a.shape[1]} and {b.shape[1]} long: match dictionaries of one model and site."
        )
    cosine = _unit(a) @ _unit(b).T
    rows, columns = linear_sum_assignment(cosine, maximize=True)
    mutual = (cosine.argmax(1)[rows] == columns) & (cosine.argmax(0)[columns] == rows)
    return pd.DataFrame({"feature": rows, "mate": columns, "cosine": cosine[rows, columns], "mutual": mutual})


def stable(table: pd.DataFrame, mates: pd.DataFrame, other_table: pd.DataFrame, *, cosine: float = 0.7) -> pd.DataFrame:
    """The share of surviving features whose mate is near and survives too, beside that of features that don't survive.

    Dense features are found again more easily, whatever they mean. So each surviving feature has a control: a tested
    one of the same emotion that does not survive, as near as can be in active pairs, each used once. Intervals are
    exact binomial; features of one dictionary, read on the same scenes, are not independent, which they leave out.

    Args:
        table: by :func:`differential`, of one dictionary.
        mates: by :func:`mates`, from it to the other.
        other_table: by :func:`differential`, of the other.
        cosine: from where on a mate counts.

    Returns:
        One row an emotion: ``surviving``; of these ``stable``, ``share``, ``low``, ``high``, and ``mated``,
        ``mated_low``, ``mated_high``, the share with a near mate whether it survives or not; of the ``controls``
        ``control_share``, ``control_low``, ``control_high``, ``control_mated``, ``control_mated_low``,
        ``control_mated_high``; ``gap``, the mean difference in active pairs; ``p``, exact McNemar test of ``share``
        against ``control_share``.
    """
    near = mates[mates["cosine"] >= cosine]
    rows = []
    for emotion, part in table.groupby("emotion", sort=False):
        there = other_table[(other_table["emotion"] == emotion) & other_table["survives"]]
        mated = part["feature"].isin(near["feature"]).to_numpy()
        kept = part["feature"].isin(near.loc[near["mate"].isin(there["feature"]), "feature"]).to_numpy()
        survives = part["survives"].to_numpy(dtype=bool)
        mine, theirs = _matched(part["active"].to_numpy(dtype=float), survives)
        one, only = int((kept[mine] & ~kept[theirs]).sum()), int((~kept[mine] & kept[theirs]).sum())
        gap = np.abs(part["active"].to_numpy()[mine] - part["active"].to_numpy()[theirs])
        rows.append(
            {
                "emotion": emotion, "surviving": int(survives.sum()), "stable": int(kept[survives].sum()),
                **_share(SHARE, kept[survives]), **_share(MATED, mated[survives]),
                "controls": len(theirs),
                **_share(CONTROL, kept[theirs]),
                **_share(CONTROL_MATED, mated[theirs]),
                "gap": float(gap.mean()) if len(gap) else float("nan"),
                "p": float(stats.binomtest(one, one + only).pvalue) if one + only else 1.0,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _matched(active: Float[np.ndarray, " row"], survives: Bool[np.ndarray, " row"]) -> tuple[np.ndarray, np.ndarray]:
    """Rows that survive, the most active first, and for each the nearest in activity of those that don't, used once."""
    mine, theirs = np.flatnonzero(survives), np.flatnonzero(~survives)
    mine = mine[np.argsort(-active[mine], kind="stable")][: len(theirs)]
    gap = np.abs(active[mine][:, None] - active[theirs][None])
    chosen = []
    for row in range(len(mine)):
        chosen.append(int(gap[row].argmin()))
        gap[:, chosen[-1]] = np.inf
    return mine, theirs[np.array(chosen, dtype=int)]


def _share(names: tuple[str, str, str], wins: Bool[np.ndarray, " row"]) -> dict[str, float]:
    """A share and its exact interval under three names."""
    value, low, high = shares(np.array([float(wins.sum())]), np.array([len(wins)]))
    return dict(zip(names, (float(value[0]), float(low[0]), float(high[0])), strict=True))


def _unit(rows: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row d"]:
    """Rows of length one; a row of zeros stays."""
    wide = rows.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)
