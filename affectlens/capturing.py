"""Capture: the residual stream of every text at every layer, pooled where it is computed.

One pass over the decoder body, without the language-model head. Texts are sorted by length and batched under a
budget of padded tokens; padding is on the right, where causal attention makes it invisible, so no mask is built.
Each block's output is reduced in its hook to one vector a text and position, so only ``[position, batch, d_model]``
leaves the block.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from affectlens import store
from affectlens.errors import CaptureError, StoreError
from affectlens.hooks import watch
from affectlens.model import LensModel
from affectlens.positions import check_positions, ending_start, weights
from affectlens.progress import tracked
from affectlens.quiet import quiet_transformers
from affectlens.sites import check_kind
from affectlens.store import Activations
from affectlens.texts import TextList
from affectlens.types import TextTable

TOKEN_BUDGET = 2048


@dataclass(frozen=True)
class Encoded:
    """One text, tokenised, with its pooling weights."""

    ids: list[int]
    weights: Float[np.ndarray, "position pos"]


def capture(
    model: LensModel,
    battery: TextTable | Iterable[str],
    *,
    sites: str = "resid_post",
    positions: str | Sequence[str] = ("mean", "ending"),
    token_budget: int = TOKEN_BUDGET,
    cache: bool = True,
    progress: bool | None = None,
) -> Activations:
    """Activations of every item at every layer, pooled over tokens.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: a battery, or plain texts.
        sites: ``resid_post``, the residual stream after each block.
        positions: one or more of ``mean``, ``last``, ``ending`` (the last sentence, or the item's own ending); the
            first is the default of what follows. All come from the same pass.
        token_budget: padded tokens a batch.
        cache: keep and reuse results in the cache folder; an interrupted capture then continues.
        progress: show a bar; by default where a person is looking.

    Returns:
        :class:`Activations`, ``[item, layer, d_model]`` in float32 for each position.

    Raises:
        CaptureError: no texts, a text with no tokens, or one longer than the model's context.
    """
    if isinstance(battery, str):
        raise CaptureError("capture takes a battery or a list of texts: put a single text into a list.")
    table = battery if isinstance(battery, TextTable) else TextList(list(battery))
    kind, names = (
        check_kind(sites),
        check_positions(positions if isinstance(positions, str) else tuple(positions)),
    )
    frame = table.frame()
    if frame.empty:
        raise CaptureError(f"{table.name} has no items: there is nothing to capture.")
    address = store.key(model.fingerprint, table.sha256, kind, names)
    if cache and (kept := _kept(address)) is not None:
        return replace(kept, items=frame, model=model.name, battery=table.name)
    encoded = encode(model, frame, names)
    plan = plan_batches([len(e.ids) for e in encoded], token_budget)
    batches = store.Batches(address, plan) if cache else None
    values = np.empty((len(names), len(encoded), model.n_layers, model.d_model), dtype=np.float32)
    for index, rows in enumerate(tracked(plan, f"capturing {kind}", show=progress)):
        done = batches.read(index) if batches else None
        pooled = done["pooled"] if done else run_batch(model, [encoded[row] for row in rows])
        if batches and not done:
            batches.write(index, {"pooled": pooled})
        values[:, rows] = pooled
    acts = Activations(
        dict(zip(names, values, strict=True)),
        frame,
        kind,
        model.name,
        model.fingerprint,
        table.name,
        table.sha256,
    )
    if batches:
        acts.put(store.folder(address))
        batches.clear()
    return acts


def encode(model: LensModel, frame: pd.DataFrame, positions: tuple[str, ...]) -> list[Encoded]:
    """Tokenise every text and lay out its pooling weights."""
    texts = [str(text) for text in frame["text"]]
    given = frame["ending"] if "ending" in frame else [ending_start(text) for text in texts]
    with quiet_transformers():  # it would warn of long texts; we refuse them by name
        batch = model.tokenizer(texts, return_offsets_mapping=True, return_special_tokens_mask=True)
    out = []
    for i, (name, ending) in enumerate(zip(frame["id"], given, strict=True)):
        ids, special = batch["input_ids"][i], np.array(batch["special_tokens_mask"][i], dtype=bool)
        if special.all():
            raise CaptureError(f"Item {name!r} has no tokens: every text needs at least one.")
        if len(ids) > model.n_ctx:
            raise CaptureError(
                f"Item {name!r} has {len(ids)} tokens and the context of {model.name} holds {model.n_ctx}: "
                "shorten the text or leave the item out."
            )
        spans = batch["offset_mapping"][i]
        pool = np.stack([weights(p, spans, special, int(ending)) for p in positions])
        out.append(Encoded(ids, pool))
    return out


def plan_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Rows by batch: longest first, so that a batch too large for memory shows at once; ties in the given order.

    >>> plan_batches([3, 9, 4, 8], budget=18)
    [[1, 3], [2, 0]]
    """
    plan: list[list[int]] = []
    width = 0
    for row in sorted(range(len(lengths)), key=lambda r: -lengths[r]):
        if plan and (len(plan[-1]) + 1) * width <= budget:
            plan[-1].append(row)
        else:
            plan.append([row])
            width = lengths[row]
    return plan


@torch.inference_mode()
def run_batch(model: LensModel, batch: list[Encoded]) -> Float[np.ndarray, "position item layer d_model"]:
    """One forward pass of the body; each block's output pooled in its hook."""
    width = max(len(e.ids) for e in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    pool = torch.zeros(batch[0].weights.shape[0], len(batch), width)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        pool[:, row, : len(item.ids)] = torch.from_numpy(item.weights)
    pool = pool.to(model.device)
    out = torch.empty(*pool.shape[:2], model.n_layers, model.d_model)
    with watch(model.blocks, partial(_pool_into, out, pool)):
        model.body(input_ids=ids.to(model.device), use_cache=False)
    return out.numpy()


def _pool_into(out: Tensor, pool: Tensor, layer: int, resid: Tensor) -> None:
    weight = pool.to(resid.device)
    out[:, :, layer] = einsum(weight, resid.float(), "position item pos, item pos d -> position item d").cpu()


def _kept(address: str) -> Activations | None:
    folder = store.folder(address)
    if not folder.exists():
        return None
    try:
        return Activations.load(folder)
    except StoreError:
        import shutil

        shutil.rmtree(folder)  # damaged: it is ours, and is computed again from the model
        return None
