"""GGUF files: weights and tokenizer, dequantised once into a safetensors folder that loads in a second.

The folder of a user's file is named by the file's SHA-256, so the same bytes are never dequantised twice, and a file
that changes under its name is another model.
"""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.errors import ModelError
from affectlens.paths import cache_dir, file_sha256, written_whole
from affectlens.progress import working

MANIFEST = "affectlens.json"
FORMAT = 1
_PLAIN = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Header:
    """What we read of a GGUF file ourselves."""

    kinds: tuple[str, ...]  # quantisation types of its tensors, most values first; the plain ones if there is no other
    adds_bos: bool | None  # whether it wants a BOS before each text; None if it doesn't say


def folder_of(path: Path) -> Path:
    """The folder in which a file's dequantised model is kept, there or not, named by the SHA-256 of its bytes."""
    return cache_dir() / "models" / f"gguf-{file_sha256(path)[:16]}-{FORMAT}"


def is_ready(home: Path) -> bool:
    """Whether a dequantised model is in the folder, whole."""
    return (home / MANIFEST).is_file()


def pull_file(path: Path, *, show: bool | None = None) -> tuple[Path, str]:
    """The folder of a ``.gguf`` file's dequantised model, made at the first call, and what to say of its weights.

    Raises:
        ModelError: if the file is not a readable GGUF file of an architecture that transformers knows.
    """
    with working(f"hashing {path.name}", show=show):
        home = folder_of(path)
    if not is_ready(home):
        with working(f"reading {path.name}", show=show):
            header = read_header(path)
        note = f"dequantised from {', '.join(header.kinds)}"
        unpack(path, home, header, {"source": path.name, "note": note}, show=show)
    return home, str(json.loads((home / MANIFEST).read_text(encoding="utf-8"))["note"])


def unpack(path: Path, home: Path, header: Header, manifest: dict[str, str], *, show: bool | None = None) -> None:
    """Dequantise ``path`` into the folder ``home``, whole or not at all, with ``manifest`` beside it.

    Raises:
        ModelError: if the file does not load.
    """
    shutil.rmtree(home, ignore_errors=True)  # without its manifest it is not ours, or not whole
    with working(f"dequantising {path.name} (once)", show=show), written_whole(home) as work:
        _dequantise(path, work, header)
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_header(path: Path) -> Header:
    """Quantisation types and the wish for a BOS, from the file's header.

    Raises:
        ModelError: if it is not a GGUF file, or damaged.
    """
    import gguf

    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise ModelError(f"{path.name} is not a GGUF file: it begins with {magic!r}, expected b'GGUF'.")
    try:
        reader = gguf.GGUFReader(path)
        field = reader.get_field(gguf.Keys.Tokenizer.ADD_BOS)
        adds_bos = None if field is None else bool(field.contents())
    except Exception as error:  # numpy, struct and enum errors, by where the damage is
        raise ModelError(_unreadable(path, error)) from None
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    kinds = [kind for kind, _ in sizes.most_common()]
    return Header(tuple(kind for kind in kinds if kind not in _PLAIN) or tuple(kinds), adds_bos)


def _dequantise(path: Path, home: Path, header: Header) -> None:
    import torch

    from affectlens.quiet import quiet_transformers

    with quiet_transformers():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        loader: Any = AutoModelForCausalLM
        try:
            raw, info = loader.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        except Exception as error:  # as above, and whatever transformers raises for an architecture it doesn't know
            raise ModelError(_unreadable(path, error)) from None
        if absent := sorted(info["missing_keys"]):
            raise ModelError(f"{path.name} is not complete: {len(absent)} tensors are missing, {absent[0]} among them.")
        if hasattr(raw.config, "quantization_config"):
            del raw.config.quantization_config  # transformers will not save what it believes is quantised
        with torch.device("meta"):
            plain = loader.from_config(raw.config)
        plain.load_state_dict(raw.state_dict(), assign=True)
        plain.tie_weights()
        plain.save_pretrained(home)
        if header.adds_bos is not None and tokenizer.bos_token_id is not None:
            begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
            if begins != header.adds_bos:
                tokenizer.add_bos_token = header.adds_bos
        tokenizer.save_pretrained(home)


def _unreadable(path: Path, error: Exception) -> str:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return (
        f"{path.name} is not a readable GGUF file ({said}). It may be damaged (fetch it again), or of an architecture "
        "that transformers does not read from GGUF (then give a folder with safetensors)."
    )
