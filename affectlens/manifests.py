"""The format of a capture folder: its plan and manifest, and the headers of its shards."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affectlens.errors import StoreError
from affectlens.types import Json

FORMAT = 2
Values = dict[str, dict[str, np.ndarray]]  # site name without its layer -> position -> [item or token, layer, ...]
MANIFEST, ITEMS, TOKENS, LOG = "manifest.json", "items.parquet", "tokens.safetensors", "batches.log"


@dataclass(frozen=True)
class Plan:
    """What a capture folder will hold, and in which batches it is computed."""

    model: str
    fingerprint: str
    battery: str
    battery_sha256: str
    positions: list[str]
    layers: dict[str, list[int]]  # site name without its layer -> the layers captured
    shapes: dict[str, dict[str, list[int]]]  # the same name -> position -> shape, [item or token, layer, ...]
    batches: list[list[int]]  # rows of items
    threads: int  # of torch, on which the last bits depend

    def rows(self, what: str, position: str, items: list[int], offsets: np.ndarray) -> list[tuple[int, int]]:
        """Where the items' rows of a tensor are, as half-open ranges: one row an item, or one a token."""
        if is_ragged(what, position):
            return [(int(offsets[i]), int(offsets[i + 1])) for i in items]
        return [(i, i + 1) for i in items]


def is_ragged(what: str, position: str) -> bool:
    """Whether a tensor has a row for each token: where nothing is pooled, and in patterns, which lie over keys."""
    return position == "all" or what.split("@")[0].endswith("pattern")


def read_manifest(home: Path) -> Json:
    """The manifest of a capture folder, checked against its own digest.

    Raises:
        StoreError: if there is none, it is damaged, or of another version.
    """
    try:
        content = (home / MANIFEST).read_bytes()
        manifest: Json = json.loads(content)
        if manifest.get("format") != FORMAT:
            raise StoreError(f"{home} was written by another version of AffectLens: capture again.")
        if canonical(manifest) != content:
            raise damaged(home / MANIFEST)
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError, KeyError) as error:
        raise StoreError(f"{home} holds no readable activations ({error!r}).") from None
    return manifest


def shard_name(what: str) -> str:
    """The file of a site's tensors; a dictionary's name may hold characters that a file's can't."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-@") else "_" for c in what)[:80]
    _, _, sae = what.partition("@")  # H3 and N17 are ours; a dictionary's name is anybody's, and files fold its case
    safe = plain == what and sae == sae.lower()
    return (plain if safe else f"{plain}-{hashlib.sha256(what.encode()).hexdigest()[:8]}") + ".safetensors"


def canonical(manifest: Json) -> bytes:
    """A manifest as it is written, ending with the digest of the rest."""
    body = {key: manifest[key] for key in ("format", "files", "plan")}
    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return (json.dumps({**body, "sha256": digest}) + "\n").encode()


def header(shapes: dict[str, list[int]]) -> tuple[bytes, dict[str, int], int]:
    """The safetensors header for these shapes, where each tensor begins, and the file's length."""
    table, at, spans = {}, 0, {}
    for position, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        table[position] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        spans[position], at = at, at + size
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {position: len(head) + start for position, start in spans.items()}, len(head) + at


def lay_out_shard(path: Path, shapes: dict[str, list[int]]) -> None:
    """A shard's header, and its full length; the disk's space is taken now. What is in it already stays."""
    head, _, size = header(shapes)
    path.touch()
    with path.open("r+b") as stream:
        stream.write(head)
        stream.flush()
        stream.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)


def damaged(path: Path) -> StoreError:
    """The error to raise about a file that is not as it was written."""
    return StoreError(f"{path} is damaged: remove {path.parent} and capture again.")
