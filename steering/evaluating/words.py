"""What an evaluation found, in sentences: the finding first, with its control. Markdown."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from affectlens.steering.evaluating.asides import asking, damage, draws, how, judges, leaking, left_out, rising, unable
from affectlens.steering.evaluating.frames import ASKED
from affectlens.steering.evaluating.phrases import NAMES, listed, short, signed
from affectlens.steering.evaluating.safety import HIGHEST
from affectlens.steering.evaluating.verdicts import SILENT, Finding, Verdict
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.steering.evaluating.result import SteeringReport


def summary(report: "SteeringReport") -> list[str]:
    """The sentences: what controls undo, what holds, then emotion by emotion, prompting, damage and the judges.

    Args:
        report: of an evaluation.
    """
    found = report.verdicts
    by_emotion = {one: [v for v in found if v.emotion == one] for one in dict.fromkeys(v.emotion for v in found)}
    lines = [*_first(by_emotion), *(line for each in by_emotion.values() for line in _of(each, report))]
    more = [*unable(found), *asking(found), *rising(report), *leaking(report), *damage(report)]
    return [*lines, *more, *draws(found), *judges(report), *left_out(report), how(report)]


def _first(by_emotion: dict[str, list[Verdict]]) -> Iterator[str]:
    """The whole in one or two sentences; what a placebo undoes comes before what holds."""
    said = {emotion: {one.finding for one in each} - SILENT for emotion, each in by_emotion.items()}
    undone = [_by(each) for each in by_emotion.values() if any(one.finding is Finding.PLACEBO for one in each)]
    held = [emotion for emotion, kinds in said.items() if kinds == {Finding.STEERED}]
    if undone:
        yield (
            f"**Not told apart from a placebo: {listed(undone)}.** More replies are called the target than plain ones, "
            "but a direction that means nothing does as much, as far as can be told."
        )
    if held:
        yield (
            f"**Steering reaches {len(held)} of {len(said)} emotions** beyond plain replies and every placebo, by "
            f"every judge that can tell the class: {listed(held)}."
        )
    else:
        whom = "every judge that can tell the class"
        yield f"**No emotion of {len(said)} is steered** beyond plain replies and placebo by {whom}."


def _by(each: Sequence[Verdict]) -> str:
    """The emotion, and by which judges a placebo does as much, if not by all."""
    judges = [one.judge for one in each if one.finding is Finding.PLACEBO]
    able = [one.judge for one in each if one.finding not in SILENT]
    return each[0].emotion + (f" (by {listed(judges)})" if len(judges) < len(able) else "")


def _of(each: Sequence[Verdict], report: "SteeringReport") -> Iterator[str]:
    emotion = each[0].emotion
    read = [one for one in each if one.finding not in SILENT]
    if report.safe[emotion] is None:
        yield f"**{emotion}**: no safe dose, so nothing is reported. {_stopped(report, emotion)}"
        return
    findings = {one.finding for one in read}
    head = "the judges differ" if len(findings) > 1 else _HEAD[read[0].finding] if read else "no judge can tell it"
    yield " ".join([f"**{emotion}: {head}.**", *(_sentence(one) for one in read), *_cost(report, emotion)])
    if lacking := [one.judge for one in each if one.finding is Finding.LACKING]:
        yield f"{emotion}: {listed(lacking)} {'has' if len(lacking) == 1 else 'have'} no such class and abstained."


_HEAD = {
    Finding.STEERED: "steered",
    Finding.PLACEBO: "not told apart from a placebo",
    Finding.UNCHECKED: "above plain replies, but no placebo could show it",
    Finding.NOTHING: "nothing detectable",
    Finding.LOWER: "fewer than of plain replies",
    Finding.UNSAFE: "no replies at the safe dose",
}


def _sentence(one: Verdict) -> str:
    if one.share is None:
        return f"There are no replies at the safe dose to judge by {one.judge}."
    parts = [f"plain {one.of('plain')}", *_placebos(one), *_others(one)]
    text = f"{one.share} of replies are called {one.emotion} by {one.judge} at dose {one.dose:.2f} of the norm; "
    return text + "; ".join(parts) + _power(one) + "."


def _placebos(one: Verdict) -> Iterator[str]:
    """The random directions, and what undoes the claim; the table has every placebo."""
    shown = ("random", *one.undone) if one.finding is Finding.PLACEBO else ("random",)
    for kind in [kind for kind in one.placebos if kind in shown]:
        row, less = one.facts(f"less {kind}"), one.less(kind)
        if row is None or less is None:
            continue
        p = "its prompts and seeds don't match"
        if less.p is not None and less.p_adjusted is not None:
            p = f"p {short(less.p)} of {int(row['draws'])} draws, {short(less.p_adjusted)} {_family(row)}"
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
        yield f"with emotion words masked {signed(gain)} on plain"
    if (whole := one.part("coherent")) is not None and one.share is not None and whole.value < one.share.value:
        yield f"called so and not degenerate {whole}"


def _power(one: Verdict) -> str:
    """For what was not found, the least difference that would have been."""
    name = {Finding.NOTHING: "plain"}.get(one.finding) or (one.undone[0] if one.undone else "")
    less, row = one.less(name) if name else None, one.facts(f"less {name}")
    if less is None or row is None:
        return ""
    return (
        f"; the difference from {NAMES[name]} is {signed(less)}, and one of {row['detectable']:.2f} would "
        "have been found with 80% power"
    )


def _cost(report: "SteeringReport", emotion: str) -> Iterator[str]:
    """What the dose costs on the prompts that did not choose it."""
    ratio = report.ppl_ratio(emotion)
    if ratio is not None:
        over = f", above the bound of {HIGHEST}" if ratio.value > HIGHEST else ""
        yield (
            f"Dose {report.safe[emotion]:.2f} was chosen as safe by perplexity; on the other half of the prompts that "
            f"of the replies was {ratio} times the plain replies'{over}."
        )


def _stopped(report: "SteeringReport", emotion: str) -> str:
    row = report.choice(emotion)
    if row["stopped"] is None:
        return "No positive dose was run."
    why = {"reply": "the perplexity of the replies is {:.2f} times the plain replies', above {}",
           "neutral": "the perplexity of neutral text is {:.2f} times the unsteered model's, above {}"}  # fmt: skip
    said = why.get(row["by"], "a perplexity was not measured").format(row["ratio"] or 0.0, HIGHEST)
    return f"At the first dose, {row['stopped']:.2f} of the norm, {said}."
