"""Valence, arousal and dominance of emotion words, as people rated them.

From the Glasgow Norms (Scott et al. 2019, CC BY 4.0), scale 1 to 9. NRC-VAD and Warriner's norms are larger; their
terms forbid shipping them, so :func:`read_norms` reads a user's own copy.
"""

import csv
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from affectlens.errors import BatteryError

SOURCE = "Glasgow Norms, Scott et al. 2019, doi 10.3758/s13428-018-1099-3, CC BY 4.0"
_COLUMNS = {  # what other norms call their columns
    "word": ("word", "words", "term"), "valence": ("valence", "v", "v.mean.sum", "val"),
    "arousal": ("arousal", "a", "a.mean.sum", "aro", "arou"), "dominance": ("dominance", "d", "d.mean.sum", "dom"),
}  # fmt: skip


class VAD(NamedTuple):
    """One word's coordinates."""

    valence: float
    arousal: float
    dominance: float


def vad(word: str) -> VAD | None:
    """Coordinates of an emotion word on a scale from 1 to 9, or None where the norms do not have it.

    >>> vad("grief")
    VAD(valence=1.941, arousal=4.875, dominance=3.629)
    """
    return norms().get(word.strip().lower())


@cache
def norms() -> dict[str, VAD]:
    """All words that ship."""
    text = (resources.files("affectlens.stimuli") / "data" / "vad.tsv").read_text(encoding="utf-8")
    return _parsed([line for line in text.splitlines() if not line.startswith("#")], "\t", "vad.tsv")


def read_norms(path: Path) -> dict[str, VAD]:
    """Norms from a user's own file, comma- or tab-separated, with columns for the word, valence, arousal, dominance.

    The scale is left as it is. Names as in NRC-VAD, Warriner's norms and the Glasgow Norms are known.

    Raises:
        BatteryError: if a column is missing, or a value is no number.
    """
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line and not line.startswith("#")]
    return _parsed(lines, "\t" if lines and "\t" in lines[0] else ",", path.name)


def _parsed(lines: list[str], mark: str, name: str) -> dict[str, VAD]:
    rows = csv.DictReader(lines, delimiter=mark)
    given = {str(field).strip().lower(): str(field) for field in rows.fieldnames or []}
    found = {what: next((given[n] for n in names if n in given), None) for what, names in _COLUMNS.items()}
    if missing := [what for what, field in found.items() if field is None]:
        raise BatteryError(f"{name} has no column for {', '.join(missing)}; it has {', '.join(given.values())}.")
    word, *axes = (str(found[what]) for what in ("word", *VAD._fields))
    try:
        return {row[word].strip().lower(): VAD(*(float(row[axis]) for axis in axes)) for row in rows}
    except (TypeError, ValueError) as error:
        raise BatteryError(f"{name} holds a value that is no number: {error}.") from None
