"""What is said beside the emotions: prompting, rises, leakage, damage, attainable p, the judges, the rules."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from affectlens.steering.evaluating.frames import ASKED, PLACEBOS
from affectlens.steering.evaluating.leakage import OTHERS
from affectlens.steering.evaluating.phrases import NAMES, listed, short, signed
from affectlens.steering.evaluating.shares import first, read
from affectlens.steering.evaluating.verdicts import LEVEL, Verdict, asked_better

if TYPE_CHECKING:
    from affectlens.steering.evaluating.result import SteeringReport

_DAMAGED = 0.1  # share of degenerate replies at a safe dose that is worth a sentence


def asking(found: Sequence[Verdict]) -> Iterator[str]:
    """Which of prompting and steering gives more of the target, where that is sure.

    Args:
        found: every emotion and judge.
    """
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
    for judge, mine in rows.groupby("judge", sort=False):
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
    for judge, mine in rows.groupby("judge", sort=False):
        said = ", ".join(f"{row['target']} {signed(read(row))}" for row in mine.to_dict("records"))
        yield f"Leakage: by {judge} more replies are called another emotion than of plain ones, steered to {said}."


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
    least: dict[str, float] = {}
    for one in found:
        for kind in PLACEBOS:
            row = one.facts(f"less {kind}")
            if row is not None and not pd.isna(row["attainable"]):
                least[kind] = float(row["attainable"])
    if least:
        said = ", ".join(f"{kind} {short(p)}" for kind, p in least.items())
        unable = [kind for kind, p in least.items() if p > LEVEL]
        yield f"The least p that the draws can give: {said}." + (
            f" Too few for a test: {listed(unable)}; their differences alone count." if unable else ""
        )


def judges(report: "SteeringReport") -> Iterator[str]:
    """How far the judges agree, and what they find in human-written texts.

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
            each = ", ".join(f"{r['class']} {r['recall']:.2f} [{r['recall.low']:.2f}, {r['recall.high']:.2f}]"
                             for r in rows.to_dict("records"))  # fmt: skip
            yield f"Of human-written texts ({source}) {judge} finds: {each}."


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
