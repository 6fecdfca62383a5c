"""What is contrasted with what: the classes of an axis, their matched baselines, and the folds that score them.

A class's items are its emotional ones; its baseline are their neutral partners, which share their group. On an axis of
the user's own the classes are the values of a column, or one value (``positive``) against others (``negative``), which
then are its baseline. Crossed quadruples are left to the probes that were made for them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from affectlens.errors import BatteryError, SteerError
from affectlens.probing import folds
from affectlens.steering.directions import spelled
from affectlens.stimuli.taxonomy import EMOTIONS

RUNGS = {"domain": "domain", "pair": "scene"}  # what is held out, the first that applies, and its unit
LeaveOut = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Contrast:
    """Items by class and role; arrays are aligned, one entry an item."""

    rows: Int[np.ndarray, " item"]  # into the activations
    classes: tuple[str, ...]
    names: tuple[str, ...]  # the classes that get a direction
    code: Int[np.ndarray, " item"]  # the class that an item shows, -1 for none
    baseline: Int[np.ndarray, " item"]  # the class whose baseline it is, -1 for none
    keyword: Bool[np.ndarray, " item"]  # keyword-rich twins: not fitted on, only purified with
    valence: Float[np.ndarray, " item"]  # -1, 0, 1; NaN where it is not known
    group: Int[np.ndarray, " item"]
    keys: Int[np.ndarray, " item"]  # what folds hold whole
    unit: str  # of ``keys``: domain or scene
    texts: tuple[str, ...]

    @property
    def binary(self) -> bool:
        """Whether one value stands against a baseline, and there are no other classes."""
        return len(self.classes) == 1

    @property
    def asked(self) -> list[int]:
        """The indices of :attr:`names` among the classes."""
        return [self.classes.index(name) for name in self.names]

    @cached_property
    def sha256(self) -> str:
        """Of who stands against whom: a table's own hash knows its texts, not its labels."""
        sides = [self.rows, self.code, self.baseline, self.keyword.astype(int), self.group]
        return hashlib.sha256(json.dumps([self.classes, [side.tolist() for side in sides]]).encode()).hexdigest()

    def part(self, mask: Bool[np.ndarray, " item"]) -> "Contrast":
        """Some of the items."""
        texts = tuple(text for text, kept in zip(self.texts, mask, strict=True) if kept)
        arrays = ("rows", "code", "baseline", "keyword", "valence", "group", "keys")
        return replace(self, texts=texts, **{name: getattr(self, name)[mask] for name in arrays})

    def folds(self, *, seed: int = 0) -> Int[np.ndarray, " item"]:
        """The outer fold of every item: whole ``keys``, classes as even as they allow.

        Raises:
            BatteryError: if there are too few of them.
        """
        labels = (self.code >= 0) if self.binary else self.code
        fitted = self.code >= 0 if not self.binary else (self.code >= 0) | (self.baseline >= 0)
        fold = folds.split(self.keys[fitted], labels[fitted].astype(int), folds.OUTER, seed=seed)
        of = dict(zip(self.keys[fitted].tolist(), fold.tolist(), strict=True))
        return np.array([of.get(key, -1) for key in self.keys.tolist()])


def contrast(
    items: pd.DataFrame,
    *,
    emotions: Sequence[str] | None = None,
    label: str = "emotion",
    positive: str | None = None,
    negative: str | None = None,
    leave_out: LeaveOut | None = None,
) -> Contrast:
    """The contrast that a battery's table holds.

    Args:
        items: the table, one row an item.
        emotions: the classes that get a direction, basic or peak words; all of them if None.
        label: the column of the classes.
        positive: the one value of it that is contrasted, with ``negative`` or with every other value.
        negative: the value that stands against it.
        leave_out: column to values: groups that hold such an item are not fitted on.

    Raises:
        SteerError: columns, values or classes that are not there, or too few items.
    """
    if label not in items:
        raise SteerError(
            f"The battery has no column {label!r} to find classes in; it has {', '.join(map(str, items))}."
        )
    frame = _kept(_scenes(items), leave_out or {})
    said = frame[label].map(lambda value: spelled(str(value)) if label == "emotion" else str(value), na_action="ignore")
    emotional, neutral, keyword = _roles(frame)
    known = said.notna()
    if positive is not None or negative is not None:
        yes, no = _binary(said, known & emotional, label, positive, negative)
        only = spelled(str(positive)) if label == "emotion" else str(positive)
        emotional, neutral, said = yes, no, pd.Series(only, index=frame.index)
        keyword = pd.Series(False, index=frame.index)
    if not (known & emotional).any():
        raise SteerError(f"No item of the battery shows a value of {label}: directions need items of two classes.")
    classes = _ordered(said[known & emotional])
    if len(classes) < 2 and not (known & neutral).any():
        raise SteerError(f"All items have {label} {' '.join(classes)!r}, with nothing to contrast it with.")
    names = tuple(dict.fromkeys(_named(name, label, classes) for name in emotions)) if emotions else classes
    index = said.map({name: k for k, name in enumerate(classes)}).fillna(-1).to_numpy(dtype=int)
    used = ((emotional | neutral | keyword) & (index >= 0)).to_numpy()
    valence = pd.to_numeric(frame["valence"], errors="coerce") if "valence" in frame else pd.Series(np.nan, frame.index)
    group = frame["group"] if "group" in frame else pd.Series(range(len(frame)), index=frame.index)
    keys, unit = _keys(frame[used].assign(group=group[used]))
    return Contrast(
        frame.index.to_numpy()[used], classes, names,
        np.where(emotional, index, -1)[used], np.where(neutral, index, -1)[used], keyword.to_numpy(dtype=bool)[used],
        valence.to_numpy(dtype=float)[used], np.asarray(pd.factorize(group[used])[0]), keys, unit,
        tuple(frame["text"].astype(str)[used]) if "text" in frame else ("",) * int(used.sum()),
    )  # fmt: skip


