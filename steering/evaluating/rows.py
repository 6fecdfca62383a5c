"""Many replies at once: each row of a batch is steered by vectors of its own, so doses and placebos share a batch.

A sweep over emotions, doses and placebo draws is then as fast as plain batched generation. A row's reply is the one
that :func:`affectlens.steering.write` gives for it alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.capturing import budget, plan_batches
from affectlens.cursors import Cursor, following
from affectlens.generating import Decoding, generate
from affectlens.hooks import attach
from affectlens.layouts import Layout
from affectlens.model import LensModel
from affectlens.progress import tracked
from affectlens.readout import token_logprobs
from affectlens.sites import Site

TOKENS = 4096  # a batch's, padded: while it writes, a batch costs memory traffic more than arithmetic


@dataclass(frozen=True, eq=False)
class Scaling:
    """``h + slope * h + shift`` at every token but a sequence's first: what the operator ``scale`` does, as one map."""

    slope: Float[np.ndarray, " d"]
    shift: Float[np.ndarray, " d"]


Addition = Mapping[Site, np.ndarray | Scaling]  # what is added at every token, [d] a site, heads laid end to end


@dataclass(frozen=True, eq=False)
class Row:
    """One reply to be written."""

    prompt: int  # which of the prompts, and what its sampling noise is seeded by
    addition: Addition


@contextmanager
def added(model: LensModel, additions: Sequence[Addition]) -> Iterator[None]:
    """Add to each row of the batches inside the ``with`` its own vectors, at every token; or scale its own parts."""
    sites = sorted({site for addition in additions for site in addition})
    scaling = any(isinstance(change, Scaling) for addition in additions for change in addition.values())
    with ExitStack() as handles:
        cursor = handles.enter_context(following(model)) if scaling else None
        for site in sites:
            none = np.zeros(int(np.prod(model.sites.shape(site))))
            changes = [addition.get(site, none) for addition in additions]
            each = _stacked([none if isinstance(one, Scaling) else one for one in changes])
            attach(handles, model.sites.find(site), partial(_add, model, site, each), writing=True)
            if cursor is not None and any(isinstance(one, Scaling) for one in changes):
                slope = _stacked([one.slope if isinstance(one, Scaling) else none for one in changes])
                shift = _stacked([one.shift if isinstance(one, Scaling) else none for one in changes])
                act = partial(_scale, model, site, slope, shift, cursor)
                attach(handles, model.sites.find(site), act, writing=True)
        handles.enter_context(model.edited())
        yield


def _add(model: LensModel, site: Site, each: Float[Tensor, "row d"], value: Tensor) -> Tensor:
    part = model.sites.part(site, value)
    more = each.to(value.device, value.dtype).reshape(each.shape[0], 1, *part.shape[2:])
    return model.sites.with_part(site, value, part + more)


def _scale(
    model: LensModel, site: Site, slope: Float[Tensor, "row d"], shift: Float[Tensor, "row d"], cursor: Cursor,
    value: Tensor,
) -> Tensor:  # fmt: skip
    part = model.sites.part(site, value)
    h = part.reshape(*value.shape[:2], -1).float()
    acts = (cursor.positions > 0).to(h.device)[..., None]
    more = acts * (slope.to(h.device)[:, None] * h + shift.to(h.device)[:, None])
    return model.sites.with_part(site, value, part + more.to(part.dtype).reshape(part.shape))


def _stacked(arrays: Sequence[np.ndarray]) -> Float[Tensor, "row d"]:
    return torch.as_tensor(np.stack([np.asarray(one, dtype=np.float32) for one in arrays]))


def write_rows(
    model: LensModel, prompts: Sequence[Layout], rows: Sequence[Row], how: Decoding, *, progress: bool | None = None
) -> list[list[int]]:
    """The reply's token ids of each row.

    Args:
        model: the model.
        prompts: laid out.
        rows: which prompt, steered how.
        how: how tokens are chosen; rows of one prompt share their luck.
        progress: show a bar; by default where a person is looking.
    """
    replies: list[list[int]] = [[] for _ in rows]
    plan = plan_batches([len(prompts[r.prompt]) + how.max_new_tokens for r in rows], max(TOKENS, budget(model, None)))
    for chosen in tracked(plan, "replies", show=progress):
        mine = [rows[i] for i in chosen]
        with added(model, [r.addition for r in mine]):
            written = generate(model, [prompts[r.prompt] for r in mine], how, keys=[r.prompt for r in mine])
        for i, ids in zip(chosen, written, strict=True):
            replies[i] = ids
    return replies


