"""Activations on disk: one safetensors file a site, in its final shape from the start, filled batch by batch.

A folder holds ``manifest.json`` (what was asked, of which model and battery, with the batch plan), ``items.parquet``,
``tokens.safetensors``, one shard a site, and ``batches.log``, a line for each batch that is in the shards:

1. The folder appears by a rename, whole, with its shards laid out at full length; a full disk shows here.
2. Each batch is written to its rows, then its SHA-256 is appended to the log. After ``kill -9`` at any moment the
   batches whose rows still have the digest of their line are there; the others are computed again.
3. Batches, splits and the number of threads are replayed from the manifest and the log, so a resumed capture ends with
   the same bytes as one that was never stopped.
4. Opening reads all of it once against its digests, so a flipped byte is noticed, wherever it is, and mended by
   computing its batch again. Reading afterwards is by memory map.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
from safetensors.numpy import load_file, save_file

from affectlens.errors import StoreError
from affectlens.manifests import (
    FORMAT,
    ITEMS,
    LOG,
    MANIFEST,
    TOKENS,
    Plan,
    canonical,
    damaged,
    header,
    lay_out_shard,
    read_manifest,
    shard_name,
)
from affectlens.paths import file_sha256, replacing, write_parquet, written_whole


@dataclass(frozen=True)
class Done:
    """A line of the log: a batch that is in the shards."""

    batch: int
    parts: int  # into how many forward passes it was split for want of memory
    sha256: str


class Shards:
    """An open capture folder."""

    def __init__(self, home: Path) -> None:
        """Open ``home`` and check every byte of it; ``missing`` are the batches to compute.

        Raises:
            StoreError: if it is not a whole capture folder of this format.
        """
        self.home = home
        manifest = read_manifest(home)
        try:
            self.plan = Plan(**manifest["plan"])
            for name in (ITEMS, TOKENS):
                if file_sha256(home / name) != manifest["files"][name]:
                    raise damaged(home / name)
            tokens = load_file(home / TOKENS)
        except (FileNotFoundError, TypeError, KeyError, ValueError) as error:
            raise StoreError(f"{home} holds no readable activations ({error!r}).") from None
        self.ids, self.offsets = tokens["ids"], tokens["offsets"]
        self._starts = {what: self._check_header(what) for what in self.plan.shapes}
        self.done = {line.batch: line for line in self._read_log()}
        self.damaged = [n for n, line in self.done.items() if self._digest(n) != line.sha256]
        self.were = {n: self.done.pop(n).parts for n in self.damaged}

    @classmethod
    def create(cls, home: Path, plan: Plan, items: pd.DataFrame, ids: np.ndarray, offsets: np.ndarray) -> "Shards":
        """Lay out an empty folder for ``plan``; if another process was first, theirs is opened.

        Raises:
            StoreError: if the disk has no room for it.
        """
        need = sum(4 * int(np.prod(shape)) for group in plan.shapes.values() for shape in group.values())
        home.parent.mkdir(parents=True, exist_ok=True)
        if need > shutil.disk_usage(home.parent).free:
            raise _full(home, need)
        with _room(home, need), written_whole(home) as work:
            _describe(work, plan, items, ids, offsets)
            for what, shapes in plan.shapes.items():
                lay_out_shard(work / shard_name(what), shapes)
            (work / LOG).touch()
        return cls(home)

    @classmethod
    def mend(cls, home: Path, plan: Plan, items: pd.DataFrame, ids: np.ndarray, offsets: np.ndarray) -> "Shards":
        """Write anew all that describes the values, and open the folder; each batch still has to match its digest.

        So damage to anything but values costs no computing, and the values of a folder are never thrown away.
        """
        with suppress(StoreError):
            found = Plan(**read_manifest(home)["plan"])
            plan = found if found.shapes == plan.shapes else plan
        with _room(home):
            _describe(home, plan, items, ids, offsets)
            for what, shapes in plan.shapes.items():
                lay_out_shard(home / shard_name(what), shapes)
        return cls(home)

    @property
    def missing(self) -> list[int]:
        """The batches that are not in the shards, in the order in which they are computed."""
        return [n for n in range(len(self.plan.batches)) if n not in self.done]

    def write(self, batch: int, parts: int, values: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Put a batch into its rows, ``values[what][position]`` in the order of the batch, then log it."""
        digest = hashlib.sha256()
        with _room(self.home):
            for what, group in self.plan.shapes.items():
                with (self.home / shard_name(what)).open("r+b") as stream:
                    for position in group:
                        rows = np.ascontiguousarray(values[what][position], dtype=np.float32)
                        digest.update(rows.tobytes())
                        self._scatter(stream, what, position, self.plan.batches[batch], rows)
            line = Done(batch, parts, digest.hexdigest())
            with (self.home / LOG).open("ab") as stream:
                stream.write(json.dumps(asdict(line)).encode() + b"\n")
        self.done[batch] = line

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """The tensors, memory-mapped: what is written into them stays in memory."""
        out: dict[str, dict[str, np.ndarray]] = {w: {} for w in self.plan.shapes}
        for what, group in self.plan.shapes.items():
            for position, shape in group.items():
                start, path = self._starts[what][position], self.home / shard_name(what)
                out[what][position] = np.asarray(np.memmap(path, np.float32, "c", start, tuple(shape)))
        return out

    def items(self) -> pd.DataFrame:
        return pd.read_parquet(self.home / ITEMS)

    def _scatter(self, stream: BinaryIO, what: str, position: str, items: list[int], rows: np.ndarray) -> None:
        width, at = 4 * int(np.prod(rows.shape[1:])), 0
        for first, last in self.plan.rows(what, position, items, self.offsets):
            stream.seek(self._starts[what][position] + first * width)
            stream.write(rows[at : at + last - first].tobytes())
            at += last - first

    def _digest(self, batch: int) -> str:
        digest = hashlib.sha256()
        for what, group in self.plan.shapes.items():
            with (self.home / shard_name(what)).open("rb") as stream:
                for position, shape in group.items():
                    width = 4 * int(np.prod(shape[1:]))
                    for first, last in self.plan.rows(what, position, self.plan.batches[batch], self.offsets):
                        stream.seek(self._starts[what][position] + first * width)
                        digest.update(stream.read((last - first) * width))
        return digest.hexdigest()

    def _check_header(self, what: str) -> dict[str, int]:
        """Where each tensor of a shard begins, in bytes."""
        path, (head, starts, size) = self.home / shard_name(what), header(self.plan.shapes[what])
        try:
            with path.open("rb") as stream:
                if stream.read(len(head)) != head or path.stat().st_size != size:
                    raise damaged(path)
        except FileNotFoundError:
            raise damaged(path) from None
        return starts

    def _read_log(self) -> list[Done]:
        """The lines that are whole; a torn last one is cut off, so that the next is not appended to it."""
        path = self.home / LOG
        content = path.read_bytes() if path.exists() else b""
        whole, out = content[: content.rfind(b"\n") + 1], []
        if whole != content or not path.exists():
            path.write_bytes(whole)
        for line in whole.splitlines():
            try:
                done = Done(**json.loads(line))
                if 0 <= done.batch < len(self.plan.batches) and done.parts >= 1:
                    out.append(done)
            except (ValueError, TypeError):
                continue
        return out


