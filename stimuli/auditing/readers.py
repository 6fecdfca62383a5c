"""Readers without a model: naive Bayes, TF-IDF, function words, surface marks, each tested on what it has not seen.

``held_out`` trains on all folds but one and scores the one. A reader's own strength (C) is chosen in inner folds of the
training part that keep the same groups whole, so that the floor is as high as these readers honestly get.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from affectlens.stimuli.lexical import FUNCTION_WORDS, function_word_rates, grams, surface_features, words

Texts = Sequence[str]
READERS = ("naive_bayes", "tfidf", "function_counts", "function_rates", "surface")
GRIDS = {"tfidf": (1.0, 10.0, 100.0), "function_rates": (0.01, 0.1, 1.0), "surface": (0.01, 0.1, 1.0)}
INNER = 3
_words, _grams = (lru_cache(maxsize=8192)(analyse) for analyse in (words, grams))  # the same texts in every fold


def held_out(
    reader: str, texts: Texts, y: Int[np.ndarray, " item"], folds: Int[np.ndarray, " item"], n_classes: int
) -> Float[np.ndarray, "item k"]:
    """Log-odds (two classes) or log-probabilities of each item from a reader that was not trained on its fold."""
    out = np.full((len(y), 1 if n_classes == 2 else n_classes), -30.0)
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        seen, unseen = _inputs(reader, [texts[int(i)] for i in train], [texts[int(i)] for i in test])
        model = _fitted(reader, seen, y[train], folds[train])
        with np.errstate(divide="ignore"):
            scores = np.maximum(model.predict_log_proba(unseen), -1e6)
        if n_classes == 2:
            out[test, 0] = scores[:, 1] - scores[:, 0]
        else:
            out[np.ix_(test, model.classes_)] = scores
    return out


def tfidf(c: float = 10.0) -> Pipeline:
    """Logistic regression on TF-IDF of words and word pairs, its strength fixed."""
    return make_pipeline(TfidfVectorizer(analyzer=_grams, sublinear_tf=True), logistic(c))


def products(contexts: Texts, endings: Texts) -> sparse.csr_matrix:
    """Which word or word pair of the context meets which of the ending: one column each, rows of unit length.

    Word pairs too, because two contexts, or two endings, may hold the same words in another order.
    """
    index: dict[tuple[str, str], int] = {}
    rows, columns = [], []
    for row, (context, ending) in enumerate(zip(contexts, endings, strict=True)):
        for a in set(grams(context)):
            for b in set(grams(ending)):
                rows.append(row)
                columns.append(index.setdefault((a, b), len(index)))
    out = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(contexts), len(index)))
    size = np.sqrt(np.maximum(np.asarray(out.multiply(out).sum(1)).ravel(), 1.0))
    return sparse.csr_matrix(sparse.diags(1 / size) @ out)


def logistic_held_out(
    x: Any, y: Int[np.ndarray, " item"], folds: Int[np.ndarray, " item"], c: float = 100.0
) -> Float[np.ndarray, " item"]:
    """Held-out log-odds of a logistic reader; sparse inputs go in their span, where slopes can be followed."""
    out = np.zeros(len(y))
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        seen, unseen = span(x[train], x[test]) if sparse.issparse(x) else (x[train], x[test])
        out[test] = logistic(c).fit(seen, y[train]).decision_function(unseen)
    return out


def span(seen: sparse.csr_matrix, unseen: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Both in a basis of the rows of ``seen``, where a penalised linear fit has its optimum: exact, and small."""
    size, basis = np.linalg.eigh((seen @ seen.T).toarray())
    keep = size > 1e-10 * size[-1]
    root = np.sqrt(size[keep])
    return basis[:, keep] * root, (unseen @ seen.T).toarray() @ basis[:, keep] / root


def logistic(c: float) -> LogisticRegression:
    """Logistic regression with penalty 1 / C."""
    return LogisticRegression(C=c, max_iter=2000)


def _inputs(reader: str, seen: Texts, unseen: Texts) -> tuple[Any, Any]:
    """What a reader is given of training and held-out texts, learnt from the training texts alone."""
    if reader == "naive_bayes":
        maker = CountVectorizer(analyzer=_words, binary=True)
        return maker.fit_transform(seen), maker.transform(unseen)
    if reader == "function_counts":
        maker = CountVectorizer(analyzer=_words, vocabulary=sorted(set(FUNCTION_WORDS)))
        return maker.transform(seen), maker.transform(unseen)
    if reader == "tfidf":
        maker = TfidfVectorizer(analyzer=_grams, sublinear_tf=True)
        return span(maker.fit_transform(seen), maker.transform(unseen))
    make = _function_words if reader == "function_rates" else _surface
    scaler = StandardScaler().fit(np.array([make(t) for t in seen]))
    return scaler.transform(np.array([make(t) for t in seen])), scaler.transform(np.array([make(t) for t in unseen]))


def _fitted(reader: str, x: Any, y: Int[np.ndarray, " item"], folds: Int[np.ndarray, " item"]) -> Any:
    """Naive Bayes, or logistic regression whose C is chosen in inner folds that keep each of ``folds`` whole."""
    if reader not in GRIDS:
        return MultinomialNB().fit(x, y)
    n = min(INNER, len(np.unique(folds)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        inner = list(GroupKFold(n).split(y, y, folds)) if n > 1 else []
        if not inner or any(len(np.unique(y[train])) < 2 for train, _ in inner):
            return logistic(GRIDS[reader][1]).fit(x, y)
        return GridSearchCV(logistic(1.0), {"C": list(GRIDS[reader])}, scoring=_log_likelihood, cv=inner).fit(x, y)


def _log_likelihood(model: Any, x: Any, y: Int[np.ndarray, " item"]) -> float:
    """The mean log-probability of the true class; a class that the training part lacks counts as all but impossible."""
    found = model.predict_log_proba(x)
    place = {int(k): column for column, k in enumerate(model.classes_)}
    return float(np.mean([found[i, place[int(k)]] if int(k) in place else -30.0 for i, k in enumerate(y)]))


@lru_cache(maxsize=8192)
def _function_words(text: str) -> tuple[float, ...]:
    return tuple(function_word_rates([text])[0, 0].tolist())


@lru_cache(maxsize=8192)
def _surface(text: str) -> tuple[float, ...]:
    return tuple(surface_features([text])[0, 0].tolist())
