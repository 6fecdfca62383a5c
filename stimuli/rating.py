"""Validation by people: a rating sheet of blind, shuffled texts, and the agreement of what comes back.

A rater sees one twin of a pair and one cell of a quadruple, never two: with both in view the difference shows itself.
"""

import csv
import io
from collections.abc import Callable, Sequence
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


def survey(
    battery: Battery, raters: int, *, each: int | None = None, seed: int = 0, together: int = 3
) -> list[pd.DataFrame]:
    """One blind sheet a rater: ``number, item`` (a code), ``text``, and empty columns to fill in.

    Args:
        battery: what to rate.
        raters: how many sheets.
        each: texts a rater; as many as there are groups by default.
        seed: of the order and of who gets what.
        together: so many raters in a row read the same texts, each in an order of their own: agreement needs texts
            that two have rated. Then the items of a group go round, so that each is rated about as often as the others.

    Raises:
        BatteryError: fewer than one rater, or fewer than one together.
    """
    if raters < 1:
        raise BatteryError(f"A survey needs at least one rater, not {raters}.")
    if together < 1:
        raise BatteryError(f"{together} raters can't read together: give at least 1, and 2 to measure agreement.")
    groups = list(battery.groups().values())
    turn, codes, rng = _drawn(battery, seed)
    out = []
    for step, first in enumerate(range(0, raters, together)):
        chosen = [items[(start + step) % len(items)] for items, start in zip(groups, turn, strict=True)]
        read = rng.permutation(len(chosen))[: each or len(chosen)]
        for _ in range(min(together, raters - first)):
            order = [chosen[i] for i in rng.permutation(read)]
            lines = [(n, codes[s.id], s.text, "", "", "") for n, s in enumerate(order, 1)]
            out.append(pd.DataFrame(lines, columns=list(SHEET)))
    return out


def write_survey(
    folder: Path, battery: Battery, raters: int, *, each: int | None = None, seed: int = 0, together: int = 3
) -> list[Path]:
    """Write the sheets of :func:`survey`, their instructions, and the key that stays with you; nothing is overwritten.

    Raises:
        BatteryError: if the folder holds sheets already, or as :func:`survey`.
    """
    if list(folder.glob("rater_*.csv")):
        raise BatteryError(f"{folder} holds rating sheets already: give another folder, so that no answer is lost.")
    sheets = survey(battery, raters, each=each, seed=seed, together=together)
    _, codes, _ = _drawn(battery, seed)
    paths = []
    for n, sheet in enumerate(sheets, 1):
        paths.append(folder / f"rater_{n}.csv")
        write_text(paths[-1], sheet.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC))
    key = io.StringIO()
    pd.DataFrame({"item": list(codes.values()), "id": list(codes)}).to_csv(key, index=False)
    write_text(folder / "key.csv", key.getvalue())
    write_text(folder / "instructions.md", INSTRUCTIONS)
    return [*paths, folder / "key.csv", folder / "instructions.md"]


@dataclass(frozen=True)
class Ratings:
    """What raters said, and how far they agree with each other and with the battery."""

    table: pd.DataFrame  # rater, id, emotion, intensity, odd, intended
    emotion_alpha: Estimate | None  # nominal, nine ways; None where alpha is undefined
    intensity_alpha: Estimate | None  # ordinal
    as_intended: float  # share of ratings that name the intended emotion, or none
    twice: int  # items that two raters rated

    def __repr__(self) -> str:
        odd = int(self.table["odd"].sum())
        return (
            f"{len(self.table)} ratings of {self.table['id'].nunique()} items, {self.table['rater'].nunique()} raters: "
            f"as intended {self.as_intended:.2f}, Krippendorff's {self._said(self.emotion_alpha)} (emotion, nominal), "
            f"{self._said(self.intensity_alpha)} (intensity, ordinal), {odd} called odd"
        )

    def _said(self, found: Estimate | None) -> str:
        return f"alpha not defined ({self.twice} items rated twice)" if found is None else f"alpha {found}"


