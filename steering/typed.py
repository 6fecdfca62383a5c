"""Doses and layers as users type them."""

import math

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
    """Doses by emotion from ``joy=0.6`` and the like.

    Raises:
        SteerError: an emotion without a dose, a dose that is not a number, an emotion named twice.
    """
    found: dict[str, float] = {}
    for text in given:
        name, sign, number = (part.strip() for part in text.partition("="))
        if not sign or not name:
            raise SteerError(f"--emotion {text} has no dose: write --emotion {name or 'joy'}=0.6.")
        if name.lower() in found:
            raise SteerError(f"{name} is named twice: give it one dose.")
        found[name.lower()] = dose(name, number)
    return found


def parse_layers(text: str | None) -> list[int] | None:
    """Layers from ``14``, ``12,14`` or ``12-16``.

    Raises:
        SteerError: another form.
    """
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise SteerError(f"--layers {text} is not known: write 14, or 12,14, or 12-16.")
        found += range(int(first), int(last or first) + 1)
    return sorted(set(found))
