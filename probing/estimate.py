"""``--dry-run``: what a run will take, from the texts' lengths, the model's size and this machine's measured speed."""

import time
from collections.abc import Sequence

from affectlens.errors import BatteryError
from affectlens.needs import needs
from affectlens.probing.folds import QUICK, RUNGS
from affectlens.probing.targets import TARGETS, select
from affectlens.stimuli import load_battery
from affectlens.types import Json

SECONDS = 1.1e-6  # of the ladder for each rung, layer, item and item again; measured on two cores
SECONDS_A_RUNG = 4.0  # whatever the size: floors, bootstraps, controls
WORDS_ASKED = 6  # how often the scored texts are read again when a model is asked


def forecast(model: str, battery: str, targets: Sequence[str] | None, *, quick: bool = False) -> Json:
    """Memory as ``affectlens doctor`` gives it, and rough times; no weights are fetched or loaded.

    Args:
        model: as for ``affectlens probe``.
        battery: as for ``affectlens probe``.
        targets: those that were named; all that apply if None.
        quick: pair and domain folds alone, no asking.
    """
    table = load_battery(battery)
    facts = needs(model, table)
    sizes = {}
    for name in targets or TARGETS:
        try:
            sizes[name] = len(select(table.frame(), name).rows)
        except BatteryError:
            if targets:
                raise
    shown = {"targets": ", ".join(sizes)} | facts
    if "note" in facts:
        return shown
    rungs = len(QUICK if quick else RUNGS)
    tokens = next(count for name, count in facts.items() if name.startswith("tokens"))
    forward = 2e6 * facts["parameters (millions)"] * tokens / measure_flops()
    fits = sum(rungs * (SECONDS_A_RUNG + SECONDS * facts["layers"] * n**2) for n in sizes.values())
    asked = 0.0 if quick else forward * WORDS_ASKED * sizes.get("affect", 0) / len(table)
    return shown | {
        "capture (seconds)": round(forward, 1), "probes (seconds)": round(fits), "asking (seconds)": round(asked),
    }  # fmt: skip


def measure_flops(size: int = 1024) -> float:
    """Floating-point operations a second of this machine's matrix product in float32."""
    import torch

    a = torch.randn(size, size)
    torch.mm(a, a)
    start, rounds = time.perf_counter(), 5
    for _ in range(rounds):
        torch.mm(a, a)
    return 2 * size**3 * rounds / (time.perf_counter() - start)
