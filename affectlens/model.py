"""``load_model``: a name, a folder, or a model in memory becomes a :class:`LensModel` that passed its load check."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from affectlens import loading
from affectlens.errors import ModelError
from affectlens.fingerprint import adapters, fingerprint_of

if TYPE_CHECKING:
    from affectlens.model_sites import ModelSites


class LensModel:
    """A causal language model with its tokenizer, and what interpretability needs to know of both.

    Weights are immutable after load: to study an edited model, load it anew.

    Attributes:
        hf: the plain Hugging Face model, in eval mode, without gradients.
        tokenizer: its fast tokenizer.
        name: what the user asked for.
        source: where the weights came from, with anything a report must say of them.
        blocks: the transformer blocks, first to last.
        n_layers, d_model, n_heads, n_ctx: the model's sizes; ``n_ctx`` in tokens.
    """

    def __init__(self, hf: Any, tokenizer: Any, *, name: str, source: str, revision: str | None = None) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(f"{name} has no fast tokenizer, which AffectLens needs to place words in the text.")
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.source = source
        self.revision = revision
        config = hf.config.get_text_config()
        self.n_layers = int(config.num_hidden_layers)
        self.d_model = int(config.hidden_size)
        self.n_heads = int(getattr(config, "num_attention_heads", 0) or 0)  # 0: a model without attention
        self.n_ctx = int(getattr(config, "max_position_embeddings", 0)) or 2**31
        self.blocks = _find_blocks(hf, self.n_layers, name)
        self.lock = threading.RLock()  # two threads' hooks would see each other's passes
        self.editing = 0  # how many edits are in place; while there are any, nothing goes into or comes from the store

    @property
    def body(self) -> Any:
        """The decoder without its language-model head."""
        return self.hf.base_model

    @property
    def device(self) -> torch.device:
        """Where token ids go in: the device of the embedding, or the one it computes on if it is offloaded."""
        embedding = self.hf.get_input_embeddings()
        if embedding.weight.is_meta:
            return torch.device(embedding._hf_hook.execution_device)
        place: torch.device = embedding.weight.device
        return place

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the embedding, and so of the residual stream, also where weights are quantised."""
        found: torch.dtype = self.hf.get_input_embeddings().weight.dtype
        return found

    @contextmanager
    def edited(self) -> Iterator[None]:
        """While an edit is in place: nothing goes into the store or comes from it."""
        self.editing += 1
        try:
            yield
        finally:
            self.editing -= 1

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights, configuration, tokenizer, revision, dtype, and which adapters are on; 32 hex digits."""
        state = adapters(self.hf)
        return hashlib.sha256((self._weights + state).encode()).hexdigest()[:32] if state else self._weights

    @cached_property
    def _weights(self) -> str:
        return fingerprint_of(self.hf, self.tokenizer, dtype=self.dtype, revision=self.revision)

    @cached_property
    def sites(self) -> "ModelSites":
        """The sites of this model, found by running it once: ``print(model.sites)`` lists them."""
        from affectlens.model_sites import ModelSites

        return ModelSites(self)

    @cached_property
    def bridge(self) -> Any:
        """The same parameters as a transformer-lens bridge: heads, patterns, neurons. Built on first use, checked."""
        from affectlens.bridge import build

        if any(hasattr(module, "_hf_hook") for module in self.hf.modules()):
            raise ModelError(
                f"A bridge needs all weights in one place, and device_map has spread those of {self.name}: load it "
                "without device_map, in bfloat16 if memory is short."
            )
        return build(self)

    def __repr__(self) -> str:
        return (
            f"LensModel({self.name}: {self.n_layers} layers, d_model {self.d_model}, {self.n_heads} heads, "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device}; {self.source})"
        )


def load_model(
    name: str | Path | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    device: str | None = None,
    device_map: loading.DeviceMap | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    check: bool = True,
    progress: bool | None = None,
) -> LensModel:
    """Load a causal language model by name, or wrap one that is in memory.

    Args:
        name: a catalogue name (``smollm2-135m`` needs no hub), a Hugging Face id, a folder, or a ``.gguf`` file, which
            is dequantised once into the cache folder.
        model: a Hugging Face causal language model already loaded, given with its ``tokenizer``; quantised ones and
            PEFT models with LoRA too. It is put into eval mode, and its parameters stop requiring gradients.
        tokenizer: the tokenizer of ``model``.
        device: ``cpu``, ``cuda``, ``cuda:1``; CUDA where there is one by default.
        device_map: ``auto``, or a dict from parts of the model to devices (``cpu`` and ``disk`` too), for a model that
            is larger than one device.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        revision: a branch, tag or commit on the hub.
        check: run the load check (:func:`affectlens.check.check_model`); it takes a few short forward passes.
        progress: show a spinner; by default where a person is looking.

    Raises:
        ModelError: if the model cannot be found, fetched or read, its terms are not accepted, or it fails its check.
    """
    if model is not None:
        if tokenizer is None or name is not None:
            raise ModelError("Give load_model either a name, or both model= and tokenizer=.")
        if device is not None or device_map is not None or revision is not None or dtype != "float32":
            raise ModelError("A model in memory has its device, dtype and revision already: give it without them.")
        plain = loading.unwrap(model)
        loaded = LensModel(plain, tokenizer, name=type(plain).__name__, source="a model in memory")
    else:
        if name is None:
            raise ModelError("Give load_model a name, for example smollm2-135m, or model= and tokenizer=.")
        place = loading.where(dtype, device, device_map)
        found = loading.find(str(name), revision, show=progress)
        hf, tokens = loading.read(str(name), found, place, show=progress)
        loaded = LensModel(hf, tokens, name=str(name), source=found.source, revision=found.revision)
    if check:
        from affectlens.check import check_model

        _check_bos(loaded)
        check_model(loaded)
    return loaded


def _check_bos(model: LensModel) -> None:
    """Refuse a tokenizer that leaves out the BOS that it says it adds, or that every Gemma was trained with."""
    tokenizer = model.tokenizer
    wanted = getattr(tokenizer, "add_bos_token", False) or str(model.hf.config.model_type).startswith("gemma")
    bos = tokenizer.bos_token_id
    if wanted and (bos is None or tokenizer("a").input_ids[:1] != [bos]):
        raise ModelError(
            f"{model.name} needs a BOS token before each text, and its tokenizer does not add one: without it the "
            "activations are not those that the model was trained with. Set tokenizer.add_bos_token = True and give "
            "load_model the model and the tokenizer, or save the tokenizer so."
        )


def _find_blocks(hf: Any, n_layers: int, name: str) -> nn.ModuleList:
    found = [m for m in hf.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    if not found:
        raise ModelError(f"{name} ({type(hf).__name__}) has no list of {n_layers} blocks that AffectLens can hook.")
    return found[0]
