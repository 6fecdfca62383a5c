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
        meta: its content; the names of the files that were written are added as ``tables``.
        tables: by the name of the file beside it; an empty table has none.
    """
    path.unlink(missing_ok=True)  # so that what is there is never taken for whole
    for file, frame in tables.items():
        if frame.empty:
            path.with_name(file).unlink(missing_ok=True)
        else:
            write_parquet(path.with_name(file), frame)
    written = [file for file, frame in tables.items() if not frame.empty]
    write_text(path, json.dumps(meta | {"tables": written}, indent=1))


def load_tables(
    path: Path, files: Mapping[str, str], *, missing: str, again: str
) -> tuple[Json, dict[str, pd.DataFrame]]:
    """Read what :func:`save_tables` wrote.

    Args:
        path: of the JSON.
        files: the file beside it of each table; those that were not written, being empty, are left out.
        missing: what to say if the JSON is not there.
        again: what to do if it is damaged.

    Raises:
        RunError: it is not there, or damaged; a table that was written is gone.
    """
    if not path.is_file():
        raise RunError(missing)
    try:
        meta: Json = json.loads(path.read_text(encoding="utf-8"))
        written = meta.pop("tables")
        return meta, {name: pd.read_parquet(path.with_name(file)) for name, file in files.items() if file in written}
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise RunError(f"The tables that {path} names are damaged ({str(error).splitlines()[0]}): {again}.") from None
