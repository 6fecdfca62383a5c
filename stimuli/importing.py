"""Batteries from files: ours, others', or any table by naming its columns; with what was put right, and the licence."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affectlens.errors import BatteryError
from affectlens.paths import write_text
from affectlens.stimuli.battery import Battery, load_battery
from affectlens.stimuli.published import SOURCES, Source
from affectlens.stimuli.schemes import plutchik
from affectlens.stimuli.stimulus import Stimulus, from_json
from affectlens.stimuli.tables import KINDS, Row, rows
from affectlens.types import Json

COLUMNS = ("text", "label", "group", "domain", "valence", "intensity", "split", "role", "author", "id")
NEUTRAL = ("neutral", "none", "0")
_FLAT_ROLES = ("neutral", "decoy", "vivid")
_SIGNS = {"positive": 1.0, "neutral": 0.0, "negative": -1.0}
_STRAY = re.compile(r"(?:^|\s+|(?<=[.!?…,;:]))(?:[-*_=~]{3,}|\\)\s*$")
_SPACE = re.compile(r"\s*\n\s*|[^\S\n]{2,}|[\t\r]")


@dataclass(frozen=True)
class Imported:
    """A battery that was read, and what was done to its texts."""

    battery: Battery
    notes: tuple[str, ...]


def open_battery(name: str, reader: str | None) -> Battery:
    """A battery of ours by name, a JSONL file in our format, or another's with ``reader``.

    Raises:
        BatteryError: as :func:`load_battery` and :func:`read_published`.
    """
    if reader is not None:
        return read_published(reader, name).battery
    return load_battery(name)


def read_published(kind: str, path: str | Path) -> Imported:
    """Read another's battery from your own copy of it.

    Args:
        kind: a key of :data:`SOURCES`.
        path: a file, a folder of files, or the id on the Hugging Face hub where the source has one.

    Raises:
        BatteryError: an unknown kind, a missing file, or rows that are not what this source has.
    """
    if kind not in SOURCES:
        raise BatteryError(
            f"There is no reader {kind!r}; there are {', '.join(SOURCES)}, or name columns (--text-col)."
        )
    source = SOURCES[kind]
    files, notes = _known_files(_files(Path(path), source.hub, str(path)), source)
    found = [(file.stem, row) for file in files
             for row in rows(file, header=source.header or "," in _first_line(file))]  # fmt: skip
    try:
        items = list(source.read(found))
        notes += [remark] if (remark := source.remark(found)) else []
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BatteryError(f"{path} does not read as {source.title} ({error!r}); give {source.files}.") from None
    except BatteryError as error:
        raise BatteryError(f"{path} does not read as {source.title}: {error}") from None
    return _built(items, kind, source.licence, f"{source.title}: {source.citation}", notes)


def read_table(path: Path, columns: Mapping[str, str], *, neutral: Iterable[str] = NEUTRAL) -> Imported:
    """Any CSV, TSV, JSON, JSONL or parquet file, by naming its columns.

    Args:
        path: the file.
        columns: what each column is: ``text`` at least; of ``label, group, domain, valence, intensity, split, role,
            author, id`` those that there are. A label that is one of Plutchik's words becomes the emotion.
            Valence is positive, negative, neutral, or a number, of which the sign counts; intensity is 0 to 3.
        neutral: labels that stand for no emotion; an empty one among them lets labels be missing.

    Raises:
        BatteryError: a column that the file lacks or that we don't know, a missing label, or values that don't fit.
    """
    if "text" not in columns or set(columns) - set(COLUMNS):
        raise BatteryError(f"Name the text column, and of the others only {', '.join(COLUMNS[1:])}.")
    found = rows(path)
    if missing := [name for name in columns.values() if name not in found[0]]:
        raise BatteryError(f"{path.name} has no column {missing[0]!r}; it has {', '.join(map(str, found[0]))}.")
    flat = frozenset(label.strip().lower() for label in ([neutral] if isinstance(neutral, str) else neutral))
    given = [{k: _given(row.get(v)) for k, v in columns.items()} for row in found]
    try:
        items = [_item(row, n, path.stem, flat) for n, row in enumerate(given)]
    except BatteryError as error:
        raise BatteryError(f"{path.name}, {error}") from None
    return _built(items, path.stem, "unknown: your own file", path.name, [])


def write_battery(path: Path, battery: Battery) -> Path:
    """Write a battery as JSONL, which :func:`load_battery` reads back with the same hash."""
    write_text(path, "".join(json.dumps(asdict(s), ensure_ascii=False) + "\n" for s in battery))
    return path


def clean(text: str) -> tuple[str, list[str]]:
    """A text without stray trailing marks, line breaks and doubled spaces, and what was done.

    >>> clean("She left.  Then\\nit rained. ---")
    ('She left. Then it rained.', ['stray trailing marks', 'line breaks or doubled spaces'])
    """
    done = []
    bare = text.strip()
    if _STRAY.search(bare):
        bare, done = _STRAY.sub("", bare), ["stray trailing marks"]
    if _SPACE.search(bare):
        bare, done = " ".join(bare.split()), [*done, "line breaks or doubled spaces"]
    return bare, done


def _built(items: list[Json], name: str, licence: str, source: str, before: list[str]) -> Imported:
    done: Counter[str] = Counter()
    out: list[Stimulus] = []
    empty = 0
    for n, item in enumerate(items, 1):
        text, how = clean("" if item["text"] is None else str(item["text"]))
        if not text:
            empty += 1
            continue
        shift = len(str(item["text"])) - len(text)
        if shift and "ending" in item.get("meta", {}):
            item["meta"].pop("ending")
        done.update(how)
        try:
            out.append(from_json(item | {"text": text}))
        except BatteryError as error:
            raise BatteryError(f"{name}, row {n}: {error}") from None
    notes = [*before, *(f"{count} texts had {what}: put right" for what, count in done.items())]
    notes += [f"{empty} rows without text were left out"] if empty else []
    outside = Counter(str(s.meta.get("label")) for s in out if s.affect and s.emotion is None and s.meta.get("label"))
    if outside:
        said = ", ".join(f"{label} {count}" for label, count in outside.most_common(8))
        notes.append(f"{outside.total()} items have a label that is none of Plutchik's eight (kept in meta): {said}")
    if not out:
        raise BatteryError(f"{name} has no row with a text.")
    return Imported(Battery(name, tuple(out), licence, source), tuple(notes))


def _item(row: Row, n: int, stem: str, neutral: frozenset[str]) -> Json:
    label, role = _word(row.get("label")), _word(row.get("role"))
    if label is None and "label" in row and row["text"] is not None and role not in _FLAT_ROLES:
        if "" not in neutral:
            raise BatteryError(
                f"row {n + 1} has no label: write neutral there, or pass neutral=('', ...) (--neutral '') if an empty "
                "label stands for no emotion."
            )
        label = ""
    affect = role not in _FLAT_ROLES if role else label is None or label.lower() not in neutral
    own = plutchik(label) if label and affect else None
    return {"id": _word(row.get("id")) or f"{stem}.{n}", "text": row["text"], "split": _word(row.get("split")) or stem,
            "role": role or ("emotional" if affect else "neutral"), "affect": affect, "emotion": own,
            "valence": _valence(row.get("valence"), n + 1), "intensity": _intensity(row.get("intensity"), n + 1),
            "domain": _word(row.get("domain")), "group": _word(row.get("group")) or "",
            "author": _word(row.get("author")), "meta": {"label": label} if label else {}}  # fmt: skip


def _given(value: Any) -> Any:
    """A cell, stripped; None where it is missing: empty, NaN or None."""
    if isinstance(value, str):
        return value.strip() or None
    return None if isinstance(value, float) and math.isnan(value) else value


def _word(value: Any) -> str | None:
    """A cell as text; a whole number without a decimal point, which a column with gaps would give it."""
    if value is None:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _number(value: Any) -> float:
    """A cell as a number; NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _valence(value: Any, n: int) -> int:
    number = 0.0 if value is None else _SIGNS.get(str(value).lower(), _number(value))
    if not math.isfinite(number):
        raise BatteryError(
            f"row {n} has the valence {value!r}, expected positive, negative, neutral or a number: correct it."
        )
    return (number > 0) - (number < 0)


