"""The main job: load, capture, probe each target, write the run folder, render the report; stoppable and resumable."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from affectlens.capturing import capture
from affectlens.errors import BatteryError, CaptureError, RunError
from affectlens.model import LensModel, load_model
from affectlens.paths import write_parquet, write_text
from affectlens.probing.folds import QUICK, RUNGS
from affectlens.probing.ladder import probe
from affectlens.probing.parts import keyword_items
from affectlens.probing.prompting.asking import ask
from affectlens.probing.prompting.checking import comprehension
from affectlens.probing.prompting.prompts import ASKABLE
from affectlens.probing.report import ProbeReport
from affectlens.probing.sections import VIEW, render
from affectlens.probing.targets import TARGETS, select
from affectlens.probing.tokens.reading import read_tokens
from affectlens.probing.transferring import transfer
from affectlens.run import Run
from affectlens.stimuli import Battery, load_battery
from affectlens.stimuli.battery import lasting
from affectlens.stimuli.crossing import quadruples
from affectlens.store import Activations
from affectlens.types import Json

POSITIONS = ("mean", "ending")
SHOTS = (0, 2)  # exemplars of each class when a model is asked
FEW = 3  # classes up to which exemplars are given: each costs a text
TRANSFERRED = ("affect", "category", "valence")
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
    quick: bool = False,
    progress: bool | None = None,
) -> tuple[Run, list[ProbeReport]]:
    """Probe a model and write the run to ``out``; with ``resume``, go on with what a stopped run left out.

    ``targets`` that are named must apply to the battery; without names, those that apply are probed and the report says
    which do not, and why. The run folder is made once the model has loaded. ``quick`` leaves out the rungs but pair
    and domain, the transfer matrix, and all that asks the model.

    Returns:
        The run and its reports, one a target. ``run.folder / "report.html"`` is the report.

    Raises:
        AffectLensError: whatever the parts raise; the run folder then keeps what was finished.
    """
    table = load_battery(battery)
    chosen, unfit = _applicable(table.frame(), targets)
    run = _reopen(out) if resume else None
    if run:
        run.expect("battery", "battery_sha256", table.sha256)
    else:
        Run.refuse_existing(out)
    start = time.perf_counter()
    lens = load_model(model, device=device, dtype=dtype, revision=revision, progress=progress)
    if run:
        run.expect("model", "fingerprint", lens.fingerprint)
    else:
        config: Json = {
            "model": lasting(model), "battery": lasting(battery), "targets": chosen, "seed": seed, "device": device,
            "dtype": dtype, "revision": revision, "quick": quick,
        }  # fmt: skip
        run = Run.create(out, command=COMMAND, config=config)
        run.note(
            fingerprint=lens.fingerprint, source=lens.source, battery_sha256=table.sha256, device=str(lens.device),
            unfit=unfit,
        )  # fmt: skip
    run.info["timings"]["load"] = round(time.perf_counter() - start, 2)
    run.note(status="running")
    try:
        reports = _probe_all(run, lens, table, chosen, seed, quick, progress)
        run.close("done")
        render(run, reports)
    except BaseException:
        run.close("stopped")
        raise
    return run, reports


def _probe_all(
    run: Run, lens: LensModel, table: Battery, chosen: Sequence[str], seed: int, quick: bool, progress: bool | None
) -> list[ProbeReport]:
    """Capture once, then each target; those that a stopped run finished are read from it."""
    with run.timed("capture"):
        acts = capture(lens, table, positions=POSITIONS, progress=progress)
    reports = []
    for target in chosen:
        if (run.folder / "results" / f"{target}.json").is_file():
            reports.append(ProbeReport.load(run.folder, target))
            continue
        keep = partial(_kept, run, target)
        more = {} if quick else _more(keep, lens, table, acts, target, seed, progress)
        rungs = QUICK if quick else RUNGS
        with run.timed(f"probe {target}"):
            found = probe(acts, target=target, rungs=rungs, seed=seed, source=lens.source, progress=progress)
        found = found.with_tables(found.meta, **more)
        found.save(run.folder)
        reports.append(found)
    view = run.folder / "results" / VIEW
    affect = next((report for report in reports if report.target == "affect"), None)
    if affect and not view.is_file():
        with run.timed("token view"):
            write_text(view, _view(affect, lens, acts, progress))
    return reports


def _more(
    keep: Callable[[str, Callable[[], pd.DataFrame]], pd.DataFrame],
    lens: LensModel, table: Battery, acts: Activations, target: str, seed: int, progress: bool | None,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """What stands beside a target's ladder: transfer, asking, and for affect the factual checks."""
    more = {}
    if target in TRANSFERRED and _transferable(acts, target):
        more["transfer"] = keep("transfer", lambda: transfer(acts, target=target, seed=seed))
    if target in ASKABLE:
        more["asked"] = keep("asked", lambda: _ask(lens, table, target, seed, progress))
    if target == "affect" and len(quadruples(acts.items, "crossed")):
        more["checks"] = keep("checks", lambda: _checks(lens, table, progress))
    return {name: frame for name, frame in more.items() if not frame.empty}


def _kept(run: Run, target: str, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table of the run, computed once: a stopped run goes on behind it."""
    path = run.folder / "results" / f"{target}.{name}.parquet"
    if path.is_file():
        return pd.read_parquet(path)
    with run.timed(f"{name} {target}"):
        frame = compute()
    if not frame.empty:
        write_parquet(path, frame)
    return frame


def _transferable(acts: Activations, target: str) -> bool:
    return not isinstance(keyword_items(acts.items, select(acts.items, target)), str)


def _ask(lens: LensModel, table: Battery, target: str, seed: int, progress: bool | None) -> pd.DataFrame:
    few = len(select(table.frame(), target).classes) <= FEW
    try:
        found = [ask(lens, table, target, shots=n, seed=seed, progress=progress) for n in (SHOTS if few else SHOTS[:1])]
    except (BatteryError, CaptureError):  # no two domains, or a text too long to be asked about
        return pd.DataFrame()
    return pd.concat([one.frame() for one in found], ignore_index=True)


def _checks(lens: LensModel, table: Battery, progress: bool | None) -> pd.DataFrame:
    try:
        return comprehension(lens, table, progress=progress)
    except (BatteryError, CaptureError):  # quadruples of a user's without checks
        return pd.DataFrame()


def _view(report: ProbeReport, lens: LensModel, acts: Activations, progress: bool | None) -> str:
    """Texts that the affect probe was not trained on, coloured."""
    roles = ("decoy", "vivid", "mild", "moderate")
    unseen = acts.items[acts.items["role"].isin(roles) | acts.items["split"].str.startswith("crossed")]
    shown = unseen.groupby(["split", "role"], sort=False).head(2) if len(unseen) else acts.items.head(4)
    return read_tokens(report.probes, lens, shown["text"].tolist(), reference=acts, progress=progress).html()


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


def _reopen(folder: Path) -> Run:
    return Run.of(folder, COMMAND)
