"""What the store holds, and clearing it: ``affectlens cache list`` and ``affectlens cache prune``."""

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from affectlens.errors import StoreError
from affectlens.manifests import LOG, MANIFEST, read_manifest
from affectlens.paths import cache_dir

DAY = 86_400.0


@dataclass(frozen=True)
class Kept:
    """One folder of the cache."""

    path: Path
    megabytes: float
    idle_days: float  # since it was last used
    model: str = ""
    battery: str = ""
    sites: str = ""
    positions: str = ""
    items: int = 0
    state: str = ""  # complete, "3 of 9 batches", or why it can't be used

    @property
    def usable(self) -> bool:
        """Whether a capture would use or continue it."""
        return self.state != "unusable"


def kept() -> list[Kept]:
    """Every capture in the store, whatever its state, and what was left behind by others; the largest first."""
    root = cache_dir()
    folders = [p for p in (root / "activations").glob("*") if p.is_dir()] + list((root / "partial").glob("*"))
    found = []
    for path in folders:
        with suppress(FileNotFoundError):  # a running capture renames and removes its own
            found.append(_look(path))
    return sorted(found, key=lambda one: -one.megabytes)


def _look(path: Path) -> Kept:
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) / 2**20
    times = [path, path / MANIFEST, path / LOG]
    idle = (time.time() - max(p.stat().st_mtime for p in times if p.exists())) / DAY
    try:
        plan = read_manifest(path)["plan"]
        log = (path / LOG).read_bytes()
        done = len({line.split(b",")[0] for line in log[: log.rfind(b"\n") + 1].splitlines()})
        total = len(plan["batches"])
        state = "complete" if done == total else f"{done} of {total} batches"
        items = sum(len(batch) for batch in plan["batches"])
        what, positions = " ".join(plan["shapes"]), " ".join(plan["positions"])
        return Kept(path, size, idle, plan["model"], plan["battery"], what, positions, items, state)
    except (StoreError, OSError, KeyError, TypeError):
        return Kept(path, size, idle, state="unusable")


def prune(
    *, older_than: float | None = None, everything: bool = False, dry_run: bool = False
) -> tuple[list[Kept], list[Kept]]:
    """Remove what can't be used (another version's, damaged, left behind), and what is asked for.

    Args:
        older_than: also captures that were not used for so many days.
        everything: all captures. Models are never removed.
        dry_run: remove nothing, only say what would go.

    Returns:
        What was removed, and what was to go but is being written by a running process.
    """
    gone, busy = [], []
    for one in kept():
        if one.path.name.startswith("."):  # being laid out by a running process, unless it is old
            asked = one.idle_days > 1
        else:
            asked = everything or not one.usable or (older_than is not None and one.idle_days > older_than)
        if not asked:
            continue
        lock = FileLock(cache_dir() / "locks" / f"{one.path.name}.lock")
        lock_there = Path(lock.lock_file).exists()
        try:
            if lock_there:
                lock.acquire(timeout=0)
        except Timeout:
            busy.append(one)
            continue
        try:
            if not dry_run:
                shutil.rmtree(one.path)
            gone.append(one)
        except PermissionError:  # Windows keeps what is memory-mapped
            busy.append(one)
        finally:
            if lock_there:
                lock.release()
    return gone, busy
