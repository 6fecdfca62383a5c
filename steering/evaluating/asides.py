"""What is said beside the emotions: prompting, rises, leakage, damage, attainable p, the judges, the rules."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from affectlens.steering.evaluating.frames import ASKED, PLACEBOS
from affectlens.steering.evaluating.leakage import OTHERS
from affectlens.steering.evaluating.phrases import NAMES, listed, short, signed
from affectlens.steering.evaluating.shares import first, read
from affectlens.steering.evaluating.verdicts import LEVEL, Verdict, asked_better, enough
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.steering.evaluating.result import SteeringReport

_DAMAGED = 0.1  # share of degenerate replies at a safe dose that is worth a sentence


def unable(found: Sequence[Verdict]) -> Iterator[str]:
    """The classes that a judge has and can't tell, with its figures: one sentence a judge.

    Args:
        found: every emotion and judge.
    """
    for judge in dict.fromkeys(one.judge for one in found):
        mine = [one for one in found if one.judge == judge and not one.able and not one.rows.empty]
        if mine:
            yield (
                f"**{judge} can't tell {listed([one.emotion for one in mine])}**, and neither confirms nor denies it: "
                "on no source of human-written texts is its recall surely above its false alarms. "
                f"{'. '.join(_figures(one) for one in mine)}."
            )


def _figures(one: Verdict) -> str:
    each = [
        f"{_ranged(row, 'recall')} and {_ranged(row, 'false_alarm')} of {row['n']} ({row['source']})"
        for row in one.known.to_dict("records")
    ]
    return f"{one.emotion}: recall and false alarms {'; '.join(each)}"


def _ranged(row: Mapping[Any, Any], name: str) -> str:
    return f"{row[name]:.2f} [{row[f'{name}.low']:.2f}, {row[f'{name}.high']:.2f}]"


def asking(found: Sequence[Verdict]) -> Iterator[str]:
    """Which of prompting and steering gives more of the target, where that is sure, by judges that can tell it.

    Args:
        found: every emotion and judge.
    """
    found = [one for one in found if one.able]
    better: dict[tuple[str, str], list[str]] = {}
    for one in found:
        for kind in asked_better(one):
            better.setdefault((kind, one.emotion), []).append(one.judge)
    for kind in ASKED:
        mine = {emotion: judges for (name, emotion), judges in better.items() if name == kind}
        for judges in dict.fromkeys(map(tuple, mine.values())):
            emotions = [emotion for emotion, by in mine.items() if tuple(by) == judges]
            yield f"**{NAMES[kind].capitalize()} beats steering** for {listed(emotions)}, judged by {listed(judges)}."
    above = [f"{v.emotion} ({v.judge})" for v in found if (d := v.less("prompted")) is not None and d.low > 0]
    if above:
        yield f"Steering beats prompting for {listed(above)}."
    open_ones = sum(1 for v in found if (d := v.less("prompted")) is not None and d.low <= 0 <= d.high)
    if open_ones:
        yield f"In {open_ones} comparisons of steering with prompting neither is surely ahead."


def rising(report: "SteeringReport") -> Iterator[str]:
    """Where the share rises with the dose.

    Args:
        report: of an evaluation.
    """
    rows = report.doses[(report.doses["condition"] == "steer") & (report.doses["method"] == report.method)]
    rows = rows[rows["quantity"] == "rise"]
    for judge, mine in _told(report, rows, "emotion").groupby("judge", sort=False):
        up = mine[(mine["p_adjusted"] <= LEVEL) & (mine["value"] > 0)]
        said = ", ".join(f"{row['emotion']} {signed(read(row))}" for row in up.to_dict("records")) or "no emotion"
        yield (
            f"By {judge} the share rises with the dose for {said} (least-squares rise over the doses; p at most 0.05 "
            f"over {len(mine)} curves, Benjamini-Hochberg)."
        )


def leaking(report: "SteeringReport") -> Iterator[str]:
    """Where more replies are called another emotion, too.

    Args:
        report: of an evaluation.
    """
    rows = report.leakage[(report.leakage["condition"] == "steer") & (report.leakage["method"] == report.method)]
    rows = rows[(rows["quantity"] == "less plain") & (rows["judged"] == OTHERS) & (rows["low"] > 0)]
    for judge, mine in _told(report, rows, "target").groupby("judge", sort=False):
        said = ", ".join(f"{row['target']} {signed(read(row))}" for row in mine.to_dict("records"))
        yield f"Leakage: by {judge} more replies are called another emotion than of plain ones, steered to {said}."


def _told(report: "SteeringReport", rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows whose judge can tell the emotion of that column."""
    blind = {(one.judge, one.emotion) for one in report.verdicts if not one.able}
    kept = [pair not in blind for pair in zip(rows["judge"], rows[column], strict=True)]
    return rows[np.array(kept, dtype=bool)]


