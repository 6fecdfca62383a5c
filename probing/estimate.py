"""``--dry-run``: what a run will take, from the texts' lengths, the model's size and this machine's measured speed."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affectlens import catalog, embedded
from affectlens.capturing import TOKEN_BUDGET
from affectlens.errors import ModelError
from affectlens.stimuli import load_battery
from affectlens.types import Json

WORDS_TO_TOKENS = 1.3  # English prose under common tokenizers
SECONDS_A_FIT = 0.0016  # one nested logistic fit of some 60 rows in their span; measured on two cores


def forecast(model: str, battery: str, targets: Sequence[str]) -> Json:
    """Rough figures, each named with its unit; nothing is downloaded and no weights are loaded."""
    table = load_battery(battery)
    tokens = int(sum(len(item.text.split()) for item in table) * WORDS_TO_TOKENS)
    found = catalog.resolve(model)
    out: Json = {"items": len(table), "tokens (about)": tokens, "targets": ", ".join(targets)}
    shape = _shape(found)
    if shape is None:
        return out | {"note": f"{model} is not on this machine yet, so its size is not known; pull it for a forecast"}
    parameters, layers, d_model = shape
    rate = measure_flops()
    fits = sum({"affect": 2 * 9, "category": 4 * 9, "valence": 2 * 9}[t] for t in targets) * layers * 17
    return out | {
        "parameters (millions)": round(parameters / 1e6),
        "memory, float32 (MB)": round((parameters * 4 + TOKEN_BUDGET * d_model * 40) / 1e6 + 600),
        "capture (seconds)": round(2 * parameters * tokens / rate, 1),
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


def _shape(found: Any) -> tuple[int, int, int] | None:
    """Parameters, layers and width, from configuration files alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = found if isinstance(found, Path) else None
    if isinstance(found, catalog.Entry) and isinstance(found.source, catalog.Wheel):
        folder = embedded.folder_of(found)
    if isinstance(found, catalog.Entry) and isinstance(found.source, str):
        folder = _in_hub_cache(found.source)
    if folder is None or not (folder / "config.json").is_file():
        return None
    import torch

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} has no readable config.json ({str(error).splitlines()[0]}).") from None
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    return sum(p.numel() for p in empty.parameters()), text.num_hidden_layers, text.hidden_size


def _in_hub_cache(repo: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json")
    return Path(found).parent if isinstance(found, str) else None