def _intensity(value: Any, n: int) -> int:
    number = 0.0 if value is None else _number(value)
    if number not in (0, 1, 2, 3):
        raise BatteryError(f"row {n} has the intensity {value!r}, expected 0, 1, 2 or 3: put it on that scale.")
    return int(number)


def _known_files(files: list[Path], source: Source) -> tuple[list[Path], list[str]]:
    """The files that a source reads, and a note on those that it does not."""
    known = [file for file in files if not source.stems or file.stem in source.stems]
    left = ", ".join(file.name for file in files if file not in known)
    if not known:
        raise BatteryError(f"{left}: none of the files of {source.title}; give {source.files}.")
    return known, [f"left out: {left}"] if left else []


def _files(path: Path, hub: str | None, name: str) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in KINDS)
        if not found:
            raise BatteryError(f"The folder {path} holds no {', '.join(KINDS)} file.")
        return found
    if hub is not None and name == hub:
        from huggingface_hub import snapshot_download

        try:
            return _files(Path(snapshot_download(hub, repo_type="dataset", allow_patterns="*.parquet")), None, name)
        except Exception as error:
            raise BatteryError(f"{hub} could not be fetched from the hub: {type(error).__name__}.") from None
    raise BatteryError(f"There is no file or folder {name}.")


def _first_line(path: Path) -> str:
    """The first line of a text file, in which a comma-separated heading would be."""
    if path.suffix.lower() != ".csv":
        return ""
    with path.open(encoding="utf-8-sig") as stream:
        return stream.readline()
