"""``compare``: scale and replace a circuit's parts, steer, ask in words; judge blindly; at equal perplexity cost.

After the comparison of prompting, steering and circuit modulation in arXiv:2510.11328, whose judges knew the target and
whose ways differed in what they cost; here judges are blind, and each way has the largest dose within one budget.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.circuits.modulating.comparison import Comparison, comparison_of
from affectlens.circuits.modulating.extents import FULL, QUICK, Extent
from affectlens.circuits.modulating.making import training
from affectlens.circuits.modulating.modulation import Modulation
from affectlens.circuits.modulating.sections import render
from affectlens.circuits.modulating.trial import Trial
from affectlens.errors import CircuitError, RunError
from affectlens.model import LensModel
from affectlens.run import Run
from affectlens.steering.applying import steer
from affectlens.steering.directions import Directions
from affectlens.steering.evaluating.prompts import instruction
from affectlens.steering.evaluating.study import judges_for, layer_of
from affectlens.steering.extracting import extract
from affectlens.steering.judging.verdicts import Judge
from affectlens.stimuli.battery import Battery, load_battery
from affectlens.stimuli.taxonomy import EMOTIONS

COMMAND, DIRECTIONS, MODULATION = "modulate", "directions.safetensors", "modulation.{}.safetensors"
NEAR = 1e-3  # of the largest number in an array: less is another machine's rounding


def compare(
    model: LensModel,
    modulations: Modulation | Sequence[Modulation],
    *,
    out: str | Path,
    battery: str | Path | Battery = "core",
    directions: Directions | None = None,
    judges: Sequence[Judge] | None = None,
    scale: Extent | None = None,
    quick: bool = False,
    resume: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> tuple[Run, Comparison]:
    """Compare ways to one emotion or several, and write the run to ``out``.

    Args:
        model: that is modulated.
        modulations: of its circuits' parts, one an emotion.
        out: the run folder.
        battery: that the means are of; of its other scenes the neutral texts are read.
        directions: the residual ones; by default one is extracted from the modulations' own scenes, against neutral,
            three fifths of the way up, or, resumed, the run's own.
        judges: two or more; by default the encoder and the embedded model's likelihoods.
        scale: how much is written, for a size of your own.
        quick: few doses, prompts and draws: a first look.
        resume: go on with what a stopped run left out.
        seed: of sampling, draws and bootstraps.
        progress: show bars; by default where a person is looking.

    Returns:
        The run, with ``report.html``, and the comparison.

    Raises:
        CircuitError: another model's or battery's modulation, an emotion twice, or one that judges don't know.
        SteerError: directions without an emotion, or of another model; parts that change no logit; too few neutral
            texts.
        RunError: a folder that exists, or, resumed, one that was begun otherwise.
    """
    home, table = Path(out), load_battery(battery) if isinstance(battery, str | Path) else battery
    many = [modulations] if isinstance(modulations, Modulation) else list(modulations)
    _check(model, many, table)
    run = Run.of(home, COMMAND) if resume else None
    if run is None:
        Run.refuse_existing(home)
    else:
        run.expect("model", "fingerprint", model.fingerprint)
        run.expect("battery", "battery_sha256", table.sha256)
    extent, kept = scale or (QUICK if quick else FULL), home / DIRECTIONS
    readers = list(judges) if judges is not None else judges_for(model, progress)
    found = directions
    if found is None:  # extracted anew they could differ in a last bit, and so from what was written
        found = Directions.load(kept, model) if resume else _extracted(model, table, many, seed, progress)
    found.expect(model)
    found = found.only(*(one.emotion for one in many))
    settings = _digest(many, found, extent, readers, seed)
    if run is not None:
        run.expect("plan (scale, seed, judges, parts or directions)", "settings", settings)
        many, found = _own(home, many, found, model)
    else:
        config = {"model": model.name, "battery": table.name, "emotions": [one.emotion for one in many], "seed": seed}
        run = Run.create(home, command=COMMAND, config=config)
        run.note(fingerprint=model.fingerprint, battery_sha256=table.sha256, settings=settings)
        found.save(kept)
        for one in many:
            one.save(home / MODULATION.format(one.emotion))
    run.note(status="running")
    try:
        written = Trial(run, model, many, found, table, extent, readers, seed, progress).written()
        trust = [judge.trust().assign(judge=judge.name) for judge in readers]
        facts = {
            "model": model.name, "battery": table.name, "seed": seed, "draws": extent.draws,
            "emotions": [one.emotion for one in many], "directions": found.all[0].called,
            "modulations": [{"emotion": one.emotion, "parts": list(one.parts), **one.facts,
                             **one.placebo_facts(extent.draws, seed=seed)} for one in many],
            "instruction": instruction(many[0].emotion),
        }  # fmt: skip
        comparison = comparison_of(written, pd.concat(trust, ignore_index=True), facts)
        comparison.save(run.folder)
        run.close("done")
        render(run, comparison)
    except BaseException:
        run.close("stopped")
        raise
    return run, comparison


def _check(model: LensModel, many: Sequence[Modulation], battery: Battery) -> None:
    if not many:
        raise CircuitError("There is nothing to compare: give a modulation.")
    for one in many:
        one.expect(model)
        if one.emotion not in EMOTIONS:
            raise CircuitError(f"Judges know Plutchik's emotions; {one.emotion} is none: leave it out.")
        if one.battery_sha256 != battery.sha256:
            raise CircuitError(
                f"The means for {one.emotion} are of {one.battery}, not of {battery.name} as it is now: make the "
                "modulation anew, or name its battery."
            )
        for plan in (one.plan(2.0), one.plan(replace=1.0)):
            with steer(model, plan):
                """Entering proves that it changes a logit."""
    if len({one.emotion for one in many}) < len(many):
        raise CircuitError("Two modulations are of one emotion: compare them in two runs.")


def _extracted(
    model: LensModel, battery: Battery, many: Sequence[Modulation], seed: int, progress: bool | None
) -> Directions:
    """One residual direction an emotion, from the scenes that the parts' means are of."""
    scenes = pd.concat([training(battery, one.emotion, one.groups) for one in many], ignore_index=True)
    emotions = [one.emotion for one in many]
    return extract(model, scenes, emotions=emotions, sites=[layer_of(model)], against="neutral", seed=seed,
                   progress=progress)  # fmt: skip


