"""Results of earlier stages, from their run folders or in memory, with the model and the battery that they are of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.circuits.agreeing.layered import ByLayer
from affectlens.errors import CircuitError
from affectlens.patching.results import PatchSweep
from affectlens.probing.features.report import FeatureReport
from affectlens.run import Run
from affectlens.steering.evaluating.result import SteeringReport
from affectlens.types import Json

IN_MEMORY = "in memory"
DENOISE = "denoise"  # the part of a patch run that is read
FILES: Mapping[str, str] = {
    "probe": "results/read_by_layer.json", "patch": f"{DENOISE}/results/sweep.json",
    "features": "results/features.json", "steering": "results/steering.json",
}  # fmt: skip  # what a usable run folder of each stage has


@dataclass(frozen=True)
class Opened:
    """A stage's result and where it is from."""

    stage: str
    result: Any
    source: str  # the run folder, or "in memory"
    model: str  # its name
    fingerprint: str  # empty if it is not known
    battery_sha256: str  # empty if it is not known


def opened(stage: str, given: object) -> Opened:
    """A stage's result with what it is of.

    Args:
        stage: probe, patch, features, steering or circuit.
        given: the result, or the folder of a run.

    Raises:
        AffectLensError: a folder that holds no finished run of that stage.
    """
    if not isinstance(given, str | Path):
        facts = given.facts if isinstance(given, SteeringReport) else _meta(given)
        return Opened(stage, given, IN_MEMORY, *(str(facts.get(name, "")) for name in _OF))
    home = Path(given)
    load: Mapping[str, Callable[[], Any]] = {
        "probe": lambda: ByLayer.load(home, "read"), "circuit": lambda: ByLayer.load(home, "circuit"),
        "patch": lambda: PatchSweep.load(home / DENOISE if (home / DENOISE).is_dir() else home),
        "features": lambda: FeatureReport.load(home), "steering": lambda: SteeringReport.load(home),
    }  # fmt: skip
    result = load[stage]()
    facts = dict(result.facts if isinstance(result, SteeringReport) else _meta(result))
    if (home / "run.json").is_file():
        info = Run.open(home).info
        facts = {name: info[name] for name in _OF if name in info} | facts
    return Opened(stage, result, str(given), *(str(facts.get(name, "")) for name in _OF))


_OF = ("model", "fingerprint", "battery_sha256")


def _meta(result: Any) -> Json:
    return dict(result.meta)


def same(stages: list[Opened], model: str, battery_sha256: str | None) -> tuple[str, str, str]:
    """The name and fingerprint of the one model, and the hash of the one battery, that all stages are of.

    Args:
        stages: what was opened.
        model: its name or fingerprint.
        battery_sha256: of the battery; the first that a stage names if None.

    Raises:
        CircuitError: another model or battery, or stages that differ in either.
    """
    fingerprint = next((one.fingerprint for one in stages if one.fingerprint), "")
    name = next((one.model for one in stages if one.model), "")
    battery = battery_sha256 or next((one.battery_sha256 for one in stages if one.battery_sha256), "")
    for one in stages:
        whose = f"The {one.stage} result ({one.source})"
        if (one.fingerprint and one.fingerprint != fingerprint) or model not in _names(one, fingerprint, name):
            of = f"{one.model} ({one.fingerprint[:12] or 'no fingerprint'})"
            raise CircuitError(f"{whose} is of {of}, not of {model}: give results of one model.")
        if one.battery_sha256 and battery and one.battery_sha256 != battery:
            raise CircuitError(
                f"{whose} is of another battery ({one.battery_sha256[:12]}, not {battery[:12]}): cells are compared "
                "on the same texts, so run that stage on the same battery or leave it out."
            )
    return name, fingerprint, battery


def _names(one: Opened, fingerprint: str, name: str) -> set[str]:
    """What a stage's model may be called; one without a fingerprint is known by its name alone."""
    if one.fingerprint:
        return {one.fingerprint, one.model}
    return {one.model, fingerprint if one.model == name else ""}
