"""What a probe's score is compared with, beyond its floors.

*Conditional probing* (Hewitt et al. 2021): by how much the probe lowers the held-out log-loss of the floor's own
prediction. *Control task* (Hewitt and Liang 2019): the same probe on labels that are a random function of a word, so
that words are all there is to learn; a label drawn for each item could not be learnt at all under grouped folds.
*Random directions*: what a direction reads that was not trained, but for its sign. *Small network*: whether more is
read when the read-out need not be linear.
"""

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from affectlens.errors import BatteryError
from affectlens.probing.fits import mean_difference
from affectlens.probing.linear import log_losses
from affectlens.probing.sweep import Part, Sweep
from affectlens.stimuli.lexical import FUNCTION_WORDS, words

DIRECTIONS = 199
_SMALL = 0.25  # a word in more than this share of the texts is no key
_INTERRUPTED = "Training interrupted"
_COVERED = 0.8  # of the items, that keys are sought for


def gains(floor: Sweep, probe: Sweep, part: Part) -> Float[np.ndarray, " item"]:
    """By how much each held-out item's loss falls when the probe is added to the floor: nats, or a share of the
    variance.

    In each outer fold two read-outs are fitted on the training items' inner held-out logits: of the floor alone, and
    of floor and probe; both are then read on the held-out items.

    Args:
        floor: the floor's sweep.
        probe: the probe's.
        part: their items.
    """
    out = np.full(len(part.y), np.nan)
    for fold in np.unique(part.folds):
        train, test = part.folds != fold, part.folds == fold
        known = np.isfinite(floor.inner[fold]).all(1) & np.isfinite(probe.inner[fold]).all(1)
        y = part.y[train][known]
        losses = []
        for parts in ((floor,), (floor, probe)):
            seen = [p.inner[fold][known] for p in parts]
            losses.append(_stacked(seen, y, [p.headline[test] for p in parts], part.y[test]))
        out[test] = losses[0] - losses[1]
    return out if part.n_classes else out / float(part.y.var())


def _stacked(seen: list[np.ndarray], y: np.ndarray, held: list[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """Held-out losses of a sum of readers' logits, each with a weight of its own and all with one shift."""
    if y.dtype.kind == "f":
        model = LinearRegression().fit(np.hstack(seen), y)
        return log_losses(model.predict(np.hstack(held))[:, None], truth)
    scale = [1 / (float(part.std()) + 1e-9) for part in seen]

    def total(weights: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
        shift = weights[-1] if parts[0].shape[1] == 1 else 0.0
        return shift + sum(w * s * part for w, s, part in zip(weights, scale, parts, strict=False))

    start = np.zeros(len(seen) + 1)
    best = minimize(lambda w: log_losses(total(w, seen), y).mean() + 1e-3 * (w[:-1] ** 2).sum(), start)
    return log_losses(total(best.x, held), truth)


def control_labels(
    texts: Sequence[str], part: Part, seed: int = 0
) -> tuple[Int[np.ndarray, " kept"], Shaped[np.ndarray, " kept"]]:
    """Items with a word that recurs over folds, and labels that are a random function of it.

    The words are the content words that recur in most folds, no more of them than 80% of the items need, so that a
    label can be learnt in some folds and read in others; an item's key is the first of them in its text. The labels
    are as many as the target's classes (four numbers for an order) and as even as words allow.

    Raises:
        BatteryError: when too few items share words over folds; the message is a reason.
    """
    found = [[w for w in words(text) if len(w) > 2 and w not in FUNCTION_WORDS] for text in texts]
    folds_of: dict[str, set[int]] = {}
    count = Counter[str]()
    for fold, content in zip(part.folds, found, strict=True):
        for word in set(content):
            folds_of.setdefault(word, set()).add(int(fold))
            count[word] += 1
    k = part.n_classes or 4
    good: set[str] = set()
    for word in sorted(folds_of, key=lambda w: (-len(folds_of[w]), -count[w], w)):
        if len(folds_of[word]) > 1 and count[word] <= max(2, _SMALL * len(texts)):
            good.add(word)
        if len(good) >= 2 * k and sum(not good.isdisjoint(c) for c in found) >= _COVERED * len(texts):
            break
    keys = [next((w for w in content if w in good), None) for content in found]
    kept = np.array([i for i, key in enumerate(keys) if key], dtype=int)
    sizes = Counter(str(keys[i]) for i in kept)
    names = [w for w, _ in sorted(sizes.items())]
    if len(kept) < len(texts) / 2 or len(names) < 2 * k:
        raise BatteryError("too few items share a content word over folds")
    load, label = np.zeros(k), {}
    rng = np.random.default_rng(seed)
    for i in rng.permutation(len(names)):  # at random, but to the class that has the fewest items
        least = np.flatnonzero(load == load.min())
        label[names[i]] = int(rng.choice(least))
        load[label[names[i]]] += sizes[names[i]]
    return kept, np.array([label[str(keys[i])] for i in kept], dtype=int if part.n_classes else float)


def random_directions(
    x: Float[np.ndarray, "item layer d"], part: Part, layers: Sequence[int], *, seed: int = 0, draws: int = DIRECTIONS
) -> Float[np.ndarray, "draw item k"]:
    """Held-out logits along random directions at each fold's chosen layer, standardised; only their sign is trained.

    For several classes the directions are as many as the classes, and class means are compared in their span.
    """
    rng, k = np.random.default_rng(seed), part.width
    out = np.full((draws, len(part.y), k), np.nan)
    for fold, layer in zip(np.unique(part.folds), layers, strict=True):
        train = part.folds != fold
        here = x[:, layer].astype(np.float64)
        here = (here - here[train].mean(0)) / (here[train].std(0) + 1e-8)
        along = np.einsum("id,drk->irk", here, rng.normal(size=(here.shape[1], draws, k)), optimize=True)
        linear = mean_difference(along[train], part.y[train], part.n_classes)
        out[:, ~train] = np.moveaxis(linear(along[~train]), 1, 0)
    return out


def network(
    x: Float[np.ndarray, "item layer d"], part: Part, layers: Sequence[int], *, seed: int = 0, hidden: int = 64
) -> Float[np.ndarray, "item k"]:
    """Held-out logits of a network with one hidden layer, at the layers that the linear probe chose."""
    out = np.full((len(part.y), part.width), np.nan)
    for fold, layer in zip(np.unique(part.folds), layers, strict=True):
        train = part.folds != fold
        make = MLPClassifier if part.n_classes else MLPRegressor
        model = make_pipeline(
            StandardScaler(), make(hidden_layer_sizes=(hidden,), alpha=1.0, max_iter=200, random_state=seed)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("error", message=_INTERRUPTED)
            try:
                model.fit(x[train, layer], part.y[train])
            except UserWarning:  # scikit-learn makes a warning of Ctrl-C
                raise KeyboardInterrupt from None
        out[~train] = _said(model, x[~train, layer], part)
    return out


def _said(model: object, x: np.ndarray, part: Part) -> Float[np.ndarray, "item k"]:
    if not part.n_classes:
        return np.asarray(model.predict(x))[:, None]  # type: ignore[attr-defined]
    found = np.log(np.maximum(model.predict_proba(x), 1e-12))  # type: ignore[attr-defined]
    if part.width == 1:
        return found[:, 1:] - found[:, :1]
    wide = np.full((len(x), part.width), -30.0)
    wide[:, model.classes_] = found  # type: ignore[attr-defined]
    return wide
