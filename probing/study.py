"""The main job: load, capture, probe each target, write the run folder, render the report; stoppable and resumable."""

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from affectlens.capturing import capture
from affectlens.catalog import CATALOG
from affectlens.errors import BatteryError, RunError
from affectlens.model import LensModel, load_model
from affectlens.probing.ladder import probe
from affectlens.probing.report import ProbeReport
from affectlens.probing.targets import TARGETS, select
from affectlens.probing.words import methods
from affectlens.report import Section, write
from affectlens.run import Run
from affectlens.stimuli import Battery, load_battery
from affectlens.stimuli.battery import NAMED
from affectlens.types import Json

POSITIONS = ("mean", "ending")
COMMAND = "probe"


def study(
    model: str,
    *,
    battery: str = "starter",
    targets: Sequence[str] | None = None,
    out: Path,
    resume: bool = False,
    seed: int = 0,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    progress: bool | None = None,
) -> tuple[Run, list[ProbeReport]]:
    """Probe a model and write the run to ``out``; with ``resume``, go on with what a stopped run left out.

    ``targets`` that are named must apply to the battery; without names, those that apply are probed and the report says
    which do not, and why. The run folder is made once the model has loaded.

    Returns:
        The run and its reports, one a target. ``run.folder / "report.html"`` is the report.

    Raises:
        AffectLensError: whatever the parts raise; the run folder then keeps what was finished.
    """
    table = load_battery(battery)
    chosen, unfit = _applicable(table.frame(), targets)
    if resume:
        run = _reopen(out)
        _same(run, "battery", "battery_sha256", table.sha256)
    else:
        Run.refuse_existing(out)
    start = time.perf_counter()
    lens = load_model(model, device=device, dtype=dtype, revision=revision, progress=progress)
    if resume:
        _same(run, "model", "fingerprint", lens.fingerprint)
    else:
        config: Json = {
            "model": _lasting(model), "battery": _lasting(battery), "targets": chosen, "seed": seed, "device": device,
            "dtype": dtype, "revision": revision,
        }  # fmt: skip
        run = Run.create(out, command=COMMAND, config=config)
        run.note(
            fingerprint=lens.fingerprint, source=lens.source, battery_sha256=table.sha256, device=str(lens.device),
            unfit=unfit,
        )  # fmt: skip
    run.info["timings"]["load"] = round(time.perf_counter() - start, 2)
    run.note(status="running")
    try:
        reports = _probe_all(run, lens, table, chosen, seed, progress)
        run.close("done")
        render(run, reports)
    except BaseException:
        run.close("stopped")
        raise
    return run, reports


def _probe_all(
    run: Run, lens: LensModel, table: Battery, chosen: Sequence[str], seed: int, progress: bool | None
) -> list[ProbeReport]:
    """Capture once, then each target; those that a stopped run finished are read from it."""
    with run.timed("capture"):
        acts = capture(lens, table, positions=POSITIONS, progress=progress)
    reports = []
    for target in chosen:
        if (run.folder / "results" / f"{target}.json").is_file():
            reports.append(ProbeReport.load(run.folder, target))
            continue
        with run.timed(f"probe {target}"):
            found = probe(acts, target=target, seed=seed, source=lens.source, progress=progress)
            found.save(run.folder)
        reports.append(found)
    return reports


def _applicable(items: pd.DataFrame, targets: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """The targets to probe, and why the others can't be."""
    if targets is not None:
        for name in targets:
            select(items, name)
        return list(targets), {}
    unfit: dict[str, str] = {}
    for name in TARGETS:
        try:
            select(items, name)
        except BatteryError as error:
            unfit[name] = str(error)
    if len(unfit) == len(TARGETS):
        raise BatteryError(next(iter(unfit.values())))
    return [name for name in TARGETS if name not in unfit], unfit


def _lasting(name: str) -> str:
    """A path as it can be found from any folder; a name as it is."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() and name not in (*CATALOG, *NAMED) else name


def render(run: Run, reports: Sequence[ProbeReport]) -> Path:
    """Write ``report.html`` from what the run folder holds."""
    meta = reports[0].meta
    lead = [
        f"`{meta['model']}` ({meta['source'] or 'weights as loaded'}), {meta['n_layers']} layers, "
        f"d_model {meta['d_model']}; battery `{meta['battery']}`; {run.info['started'][:10]}. Every score stands "
        "beside its lexical floor under the same folds, with a 95% interval that resamples whole scenes."
    ]
    lead += [f"Not probed: {why}" for why in run.info.get("unfit", {}).values()]
    sections = [_findings(reports)] + [_section(report) for report in reports]
    return write(run.folder / "report.html", f"Emotion in {meta['model']}", lead, sections, run.info, citation(run))


def reload(folder: Path) -> tuple[Run, list[ProbeReport]]:
    """A run and its finished reports, from the folder.

    Raises:
        RunError: if the folder holds no probe run, or none of its targets was finished.
    """
    run = _reopen(folder)
    done = [t for t in run.info["config"]["targets"] if (folder / "results" / f"{t}.json").is_file()]
    if not done:
        raise RunError(f"{folder} holds no finished target yet: continue it with affectlens probe --resume {folder}.")
    return run, [ProbeReport.load(folder, target) for target in done]


def citation(run: Run) -> str:
    """BibTeX for the software as it was run."""
    used = run.info["versions"]["affectlens"]
    return (
        "@software{affectlens,\n  title = {AffectLens: mechanistic interpretability of emotion in language models},\n"
        f"  version = {{{used}}},\n  year = {{{run.info['started'][:4]}}},\n"
        f"  note = {{run on {run.info['config']['model']}, battery {run.info['config']['battery']} "
        f"(SHA-256 {run.info['battery_sha256'][:12]}), seed {run.info['config']['seed']}}}\n}}"
    )


def _findings(reports: Sequence[ProbeReport]) -> Section:
    lines = [report.summary()[0] for report in reports]
    rows = pd.concat([r.table().assign(target=r.target, metric=r.meta["metric"]) for r in reports], ignore_index=True)
    first = ["target", "metric"]
    return Section("What was found", lines, tables={"all scores": rows[first + [c for c in rows if c not in first]]})


def _section(report: ProbeReport) -> Section:
    figures = [report.plot()] + ([report.plot_crossed()] if not report.crossed.empty else [])
    tables = {f"{report.target} by rung, reader and layer": report.scores}
    if not report.crossed.empty:
        tables["crossed quadruples by layer"] = report.crossed
    if not report.false_alarms.empty:
        tables["false alarms"] = report.false_alarms
    return Section(report.target.capitalize(), report.summary(), figures, tables, methods(report))


def _reopen(folder: Path) -> Run:
    run = Run.open(folder)
    if run.info["command"] != COMMAND:
        raise RunError(f"{folder} is a {run.info['command']} run, not a {COMMAND} run.")
    return run


def _same(run: Run, what: str, key: str, now: str) -> None:
    before = run.info.get(key)
    if before and before != now:
        raise RunError(
            f"{run.folder} was begun with another {what} ({key} {before[:12]}, now {now[:12]}): start a new run."
        )
