"""A patch or ablate run: load, fit read-outs, sweep part by part, write the folder and the report; it can be resumed.

Each part (``denoise``, ``noise``, ``crossed/denoise``, ``ablation``...) has a folder of its own in the run. While it
is computed its pairs are kept there one by one; when it is done they give way to its tables.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affectlens.errors import BatteryError, PatchError, RunError
from affectlens.model import LensModel, load_model
from affectlens.patching.applying import guarded, read
from affectlens.patching.flipping import SPLITS, Flip, united
from affectlens.patching.metrics import Metric
from affectlens.patching.named import named_metrics
from affectlens.patching.parts import Part, Swept, parts_of, question, remarks
from affectlens.patching.plans import cue_of
from affectlens.patching.results import PatchSweep
from affectlens.patching.said import Said, load_part
from affectlens.patching.settings import AblatePlan, PatchPlan, Settings, from_config, to_config
from affectlens.run import Run
from affectlens.stimuli import Battery, load_battery
from affectlens.stimuli.battery import lasting

KEPT = "kept"  # of an unfinished part
COMMANDS: Mapping[str, type[PatchPlan] | type[AblatePlan]] = {"patch": PatchPlan, "ablate": AblatePlan}


@dataclass(frozen=True)
class Finished:
    """A run and what its parts found, by name."""

    run: Run
    said: dict[str, Said]

    @property
    def flip(self) -> Flip | None:
        """Both directions of the quadruples as one, if they were patched."""
        sweeps = {}
        for split in SPLITS:
            both = [self.said.get(f"{split}/{way}") for way in ("denoise", "noise")]
            found = [one.swept for one in both if one is not None and isinstance(one.swept, PatchSweep)]
            if len(found) == 2:
                sweeps[split] = united(*found)
        return Flip(sweeps) if sweeps else None

    @property
    def views(self) -> dict[str, Said]:
        """What is told of by itself: each part; of quadruples both ways as one."""
        flip = self.flip
        return {name: Said(name, sweep) for name, sweep in flip.sweeps.items()} if flip else self.said


def study(
    settings: Settings, plan: PatchPlan | AblatePlan, *, out: Path, resume: bool = False, progress: bool | None = None
) -> Finished:
    """Patch or ablate a model and write the run to ``out``; with ``resume``, go on where a stopped run was.

    Metrics that the battery does not allow are left out, and the report says why. The run folder is made once the
    model has loaded and the pairs are chosen.

    Args:
        settings: model, battery, metrics and so on.
        plan: what to patch, or what to ablate.
        out: the run folder.
        resume: go on with a run; ``settings`` and ``plan`` must be its own (:func:`asked_of`).
        progress: show bars; by default where a person is looking.

    Returns:
        The run with its sweeps; ``run.folder / "report.html"`` is the report.

    Raises:
        AffectLensError: whatever the parts raise; the run folder then keeps what was computed.
    """
    table = load_battery(settings.battery)
    asked = question(table, settings, plan)
    if not resume:
        Run.refuse_existing(out)
    start = time.perf_counter()
    model = load_model(
        settings.model, device=settings.device, dtype=settings.dtype, revision=settings.revision, progress=progress
    )
    parts = parts_of(model, asked, settings, plan)
    notes, unfit = remarks(parts, asked)
    if resume:
        run = Run.open(out)
        run.expect("battery", "battery_sha256", table.sha256)
        run.expect("model", "fingerprint", model.fingerprint)
    else:
        kept = replace(settings, model=lasting(settings.model), battery=lasting(settings.battery))
        command = next(name for name, kind in COMMANDS.items() if isinstance(plan, kind))
        run = Run.create(out, command=command, config=to_config(kept, plan))
        run.note(
            fingerprint=model.fingerprint, source=model.source, battery=table.name, battery_sha256=table.sha256,
            device=str(model.device), parts=[part.name for part in parts], unfit=unfit, left_out=notes,
        )  # fmt: skip
    run.info["timings"]["load"] = round(time.perf_counter() - start, 2)
    run.note(status="running")
    try:
        done = Finished(run, dict(_swept(run, model, table, parts, settings, progress)))
        run.close("done")
        redraw(done)
    except BaseException:
        run.close("stopped")
        raise
    return done


def redraw(done: Finished) -> Path:
    """Write ``report.html`` from what the run folder holds."""
    from affectlens.patching.sections import render

    return render(done)


def reload(folder: Path) -> Finished:
    """A run and its finished parts, from the folder.

    Raises:
        RunError: if the folder holds no such run, or no part of it was finished.
    """
    run = Run.open(folder)
    found = {name: load_part(folder / name) for name in run.info.get("parts", ())}
    done = {name: Said(name, swept) for name, swept in found.items() if swept is not None}
    if not done:
        command = run.info["command"]
        raise RunError(f"{folder} holds nothing finished yet: continue it with affectlens {command} --resume {folder}.")
    return Finished(run, done)


def asked_of(folder: Path, command: str) -> tuple[Settings, PatchPlan | AblatePlan]:
    """What a run was begun with.

    Args:
        folder: the run folder.
        command: ``patch`` or ``ablate``.

    Raises:
        RunError: if the folder is no run, or of another command.
    """
    info = Run.open(folder).info
    if info["command"] != command:
        raise RunError(f"{folder} is a run of {info['command']}, not of {command}.")
    return from_config(Settings, info["config"]), from_config(COMMANDS[command], info["config"])


def _swept(
    run: Run, model: LensModel, table: Battery, parts: list[Part], settings: Settings, progress: bool | None
) -> list[tuple[str, Said]]:  # fmt: skip
    """Every part; those that a stopped run finished are read from it."""
    out: list[tuple[str, Said]] = []
    metrics: dict[str, Metric] | None = None
    for part in parts:
        home = run.folder / part.name
        swept = load_part(home)
        if swept is None:
            if metrics is None:
                with run.timed("read-outs"):
                    metrics = _fitted(run, model, table, parts, settings, progress)
            chosen = [guarded(metrics[name], rule) for name, rule in part.rules.items() if name in metrics]
            if not chosen:
                continue
            with run.timed(part.name):
                swept = _owned(part.work(metric=chosen, folder=home / KEPT, progress=progress), part, table)
            swept.save(home)
        shutil.rmtree(home / KEPT, ignore_errors=True)
        out.append((part.name, Said(part.name, swept)))
    return out


def _fitted(
    run: Run, model: LensModel, table: Battery, parts: list[Part], settings: Settings, progress: bool | None
) -> dict[str, Metric]:  # fmt: skip
    """The metrics; what can't be fitted is noted, and left out."""
    out: dict[str, Metric] = {}
    unfit = dict(run.info["unfit"])
    for name in dict.fromkeys(name for part in parts for name in part.rules):
        try:
            (out[name],) = named_metrics(
                model, table, [name], layer=settings.layer, cue=cue_of(settings), chat=settings.chat,
                seed=settings.seed, progress=progress,
            )  # fmt: skip
        except (BatteryError, PatchError) as error:
            unfit[name] = str(error)
    run.note(unfit=unfit)
    if not out:
        raise PatchError(next(iter(unfit.values())))
    return out


def _owned(swept: Swept, part: Part, table: Battery) -> Swept:
    """The sweep without rows that its metrics could not be read on, under the name of the battery."""
    facts: dict[str, Any] = {"battery": table.name, "battery_sha256": table.sha256}
    return replace(swept, table=read(swept.table, part.pairs, part.rules), meta=swept.meta | facts)
