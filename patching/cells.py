"""What one run changes: values at sites and positions, or attention between positions.

A *cell* is a tuple of changes that are made together in one run. A cell begins at the layer and at the position of its
first change: everything before either is as in the unpatched run, so it need not be computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.sites import KINDS, Site

New = Float[Tensor, "pos *part"] | Callable[[Float[Tensor, "pos *part"]], Float[Tensor, "pos *part"]]


@dataclass(frozen=True, eq=False)
class Change:
    """New values of a site at some positions of the text that is run.

    ``new`` is ``[pos, *model.sites.shape(site)]``, or a function from the values that the run has there to those that
    it shall have. A function sees what earlier changes have done. Of a pattern, the positions are queries, and the
    values reach over all keys of the text.
    """

    site: Site
    at: tuple[int, ...]
    new: New


@dataclass(frozen=True)
class Cut:
    """Attention of one layer forbidden between positions: scores of minus infinity, before the softmax.

    Knockout as in Geva et al. (2023), arXiv:2304.14767: the weights that are left sum to one.
    """

    layer: int
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    head: int | None = None  # all heads


Cell = tuple[Change | Cut, ...]


def entry(cell: Cell) -> int:
    """The first layer that a cell changes."""
    return min(one.site.layer if isinstance(one, Change) else one.layer for one in cell)


def start(cell: Cell) -> int:
    """The first position that a cell changes."""
    return min(min(one.at) if isinstance(one, Change) else min(one.queries) for one in cell)


def put(change: Change, value: Tensor, begin: int = 0) -> None:
    """Write a change into one run's value of the whole site, in place.

    Args:
        change: what to write.
        value: ``[pos, *part]``, or of a pattern ``[head, query, key]``, from position ``begin`` on.
        begin: the position of its first row.
    """
    at, index = torch.tensor([p - begin for p in change.at], device=value.device), change.site.index
    every = slice(None)
    if change.site.kind == "pattern":  # keys beyond those given are a verbaliser's, which the prompt does not see
        keys = every if callable(change.new) else slice(0, change.new.shape[-1])
        where: tuple[Any, ...] = (every if index is None else index, at, keys)
    else:
        where = (at,) if index is None else (at, index)
    value[where] = (change.new(value[where]) if callable(change.new) else change.new).to(value)


def order(change: Change) -> tuple[int, int]:
    """What changes of one run sort by: the order in which the model computes their sites."""
    return change.site.layer, KINDS.index(change.site.kind)
