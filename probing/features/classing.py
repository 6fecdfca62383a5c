"""Keyword feature, affect feature, both, or style: the classes of the plane, given where intervals show them.

Let a be a feature's response to affect without the words and w its response to the words (the mean of what they add to
an emotional scene and of what decoys do), both turned so that its mean response to emotional scenes is positive; let t
be that to keyword-rich scenes, and v and f those to vivid neutral scenes and to crossed facts. With r = 1/3
(``bound``) and s = 1/2 (``style``):

- **style**: |v| > s t or |f| > s t: vivid writing, or a turned fact without stakes, moves it at least half as much as
  keyword-rich scenes do. A feature of any other class must have |v| < s t and |f| < s t.
- **keyword**: w > 0 and a < r w.
- **affect**: a > 0, w < r a, and neither part of w, by itself, is as large as a.
- **both**: a > r w and w > r a.
- **unclear**: anything else.

A class is given if every one of its inequalities holds for the estimates and is shown: the 95% interval of the
difference of its two sides lies above zero (97.5% for the two ways into style, each of which has two signs). For w < r
a this says that Fieller's interval of the ratio w / a lies below r. All the inequalities of a class must be shown, so a
wrong class is given with a nominal probability of 2.5% for each feature, and 5% for style (intersection-union test,
Berger 1982); where a feature fires in few decoys the intervals are approximate and it can be more. It is not corrected
over features, and it holds for features that were chosen on other scenes than those given here. What is not shown is
unclear, and the table says which inequality was not and how large a response would have done. What a battery can't
test, because it has no decoys, vivid scenes or facts, is not asked for: the column ``untested`` names it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from affectlens.errors import BatteryError
from affectlens.probing.features.plane import Responses, whole
from affectlens.probing.features.plane_parts import BASE, Draws

CLASSES = ("keyword", "affect", "both", "style", "unclear")
UNCLEAR = CLASSES.index("unclear")
BOUND, STYLE = 1 / 3, 1 / 2
_POWER = 1.43  # half a 95% interval to what is found with 80% power: (1.96 + 0.84) / 1.96


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of placed features.

    Attributes:
        table: the rows of the responses with ``class``; ``nearest``, the class by the estimates alone; ``support``, the
            share of draws whose estimates give ``nearest``; ``why``, of an unclear row, what was not shown;
            ``untested``, the inequalities for which the battery has no items;
            ``words_detectable`` and ``affect_detectable``, the least responses that a 5% test finds with 80% power;
            ``affect_needed``, the response to affect at which the absence of words (w < r a) could have been shown with
            80% power, and ``words_needed``, the same for a < r w; all in standard deviations.
        counts: a row an emotion and class: ``given``, how many features have it; ``nearest``, how many are nearest to
            it, with ``low`` and ``high`` (95%: the features are classified anew in every draw); ``expected``, the mean
            over draws; and ``of``, the features placed. The interval of ``nearest`` is widened to hold it where
            resampling moves features off a border, and that is most of them.
        bound, style: r and s.
    """

    table: pd.DataFrame
    counts: pd.DataFrame
    bound: float
    style: float

    @property
    def rule(self) -> str:
        """The rule in one sentence, for a methods paragraph."""
        lacking = sorted({one for row in self.table["untested"] for one in row.split(", ") if one})
        r, part = f"{self.bound:.2f}", f"{self.style:.2f}"
        said = (
            "A feature is of class affect where its response to keyword-free scenes is above zero, that to words below "
            f"{r} of it, and neither what words add to a scene nor what decoys do as large; keyword where its response "
            f"to words is above zero and that to keyword-free scenes below {r} of it; both where each is above {r} of "
            f"the other; style where vivid neutral scenes or crossed facts move it more than {part} of what "
            "keyword-rich scenes do. Each inequality must be shown by its 95% cluster interval (97.5% for style); "
            "otherwise it is unclear."
        )
        return said + (f" The battery has no items to test: {', '.join(lacking)}." if lacking else "")

    def __repr__(self) -> str:
        given = self.table["class"].value_counts()
        return f"Classes({', '.join(f'{name} {given.get(name, 0)}' for name in CLASSES)})"


def classed(found: Responses, *, bound: float = BOUND, style: float = STYLE) -> Classes:
    """Give each placed feature its class (the rule is the module's docstring).

    Args:
        found: the responses.
        bound: r, the ratio below which a response is a small part of another; between 0 and 1.
        style: s, the part of the emotional response from which a feature counts as one of style; above 0.

    Raises:
        BatteryError: a bound out of range.
    """
    if not 0 < bound < 1 or not style > 0:
        raise BatteryError(f"The bound must lie between 0 and 1 and style above 0; they are {bound} and {style}.")
    table = found.table.copy()
    n = len(table)
    nearest, given = np.full(n, UNCLEAR), np.full(n, UNCLEAR)
    support, why, untested = np.zeros(n), np.full(n, "", dtype=object), np.full(n, "", dtype=object)
    needs = {name: np.full(n, np.nan) for name in _NEEDS}
    codes = {emotion: [] for emotion in table["emotion"].unique()}  # type: dict[str, list[np.ndarray]]
    for rows, draws in found.draws():
        point = whole({name: table[name].to_numpy()[rows, None] for name in BASE if name in draws})
        sign = np.sign(point["emotional"])
        drawn, here = _codes(draws, sign, bound, style), _codes(point, sign, bound, style)[:, 0]
        nearest[rows], support[rows] = here, (drawn == here[:, None]).mean(1)
        exact = dict(_inequalities(point, sign, bound, style))
        shown = {name: _shown(part, exact[name], 0.0125 if name in _STYLE else 0.025)
                 for name, part in _inequalities(draws, sign, bound, style)}  # fmt: skip
        given[rows] = _given(here, shown)
        untested[rows] = ", ".join(one for one in _ALL if one not in shown)
        why[rows] = _why(here, shown, table["unit"].to_numpy()[rows], bound, style)
        for name, part in _needed(draws, sign, bound).items():
            needs[name][rows] = part
        codes[str(table["emotion"].iloc[rows[0]])].append(drawn)
    table["class"], table["nearest"] = (np.array(CLASSES)[kind] for kind in (given, nearest))
    table["support"], table["why"] = support, np.where(given == UNCLEAR, why, "")
    table["untested"] = untested
    return Classes(table.assign(**needs), _counts(table, codes), bound, style)


