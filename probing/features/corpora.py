"""Texts to train a dictionary on: files and folders that a user names, a data set of the hub, or the model's own."""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.errors import StoreError
from affectlens.model import LensModel
from affectlens.quiet import quiet_transformers

KINDS = (".txt", ".md", ".jsonl", ".csv", ".tsv", ".parquet")
HUB = "hf:"
SHORTEST = 8  # tokens: below, a text's first token, which is left out, is too much of it


@dataclass(frozen=True)
class Windows:
    """Pieces of documents, each at most ``context`` tokens; a document is either for training or held out."""

    train: list[list[int]]
    held_out: list[list[int]]
    sha256: str  # of the training pieces, in order

    @property
    def tokens(self) -> int:
        """How many tokens of ``train`` give an activation: all but each piece's first."""
        return sum(len(piece) - 1 for piece in self.train)


def documents(sources: Sequence[str | Path], column: str = "text") -> Iterator[str]:
    """The documents of files and folders, in a fixed order.

    A ``.txt`` or ``.md`` file is one document, unless its documents are parted by lines of three dashes; each row of a
    ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file is one, by its column ``text``. ``hf:NAME`` is a data set of the
    hub, streamed.

    Raises:
        StoreError: nothing under a name, no column of that name, or a file that is not UTF-8.
    """
    for source in sources:
        if str(source).startswith(HUB):
            yield from _hub(str(source).removeprefix(HUB), column)
            continue
        place = Path(source).expanduser()
        files = sorted(p for p in place.rglob("*") if p.suffix in KINDS) if place.is_dir() else [place]
        if not files or not all(path.is_file() for path in files):
            raise StoreError(f"There is no text at {source}: give files or folders with {', '.join(KINDS)}.")
        for path in files:
            yield from _read(path, column)


def _read(path: Path, column: str) -> Iterator[str]:
    try:
        if path.suffix in (".jsonl", ".csv", ".tsv"):
            with path.open(encoding="utf-8", newline="") as stream:
                tab = "\t" if path.suffix == ".tsv" else ","
                csv.field_size_limit(1 << 30)
                lines = (line for line in stream if line.strip())
                rows = map(json.loads, lines) if path.suffix == ".jsonl" else csv.DictReader(stream, delimiter=tab)
                yield from (str(row[column]) for row in rows if row[column] is not None)
        elif path.suffix == ".parquet":
            yield from pd.read_parquet(path, columns=[column])[column].dropna().astype(str)
        else:
            yield from path.read_text(encoding="utf-8").split("\n---\n")
    except (
        KeyError,
        TypeError,
        ValueError,
        csv.Error,
    ) as error:  # a UnicodeDecodeError and a JSONDecodeError are ValueErrors
        raise StoreError(f"{path} can't be read as texts with a column {column!r}: {error}.") from None


def _hub(name: str, column: str) -> Iterator[str]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, split="train", streaming=True)
        yield from (str(row[column]) for row in rows)
    except Exception as error:  # the library raises many kinds, each for a reason of its own
        said = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise StoreError(f"The data set {name} can't be read, column {column!r} of its part train: {said}") from None


def windows(
    model: LensModel,
    texts: Iterator[str],
    *,
    tokens: int,
    context: int = 128,
    held_out: float = 0.02,
    seed: int = 0,
) -> Windows:
    """Cut documents into pieces, in a random order, until there are enough.

    Args:
        model: whose tokenizer cuts.
        texts: the documents; no more are read than are needed.
        tokens: how many activations are wanted for training.
        context: the longest piece.
        held_out: the share of documents set aside, by a hash of the document, so that a text is always on one side; if
            that leaves a side empty, the last pieces of all are.
        seed: of the order.

    Raises:
        StoreError: no text of at least 8 tokens.
    """
    parts: tuple[list[list[int]], list[list[int]]] = ([], [])
    seen, have = set(), 0
    for batch in _batched(texts, 256):
        with quiet_transformers():  # it would warn of documents longer than the context, which are cut
            ids = model.tokenizer([text for text in batch if text.strip()] or [" "])["input_ids"]
        for text, row in zip([text for text in batch if text.strip()], ids, strict=False):
            name = hashlib.sha256(text.encode("utf-8", "replace")).digest()
            if name in seen:
                continue
            seen.add(name)
            aside = int.from_bytes(name[:4], "big") < held_out * 2**32
            pieces = [row[at : at + context] for at in range(0, len(row), context)]
            kept = [piece for piece in pieces if len(piece) >= SHORTEST]
            parts[aside].extend(kept)
            have += 0 if aside else sum(len(piece) - 1 for piece in kept)
        if have >= tokens:
            break
    if not parts[0] or not parts[1]:  # few documents: the last pieces are set aside, whoever's they are
        every = parts[0] or parts[1]
        last = max(1, round(held_out * len(every))) if held_out and len(every) > 1 else 0
        parts = (every[: len(every) - last], every[len(every) - last :])
    if not parts[0]:
        raise StoreError(f"There is no text of {SHORTEST} tokens or more to train on.")
    order = np.random.default_rng(seed).permutation(len(parts[0]))
    train = _enough([parts[0][i] for i in order], tokens)
    told = hashlib.sha256(np.concatenate([np.array([-1, *piece], dtype=np.int64) for piece in train]).tobytes())
    return Windows(train, parts[1], told.hexdigest())


def _enough(pieces: list[list[int]], tokens: int) -> list[list[int]]:
    ends = np.cumsum([len(piece) - 1 for piece in pieces])
    return pieces[: int(np.searchsorted(ends, tokens)) + 1]


def _batched(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
