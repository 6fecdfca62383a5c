"""A circuit run: each emotion's circuit, what they share, and what earlier runs say of the same layers; resumable."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affectlens.capturing import capture
from affectlens.circuits.agreeing.finding import find_runs
from affectlens.circuits.agreeing.joining import agree
from affectlens.circuits.agreeing.reading import read_by_emotion
from affectlens.circuits.agreeing.report import AgreementReport
from affectlens.circuits.asking import Question, questions
from affectlens.circuits.finding import GRAPH, Found, found
from affectlens.circuits.picture.data import Detail
from affectlens.circuits.picture.details import details_of, load_details, save_details
from affectlens.circuits.sections import render
from affectlens.circuits.settings import Asked
from affectlens.errors import AffectLensError, RunError
from affectlens.model import LensModel, load_model
from affectlens.patching.named import CUE
from affectlens.run import Run
from affectlens.stimuli import Battery, load_battery
from affectlens.stimuli.battery import lasting
from affectlens.types import Json

COMMAND, DETAILS = "circuit", "details.json"


@dataclass(frozen=True)
class Finished:
    """A run and what it found."""

    run: Run
    found: dict[str, Found]  # by emotion
    agreement: AgreementReport
    details: dict[str, Detail]  # of each circuit whose texts were at hand


def study(asked: Asked, *, out: Path, resume: bool = False, progress: bool | None = None) -> Finished:
    """Find and verify circuits, and write the run to ``out``; with ``resume``, go on where a stopped run was.

    Args:
        asked: the settings; of a run that is continued its own, but for ``memory`` and the device.
        out: the run folder.
        resume: go on with a run.
        progress: show bars; by default where a person is looking.

    Raises:
        AffectLensError: whatever the parts raise; the run folder then keeps what was computed.
    """
    table = load_battery(asked.battery)
    if not resume:
        Run.refuse_existing(out)
    start = time.perf_counter()
    model = load_model(asked.model, device=asked.device, dtype=asked.dtype, revision=asked.revision, progress=progress)
    ready = questions(
        model, table, asked.emotions, metric=asked.metric, contrast=asked.contrast, layer=asked.layer,
        pairs=asked.scenes, cue=CUE if asked.cue is None else asked.cue, chat=asked.chat, seed=asked.seed,
        progress=progress,
    )  # fmt: skip
    run = _opened(asked, out, resume, model, table, ready)
    run.info["timings"]["load"] = round(time.perf_counter() - start, 2)
    run.note(status="running")
    facts: Json = {"battery": table.name, "battery_sha256": table.sha256, "source": model.source}
    try:
        each = {}
        for question in ready:
            with run.timed(question.emotion):
                each[question.emotion] = found(model, question, asked, facts, out / question.emotion, progress)
        with run.timed("agreement"):
            agreement = _agreement(asked, out, model, table, each, progress)
        done = Finished(run, each, agreement, dict(_details(model, ready, each, out)))
        run.close("done")
        render(done)
    except BaseException:
        run.close("stopped")
        raise
    return done


def reload(folder: Path) -> Finished:
    """A run and its finished circuits, from the folder.

    Raises:
        RunError: if the folder holds no such run, or nothing of it is finished.
        AffectLensError: if it is damaged.
    """
    run = Run.of(folder, COMMAND)
    there = [name for name in run.info["emotions"] if (folder / name / GRAPH).is_file()]
    if not there:
        raise RunError(f"{folder} holds no circuit yet: continue it with affectlens circuit --resume {folder}.")
    each = {name: Found.load(folder / name, name) for name in there}
    agreed = (folder / "results" / "agreement.json").is_file()
    circuits = {name: one.layers for name, one in each.items()}
    agreement = AgreementReport.load(folder) if agreed else agree(run.info["fingerprint"], circuits=circuits)
    details = {name: load_details(path) for name in there if (path := folder / name / DETAILS).is_file()}
    return Finished(run, each, agreement, details)


def _opened(asked: Asked, out: Path, resume: bool, model: LensModel, table: Battery, ready: list[Question]) -> Run:
    if resume:
        run = Run.of(out, COMMAND)
        run.expect("battery", "battery_sha256", table.sha256)
        run.expect("model", "fingerprint", model.fingerprint)
        before = Asked.from_config(run.info["config"])
        same = replace(asked, model=before.model, battery=before.battery, runs=before.runs, memory=before.memory,
                       device=before.device)  # fmt: skip
        if same != before:
            raise RunError(f"{out} was begun with other settings: start a new run, or give those in its run.json.")
        return run
    kept = replace(asked, model=lasting(asked.model), battery=lasting(asked.battery), runs=lasting(asked.runs))
    run = Run.create(out, command=COMMAND, config=kept.to_config())
    run.note(fingerprint=model.fingerprint, source=model.source, battery_sha256=table.sha256, device=str(model.device),
             emotions=[question.emotion for question in ready])  # fmt: skip
    return run


def _agreement(
    asked: Asked, out: Path, model: LensModel, table: Battery, each: dict[str, Found], progress: bool | None
) -> AgreementReport:
    """The circuits beside what earlier runs say; saved in the run."""
    stages, unfit = usable(asked.runs, model, table)
    if "probe" not in stages and asked.read:
        acts = capture(model, table, sites="resid_post", positions=["mean"], progress=progress)
        read_by_emotion(acts, seed=asked.seed, progress=progress).save(out)
        stages["probe"] = out
    circuits = {emotion: one.layers for emotion, one in each.items()}
    found = agree(
        model.name, probe=stages.get("probe"), patch=stages.get("patch"), features=stages.get("features"),
        steering=stages.get("steering"), circuits=circuits, battery_sha256=table.sha256, n_layers=model.n_layers,
    )  # fmt: skip
    found = replace(found, meta=found.meta | {"unfit": unfit})
    found.save(out)
    return found


def usable(runs: str, model: LensModel, table: Battery) -> tuple[dict[str, Path], dict[str, str]]:
    """Earlier runs that can be joined, by stage; and why others can't.

    Args:
        runs: where they are looked for.
        model: whose they are.
        table: the battery.
    """
    good, unfit = {}, {}
    for stage, home in find_runs(runs, model.fingerprint, battery_sha256=table.sha256).items():
        given: dict[str, Any] = {stage: home}
        try:
            agree(model.name, battery_sha256=table.sha256, n_layers=model.n_layers, **given)
            good[stage] = home
        except AffectLensError as error:
            unfit[stage] = f"{home}: {error}"
    return good, unfit


def _details(
    model: LensModel, ready: list[Question], each: dict[str, Found], out: Path
) -> Iterator[tuple[str, Detail]]:
    """What a click on a head shows, kept in the run for when it is drawn again."""
    for question in ready:
        one = each[question.emotion]
        detail = details_of(model, one.graph, question.discovery, scores=one.scores)
        save_details(detail, out / question.emotion / DETAILS)
        yield question.emotion, detail
