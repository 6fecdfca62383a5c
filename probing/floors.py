"""Lexical floors: what a reader that sees only words, function words or surface marks scores under the same folds.

``tfidf``: word unigrams and bigrams, TF-IDF, logistic. ``function_words``: frequencies of a closed list.
``surface``: length, sentences, punctuation, type-token ratio. All learn from training rows alone and choose C in
the same inner folds.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer

from affectlens.probing.estimators import C_GRID_SMALL, C_GRID_SPARSE
from affectlens.probing.sweep import Features, Sweep, sweep
from affectlens.stimuli.lexical import function_word_rates, grams, surface_features

FLOORS = ("tfidf", "function_words", "surface")


def _tfidf(texts: Sequence[str]) -> Features:
    def features(train: Int[np.ndarray, " train"]) -> Float[np.ndarray, "item 1 d"]:
        maker = TfidfVectorizer(analyzer=cast(Any, grams), sublinear_tf=True)
        maker.fit([texts[i] for i in train])
        return np.asarray(maker.transform(texts).todense(), dtype=float)[:, None]

    return features


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
