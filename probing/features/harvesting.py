"""Activations to train on, computed once and kept in bfloat16 on the disk; a stopped harvest goes on where it was."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from affectlens.capturing import budget, plan_batches
from affectlens.errors import StoreError
from affectlens.layouts import Layout
from affectlens.model import LensModel
from affectlens.passes import run_splitting
from affectlens.paths import replacing, write_text
from affectlens.positions import Position
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.types import Json

SHARD = 1 << 17  # activations in a file, about
ALL = Position("all")


def harvest(
    model: LensModel, site: Site, pieces: Sequence[Sequence[int]], folder: Path, *, progress: bool | None = None
) -> list[Path]:
    """Write the site's value at every token but each piece's first, which is an attention sink.

    Args:
        model: computes them.
        site: what is kept, flattened to ``d_in`` numbers.
        pieces: token ids.
        folder: where the files go; those that are there already are not made again.
        progress: show a bar.

    Returns:
        The files, each ``[activation, d_in]`` in bfloat16, of about 131,072 activations in the order of ``pieces``.

    Raises:
        StoreError: the folder holds those of another model, site or text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = hashlib.sha256(np.concatenate([np.array([-1, *piece], dtype=np.int64) for piece in pieces]).tobytes())
    only_for(folder / "harvest.json", {"model": model.fingerprint, "site": str(site), "pieces": told.hexdigest()})
    ends = np.cumsum([len(piece) - 1 for piece in pieces])
    groups = [list(rows) for rows in np.split(np.arange(len(pieces)), np.flatnonzero(np.diff(ends // SHARD)) + 1)]
    paths = [folder / f"shard-{number:05}.safetensors" for number in range(len(groups))]
    left = [(path, rows) for path, rows in zip(paths, groups, strict=True) if not path.is_file()]
    for path, rows in tracked(left, f"capturing {site} of {len(pieces):,} pieces of text", show=progress):
        found = values(model, site, [pieces[row] for row in rows])
        with replacing(path) as work:
            save_file({"activations": found.to(torch.bfloat16)}, work)
    return paths


def only_for(path: Path, what: Json) -> None:
    """Note what a folder is for, or compare.

    Args:
        path: of the note.
        what: names and hashes.

    Raises:
        StoreError: the folder is for something else.
    """
    if not path.is_file():
        write_text(path, json.dumps(what, indent=1))
    elif (before := json.loads(path.read_text(encoding="utf-8"))) != what:
        other = [key for key in what if before.get(key) != what[key]]
        raise StoreError(f"{path.parent} was begun with another {', '.join(other)}: choose another folder.")


def values(model: LensModel, site: Site, pieces: Sequence[Sequence[int]]) -> Float[Tensor, "activation d_in"]:
    """The site's value at every token but the first of each piece, piece after piece, in float32."""
    rows = [Layout(f"piece {i}", "", list(ids), [], np.ones(len(ids), bool), 0) for i, ids in enumerate(pieces)]
    parts = 1
    out: list[np.ndarray] = [np.empty(0)] * len(pieces)
    for batch in plan_batches([len(row) for row in rows], budget(model, None)):
        got, parts = run_splitting(model, [rows[i] for i in batch], (site,), (ALL,), {site.what: [site.layer]}, parts)
        ends = np.cumsum([len(rows[i]) for i in batch])
        for i, part in zip(batch, np.split(got[site.what][str(ALL)], ends[:-1]), strict=True):
            out[i] = part[1:].reshape(len(part) - 1, -1)
    return torch.from_numpy(np.concatenate(out))


def batches(
    paths: Sequence[Path], size: int, *, seed: int = 0, skip: int = 0
) -> Iterator[Float[Tensor, "activation d_in"]]:
    """Batches without end: pass after pass over the files, in a random order of files and of activations in each.

    The pieces were dealt to the files at random, so a batch mixes thousands of texts. The same seed gives the same
    batches whatever ``skip``, so that training goes on after a stop as if there had been none.

    Args:
        paths: from :func:`harvest`.
        size: activations a batch; what is left of a file goes into the next batch.
        seed: of the orders.
        skip: how many batches to pass over, without reading them.

    Raises:
        StoreError: fewer activations than one batch.
    """
    counts = [_count(path) for path in paths]
    if sum(counts) < size:
        raise StoreError(f"There are {sum(counts):,} activations, fewer than one batch of {size:,}: give more text.")
    ahead, number = skip * size, 0
    rest: Tensor | None = None
    while True:
        rng = np.random.default_rng([seed, number])
        for file_number in rng.permutation(len(paths)):
            order = rng.permutation(counts[file_number])
            if ahead >= counts[file_number]:
                ahead -= counts[file_number]
                continue
            with safe_open(paths[file_number], "pt") as file:
                rows = file.get_tensor("activations")[torch.from_numpy(order[ahead:])]
            ahead = 0
            rows = rows if rest is None else torch.cat((rest, rows))
            whole = len(rows) // size
            yield from (rows[at * size : (at + 1) * size].float() for at in range(whole))
            rest = rows[whole * size :]
        number += 1


def _count(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return int(file.get_slice("activations").get_shape()[0])
