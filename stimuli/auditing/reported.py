"""Figures that are reported and bound nothing: sentiment lexicons on the pairs, and a frozen sentence encoder."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import wilcoxon
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from affectlens.stats import Statistic, Weights, estimate
from affectlens.stimuli.auditing.designs import Design
from affectlens.stimuli.auditing.finding import Finding, Worst
from affectlens.stimuli.auditing.floors import paired_auroc
from affectlens.stimuli.lexical import words

Encoder = Callable[[Sequence[str]], Float[np.ndarray, "text d"]]
NO_VADER = "vaderSentiment is not installed"


def lexicons(design: Design, scores: Mapping[str, Mapping[str, float]]) -> list[Finding]:
    """The difference in sentiment within pairs, and of its size without its sign, by lexicon."""
    out = []
    for name in ("VADER", *scores):
        title = f"sentiment difference: {name}"
        texts = [s.text for pair in design.pairs for s in (pair.emotional, pair.neutral)]
        values = vader(texts) if name == "VADER" else _mean_scores(texts, scores[name])
        if not texts or isinstance(values, str):
            out.append(
                Finding(title, None, "reported", None, values if texts and isinstance(values, str) else "no pairs")
            )
            continue
        signed, strength = (v[::2] - v[1::2] for v in (values, np.abs(values - np.median(values))))
        p = {said: _p(gap) for said, gap in (("signed", signed), ("strength", strength))}
        note = f"emotional less neutral; p {p['signed']:.3g}; strength {strength.mean():+.3f}, p {p['strength']:.3g}"
        worst = [Worst(design.pairs[i].group, float(abs(signed[i])), f"{signed[i]:+.2f}")
                 for i in np.argsort(-np.abs(signed))[:12]]  # fmt: skip
        mean = estimate(_mean(signed), len(signed), "pair", bounds=None)
        out.append(Finding(title, mean, "reported", None, note, tuple(worst)))
    return out


def encoded(design: Design, encoder: Encoder | None) -> list[Finding]:
    """A linear reader on a frozen sentence encoder, emotional against neutral, whole emotions held out."""
    title = "sentence-encoder floor"
    rows = design.paired("emotion", "domain")
    if encoder is None or isinstance(rows, str):
        return [Finding(title, None, "reported", None, "no encoder given" if encoder is None else str(rows))]
    x, y = np.asarray(encoder(rows.texts), dtype=float), rows.y
    scores = np.zeros(len(y))
    for fold in np.unique(rows.folds):
        train = rows.folds != fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(x[train], y[train])
        scores[~train] = model.decision_function(x[~train])
    note = f"{x.shape[1]} dimensions, linear, {rows.said}"
    return [Finding(title, paired_auroc(scores, rows), "reported", None, note)]


def vader(texts: Sequence[str]) -> Float[np.ndarray, " text"] | str:
    """VADER's compound score of each text (Hutto and Gilbert 2014), or why there is none."""
    if find_spec("vaderSentiment") is None:
        return NO_VADER
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyser = SentimentIntensityAnalyzer()
    return np.array([analyser.polarity_scores(text)["compound"] for text in texts], dtype=float)


def perceptron_held_out(
    x: Float[np.ndarray, "item d"], y: Int[np.ndarray, " item"], folds: Int[np.ndarray, " item"]
) -> Float[np.ndarray, " item"]:
    """Held-out log-odds of a perceptron with one hidden layer of 64."""
    out = np.zeros(len(y))
    for fold in np.unique(folds):
        train = folds != fold
        model: Any = make_pipeline(StandardScaler(), MLPClassifier((64,), alpha=1e-2, max_iter=200, random_state=0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            chance = model.fit(x[train], y[train]).predict_proba(x[~train])[:, 1]
        out[~train] = np.log(np.clip(chance, 1e-9, 1)) - np.log(np.clip(1 - chance, 1e-9, 1))
    return out


def _mean_scores(texts: Sequence[str], scores: Mapping[str, float]) -> Float[np.ndarray, " text"]:
    return np.array([np.mean([scores[w] for w in words(t) if w in scores] or [0.0]) for t in texts])


def _p(gap: Float[np.ndarray, " pair"]) -> float:
    return float(wilcoxon(gap).pvalue) if np.any(gap) else 1.0


def _mean(values: Float[np.ndarray, " pair"]) -> Statistic:
    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        return weights @ values / weights.sum(1)

    return statistic
