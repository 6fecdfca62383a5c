"""``fear>90`` and ``probe:joy@12<0.5``: what is read, and on which side of a number something is to act, as text."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from affectlens.errors import BatteryError, SteerError
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.probing.tokens.reading import find_class
from affectlens.steering.directions import Direction, Directions

FORMS = "fear>90 or fear<50, a percentile of neutral texts, or probe:joy>0.5 or probe:joy<0, a logit"
_TEXT = re.compile(
    r"(?P<probe>probe:)?(?P<name>[^<>@,]+?)(?:@L?(?P<layer>[0-9]{1,4}))?\s*(?P<side>[<>])(?P<number>[^<>,]+)"
)


@dataclass(frozen=True)
class Threshold:
    """A name, a number, and a side of it.

    >>> Threshold.parse("probe:joy@12 < 0.5", "gate")
    Threshold(name='joy', probe=True, layer=12, below=True, number=0.5)
    """

    name: str
    probe: bool  # a saved probe's logit; otherwise the projection on a direction, by percentile of neutral texts
    layer: int | None  # None: the probes' own, and of several directions the one that is computed first
    below: bool
    number: float

    @classmethod
    def parse(cls, text: str, what: str) -> "Threshold":
        """The threshold that ``text`` names.

        Raises:
            SteerError: another form, a number that is none, a percentile beyond 0 to 100.
        """
        match = _TEXT.fullmatch(text.strip())
        number = _number(match["number"]) if match else math.nan
        if not match or not math.isfinite(number):
            raise SteerError(f"The {what} {text!r} is not known: write {FORMS}; joy@12 is that of layer 12.")
        probe, layer = match["probe"] is not None, match["layer"]
        if not probe and not 0 <= number <= 100:
            raise SteerError(f"The {what} {text!r} names percentile {number:g} of neutral texts: give one of 0 to 100.")
        name = match["name"].strip()
        return cls(name, probe, None if layer is None else int(layer), match["side"] == "<", number)

    def direction(self, directions: Directions) -> Direction:
        """The direction that it names; of several layers' the first that the model computes.

        Raises:
            SteerError: an emotion that the directions lack, or lack at that layer.
        """
        mine = sorted(directions[self.name], key=lambda d: d.at)
        found = [d for d in mine if self.layer is None or d.at.layer == self.layer]
        if not found:
            there = ", ".join(str(d.at.layer) for d in mine)
            raise SteerError(f"{self.name} has no direction at layer {self.layer}, only at {there}.")
        return found[0]

    def class_of(self, probes: Probes) -> str | None:
        """The class whose logit is meant, peak words too; None where there is one logit, which the target names.

        Raises:
            SteerError: a class that the probes lack.
        """
        if self.name.lower() == probes.target.lower() and len(probes.at().weights) == 1:
            return None
        try:
            return find_class(probes, self.name)[2]
        except BatteryError as error:
            raise SteerError(str(error)) from None


def needed(probes: Probes | str | Path | None, text: str, model: LensModel) -> Probes:
    """The probes that a text names a class of, loaded, and of this model.

    Args:
        probes: as given.
        text: that names them.
        model: that is steered.

    Raises:
        SteerError: none are given.
        StoreError: no such file, or probes of another model.
    """
    if probes is None:
        raise SteerError(f"{text!r} names a probe: give its file too, --probes FILE, or probes= in Python.")
    if not isinstance(probes, Probes):
        return Probes.load(probes, model)
    probes.expect(model.fingerprint, model.name)
    return probes


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
