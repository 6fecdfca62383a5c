"""Doses, layers and new paths as users type them."""

import math
import re
from pathlib import Path

from affectlens.errors import SteerError


def dose(emotion: str, number: str) -> float:
    """A dose as a user types it.

    Args:
        emotion: whose.
        number: the text.

    Raises:
        SteerError: a text that is not a finite number.
    """
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SteerError(f"The dose of {emotion} is {number!r}, which is not a number: give one such as 0.6 or -0.3.")
    return value


def parse_doses(given: list[str]) -> dict[str, float]:
    """Doses by emotion from ``joy=0.6`` and the like, under the names that directions are kept by.

    Args:
        given: the texts; basic and peak words are one emotion, and other names stay as they are.

    Raises:
        SteerError: an emotion without a dose, a dose that is not a number, an emotion named twice.
    """
    from affectlens.steering.directions import spelled

    found: dict[str, float] = {}
    for text in given:
        name, sign, number = (part.strip() for part in text.partition("="))
        if not sign or not name:
            raise SteerError(f"--emotion {text} has no dose: write --emotion {name or 'joy'}=0.6.")
        kept = spelled(name)
        if kept in found:
            also = "" if kept == name.lower() else f" ({name} and {kept} are one emotion)"
            raise SteerError(f"{kept} is named twice{also}: give it one dose.")
        found[kept] = dose(name, number)
    return found


def parse_layers(text: str | None) -> list[int] | None:
    """Layers from ``14``, ``12,14`` or ``12-16``, in order; None for ``all``, and where nothing is said.

    Args:
        text: as typed.

    Raises:
        SteerError: another form.
    """
    if text is None or text.strip() == "all":
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise SteerError(f"--layers {text} is not known: write 14, or 12,14, or 12-16, or all.")
        found |= set(range(first, last + 1))
    return sorted(found)


def new_path(path: Path) -> Path:
    """The path, for a file or folder that is yet to be written.

    Args:
        path: as typed; ``~`` is the home folder.

    Raises:
        SteerError: something is there already.
    """
    target = path.expanduser()
    if target.exists():
        raise SteerError(f"{target} exists already: choose another --out, or remove it.")
    return target
