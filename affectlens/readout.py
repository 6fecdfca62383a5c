"""From hidden states to the log-probabilities of verbalisers and labels: the parts that patching can use by themselves.

A batch of prompts runs once, padded on the left: each prompt's last token is then in the last column, and a sliding
window, which counts columns, sees the distances that it sees without padding. Logits are made at that column alone. The
further tokens of a verbaliser continue from a copy of the key-value cache, one short pass a verbaliser.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.errors import ModelError
from affectlens.model import LensModel
from affectlens.verbalisers import Prompt


def token_logprobs(
    logits: Float[Tensor, "*row d_vocab"], ids: Int[Tensor, "*row token"]
) -> Float[Tensor, "*row token"]:
    """The log-probabilities of chosen tokens, in float32 whatever the model's dtype; gradients pass through.

    Args:
        logits: of the position before the tokens.
        ids: the tokens.
    """
    wide = logits.float()
    return wide.gather(-1, ids) - wide.logsumexp(-1, keepdim=True)


def pool_labels(values: Float[Tensor, "*row verbaliser"], owners: Sequence[int]) -> Float[Tensor, "*row label"]:
    """Log-sum-exp over the verbalisers of each label; gradients pass through.

    Args:
        values: log-probabilities of verbalisers.
        owners: each verbaliser's label, as a number from 0; every label has one.
    """
    columns = [[i for i, owner in enumerate(owners) if owner == label] for label in range(max(owners) + 1)]
    return torch.stack([values[..., chosen].logsumexp(-1) for chosen in columns], dim=-1)


@torch.inference_mode()
def score_batch(model: LensModel, batch: list[Prompt]) -> Float[Tensor, "item verbaliser"]:
    """log P(verbaliser | prompt) in float64. Hooks on the model see both kinds of pass, the prompts' first.

    Args:
        model: the model.
        batch: prompts of any lengths.

    Raises:
        ModelError: verbalisers of several tokens on a model without a key-value cache.
    """
    width = max(len(prompt.ids) for prompt in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(batch):
        ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, width - len(prompt.ids) :] = 1
    several = any(len(tail) > 1 for prompt in batch for tail in prompt.tails)
    logits, cache = _forward(model, ids, mask, keep=1, cache=None, use_cache=several)
    first = torch.tensor([[tail[0] for tail in prompt.tails] for prompt in batch], device=logits.device)
    total = token_logprobs(logits[:, -1], first).double()
    if several and cache is None:
        raise ModelError(f"{model.name} keeps no key-value cache: give verbalisers of one token each.")
    for column in range(total.shape[1]):
        tails = [prompt.tails[column] for prompt in batch]
        if (longest := max(map(len, tails))) > 1:
            total[:, column] += _continue(model, mask, cache, tails, longest)
    return total


def _continue(
    model: LensModel, mask: Int[Tensor, "item pos"], cache: Any, tails: list[tuple[int, ...]], longest: int
) -> Float[Tensor, " item"]:
    """The summed log-probabilities of each tail's second and later tokens. Short tails are padded on the right."""
    steps = torch.zeros(len(tails), longest, dtype=torch.long)
    real = torch.zeros_like(steps)
    for row, tail in enumerate(tails):
        steps[row, : len(tail)] = torch.tensor(tail)
        real[row, : len(tail)] = 1
    longer = torch.cat((mask, real[:, :-1]), dim=1)
    logits, _ = _forward(model, steps[:, :-1], longer, keep=longest - 1, cache=copy.deepcopy(cache), use_cache=True)
    later = token_logprobs(logits, steps[:, 1:, None].to(logits.device))[..., 0]
    return (later.double() * real[:, 1:].to(logits.device)).sum(1)


def _forward(
    model: LensModel,
    ids: Int[Tensor, "item pos"],
    mask: Int[Tensor, "item whole"],
    *,
    keep: int,
    cache: Any,
    use_cache: bool,
) -> tuple[Float[Tensor, "item kept d_vocab"], Any]:
    """Logits of the last ``keep`` positions, and the cache; by the model's own forward, whose head may cap or scale."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = model.hf(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        use_cache=use_cache,
        logits_to_keep=keep,
    )
    return out.logits[:, -keep:], getattr(out, "past_key_values", None)
