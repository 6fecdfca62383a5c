"""A search for features as a run: a folder with its provenance, its tables, its report and its dashboard."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from affectlens.capturing import capture
from affectlens.errors import StoreError
from affectlens.model import LensModel, load_model
from affectlens.needs import needs
from affectlens.paths import write_parquet, write_text
from affectlens.probing.estimate import measure_flops
from affectlens.probing.features.codes import averaged, encode_tokens
from affectlens.probing.features.report import FeatureReport
from affectlens.probing.features.sections import MORE, render
from affectlens.probing.features.sparse import sparse_probe
from affectlens.probing.features.study import find_features
from affectlens.probing.sae import Sae
from affectlens.probing.sae_files import bundled_saes, load_sae
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


def bundled_for(model: str) -> str:
    """The dictionary that is bundled for a model, which has the model's name.

    Raises:
        StoreError: none is.
    """
    if model not in bundled_saes():
        there = ", ".join(bundled_saes()) or "none"
        raise StoreError(
            f"No dictionary is bundled for {model} (there is one for: {there}): give --sae, or train one with "
            "affectlens features train."
        )
    return model


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
    run.expect("second dictionary", "beside_sha256", other.sha256 if other else "")
    run.note(beside_sha256=other.sha256 if other else "")
    run.note(status="running")
    try:
        with run.timed("search"):
            found = find_features(lens, sae, table, emotions=asked.emotions, beside=other, q=asked.q, draws=asked.draws,
                                  seed=asked.seed, folder=out, progress=progress)  # fmt: skip
        found.save(out)
        left = [target for target in asked.sparse if not (out / "results" / f"sparse-{target}{MORE}").is_file()]
        if left:
            with run.timed("sparse probes"):
                _sparse(out, lens, sae, table, left, asked.seed, progress)
        run.close("done")
        with run.timed("report"):
            render(run, found)
    except BaseException:
        run.close("stopped")
        raise
    return run, found


def _opened(asked: Asked, out: Path, resume: bool, lens: LensModel, table: Battery, sae: Sae) -> Run:
    if resume:
        run = Run.of(out, COMMAND)
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
    out: Path, lens: LensModel, sae: Sae, table: Battery, targets: Sequence[str], seed: int, progress: bool | None
) -> None:
    """Sparse probes of some targets, each a section of the report."""
    acts = capture(lens, table, sites=sae.site, positions="all", progress=progress)  # kept since the search
    codes = encode_tokens(lens, acts, sae.encode, sae, progress=progress)
    dense = averaged(acts, sae.site)
    for target in targets:
        found = sparse_probe(codes, dense, target=target, seed=seed, progress=progress)
        found.save(out / "sparse")
        name = f"scores of sparse and dense probes of {target}"
        write_section(out, f"sparse-{target}", f"Few features or all: {target}", found.summary(), {name: found.scores})


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
    return Run.of(folder, COMMAND), FeatureReport.load(folder)


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
