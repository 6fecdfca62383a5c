"""The search both ways: scenes told without the emotion's words, and with them, each against its neutral twin."""

from typing import Any

import numpy as np
import pandas as pd

from affectlens.errors import BatteryError
from affectlens.probing.features.differing import differential
from affectlens.probing.features.enriching import enrichment

FREE, RICH = "keyword-free", "keyword-rich"


def told_by(items: pd.DataFrame, texts: str) -> tuple[np.ndarray, pd.DataFrame] | None:
    """The rows of one way of telling scenes and their neutral twins, and their table; None where there is none.

    Args:
        items: the battery's table.
        texts: ``keyword-free`` or ``keyword-rich``; what is told so is called emotional in the table.
    """
    other, own = ("keyword", "emotional") if texts == FREE else ("emotional", "keyword")
    if "role" not in items or not (items["role"] == own).any():
        return None
    rows = np.flatnonzero(items["role"] != other)
    frame = items.iloc[rows].reset_index(drop=True)
    return rows, frame.assign(role=frame["role"].replace(own, "emotional"))


def compared(pooled: np.ndarray, items: pd.DataFrame, **given: Any) -> pd.DataFrame:
    """The comparison with the neutral twins for both ways of telling a scene, in the column ``texts``.

    Args:
        pooled: one number an item and feature.
        items: the battery's table.
        given: what :func:`affectlens.probing.features.differing.differential` takes besides.

    Raises:
        BatteryError: scenes told neither way.
    """
    parts = [
        differential(pooled[told[0]], told[1], **given).assign(texts=texts)
        for texts in (FREE, RICH)
        if (told := told_by(items, texts))
    ]
    if not parts:
        raise BatteryError("The battery has no emotional texts with neutral twins: features are compared within pairs.")
    return pd.concat(parts, ignore_index=True)


def counted(pooled: np.ndarray, items: pd.DataFrame, found: pd.DataFrame, **given: Any) -> pd.DataFrame:
    """The counts of survivors beside those of random labels, for both ways of telling a scene.

    Args:
        pooled: one number an item and feature.
        items: the battery's table.
        found: by :func:`compared`.
        given: what :func:`affectlens.probing.features.enriching.enrichment` takes besides.
    """
    parts = []
    for texts, part in found.groupby("texts", sort=False):
        told = told_by(items, str(texts))
        assert told is not None
        parts.append(enrichment(pooled[told[0]], told[1], part, **given).assign(texts=texts))
    return pd.concat(parts, ignore_index=True)


def chosen(found: pd.DataFrame, q: float) -> pd.DataFrame:
    """The features found in the discovery half, once an emotion; ``found_by`` says with which texts.

    Args:
        found: the comparisons, with the column ``texts``.
        q: false discovery rate.
    """
    rows = found[found["q"] <= q].rename(columns={"active": "active_pairs"})  # the plane has an ``active`` of its own
    keys = ["emotion", "feature"]
    by = rows.groupby(keys, sort=False)["texts"].agg(lambda part: "both" if len(part) > 1 else part.iloc[0])
    survives = rows.groupby(keys, sort=False)["survives"].any()
    first = rows.sort_values("texts", kind="stable").drop_duplicates(keys).sort_index()  # keyword-free before -rich
    told = first.drop(columns=["texts", "survives"]).join(by.rename("found_by"), on=keys)
    return told.join(survives, on=keys).reset_index(drop=True)
