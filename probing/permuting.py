"""A permutation test of every layer at once, in closed form: all draws are one matrix product a layer and fold.

The probe is a ridge with a fixed penalty (the mean eigenvalue of its standardised training rows), so that its held-out
scores are H y with H known before any label is. The statistic is Student's t over groups of the sum of (label) x
(score), both centred within their fold; labels are exchanged inside blocks: within the scene where a scene has several
labels, else among the scenes of a domain. p = (1 + hits) / (1 + draws), and p_adjusted compares with the largest t
over the layers (max-T, Westfall and Young 1993), which makes it the p of the best layer too.

Two nulls, both about these domains, not about new ones. *Chance*: the labels themselves are exchanged. *Floor*: what
the lexical floor leaves of them, label minus the floor's held-out prediction, is exchanged (Freedman and Lane 1983);
in the training part of each fold the floor's predictions are those of inner folds, which saw no test label. The floor
reads words with error, so where activations hold nothing but words this p is too small (in a simulation of that worst
case 30% of tests at 5%): a claim beyond the floor rests on the paired difference and its band, which were not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped

from affectlens.probing.fits import Standard, coded
from affectlens.probing.sweep import Part, Sweep

DRAWS = 1000
_AT_ONCE = 4_000_000  # numbers in one product's result

Aim = Callable[[int], Float[np.ndarray, "item k"]]  # what the probe of a fold is to predict


@dataclass(frozen=True)
class Permuted:
    """Student's t of each layer and its p, alone and as the best of all."""

    t: Float[np.ndarray, " layer"]
    p: Float[np.ndarray, " layer"]
    p_adjusted: Float[np.ndarray, " layer"]

    @property
    def best(self) -> float:
        """The p of the best layer, its choice inside the permutation."""
        return float(self.p_adjusted.min())


@dataclass(frozen=True)
class Exchange:
    """What labels are exchanged between, and inside what."""

    units: Int[np.ndarray, " item"]  # items that move as one: a scene with one label, else each item by itself
    blocks: Int[np.ndarray, " item"]  # a scene with several labels, else the domain, else all

    @classmethod
    def of(cls, items: pd.DataFrame, y: Shaped[np.ndarray, " item"]) -> "Exchange":
        """Inside scenes where these have several labels, else whole scenes inside their domain."""
        mixed = pd.Series(y, index=items.index).groupby(items["group"]).nunique().max() > 1
        scenes = np.asarray(pd.factorize(items["group"])[0])
        if mixed:
            return cls(np.arange(len(items)), scenes)
        if "domain" not in items or items["domain"].isna().any():
            return cls(scenes, np.zeros(len(items), dtype=int))
        return cls(scenes, np.asarray(pd.factorize(items["domain"])[0]))

    def draw(self, draws: int, seed: int) -> Int[np.ndarray, "item draw_plus_one"]:
        """Which item's label each item gets in each draw; the first column changes nothing."""
        rng = np.random.default_rng(seed)
        _, first, unit = np.unique(self.units, return_index=True, return_inverse=True)
        given = np.tile(first[:, None], (1, draws + 1))  # unit -> the item whose label it gets
        for block in np.unique(self.blocks):
            rows = np.flatnonzero(self.blocks[first] == block)
            given[rows, 1:] = first[rows[rng.random((len(rows), draws)).argsort(0)]]
        out = given[unit]
        out[:, 0] = np.arange(len(self.units))
        return out


def permute(
    x: Float[np.ndarray, "item layer d"],
    part: Part,
    aim: Aim,
    groups: Int[np.ndarray, " item"],
    exchange: Exchange,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Permuted:
    """Test every layer.

    Args:
        x: the part's activations.
        part: labels and folds.
        aim: coded labels, or what a floor leaves of them, for the probe of each fold.
        groups: clusters of the statistic, integers from 0.
        exchange: between what labels are exchanged.
        draws: of the null.
        seed: of the exchanges.
    """
    order = exchange.draw(draws, seed)
    n_groups = int(groups.max()) + 1
    total = np.zeros((x.shape[1], n_groups, draws + 1))
    for fold in np.unique(part.folds):
        train, test = np.flatnonzero(part.folds != fold), np.flatnonzero(part.folds == fold)
        hat, labels = _hat(x[train], x[test]), aim(int(fold))
        width = max(1, _AT_ONCE // (x.shape[1] * len(test) * labels.shape[1]))
        for start in range(0, draws + 1, width):
            some = slice(start, start + width)
            moved = labels[order[:, some]]  # [item, draw, k]
            scores = torch.einsum("lts,sdk->ltdk", hat, torch.as_tensor(_centred(moved[train])))
            own = torch.as_tensor(_centred(moved[test]))
            worth = ((scores - scores.mean(1, keepdim=True)) * own).sum(-1).numpy()
            for row, group in enumerate(groups[test]):
                total[:, group, some] += worth[:, row]
    t = total.mean(1) / (total.std(1, ddof=1) / np.sqrt(n_groups) + 1e-12)
    seen, null = t[:, :1], t[:, 1:]
    slack = 1e-9 * (1 + np.abs(seen))
    alone = (1 + (null >= seen - slack).sum(1)) / (1 + draws)
    best = (1 + (null.max(0)[None] >= seen - slack).sum(1)) / (1 + draws)
    return Permuted(seen[:, 0], alone, best)


def beyond(floor: Sweep, part: Part) -> Aim:
    """What the floor's held-out predictions leave of the labels, for each fold."""
    truth = coded(part.y, part.n_classes)

    def aim(fold: int) -> Float[np.ndarray, "item k"]:
        logits = floor.headline.copy()
        logits[part.folds != fold] = floor.inner[fold]
        said = _expected(np.nan_to_num(logits), part.n_classes)
        return truth - said

    return aim


def _expected(logits: Float[np.ndarray, "item k"], n_classes: int) -> Float[np.ndarray, "item k"]:
    if not n_classes:
        return logits
    if n_classes == 2:
        return np.tanh(logits / 2)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(0)


def _hat(
    train: Float[np.ndarray, "train layer d"], test: Float[np.ndarray, "test layer d"]
) -> Float[torch.Tensor, "layer test train"]:
    """The map from training labels to held-out scores."""
    rows = Standard.of(train, True)
    held = (torch.as_tensor(np.moveaxis(test, 1, 0).astype(np.float64)) - rows.mean) / rows.spread
    gram = torch.bmm(rows.z, rows.z.transpose(1, 2))
    typical = rows.typical()
    root = torch.linalg.cholesky(gram + typical[:, None, None] * torch.eye(len(train)).to(gram))
    cross = torch.bmm(rows.z, held.transpose(1, 2))
    return torch.cholesky_solve(cross, root).transpose(1, 2)
