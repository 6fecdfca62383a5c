"""Emotion words in carrier sentences: enough points to tell a circle from a line.

This is the geometry of emotion *words*, not of evoked emotion: each text names a word and nothing happens in it. The
words are the 115 of the Glasgow Norms extract. The carriers speak of the word as a word and stop right after it. What a
carrier adds to every word is removed; what is left is averaged over carriers.

Whether a word is a noun or an adjective is a strong direction in a language model, and it takes one of the first two
components if both are there. So analyses keep the nouns (91 of the 115) unless told otherwise, which also leaves few
words of one stem, such as sad and sadness.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from affectlens.errors import BatteryError, CaptureError
from affectlens.probing.geometry.directions import About, Directions
from affectlens.stimuli.norms import norms
from affectlens.store import Activations

CARRIERS = (
    "The next word on the list is {}",
    "She drew a line under a single word: {}",
    "He turned the card over and read {}",
    "The answer to the last clue was {}",
    "Somebody had written in the margin {}",
    "In one word, the letter was about feeling {}",
)
POSITION = "ending"  # each item's ending is its word
NO_NOUNS = frozenset(
    "admire afraid alert angry ashamed astonished bored calm content delighted depressed disgusted excited furious "
    "grateful happy jealous lonely nervous proud sad scared serene tired".split()
)


@dataclass(frozen=True)
class Terms:
    """Words in carriers: a table that :func:`affectlens.capture` takes, best at position ``ending`` or ``last``."""

    words: tuple[str, ...]
    carriers: tuple[str, ...] = CARRIERS
    name: str = "terms"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps([self.words, self.carriers]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.words) * len(self.carriers)

    def frame(self) -> pd.DataFrame:
        """Columns ``id, text, ending`` (where the word begins, in characters), ``split, word, carrier``."""
        rows = [(f"{word}.{k}", carrier.format(word), carrier.index("{}"), "terms", word, k)
                for word in self.words for k, carrier in enumerate(self.carriers)]  # fmt: skip
        return pd.DataFrame(rows, columns=["id", "text", "ending", "split", "word", "carrier"])

    def __repr__(self) -> str:
        return (
            f"Terms({len(self.words)} words in {len(self.carriers)} carriers, such as {self.frame()['text'].iloc[0]!r})"
        )


def terms(words: Iterable[str] | None = None, *, carriers: Sequence[str] = CARRIERS) -> Terms:
    """Words of emotion in carrier sentences; by default the 115 that have norms.

    >>> terms(["joy", "grief"]).frame()["text"].iloc[0]
    'The next word on the list is joy'

    Args:
        words: the words; give :func:`affectlens.probing.geometry.geometry` norms of your own if they are not in ours.
        carriers: texts that end in ``{}``, at least two, so that a word can be told from its frame.

    Raises:
        BatteryError: a carrier that does not end in ``{}``, fewer than two, no words, or a word that comes twice.
    """
    chosen = tuple(norms() if words is None else words)
    if len(carriers) < 2 or any(c.count("{}") != 1 or not c.endswith(" {}") for c in carriers):
        raise BatteryError("Carriers are two texts or more that each end in a space and {}, where the word goes.")
    if not chosen or len(set(chosen)) < len(chosen):
        raise BatteryError("Terms need at least one word, and each word once.")
    return Terms(chosen, tuple(carriers))


def word_means(
    acts: Activations, *, position: str | None = None, site: str | None = None, nouns_only: bool = True
) -> Directions:
    """One direction per word at every layer: its mean over carriers, each carrier's own mean removed.

    Args:
        acts: of :func:`terms`.
        position: the first captured by default; ``ending`` is the word's tokens, ``last`` its last token.
        site: a name without its layer; the first captured by default.
        nouns_only: leave out the adjectives and the verb of our list; words of your own are kept.

    Raises:
        CaptureError: these are not activations of terms, or a word lacks a carrier.
    """
    if not {"word", "carrier"} <= set(acts.items.columns):
        raise CaptureError("These are not activations of terms: capture(model, terms(), positions='ending').")
    kept = ~acts.items["word"].isin(NO_NOUNS).to_numpy() if nouns_only else np.ones(len(acts), dtype=bool)
    items, values = acts.items[kept], acts.at(position, site)[kept]
    words, carriers = tuple(items["word"].unique()), sorted(items["carrier"].unique())
    at = {(w, c): k for k, (w, c) in enumerate(zip(items["word"], items["carrier"], strict=True))}
    if len(at) != len(words) * len(carriers) or len(words) < 3:
        raise CaptureError("Terms need at least three words, each in every carrier: capture the whole table.")
    rows = np.array([[at[w, c] for c in carriers] for w in words])
    cube = values[rows].astype(np.float64)  # word carrier layer d
    cube = cube - cube.mean(0, keepdims=True)
    flat = np.ascontiguousarray(np.moveaxis(cube, 2, 0)).reshape(cube.shape[2], -1, cube.shape[-1])
    what = str(site or acts.site)
    about: About = {"model": acts.model, "battery": acts.battery, "site": what, "carriers": len(carriers),
                    "position": str(position or acts.positions[0]), "d": int(values.shape[-1])}  # fmt: skip
    table = pd.DataFrame({"name": [word for word in words for _ in carriers]})
    return Directions("words", words, acts.layers[what], flat, table, about)
