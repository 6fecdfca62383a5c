"""What an evaluation found, in sentences: the finding first, with its control. Markdown."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from affectlens.stats import Estimate
from affectlens.steering.evaluating.frames import ASKED, PLACEBOS
from affectlens.steering.evaluating.shares import first, read
from affectlens.steering.evaluating.verdicts import LEVEL, Finding, Verdict, asked_better
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.steering.evaluating.result import SteeringReport

NAMES = {
    "plain": "plain", "random": "a random direction", "shuffled": "directions of shuffled labels",
    "mean": "the mean of all directions", "orthogonal": "a direction orthogonal to it", "prompted": "prompting",
    "fewshot": "few-shot prompting", "steer": "steering", "heads": "steering by heads",
    "neurons": "steering by neurons",
}  # fmt: skip
_DAMAGED = 0.1  # share of degenerate replies at a safe dose that is worth a sentence


def summary(report: "SteeringReport") -> list[str]:
    """The sentences: what controls undo, what holds, then emotion by emotion, prompting, damage and the judges.

    Args:
        report: of an evaluation.
    """
    found = report.verdicts
    by_emotion = {one: [v for v in found if v.emotion == one] for one in dict.fromkeys(v.emotion for v in found)}
    lines = [*_first(by_emotion), *(line for each in by_emotion.values() for line in _of(each, report))]
    return [*lines, *_asking(found), *_damage(report), *_draws(found), *_judges(report), _how(report)]


def _first(by_emotion: dict[str, list[Verdict]]) -> Iterator[str]:
    """The whole in one or two sentences; what a placebo undoes comes before what holds."""
    said = {emotion: {one.finding for one in each} - {Finding.LACKING} for emotion, each in by_emotion.items()}
    undone = [emotion for emotion, kinds in said.items() if Finding.PLACEBO in kinds]
    held = [emotion for emotion, kinds in said.items() if kinds == {Finding.STEERED}]
    if undone:
        yield (
            f"**A placebo does as much** as steering to {_listed(undone)}, as far as can be told: more replies are "
            "called the target than plain ones, and so they are with a direction that means nothing."
        )
    if held:
        yield (
            f"**Steering reaches {len(held)} of {len(said)} emotions** beyond plain replies and every placebo, by "
            f"every judge that has the class: {_listed(held)}."
        )
    else:
        yield f"**No emotion of {len(said)} is steered** beyond plain replies and placebo by every judge."


def _of(each: Sequence[Verdict], report: "SteeringReport") -> Iterator[str]:
    emotion = each[0].emotion
    read = [one for one in each if one.finding is not Finding.LACKING]
    if report.safe[emotion] is None:
        yield f"**{emotion}**: no safe dose, so nothing is reported. {_stopped(report, emotion)}"
        return
    findings = {one.finding for one in read}
    if len(findings) > 1:
        yield f"**{emotion}: the judges differ.** " + " ".join(_sentence(one) for one in read)
    elif read:
        yield f"**{emotion}: {_HEAD[read[0].finding]}.** " + " ".join(_sentence(one) for one in read)
    if lacking := [one.judge for one in each if one.finding is Finding.LACKING]:
        yield f"{emotion}: {_listed(lacking)} {'has' if len(lacking) == 1 else 'have'} no such class and abstained."


_HEAD = {
    Finding.STEERED: "steered",
    Finding.PLACEBO: "a placebo does as much",
    Finding.UNCHECKED: "above plain replies, but no placebo could show it",
    Finding.NOTHING: "nothing detectable",
    Finding.UNSAFE: "no replies at the safe dose",
}


def _sentence(one: Verdict) -> str:
    if one.share is None:
        return f"There are no replies at the safe dose to judge by {one.judge}."
    parts = [f"plain {one.of('plain')}", *_placebos(one), *_others(one)]
    text = f"{one.share} of replies are called {one.emotion} by {one.judge} at dose {one.dose:.2f} of the norm; "
    return text + "; ".join(parts) + _power(one) + "."


def _placebos(one: Verdict) -> Iterator[str]:
    for kind in one.placebos:
        row, less = one.facts(f"less {kind}"), one.less(kind)
        if row is None or less is None:
            continue
        p = "its prompts and seeds don't match"
        if less.p is not None and less.p_adjusted is not None:
            p = f"p {_p(less.p)} of {int(row['draws'])} draws, {_p(less.p_adjusted)} {_family(row)}"
        yield f"{NAMES[kind]} of the same norm {one.of(kind)} ({p})"
    if not one.placebos:
        yield "no placebo was run at this dose"


def _family(row: Json) -> str:
    return "as the only test" if row["correction"] == "one test" else f"over the emotions by {row['correction']}"


def _others(one: Verdict) -> Iterator[str]:
    for kind in (*ASKED, "heads", "neurons"):
        if (found := one.of(kind)) is not None:
            yield f"{NAMES[kind]} {found}"
    if (gain := one.masked_gain) is not None:
        yield f"{_signed(gain)} against plain with emotion words masked"


def _power(one: Verdict) -> str:
    """For what was not found, the least difference that would have been."""
    name = {Finding.NOTHING: "plain"}.get(one.finding) or (one.undone[0] if one.undone else "")
    less, row = one.less(name) if name else None, one.facts(f"less {name}")
    if less is None or row is None:
        return ""
    return (
        f"; the difference from {NAMES[name]} is {_signed(less)}, and one of {row['detectable']:.2f} would "
        "have been found with 80% power"
    )


def _asking(found: Sequence[Verdict]) -> Iterator[str]:
    better: dict[str, list[str]] = {}
    for one in found:
        for kind in asked_better(one):
            better.setdefault(f"{NAMES[kind]} by {one.judge}", []).append(one.emotion)
    for name, emotions in better.items():
        kind, judge = name.rsplit(" by ", 1)
        yield f"**{kind.capitalize()} beats steering** for {_listed(emotions)}, judged by {judge}."
    above = [f"{v.emotion} ({v.judge})" for v in found if (d := v.less("prompted")) is not None and d.low > 0]
    if above:
        yield f"Steering beats prompting for {_listed(above)}."
    open_ones = sum(1 for v in found if (d := v.less("prompted")) is not None and d.low <= 0 <= d.high)
    if open_ones:
        yield f"In {open_ones} comparisons of steering with prompting neither is surely ahead."


def _damage(report: "SteeringReport") -> Iterator[str]:
    rows = report.doses[(report.doses["quantity"] == "degenerate") & (report.doses["condition"] == "steer")]
    rows = rows[rows["method"] == report.method]
    at = [rows[(rows["emotion"] == e) & (rows["dose"] == dose)] for e, dose in report.safe.items() if dose is not None]
    found = {str(row["emotion"]): read(row) for row in map(first, at) if row is not None}
    bad = {emotion: one for emotion, one in found.items() if one.value > _DAMAGED}
    if bad:
        said = "; ".join(f"{emotion} {one}" for emotion, one in bad.items())
        yield f"Degenerate replies at the safe dose, which perplexity alone lets pass (share of replies): {said}."


def _draws(found: Sequence[Verdict]) -> Iterator[str]:
    """Placebos whose draws can't pass."""
    least: dict[str, float] = {}
    for one in found:
        for kind in PLACEBOS:
            row = one.facts(f"less {kind}")
            if row is not None and not pd.isna(row["attainable"]):
                least[kind] = float(row["attainable"])
    if least:
        said = ", ".join(f"{kind} {_p(p)}" for kind, p in least.items())
        unable = [kind for kind, p in least.items() if p > LEVEL]
        yield f"The least p that the draws can give: {said}." + (
            f" Too few for a test: {_listed(unable)}; their differences alone count." if unable else ""
        )


def _judges(report: "SteeringReport") -> Iterator[str]:
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


def _stopped(report: "SteeringReport", emotion: str) -> str:
    row = report.choice(emotion)
    if row["stopped"] is None:
        return "No positive dose was run."
    why = {"reply": "the perplexity of the replies is {:.2f} times the plain replies'",
           "neutral": "the perplexity of neutral text is {:.2f} times the unsteered model's"}  # fmt: skip
    said = why.get(row["by"], "a perplexity was not measured").format(row["ratio"] or 0.0)
    return f"At the first dose, {row['stopped']:.2f} of the norm, {said}, above 1.5."


def _how(report: "SteeringReport") -> str:
    unread = [row["emotion"] for row in report.facts["arms"] if not row["neutral"] and row["condition"] == "steer"]
    more = f" Neutral text was not run for {_listed(list(dict.fromkeys(unread)))}." if unread else ""
    return (
        f"Doses were chosen on {report.facts['n_choose']} prompts (the largest with both perplexity ratios at most "
        f"1.5, there and below), all else is of {report.facts['n_report']} others; intervals are 95% and resample "
        f"prompts.{more}"
    )


def _signed(found: Estimate) -> str:
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _p(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"
