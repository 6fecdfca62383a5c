"""The contrasts of the keyword-affect plane as sums over clusters, and how each is resampled.

Every contrast is a mean over clusters (scenes, decoys, vivid scenes, quadruples), less a domain-matched mean of neutral
items where it has no twin of its own. So a resample is the value plus ``weights @ influence``, which is one matrix
product for all features.

1. With at least 30 clusters the weights are bootstrap counts less one, scaled by sqrt(n / (n - 1)) to the unbiased
   variance. With fewer they are centred normals over an independent chi, so that each draw of a mean is Student's t
   with n - 1 degrees of freedom around the value, jointly over all features.
2. A feature that fires in few of a contrast's clusters has a sample variance that says little: of eight silent decoys
   it would be zero. For decoys and vivid scenes the variance is therefore at least that of a feature which fires with
   probability (k + 2) / (n + 4) (Agresti and Coull 1998), as strongly as there or on the vignettes where it is active,
   whichever is more; for differences within scenes and quadruples the same where fewer than five are not zero.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.probing.features.halving import AFFECT
from affectlens.stats import DRAWS, FEW_CLUSTERS
from affectlens.stimuli.crossing import differences, quadruples

FEW_ACTIVE = 5
BASE = ("affect", "rich", "decoy", "vivid", "crossed", "crossed_fact")
Pooled = Float[np.ndarray, "item feature"]
Draws = dict[str, Float[np.ndarray, "feature draw"]]


@dataclass(frozen=True, eq=False)
class Design:
    """The rows of the battery's table that place one emotion; numbers of rows, in the table's order."""

    emotion: str
    scenes: Int[np.ndarray, "scene 3"]  # emotional, neutral, keyword
    neutral: Int[np.ndarray, " reference"]  # of every emotion's scenes, the own ones first
    decoys: Int[np.ndarray, " decoy"]
    vivid: Int[np.ndarray, " vivid"]
    crossed: Int[np.ndarray, "quadruple 4"]
    crossed_fact: Int[np.ndarray, "fact 4"]
    domain: Int[np.ndarray, " item"]  # -1: none


def design(items: pd.DataFrame, emotion: str) -> Design:
    """Which items place features of an emotion.

    Args:
        items: the battery's table.
        emotion: one of the battery's, or ``affect`` for all of them.

    Raises:
        BatteryError: without at least two complete triplets of that emotion.
    """
    frame = items.reset_index(drop=True)
    part = frame[frame["split"] == "vignettes"].reset_index(names="row")
    wide = part.pivot_table(index="group", columns="role", values="row", aggfunc="first", sort=False)
    roles = ["emotional", "neutral", "keyword"]
    complete = wide.dropna(subset=roles) if set(roles) <= set(wide.columns) else wide.iloc[:0]
    rows = complete[roles].to_numpy(dtype=int) if len(complete) else np.empty((0, 3), dtype=int)
    own = _of(frame, rows[:, 0], emotion)
    if own.sum() < 2:
        raise BatteryError(
            f"The keyword-affect plane of {emotion!r} needs two scenes or more told three ways (emotional, neutral, "
            f"keyword), and this battery has {int(own.sum())}: load one with keyword-rich twins, such as core."
        )
    names, codes = np.full(len(frame), -1), None
    if "domain" in frame:
        codes, _ = pd.factorize(frame["domain"])
    decoys, vivid = (np.flatnonzero(frame["split"] == name) for name in ("decoys", "vivid_neutral"))
    quads = quadruples(frame, "crossed") if "cell" in frame else np.empty((0, 4), dtype=int)
    facts = quadruples(frame, "crossed_fact") if "cell" in frame else np.empty((0, 4), dtype=int)
    return Design(
        emotion, rows[own], np.concatenate([rows[own, 1], rows[~own, 1]]), decoys[_of(frame, decoys, emotion)], vivid,
        quads[_of(frame, quads[:, 0], emotion)], facts, names if codes is None else np.asarray(codes),
    )  # fmt: skip


def values(x: Pooled, plan: Design) -> dict[str, Float[np.ndarray, "_ feature"]]:
    """Each contrast cluster by cluster, its mean over the first axis; contrasts that the battery lacks are left out.

    Args:
        x: pooled activations, in the common unit.
        plan: which items.
    """
    emotional, neutral, keyword = (x[plan.scenes[:, i]] for i in range(3))
    out = {"affect": emotional - neutral, "rich": keyword - neutral}
    for name, rows in (("decoy", plan.decoys), ("vivid", plan.vivid)):
        if len(rows) > 1:
            out[name] = x[rows] - _matched(x, plan, rows)[0]
    for name, quads in (("crossed", plan.crossed), ("crossed_fact", plan.crossed_fact)):
        if len(quads) > 1:
            out[name] = differences(x, quads) / 2
    return out


def draw(x: Pooled, plan: Design, *, seed: int) -> Draws:
    """2,000 resamples of every contrast, ``[feature, draw]``; contrasts share the draws of the scenes they share.

    Args:
        x: pooled activations, in the common unit.
        plan: which items.
        seed: of the draws, which are the same for every block of features.
    """
    found = values(x, plan)
    size = _when_active(x[plan.scenes.ravel()])
    n, rest = len(plan.scenes), len(plan.neutral) - len(plan.scenes)
    own, others = weights(n, seed=seed), weights(rest, seed=seed + 1) if rest > 1 else np.zeros((DRAWS, rest))
    scenes = np.concatenate([own, others], axis=1).astype(np.float32)
    out: Draws = {}
    for k, name in enumerate(name for name in BASE if name in found):
        y = found[name].astype(np.float32)
        rows = {"decoy": plan.decoys, "vivid": plan.vivid}.get(name)
        w = own.astype(np.float32) if rows is None else weights(len(y), seed=seed + 2 + k).astype(np.float32)
        if name.startswith("crossed"):
            w = weights(len(y), seed=seed + 2 + k).astype(np.float32)
        drawn = y.mean(0)[:, None] + (y / len(y)).T @ w.T
        if rows is not None:
            drawn -= _matched(x, plan, rows)[1].astype(np.float32).T @ scenes.T
        if rows is not None:
            out[name] = drawn + _floor(x[rows], _larger(size, _when_active(x[rows])), len(rows), seed=seed + 20 + k)
            continue
        half = 0.5 if name.startswith("crossed") else 1.0
        out[name] = drawn + _floor(y, (half * size[0], half**2 * size[1]), FEW_ACTIVE - 1, seed=seed + 20 + k)
    return out


def weights(n: int, *, seed: int) -> Float[np.ndarray, "draw cluster"]:
    """What each of 2,000 draws adds to every cluster's part in a mean; the mean of a row's weights is zero.

    Args:
        n: how many clusters, two at least.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, n])
    scale = np.sqrt(n / (n - 1))
    if n >= FEW_CLUSTERS:
        return (rng.multinomial(n, np.full(n, 1 / n), size=DRAWS) - 1.0) * scale
    normal = rng.normal(size=(DRAWS, n))
    chi = np.sqrt((n - 1) / rng.chisquare(n - 1, size=(DRAWS, 1)))
    return (normal - normal.mean(1, keepdims=True)) * chi * scale


