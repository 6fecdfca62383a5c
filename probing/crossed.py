"""``crossed`` quadruples: two contexts by two endings, emotional when the ending takes what the context made matter.

Per quadruple d = s(ax) + s(by) - s(ay) - s(bx). Whatever adds up over sentences cancels in d, so a reader of words has
d = 0 exactly. Primary: the share of quadruples with d > 0 (ties one half) with its exact interval; beside it the
standardised mean of d with an exact sign-flip test, corrected over layers by max-T. ``crossed_fact`` binds the same way
with nothing at stake: affect is what ``crossed`` shows beyond it.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from affectlens.probing.probes import Probes
from affectlens.stats import Estimate, Statistic, Weights, binomial, estimate, sign_flips
from affectlens.stimuli.crossing import differences, quadruples
from affectlens.store import Activations

SPLITS = ("crossed", "crossed_fact")
FEWEST = 3  # fewer quadruples have no interval worth the name
POSITIONS = ("ending", "last")  # where d is read, the first that was captured


def reading_position(acts: Activations) -> str:
    """The position at which quadruples are read: the ending if captured, else the last token, else the default."""
    return next((p for p in POSITIONS if p in acts.positions), acts.positions[0])


def score(acts: Activations, probes: Probes, *, seed: int = 0) -> pd.DataFrame:
    """One row a split, method and layer.

    Columns: split, method, layer, chosen (the layer picked on other items), n, wins with low and high, d (standardised
    mean) with low and high, p, p_adjusted (max-T over layers), attainable (the least p that n quadruples can give).
    """
    tables = []
    for split in SPLITS:
        rows = quadruples(acts.items, split)
        if len(rows) < FEWEST:
            continue
        for method in probes.weights:
            scores = np.stack([_unit(probes, acts, layer, method) for layer in range(acts.n_layers)], axis=1)
            tables.append(_rows(differences(scores, rows), split, method, probes.layer, seed))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def each(acts: Activations, probes: Probes) -> pd.DataFrame:
    """The d of every quadruple at the chosen layer by the main method: ``split, group, d``."""
    scores = probes.score(acts)[:, 0]
    tables = []
    for split in SPLITS:
        rows = quadruples(acts.items, split)
        if len(rows):
            names = acts.items["group"].to_numpy()[rows[:, 0]]
            tables.append(pd.DataFrame({"split": split, "group": names, "d": differences(scores, rows)}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def beyond_binding(crossed: Float[np.ndarray, " a"], fact: Float[np.ndarray, " b"]) -> Estimate:
    """Mean d on ``crossed`` less mean d on ``crossed_fact``, in standard deviations, with Welch's interval and test."""
    scale = float(np.sqrt((crossed.var(ddof=1) + fact.var(ddof=1)) / 2)) or 1.0
    test: Any = stats.ttest_ind(crossed / scale, fact / scale, equal_var=False)
    low, high = test.confidence_interval(0.95)
    value = float((crossed.mean() - fact.mean()) / scale)
    n = len(crossed) + len(fact)
    return Estimate(value, float(low), float(high), n, "quadruple", p=float(test.pvalue), method="Welch")


def _unit(probes: Probes, acts: Activations, layer: int, method: str) -> Float[np.ndarray, " item"]:
    logits = probes.score(acts, layer=layer, method=method)[:, 0]
    return logits / float(np.linalg.norm(probes.at(layer, method).weights) + 1e-12)


def _rows(d: Float[np.ndarray, "group layer"], split: str, method: str, chosen: int, seed: int) -> pd.DataFrame:
    flips = sign_flips(d, seed=seed)
    rows = []
    for layer in range(d.shape[1]):
        share = binomial(float((d[:, layer] > 0).sum() + 0.5 * (d[:, layer] == 0).sum()), len(d), "quadruple")
        size = estimate(standardised(d[:, layer]), len(d), "quadruple", seed=seed, bounds=None)
        rows.append({
            "split": split, "method": method, "layer": layer, "chosen": layer == chosen, "n": len(d),
            "wins": share.value, "wins_low": share.low, "wins_high": share.high,
            "d": size.value, "d_low": size.low, "d_high": size.high,
            "p": float(flips.p[layer]), "p_adjusted": float(flips.p_adjusted[layer]), "attainable": flips.attainable,
        })  # fmt: skip
    return pd.DataFrame(rows)


def standardised(d: Float[np.ndarray, " group"]) -> Statistic:
    """Mean over standard deviation, as a statistic over quadruples."""

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        total = weights.sum(1)
        mean = weights @ d / total
        square = (weights @ d**2 - total * mean**2) / np.maximum(total - 1, 1)
        return mean / np.sqrt(np.maximum(square, 1e-24))

    return statistic
