"""What a sweep has computed, kept pair by pair, so that a stopped one goes on where it was."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from affectlens.errors import PatchError
from affectlens.paths import write_parquet, write_text
from affectlens.types import Json

PLAN = "plan.json"


class Kept:
    """Tables in a folder, one a number; without a folder nothing is kept.

    Raises:
        PatchError: a folder in which another sweep was begun, or whose plan is damaged.
    """

    def __init__(self, folder: str | Path | None, plan: Json) -> None:
        self.folder = folder = None if folder is None else Path(folder)
        if folder is None:
            return
        digest = hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()
        path = folder / PLAN
        if path.is_file():
            if path.read_text(encoding="utf-8", errors="replace") != json.dumps(digest):
                raise PatchError(
                    f"{folder} was begun with other settings, or its {PLAN} is damaged: choose another folder, or "
                    "remove it."
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(digest))

    def get(self, number: int, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The table with this number, computed and kept if it is not there, or damaged."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{number:05d}.parquet"
        found = kept_table(path)
        if found is None:
            write_parquet(path, compute())
            return pd.read_parquet(path)
        return found


def kept_table(path: Path) -> pd.DataFrame | None:
    """A table that was kept; None if there is none, or it is damaged and has to be computed again.

    Args:
        path: of the file.
    """
    try:
        return pd.read_parquet(path) if path.is_file() else None
    except (ValueError, OSError):
        return None
