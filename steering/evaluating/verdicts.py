"""What may be said of one emotion by one judge: whether steering did more than plain replies and every placebo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

from affectlens.stats import Estimate
from affectlens.steering.evaluating.frames import ASKED, PLACEBOS, RATES, Arm
from affectlens.steering.evaluating.shares import first, read
from affectlens.types import Json

LEVEL = 0.05
_ROUNDING = 1e-9


class Finding(StrEnum):
    """The outcomes, the strongest first."""

    STEERED = "steered"  # above plain, and above every placebo
    PLACEBO = "placebo"  # above plain, and not told apart from a placebo
    UNCHECKED = "unchecked"  # above plain, and no placebo has draws enough for a rank
    NOTHING = "nothing"  # not told from plain
    LOWER = "lower"  # below plain
    UNSAFE = "unsafe"  # no safe dose
    UNABLE = "judge can't tell"  # on human-written texts its recall is not surely above its false alarms
    LACKING = "lacking"  # the judge has no such class


SILENT = frozenset({Finding.UNABLE, Finding.LACKING})  # neither confirm nor deny


@dataclass(frozen=True)
class Verdict:
    """One emotion, one judge, the headline's way of steering."""

    emotion: str
    judge: str
    rows: pd.DataFrame  # of targets: this emotion and judge, unmasked; every condition
    steered: pd.DataFrame  # of these the headline's way; empty without a safe dose
    masked: pd.DataFrame  # the same with emotion words masked
    known: pd.DataFrame  # of the judge's record: this class, a row a source; empty if it was not measured

    @property
    def finding(self) -> Finding:
        """A placebo whose draws can give p of 0.05 over the family is beaten by its rank's adjusted p.

        Another is beaten by the difference. If no placebo has enough draws for a rank, the claim is unchecked.
        """
        if self.rows.empty:
            return Finding.LACKING
        gain = self.less("plain")
        if gain is None:
            return Finding.UNSAFE
        if not self.able:
            return Finding.UNABLE
        if gain.low <= 0:
            return Finding.LOWER if gain.high < 0 else Finding.NOTHING
        if self.undone:
            return Finding.PLACEBO
        return Finding.STEERED if any(self._tells(kind) for kind in self.placebos) else Finding.UNCHECKED

    @property
    def able(self) -> bool:
        """Whether the judge tells the class: on some source its recall is surely above its false alarms.

        True if that was never measured: then nothing is known against it.
        """
        return self.known.empty or bool((self.known["recall.low"] > self.known["false_alarm.high"]).any())

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
        row = self.facts(f"less {kind}")
        return row is not None and enough(row)

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


def enough(row: Mapping[str, Any]) -> bool:
    """Whether so many draws can give p of 0.05 for each emotion of the family; 159 are just enough for eight.

    Args:
        row: of targets, a difference from a placebo.
    """
    return float(row["attainable"]) * float(row["family"]) <= LEVEL + _ROUNDING


def verdicts(
    targets: pd.DataFrame, emotions: Sequence[str], judges: Sequence[str], method: str,
    *, records: pd.DataFrame | None = None,
) -> list[Verdict]:  # fmt: skip
    """One for each emotion and judge.

    Args:
        targets: of :func:`affectlens.steering.evaluating.targets.target_shares`.
        emotions: that were steered.
        judges: their names.
        method: the headline's.
        records: the judges' figures on held-out human-written texts, as :func:`..result.report_on` takes them.
    """
    known = pd.DataFrame(columns=list(RATES)) if records is None or not set(records) >= RATES else records
    known = known.dropna(subset=sorted(RATES))
    out = []
    for emotion in emotions:
        for judge in judges:
            rows = targets[(targets["emotion"] == emotion) & (targets["judge"] == judge)]
            steered = rows[(rows["condition"] == "steer") & (rows["method"] == method)]
            steered = steered[steered["site"] == steered["site"].iloc[0]] if len(steered) else steered
            own = known[(known["judge"] == judge) & (known["class"] == emotion)]
            out.append(Verdict(emotion, judge, rows[~rows["masked"]], steered[~steered["masked"]],
                               steered[steered["masked"]], own))  # fmt: skip
    return out


def ppl_ratio(doses: pd.DataFrame, chosen: Json) -> Estimate | None:
    """The perplexity of replies at the safe dose over the plain ones', on the half ``report``, which did not choose it.

    Args:
        doses: of :func:`affectlens.steering.evaluating.doses.dose_response`.
        chosen: a way of steering with its safe dose: ``condition, emotion, method, site, safe``.
    """
    if chosen["safe"] is None:
        return None
    arm = Arm(*(str(chosen[name]) for name in ("condition", "emotion", "method", "site")))
    row = first(arm.of(doses[doses["quantity"] == "reply ppl ratio"], chosen["safe"]))
    return None if row is None else read(row)


def asked_better(verdict: Verdict) -> tuple[str, ...]:
    """The ways of asking that give more of the target than steering, surely.

    Args:
        verdict: of an emotion and judge.
    """
    found = {kind: verdict.less(kind) for kind in ASKED}
    return tuple(kind for kind, one in found.items() if one is not None and one.high < 0)
