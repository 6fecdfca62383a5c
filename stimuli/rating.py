"""Validation by people: a rating sheet of blind, shuffled texts, and the agreement of what comes back.

A rater sees one twin of a pair and one cell of a quadruple, never two: with both in view the difference shows itself.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.errors import BatteryError
from affectlens.paths import write_text
from affectlens.stats import Estimate
from affectlens.stimuli.agreement import alpha
from affectlens.stimuli.battery import Battery
from affectlens.stimuli.tables import rows
from affectlens.stimuli.taxonomy import EMOTIONS

SHEET = ("number", "item", "text", "emotion", "intensity", "odd")
CHOICES = (*EMOTIONS, "none")


def survey(battery: Battery, raters: int, *, each: int | None = None, seed: int = 0) -> list[pd.DataFrame]:
    """One blind sheet a rater: ``number, item`` (a code), ``text``, and empty columns to fill in.

    Args:
        battery: what to rate.
        raters: how many sheets. The items of a group go round, so that each is rated about as often as the others.
        each: texts a rater; as many as there are groups by default.
        seed: of the order and of who gets what.

    Raises:
        BatteryError: fewer than one rater.
    """
    if raters < 1:
        raise BatteryError(f"A survey needs at least one rater, not {raters}.")
    rng = np.random.default_rng(seed)
    groups = list(battery.groups().values())
    turn = {items[0].group: int(rng.integers(len(items))) for items in groups}
    codes = {s.id: code for s, code in zip(battery, _codes(len(battery), rng), strict=True)}
    out = []
    for rater in range(raters):
        chosen = [items[(turn[items[0].group] + rater) % len(items)] for items in groups]
        order = rng.permutation(len(chosen))[: each or len(chosen)]
        lines = [(n, codes[chosen[i].id], chosen[i].text, "", "", "") for n, i in enumerate(order, 1)]
        out.append(pd.DataFrame(lines, columns=list(SHEET)))
    return out


def write_survey(folder: Path, battery: Battery, raters: int, *, each: int | None = None, seed: int = 0) -> list[Path]:
    """Write the sheets, their instructions, and the key that stays with you; nothing is overwritten.

    Raises:
        BatteryError: if the folder holds sheets already.
    """
    if list(folder.glob("rater_*.csv")):
        raise BatteryError(f"{folder} holds rating sheets already: give another folder, so that no answer is lost.")
    sheets = survey(battery, raters, each=each, seed=seed)
    ids = dict(zip(_codes(len(battery), _skipped(battery, seed)), (s.id for s in battery), strict=True))
    paths = []
    for n, sheet in enumerate(sheets, 1):
        paths.append(folder / f"rater_{n}.csv")
        write_text(paths[-1], sheet.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC))
    key = io.StringIO()
    pd.DataFrame({"item": list(ids), "id": list(ids.values())}).to_csv(key, index=False)
    write_text(folder / "key.csv", key.getvalue())
    write_text(folder / "instructions.md", INSTRUCTIONS)
    return [*paths, folder / "key.csv", folder / "instructions.md"]


@dataclass(frozen=True)
class Ratings:
    """What raters said, and how far they agree with each other and with the battery."""

    table: pd.DataFrame  # rater, id, emotion, intensity, odd, intended
    emotion_alpha: Estimate  # nominal, nine ways
    intensity_alpha: Estimate  # ordinal
    as_intended: float  # share of ratings that name the intended emotion, or none

    def __repr__(self) -> str:
        odd = int(self.table["odd"].sum())
        return (
            f"{len(self.table)} ratings of {self.table['id'].nunique()} items, {self.table['rater'].nunique()} raters: "
            f"as intended {self.as_intended:.2f}, Krippendorff's alpha {self.emotion_alpha} (emotion, nominal), "
            f"{self.intensity_alpha} (intensity, ordinal), {odd} called odd"
        )


def read_ratings(battery: Battery, files: Sequence[Path], key: Path | None = None) -> Ratings:
    """Ratings from filled-in sheets.

    Args:
        battery: the one that was rated.
        files: one a rater.
        key: ``key.csv`` of the survey; beside the first sheet by default.

    Raises:
        BatteryError: a missing key, an unknown item, an answer that was not on offer, or nothing filled in.
    """
    names = {str(r["item"]): str(r["id"]) for r in rows(key or files[0].parent / "key.csv")}
    items = {s.id: s for s in battery}
    table = []
    for file in files:
        for n, row in enumerate(rows(file), 2):
            said = str(row.get("emotion") or "").strip().lower()
            if not said:
                continue
            name = names.get(str(row["item"]))
            where = f"{file.name}, line {n}"
            if name not in items:
                raise BatteryError(
                    f"{where}: the battery {battery.name} has no item {row['item']!r}: is the key right?"
                )
            if said not in CHOICES:
                raise BatteryError(f"{where}: the emotion is {said!r}, expected one of {', '.join(CHOICES)}.")
            item = items[name]
            table.append((file.stem, name, said, _intensity(row.get("intensity"), where),
                          str(row.get("odd") or "").strip().lower() in ("1", "yes", "y", "x", "true"),
                          (item.emotion or "none") if item.affect else "none"))  # fmt: skip
    if not table:
        raise BatteryError("No sheet has an emotion filled in.")
    frame = pd.DataFrame(table, columns=["rater", "id", "emotion", "intensity", "odd", "intended"])
    return Ratings(frame, alpha(_matrix(frame, "emotion")), alpha(_matrix(frame, "intensity"), "ordinal"),
                   float((frame["emotion"] == frame["intended"]).mean()))  # fmt: skip


def _matrix(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Ratings as ``[rater, item]``, codes for emotions."""
    values = frame[column].map(CHOICES.index) if column == "emotion" else frame[column]
    wide = frame.assign(value=values.astype(float)).pivot_table(index="rater", columns="id", values="value")
    return wide.to_numpy(dtype=float)


def _intensity(value: object, where: str) -> float:
    text = str(value if value is not None else "").strip()
    if text == "":
        return float("nan")
    if text not in ("0", "1", "2", "3", "0.0", "1.0", "2.0", "3.0"):
        raise BatteryError(f"{where}: the intensity is {text!r}, expected 0, 1, 2 or 3.")
    return float(text)


def _codes(n: int, rng: np.random.Generator) -> list[str]:
    """Codes that tell nothing."""
    return [f"T{number:05d}" for number in rng.permutation(np.arange(10_000, 100_000))[:n]]


def _skipped(battery: Battery, seed: int) -> np.random.Generator:
    """The generator of :func:`survey` where it makes the codes."""
    rng = np.random.default_rng(seed)
    for items in battery.groups().values():
        rng.integers(len(items))
    return rng


INSTRUCTIONS = f"""# Instructions for raters

Read each text once, at your own pace, in the order given, and fill in three columns.

- **emotion**: what does the text make you feel for the people in it, or what would they feel at its end? One of
  {", ".join(CHOICES)}. If two fit, take the stronger. If none is evoked, write none.
- **intensity**: 0 none, 1 mild, 2 moderate, 3 strong.
- **odd**: x if the text is incoherent or contrived.

Don't talk to other raters before all have finished, and don't look anything up.
"""
