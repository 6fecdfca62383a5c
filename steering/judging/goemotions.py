"""GoEmotions' files, and how their 28 labels become the judges' seven classes.

Demszky et al. (2020, ACL, arXiv:2005.00547): Reddit comments, each labelled by three to five people; data under
CC BY 4.0. A folder holds ``train.tsv``, ``dev.tsv`` and ``test.tsv``: text, label numbers, the comment's id.

Two ways of reading a label are offered. ``ekman`` is the authors' own grouping, in which every label has an emotion:
approval and caring are joy, curiosity is surprise, disapproval is anger. ``named`` calls a label an emotion only where
Plutchik has the word among its intensities or Parrott under its name; the other labels are ``other``.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affectlens.errors import SteerError
from affectlens.stimuli.schemes import GOEMOTIONS, plutchik, relabel, tiers

NEUTRAL, OTHER = "neutral", "other"
CLASSES = ("joy", "fear", "surprise", "sadness", "disgust", "anger", NEUTRAL)
READINGS = ("named", "ekman")
LABELS = (*GOEMOTIONS[:-1], NEUTRAL)  # in the files' order: by the alphabet, neutral last
LICENCE = "GoEmotions, Demszky et al. (2020), CC BY 4.0"


@dataclass(frozen=True)
class Comments:
    """Comments with their classes: one class each; those whose labels disagree about it are left out.

    Attributes:
        texts: the comments.
        classes: one of :data:`CLASSES` or ``other``.
        ids: the comments' ids, the clusters of every interval.
    """

    texts: tuple[str, ...]
    classes: tuple[str, ...]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, rows: Iterable[int]) -> "Comments":
        """Some of them, in this order."""
        rows = list(rows)
        return Comments(*(tuple(part[i] for i in rows) for part in (self.texts, self.classes, self.ids)))


def class_of(label: str, reading: str = "named") -> str:
    """The class of a GoEmotions label, ``other`` where it has none.

    >>> class_of("grief"), class_of("curiosity"), class_of("curiosity", "ekman")
    ('sadness', 'other', 'surprise')

    Args:
        label: one of the 28.
        reading: ``named`` or ``ekman``.
    """
    if label == NEUTRAL:
        return NEUTRAL
    if reading == "ekman":
        found = relabel([label], "plutchik", source="goemotions")[0]
    else:
        found = plutchik(label) or (tiers(label) or ("", ""))[0]
    return found if found in CLASSES else OTHER


def read_comments(folder: str | Path, part: str, *, reading: str = "named") -> Comments:
    """The comments of one part whose labels all have one class.

    Args:
        folder: with the three files.
        part: train, dev or test.
        reading: ``named`` or ``ekman``.

    Raises:
        SteerError: a missing file, a line that is not of the format, or an unknown reading.
    """
    if reading not in READINGS:
        raise SteerError(f"The reading is {reading!r}, expected {' or '.join(READINGS)}.")
    path = Path(folder) / f"{part}.tsv"
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
        labelled = [[LABELS[int(k)] for k in row[1].split(",")] for row in rows]
        texts, ids = [row[0] for row in rows], [row[2].strip() for row in rows]
    except (OSError, ValueError, IndexError) as error:
        raise SteerError(
            f"{path} is not a readable GoEmotions file ({error}): each line has a text, label numbers and an id."
        ) from None
    classes = [{class_of(label, reading) for label in labels} for labels in labelled]
    kept = [i for i, found in enumerate(classes) if len(found) == 1 and texts[i].strip()]
    return Comments(
        tuple(texts[i] for i in kept), tuple(next(iter(classes[i])) for i in kept), tuple(ids[i] for i in kept)
    )


def sha256_of(folder: str | Path, part: str) -> str:
    """The SHA-256 of one part's file."""
    return hashlib.sha256((Path(folder) / f"{part}.tsv").read_bytes()).hexdigest()


def balanced(comments: Comments, most: int, *, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> Comments:
    """At most ``most`` comments of each class, drawn without replacement.

    Args:
        comments: to draw from.
        most: of each class.
        seed: of the draw.
        classes: the classes to draw.
    """
    rng = np.random.default_rng(seed)
    rows: list[int] = []
    for name in classes:
        found = [i for i, own in enumerate(comments.classes) if own == name]
        rows += sorted(rng.permutation(found)[:most].tolist()) if found else []
    return comments.at(rows)
