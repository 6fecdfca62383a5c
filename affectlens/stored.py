"""Opening a capture's folder in the store: one process at a time, damage said and mended."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from affectlens.errors import StoreError
from affectlens.manifests import MANIFEST, Plan
from affectlens.paths import cache_dir
from affectlens.progress import working
from affectlens.shards import Shards


class DamagedStore(UserWarning):
    """Something in the store was not as it was written, and is mended or computed again."""


@contextmanager
def opened(
    home: Path, plan: Plan, items: pd.DataFrame, ids: np.ndarray, offsets: np.ndarray, *, progress: bool | None
) -> Iterator[Shards]:
    """The folder at ``home``, laid out for ``plan`` if it is not there yet, locked against other processes.

    A process that finds it locked waits, and then finds the work done. The lock goes with its process, however it ends.
    """
    locks = cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{home.name}.lock", is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with working("another process is capturing the same; waiting for it", show=progress):
            lock.acquire()
    try:
        yield _whole(home, plan, items, ids, offsets)
    finally:
        lock.release()


def _whole(home: Path, plan: Plan, items: pd.DataFrame, ids: np.ndarray, offsets: np.ndarray) -> Shards:
    if not home.exists():
        return Shards.create(home, plan, items, ids, offsets)
    try:
        shards = Shards(home)
        if shards.plan.shapes != plan.shapes or not np.array_equal(shards.ids, ids):
            raise StoreError(f"{home} holds something else than its name says.")
    except StoreError as error:
        warnings.warn(f"{str(error).partition(':')[0]}. It is mended now.", DamagedStore, stacklevel=5)
        shards = Shards.mend(home, plan, items, ids, offsets)
    if shards.damaged:
        share = f"{len(shards.damaged)} of {len(shards.plan.batches)} batches"
        warnings.warn(f"{share} in {home} are damaged and are computed again now.", DamagedStore, stacklevel=5)
    os.utime(home / MANIFEST)  # for those who prune by last use
    return shards
