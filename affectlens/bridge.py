"""The second module tree: a transformer-lens bridge over the very parameters of the plain model.

Booting a bridge replaces modules in the model it is given. So it gets a structural copy: a deep copy whose memo already
holds every parameter and buffer, which costs some Python objects and no second copy of the weights.
"""

import copy
from typing import Any

import torch

from affectlens.check import TEXTS, difference, tolerance
from affectlens.errors import ModelError
from affectlens.model import LensModel
from affectlens.quiet import quiet_transformers


def build(model: LensModel) -> Any:
    """A ``TransformerBridge`` that shares the model's parameters, its logits checked against the plain tree's.

    Raises:
        ModelError: if transformer-lens does not know the architecture, or the logits differ.
    """
    from transformer_lens.model_bridge import TransformerBridge

    shared = {id(tensor): tensor for tensor in (*model.hf.parameters(), *model.hf.buffers())}
    twin = copy.deepcopy(model.hf, shared)
    twin.config.architectures = [type(twin).__name__]
    try:
        with quiet_transformers():
            bridge = TransformerBridge.boot_transformers(
                "in-memory", hf_model=twin, tokenizer=_tokenizer(model),
                device=str(model.device), dtype=model.dtype,
            )  # fmt: skip
    except (ValueError, KeyError, TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise ModelError(f"transformer-lens cannot bridge {type(model.hf).__name__}: {error}") from error
    ids = model.tokenizer(TEXTS[1], return_tensors="pt").input_ids.to(model.device)
    with torch.inference_mode():
        off = difference(bridge(ids), model.hf(input_ids=ids, use_cache=False).logits)
    if not off <= tolerance(model.dtype):
        raise ModelError(f"The bridge of {model.name} gives other logits than the model (by {off:.1e}).")
    return bridge


def _tokenizer(model: LensModel) -> Any:
    """A copy marked as adding BOS itself: otherwise transformer-lens loads another by name, from a hub if it must."""
    twin = copy.deepcopy(model.tokenizer)
    twin.init_kwargs = {"name_or_path": model.name} | twin.init_kwargs | {"add_bos_token": True}
    return twin
