"""``affectlens doctor``: versions, the machine, the cache, and what is missing with the command that gets it."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil

from affectlens import catalog, embedded
from affectlens.paths import cache_dir
from affectlens.run import versions
from affectlens.types import Json

OPTIONAL = {"peft": "LoRA models", "torchao": "models quantised in memory", "ipykernel": "notebooks"}
FEATURES = {"avx2": "AVX2", "avx512_f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX BF16"}


def examine() -> Json:
    """Named facts of this machine; ``missing`` and ``optional`` hold the commands that get what is not here."""
    import torch

    entry = catalog.CATALOG["smollm2-135m"]
    memory = psutil.virtual_memory()
    root = cache_dir()
    there = next(p for p in (root, *root.parents) if p.exists())
    return {
        "python": platform.python_version(),
        **versions(),
        "missing": "; ".join(missing()) or "nothing",
        "optional": "; ".join(optional()) or "all there",
        "cores": os.cpu_count(),
        "threads that torch uses": torch.get_num_threads(),
        "processor": processor(),
        "memory, free of all (GiB)": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f}",
        "CUDA": _cuda(),
        "cache": f"{root} ({_size(root) / 2**20:.0f} MiB; {shutil.disk_usage(there).free / 2**30:.0f} GiB free)",
        "smollm2-135m": f"ready in {embedded.folder_of(entry)}"
        if embedded.is_ready(entry)
        else "missing: affectlens models pull smollm2-135m",
    }


def missing() -> list[str]:
    """What AffectLens requires and is not installed, or too old, each with the command that installs it."""
    from packaging.requirements import Requirement

    out = []
    for text in (requires("affectlens") if _version("affectlens") else None) or ():
        need = Requirement(text)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        have = _version(need.name)
        if have is None or not need.specifier.contains(have, prereleases=True):
            out.append(f"{need.name} ({have or 'not installed'}): pip install '{need.name}{need.specifier}'")
    return out


def optional() -> list[str]:
    """Packages that only some uses need and that are not installed, each with its use and its command."""
    return [f"{name}, for {use}: pip install {name}" for name, use in OPTIONAL.items() if _version(name) is None]


def processor() -> str:
    """The instruction sets that decide how fast a model runs here, and whether bfloat16 gains time."""
    import torch

    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    found = [name for key, name in FEATURES.items() if has.get(key)] or [torch.backends.cpu.get_cpu_capability()]
    fast = "faster" if has.get("avx512_bf16") or has.get("amx_bf16") else "smaller, not faster,"
    return f"{platform.machine()}: {', '.join(found)} (bfloat16 is {fast} than float32 here)"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none: models run on the processor"
    free, every = torch.cuda.mem_get_info()
    return f"{torch.cuda.get_device_name()} ({free / 2**30:.1f} of {every / 2**30:.1f} GiB free)"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0
