"""A dictionary from text to file: cut, harvest, train, measure; stoppable at every step."""

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.model import LensModel, load_model
from affectlens.needs import GIB, needs
from affectlens.paths import replacing, write_parquet
from affectlens.probing.estimate import measure_flops
from affectlens.probing.features.corpora import Windows, documents, windows
from affectlens.probing.features.evaluating import evaluate_saes, pieces_of
from affectlens.probing.features.harvesting import harvest
from affectlens.probing.features.recipes import EXPANSION, Recipe
from affectlens.probing.features.sampling import self_text
from affectlens.probing.features.training import train_sae
from affectlens.probing.sae import FACTS, Sae
from affectlens.probing.sae_files import load_sae
from affectlens.run import Run
from affectlens.sites import Site
from affectlens.stimuli.battery import lasting, load_battery
from affectlens.texts import TextList
from affectlens.types import Json

COMMAND = "features train"


@dataclass(frozen=True)
class Source:
    """Where text comes from and how much of it is used."""

    text: tuple[str, ...] = ()  # files, folders, hf:NAME
    self_text: bool = False  # sampled from the model
    column: str = "text"
    tokens: int = 2_000_000  # activations harvested
    context: int = 128
    seed: int = 0


def make_sae(
    model: str | LensModel, site: str, source: Source, recipe: Recipe, *, out: Path, resume: bool = False,
    name: str | None = None, battery: str = "core", dtype: str = "bfloat16", device: str | None = None,
    keep: bool = False, progress: bool | None = None,
) -> tuple[Run, Sae]:  # fmt: skip
    """Train a dictionary on text and measure it on held-out text and on a battery; ``out / "sae"`` is the dictionary.

    Args:
        model: a name or folder, or a model that is loaded already.
        site: what the dictionary reads, for example ``L15.resid_post``.
        source: the text.
        recipe: the settings of the training.
        out: the run's folder.
        resume: go on with a stopped run.
        name: what to call the dictionary.
        battery: what it is measured on besides held-out text.
        dtype: in which the model runs while activations are harvested; it is measured in float32.
        device: cpu, cuda; cuda where there is one.
        keep: leave the harvested activations in the folder.
        progress: show bars.

    Raises:
        AffectLensError: whatever the parts raise; the folder then keeps what was finished.
    """
    table, at = load_battery(battery), Site.parse(site)
    if not resume:
        Run.refuse_existing(out)
    lens = model if isinstance(model, LensModel) else load_model(model, dtype=dtype, device=device, progress=progress)
    lens.sites.find(at)
    run = Run.of(out, COMMAND) if resume else _begin(out, lens, source, recipe, site, battery, dtype, name)
    run.expect("model", "fingerprint", lens.fingerprint)
    run.note(status="running")
    try:
        with run.timed("texts"):
            cut = _cut(lens, source, out)
        run.expect("text", "text_sha256", cut.sha256)
        told: Json = {"activations": cut.tokens, "text_sha256": cut.sha256, "harvested_in": str(lens.dtype)}
        run.note(**told)
        recipe = _scaled(recipe, source, cut)
        with run.timed("harvest"):
            done = (out / "sae").is_dir()
            shards = [] if done else harvest(lens, at, cut.train, out / "harvest", progress=progress)
        with run.timed("training"):
            known = {"text": [Path(t).name for t in source.text], "self_text": source.self_text, **told}
            sae = train_sae(lens, at, shards, recipe, out, name=name, facts=known, progress=progress)
        exact = lens if isinstance(model, LensModel) else load_model(model, device=device, progress=progress)
        with run.timed("evaluation"):
            items = pieces_of(exact, table)
            found = measure(exact, {"trained": sae}, cut.held_out, items, table.name, progress=progress)
        write_parquet(out / "results" / "evaluation.parquet", found)
        _add_facts(out / "sae", {"evaluation": found.to_dict("records")})
        if not keep:
            shutil.rmtree(out / "harvest", ignore_errors=True)
        run.close("done")
    except BaseException:
        run.close("stopped")
        raise
    return run, load_sae(out / "sae")