_NEEDS = ("words_detectable", "affect_detectable", "words_needed", "affect_needed")
_OF = {  # the inequalities of each class, by name
    "keyword": ("words > 0", "affect < r words", "vivid < s rich", "crossed_fact < s rich"),
    "affect": ("affect > 0", "words < r affect", "added < affect", "decoy < affect", "vivid < s rich",
               "crossed_fact < s rich"),
    "both": ("affect > r words", "words > r affect", "vivid < s rich", "crossed_fact < s rich"),
}  # fmt: skip
_STYLE = ("vivid > s rich", "crossed_fact > s rich")
_ALL = tuple(dict.fromkeys([one for needed in _OF.values() for one in needed] + list(_STYLE)))


def _inequalities(x: Draws, sign: np.ndarray, bound: float, style: float) -> Iterator[tuple[str, np.ndarray]]:
    """The difference of the sides of each inequality that the battery can test, above zero where it holds."""
    a, w, t = (sign * x[name] for name in ("affect", "words", "rich"))
    yield "words > 0", w
    yield "affect > 0", a
    yield "affect < r words", bound * w - a
    yield "words < r affect", bound * a - w
    yield "affect > r words", a - bound * w
    yield "words > r affect", w - bound * a
    for part in ("added", "decoy"):
        if part in x:
            yield f"{part} < affect", a - sign * x[part]
    for part in ("vivid", "crossed_fact"):
        if part in x:
            yield f"{part} < s rich", style * t - np.abs(x[part])
            yield f"{part} > s rich", np.abs(x[part]) - style * np.abs(t)


def _codes(x: Draws, sign: np.ndarray, bound: float, style: float) -> np.ndarray:
    """The class by estimates alone, ``[row, draw]``."""
    holds = {name: part > 0 for name, part in _inequalities(x, sign, bound, style)}
    codes = np.full(x["affect"].shape, UNCLEAR, dtype=np.int8)
    for name, needed in _OF.items():
        codes[np.logical_and.reduce([holds[one] for one in needed if one in holds])] = CLASSES.index(name)
    for one in _STYLE:
        if one in holds:
            codes[holds[one]] = CLASSES.index("style")
    return codes


def _shown(drawn: np.ndarray, point: np.ndarray, tail: float) -> np.ndarray:
    """Whether an inequality holds for the estimate and for the lower end of its interval."""
    return (np.quantile(drawn, tail, axis=1) > 0) & (point[:, 0] > 0)


def _given(nearest: np.ndarray, shown: dict[str, np.ndarray]) -> np.ndarray:
    out = np.full(len(nearest), UNCLEAR)
    for name, needed in _OF.items():
        every = np.logical_and.reduce([shown[one] for one in needed if one in shown])
        out[every & (nearest == CLASSES.index(name))] = CLASSES.index(name)
    some = [shown[one] for one in _STYLE if one in shown]
    if some:
        style = CLASSES.index("style")
        out[np.logical_or.reduce(some) & (nearest == style)] = style
    return out


def _why(nearest: np.ndarray, shown: dict[str, np.ndarray], unit: np.ndarray, bound: float, style: float) -> list[str]:
    """For each row, what of its nearest class was not shown."""
    out: list[str] = []

    def told(inequality: str) -> str:
        return inequality.replace(" r ", f" {bound:.2f} ").replace(" s ", f" {style:.2f} ")

    for i, code in enumerate(nearest):
        name = CLASSES[code]
        if unit[i] == 0:
            out.append("never active on the vignettes")
        elif name == "style":
            out.append("not shown: " + " or ".join(told(one) for one in _STYLE if one in shown))
        elif name == "unclear":
            out.append("its estimates lie between the classes")
        else:
            out.append("not shown: " + ", ".join(told(one) for one in _OF[name] if one in shown and not shown[one][i]))
    return out


def _needed(x: Draws, sign: np.ndarray, bound: float) -> dict[str, np.ndarray]:
    """What could have been detected, from the widths of the intervals."""
    a, w = sign * x["affect"], sign * x["words"]
    halves = []
    for part in (w, a, bound * w - a, bound * a - w):
        low, high = np.quantile(part, [0.025, 0.975], axis=1)
        halves.append(_POWER * (high - low) / 2)
    return dict(zip(_NEEDS, (halves[0], halves[1], halves[2] / bound, halves[3] / bound), strict=True))


def _counts(table: pd.DataFrame, codes: dict[str, list[np.ndarray]]) -> pd.DataFrame:
    rows = []
    for emotion, blocks in codes.items():
        part, drawn = table[table["emotion"] == emotion], np.concatenate(blocks)
        for code, name in enumerate(CLASSES):
            each = (drawn == code).sum(0)
            seen, (low, high) = int((part["nearest"] == name).sum()), np.quantile(each, [0.025, 0.975])
            rows.append((emotion, name, int((part["class"] == name).sum()), seen, min(float(low), seen),
                         max(float(high), seen), float(each.mean()), len(part)))  # fmt: skip
    return pd.DataFrame(rows, columns=["emotion", "class", "given", "nearest", "low", "high", "expected", "of"])
