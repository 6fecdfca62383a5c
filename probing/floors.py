"""Lexical floors: what a reader that sees only words, function words or surface marks scores under the same folds.

``tfidf``: word unigrams and bigrams, TF-IDF, logistic. ``function_words``: frequencies of a closed list.
``surface``: length, sentences, punctuation, type-token ratio. All learn from training rows alone and choose C in
the same inner folds.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer

from affectlens.probing.estimators import C_GRID_SMALL, C_GRID_SPARSE
from affectlens.probing.sweep import Features, Sweep, sweep

FLOORS = ("tfidf", "function_words", "surface")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
FUNCTION_WORDS = (
    "a about above across after again against all almost along already also although always am among an and "
    "another any anybody anyone anything are around as at away back be because been before behind being below "
    "beside between beyond both but by can cannot could did do does down during each either else enough even "
    "ever every everybody everyone everything few for from had has have he her here hers herself him himself "
    "his how i if in inside instead into is it its itself just last least less like many may me might mine "
    "more most much must my myself near neither never next no nobody none nor not nothing now of off often on "
    "once one only onto or other our out outside over own past per quite rather round same several shall she "
    "should since so some somebody someone something still such than that the their theirs them themselves "
    "then there these they this those though through till to together too towards under until up upon us very "
    "was we were what when where whether which while who whoever whom whose why will with within without would "
    "yet you your"
).split()


def words(text: str) -> list[str]:
    """Lower-cased words; an apostrophe joins.

    >>> words("She hadn't gone.")
    ['she', "hadn't", 'gone']
    """
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def function_word_rates(texts: Sequence[str]) -> Float[np.ndarray, "item 1 d"]:
    """The rate of each function word and of words ending in n't, per word of the text."""
    index = {word: i for i, word in enumerate(FUNCTION_WORDS)}
    out = np.zeros((len(texts), 1, len(index) + 1))
    for row, text in enumerate(texts):
        found = words(text)
        for word in found:
            place = len(index) if word.endswith("n't") else index.get(word)
            if place is not None:
                out[row, 0, place] += 1 / len(found)
    return out


def surface_features(texts: Sequence[str]) -> Float[np.ndarray, "item 1 d"]:
    """Characters, words, sentences, words a sentence, letters a word, type-token ratio, capitals, and six marks."""
    rows = []
    for text in texts:
        found, sentences = words(text) or [""], max(1, len(re.findall(r"[.?!]+", text)))
        marks = [text.count(mark) for mark in (",", ";", ":", "-", '"', "'")]
        rows.append([
            len(text), len(found), sentences, len(found) / sentences, sum(map(len, found)) / len(found),
            len(set(found)) / len(found), sum(c.isupper() for c in text), *marks,
        ])  # fmt: skip
    return np.array(rows, dtype=float)[:, None]


def _tfidf(texts: Sequence[str]) -> Features:
    def features(train: Int[np.ndarray, " train"]) -> Float[np.ndarray, "item 1 d"]:
        maker = TfidfVectorizer(analyzer=cast(Any, _grams), sublinear_tf=True)
        maker.fit([texts[i] for i in train])
        return np.asarray(maker.transform(texts).todense(), dtype=float)[:, None]

    return features


def _grams(text: str) -> list[str]:
    found = words(text)
    return found + [f"{a} {b}" for a, b in pairwise(found)]


def floor(
    name: str,
    texts: Sequence[str],
    y: Int[np.ndarray, " item"],
    n_classes: int,
    groups: Int[np.ndarray, " item"],
    folds: Int[np.ndarray, " item"],
    *,
    seed: int = 0,
) -> Sweep:
    """Score the floor ``name`` under the given folds, nested like the probes."""
    if name == "tfidf":
        return sweep(_tfidf(texts), y, n_classes, groups, folds, grid=C_GRID_SPARSE, scale=False, seed=seed)
    fixed = function_word_rates(texts) if name == "function_words" else surface_features(texts)
    return sweep(lambda _train: fixed, y, n_classes, groups, folds, grid=C_GRID_SMALL, seed=seed)
