"""What a probe is asked to read: which items, which labels.

``affect``: emotional against matched neutral items. ``category``: the emotion of an emotional item, eight ways.
``valence``: pleasant against unpleasant among emotional items.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from affectlens.errors import BatteryError

TARGETS = ("affect", "category", "valence")


@dataclass(frozen=True)
class Target:
    """The items and labels of one question."""

    name: str
    rows: Int[np.ndarray, " item"]  # into the battery's table
    y: Int[np.ndarray, " item"]  # class index
    classes: tuple[str, ...]
    items: pd.DataFrame  # those rows of the table

    @property
    def binary(self) -> bool:
        return len(self.classes) == 2


def select(items: pd.DataFrame, name: str) -> Target:
    """The target ``name`` on a battery's table.

    Raises:
        BatteryError: an unknown target, columns that are missing, or fewer than two classes.
    """
    if name not in TARGETS:
        raise BatteryError(f"There is no target {name!r}; choose from {', '.join(TARGETS)}.")
    needed = {"role", "split", "emotion", "valence", "group", "domain"}
    if missing := sorted(needed - set(items.columns)):
        raise BatteryError(f"These items have no {', '.join(missing)}: probe a battery, not plain texts.")
    scenes = items[~items["split"].isin(["crossed", "crossed_fact"])]
    emotional = scenes[scenes["role"] == "emotional"]
    if name == "affect":
        chosen = scenes[scenes["role"].isin(["emotional", "neutral"])]
        labels = chosen["role"]
    elif name == "valence":
        chosen = emotional[emotional["valence"] != 0]
        labels = chosen["valence"].map({-1: "unpleasant", 1: "pleasant"})
    else:
        chosen = emotional[emotional["emotion"].notna()]
        labels = chosen["emotion"]
    found = sorted(labels.unique())
    order = {"affect": ("neutral", "emotional"), "valence": ("unpleasant", "pleasant")}.get(name)
    if len(found) < 2:
        raise BatteryError(
            f"Target {name} needs items of at least two classes, and this battery has "
            f"{'only ' + found[0] if found else 'none'}: {len(chosen)} of {len(items)} items qualify."
        )
    classes = order or tuple(found)
    y = np.array([classes.index(label) for label in labels])
    return Target(name, chosen.index.to_numpy(), y, tuple(classes), chosen)
