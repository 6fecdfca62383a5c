"""The audit itself: every property on one battery."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter

import numpy as np

from affectlens.stimuli.auditing.designs import Design
from affectlens.stimuli.auditing.finding import Audit, Bounds, Finding
from affectlens.stimuli.auditing.floors import category, floors
from affectlens.stimuli.auditing.matching import matching
from affectlens.stimuli.auditing.quadruples import additive, shallow
from affectlens.stimuli.auditing.reported import Encoder, encoded, lexicons
from affectlens.stimuli.auditing.structure import balance, completeness, integrity
from affectlens.stimuli.auditing.wording import keywords, repeats
from affectlens.stimuli.battery import Battery

Step = Callable[[], list[Finding]]
Watch = Callable[[Sequence[Step]], Iterable[Step]]


def audit(
    battery: Battery,
    *,
    bounds: Bounds | None = None,
    outside: Battery | None = None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    encoder: Encoder | None = None,
    watch: Watch = lambda steps: steps,
) -> Audit:
    """Measure what readers without a language model can tell from ``battery``, and check its design item by item.

    Args:
        battery: any battery; properties that need pairs, quadruples or domains say so where there are none.
        bounds: what may be found at most; the bounds of our own batteries by default.
        outside: labelled texts of another origin, on which word readers for quadruples are trained too.
        scores: sentiment lexicons by name: word to score. VADER is used where vaderSentiment is installed.
        encoder: texts to vectors ``[text, d]``, for the floors of a sentence encoder.
        watch: wraps the list of steps, for a progress bar.
    """
    start, design, bounds = perf_counter(), Design(battery), bounds or Bounds()
    steps: list[Step] = [
        lambda: [integrity(battery), balance(battery), completeness(design)],
        lambda: keywords(design),
        lambda: floors(design, bounds),
        lambda: category(design, bounds),
        lambda: [additive(design), *shallow(design, outside, encoder)],
        lambda: matching(design, bounds),
        lambda: repeats(battery, bounds),
        lambda: lexicons(design, scores or {}),
        lambda: encoded(design, encoder),
    ]
    with np.errstate(all="ignore"):
        findings = [finding for step in watch(steps) for finding in step()]
    return Audit(battery.name, len(battery), battery.sha256, battery.licence, tuple(findings), bounds,
                 perf_counter() - start)  # fmt: skip
