"""What prompts share is read once: each goes on from a copy of the keys and values of their common first tokens.

Few-shot prompts of one fold share their exemplars, which are most of their tokens. The common prefix is found in the
tokens, whatever template wrote them. After it, prompts run in batches of equal length: nothing is padded, so positions
and sliding windows, which count columns, see the distances of the whole prompt read at once.

A cache that is not made of keys and values alone (state-space models) can't be copied so, and hooks that edit the model
count on whole prompts: those prompts are read in full. Both ways agree to 1e-4 in float32.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.capturing import budget, plan_batches
from affectlens.model import LensModel
from affectlens.progress import tracked
from affectlens.readout import score_batch, token_logprobs
from affectlens.verbalisers import Prompt

SHORTEST = 16  # tokens: below, copying costs more than reading


def shared_length(prompts: Sequence[Prompt]) -> int:
    """How many first tokens all prompts share, so that each keeps at least one of its own; 0 for a single prompt.

    >>> shared_length([Prompt((7, 8, 9), ((1,),)), Prompt((7, 8), ((1,),))])
    1
    """
    if len(prompts) < 2:
        return 0
    low, high = min(p.ids for p in prompts), max(p.ids for p in prompts)  # all others lie between in the dictionary
    most = min(len(p.ids) for p in prompts) - 1
    return next((i for i in range(most) if low[i] != high[i]), most)


def tokens_read(prompts: Sequence[Prompt]) -> int:
    """The tokens that :func:`score_lists` runs for prompts that share a prefix, verbalisers not counted."""
    shared = _worthwhile(prompts)
    return shared + sum(len(prompt.ids) - shared for prompt in prompts)


@torch.inference_mode()
def score_lists(
    model: LensModel,
    lists: Sequence[Sequence[Prompt]],
    *,
    token_budget: int | None = None,
    progress: bool | None = None,
) -> list[Float[Tensor, "item verbaliser"]]:
    """log P(verbaliser | prompt) of lists of prompts, each list's common first tokens read once.

    Memory: a batch holds the keys and values of its prompts, the shared ones too, and while verbalisers of several
    tokens are read, copies of them for as many verbalisers at a time as fit into twice the budget, at least one.

    Args:
        model: from :func:`affectlens.load_model`.
        lists: prompts from :func:`affectlens.verbalisers.encode_prompts`, with equal numbers of verbalisers in a list.
        token_budget: tokens a batch, the shared ones left out; as for :func:`affectlens.capture`.
        progress: show a bar; by default where a person is looking.

    Returns:
        One matrix a list, in float64 on the processor.

    Raises:
        ModelError: verbalisers of several tokens on a model without a key-value cache.
    """
    most = budget(model, token_budget)
    copied = not model.editing and _copies(model)
    shared = [_worthwhile(prompts) if copied else 0 for prompts in lists]
    out = [torch.empty(len(prompts), len(prompts[0].tails), dtype=torch.float64) for prompts in lists]
    steps = [(k, rows) for k, prompts in enumerate(lists) for rows in _plan(prompts, shared[k], most)]
    ready: dict[int, Any] = {}
    for k, rows in tracked(steps, "asking", show=progress):
        batch = [lists[k][row] for row in rows]
        if not shared[k]:
            out[k][rows] = score_batch(model, batch).cpu()
            continue
        if k not in ready:  # the last list's prefix is let go
            ready = {k: _forward(model, torch.tensor([batch[0].ids[: shared[k]]]), None, 0, keep=1)[1]}
        out[k][rows] = _go_on(model, ready[k], shared[k], batch, most).cpu()
    return out


def _worthwhile(prompts: Sequence[Prompt]) -> int:
    length = shared_length(prompts)
    return length if length >= SHORTEST else 0


def _plan(prompts: Sequence[Prompt], shared: int, most: int) -> Iterator[list[int]]:
    """Batches, the longest prompts first; of one length each where they go on from a prefix."""
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row].ids))
    for _, same in groupby(order, key=lambda row: len(prompts[row].ids) if shared else 0):
        rows = list(same)
        for part in plan_batches([len(prompts[row]) - shared for row in rows], most):
            yield [rows[i] for i in part]


def _copies(model: LensModel) -> bool:
    """Whether the model keeps a cache of keys and values and of nothing else."""
    from transformers import cache_utils

    _, cache = _forward(model, torch.zeros(1, 2, dtype=torch.long), None, 0, keep=1)
    plain: Any = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
    return isinstance(cache, cache_utils.DynamicCache) and all(type(layer) in plain for layer in cache.layers)


def _go_on(
    model: LensModel, prefix: Any, shared: int, batch: list[Prompt], most: int
) -> Float[Tensor, "item verbaliser"]:
    """Score prompts of one length from a copy of their prefix; tails of several tokens go on side by side."""
    cache = copy.deepcopy(prefix)
    cache.batch_repeat_interleave(len(batch))
    length = len(batch[0].ids)
    own = torch.tensor([prompt.ids[shared:] for prompt in batch])
    logits, cache = _forward(model, own, cache, shared, keep=1)
    first = torch.tensor([[tail[0] for tail in prompt.tails] for prompt in batch], device=logits.device)
    total = token_logprobs(logits[:, -1], first).double()
    longest = [max(len(prompt.tails[column]) for prompt in batch) for column in range(total.shape[1])]
    several = sorted((c for c, tokens in enumerate(longest) if tokens > 1), key=lambda c: longest[c])
    step = max(1, 2 * most // (len(batch) * length))
    for columns in (several[i : i + step] for i in range(0, len(several), step)):
        tails = [prompt.tails[column] for prompt in batch for column in columns]
        again = copy.deepcopy(cache)
        again.batch_repeat_interleave(len(columns))
        total[:, columns] += _later(model, again, length, tails).reshape(len(batch), len(columns))
    return total


def _later(model: LensModel, cache: Any, past: int, tails: list[tuple[int, ...]]) -> Float[Tensor, " tail"]:
    """The summed log-probabilities of each tail's second and later tokens. Short ones are padded behind, unseen."""
    width = max(map(len, tails))
    ids = torch.tensor([[*tail, *[0] * (width - len(tail))] for tail in tails])
    real = torch.tensor([[place < len(tail) for place in range(1, width)] for tail in tails])
    logits, _ = _forward(model, ids[:, :-1], cache, past, keep=width - 1)
    later = token_logprobs(logits, ids[:, 1:, None].to(logits.device))[..., 0].double()
    return (later * real.to(later.device)).sum(1)


def _forward(
    model: LensModel, ids: Tensor, cache: Any, past: int, *, keep: int
) -> tuple[Float[Tensor, "item kept d_vocab"], Any]:
    """Logits of the last ``keep`` positions and the cache, after ``past`` tokens."""
    rows, width = ids.shape
    out = model.hf(
        input_ids=ids.to(model.device),
        attention_mask=torch.ones(rows, past + width, dtype=torch.long, device=model.device),
        position_ids=torch.arange(past, past + width, device=model.device).expand(rows, width),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    return out.logits[:, -keep:], getattr(out, "past_key_values", None)
