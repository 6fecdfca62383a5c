"""The keyword-affect plane: does a feature that fires on texts of grief respond to grief, or to its words?

The battery is a two by two design with controls: the words of an emotion are there or not, and it is evoked or not.

=============  ==================  =============================
               no emotion          the emotion
=============  ==================  =============================
no words       neutral             keyword-free (``emotional``)
the words      decoys              keyword-rich (``keyword``)
=============  ==================  =============================

Each placed feature gets these responses, in standard deviations of its pooled activation over all vignettes. One unit
makes features of different scale comparable, and it cancels in every ratio on which a class rests.

- ``affect``: keyword-free less its neutral twin; ``rich``: keyword-rich less the same neutral, both paired by scene.
- ``added``: rich less keyword-free, what the words add where the emotion is there; ``decoy``: decoys less the neutral
  items of their domains, what they do where it is not. Their mean is ``words``, the main effect of the words in the
  design, and added less decoy is ``interaction``.
- ``emotional``: the mean of affect and rich, the response to emotional scenes with or without the words.
- ``vivid``: dramatic scenes without emotion less neutral items of their domains.
- ``crossed``: (ax + by - ay - bx) / 2 by quadruple: the emotional less the neutral cells, where all that adds up over
  sentences cancels; ``crossed_fact``: the same of quadruples that turn a fact without stakes.

Intervals resample clusters: :mod:`affectlens.probing.features.plane_parts`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from affectlens.errors import BatteryError
from affectlens.probing.features.halving import AFFECT
from affectlens.probing.features.plane_parts import BASE, Draws, design, draw, values
from affectlens.stats import sign_flips

BLOCK = 256  # features at a time: each holds 2,000 draws of ten contrasts
SHOWN = ("affect", "words", "rich", "added", "decoy", "interaction", "emotional", "vivid", "crossed", "crossed_fact")


@dataclass(frozen=True, eq=False)
class Responses:
    """The responses of placed features.

    Attributes:
        table: a row a placed feature: what was given of it; ``scenes``, ``decoys`` and ``quadruples``, the clusters;
            ``unit``, the standard deviation (0: never active on the vignettes, so that nothing can be said);
            ``active``, the share of vignettes at which it is active; each response with ``_low`` and ``_high``, 95%
            (NaN where the battery lacks the items); ``crossed_p`` (sign flips by quadruple, two-sided), ``crossed_q``
            (Benjamini-Hochberg over all rows) and ``crossed_attainable``, the least p that the quadruples can give.
        pooled: the activations, in the features' own units.
        items: the battery's table.
        seed: of the draws.
    """

    table: pd.DataFrame
    pooled: Float[np.ndarray, "item feature"]
    items: pd.DataFrame
    seed: int

    def draws(self) -> "Iterator[tuple[np.ndarray, Draws]]":
        """Blocks of rows of the table and the 2,000 draws of all their responses, ``[row, draw]``."""
        for emotion in self.table["emotion"].unique():
            plan = design(self.items, str(emotion))
            rows = np.flatnonzero(self.table["emotion"] == emotion)
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                features = self.table["feature"].to_numpy(dtype=int)[block]
                x = _scaled(self.pooled, self.items, features)
                yield block, whole(draw(x, plan, seed=self.seed))

    def __repr__(self) -> str:
        return f"Responses({len(self.table)} placed features of {self.table['emotion'].nunique()} emotions)"


def responses(
    pooled: Float[np.ndarray, "item feature"],
    items: pd.DataFrame,
    features: pd.DataFrame,
    *,
    seed: int = 0,
) -> Responses:
    """Place features on the keyword-affect plane.

    Args:
        pooled: activations of all features, a row an item of the table.
        items: the battery's table; vignettes with keyword-rich twins are needed, the other splits are used if there.
        features: a row a placed feature with ``emotion`` (``affect`` means all of them) and ``feature`` (its number);
            further columns are kept.
        seed: of the draws.

    Raises:
        BatteryError: if the battery lacks what an emotion needs, a number is out of range, lengths differ, or no
            feature is given.
    """
    _check(pooled, items, features)
    table = features.reset_index(drop=True).astype({"feature": int})
    facts = [_placed(pooled, items, part, str(emotion)) for emotion, part in table.groupby("emotion", sort=False)]
    table = table.join(pd.concat(facts))
    found = Responses(table, pooled, items, seed)
    bounds = {name: np.full((len(table), 2), np.nan) for name in SHOWN}
    for rows, drawn in found.draws():
        for name, some in drawn.items():
            bounds[name][rows] = np.quantile(some, [0.025, 0.975], axis=1).T
    for name in SHOWN:
        at = list(table.columns).index(name) + 1
        table.insert(at, f"{name}_low", bounds[name][:, 0])
        table.insert(at + 1, f"{name}_high", bounds[name][:, 1])
    tested = table["crossed_p"].notna()
    table["crossed_q"] = np.nan
    if tested.any():
        table.loc[tested, "crossed_q"] = stats.false_discovery_control(table.loc[tested, "crossed_p"])
    return found


def whole(base: Draws) -> Draws:
    """The responses that follow from others, beside those; without decoys ``words`` is what the words add."""
    out = dict(base)
    out["added"] = out["rich"] - out["affect"]
    out["emotional"] = (out["rich"] + out["affect"]) / 2
    out["words"] = out["added"]
    if "decoy" in out:
        out["words"] = (out["added"] + out["decoy"]) / 2
        out["interaction"] = out["added"] - out["decoy"]
    return out


def _placed(pooled: np.ndarray, items: pd.DataFrame, part: pd.DataFrame, emotion: str) -> pd.DataFrame:
    """Values, counts and the crossed test of one emotion's features."""
    plan = design(items, emotion)
    features = part["feature"].to_numpy()
    told = (items["split"] == "vignettes").to_numpy()
    out = pd.DataFrame(index=part.index)
    out["scenes"], out["quadruples"] = len(plan.scenes), len(plan.crossed)
    out["decoys"] = len(plan.decoys) if len(plan.decoys) > 1 else 0  # one alone has no spread
    out["unit"] = pooled[told][:, features].std(0, dtype=np.float64)
    out["active"] = (pooled[told][:, features] != 0).mean(0)
    found = values(_scaled(pooled, items, features), plan)
    means = whole({name: found[name].mean(0)[:, None] for name in BASE if name in found})
    for name in SHOWN:
        out[name] = means[name][:, 0] if name in means else np.nan
    p, least = np.full(len(part), np.nan), np.nan
    for start in range(0, len(part) if "crossed" in found else 0, BLOCK):
        flips = sign_flips(found["crossed"][:, start : start + BLOCK])
        p[start : start + BLOCK], least = flips.p, flips.attainable
    out["crossed_p"], out["crossed_attainable"] = p, least
    return out


