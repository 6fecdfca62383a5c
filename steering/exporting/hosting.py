"""A copy of a model that has room for biases: the same weights, the same logits, and biases, zero where new.

Families whose MLP ends in a bias (GPT-2, GPT-NeoX, OPT, Phi, Falcon, BLOOM) need nothing. Llama and its like have a
switch in the configuration (``mlp_bias``, ``attention_bias``). Qwen 2 and Mistral have none, but compute what a Llama
with biases computes (Qwen 2 has them on queries, keys and values; both have Llama's norms, MLP and rotary embedding,
under the same names), so their copy is a ``LlamaForCausalLM``.
"""

import copy
from typing import Any

import torch

from affectlens.errors import SteerError
from affectlens.fingerprint import adapters
from affectlens.model import LensModel
from affectlens.quiet import quiet_transformers

SWITCHES = {"mlp": "mlp_bias", "attention": "attention_bias"}
_AS_LLAMA = {"qwen2": True, "mistral": False}  # whether its attention has biases
CAN = "Llama and its like (with mlp_bias), Qwen 2, Mistral, and GPT-2, GPT-NeoX and others whose MLP has a bias"


def with_room(model: LensModel, wanted: dict[str, list[str]]) -> tuple[Any, str]:
    """A Hugging Face model on the original's own weights in which every wanted module has a bias.

    Its non-persistent buffers (rotary tables) are not filled: save it and load it anew.

    Args:
        model: the original, which stays as it is.
        wanted: names of modules by part (``mlp``, ``attention``).

    Returns:
        The copy, and a sentence on how its architecture differs; empty if it does not.

    Raises:
        SteerError: a family without such biases, or weights that are quantised, offloaded or under adapters.
    """
    hf = model.hf
    _refuse(model)
    lacking = [p for p, names in wanted.items() if any(hf.get_submodule(n).bias is None for n in names)]
    config, kind, said = _roomier(model, lacking) if lacking else (copy.deepcopy(hf.config), type(hf), "")
    with quiet_transformers(), torch.device("meta"):
        new = kind(config)
    state, room = dict(hf.state_dict()), new.state_dict()
    for name in room.keys() - state.keys():
        state[name] = torch.zeros(room[name].shape, dtype=model.dtype)
    missing = [f"{n}.bias" for names in wanted.values() for n in names if f"{n}.bias" not in room]
    odd = [n for n in room.keys() - hf.state_dict().keys() if not n.endswith(".bias")] + [*(state.keys() - room.keys())]
    if missing or odd:
        raise SteerError(_no_room(model))
    new.load_state_dict(state, assign=True)
    new.tie_weights()
    new.generation_config = copy.deepcopy(hf.generation_config)
    return new, said


def _roomier(model: LensModel, lacking: list[str]) -> tuple[Any, type, str]:
    """A configuration with biases, the class that reads it, and what to say of both."""
    config: Any = copy.deepcopy(model.hf.config)
    kind: Any = type(model.hf)
    said = ""
    if config.model_type in _AS_LLAMA:
        config, kind = _as_llama(model), _llama()
        said = f"It is a Llama now, with biases: {model.hf.config.model_type} has no place for one where it is needed."
    for part in lacking:
        if not hasattr(config, SWITCHES[part]):
            raise SteerError(_no_room(model))
        setattr(config, SWITCHES[part], True)
    return config, kind, said or f"Its configuration has {' and '.join(SWITCHES[p] for p in lacking)} now."


def _llama() -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM


def _as_llama(model: LensModel) -> Any:
    from transformers import LlamaConfig

    old: Any = model.hf.config
    given = old.to_dict()
    slides = given.get("use_sliding_window", True) and given.get("sliding_window")
    if slides or set(given.get("layer_types") or []) - {"full_attention"}:
        raise SteerError(f"{model.name} attends through a sliding window, which a Llama does not. {_no_room(model)}")
    shared = LlamaConfig().to_dict().keys() & given.keys() - {"model_type", "architectures", "transformers_version"}
    config: Any = LlamaConfig(**{name: given[name] for name in shared})
    config.attention_bias = _AS_LLAMA[old.model_type]
    return config


def _refuse(model: LensModel) -> None:
    if model.editing:
        raise SteerError("An edit is in place: leave its with block, then bake.")
    config, parameters = model.hf.config, list(model.hf.parameters())
    quantised = getattr(config, "quantization_config", None) is not None
    if quantised or any(not p.is_floating_point() or hasattr(p, "__tensor_flatten__") for p in parameters):
        raise SteerError(f"{model.name} is quantised: load it in float32 or bfloat16, then bake.")
    if any(p.is_meta for p in parameters):
        raise SteerError(f"{model.name} is partly offloaded: load it without device_map, then bake.")
    if adapters(model.hf):
        raise SteerError(f"{model.name} has adapters: merge them (merge_and_unload), then bake.")


def _no_room(model: LensModel) -> str:
    return (
        f"{model.hf.config.model_type} has no bias that does exactly what steering does here, so it can't be baked "
        f"into {model.name}; it can into {CAN}. Export a control vector, or steer with affectlens.steering.steer."
    )