@torch.inference_mode()
def reply_nll(
    model: LensModel, prompts: Sequence[Layout], of: Sequence[int], replies: Sequence[Sequence[int]],
    *, progress: bool | None = None,
) -> Float[np.ndarray, " row"]:  # fmt: skip
    """Mean nats a token of each reply under the plain model; the prompt is read once for all its replies.

    Args:
        model: the model, without steering.
        prompts: laid out.
        of: the prompt of each reply.
        replies: token ids.
        progress: show a bar; by default where a person is looking.

    Returns:
        NaN for a reply without tokens.
    """
    found = np.full(len(replies), np.nan)
    jobs = []
    for prompt in sorted(set(of)):
        mine = [i for i, p in enumerate(of) if p == prompt and len(replies[i])]
        for part in plan_batches([len(replies[i]) for i in mine], budget(model, None)) if mine else []:
            jobs.append((prompt, [mine[j] for j in part]))
    for prompt, rows in tracked(jobs, "perplexity", show=progress):
        found[rows] = _after(model, prompts[prompt], [replies[i] for i in rows])
    return found


def _after(model: LensModel, prompt: Layout, replies: list[Sequence[int]]) -> Float[np.ndarray, " row"]:
    n, width = len(replies), max(map(len, replies))
    ids = torch.zeros(n, width, dtype=torch.long)
    real = torch.zeros(n, width)
    for row, reply in enumerate(replies):
        ids[row, : len(reply)] = torch.tensor(list(reply))
        real[row, : len(reply)] = 1
    ids, real = ids.to(model.device), real.to(model.device)
    head = torch.tensor([list(prompt.ids)], device=model.device)
    first = model.hf(input_ids=head, use_cache=True, logits_to_keep=1)
    cache = first.past_key_values
    cache.batch_repeat_interleave(n)
    mask = torch.cat((torch.ones(n, head.shape[1], device=model.device), real), dim=1)
    later = model.hf(input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=True).logits
    scores = torch.cat(
        (token_logprobs(first.logits[:, -1].expand(n, -1), ids[:, :1]),
         token_logprobs(later[:, :-1], ids[:, 1:, None])[..., 0]), dim=1,
    )  # fmt: skip
    return (-(scores * real).sum(1) / real.sum(1)).double().cpu().numpy()


@torch.inference_mode()
def text_nll(
    model: LensModel, texts: Sequence[Layout], rows: Sequence[Row], *, progress: bool | None = None
) -> Float[np.ndarray, " row"]:
    """Mean nats a token, but the first, of human texts as the steered model reads them.

    Args:
        model: the model.
        texts: laid out.
        rows: which text, steered how.
        progress: show a bar; by default where a person is looking.
    """
    found = np.full(len(rows), np.nan)
    plan = plan_batches([len(texts[r.prompt]) for r in rows], budget(model, None))
    for chosen in tracked(plan, "neutral texts", show=progress):
        mine = [rows[i] for i in chosen]
        width = max(len(texts[r.prompt]) for r in mine)
        ids = torch.zeros(len(mine), width, dtype=torch.long)
        real = torch.zeros(len(mine), width)
        for row, one in enumerate(mine):
            tokens = torch.tensor(list(texts[one.prompt].ids))
            ids[row, : len(tokens)], real[row, : len(tokens)] = tokens, 1
        ids, real = ids.to(model.device), real.to(model.device)
        with added(model, [r.addition for r in mine]):
            logits = model.hf(input_ids=ids, attention_mask=real.long(), use_cache=False).logits
        scores = token_logprobs(logits[:, :-1], ids[:, 1:, None])[..., 0] * real[:, 1:]
        found[chosen] = (-scores.sum(1) / real[:, 1:].sum(1)).double().cpu().numpy()
    return found
