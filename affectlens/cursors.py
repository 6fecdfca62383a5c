"""Where the tokens of a running forward pass are in their texts, whatever the cache, the chunks and the padding."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from affectlens.model import LensModel


@dataclass
class Cursor:
    """Where in their sequences the tokens of the running forward pass are."""

    positions: Int[Tensor, "batch pos"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    # absolute, from 0 at each text's first token; -1 is padding
    past: int = 0  # tokens of the padded batch that went before, and are in the key-value cache


@contextmanager
def following(model: LensModel) -> Iterator[Cursor]:
    """A :class:`Cursor` that each forward pass of the model's body sets anew."""
    cursor, names = Cursor(), inspect.signature(model.body.forward)

    def place(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        told = names.bind_partial(*args, **kwargs).arguments
        told |= told.pop("kwargs", {})
        cache = told.get("past_key_values")
        cursor.past = 0 if cache is None else int(cache.get_seq_length())
        cursor.positions = absolute(told, cursor.past)

    handle = model.body.register_forward_pre_hook(place, with_kwargs=True)
    try:
        yield cursor
    finally:
        handle.remove()


def absolute(told: Mapping[str, Any], past: int) -> Int[Tensor, "batch pos"]:
    """Absolute positions of the tokens that a body is called with, ``-1`` for padding.

    The attention mask rules where it is given as ``[batch, pos]``, as it covers what is in the cache too; else the
    positions that the model is told, which do not mark padding (a static cache is used so); else the count of what the
    cache holds.
    """
    tokens = told.get("input_ids")
    tokens = told["inputs_embeds"] if tokens is None else tokens
    batch, pos = tokens.shape[:2]
    mask, places = told.get("attention_mask"), told.get("position_ids")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        mask = mask.long()
        return ((mask.cumsum(1) * mask) - 1)[:, -pos:]
    if isinstance(places, Tensor):
        return places.reshape(-1, pos).long().expand(batch, pos)
    return torch.arange(past, past + pos, device=tokens.device).expand(batch, pos)
