"""A permutation test of every layer at once, in closed form: all draws are one matrix product a layer and fold.

The probe is a ridge with a fixed penalty (the mean eigenvalue of its standardised training rows), so that its held-out
scores are H y with H known before any label is. The statistic is Student's t over groups of the sum of (label) x
(score), both centred within their fold; labels are exchanged inside blocks: within the scene where a scene has several
labels, else among the scenes of a domain. p = (1 + hits) / (1 + draws), and p_adjusted compares with the largest t
over the layers (max-T, Westfall and Young 1993), which makes it the p of the best layer too.

Two nulls. *Chance*: the labels themselves are exchanged. *Floor*: what the lexical floor leaves of them, label minus
the floor's held-out prediction, is exchanged (Freedman and Lane 1983), so that a probe that reads what the words tell
gains nothing. In the training part of each fold the floor's predictions are those of inner folds, which saw no test
label.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped

from affectlens.probing.fits import Standard
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


def permute(
    x: Float[np.ndarray, "item layer d"],
    part: Part,
    aim: Aim,
    groups: Int[np.ndarray, " item"],
    blocks: Int[np.ndarray, " item"],
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
        blocks: inside which labels are exchangeable.
        draws: of the null.
        seed: of the exchanges.
    """
    order = exchanges(blocks, draws, seed)
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


def exchanges(blocks: Int[np.ndarray, " item"], draws: int, seed: int) -> Int[np.ndarray, "item draw_plus_one"]:
    """Which item's label each item gets in each draw; the first column changes nothing."""
    rng = np.random.default_rng(seed)
    out = np.tile(np.arange(len(blocks))[:, None], (1, draws + 1))
    for block in np.unique(blocks):
        rows = np.flatnonzero(blocks == block)
        out[rows, 1:] = rows[rng.random((len(rows), draws)).argsort(0)]
    return out


def blocks(items: pd.DataFrame, y: Shaped[np.ndarray, " item"]) -> Int[np.ndarray, " item"]:
    """Inside which items labels are exchangeable: scenes with several labels, else the domain, else all."""
    mixed = pd.Series(y, index=items.index).groupby(items["group"]).nunique().max() > 1
    column = items["group"] if mixed else items.get("domain")
    if column is None or column.isna().any():
        return np.zeros(len(items), dtype=int)
    return np.asarray(pd.factorize(column)[0])


def coded(y: Shaped[np.ndarray, " item"], n_classes: int) -> Float[np.ndarray, "item k"]:
    """Labels as numbers: -1 and 1, indicators, or the order itself."""
    if not n_classes:
        return y[:, None].astype(float)
    return (2.0 * y - 1)[:, None] if n_classes == 2 else np.eye(n_classes)[y]


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
    typical = rows.z.square().sum((1, 2)) / len(train) + 1e-12
    root = torch.linalg.cholesky(gram + typical[:, None, None] * torch.eye(len(train)).to(gram))
    cross = torch.bmm(rows.z, held.transpose(1, 2))
    return torch.cholesky_solve(cross, root).transpose(1, 2)
