"""What makes two models the same: a hash over everything that decides what a model computes.

Weights that are not in memory (offloaded to disk by ``device_map``) are brought in one module at a time, so that a
model has one fingerprint wherever its weights lie. Quantised tensors are hashed as they are kept, with their scales.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_NOT_THE_MODEL = {"_name_or_path", "transformers_version", "dtype", "architectures", "_attn_implementation"}


def fingerprint_of(hf: Any, tokenizer: Any, *, dtype: torch.dtype, revision: str | None) -> str:
    """SHA-256 over weights, configuration, tokenizer, chat template, revision and dtype, in 32 hex digits."""
    digest = hashlib.sha256(str(dtype).encode())
    for name, value in _weights(hf):
        _add(digest, name, value)
    config = {k: v for k, v in hf.config.to_dict().items() if k not in _NOT_THE_MODEL}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(f"{tokenizer.chat_template}{revision}".encode())
    return digest.hexdigest()[:32]


def adapters(hf: nn.Module) -> str:
    """What is not in a LoRA layer's weights and may change from call to call: scale, active adapters, on or off."""
    return "".join(
        f"{name}{[module.scaling, module.active_adapters, module.disable_adapters, module.merged_adapters]}"
        for name, module in hf.named_modules()
        if hasattr(module, "active_adapters") and hasattr(module, "scaling")
    )


def _weights(hf: nn.Module) -> Iterator[tuple[str, Any]]:
    """The entries of the state dict, by name, each in memory while it is looked at."""
    for name, value in sorted(hf.state_dict().items()):
        if isinstance(value, Tensor) and value.is_meta:
            from accelerate.utils import align_module_device

            owner, _, leaf = name.rpartition(".")
            module = hf.get_submodule(owner)
            with align_module_device(module, torch.device("cpu")):
                yield name, getattr(module, leaf)
        else:
            yield name, value


def _add(digest: Any, name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        digest.update(f"{name}{value!r}".encode())
        return
    digest.update(f"{name}{tuple(value.shape)}".encode())
    flatten = getattr(value, "__tensor_flatten__", None)
    if flatten is not None:  # a tensor made of others, such as torchao's
        parts, about = flatten()
        digest.update(f"{type(value).__name__}{about}".encode())
        for part in parts:
            _add(digest, f"{name}.{part}", getattr(value, part))
    else:
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
