"""Pairs as they are given, as a table of items and one of pairs; which pairs are resampled together."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from affectlens.aligning import Item
from affectlens.errors import BatteryError
from affectlens.layouts import ending_start
from affectlens.pairing import matched_pairs
from affectlens.types import TextTable

Given = TextTable | Iterable[tuple[str | Item, str | Item]]


def tabled(pairs: Given) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The items, and one row a pair: group, contrast, clean id, corrupt id."""
    if isinstance(pairs, TextTable):
        return pairs.frame(), matched_pairs(pairs)
    items: dict[str, dict[str, Any]] = {}
    rows: list[tuple[str, str]] = []
    for i, pair in enumerate(pairs):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise BatteryError(f"Pair {i} is {pair!r:.60}: give a clean and a corrupt text, or a battery.")
        ids = [_row(given, f"{side}{i}", items) for given, side in zip(pair, ("clean", "corrupt"), strict=True)]
        rows.append((ids[0], ids[1]))
    if not rows:
        raise BatteryError("No pairs were given: give a battery, or tuples of a clean and a corrupt text.")
    groups = tied([{("text", items[a]["text"]), ("text", items[b]["text"])}
                   | {("group", items[x]["group"]) for x in (a, b) if items[x]["group"]} for a, b in rows])  # fmt: skip
    table = [(group, "clean/corrupt", a, b) for group, (a, b) in zip(groups, rows, strict=True)]
    return pd.DataFrame(list(items.values())), pd.DataFrame(table, columns=["group", "contrast", "a", "b"])


def _row(given: Any, name: str, items: dict[str, dict[str, Any]]) -> str:
    """Put a text or a stimulus among the items; its id."""
    row: dict[str, Any]
    if isinstance(given, str):
        row = {"id": name, "text": given, "ending": ending_start(given)}
    elif isinstance(given, Item):
        row = {"id": given.id, "text": given.text, "ending": given.ending}
    else:
        raise BatteryError(f"{given!r:.60} is neither a text nor a stimulus.")
    row |= {fact: getattr(given, fact, None) for fact in ("emotion", "valence", "affect", "group", "domain")}
    if items.setdefault(row["id"], row)["text"] != row["text"]:
        raise BatteryError(f"Two texts have the id {row['id']!r}: give each its own.")
    return str(row["id"])


def tied(keys: Sequence[set[Any]]) -> list[str]:
    """Of each pair the group that it is resampled with: pairs that share a text or a scene, directly or through others.

    >>> tied([{"a", "b"}, {"c", "d"}, {"b", "d"}, {"e"}])
    ['pair0', 'pair0', 'pair0', 'pair3']
    """
    groups: list[tuple[set[Any], int]] = []
    for i, mine in enumerate(keys):
        touched = [one for one in groups if one[0] & mine]
        groups = [one for one in groups if not one[0] & mine]
        groups.append((mine.union(*(one[0] for one in touched)), min([i, *(first for _, first in touched)])))
    return [f"pair{next(first for all_of_it, first in groups if all_of_it & mine)}" for mine in keys]


def known(items: pd.DataFrame, name: str, fact: str) -> Any:
    """A fact of an item; None where it is missing."""
    value: Any = items.at[name, fact] if fact in items else None
    return None if value is None or value != value else value


def flag(items: pd.DataFrame, name: str) -> bool | None:
    """Whether an item evokes an emotion; None where that is not known."""
    value = known(items, name, "affect")
    return None if value is None else bool(value)
