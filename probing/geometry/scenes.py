"""One direction per emotion at every layer: what an emotional text adds to its own neutral partner, on average.

A row is a scene: the mean of its emotional items less the mean of its neutral ones. Topic, length and style, which
the two share, cancel. Directions as they come all lie along what emotional texts share; centred ones do not.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import gammaln

from affectlens.errors import BatteryError
from affectlens.probing.geometry.averaging import averages
from affectlens.probing.geometry.directions import Directions
from affectlens.probing.geometry.nulls import compare, orders_within
from affectlens.stimuli.taxonomy import EMOTIONS
from affectlens.store import Activations

_NEEDED = ("role", "split", "emotion", "group")


def means(
    acts: Activations, *, position: str | None = None, site: str | None = None, crossed: bool = False
) -> Directions:
    """One direction per emotion at every layer, from a battery's emotional items and their neutral partners.

    Args:
        acts: pooled activations of a battery.
        position: the first captured by default.
        site: a name without its layer; the first captured by default.
        crossed: take the quadruples of ``crossed`` for rows, in place of all other scenes.

    Raises:
        BatteryError: columns are missing, or fewer than three emotions have two scenes with a neutral partner.
    """
    items = acts.items
    if missing := [name for name in _NEEDED if name not in items]:
        raise BatteryError(f"These items have no {', '.join(missing)}: take a battery's activations, not plain texts'.")
    values = acts.at(position, site)
    if values.ndim != 3:
        raise BatteryError("Directions need one vector an item and layer: take a site such as resid_post.")
    kept = items["split"].eq("crossed") if crossed else ~items["split"].isin(["crossed", "crossed_fact"])
    rows, table, dropped = _rows(items[kept & items["role"].isin(["emotional", "neutral"])], values, items)
    there = set(table["name"])
    what = str(site or acts.site)
    return Directions(
        "emotions", tuple([e for e in EMOTIONS if e in there] + sorted(there - set(EMOTIONS))), acts.layers[what],
        np.ascontiguousarray(rows.swapaxes(0, 1)), table,
        {"model": acts.model, "battery": acts.battery, "site": what, "position": str(position or acts.positions[0]),
         "dropped": dropped, "d": int(values.shape[-1])},
    )  # fmt: skip


def agreement(directions: Directions, *, seed: int = 0, draws: int = 999) -> pd.DataFrame:
    """Whether scenes of one emotion agree more than scenes of different ones, at each layer.

    The statistic is the variance between directions over that of the scenes, its null the emotions of scenes shuffled
    within each domain (a permutational analysis of variance; Anderson 2001, Austral Ecology 26). Max-T over layers.

    Args:
        directions: of emotions.
        seed: of the shuffles.
        draws: how many.
    """
    codes, n = directions.labels, len(directions.names)
    among = blocks(directions)
    moved = codes[orders_within(among, seed=seed, draws=draws)]
    total = np.trace(directions.inner, axis1=-2, axis2=-1)
    total = np.where(total > 0, total, np.nan)
    seen, drawn = _between(directions, codes[None], n)[0] / total, _between(directions, moved, n) / total
    null = compare(seen, drawn)
    return pd.DataFrame({"layer": directions.layers, "value": seen, "null": null.mean, "p": null.p,
                         "p_adjusted": null.p_adjusted,
                         "attainable": max(null.attainable, 1 / arrangements(codes, among))})  # fmt: skip


def arrangements(codes: np.ndarray, among: np.ndarray) -> float:
    """In how many ways labels can be dealt out anew within blocks: one over it bounds what p can reach."""
    ways = 0.0  # its logarithm
    for block in np.unique(among):
        counts = np.bincount(codes[among == block])
        ways += float(gammaln(counts.sum() + 1) - gammaln(counts + 1).sum())
    return float(np.exp(min(ways, 50.0)))


def blocks(directions: Directions, *, valence: bool = False) -> np.ndarray:
    """The scenes among which emotions are exchangeable: of one domain, and of one valence too if asked."""
    table = directions.table
    keys = table["domain"].astype(object).where(table["domain"].notna(), "none").astype(str)
    return pd.factorize(keys + table["valence"].astype(str) if valence else keys)[0].astype(np.int64)


def _between(directions: Directions, labels: np.ndarray, n: int) -> Float[np.ndarray, "draw layer"]:
    ones = np.ones((1, labels.shape[1]))
    hats = np.stack([averages(one, n, ones, centre=True)[0] for one in labels])
    flat = hats.reshape(-1, hats.shape[-1])
    return np.stack([((flat @ one) * flat).sum(-1).reshape(len(labels), n).sum(-1) for one in directions.inner], -1)


def _rows(used: pd.DataFrame, values: np.ndarray, items: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame, int]:
    """Emotional less neutral for each group, and how many groups had no partner, no one emotion, or no second scene."""
    at = {name: k for k, name in enumerate(items["id"])}
    rows, found, dropped = [], [], 0
    for group, part in used.groupby("group", sort=False):
        peak, flat = part[part["role"] == "emotional"], part[part["role"] == "neutral"]
        if peak.empty or flat.empty or peak["emotion"].isna().any() or peak["emotion"].nunique() > 1:
            dropped += 1
            continue
        up, down = ([at[name] for name in side["id"]] for side in (peak, flat))
        rows.append(values[up].astype(np.float64).mean(0) - values[down].astype(np.float64).mean(0))
        first = peak.iloc[0]
        found.append((group, first["emotion"], int(np.sign(first.get("valence", 0))), first.get("domain")))
    table = pd.DataFrame(found, columns=["group", "name", "valence", "domain"])
    enough = table["name"].map(table["name"].value_counts()).ge(2).to_numpy(dtype=bool)
    if table.loc[enough, "name"].nunique() < 3:
        raise BatteryError(
            "Directions need at least three emotions with two scenes each, every scene with a neutral partner in its "
            f"group; {len(table)} scenes qualify here: take a larger battery."
        )
    return np.stack(rows)[enough], table[enough].reset_index(drop=True), dropped + int((~enough).sum())
