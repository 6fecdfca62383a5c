"""Matched pairs of scenes, dealt into a half to find features in and a half to confirm them in.

Whole domains are dealt, so that what is confirmed was found in other topics. With fewer than four domains scenes are
dealt, and the halves share topics. Of all deals (a thousand random ones where there are more) one of those that split
each emotion's scenes most evenly is drawn.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from affectlens.errors import BatteryError
from affectlens.stimuli.taxonomy import EMOTIONS

FEWEST_DOMAINS = 4  # two a half: with one, a half would be a single topic
AFFECT = "affect"  # the name of all emotions together
_DEALS = 1_000
_NEEDED = ("role", "split", "emotion", "group")


@dataclass(frozen=True, eq=False)
class Pairs:
    """What an emotional text adds to its neutral twin, a row a scene."""

    differences: Float[np.ndarray, "pair feature"]  # emotional less neutral, float32
    active: Bool[np.ndarray, "pair feature"]  # in either twin
    scenes: pd.DataFrame  # group, emotion, domain of each pair
    found_in: Bool[np.ndarray, " pair"]  # the discovery half
    dealt: str  # what was dealt into halves: domain, scene

    @property
    def emotions(self) -> tuple[str, ...]:
        """Those of the battery, Plutchik's first and in his order."""
        there = set(self.scenes["emotion"])
        return tuple([e for e in EMOTIONS if e in there] + sorted(there - set(EMOTIONS)))

    def rows(self, emotion: str, discovery: bool) -> Int[np.ndarray, " pair"]:
        """An emotion's pairs, or with "affect" everyone's, in one of the halves."""
        own = np.ones(len(self.scenes), dtype=bool) if emotion == AFFECT else self.scenes["emotion"].eq(emotion)
        return np.flatnonzero(np.asarray(own) & (self.found_in == discovery))


def pair(pooled: Float[np.ndarray, "item feature"], items: pd.DataFrame, *, seed: int = 0) -> Pairs:
    """The pairs of a battery's scenes, without its quadruples, and their halves.

    Args:
        pooled: one number an item and feature.
        items: the battery's table.
        seed: of the deal.

    Raises:
        BatteryError: columns are missing, there is not one row an item, a number is not finite, or there is no pair.
    """
    if missing := [name for name in _NEEDED if name not in items]:
        raise BatteryError(f"These items have no {', '.join(missing)}: take a battery's items, not plain texts.")
    if len(items) != len(pooled):
        raise BatteryError(f"{len(pooled)} rows of features for {len(items)} items: take the table that was encoded.")
    if not np.isfinite(pooled).all():
        raise BatteryError("The features' activations hold NaN or infinity: encode the battery again.")
    chosen = ~items["split"].isin(["crossed", "crossed_fact"]) & items["role"].isin(["emotional", "neutral"])
    chosen &= items["emotion"].notna() & items["group"].notna()
    table = items[chosen].assign(row=np.flatnonzero(chosen), emotional=items.loc[chosen, "role"].eq("emotional"))
    size = table.groupby(["group", "emotional"], sort=False)["row"].transform("size")
    table = table.assign(weight=np.where(table["emotional"], 1.0, -1.0) / size)
    table = table[table.groupby("group")["emotional"].transform("nunique") == 2]
    if table.empty:
        raise BatteryError("No scene has an emotional and a neutral text: features are compared within such pairs.")
    codes, names = pd.factorize(table["group"])
    place = (codes, table["row"].to_numpy())
    signed = csr_array((table["weight"].to_numpy(), place), shape=(len(names), len(items)))
    differences = (signed @ pooled.astype(np.float64)).astype(np.float32)
    active = (abs(signed) @ (pooled != 0).astype(np.float32)) > 0
    first = table[table["emotional"]].groupby("group").first().loc[names].reset_index()
    frame = first[["group", "emotion"]].assign(domain=first.get("domain"))
    by_domain = bool(frame["domain"].notna().all()) and frame["domain"].nunique() >= FEWEST_DOMAINS
    units = frame["domain" if by_domain else "group"]
    found_in = _deal(units, frame["emotion"], seed)
    return Pairs(differences, active, frame, found_in, "domain" if by_domain else "scene")


def _deal(units: pd.Series, emotions: pd.Series, seed: int) -> Bool[np.ndarray, " pair"]:
    """Which pairs are in the discovery half; a unit is never on both sides."""
    counts = pd.crosstab(units, emotions)
    n, rng = len(counts), np.random.default_rng((seed, 0))
    if comb(n, n // 2) <= _DEALS:
        deals = np.array([np.isin(np.arange(n), some) for some in combinations(range(n), n // 2)])
    else:
        deals = rng.random((_DEALS, n)).argsort(1) < n // 2
        deals[: _DEALS // 2] = _by_emotion(counts, _DEALS // 2, rng)
    uneven = np.abs(2 * deals @ counts.to_numpy() - counts.to_numpy().sum(0)).sum(1)
    best = deals[rng.choice(np.flatnonzero(uneven == uneven.min()))]
    return np.asarray(units.map(dict(zip(counts.index, best, strict=True))), dtype=bool)


def _by_emotion(counts: pd.DataFrame, draws: int, rng: np.random.Generator) -> Bool[np.ndarray, "deal unit"]:
    """Deals in which every other unit of each emotion, in random order, is found in: even where a unit has one."""
    emotion = counts.to_numpy().argmax(1)
    shuffled = np.lexsort((rng.random((draws, len(counts))), np.broadcast_to(emotion, (draws, len(counts)))))
    out = np.zeros((draws, len(counts)), dtype=bool)
    np.put_along_axis(out, shuffled, np.arange(len(counts))[None] % 2 == 0, axis=1)
    return out
