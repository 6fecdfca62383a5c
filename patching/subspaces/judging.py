"""Held-out pairs under every interchange: the subspaces that were found, and what they are compared with."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.patching.subspaces.interchange import Exchange, whole, within
from affectlens.patching.subspaces.leace import random_basis
from affectlens.patching.subspaces.naturalness import Natural
from affectlens.progress import tracked
from affectlens.types import Json

FOUND, NATURAL, TURNED, RANDOM, MEAN, SITE = "das", "das_natural", "turned", "random", "mean_difference", "site"
Row = tuple[str, int, int]  # method, dimensions, draw
Bases = dict[Row, Float[Tensor, "d_model k"]]


def subspaces(
    train: Sequence[Exchange], natural: Natural, found: Mapping[int, Tensor], turned: Mapping[int, Tensor], draws: int,
    seed: int,
) -> Bases:  # fmt: skip
    """All subspaces that are tested, by method, size and draw.

    Args:
        train: the pairs that the subspaces were found on.
        natural: their natural differences.
        found: the bases of the search, by size.
        turned: those of its control with random signs.
        draws: random subspaces of each size.
        seed: of their choice.
    """
    rng = np.random.default_rng(seed)
    like = next(iter(found.values()))
    out: Bases = {(FOUND, k, 0): basis for k, basis in found.items()}
    out |= {(NATURAL, k, 0): natural.part(basis) for k, basis in found.items()}
    out |= {(TURNED, k, 0): basis for k, basis in turned.items()}
    for k in found:
        out |= {(RANDOM, k, i): torch.from_numpy(random_basis(len(like), k, rng)).to(like) for i in range(draws)}
    mean = torch.cat([one.source - one.here for one in train]).mean(0)
    out[MEAN, 1, 0] = (mean / mean.norm().clamp(min=1e-12))[:, None]
    return out


@torch.no_grad()
def judge(pairs: Sequence[Exchange], bases: Bases, natural: Natural, *, progress: bool | None = None) -> pd.DataFrame:
    """One row a pair and interchange, the whole site's included.

    Args:
        pairs: what no subspace was found on.
        bases: the subspaces.
        natural: the natural differences of the pairs that subspaces were found on.
        progress: show a bar.
    """
    rows: list[Json] = []
    for one in tracked(pairs, "testing subspaces", show=progress):
        moves = [(key, within(basis)) for key, basis in bases.items()]
        moves.append(((SITE, one.here.shape[1], 0), whole))
        values = one.values([move for _, move in moves]).tolist()
        for ((method, k, draw), move), value in zip(moves, values, strict=True):
            rows.append({
                "pair": one.pair.name, "group": one.pair.group, "contrast": one.pair.contrast, "method": method, "k": k,
                "draw": draw, "clean": one.ends[0], "corrupt": one.ends[1], "value": value,
                "strain": natural.strain(move(one.source - one.here), k),
            })  # fmt: skip
    return pd.DataFrame(rows)


def described(bases: Bases, natural: Natural) -> pd.DataFrame:
    """One row a subspace: its ``share`` along natural axes (``chance``: a random one's) and ``spread``."""
    return pd.DataFrame(
        [
            {"method": method, "k": k, "draw": draw, "share": natural.share(basis), "chance": natural.chance,
             "spread": natural.spread(basis)}
            for (method, k, draw), basis in bases.items()
        ]
    )  # fmt: skip
