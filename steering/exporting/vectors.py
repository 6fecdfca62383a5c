"""Control vectors as GGUF: the format of llama.cpp, which repeng and EasySteer read and write too.

``general.architecture`` is ``controlvector``; each layer's vector is a tensor ``direction.N`` of ``d_model`` float32.
``N`` counts blocks from 0, and the vector is added to the stream as it leaves block ``N``: it is our ``LN.resid_post``
in all three. llama.cpp's loader puts ``direction.N`` at row ``N - 1`` of its table and block ``il`` reads row
``il - 1``, so block 0 has no row; the other two take it. Each reader ignores the keys that it does not know.

llama.cpp: ``common_control_vector_load`` and ``llama_adapter_cvec``; repeng 0.4: ``ControlVector.import_gguf``;
EasySteer: ``StatisticalControlVector.import_gguf``, and its engine's reader of ``direction.N``.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.paths import file_sha256, replacing

ARCHITECTURE = "controlvector"
PROVENANCE = "affectlens.provenance"
_METHOD = f"{ARCHITECTURE}.method"
_EASYSTEER = f"{ARCHITECTURE}.easysteer"
Vectors = dict[int, Float[np.ndarray, " d_model"]]


def write_vectors(path: Path, vectors: Vectors, *, to: str, hint: str, method: str, provenance: str) -> Path:
    """Write a control vector, under a temporary name first.

    Args:
        path: the file, ``.gguf``.
        vectors: by layer, what is added.
        to: ``gguf``, ``repeng`` or ``easysteer``.
        hint: the kind of model, such as ``llama``.
        method: how the directions were found.
        provenance: JSON that :func:`read_vectors` gives back.

    Raises:
        SteerError: another ending, or a vector at layer 0 for llama.cpp.
    """
    if path.suffix.lower() != ".gguf":
        raise SteerError(f"{path.name} is a control vector for {to}: give it a name that ends in .gguf.")
    if to == "gguf" and 0 in vectors:
        raise SteerError(
            "llama.cpp has no control vector for layer 0: leave its directions out, or bake it into a checkpoint "
            '(to="checkpoint").'
        )
    with replacing(path) as work:
        writer = gguf.GGUFWriter(work, ARCHITECTURE)
        try:
            writer.add_string(f"{ARCHITECTURE}.model_hint", hint)
            writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
            if to == "easysteer":
                writer.add_string(_METHOD, method)
                writer.add_string(
                    _EASYSTEER, json.dumps({"version": 1, "component": "hidden_states", "metadata": None})
                )
            writer.add_string(PROVENANCE, provenance)
            for layer, vector in sorted(vectors.items()):
                writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(vector, dtype=np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    return path


def read_vectors(path: Path) -> tuple[Vectors, dict[str, str]]:
    """The vectors of a control vector by layer, in float32, and what the file says of itself.

    Returns:
        The vectors, and the texts ``model_hint``, ``method``, ``provenance`` (each may be empty) and ``sha256``.

    Raises:
        SteerError: a file that is not a control vector, is damaged, or has no vector or a wrong one.
    """
    if not path.is_file():
        raise SteerError(f"There is no file {path}: give a control vector, a file that ends in .gguf.")
    try:
        reader = gguf.GGUFReader(path)
        kind = _text(reader, "general.architecture")
        found = {t.name: _plain(t) for t in reader.tensors}
        said = {
            "model_hint": _text(reader, f"{ARCHITECTURE}.model_hint"), "method": _text(reader, _METHOD),
            "provenance": _text(reader, PROVENANCE), "sha256": file_sha256(path),
        }  # fmt: skip
    except Exception as error:  # numpy, struct and enum errors, by where the damage is
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SteerError(f"{path.name} is not a readable GGUF file ({first}).") from None
    named = {name: values for name, values in found.items() if name.startswith("direction.")}
    if kind != ARCHITECTURE or not named:
        raise SteerError(
            f"{path.name} is no control vector: its architecture is {kind!r} with {len(named)} tensors direction.N, "
            f"and {ARCHITECTURE!r} with at least one was expected."
        )
    return {_layer(path, name): _checked(path, name, values) for name, values in named.items()}, said


def _plain(tensor: gguf.ReaderTensor) -> np.ndarray:
    """A tensor's values, whatever type they are kept in."""
    kept = tensor.data
    return kept if kept.dtype.kind == "f" else gguf.quants.dequantize(kept, tensor.tensor_type)


def _text(reader: gguf.GGUFReader, key: str) -> str:
    field = reader.get_field(key)
    return "" if field is None else str(field.contents())


def _layer(path: Path, name: str) -> int:
    number = name.removeprefix("direction.")
    if not number.isdecimal():
        raise SteerError(f"{path.name} has a tensor {name!r}; direction. must be followed by a layer, such as 12.")
    return int(number)


def _checked(path: Path, name: str, values: np.ndarray) -> Float[np.ndarray, " d_model"]:
    vector = np.array(values, dtype=np.float32).reshape(-1)
    if vector.size != values.shape[-1] or not np.isfinite(vector).all():
        raise SteerError(f"{name} in {path.name} is {list(values.shape)}: one row of finite numbers was expected.")
    return vector
