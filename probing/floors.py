"""Lexical floors: what a reader that sees only words, function words or surface marks scores under the same folds.

``tfidf``: word unigrams and bigrams, TF-IDF, logistic. ``function_words``: frequencies of a closed list.
``surface``: length, sentences, punctuation, type-token ratio. All learn from training rows alone and choose their
penalty in the same inner folds.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer

from affectlens.probing.fits import C_GRID_SMALL, C_GRID_SPARSE
from affectlens.probing.sweep import Features, Part, Sweep, sweep
from affectlens.stimuli.auditing.readers import span
from affectlens.stimuli.lexical import function_word_rates, grams, surface_features

FLOORS = ("tfidf", "function_words", "surface")


def tfidf(texts: Sequence[str]) -> Features:
    """TF-IDF of all texts in the span of the training texts, which alone give the vocabulary."""

    def features(train: Int[np.ndarray, " train"]) -> Float[np.ndarray, "item 1 d"]:
        maker = TfidfVectorizer(analyzer=cast(Any, grams), sublinear_tf=True)
        seen = maker.fit_transform([texts[i] for i in train])
        return span(seen, maker.transform(texts))[1][:, None]

    return features


def floor(
    name: str, texts: Sequence[str], part: Part, *, tests: dict[str, Part] | None = None, seed: int = 0
) -> dict[str, Sweep]:
    """Score the floor ``name`` under the parts' folds, nested like the probes; ``texts`` are those of all rows."""
    main = (part.main,)
    if name == "tfidf":
        return sweep(tfidf(texts), part, tests=tests, grid=C_GRID_SPARSE, scale=False, methods=main, seed=seed)
    fixed = function_word_rates(texts) if name == "function_words" else surface_features(texts)
    return sweep(lambda _train: fixed, part, tests=tests, grid=C_GRID_SMALL, methods=main, seed=seed)
