"""What a model needs in memory, for its weights and for capturing a battery, before any weight is fetched or loaded.

Parameters are counted on the meta device, from ``config.json`` alone. The estimate of the peak was fitted to two models
in float32 on a processor (135M and 270M parameters), where it is within a tenth of the measured one. Pages of the
weights' file that are mapped while it is converted are not in it: the system takes them back when memory is short.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens import catalog, embedded, ggufs, hub, terms
from affectlens.errors import ModelError
from affectlens.quiet import quiet_transformers
from affectlens.types import Json, TextTable

GIB = 2**30
LIBRARIES = int(0.45 * GIB)  # Python with torch, transformers and ours, loaded and at work
TOKENIZER = 1600  # bytes for each entry of its vocabulary
POSITIONS = 2  # as capture pools by default
WORDS_TO_TOKENS = 1.3  # English prose under common tokenizers


@dataclass(frozen=True)
class Size:
    """The sizes that memory depends on, from a configuration."""

    parameters: int
    layers: int
    d_model: int
    d_mlp: int
    heads: int
    vocabulary: int


def needs(model: str, battery: TextTable, *, positions: int = POSITIONS) -> Json:
    """What ``model`` and the capture of ``battery`` take, as named facts in GiB, and whether that fits here.

    Args:
        model: a name that :func:`affectlens.load_model` takes; of a hub model only ``config.json`` is fetched.
        battery: the texts.
        positions: how many pooled vectors are kept of each text and layer.

    Returns:
        Facts by name; ``verdict`` is a sentence. If the size cannot be known yet, ``note`` says why, alone.

    Raises:
        ModelError: nothing goes by that name, or its configuration is of no causal language model.
    """
    found = catalog.resolve(model)
    try:
        place = _described(found)
    except ModelError as error:
        return {"note": f"The size is not known: {error}"}
    size = measure(place)
    texts = [str(text) for text in battery.frame()["text"]]
    lengths, counted = _lengths(texts, place if place.is_dir() else None)
    output = len(texts) * size.layers * size.d_model * positions * 4
    peaks = {wide: peak(size, wide, max(lengths, default=0), output) for wide in (4, 2)}
    return {
        "parameters (millions)": round(size.parameters / 1e6, 1),
        "layers": size.layers,
        "d_model": size.d_model,
        "weights, float32 (GiB)": round(size.parameters * 4 / GIB, 2),
        "weights, bfloat16 (GiB)": round(size.parameters * 2 / GIB, 2),
        "items": len(texts),
        f"tokens ({'counted' if counted else 'about, from words'})": sum(lengths),
        "longest text (tokens)": max(lengths, default=0),
        f"activations kept, {positions} positions (GiB)": round(output / GIB, 3),
        "peak, float32 (GiB)": round(peaks[4] / GIB, 2),
        "peak, bfloat16 (GiB)": round(peaks[2] / GIB, 2),
        "verdict": verdict(peaks[4], peaks[2], free_memory()),
    }


def measure(path: Path) -> Size:
    """The sizes of a model from ``config.json`` in a folder, or from the header of a GGUF file; no weights are read.

    Raises:
        ModelError: if the configuration does not read, or is of no causal language model.
    """
    import torch

    folder, given = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    try:
        with quiet_transformers(), torch.device("meta"):
            from transformers import AutoConfig, AutoModelForCausalLM

            config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, **given)
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            empty: Any = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises a dozen kinds here
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} has no configuration of a causal language model: {said}") from None
    text = config.get_text_config()
    d_model = int(text.hidden_size)
    return Size(
        sum(p.numel() for p in empty.parameters()), int(text.num_hidden_layers), d_model,
        int(getattr(text, "intermediate_size", None) or 4 * d_model), int(text.num_attention_heads),
        int(text.vocab_size),
    )  # fmt: skip


def peak(size: Size, wide: int, longest: int, output: int) -> int:
    """The largest memory in bytes while a battery is captured on a processor.

    Args:
        size: the model's.
        wide: bytes a value, 4 for float32 and 2 for half precisions.
        longest: tokens of the longest text.
        output: bytes of what is kept.
    """
    from affectlens.capturing import TOKEN_BUDGET

    a_token = 8 * size.d_model + 3 * size.d_mlp + size.heads * longest
    batch = TOKEN_BUDGET * a_token * wide
    return LIBRARIES + TOKENIZER * size.vocabulary + size.parameters * wide + batch + output


def free_memory() -> tuple[int, str]:
    """Free bytes where a model would go by default, and what that place is called."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0]), torch.cuda.get_device_name()
    return int(psutil.virtual_memory().available), "this machine"


def verdict(single: int, half: int, free: tuple[int, str]) -> str:
    """Whether it fits, in a sentence.

    >>> verdict(2 * GIB, GIB, (8 * GIB, "this machine"))
    'fits: float32 takes 2.0 GiB of the 8.0 GiB free on this machine'
    >>> verdict(9 * GIB, 5 * GIB, (8 * GIB, "this machine"))
    'does not fit in float32 (9.0 of 8.0 GiB free on this machine): try --dtype bfloat16, which takes 5.0 GiB'
    """
    room, place = free
    of = f"{room / GIB:.1f} GiB free on {place}"
    if single <= room:
        return f"fits: float32 takes {single / GIB:.1f} GiB of the {of}"
    told = f"does not fit in float32 ({single / GIB:.1f} of {of})"
    if half <= room:
        return f"{told}: try --dtype bfloat16, which takes {half / GIB:.1f} GiB"
    return (
        f'{told}, nor in bfloat16 ({half / GIB:.1f} GiB): try load_model(..., device_map="auto"), which spreads it '
        "over all GPUs, memory and disk, or a smaller model"
    )


def _described(found: catalog.Entry | Path) -> Path:
    if isinstance(found, Path):
        if found.is_dir():
            return found
        made = ggufs.folder_of(found)
        return made if ggufs.is_ready(made) else found
    if isinstance(found.source, str):
        return hub.fetch_config(found.source)
    terms.require(found)
    if not embedded.is_ready(found):
        raise ModelError(f"{found.name} ({found.parameters} parameters) is not here yet: affectlens models pull "
                         f"{found.name}")  # fmt: skip
    return embedded.folder_of(found)


def _lengths(texts: list[str], folder: Path | None) -> tuple[list[int], bool]:
    """Tokens of each text, and whether they were counted with the tokenizer or guessed from the words."""
    if folder and (folder / "tokenizer.json").is_file():
        from transformers import AutoTokenizer

        try:
            with quiet_transformers():
                tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                return [len(ids) for ids in tokenizer(texts).input_ids], True
        except (OSError, ValueError, KeyError):
            pass
    return [round(len(text.split()) * WORDS_TO_TOKENS) for text in texts], False
