"""How well a direction tells its class apart on groups that had no part in it: extracted anew without every fold."""

from dataclasses import asdict

import numpy as np
from jaxtyping import Float, Int

from affectlens.metrics import auroc
from affectlens.stats import Estimate, estimate
from affectlens.steering.extracting.contrasts import Contrast, folded
from affectlens.steering.extracting.methods import Values, differences, fit
from affectlens.steering.extracting.purifying import Step, purified
from affectlens.types import Json


def held_out(
    x: Values, asked: Contrast, *, method: str, against: str, steps: tuple[Step, ...], seed: int = 0
) -> list[list[Json]]:
    """By class and layer: AUROC of the held-out projection, with the fit and the purifying inside the folds.

    Args:
        x: the activations of the contrast's items.
        asked: the contrast.
        method: how directions are found.
        against: what they contrast.
        steps: what is taken out of them.
        seed: of folds and bootstraps.

    Returns:
        ``auroc`` (its class against the others; on an axis of two values against the other), and where there are
        neutral partners ``auroc_neutral`` (its items against their partners) and ``auroc_topic`` (its items' partners
        against the others' partners, which show no emotion: what topic alone gives) and ``auroc_paired`` (its items
        less their partners against the others' less theirs: what is left without topic): each with its interval.
        Without folds ``auroc`` is None and ``auroc_why`` the reason.
    """
    fold = folded(asked, seed)
    n_names, n_layers = len(asked.names), x.shape[1]
    if isinstance(fold, str):
        return [[{"auroc": None, "auroc_why": fold} for _ in range(n_layers)] for _ in range(n_names)]
    scores = np.full((n_names, n_layers, len(fold)), np.nan)
    for held in range(int(fold.max()) + 1):
        seen, test = fold != held, fold == held
        train = asked.part(seen)
        found = purified(fit(method, x[seen], train, against, seed=seed).vectors, steps, x[seen], train, seed=seed)
        units = found.vectors / np.linalg.norm(found.vectors, axis=2, keepdims=True).clip(min=1e-300)
        scores[:, :, test] = np.einsum("ild,kld->kli", x[test], units, optimize=True)
    return [
        [_scored(scores[i, layer], k, asked, fold, seed) for layer in range(n_layers)]
        for i, k in enumerate(asked.asked)
    ]


def _scored(score: np.ndarray, k: int, asked: Contrast, fold: Int[np.ndarray, " item"], seed: int) -> Json:
    mine, own, shows, calm = asked.code == k, asked.baseline == k, asked.code >= 0, asked.baseline >= 0
    asks = {"auroc": (mine, own if asked.binary else shows & ~mine)}
    if not asked.binary:
        asks |= {"auroc_neutral": (mine, own), "auroc_topic": (own, calm & ~own)}
    out: Json = {"held_out": f"whole {asked.unit}s"}
    pairs = differences(asked.group, shows, calm) if not asked.binary else np.zeros((0, len(mine)))
    first = (pairs > 0).argmax(1)
    if len(pairs) and 0 < mine[first].sum() < len(pairs):
        gaps = separation(pairs @ np.nan_to_num(score), mine[first], fold[first], asked.keys[first], asked.unit, seed)
        out["auroc_paired"] = plain(gaps)
    for name, (high, low) in asks.items():
        rows = (high | low) & (fold >= 0)
        if (high & rows).any() and (low & rows).any():
            out[name] = plain(separation(score[rows], high[rows], fold[rows], asked.keys[rows], asked.unit, seed))
    return out


def separation(
    score: Float[np.ndarray, " item"],
    mine: np.ndarray,
    fold: Int[np.ndarray, " item"],
    clusters: Int[np.ndarray, " item"],
    unit: str,
    seed: int = 0,
) -> Estimate:
    """Within-fold AUROC of ``mine`` against the rest, with a cluster interval widened for the folds.

    Args:
        score: projections.
        mine: which items should score higher.
        fold: compared inside these alone.
        clusters: what is resampled.
        unit: its name.
        seed: of the bootstrap.
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    folds = len(np.unique(fold))
    statistic = auroc(score, mine.astype(int), fold, codes)
    return estimate(statistic, int(codes.max()) + 1, unit, seed=seed, folds=folds if folds > 1 else 0)


def plain(found: Estimate) -> Json:
    """An estimate as JSON."""
    return {name: value for name, value in asdict(found).items() if value is not None}


def known(facts: Json | None) -> Estimate | None:
    """An estimate from JSON, or None where there is none.

    Args:
        facts: what :func:`plain` gave.
    """
    return Estimate(**facts) if facts else None