def damage(report: "SteeringReport") -> Iterator[str]:
    """Emotions whose replies are degenerate at the safe dose.

    Args:
        report: of an evaluation.
    """
    rows = report.doses[(report.doses["quantity"] == "degenerate") & (report.doses["condition"] == "steer")]
    rows = rows[rows["method"] == report.method]
    at = [rows[(rows["emotion"] == e) & (rows["dose"] == dose)] for e, dose in report.safe.items() if dose is not None]
    found = {str(row["emotion"]): read(row) for row in map(first, at) if row is not None}
    bad = {emotion: one for emotion, one in found.items() if one.value > _DAMAGED}
    if bad:
        said = "; ".join(f"{emotion} {one}" for emotion, one in bad.items())
        yield f"Degenerate replies at the safe dose, which perplexity alone lets pass (share of replies): {said}."


def draws(found: Sequence[Verdict]) -> Iterator[str]:
    """Placebos whose draws can't pass.

    Args:
        found: every emotion and judge.
    """
    least: dict[str, Json] = {}
    for one in found:
        for kind in PLACEBOS:
            row = one.facts(f"less {kind}")
            if row is not None and not pd.isna(row["attainable"]):
                least[kind] = max(least.get(kind, row), row, key=lambda r: float(r["family"]))
    if least:
        said = ", ".join(f"{kind} {short(row['attainable'])}" for kind, row in least.items())
        few = [f"{kind} (over {row['family']:.0f})" for kind, row in least.items() if not enough(row)]
        yield f"The least p that the draws can give, for one emotion: {said}." + (
            f" Too few for a rank over the emotions: {listed(few)}; their differences alone count." if few else ""
        )


def judges(report: "SteeringReport") -> Iterator[str]:
    """How far the judges agree, what they find in human-written texts, and which of them is the steered model.

    Args:
        report: of an evaluation.
    """
    for row in report.agreement.to_dict("records"):
        if row["replies"] == "all":
            yield (
                f"Kappa of {row['a']} and {row['b']}: {read(row)} on the {row['judged']} replies to which both gave a "
                "label that both have."
            )
    if {"judge", "class", "recall", "recall.low", "recall.high"} <= set(report.judges):
        for (judge, source), rows in report.judges.groupby(["judge", "source"], sort=False):
            each = ", ".join(f"{r['class']} {_ranged(r, 'recall')}" for r in rows.to_dict("records"))
            yield f"Of human-written texts ({source}) {judge} finds: {each}."
    for judge in report.facts.get("self_judged", ()):
        yield f"{judge} reads with the model that was steered, and may share the mistakes that it is asked about."


def left_out(report: "SteeringReport") -> Iterator[str]:
    """What was to be run and could not be.

    Args:
        report: of an evaluation.
    """
    for name, why in report.facts.get("left_out", {}).items():
        yield f"Not run: {NAMES.get(name, name)}. {why}"


def how(report: "SteeringReport") -> str:
    """How doses were chosen and intervals made.

    Args:
        report: of an evaluation.
    """
    unread = [row for row in report.facts["arms"] if not row["neutral"]]
    mine = [row["emotion"] for row in unread if row["condition"] == "steer" and row["method"] == report.method]
    more = f" Neutral text was not run for {listed(list(dict.fromkeys(mine)))}." if mine else ""
    others = {f"{row['condition']} {row['method']}".strip() for row in unread} - {f"steer {report.method}"}
    more += f" Only replies, not neutral text, chose the doses of {listed(sorted(others))}." if others else ""
    return (
        f"Doses were chosen on {report.facts['n_choose']} prompts (the largest with both perplexity ratios at most "
        f"1.5, there and below), all else is of {report.facts['n_report']} others; intervals are 95% and resample "
        f"prompts.{more}"
    )
