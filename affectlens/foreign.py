"""Activations from transformer-lens: what ``run_with_cache`` gave becomes what every part of AffectLens takes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from affectlens.errors import CaptureError, SiteError
from affectlens.sites import Site
from affectlens.store import Activations

_POSITIONS = ("mean", "last", "all")


def from_cache(
    cache: Any,
    *,
    items: pd.DataFrame | Sequence[str] | None = None,
    attention_mask: Tensor | None = None,
    positions: str | Iterable[str] = ("mean", "last", "all"),
    model: str = "transformer-lens cache",
    fingerprint: str = "",
) -> Activations:
    """Activations from a transformer-lens ``ActivationCache``, or any mapping from its names to tensors.

    Args:
        cache: ``{"blocks.0.hook_resid_post": [batch, pos, d_model], ...}``. Names that are no site of ours, and
            attention patterns, are left out.
        items: the battery's table or the texts, in the order of the batch.
        attention_mask: ``[batch, pos]``, 1 for tokens and 0 for padding on either side; without it all are tokens.
        positions: ``mean`` (without the first token), ``last``, ``all``; the first is the default of what follows.
        model: the name to go into reports.
        fingerprint: that of the model, if these are to meet probes or directions of the same model.

    Raises:
        CaptureError: no site of ours in the cache, or sizes that don't agree.
    """
    tensors = _sites(cache)
    if not tensors:
        raise CaptureError(
            "The cache holds no site that AffectLens knows; run_with_cache without a filter has them all."
        )
    batch, pos = next(iter(tensors.values())).shape[:2]
    if any(tensor.shape[:2] != (batch, pos) for tensor in tensors.values()):
        raise CaptureError("The cache's tensors are not all [batch, pos, ...] of one size: leave remove_batch_dim out.")
    real = torch.ones(batch, pos, dtype=torch.bool) if attention_mask is None else attention_mask.bool().cpu()
    frame = _frame(items, batch)
    if real.shape != (batch, pos) or len(frame) != batch or not real.any(1).all():
        raise CaptureError(
            f"The cache has {batch} texts of {pos} tokens; items and attention_mask must agree with that."
        )
    asked = [positions] if isinstance(positions, str) else list(positions)
    if not asked or set(asked) - set(_POSITIONS):
        raise CaptureError(f"Of a cache there are the positions {', '.join(_POSITIONS)}, not {asked}.")
    layers: dict[str, list[int]] = {}
    for site in sorted(tensors):
        layers.setdefault(site.what, []).append(site.layer)
    values: dict[str, dict[str, np.ndarray]] = {}
    for what in layers:
        stacked = torch.stack([tensors[s] for s in sorted(tensors) if s.what == what], dim=2).float().cpu()
        values[what] = {position: _pool(stacked, real, position) for position in asked}
    values = dict(sorted(values.items(), key=lambda pair: pair[0] != "resid_post"))  # the default comes first
    offsets = np.concatenate([[0], real.sum(1).cumsum(0).numpy()]).astype(np.int64)
    kept = {what: tuple(group) for what, group in layers.items()}
    return Activations(values, kept, frame, model, fingerprint, "cache", "", np.zeros(0, dtype=np.int32), offsets)


def _sites(cache: Any) -> dict[Site, Tensor]:
    found: dict[Site, Tensor] = {}
    for name in cache.keys():  # noqa: SIM118 - an ActivationCache iterates over something else
        try:
            site = Site.parse(str(name))
        except SiteError:
            continue
        if site.kind != "pattern" and cache[name].ndim >= 3:
            found.setdefault(site, cache[name].detach())
    return found


def _frame(items: pd.DataFrame | Sequence[str] | None, batch: int) -> pd.DataFrame:
    if isinstance(items, pd.DataFrame):
        return items
    names = [f"t{i}" for i in range(batch)] if items is None else [f"t{i}" for i in range(len(items))]
    return pd.DataFrame({"id": names} if items is None else {"id": names, "text": list(items)})


def _pool(stacked: Tensor, real: Tensor, position: str) -> np.ndarray:
    """``[item, layer, ...]`` or ``[token, layer, ...]`` from ``[item, pos, layer, ...]``."""
    if position == "all":
        return stacked[real].numpy()
    rows = []
    for values, mask in zip(stacked, real, strict=True):
        chosen = mask.nonzero()[:, 0]
        rows.append(values[chosen[-1:] if position == "last" else chosen[1:] if len(chosen) > 1 else chosen].mean(0))
    return torch.stack(rows).numpy()
