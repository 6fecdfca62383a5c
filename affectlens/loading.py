"""From a name to weights and tokenizer: find the folder, read it onto a device or over several, unwrap adapters."""

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from affectlens import catalog, embedded, ggufs, hub
from affectlens.errors import ModelError
from affectlens.paths import cache_dir
from affectlens.progress import working
from affectlens.quiet import quiet_transformers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DeviceMap = str | Mapping[str, int | str]
_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True)
class Found:
    """A folder that holds a model, and where it came from."""

    folder: Path
    source: str
    revision: str | None = None


@dataclass(frozen=True)
class Where:
    """In which dtype, and on which device or spread over which."""

    dtype: torch.dtype
    device: torch.device
    device_map: str | dict[str, int | str] | None


def where(dtype: str, device: str | None, device_map: DeviceMap | None) -> Where:
    """A user's wishes, checked before anything is fetched.

    Raises:
        ModelError: a dtype, device or map that is not known or not here, or a device beside a map.
    """
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is not known; choose from {', '.join(DTYPES)}.")
    if device is not None and device_map is not None:
        raise ModelError("Give load_model either device= or device_map=: a map names the devices itself.")
    if isinstance(device_map, str) and device_map not in _MAPS:
        raise ModelError(f"device_map {device_map!r} is not known; choose from {', '.join(_MAPS)}, or give a dict.")
    plain = device_map if device_map is None or isinstance(device_map, str) else dict(device_map)
    return Where(DTYPES[dtype], _device(device), plain)


def find(name: str, revision: str | None = None, *, show: bool | None = None) -> Found:
    """The local folder of the model that goes by ``name``, fetched or dequantised if it must be.

    Raises:
        ModelError: if it cannot be found, fetched or read, or its terms are not accepted.
    """
    found = catalog.resolve(name)
    if revision is not None and (isinstance(found, Path) or isinstance(found.source, catalog.Wheel)):
        raise ModelError(f"{name} does not come from the hub, so it has no revision {revision!r}: leave it out.")
    if isinstance(found, Path):
        if found.is_dir():
            return Found(found, f"folder {found.name}")
        folder, note = ggufs.pull_file(found, show=show)
        return Found(folder, f"{found.stem}, {note}")
    if isinstance(found.source, catalog.Wheel):
        return Found(embedded.pull(found, show=show), f"{Path(found.source.file).stem}, {found.source.note}")
    folder, commit = hub.fetch(found.source, revision)
    return Found(folder, f"{found.source} at {commit[:12]}", commit)


def read(name: str, found: Found, where: Where, *, show: bool | None = None) -> tuple[Any, Any]:
    """The model and the tokenizer in a folder, put where ``where`` says.

    Raises:
        ModelError: a folder that does not load, or not completely.
    """
    with working(f"loading {name}", show=show):
        if where.device_map is None:
            hf, tokenizer = _from_folder(found.folder, where.dtype)
            return hf.to(where.device), tokenizer
        cache_dir().mkdir(parents=True, exist_ok=True)
        disk = tempfile.mkdtemp(prefix="offloaded-", dir=cache_dir())
        try:
            hf, tokenizer = _from_folder(found.folder, where.dtype, device_map=where.device_map, offload_folder=disk)
        except BaseException:
            shutil.rmtree(disk, ignore_errors=True)
            raise
    weakref.finalize(hf, shutil.rmtree, disk, ignore_errors=True)
    return hf, tokenizer


def unwrap(model: Any) -> Any:
    """The plain causal language model inside a PEFT model, its LoRA layers in place; any other model as it is.

    Raises:
        ModelError: if the adapter is a learned prompt, which the plain model would lose.
    """
    if not hasattr(model, "get_base_model"):
        return model
    configs = getattr(model, "peft_config", {})
    if any(getattr(config, "is_prompt_learning", False) for config in configs.values()):
        raise ModelError(
            "This PEFT model prepends a learned prompt, which AffectLens would not see: give it a model with LoRA or "
            "another adapter that lives inside the layers."
        )
    return model.get_base_model()


def _from_folder(path: Path, dtype: torch.dtype, **spread: Any) -> tuple[Any, Any]:
    try:
        with quiet_transformers():
            from transformers import AutoModelForCausalLM, AutoTokenizer

            loader: Any = AutoModelForCausalLM
            hf, info = loader.from_pretrained(
                path, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True, **spread
            )
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # transformers raises a dozen kinds here; all mean that the folder does not load
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = (
            "Is device_map a map of all parts of this model to devices that are here?"
            if spread
            else "A folder needs config.json, *.safetensors and the tokenizer's files."
        )
        raise ModelError(
            f"{path} does not load as a causal language model with a tokenizer: {first} {advice}"
        ) from error
    absent = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    if absent:
        raise ModelError(
            f"The weights in {path} are not complete: {len(absent)} tensors are missing or of another shape, "
            f"{absent[0]} among them. transformers would fill them with random numbers; fetch the model again."
        )
    return hf, tokenizer


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"Device {name!r} is not available here ({reason}). Try cpu.") from None
    return place
