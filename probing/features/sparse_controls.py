"""What k inputs read that were not chosen by the labels: random features of the same density, random directions.

Each draw is the same fit as the sparse probe's, on k inputs of its own. The draws are exchangeable, and share one
penalty in each fold: the median of what the inner folds choose for the first few.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Shaped

from affectlens.probing.features.densities import matched
from affectlens.probing.features.sparse_choosing import ranked
from affectlens.probing.parts import Stage
from affectlens.probing.sweep import Choice, Prepare, Turn, choose, refit
from affectlens.stats import Estimate

DRAWS = 199
TUNED = 5  # draws that the penalty is chosen on

Values = Float[np.ndarray, "item layer d"]
Labels = Shaped[np.ndarray, " item"]
Maker = Callable[[int], Prepare]  # for so many draws


def random_features(density: Float[np.ndarray, " feature"], k: int, *, seed: int = 0) -> Maker:
    """Draws of k features, each as often active as one of the k that the labels would choose on the same rows."""

    def make(draws: int) -> Prepare:
        def prepare(x: Values, y: Labels, n_classes: int) -> Turn:
            picks = matched(density, ranked(x[:, 0], y, n_classes)[:k], draws, seed=seed)
            return lambda values: values[:, 0][:, picks]

        return prepare

    return make


def random_directions(d: int, k: int, *, seed: int = 0) -> Maker:
    """Draws of k Gaussian directions of the standardised activations."""

    @lru_cache(maxsize=2)
    def directions(draws: int) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((d, draws * k), dtype=np.float32)

    def make(draws: int) -> Prepare:
        def prepare(x: Values, _y: Labels, _n_classes: int) -> Turn:
            spread = x[:, 0].std(0) + 1e-8
            along = directions(draws) / spread[:, None].astype(np.float32)
            centre = x[:, 0].mean(0)
            return lambda values: ((values[:, 0] - centre).astype(np.float32) @ along).reshape(-1, draws, k)

        return prepare

    return make


def held_out(
    x: Values, stage: Stage, make: Maker, *, grid: tuple[float, ...], draws: int = DRAWS, seed: int = 0
) -> Float[np.ndarray, "draw scored k"]:
    """Held-out logits of every draw, under the folds of a stage that learns from the items it scores.

    Args:
        x: all items' inputs.
        stage: the rung.
        make: what is drawn.
        grid: penalties, as for the sparse probe.
        draws: how many.
        seed: of the inner folds.
    """
    part = stage.part
    here = np.asarray(x[part.rows])
    out = np.full((draws, len(part.y), part.width), np.nan)
    for fold in np.unique(part.folds):
        train, test = np.flatnonzero(part.folds != fold), part.folds == fold
        few = choose(here[train], part, train, grid=grid, prepare=make(min(TUNED, draws)), seed=seed)
        common = Choice(0, np.full(draws, int(np.median(few.settings))), few.logits)
        turn = make(draws)(here[train], part.y[train], part.n_classes)
        linear = refit(part.main, turn(here[train]), part.y[train], part.n_classes, common, grid, True)
        out[:, test] = np.moveaxis(linear(turn(here[test]).astype(np.float64)), 1, 0)
    return out


def spread(
    ours: float, drawn: Float[np.ndarray, "draw scored k"], stage: Stage, what: str
) -> tuple[Estimate, Float[np.ndarray, " draw"]]:
    """The mean and 95% range of the draws' scores, with p that a draw reaches ours; and the scores.

    Args:
        ours: the sparse probe's score.
        drawn: held-out logits of the draws.
        stage: the rung, which has the metric.
        what: what a draw is.
    """
    one = np.ones((1, stage.n))
    values = np.array([float(stage.worth(logits)(one)[0]) for logits in drawn])
    low, high = np.quantile(values, [0.025, 0.975])
    p = (1 + int((values >= ours - 1e-12).sum())) / (1 + len(values))
    found = Estimate(float(values.mean()), float(low), float(high), len(values), "draw", p=p,
                     method=f"mean and 95% range of {len(values)} draws of {what}")  # fmt: skip
    return found, values
