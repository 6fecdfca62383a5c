"""``agree``: five questions about each layer and emotion, answered from the results of earlier stages."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.circuits.agreeing.carrying import circuit_marks
from affectlens.circuits.agreeing.featuring import feature_marks
from affectlens.circuits.agreeing.layered import ByLayer
from affectlens.circuits.agreeing.marks import COLUMNS, QUESTIONS, WORTH, Mark, blank, decided
from affectlens.circuits.agreeing.opening import Opened, opened, same
from affectlens.circuits.agreeing.report import AgreementReport
from affectlens.circuits.agreeing.steered import steer_marks
from affectlens.circuits.agreeing.using import causal_marks, place
from affectlens.errors import CircuitError
from affectlens.patching.results import PatchSweep
from affectlens.probing.features.report import FeatureReport
from affectlens.steering.evaluating.result import SteeringReport
from affectlens.stimuli.taxonomy import EMOTIONS
from affectlens.types import Json

NOBODY = {
    "read": "no probe by emotion was given", "causal": "no patch run was given",
    "feature": "no search for features was given", "steerable": "no evaluation of steering was given",
    "circuit": "no circuit was given",
}  # fmt: skip
ELSEWHERE = {
    "read": "this layer or emotion was not probed", "causal": "this layer or emotion was not patched",
    "feature": "no dictionary reads this layer", "steerable": "nothing was steered at this layer",
    "circuit": "no circuit of this emotion was given",
}  # fmt: skip
Features = FeatureReport | str | Path


def agree(
    model: str,
    *,
    probe: ByLayer | str | Path | None = None,
    patch: PatchSweep | str | Path | None = None,
    features: Features | Sequence[Features] | None = None,
    steering: SteeringReport | str | Path | None = None,
    circuits: Mapping[str, ByLayer | str | Path] | None = None,
    battery_sha256: str | None = None,
    metric: str | None = None,
    segment: str | None = None,
    worth: Mapping[str, float] | None = None,
    n_layers: int | None = None,
) -> AgreementReport:
    """Join what was found of one model on one battery; each stage is a result, a run's folder, or left out.

    Args:
        model: its name or its fingerprint.
        probe: of :func:`affectlens.circuits.agreeing.read_by_emotion`.
        patch: a sweep over the residual stream with its controls (denoise).
        features: a search, or several of different layers.
        steering: an evaluation.
        circuits: by emotion, of :func:`affectlens.circuits.agreeing.circuit_by_layer`.
        battery_sha256: of the battery; that of the first stage by default.
        metric: of the sweep; what the model would say if it was measured, else the first.
        segment: of the sweep; ``ending`` if it was patched.
        worth: the smallest difference worth having of some questions; the others as in
            :data:`affectlens.circuits.agreeing.marks.WORTH`.
        n_layers: of the model; what the stages know by default.

    Raises:
        CircuitError: nothing was given, or results of another model or battery.
    """
    bars = dict(WORTH) | dict(worth or {})
    if strange := sorted(set(bars) - set(WORTH)):
        raise CircuitError(f"There is no question {strange[0]!r}: they are {', '.join(QUESTIONS)}.")
    searches = [features] if isinstance(features, Features) else list(features or ())
    given = [("probe", probe), ("patch", patch), *(("features", one) for one in searches), ("steering", steering)]
    stages = [opened(stage, one) for stage, one in given if one is not None]
    on = {emotion: opened("circuit", one) for emotion, one in (circuits or {}).items()}
    if not stages and not on:
        raise CircuitError(
            "Nothing was given to agree on: give at least one of probe, patch, features, steering, circuits."
        )
    for emotion, one in on.items():
        own = str(one.result.meta.get("emotion") or emotion)
        if own != emotion:
            raise CircuitError(f"The circuit given as {emotion} ({one.source}) is of {own}: give each by its name.")
    name, fingerprint, battery = same([*stages, *on.values()], model, battery_sha256)
    by_stage = {
        stage: [one for one in stages if one.stage == stage] for stage in ("probe", "patch", "features", "steering")
    }
    marks, meta = _marks(by_stage, on, bars, metric, segment)
    known = [int(one.result.meta.get("n_layers", 0)) for one in by_stage["patch"]]
    count = n_layers or max([*known, *(mark.layer + 1 for mark in marks)], default=0)
    if not count:
        raise CircuitError("What was given measured no layer of any emotion: give a stage that did.")
    asked = {"read": probe, "causal": patch, "feature": searches or None, "steerable": steering, "circuit": circuits}
    table = _filled(marks, count, {question for question, one in asked.items() if one is not None})
    sources = {f"{one.stage}{f' {i + 1}' if i else ''}": one.source
               for each in by_stage.values() for i, one in enumerate(each)}  # fmt: skip
    sources |= {f"circuit of {emotion}": one.source for emotion, one in on.items()}
    return AgreementReport(table, {
        "model": name, "fingerprint": fingerprint, "battery_sha256": battery, "worth": bars, "sources": sources,
        "n_layers": count, **meta,
    })  # fmt: skip


def _marks(
    stages: Mapping[str, list[Opened]], on: Mapping[str, Opened], worth: Mapping[str, float], metric: str | None,
    segment: str | None,
) -> tuple[list[Mark], Json]:  # fmt: skip
    marks: list[Mark] = []
    meta: Json = {}
    for one in stages["probe"]:
        marks += _read(one, worth["read"])
        meta["read"] = {name: one.result.meta.get(name) for name in ("site", "position", "rung", "partners")}
    for one in stages["patch"]:
        meta["causal"] = place(one.result, metric, segment) | {"direction": one.result.meta["direction"]}
        marks += causal_marks(one.result, worth["causal"], meta["causal"], one.source)
    for one in stages["features"]:
        marks += feature_marks(one.result, worth["feature"], one.source, dictionaries=len(stages["features"]))
    for one in stages["steering"]:
        marks += steer_marks(one.result, worth["steerable"], one.source)
    sources = {emotion: one.source for emotion, one in on.items()}
    marks += circuit_marks({emotion: one.result for emotion, one in on.items()}, worth["circuit"], sources)
    return marks, meta


def _read(one: Opened, worth: float) -> list[Mark]:
    """Marks of what is read; the table is that of the maker."""
    return [
        Mark(int(row["layer"]), str(row["emotion"]), "read",
             decided(row["low"], row["high"], row["p_adjusted"], worth), row["value"], row["low"], row["high"],
             str(row["control"]), row["p_adjusted"], int(row["n"]), bool(row["undone"]), one.source, str(row["why"]))
        for row in one.result.table.to_dict("records")
    ]  # fmt: skip


def _filled(marks: list[Mark], n_layers: int, given: set[str]) -> pd.DataFrame:
    """Every layer, emotion and question once; what has no mark is not measured."""
    found = {(mark.layer, mark.emotion, mark.question): mark for mark in marks}
    if len(found) < len(marks):
        raise CircuitError("Two results answer the same question at one layer: give one dictionary a layer.")
    names = {mark.emotion for mark in marks}
    emotions = [*(one for one in EMOTIONS if one in names), *sorted(names - set(EMOTIONS))]
    rows = []
    for layer in range(n_layers):
        for emotion in emotions:
            for question in QUESTIONS:
                why = (ELSEWHERE if question in given else NOBODY)[question]
                rows.append(found.get((layer, emotion, question), blank(layer, emotion, question, why)).row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"value": np.float64, "low": np.float64, "high": np.float64, "p_adjusted": np.float64})
