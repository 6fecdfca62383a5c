"""Rows of a user's file: CSV, TSV, JSON, JSONL or parquet, without a guess about what they mean."""

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from affectlens.errors import BatteryError

Row = dict[str, Any]
Line = tuple[int, list[str]]
KINDS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")
_MARKS = {"\t": "a tab", "|": "a bar", ",": "a comma", ";": "a semicolon"}


def rows(path: Path, *, header: bool = True) -> list[Row]:
    """The rows of a file as dictionaries. Without ``header`` the columns are named 0, 1, 2.

    Raises:
        BatteryError: an unknown kind of file, one that can't be read, a row with more or fewer fields than
            the heading, or one without rows.
    """
    if not path.is_file():
        raise BatteryError(f"There is no file {path}.")
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise BatteryError(f"{path.name} is no {', '.join(KINDS)} file.")
    try:
        if kind == ".parquet":
            found = _parquet(path)
        elif kind in (".json", ".jsonl"):
            found = _json(path.read_text(encoding="utf-8-sig"), kind)
        else:
            found = _separated(path.read_text(encoding="utf-8-sig"), header, kind)
    except UnicodeDecodeError as error:
        raise BatteryError(f"{path.name} is not UTF-8 (byte {error.start}): save it in that encoding.") from None
    except (json.JSONDecodeError, csv.Error, ValueError, OSError) as error:
        raise BatteryError(f"{path.name} can't be read as {kind[1:]}: {error}") from None
    if not found:
        raise BatteryError(f"{path.name} has no rows.")
    return found


def _json(text: str, kind: str) -> list[Row]:
    data = [json.loads(line) for line in text.split("\n") if line.strip()] if kind == ".jsonl" else json.loads(text)
    if not isinstance(data, list):
        raise ValueError("expected a list of rows")
    return [row if isinstance(row, dict) else {"text": row} for row in data]


def _parquet(path: Path) -> list[Row]:
    frame = pd.read_parquet(path)
    return [{str(k): v for k, v in row.items()}
            for row in frame.astype(object).where(frame.notna(), None).to_dict("records")]  # fmt: skip


def _separated(text: str, header: bool, kind: str) -> list[Row]:
    first = text.split("\n", 1)[0]
    mark = "\t" if kind == ".tsv" else max("\t|,;", key=first.count) if any(m in first for m in "\t|,;") else ","
    csv.field_size_limit(10_000_000)
    lines = _tabbed(text) if mark == "\t" else _lines(text, mark, csv.QUOTE_MINIMAL)
    if not lines:
        return []
    names = lines[0][1] if header else [str(i) for i in range(len(lines[0][1]))]
    for at, line in lines:
        if len(line) != len(names):
            raise ValueError(
                f"line {at} has {len(line)} fields, expected {len(names)} as in the first line: "
                f"put a text that holds {_MARKS[mark]} or a line break in quotation marks"
            )
    return [dict(zip(names, line, strict=True)) for _, line in (lines[1:] if header else lines)]


def _tabbed(text: str) -> list[Line]:
    """Lines of a tab-separated file, whose quotation marks may be those of a spreadsheet or plain text."""
    plain = _lines(text, "\t", csv.QUOTE_NONE)
    try:
        quoted = _lines(text, "\t", csv.QUOTE_MINIMAL)
    except ValueError:  # marks that don't enclose a field are part of the text
        return plain
    if _even(quoted) and len(quoted) == len(plain):
        return quoted
    return plain if _even(plain) else quoted


def _lines(text: str, mark: str, quoting: Literal[0, 3]) -> list[Line]:
    """Each line with the number that it begins at, without the blank ones."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, quoting=quoting, strict=True)
    out: list[Line] = []
    at = 1
    try:
        for line in reader:
            if len(line) > 1 or "".join(line).strip():
                out.append((at, line))
            at = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"line {at} ({error}): close each quotation mark, and double those inside a quoted text"
        ) from None
    return out


def _even(lines: list[Line]) -> bool:
    return len({len(line) for _, line in lines}) <= 1
