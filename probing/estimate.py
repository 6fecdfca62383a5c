"""``--dry-run``: what a run will take, from the texts' lengths, the model's size and this machine's measured speed."""

import time
from collections.abc import Sequence

from affectlens.needs import needs
from affectlens.stimuli import load_battery
from affectlens.types import Json

SECONDS_A_FIT = 0.0016  # one nested logistic fit of some 60 rows in their span; measured on two cores


def forecast(model: str, battery: str, targets: Sequence[str]) -> Json:
    """Memory as ``affectlens doctor`` gives it, and rough times; no weights are fetched or loaded."""
    facts = needs(model, load_battery(battery))
    if "note" in facts:
        return {"targets": ", ".join(targets)} | facts
    fits = sum({"affect": 2 * 9, "category": 4 * 9, "valence": 2 * 9}[t] for t in targets) * facts["layers"] * 17
    tokens = next(count for name, count in facts.items() if name.startswith("tokens"))
    return {
        "targets": ", ".join(targets),
        **facts,
        "capture (seconds)": round(2e6 * facts["parameters (millions)"] * tokens / measure_flops(), 1),
        "probes (seconds)": round(fits * SECONDS_A_FIT),
    }


def measure_flops(size: int = 1024) -> float:
    """Floating-point operations a second of this machine's matrix product in float32."""
    import torch

    a = torch.randn(size, size)
    torch.mm(a, a)
    start, rounds = time.perf_counter(), 5
    for _ in range(rounds):
        torch.mm(a, a)
    return 2 * size**3 * rounds / (time.perf_counter() - start)