def _digest(
    many: Sequence[Modulation], directions: Directions, extent: Extent, judges: Sequence[Judge], seed: int
) -> str:
    """What replies that were written once depend on, but for numbers that are computed, of which :func:`_own` sees."""
    said = [repr(extent), str(seed), *(judge.name for judge in judges)]
    said += [f"{one.emotion} {one.parts} {one.groups}" for one in many]
    said += [f"{one.emotion} {one.site} {one.method}" for one in directions]
    return hashlib.sha256("|".join(said).encode()).hexdigest()


def _own(
    home: Path, many: Sequence[Modulation], directions: Directions, model: LensModel
) -> tuple[list[Modulation], Directions]:
    """A run's own for those that are given: computed anew, or on another machine, they differ in last bits."""
    mine = [Modulation.load(home / MODULATION.format(one.emotion), model) for one in many]
    kept = Directions.load(home / DIRECTIONS, model)
    given, own = _arrays(many, directions), _arrays(mine, kept)
    if [one.shape for one in given] != [one.shape for one in own] or not all(map(_near, given, own)):
        raise RunError(f"{home} was begun with other weights, means or directions: give those, or start a new run.")
    return mine, kept


def _arrays(many: Sequence[Modulation], directions: Directions) -> list[np.ndarray]:
    means = [mean for one in many for of in (one.neutral, one.target) for _, mean in sorted(of.items())]
    return [*(one.weights for one in many), *means, *(one.norm * one.vector for one in directions)]


def _near(given: np.ndarray, own: np.ndarray) -> bool:
    return bool(np.abs(given - own).max(initial=0.0) <= NEAR * np.abs(own).max(initial=0.0))
