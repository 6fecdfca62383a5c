"""``patch``: what of a difference between two texts a site carries, cell by cell, beside its controls.

One pair at a time: its two texts are run once, which gives the baselines and the values to patch with; then every cell
(a site at one or several matched tokens), from the matched source and from each control, runs through the engine.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.choosing import runner_for
from affectlens.patching.job import Job
from affectlens.patching.keeping import Kept
from affectlens.patching.metrics import Metric, merged_cue, words_of
from affectlens.patching.pairs import PatchPair, prepare, read_of, vocabulary
from affectlens.patching.results import PatchSweep
from affectlens.patching.sources import CONTROLS, sources
from affectlens.patching.tabling import Given
from affectlens.patching.units import Positions, Sites, Unit, expand_positions, expand_sites, units
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.types import Json, TextTable

POSITIONS = ("changed", "shared", "ending", "last")


def patch(
    model: LensModel,
    pairs: Given | Sequence[PatchPair],
    sites: Sites = "resid_pre",
    positions: Positions = POSITIONS,
    *,
    metric: Metric | Sequence[Metric],
    direction: str = "denoise",
    controls: Sequence[str] = CONTROLS,
    cue: str | None = None,
    chat: bool = False,
    seed: int = 0,
    memory: float = 1.0,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> PatchSweep:
    """Patch every site at every position of every pair, and read what comes of it.

    >>> from affectlens.patching import label_difference, patch
    >>> from affectlens.testing import tiny_model
    >>> labels = {"good": " good", "bad": " bad"}
    >>> pair = ("She won the race. Then", "She lost a race. Then")
    >>> sweep = patch(tiny_model(), [pair], "resid_pre", "last", metric=label_difference(labels, "good", "bad"))
    >>> len(sweep.table[sweep.table.source == "matched"])
    2

    Args:
        model: from :func:`affectlens.load_model`.
        pairs: a battery with matched pairs, tuples of a clean and a corrupt text, or prepared pairs.
        sites: ``resid_pre``, ``L12.z``, ``heads`` (each head's z), ``q.each``, ``mlp_out``, ``L3.N17``, or several.
        positions: segments (:mod:`affectlens.patching.pairs`), ``each`` matched token by itself, ``span:words``, or
            offsets from the end such as -1; or several.
        metric: what is read of each run (:mod:`affectlens.patching.metrics`); several are read of the same runs.
        direction: ``denoise`` patches the clean text's values into the corrupt run, ``noise`` the reverse.
        controls: other sources (:mod:`affectlens.patching.sources`); each costs as much as the sweep itself.
        cue: what to write after each text; by default what the metrics ask for, or nothing.
        chat: make each text the user's message of a conversation.
        seed: of the choice of control texts.
        memory: what a batch may take beyond the model, in GB.
        folder: where each pair's rows are kept as soon as they are computed; a folder that has some is continued.
        progress: show a bar; by default where a person is looking.

    Raises:
        PatchError: a direction, site, position or control that is none, or no pair that can be patched.
        BatteryError: no pairs.
        CaptureError: texts or labels that can't be read.
    """
    check_direction(direction)
    controls = (controls,) if isinstance(controls, str) else tuple(controls)
    if unknown := [name for name in controls if name not in CONTROLS]:
        raise PatchError(f"There is no control {unknown[0]!r}; choose from {', '.join(CONTROLS)}.")
    metrics = listed(metric)
    found, where = expand_sites(model, sites), expand_positions(positions)
    ready = prepared(model, pairs, metrics, cue=cue, chat=chat)
    turned = [pair if direction == "denoise" else pair.swapped() for pair in ready]
    meta = facts(model, pairs, metrics, found, where, ready[0], seed) | {
        "direction": direction, "controls": list(controls), "n_pairs": len(ready),
    }  # fmt: skip
    runner = runner_for(model, memory=memory, generating=any(one.generate for one in metrics))
    job = Job(runner, metrics, found, denoise=direction == "denoise")
    kept = Kept(folder, meta | {"texts": read_of(ready)})
    tables, refused = [], []
    for number, pair in enumerate(tracked(turned, "patching pairs", show=progress)):
        every = list(units(pair, where)) if can_match(pair, found) else [f"{pair.name}: patterns of unequal length"]
        refused += [one for one in every if isinstance(one, str)]
        chosen = [one for one in every if isinstance(one, Unit)]
        if chosen:
            froms = list(sources(pair, chosen, turned, controls, seed))
            tables.append(kept.get(number, partial(job.rows, pair, chosen, froms)))
    if not tables:
        raise PatchError(f"No pair can be patched there: {'; '.join(refused[:3])}.")
    about = pd.DataFrame([described(pair, direction) for pair in turned])
    return PatchSweep(pd.concat(tables, ignore_index=True), about, meta | {"refused": refused})


def check_direction(direction: str) -> None:
    """Raise a :class:`PatchError` if it is neither ``denoise`` nor ``noise``."""
    if direction not in ("denoise", "noise"):
        raise PatchError(f"direction is {direction!r}; choose denoise or noise.")


def can_match(pair: PatchPair, sites: Sequence[Site]) -> bool:
    """Whether some site's values fit: attention patterns reach over all tokens, so over as many in both texts."""
    return pair.equal_length or any(site.kind != "pattern" for site in sites)


def listed(metric: Metric | Sequence[Metric]) -> list[Metric]:
    """The metrics, whose names must differ."""
    metrics = [metric] if isinstance(metric, Metric) else list(metric)
    if odd := [one for one in metrics if not isinstance(one, Metric)]:
        raise PatchError(f"{odd[0]!r} is not a metric: make one, for example with named_metrics or label_difference.")
    names = [one.name for one in metrics]
    if not metrics or len(set(names)) < len(names):
        raise PatchError(f"Give at least one metric, each with a name of its own (metric.named(...)); got {names}.")
    return metrics


def prepared(
    model: LensModel, pairs: Given | Sequence[PatchPair], metrics: Sequence[Metric], *, cue: str | None, chat: bool
) -> list[PatchPair]:
    """Pairs with the metrics' verbalisers; prepared ones as they are.

    Raises:
        PatchError: prepared pairs without the metrics' verbalisers, or another cue than the metrics ask for.
    """
    words, asked = words_of(metrics), merged_cue(metrics)
    if odd := [metric.name for metric in metrics if metric.cue is not None and metric.chat != chat]:
        raise PatchError(f"{odd[0]} was made with chat={not chat}: make it anew, or patch with the same.")
    said = (asked or "") if cue is None else cue
    if isinstance(pairs, TextTable):
        return prepare(model, pairs, labels=words, cue=_fitting(said, asked), chat=chat)
    given = list(pairs)
    ready = [pair for pair in given if isinstance(pair, PatchPair)]
    if ready and len(ready) < len(given):
        raise PatchError("Prepared pairs and texts are mixed: give one or the other.")
    if not ready:
        return prepare(model, cast(Given, given), labels=words, cue=_fitting(said, asked), chat=chat)
    key = vocabulary(model)
    for pair in ready:
        if not set(words) <= set(pair.words):
            raise PatchError(
                f"{pair.name} was prepared without the metrics' words: prepare(..., labels=...) with them."
            )
        if pair.tokenizer != key:
            raise PatchError(f"{pair.name} was prepared for another model's tokenizer: prepare the pairs for this one.")
        if (cue is not None and cue != pair.cue) or (chat and not pair.chat):
            raise PatchError(f"{pair.name} was prepared with the cue {pair.cue!r}: leave cue and chat out here.")
        _fitting(pair.cue, asked)
    return ready


def _fitting(cue: str, asked: str | None) -> str:
    if asked is not None and cue != asked:
        raise PatchError(f"The texts end with the cue {cue!r}, and a metric is for texts with {asked!r}: make it anew.")
    return cue


def facts(
    model: LensModel, given: Any, metrics: Sequence[Metric], sites: Sequence[Site], positions: Sequence[str | int],
    pair: PatchPair, seed: int,
) -> Json:  # fmt: skip
    """What a sweep's numbers depend on."""
    battery = given if isinstance(given, TextTable) else None
    return {
        "model": model.name, "fingerprint": model.fingerprint, "source": model.source, "n_layers": model.n_layers,
        "n_heads": model.n_heads, "battery": battery.name if battery else "texts of the user's",
        "battery_sha256": battery.sha256 if battery else "", "sites": [str(site) for site in sites],
        "positions": [str(one) for one in positions],
        "metrics": {m.name: {"unit": m.unit, "key": m.key} for m in metrics},
        "labels": {m.name: dict(m.labels) for m in metrics}, "cue": pair.cue, "chat": pair.chat, "seed": seed,
    }  # fmt: skip


def described(pair: PatchPair, direction: str) -> Json:
    """One row about a pair whose ``corrupt`` is the base, with the base's tokens."""
    base = pair.corrupt
    ids = (pair.clean.name, base.name) if direction == "denoise" else (base.name, pair.clean.name)
    segments = {name: [at for _, at in matches] for name, matches in pair.segments.items()}
    return {
        "pair": pair.name, "group": pair.group, "contrast": pair.contrast, "emotion": pair.emotion,
        "valence": pair.valence, "clean_id": ids[0], "corrupt_id": ids[1], "equal_length": pair.equal_length,
        "tokens": list(pair.alignment.b.tokens), "segments": json.dumps(segments),
    }  # fmt: skip