def read_ratings(battery: Battery, files: Sequence[Path], key: Path | None = None) -> Ratings:
    """Ratings from filled-in sheets.

    Args:
        battery: the one that was rated.
        files: one a rater, who is named by it.
        key: ``key.csv`` of the survey; beside the first sheet by default.

    Raises:
        BatteryError: a missing key, a file given twice, an unknown item, one rated twice in a sheet, an answer that was
            not on offer, or nothing filled in.
    """
    names = {str(r["item"]): str(r["id"]) for r in rows(key or files[0].parent / "key.csv")}
    named = zip(_raters(files), files, strict=True)
    table = [(rater, *line) for rater, file in named for line in _sheet(file, battery, names)]
    if not table:
        raise BatteryError("No sheet has an emotion filled in.")
    frame = pd.DataFrame(table, columns=["rater", "id", "emotion", "intensity", "odd", "intended"])
    return Ratings(
        frame,
        _alpha(frame, "emotion", "nominal"),
        _alpha(frame, "intensity", "ordinal"),
        as_intended=float((frame["emotion"] == frame["intended"]).mean()),
        twice=int((frame["id"].value_counts() >= 2).sum()),
    )


def _raters(files: Sequence[Path]) -> list[str]:
    """A name a file: its stem, with the folder where stems collide, the whole path where those collide too."""
    paths = [file.resolve() for file in files]
    for path in paths:
        if paths.count(path) > 1:
            raise BatteryError(f"{path} is given twice, expected one sheet a rater: leave one out.")
    forms: list[Callable[[Path], str]] = [lambda p: p.stem, lambda p: f"{p.parent.name}/{p.stem}", str]
    return [next(form(p) for form in forms if sum(form(p) == form(q) for q in paths) == 1) for p in paths]


def _sheet(file: Path, battery: Battery, names: dict[str, str]) -> list[tuple[str, str, float, bool, str]]:
    """What a sheet says: id, emotion, intensity, odd, and the intended emotion."""
    items = {s.id: s for s in battery}
    out: dict[str, tuple[str, str, float, bool, str]] = {}
    for n, row in enumerate(rows(file), 2):
        said = str(row.get("emotion") or "").strip().lower()
        if not said:
            continue
        code = row.get("item")
        name = names.get(str(code))
        where = f"{file.name}, line {n}"
        if name not in items:
            raise BatteryError(f"{where}: the battery {battery.name} has no item {code!r}: is the key right?")
        if name in out:
            raise BatteryError(f"{where}: the item {code!r} is rated twice, expected one row an item: delete one.")
        if said not in CHOICES:
            raise BatteryError(f"{where}: the emotion is {said!r}, expected one of {', '.join(CHOICES)}.")
        odd = str(row.get("odd") or "").strip().lower() in ("1", "yes", "y", "x", "true")
        intended = (items[name].emotion or "none") if items[name].affect else "none"
        out[name] = (name, said, _intensity(row.get("intensity"), where), odd, intended)
    return list(out.values())


def _alpha(frame: pd.DataFrame, column: str, level: str) -> Estimate | None:
    """Alpha of a column of ratings, codes for emotions; None where it is undefined."""
    values = frame[column].map(CHOICES.index) if column == "emotion" else frame[column]
    wide = frame.assign(value=values.astype(float)).pivot(index="rater", columns="id", values="value")
    try:
        return alpha(wide.to_numpy(dtype=float), level)
    except BatteryError:
        return None


def _intensity(value: object, where: str) -> float:
    text = str(value if value is not None else "").strip()
    if text == "":
        return float("nan")
    if text not in ("0", "1", "2", "3", "0.0", "1.0", "2.0", "3.0"):
        raise BatteryError(f"{where}: the intensity is {text!r}, expected 0, 1, 2 or 3.")
    return float(text)


def _drawn(battery: Battery, seed: int) -> tuple[list[int], dict[str, str], np.random.Generator]:
    """What a seed gives: where each group starts to go round, a code that tells nothing for each id, and the rest."""
    rng = np.random.default_rng(seed)
    turn = [int(rng.integers(len(items))) for items in battery.groups().values()]
    numbers = rng.permutation(np.arange(10_000, 100_000))[: len(battery)]
    return turn, {s.id: f"T{number:05d}" for s, number in zip(battery, numbers, strict=True)}, rng


INSTRUCTIONS = f"""# Instructions for raters

Read each text once, at your own pace, in the order given, and fill in three columns.

- **emotion**: what does the text make you feel for the people in it, or what would they feel at its end? One of
  {", ".join(CHOICES)}. If two fit, take the stronger. If none is evoked, write none.
- **intensity**: 0 none, 1 mild, 2 moderate, 3 strong.
- **odd**: x if the text is incoherent or contrived.

Don't talk to other raters before all have finished, and don't look anything up.
"""
