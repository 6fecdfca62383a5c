"""Where things are kept outside the tree: one cache folder, and a way to write that leaves nothing half-written."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import platformdirs


def cache_dir() -> Path:
    """The cache folder: ``$AFFECTLENS_CACHE``, or the user's cache folder of this system."""
    root = os.environ.get("AFFECTLENS_CACHE")
    return Path(root) if root else Path(platformdirs.user_cache_dir("affectlens", appauthor=False))


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; on success it takes the target's name, on failure it is removed.

    If another process put the same folder there first, theirs stays and ours goes: names are content addresses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        try:
            work.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success it takes the place of ``path``, on failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield work
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` under a temporary name, then rename."""
    with replacing(path) as work:
        work.write_text(text, encoding="utf-8")


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table under a temporary name, then rename."""
    with replacing(path) as work:
        frame.to_parquet(work, index=False)