def _matched(x: np.ndarray, plan: Design, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the neutral items of each row's domain, and every neutral item's influence on the mean over rows.

    A domain without a neutral item takes the mean of all of them.
    """
    home, at = plan.domain[plan.neutral], plan.domain[rows]
    reference = x[plan.neutral]
    matched, influence = np.empty((len(rows), x.shape[1])), np.zeros(reference.shape)
    for one in np.unique(at):
        there = home == one if (home == one).any() else np.ones(len(home), dtype=bool)
        mean = reference[there].mean(0)
        matched[at == one] = mean
        influence[there] += (at == one).mean() * (reference[there] - mean) / there.sum()
    return matched, influence


def _when_active(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two moments of each feature over the items at which it is active; zero if there are none."""
    n = np.maximum((x != 0).sum(0), 1)
    return x.sum(0) / n, (x.astype(np.float64) ** 2).sum(0) / n


def _larger(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of each feature the moments that are larger in the second."""
    first = one[1] >= other[1]
    return np.where(first, one[0], other[0]), np.where(first, one[1], other[1])


def _floor(seen: np.ndarray, size: tuple[np.ndarray, np.ndarray], most: int, *, seed: int) -> np.ndarray:
    """Noise that brings the variance of the mean of a feature that is seldom active up to the least believable."""
    n = len(seen)
    active = (seen != 0).sum(0)
    p = (active + 2) / (n + 4)
    least = np.maximum(p * size[1] - (p * size[0]) ** 2, 0)
    missing = np.where(active <= most, np.maximum(least - seen.var(0, ddof=1), 0), 0) / n
    rng = np.random.default_rng(seed)
    t = rng.standard_normal((DRAWS, seen.shape[1]), dtype=np.float32).T
    t *= np.sqrt((n - 1) / rng.chisquare(n - 1, size=DRAWS)).astype(np.float32)
    return t * np.sqrt(missing).astype(np.float32)[:, None]


def _of(frame: pd.DataFrame, rows: np.ndarray, emotion: str) -> np.ndarray:
    """Which of these rows are of the emotion; all of them for affect."""
    if emotion == AFFECT:
        return np.ones(len(rows), dtype=bool)
    return (frame["emotion"].iloc[rows] == emotion).to_numpy(dtype=bool)
