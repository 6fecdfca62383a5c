"""Labels dealt anew: whole groups swap their classes within a domain, so that topics and twins stay where they were."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from affectlens.steering.extracting.contrasts import Contrast


def shuffle(asked: Contrast, rng: np.random.Generator) -> Contrast:
    """The contrast with permuted labels; as many groups of each class in every domain as before.

    An item and its neutral partner keep one label. On an axis of two values, a group that has both swaps them with a
    chance of one half. Groups that hold several classes swap them inside.

    Args:
        asked: the contrast.
        rng: the randomness.
    """
    fitted = (asked.code >= 0) | (asked.baseline >= 0)
    block = asked.keys if asked.unit == "domain" else np.zeros_like(asked.keys)
    if asked.binary:
        return _sides(asked, block, rng)
    label = np.where(asked.code >= 0, asked.code, asked.baseline)
    names, first = np.unique(asked.group[fitted], return_index=True)
    own = label[fitted][first]
    of = np.full(int(asked.group.max()) + 1, -1)
    of[names] = own
    if (label[fitted] != of[asked.group[fitted]]).any():
        return replace(asked, code=_within(asked.code, asked.group, rng))
    of[names] = _within(own, block[fitted][first], rng)
    new = of[asked.group]
    return replace(asked, code=np.where(asked.code >= 0, new, -1), baseline=np.where(asked.baseline >= 0, new, -1))


def _within(labels: Int[np.ndarray, " any"], blocks: Int[np.ndarray, " any"], rng: np.random.Generator) -> np.ndarray:
    """Labels (those that are not -1) permuted inside each block."""
    out = labels.copy()
    for block in np.unique(blocks):
        mine = np.flatnonzero((blocks == block) & (labels >= 0))
        out[mine] = labels[rng.permutation(mine)]
    return out


def _sides(asked: Contrast, block: Int[np.ndarray, " item"], rng: np.random.Generator) -> Contrast:
    up, down = asked.code >= 0, asked.baseline >= 0
    both = np.intersect1d(asked.group[up], asked.group[down])
    flips = np.isin(asked.group, both[rng.random(len(both)) < 0.5])
    side = np.where(up, 1, np.where(down, 0, -1))
    side = np.where(flips & (side >= 0), 1 - side, side)
    alone = ~np.isin(asked.group, both) & (side >= 0)
    names, first = np.unique(asked.group[alone], return_index=True)
    of = np.full(int(asked.group.max()) + 1, -1)
    of[names] = _within(side[alone][first], block[alone][first], rng)
    side = np.where(alone, of[asked.group], side)
    return replace(asked, code=np.where(side == 1, 0, -1), baseline=np.where(side == 0, 0, -1))