def _scaled(pooled: np.ndarray, items: pd.DataFrame, features: np.ndarray) -> np.ndarray:
    """In standard deviations over the vignettes; a feature without any is zero throughout."""
    x = pooled[:, features].astype(np.float64)
    unit = x[(items["split"] == "vignettes").to_numpy()].std(0)
    return x * np.where(unit > 0, 1 / np.where(unit > 0, unit, 1), 0)


def _check(pooled: np.ndarray, items: pd.DataFrame, features: pd.DataFrame) -> None:
    if missing := {"emotion", "feature"} - set(features.columns):
        raise BatteryError(
            f"The table of placed features lacks {', '.join(sorted(missing))}: give it emotion and feature."
        )
    if features.empty:
        raise BatteryError("No feature is given to be placed: the table is empty.")
    if len(pooled) != len(items):
        raise BatteryError(
            f"The activations have {len(pooled)} rows and the battery {len(items)} items: give one row an item."
        )
    if not 0 <= features["feature"].min() <= features["feature"].max() < pooled.shape[1]:
        raise BatteryError(f"A placed feature's number is not among the {pooled.shape[1]} of the activations.")
    known = {AFFECT, *items["emotion"].dropna()}
    if unknown := sorted(set(features["emotion"]) - known):
        raise BatteryError(f"The battery has no emotion {unknown[0]!r}; it has {', '.join(sorted(known))}.")
