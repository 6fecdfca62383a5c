"""Rows of a user's file: CSV, TSV, JSON, JSONL or parquet, without a guess about what they mean."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from affectlens.errors import BatteryError

Row = dict[str, Any]
KINDS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")


def rows(path: Path, *, header: bool = True) -> list[Row]:
    """The rows of a file as dictionaries. Without ``header`` the columns are named 0, 1, 2.

    Raises:
        BatteryError: an unknown kind of file, one that can't be read, or one without rows.
    """
    if not path.is_file():
        raise BatteryError(f"There is no file {path}.")
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise BatteryError(f"{path.name} is no {', '.join(KINDS)} file.")
    try:
        if kind == ".parquet":
            found = [{str(k): v for k, v in row.items()} for row in pd.read_parquet(path).to_dict("records")]
        elif kind in (".json", ".jsonl"):
            found = _json(path.read_text(encoding="utf-8-sig"), kind)
        else:
            found = _separated(path.read_text(encoding="utf-8-sig"), header)
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


def _separated(text: str, header: bool) -> list[Row]:
    first = text.split("\n", 1)[0]
    mark = max("\t|,;", key=first.count) if any(m in first for m in "\t|,;") else ","
    csv.field_size_limit(10_000_000)
    quoting: Any = (
        csv.QUOTE_NONE if mark == "\t" and text.count('"') % 2 else csv.QUOTE_MINIMAL
    )  # bare inches and quotes
    lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=mark, quoting=quoting) if line]
    names = lines[0] if header else [str(i) for i in range(len(lines[0]))]
    return [dict(zip(names, line, strict=False)) for line in (lines[1:] if header else lines)]
