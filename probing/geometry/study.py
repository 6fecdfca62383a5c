"""``affectlens geometry`` as a job: load, capture battery and terms, compute, write the run folder and its report."""

import time
from pathlib import Path

import pandas as pd

from affectlens.capturing import capture
from affectlens.errors import CaptureError
from affectlens.model import LensModel, load_model
from affectlens.probing.geometry.carriers import POSITION, terms
from affectlens.probing.geometry.report import GeometryReport
from affectlens.probing.geometry.whole import geometry
from affectlens.probing.geometry.wording import methods
from affectlens.probing.sections import citation
from affectlens.report import Section, write
from affectlens.run import Run
from affectlens.stimuli import load_battery
from affectlens.store import Activations
from affectlens.types import Json

COMMAND = "geometry"


def study(
    model: str,
    *,
    battery: str = "starter",
    against: str | None = None,
    words: bool = True,
    layer: int | None = None,
    position: str = "mean",
    out: Path,
    seed: int = 0,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    progress: bool | None = None,
) -> tuple[Run, GeometryReport]:
    """The geometry of emotion in a model, written to ``out``. What was captured is kept in the cache.

    Returns:
        The run and its report; ``run.folder / "report.html"`` is the page.

    Raises:
        AffectLensError: whatever the parts raise.
    """
    Run.refuse_existing(out)
    table = load_battery(battery)
    start = time.perf_counter()
    lens = load_model(model, device=device, dtype=dtype, revision=revision, progress=progress)
    if layer is not None and not 0 <= layer < lens.n_layers:
        raise CaptureError(f"{lens.name} has no layer {layer}: give one from 0 to {lens.n_layers - 1}.")
    config: Json = {
        "model": model, "battery": battery, "against": against, "words": words, "layer": layer, "position": position,
        "seed": seed, "device": device, "dtype": dtype, "revision": revision,
    }  # fmt: skip
    run = Run.create(out, command=COMMAND, config=config)
    run.note(fingerprint=lens.fingerprint, source=lens.source, battery_sha256=table.sha256, device=str(lens.device))
    run.info["timings"]["load"] = round(time.perf_counter() - start, 2)
    try:
        with run.timed("capture"):
            acts = capture(lens, table, positions=position, progress=progress)
            spoken = capture(lens, terms(), positions=POSITION, progress=progress) if words else None
        other = None
        if against is not None:
            del lens  # one model in memory at a time
            with run.timed("capture of the other model"):
                other = _other(load_model(against, device=device, dtype=dtype, progress=progress), battery, position,
                               progress)  # fmt: skip
        with run.timed("geometry"):
            report = geometry(acts, layer=layer, terms=spoken, against=other, seed=seed)
        report.save(run.folder)
        run.close("done")
        render(run, report)
    except BaseException:
        run.close("stopped")
        raise
    return run, report


def render(run: Run, report: GeometryReport) -> Path:
    """Write ``report.html`` from the report."""
    meta = report.meta
    lead = [
        f"`{meta['model']}`, battery `{meta['battery']}`, {len(meta['layers'])} layers of `{meta['site']}`, "
        f"{meta['scenes']} scenes of {len(meta['emotions'])} emotions"
        + (f", and {meta['terms']} emotion words in {meta['carriers']} carriers (the geometry of words, not of evoked "
           "emotion)." if meta["terms"] else "."),
    ]  # fmt: skip
    shown = {name: table for name, table in report.tables.items() if name not in ("linkage", "cosines", "cka")}
    at = {f"{name} at layer {report.layer}": table[table["layer"].isin([report.layer, -1])].drop(columns="method",
          errors="ignore") for name, table in shown.items()}  # fmt: skip
    sections = [
        Section("What was found", report.summary(), report.figures(), at, methods(report)),
        Section("All layers", ["Every statistic at every layer; layer -1 is the floor."], (), _brief(report)),
    ]
    return write(run.folder / "report.html", f"Geometry of emotion in {meta['model']}", lead, sections, run.info,
                 citation(run))  # fmt: skip


def _brief(report: GeometryReport) -> dict[str, pd.DataFrame]:
    kept = ("rsa", "circumplex", "trees", "axis", "agreement")
    out = {name: report.tables[name].drop(columns=["method", "unit"], errors="ignore")
           for name in kept if name in report.tables}  # fmt: skip
    for name in ("reliability", "silhouettes"):
        table = report.tables[name]
        out[name] = table[table["name" if name == "reliability" else "emotion"] == "all"]
    return out


def _other(lens: LensModel, battery: str, position: str, progress: bool | None) -> Activations:
    return capture(lens, load_battery(battery), positions=position, progress=progress)
