"""What words alone predict of activations, on groups that the prediction has not seen."""

from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer

from affectlens.errors import SteerError
from affectlens.steering.extracting.contrasts import Contrast
from affectlens.stimuli.lexical import words

PENALTIES = (0.1, 1.0, 10.0)  # of the regression on words, whose rows have length one
FOLDS = 5


def predicted(
    x: Float[np.ndarray, "item layer d"], asked: Contrast, *, seed: int = 0
) -> Float[np.ndarray, "item layer d"]:
    """What words predict of the activations: kernel ridge on TF-IDF, each item by folds without its ``keys``.

    Args:
        x: the activations of the contrast's items.
        asked: the contrast.
        seed: of the dealing of keys into folds.

    Returns:
        Deviations from the training items' mean, at the penalty with the least squared error over all items.
    """
    fold = dealt(asked.keys, FOLDS, seed)
    flat = x.reshape(len(x), -1)
    guesses = np.zeros((len(PENALTIES), *flat.shape))
    errors = np.zeros(len(PENALTIES))
    for held in np.unique(fold):
        seen, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        maker = TfidfVectorizer(analyzer=cast(Any, words), sublinear_tf=True)
        rows = maker.fit_transform([asked.texts[i] for i in seen])
        across = (maker.transform([asked.texts[i] for i in test]) @ rows.T).toarray()
        centre = flat[seen].mean(0)
        sizes, turn = np.linalg.eigh((rows @ rows.T).toarray())
        aims = turn.T @ (flat[seen] - centre)
        for i, penalty in enumerate(PENALTIES):
            guesses[i][test] = across @ (turn @ (aims / (sizes + penalty)[:, None]))
            errors[i] += ((flat[test] - centre - guesses[i][test]) ** 2).sum()
    return guesses[int(errors.argmin())].reshape(x.shape)


def dealt(keys: Int[np.ndarray, " item"], most: int, seed: int) -> Int[np.ndarray, " item"]:
    """Whole keys into at most so many folds, evenly by number.

    Raises:
        SteerError: fewer than two keys.
    """
    names, codes = np.unique(keys, return_inverse=True)
    if len(names) < 2:
        raise SteerError(
            "There is one group only: what words predict can't be held apart from what they were fitted on."
        )
    return (np.random.default_rng(seed).permutation(len(names)) % min(most, len(names)))[codes]