def _scenes(items: pd.DataFrame) -> pd.DataFrame:
    plain = items.reset_index(drop=True)
    return plain[~plain["split"].isin(("crossed", "crossed_fact"))] if "split" in plain else plain


def _kept(frame: pd.DataFrame, leave_out: LeaveOut) -> pd.DataFrame:
    """Without every group that holds an item to leave out: twins stay together."""
    out = pd.Series(False, index=frame.index)
    for column, values in leave_out.items():
        if column not in frame:
            raise SteerError(f"leave_out names {column!r}, and the battery has only {', '.join(map(str, frame))}.")
        asked = [values] if isinstance(values, str) else list(values)
        if absent := sorted(set(map(str, asked)) - set(frame[column].dropna().astype(str))):
            raise SteerError(f"leave_out: no item has {column} {absent[0]!r}.")
        out |= frame[column].astype(str).isin([str(value) for value in asked])
    if "group" in frame:
        out = frame["group"].isin(frame.loc[out, "group"])
    return frame[~out]


def _roles(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Emotional, neutral and keyword-rich items; without a column of roles all show their class."""
    if "role" not in frame:
        return pd.Series(True, frame.index), pd.Series(False, frame.index), pd.Series(False, frame.index)
    return frame["role"] == "emotional", frame["role"] == "neutral", frame["role"] == "keyword"


def _binary(
    said: pd.Series, usable: pd.Series, label: str, positive: str | None, negative: str | None
) -> tuple[pd.Series, pd.Series]:
    if positive is None:
        raise SteerError("negative= names what stands against positive=: give that too.")
    wanted = [spelled(one) if label == "emotion" else one for one in (positive, negative) if one is not None]
    for value in wanted:
        if not (said == value).any():
            raise SteerError(
                f"No item has {label} {value!r}; there are {', '.join(map(str, _ordered(said.dropna())))}."
            )
    yes = (said == wanted[0]) & said.notna()
    no = (said == wanted[1]) if negative is not None else said.notna() & ~yes
    every = usable if (usable & yes).any() and (usable & no).any() else said.notna()
    if (wanted[0],) == tuple(wanted[1:]):
        raise SteerError(f"positive and negative are both {positive!r}: name two values.")
    return yes & every, no & every


def _ordered(values: pd.Series) -> tuple[str, ...]:
    """Plutchik's order where the names are his, else as they come."""
    found = list(dict.fromkeys(values))
    return tuple(name for name in EMOTIONS if name in found) + tuple(name for name in found if name not in EMOTIONS)


def _named(name: str, label: str, classes: tuple[str, ...]) -> str:
    found = spelled(name) if label == "emotion" else name
    if found not in classes:
        raise SteerError(f"No item that could be fitted on has {label} {name!r}; there are {', '.join(classes)}.")
    return found


def _keys(used: pd.DataFrame) -> tuple[Int[np.ndarray, " item"], str]:
    for rung, unit in RUNGS.items():
        found = folds.keys(used, rung)
        if not isinstance(found, str):
            return found, unit
    return np.asarray(pd.factorize(used["group"])[0]), "scene"


def folded(asked: Contrast, seed: int) -> Int[np.ndarray, " item"] | str:
    """Outer folds, or why there are none."""
    try:
        return asked.folds(seed=seed)
    except BatteryError as error:
        return str(error)