def _scaled(recipe: Recipe, source: Source, cut: Windows) -> Recipe:
    """Fewer activations where there is less text than was asked for, so that the number of passes stays."""
    if cut.tokens >= source.tokens:
        return recipe
    wanted = max(recipe.batch, round(recipe.activations * cut.tokens / source.tokens))
    warnings.warn(
        f"The text gives {cut.tokens:,} activations, not {source.tokens:,}: training takes {wanted:,} in all.",
        stacklevel=3,
    )
    return replace(recipe, activations=wanted)


def measure(
    model: LensModel, saes: dict[str, Sae], held_out: Sequence[Sequence[int]], items: Sequence[Sequence[int]],
    battery: str, *, progress: bool | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Both evaluations as one table, with a column ``text``: ``held-out text`` and the battery's name."""
    parts = [
        evaluate_saes(model, saes, pieces, progress=progress).assign(text=text)
        for text, pieces in (("held-out text", held_out), (battery, items))
        if pieces
    ]
    return pd.concat(parts, ignore_index=True)


def _begin(
    out: Path, lens: LensModel, source: Source, recipe: Recipe, site: str, battery: str, dtype: str, name: str | None
) -> Run:
    config: Json = {
        "model": lasting(lens.name), "site": site, "source": vars(source) | {"text": [lasting(t) for t in source.text]},
        "recipe": recipe.facts(), "battery": lasting(battery), "dtype": dtype, "name": name,
    }  # fmt: skip
    run = Run.create(out, command=COMMAND, config=config)
    run.note(fingerprint=lens.fingerprint, source=lens.source, device=str(lens.device))
    return run


def _cut(lens: LensModel, source: Source, out: Path) -> Windows:
    """The pieces of text, kept once they are cut: text that was sampled is not sampled again."""
    kept = out / "pieces.npz"
    if kept.is_file():
        with np.load(kept) as found:
            train, held_out = (
                [part.tolist() for part in np.split(found[side], found[f"{side}_ends"][:-1])]
                if len(found[side])
                else []
                for side in ("train", "held_out")
            )
            return Windows(train, held_out, str(found["sha256"]))
    texts = self_text(lens, seed=source.seed) if source.self_text else documents(source.text, source.column)
    cut = windows(lens, texts, tokens=source.tokens, context=source.context, seed=source.seed)
    arrays = {"sha256": np.array(cut.sha256)}
    for side, pieces in (("train", cut.train), ("held_out", cut.held_out)):
        arrays[side] = np.concatenate([np.zeros(0, np.int64), *(np.array(piece) for piece in pieces)])
        arrays[f"{side}_ends"] = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    with replacing(kept) as work, work.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    return cut


def _add_facts(folder: Path, more: Json) -> None:
    path = folder / FACTS
    told = json.loads(path.read_text(encoding="utf-8")) | more
    with replacing(path) as work:
        work.write_text(json.dumps(told, indent=1), encoding="utf-8")


def forecast(model: str, site: str, source: Source, recipe: Recipe) -> Json:
    """About what a training takes on this machine, from the model's size and the machine's measured speed."""
    facts = needs(model, TextList([" ".join(["word"] * source.context)]))
    if "note" in facts:
        return facts
    speed, at = measure_flops(), Site.parse(site)
    width, layers = int(facts["d_model"]), int(facts["layers"])
    features = recipe.n_features or EXPANSION * width
    forward = 2e6 * facts["parameters (millions)"] * source.tokens * (at.layer + 1) / layers
    return {
        "activations": source.tokens, "features": features, "steps": recipe.steps,
        "harvest (seconds, in float32)": round(forward / speed),
        "training (seconds)": round(12 * width * features * recipe.activations / speed),
        "disk meanwhile (GiB)": round(2 * width * source.tokens / GIB, 2),
        "peak memory (GiB)": facts["peak, float32 (GiB)"],
    }  # fmt: skip
