"""``affectlens doctor``: versions, the machine, the cache, and whether the embedded model is ready."""

import os
import platform
import shutil
from pathlib import Path

import psutil

from affectlens import catalog, embedded
from affectlens.paths import cache_dir
from affectlens.run import versions
from affectlens.types import Json


def examine() -> Json:
    """Named facts, and what to do about what is missing."""
    import torch

    entry = catalog.CATALOG["smollm2-135m"]
    home = embedded.folder_of(entry)
    memory = psutil.virtual_memory()
    root = cache_dir()
    there = next(p for p in (root, *root.parents) if p.exists())
    cuda = torch.cuda.is_available()
    facts: Json = {
        "python": platform.python_version(),
        **versions(),
        "cores": os.cpu_count(),
        "threads that torch uses": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "memory, free of all (GB)": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f}",
        "CUDA": torch.cuda.get_device_name() if cuda else "none: models run on the processor",
        "cache": f"{root} ({_size(root) / 2**20:.0f} MB; {shutil.disk_usage(there).free / 2**30:.0f} GB free)",
        "smollm2-135m": f"ready in {home}"
        if embedded.is_ready(entry)
        else "missing: affectlens models pull smollm2-135m",
    }
    return facts


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0
