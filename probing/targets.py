"""What a probe is asked to read: which items, which labels, and what is compared with what.

``affect``: emotional against matched neutral items. ``category``: the emotion of an emotional item. ``valence``:
pleasant against unpleasant among emotional items, or the rated valence where the battery carries ratings. ``arousal``,
``dominance``: rated, or else the norm of the emotion's word. ``intensity``: the order none < mild < moderate < peak,
within a scene. Any other name is a column of the table: numbers of more than two values are an order, all else are
classes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

from affectlens.errors import BatteryError
from affectlens.stimuli.norms import vad

TARGETS = ("affect", "category", "valence", "arousal", "dominance", "intensity")
STEPS = {"neutral": 0.0, "mild": 1.0, "moderate": 2.0, "emotional": 3.0}
FEWEST_STEPS = 3  # an order within a scene needs more than a pair, which affect reads already
_CROSSED = ("crossed", "crossed_fact")


@dataclass(frozen=True)
class Target:
    """The items and labels of one question."""

    name: str
    rows: Int[np.ndarray, " item"]  # into the battery's table
    y: Shaped[np.ndarray, " item"]  # class index, or a float for an order
    classes: tuple[str, ...]  # empty for an order
    items: pd.DataFrame  # those rows of the table
    within: Int[np.ndarray, " item"] | None = None  # compare only inside these: the scenes of an intensity

    @property
    def binary(self) -> bool:
        return len(self.classes) == 2

    @property
    def ordered(self) -> bool:
        return not self.classes

    @property
    def chance(self) -> float:
        return 1 / len(self.classes) if len(self.classes) > 2 else 0.5


def select(items: pd.DataFrame, name: str) -> Target:
    """The target ``name`` on a battery's table.

    Raises:
        BatteryError: a name that is neither a target nor a column, columns that are missing, or too few classes.
    """
    if name not in TARGETS:
        return _column(items, name)
    needed = {"role", "split", "emotion", "valence", "group", "domain"}
    if missing := sorted(needed - set(items.columns)):
        raise BatteryError(f"These items have no {', '.join(missing)}: probe a battery, not plain texts.")
    scenes = items[~items["split"].isin(_CROSSED)]
    emotional = scenes[scenes["role"] == "emotional"]
    if name == "affect":
        chosen = scenes[scenes["role"].isin(["emotional", "neutral"])]
        return _classes(name, items, chosen, chosen["role"], ("neutral", "emotional"))
    if name == "category":
        chosen = emotional[emotional["emotion"].notna()]
        return _classes(name, items, chosen, chosen["emotion"])
    if name == "intensity":
        return _intensity(scenes)
    rated = _rated(items, name)
    if rated is not None:
        return _ordered(name, items, rated)
    if name == "valence":
        chosen = emotional[emotional["valence"] != 0]
        said = chosen["valence"].map({-1: "unpleasant", 1: "pleasant"})
        return _classes(name, items, chosen, said, ("unpleasant", "pleasant"))
    normed = {e: vad(str(e)) for e in emotional["emotion"].dropna().unique()}
    value = emotional["emotion"].map({e: getattr(found, name) for e, found in normed.items() if found})
    return _ordered(name, items, value.dropna())


def _rated(items: pd.DataFrame, name: str) -> pd.Series | None:
    """Ratings that each item carries in its ``meta`` (V, A, D or the full name), if most do."""
    if "meta" not in items:
        return None
    keys = (name, name[0].upper())
    found = pd.to_numeric(
        items["meta"].map(lambda meta: next((meta[k] for k in keys if meta and k in meta), None)), errors="coerce"
    )
    if found.notna().mean() <= 0.5:
        return None
    kept = found[~items["split"].isin(_CROSSED) & (items["role"] != "keyword")].dropna()
    return kept.astype(float)


def _intensity(scenes: pd.DataFrame) -> Target:
    steps = scenes["role"].map(STEPS).dropna()
    counts = steps.groupby(scenes.loc[steps.index, "group"]).nunique()
    graded = set(counts.index[counts >= FEWEST_STEPS])
    chosen = scenes.loc[steps.index][scenes.loc[steps.index, "group"].isin(graded)]
    if chosen.empty:
        raise BatteryError(
            f"Target intensity needs scenes told at {FEWEST_STEPS} or more intensities (roles neutral, mild, moderate, "
            "emotional), and this battery has none: the battery full has 64."
        )
    codes, _ = pd.factorize(chosen["group"])
    return Target(
        "intensity", chosen.index.to_numpy(), steps[chosen.index].to_numpy(dtype=float), (), chosen, np.asarray(codes)
    )


def _column(items: pd.DataFrame, name: str) -> Target:
    if name not in items.columns or name in ("id", "text", "meta"):
        raise BatteryError(
            f"There is no target {name!r}; choose from {', '.join(TARGETS)}, or a column of the battery: "
            f"{', '.join(c for c in items.columns if c not in ('id', 'text', 'meta'))}."
        )
    scenes = items[~items["split"].isin(_CROSSED)] if "split" in items else items
    if {"role", "group"} <= set(items) and scenes.groupby("group")[name].nunique().max() <= 1:
        scenes = scenes[scenes["role"] != "keyword"]  # twins of the keyword-free, for the rung split
    given = scenes[name].dropna()
    if pd.api.types.is_numeric_dtype(given) and not pd.api.types.is_bool_dtype(given) and given.nunique() > 2:
        return _ordered(name, items, given.astype(float))
    return _classes(name, items, scenes.loc[given.index], given.astype(str))


def _classes(
    name: str, items: pd.DataFrame, chosen: pd.DataFrame, labels: pd.Series, order: tuple[str, ...] | None = None
) -> Target:
    found = sorted(labels.unique())
    if len(found) < 2:
        raise BatteryError(
            f"Target {name} needs items of at least two classes, and this battery has "
            f"{'only ' + str(found[0]) if found else 'none'}: {len(chosen)} of {len(items)} items qualify."
        )
    classes = order or tuple(str(label) for label in found)
    y = np.array([classes.index(str(label)) for label in labels])
    return Target(name, chosen.index.to_numpy(), y, classes, chosen)


def _ordered(name: str, items: pd.DataFrame, value: pd.Series) -> Target:
    if value.nunique() < 3:
        raise BatteryError(
            f"Target {name} needs at least three different values, and this battery has {value.nunique()}: "
            f"{len(value)} of {len(items)} items qualify."
        )
    return Target(name, value.index.to_numpy(), value.to_numpy(dtype=float), (), items.loc[value.index])
