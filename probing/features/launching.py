"""A search for features as a run: a folder with its provenance, its tables, its report and its dashboard."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from affectlens.capturing import capture
from affectlens.errors import RunError
from affectlens.model import LensModel, load_model
from affectlens.needs import needs
from affectlens.paths import write_parquet, write_text
from affectlens.probing.estimate import measure_flops
from affectlens.probing.features.codes import encode_battery
from affectlens.probing.features.report import FeatureReport
from affectlens.probing.features.sections import MORE, render
from affectlens.probing.features.sparse import sparse_probe
from affectlens.probing.features.study import find_features
from affectlens.probing.sae import Sae, load_sae
from affectlens.run import Run
from affectlens.stimuli import Battery, load_battery
from affectlens.stimuli.battery import lasting
from affectlens.types import Json

COMMAND = "features find"


@dataclass(frozen=True)
class Asked:
    """The settings of a run, as the command line takes them."""

    model: str
    sae: str
    sae_id: str | None = None
    battery: str = "core"
    emotions: list[str] | None = None
    beside: str | None = None
    sparse: list[str] = field(default_factory=list)
    q: float = 0.05
    draws: int = 199
    seed: int = 0
    device: str | None = None
    dtype: str = "float32"
    revision: str | None = None


def study(asked: Asked, *, out: Path, resume: bool = False, progress: bool | None = None) -> tuple[Run, FeatureReport]:
    """Run a search and write ``out``; with ``resume``, go on with what a stopped run left out.

    Raises:
        AffectLensError: whatever the parts raise; the folder then keeps what was finished.
    """
    table = load_battery(asked.battery)
    if not resume:
        Run.refuse_existing(out)
    sae = load_sae(asked.sae, asked.sae_id)
    other = load_sae(asked.beside) if asked.beside else None
    lens = load_model(asked.model, device=asked.device, dtype=asked.dtype, revision=asked.revision, progress=progress)
    sae.attach(lens)  # refused before a folder is made
    run = _opened(asked, out, resume, lens, table, sae)
    run.note(status="running")
    try:
        with run.timed("search"):
            found = find_features(lens, sae, table, emotions=asked.emotions, beside=other, q=asked.q, draws=asked.draws,
                                  seed=asked.seed, folder=out, progress=progress)  # fmt: skip
        found.save(out)
        for target in asked.sparse:
            with run.timed(f"sparse probes of {target}"):
                _sparse(out, lens, sae, table, target, asked.seed, progress)
        run.close("done")
        with run.timed("report"):
            render(run, found)
    except BaseException:
        run.close("stopped")
        raise
    return run, found


def _opened(asked: Asked, out: Path, resume: bool, lens: LensModel, table: Battery, sae: Sae) -> Run:
    if resume:
        run = Run.open(out)
        if run.info["command"] != COMMAND:
            raise RunError(f"{out} is a {run.info['command']} run, not a {COMMAND} run.")
        run.expect("battery", "battery_sha256", table.sha256)
        run.expect("model", "fingerprint", lens.fingerprint)
        run.expect("dictionary", "sae_sha256", sae.sha256)
        return run
    places = {key: lasting(value) for key in ("model", "sae", "battery", "beside") if (value := getattr(asked, key))}
    run = Run.create(out, command=COMMAND, config=asdict(asked) | places)
    run.note(fingerprint=lens.fingerprint, source=lens.source, battery_sha256=table.sha256, sae_sha256=sae.sha256,
             device=str(lens.device))  # fmt: skip
    return run


def _sparse(
    out: Path, lens: LensModel, sae: Sae, table: Battery, target: str, seed: int, progress: bool | None
) -> None:
    """Sparse probes of a target as a section of the report."""
    home = out / "results"
    if (home / f"sparse-{target}{MORE}").is_file():
        return
    codes = encode_battery(lens, sae, table, progress=progress)
    dense = capture(lens, table, sites=sae.site, progress=progress)
    found = sparse_probe(codes, dense, target=target, seed=seed, progress=progress)
    found.save(out / "sparse")
    write_section(out, f"sparse-{target}", f"Few features or all: {target}", found.summary(), {
        f"scores of sparse and dense probes of {target}": found.scores})  # fmt: skip


def write_section(out: Path, name: str, title: str, sentences: list[str], tables: Mapping[str, pd.DataFrame]) -> None:
    """Add a section to a run's report: its tables as parquet, then what names them.

    Args:
        out: the run's folder.
        name: of the files.
        title: of the section.
        sentences: Markdown.
        tables: frames by the name that the report gives them.
    """
    home, files = out / "results", {}
    for number, (said, frame) in enumerate(tables.items()):
        files[said] = f"{name}-{number}.parquet"
        write_parquet(home / files[said], frame)
    told = {"title": title, "sentences": sentences, "tables": files}
    write_text(home / f"{name}{MORE}", json.dumps(told, indent=1))


def reload(folder: Path) -> tuple[Run, FeatureReport]:
    """A run and its finished report, from the folder.

    Raises:
        RunError: no such run, or one that is not finished.
    """
    run = Run.open(folder)
    if run.info["command"] != COMMAND:
        raise RunError(f"{folder} is a {run.info['command']} run, not a {COMMAND} run.")
    return run, FeatureReport.load(folder)


def forecast(asked: Asked) -> Json:
    """Memory as ``affectlens doctor`` gives it, and rough times; no weights are loaded but the dictionary's."""
    table, sae = load_battery(asked.battery), load_sae(asked.sae, asked.sae_id)
    facts = needs(asked.model, table)
    if "note" in facts:
        return facts
    tokens = next(count for name, count in facts.items() if name.startswith("tokens"))
    speed = measure_flops()
    share = (sae.site.layer + 1) / facts["layers"]
    return facts | {
        "capture (seconds)": round(2e6 * facts["parameters (millions)"] * tokens * share / speed, 1),
        "encoding and search (seconds)": round(10 + 10 * sae.d_in * sae.n_features * tokens / speed),
    }
