"""Can an emotion be turned at a layer? What steering does beyond plain replies and every placebo, by blind judges.

The verdicts are :mod:`affectlens.steering.evaluating.verdicts`'; p is theirs, over the emotions. Judges that can't tell
an emotion are not heard; all others must agree for a yes, and for a no. The layers at which nothing was steered are not
measured.
"""

from collections.abc import Iterator, Sequence

from affectlens.circuits.agreeing.marks import NO, UNDECIDED, YES, Mark, blank
from affectlens.circuits.agreeing.using import STREAMS
from affectlens.sites import Site
from affectlens.steering.evaluating.phrases import NAMES
from affectlens.steering.evaluating.result import SteeringReport
from affectlens.steering.evaluating.verdicts import SILENT, Finding, Verdict


def steer_marks(report: SteeringReport, worth: float, source: str) -> list[Mark]:
    """A mark for each emotion that was steered, at its layer.

    Args:
        report: of an evaluation.
        worth: the smallest difference worth having, a share of replies.
        source: the run folder, or "in memory".
    """
    return list(_marks(report, worth, source))


def _marks(report: SteeringReport, worth: float, source: str) -> Iterator[Mark]:
    for emotion in report.emotions:
        choice = report.choice(emotion)
        if not choice.get("site"):
            continue
        site = Site.parse(str(choice["site"]))
        layer = site.layer + STREAMS.get(site.kind, 0)
        heard = [one for one in report.verdicts if one.emotion == emotion and one.finding not in SILENT]
        if layer < 0:
            continue
        if choice["safe"] is None:
            yield Mark(layer, emotion, "steerable", UNDECIDED, source=source, why="no dose that was tried is safe")
        elif not heard:
            yield blank(layer, emotion, "steerable", "no judge can tell this emotion", source)
        else:
            yield _mark(layer, emotion, heard, worth, source)


def _mark(layer: int, emotion: str, heard: Sequence[Verdict], worth: float, source: str) -> Mark:
    """What the judges say together, with the difference that decides it."""
    gaps = [(one, name, found) for one in heard if (name := _deciding(one)) and (found := one.less(name)) is not None]
    why = "; ".join(f"{one.judge}: {one.finding} at dose {one.dose:.2f} of the norm" for one in heard)
    if not gaps:
        return Mark(layer, emotion, "steerable", UNDECIDED, source=source, why=why)
    findings = {one.finding for one in heard}
    verdict = UNDECIDED
    if findings == {Finding.STEERED}:
        verdict = YES
    elif findings <= {Finding.NOTHING, Finding.LOWER, Finding.PLACEBO} and all(f.high < worth for _, _, f in gaps):
        verdict = NO
    which = min if verdict == YES else max  # the judge that is nearest to the other answer
    one, name, found = which(gaps, key=lambda gap: gap[2].low if verdict == YES else gap[2].high)
    ranks = [less.p_adjusted for kind in one.placebos if (less := one.less(kind)) is not None]
    p = max((p for p in ranks if p is not None), default=float("nan"))
    return Mark(layer, emotion, "steerable", verdict, found.value, found.low, found.high,
                "plain replies" if name == "plain" else NAMES[name], p, found.n,
                Finding.PLACEBO in findings, source, f"{one.judge} decides; {why}")  # fmt: skip


def _deciding(one: Verdict) -> str:
    """What the deciding difference is from: the placebo beaten least, or plain replies where those are not beaten."""
    if one.finding in (Finding.NOTHING, Finding.LOWER) or not one.placebos:
        return "plain"
    kinds = one.undone or one.placebos
    found = {kind: less.low for kind in kinds if (less := one.less(kind)) is not None}
    return min(found, key=lambda kind: found[kind])
