"""A report's tables as parquet beside a JSON, written last, that marks them complete."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from affectlens.errors import RunError
from affectlens.paths import write_parquet, write_text
from affectlens.types import Json


def save_tables(path: Path, meta: Json, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables and then ``path``.

    Args:
        path: of the JSON.
        meta: its content.
        tables: by the name of the file beside it; an empty table has none.
    """
    path.unlink(missing_ok=True)  # so that what is there is never taken for whole
    for file, frame in tables.items():
        if frame.empty:
            path.with_name(file).unlink(missing_ok=True)
        else:
            write_parquet(path.with_name(file), frame)
    write_text(path, json.dumps(meta, indent=1))


def load_tables(
    path: Path, files: Mapping[str, str], *, missing: str, again: str
) -> tuple[Json, dict[str, pd.DataFrame]]:
    """Read what :func:`save_tables` wrote.

    Args:
        path: of the JSON.
        files: the file beside it of each table; those that are not there are left out.
        missing: what to say if the JSON is not there.
        again: what to do if it is damaged.

    Raises:
        RunError: it is not there, or damaged.
    """
    if not path.is_file():
        raise RunError(missing)
    try:
        tables = {name: pd.read_parquet(at) for name, file in files.items() if (at := path.with_name(file)).is_file()}
        return json.loads(path.read_text(encoding="utf-8")), tables
    except (ValueError, TypeError, OSError) as error:
        raise RunError(f"The tables that {path} names are damaged ({str(error).splitlines()[0]}): {again}.") from None
