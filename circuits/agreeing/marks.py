"""The five questions, the four answers, and the rule that gives one; how p is corrected over emotions.

An answer is **yes** if the deciding difference is above zero by its 95% interval and by its corrected p; **no** if that
interval ends below the smallest difference worth having; **undecided** otherwise: then the interval holds both nothing
and something worth having. What was not run, or could not have come out otherwise, is **not measured**. A no is thus a
finding of its own, and never a lack of evidence.

The deciding difference is that from the control that is beaten least: a yes needs all controls beaten (an
intersection-union test, Berger 1982), and for a no one control is enough. Which control that is was seen in the same
data, so a wrong no has a probability of at most 2.5% a control, not in all.

A family is the layers and emotions of one question. Where emotions have pairs of their own, p is corrected by max-T
over the layers (and controls) of each emotion, and then over emotions as Benjamini and Bogomolov (2014, JRSS B 76)
select families: with R of m emotions selected by Benjamini-Hochberg on their smallest p, a cell passes at level R / m.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.types import Json

YES, NO, UNDECIDED, NOT_MEASURED = "yes", "no", "undecided", "not measured"
VERDICTS = (YES, NO, UNDECIDED, NOT_MEASURED)
QUESTIONS = ("read", "causal", "feature", "steerable", "circuit")
LEVEL = 0.05
WORTH: Mapping[str, float] = MappingProxyType(
    {"read": 0.05, "causal": 0.10, "feature": 1.0, "steerable": 0.20, "circuit": 0.05}
)  # the smallest difference worth having, in the question's unit
UNITS: Mapping[str, str] = MappingProxyType({
    "read": "AUROC above the strongest control", "causal": "share of the gap above the strongest control",
    "feature": "standard deviations of the paired difference", "steerable": "share of replies above the placebo",
    "circuit": "estimated share of the gap above random circuits",
})  # fmt: skip
COLUMNS = ("layer", "emotion", "question", "verdict", "value", "low", "high", "control", "p_adjusted", "n", "undone",
           "source", "why")  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """One answer, with the estimate that it rests on; NaN where there is none."""

    layer: int
    emotion: str
    question: str
    verdict: str
    value: float = float("nan")  # the deciding difference, in the question's unit
    low: float = float("nan")  # of its 95% interval
    high: float = float("nan")
    control: str = ""  # what it is the difference from
    p_adjusted: float = float("nan")  # over the question's family
    n: int = 0  # clusters
    undone: bool = False  # something is surely there, and a control is not surely beaten
    source: str = ""
    why: str = ""

    @property
    def row(self) -> Json:
        """A row of the table."""
        return {name: getattr(self, name) for name in COLUMNS}


def decided(low: float, high: float, p_adjusted: float, worth: float) -> str:
    """The answer that an interval and a corrected p give.

    >>> decided(0.02, 0.20, 0.01, 0.05), decided(-0.04, 0.03, 0.80, 0.05), decided(-0.10, 0.20, 0.60, 0.05)
    ('yes', 'no', 'undecided')

    Args:
        low: of the 95% interval of the deciding difference.
        high: of the same.
        p_adjusted: corrected over the family; NaN passes nothing.
        worth: the smallest difference worth having.
    """
    if low > 0 and p_adjusted <= LEVEL:
        return YES
    return NO if high < worth else UNDECIDED


def across(p: "pd.Series[float]", emotion: "pd.Series[str]") -> Float[np.ndarray, " cell"]:
    """p over all emotions, from p that is corrected inside each: at most 0.05 where the cell passes at that level.

    >>> across(pd.Series([0.01, 0.03, 0.5]), pd.Series(["joy", "joy", "fear"])).round(3).tolist()
    [0.02, 0.06, 0.5]

    Args:
        p: corrected over the cells of the emotion; NaN where there is none.
        emotion: of each cell; one whose p are all NaN is not counted.
    """
    best = np.sort(p.groupby(emotion.to_numpy()).min().dropna().to_numpy(dtype=float))
    m = len(best)
    count = np.arange(1, m + 1)
    reached = np.minimum.accumulate((best * m / np.maximum(count, 1))[::-1])[::-1]  # the level at which R >= count
    given = p.to_numpy(dtype=float)[:, None]
    if not m:
        return np.full(len(p), np.nan)
    return np.minimum(np.maximum(given * m / count, reached).min(1), 1.0)


def blank(layer: int, emotion: str, question: str, why: str, source: str = "") -> Mark:
    """A mark of what was not measured.

    Args:
        layer: the layer.
        emotion: the emotion.
        question: one of :data:`QUESTIONS`.
        why: in words.
        source: where it was looked for.
    """
    return Mark(layer, emotion, question, NOT_MEASURED, source=source, why=why)
