"""What a user brings to an audit: bounds, sentiment lexicons, an encoder."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float

from affectlens.errors import BatteryError
from affectlens.stimuli.auditing.finding import Bounds
from affectlens.stimuli.auditing.reported import Encoder


def changed_bounds(bounds: Bounds, changes: Sequence[str]) -> Bounds:
    """Bounds with NAME=VALUE applied.

    >>> changed_bounds(Bounds(), ["words=0.8"]).words
    0.8

    Raises:
        BatteryError: a change that does not read as NAME=VALUE, or names no bound.
    """
    values = {}
    for change in changes:
        name, _, value = change.partition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError:
            raise BatteryError(f"--bound {change!r} is not NAME=VALUE with a number, for example words=0.8.") from None
    return bounds.with_(**values)


def read_lexicon(path: Path) -> dict[str, float]:
    """Word to score, from lines of a word and a number with a tab or a comma between; a heading line is passed over.

    Raises:
        BatteryError: if no line reads so, or a word has two scores.
    """
    out: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        fields = [part.strip().strip('"') for part in (line.split("\t") if "\t" in line else line.split(","))]
        numbers = [number for part in fields if (number := _number(part)) is not None]
        word = next((part.lower() for part in fields if part and _number(part) is None), None)
        if word is None or not numbers:
            continue
        score = numbers[1] if _number(fields[0]) is not None and len(numbers) > 1 else numbers[0]  # after a row number
        if out.get(word, score) != score:
            raise BatteryError(f"{path.name} gives {word!r} two scores: one line a word is expected.")
        out[word] = score
    if not out:
        raise BatteryError(f"{path.name} holds no line with a word and a number, separated by a tab or a comma.")
    return out


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def find_encoder(name: str) -> Encoder:
    """The encoder ``wordllama`` (bundled vectors), or a sentence-transformers model by folder or name.

    Raises:
        BatteryError: if the package that it needs is not installed.
    """
    package = "wordllama" if name == "wordllama" else "sentence_transformers"
    if find_spec(package) is None:
        raise BatteryError(f"--encoder {name} needs {package}: pip install {package.replace('_', '-')}.")
    if name == "wordllama":
        import wordllama

        home = Path(wordllama.__file__).parent  # the wheel's files, which it does not find by itself
        model = wordllama.WordLlama.load(dim=256, cache_dir=home, disable_download=True)

        def embed(texts: Sequence[str]) -> Float[np.ndarray, "text d"]:
            return np.asarray(model.embed(list(texts)), dtype=float)

        return embed
    from sentence_transformers import SentenceTransformer

    transformer = SentenceTransformer(name)

    def encode(texts: Sequence[str]) -> Float[np.ndarray, "text d"]:
        return np.asarray(transformer.encode(list(texts), show_progress_bar=False), dtype=float)

    return encode