class InMemory:
    """The same for a capture that is not kept: the tensors are in memory, and nothing is on disk."""

    def __init__(self, plan: Plan, offsets: np.ndarray) -> None:
        self.plan, self.offsets = plan, offsets
        self.missing = list(range(len(plan.batches)))
        self.done: dict[int, Done] = {}
        self.were: dict[int, int] = {}
        self._values = {w: {p: np.empty(s, np.float32) for p, s in group.items()} for w, group in plan.shapes.items()}

    def write(self, batch: int, parts: int, values: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Put a batch into its rows."""
        for what, group in self._values.items():
            for position, whole in group.items():
                at, rows = 0, values[what][position]
                for first, last in self.plan.rows(what, position, self.plan.batches[batch], self.offsets):
                    whole[first:last] = rows[at : at + last - first]
                    at += last - first
        self.done[batch] = Done(batch, parts, "")

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """The tensors themselves."""
        return self._values


def _describe(home: Path, plan: Plan, items: pd.DataFrame, ids: np.ndarray, offsets: np.ndarray) -> None:
    """Items, tokens and the manifest with their digests, each by a rename."""
    try:
        write_parquet(home / ITEMS, items.drop(columns="meta", errors="ignore"))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise StoreError(
            f"A column of the items can't be written to parquet: {error!s:.150}. Drop it or fix it."
        ) from None
    with replacing(home / TOKENS) as work:
        save_file({"ids": ids, "offsets": offsets}, work)
    files = {name: file_sha256(home / name) for name in (ITEMS, TOKENS)}
    with replacing(home / MANIFEST) as work:
        work.write_bytes(canonical({"format": FORMAT, "files": files, "plan": asdict(plan)}))


def _full(home: Path, need: int) -> StoreError:
    free = shutil.disk_usage(home.parent).free
    wants = f"The activations need {need / 2**20:,.0f} MB" if need else "The activations can't be written"
    return StoreError(
        f"{wants} in {home.parent}, where {free / 2**20:,.0f} MB are free. Make room (affectlens cache prune), "
        "set AFFECTLENS_CACHE to a larger disk, or capture with cache=False."
    )


@contextmanager
def _room(home: Path, need: int = 0) -> Iterator[None]:
    """A full disk in plain words; other errors of the system as they are."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full(home, need) from error
        raise
