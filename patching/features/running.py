"""Effects of the features that a search has found, as a section of its report."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from affectlens.errors import PatchError
from affectlens.model import load_model
from affectlens.patching.features.measuring import feature_effects
from affectlens.patching.features.outcome import FeatureEffects
from affectlens.patching.metrics import words_of
from affectlens.patching.named import CUE, named_metrics
from affectlens.patching.pairs import choose, prepare
from affectlens.probing.features.launching import reload, write_section
from affectlens.probing.features.sections import render
from affectlens.probing.features.study import ranked
from affectlens.probing.sae_files import load_sae
from affectlens.stimuli import load_battery

METRICS = ("affect", "said_category")


def effects_of_run(
    run: Path, *, top: int = 8, classes: Sequence[str] = (), emotions: Sequence[str] = (), clamp: str | None = None,
    metrics: Sequence[str] = METRICS, pairs: int = 24, placebos: int = 39, directions: int = 0, memory: float = 1.0,
    seed: int = 0, progress: bool | None = None,
) -> tuple[FeatureEffects, Path]:  # fmt: skip
    """Edit features that a run has placed and write what that did into the run and its report.

    Args:
        run: a folder of ``affectlens features find``.
        top: how many features: the largest effects of each emotion in turn.
        classes: of these alone.
        emotions: of these alone, ``affect`` (all together) among them.
        clamp: what features are set to, a number or ``p95``; zero, which is ablation, if None.
        metrics: by name (:func:`affectlens.patching.named_metrics`).
        pairs: how many of the battery's pairs.
        placebos: for each feature.
        directions: random directions of the same norm, for each feature.
        memory: what a batch may take beyond the model, in GB.
        seed: of pairs, read-outs, placebos and the bootstrap.
        progress: show bars.

    Returns:
        The outcome and the report's path.

    Raises:
        RunError: no such run, or one that is not finished.
        PatchError: no placed feature is left, or what the parts refuse.
    """
    done, report = reload(run)
    config, placed = done.info["config"], report.placed
    if not placed.empty:
        placed = placed[_among(placed["class"], classes) & _among(placed["emotion"], emotions)]
    if placed.empty:
        raise PatchError(f"{run} placed no feature{' of that class and emotion' if classes or emotions else ''}.")
    table = load_battery(config["battery"])
    model = load_model(config["model"], device=config["device"], dtype=config["dtype"], revision=config["revision"],
                       progress=progress)  # fmt: skip
    sae = load_sae(config["sae"], config["sae_id"])
    sae.attach(model)
    done.expect("dictionary", "sae_sha256", sae.sha256)
    done.expect("model", "fingerprint", model.fingerprint)
    done.expect("battery", "battery_sha256", table.sha256)
    read = named_metrics(model, table, metrics, seed=seed, progress=progress)
    labels = words_of([one for one in read if one.name.startswith("said_")])
    every = prepare(model, table.where(split="vignettes"), labels=labels, cue=CUE)
    told = choose([pair for pair in every if pair.contrast == "emotional/neutral"], pairs, seed)
    edited, done_to = ranked(placed, top), f"set to {clamp}" if clamp else "ablated"
    plan = json.dumps([edited, clamp, list(metrics), pairs, placebos, directions, seed])
    name = f"effects-{hashlib.sha256(plan.encode()).hexdigest()[:8]}"
    found = feature_effects(
        model, sae, edited, told, metric=read, kind="clamp" if clamp else "ablate", to=_level(clamp),
        placebos=placebos, directions=directions, placed=report.placed["feature"].astype(int).tolist(), seed=seed,
        memory=memory, folder=run / name, progress=progress,
    )  # fmt: skip
    found.save(run / name)
    tables = {f"effects of features {done_to}, {name[-8:]}": found.effects()}
    write_section(run, name, f"Are they used? Features {done_to}", found.summary(), tables)
    return found, render(done, report)


def _among(column: pd.Series, names: Sequence[str]) -> pd.Series:
    return column.isin(names) if names else column.notna()


def _level(clamp: str | None) -> float | str | None:
    """A number, or the name of a percentile."""
    try:
        return None if clamp is None else float(clamp)
    except ValueError:
        return clamp
