"""What may be said of one emotion by one judge: whether steering did more than plain replies and every placebo."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from affectlens.stats import Estimate
from affectlens.steering.evaluating.frames import ASKED, PLACEBOS
from affectlens.steering.evaluating.shares import first, read
from affectlens.types import Json

LEVEL = 0.05


class Finding(StrEnum):
    """The outcomes, the strongest first."""

    STEERED = "steered"  # above plain, and above every placebo
    PLACEBO = "placebo"  # above plain, and not told apart from a placebo
    UNCHECKED = "unchecked"  # above plain, and no placebo was run at this dose
    NOTHING = "nothing"  # not told from plain
    LOWER = "lower"  # below plain
    UNSAFE = "unsafe"  # no safe dose
    LACKING = "lacking"  # the judge has no such class


@dataclass(frozen=True)
class Verdict:
    """One emotion, one judge, the headline's way of steering."""

    emotion: str
    judge: str
    rows: pd.DataFrame  # of targets: this emotion and judge, unmasked; every condition
    steered: pd.DataFrame  # of these the headline's way; empty without a safe dose
    masked: pd.DataFrame  # the same with emotion words masked

    @property
    def finding(self) -> Finding:
        """A placebo whose draws can give p of 0.05 is beaten by its rank's adjusted p, another by the difference.

        If no placebo has enough draws for that, the claim is unchecked.
        """
        if self.rows.empty:
            return Finding.LACKING
        gain = self.less("plain")
        if gain is None:
            return Finding.UNSAFE
        if gain.low <= 0:
            return Finding.LOWER if gain.high < 0 else Finding.NOTHING
        if self.undone:
            return Finding.PLACEBO
        return Finding.STEERED if any(self._tells(kind) for kind in self.placebos) else Finding.UNCHECKED

    @property
    def placebos(self) -> tuple[str, ...]:
        """The placebos that were run at this dose."""
        return tuple(kind for kind in PLACEBOS if self.less(kind) is not None)

    @property
    def undone(self) -> tuple[str, ...]:
        """The placebos that do as much, as far as can be told."""
        return tuple(kind for kind in self.placebos if not self._beaten(kind))

    def _beaten(self, kind: str) -> bool:
        found = self.less(kind)
        if found is None:
            return False
        return found.p_adjusted is not None and found.p_adjusted <= LEVEL if self._tells(kind) else found.low > 0

    def _tells(self, kind: str) -> bool:
        """Whether so many draws can give p of 0.05."""
        row = self.facts(f"less {kind}")
        return row is not None and float(row["attainable"]) <= LEVEL

    @property
    def share(self) -> Estimate | None:
        """Of steered replies called the target."""
        return self._read(self.steered, "share")

    @property
    def dose(self) -> float:
        """The dose that is reported; NaN without one."""
        return float(self.steered["dose"].iloc[0]) if len(self.steered) else float("nan")

    def less(self, name: str) -> Estimate | None:
        """The steered share less that of plain replies, a placebo, or prompting."""
        return self._read(self.steered, f"less {name}")

    def of(self, condition: str) -> Estimate | None:
        """The share of another condition; of a placebo, at the same dose."""
        rows = self.rows[self.rows["condition"] == condition]
        if condition in PLACEBOS and len(self.steered):
            rows = rows[rows["dose"] == self.dose]
        return self._read(rows, "share")

    def part(self, quantity: str) -> Estimate | None:
        """Another quantity of the steered replies."""
        return self._read(self.steered, quantity)

    def facts(self, quantity: str) -> Json | None:
        """The row of a quantity of the steered replies."""
        return first(self.steered[self.steered["quantity"] == quantity])

    @property
    def masked_gain(self) -> Estimate | None:
        """The difference from plain replies once emotion words are masked in both."""
        return self._read(self.masked, "less plain")

    @staticmethod
    def _read(rows: pd.DataFrame, quantity: str) -> Estimate | None:
        row = first(rows[rows["quantity"] == quantity])
        return None if row is None else read(row)


def verdicts(targets: pd.DataFrame, emotions: Sequence[str], judges: Sequence[str], method: str) -> list[Verdict]:
    """One for each emotion and judge.

    Args:
        targets: of :func:`affectlens.steering.evaluating.targets.target_shares`.
        emotions: that were steered.
        judges: their names.
        method: the headline's.
    """
    out = []
    for emotion in emotions:
        for judge in judges:
            rows = targets[(targets["emotion"] == emotion) & (targets["judge"] == judge)]
            steered = rows[(rows["condition"] == "steer") & (rows["method"] == method)]
            steered = steered[steered["site"] == steered["site"].iloc[0]] if len(steered) else steered
            out.append(Verdict(emotion, judge, rows[~rows["masked"]], steered[~steered["masked"]],
                               steered[steered["masked"]]))  # fmt: skip
    return out


def asked_better(verdict: Verdict) -> tuple[str, ...]:
    """The ways of asking that give more of the target than steering, surely.

    Args:
        verdict: of an emotion and judge.
    """
    found = {kind: verdict.less(kind) for kind in ASKED}
    return tuple(kind for kind, one in found.items() if one is not None and one.high < 0)
