"""Writing replies with a model, by Hugging Face's own ``generate``, the same whatever else is in the batch.

Sampling is by the Gumbel-max trick: the likeliest token after adding noise to the logits is a sample (Gumbel 1954;
Maddison et al. 2014). Each text's noise is seeded by itself and by the step, so a text's reply does not depend on the
batch it is in, and two models that write to the same prompt under the same seed share their luck.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.errors import CaptureError
from affectlens.layouts import Layout
from affectlens.model import LensModel
from affectlens.quiet import quiet_transformers


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen: the likeliest at temperature 0, above it sampled from the likeliest ``top_p``."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise CaptureError(
                "A reply needs max_new_tokens of 1 or more, a temperature of 0 or more and top_p above 0, up to 1."
            )


def generate(
    model: LensModel,
    batch: Sequence[Layout],
    how: Decoding,
    *,
    keys: Sequence[int] | None = None,
    streamer: Any = None,
    halted: Event | None = None,
) -> list[list[int]]:
    """The token ids of a reply to each prompt, the model's end token included where it wrote one.

    Args:
        model: the model; hooks on it take part.
        batch: prompts, which are padded on the left.
        how: how tokens are chosen. Penalties and beams of the model's own generation configuration are not used.
        keys: a number a prompt that its noise is seeded by, besides ``how.seed``; by default 0, 1, ...
        streamer: as ``generate`` of transformers takes it.
        halted: once it is set, nothing more is written.

    Raises:
        CaptureError: a reply that does not fit into the context.
    """
    from transformers import GenerationConfig

    check_fit(model, batch, how.max_new_tokens)
    ids, mask = padded(model, batch)
    ends = end_tokens(model)
    config = GenerationConfig(
        max_new_tokens=how.max_new_tokens, eos_token_id=ends or None, pad_token_id=pad_token(model), do_sample=False
    )
    luck = [Luck(how, list(keys) if keys is not None else list(range(len(batch))), ids.shape[1])]
    with quiet_transformers(), configured(model, config), torch.inference_mode():
        out = model.hf.generate(
            ids.to(model.device), attention_mask=mask.to(model.device), streamer=streamer,
            logits_processor=luck if how.temperature else None,
            stopping_criteria=None if halted is None else [lambda rows, _scores, **_more: torch.full(
                (len(rows),), halted.is_set(), device=rows.device)],
        )  # fmt: skip
    return [_until_end(row, ends) for row in out[:, ids.shape[1] :].tolist()]


class Luck:
    """A logits processor that makes the likeliest token a sample; ``keys`` seed the rows' noise."""

    def __init__(self, how: Decoding, keys: list[int], width: int) -> None:
        self.how, self.keys, self.width = how, keys, width

    def __call__(
        self, ids: Int[Tensor, "row pos"], scores: Float[Tensor, "row d_vocab"]
    ) -> Float[Tensor, "row d_vocab"]:
        return self.at(ids.shape[1] - self.width, scores)

    def at(self, step: int, scores: Float[Tensor, "row d_vocab"]) -> Float[Tensor, "row d_vocab"]:
        """Scores whose likeliest token is a sample, of the reply's token ``step``."""
        logits = scores.float() / self.how.temperature
        if self.how.top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True)
            share = ordered.softmax(-1)
            late = share.cumsum(-1) - share >= self.how.top_p
            logits = logits.masked_fill(torch.zeros_like(late).scatter(1, order, late), -1e30)
        rows = sorted(set(self.keys))
        noise = {key: self._noise(key, step, logits.shape[1]) for key in rows}
        return logits + torch.stack([noise[key] for key in self.keys]).to(logits.device)

    def _noise(self, key: int, step: int, size: int) -> Float[Tensor, " d_vocab"]:
        seed = int(np.random.SeedSequence([self.how.seed, key, step]).generate_state(1, np.uint64)[0] >> 1)
        uniform = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return -(-uniform.clamp(min=1e-300).log()).log().float()


def pick(logits: Float[Tensor, " d_vocab"], how: Decoding, *, step: int, key: int = 0) -> int:
    """The reply's token ``step``, as :func:`generate` chooses it.

    Args:
        logits: of one text.
        how: how tokens are chosen.
        step: how many tokens the reply has.
        key: what its noise is seeded by, besides ``how.seed``.
    """
    scores = logits[None]
    return int((Luck(how, [key], 0).at(step, scores) if how.temperature else scores).argmax())


def padded(model: LensModel, batch: Sequence[Layout]) -> tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]:
    """Prompts as one batch, padded on the left, and its attention mask."""
    width = max(len(item) for item in batch)
    ids = torch.full((len(batch), width), pad_token(model))
    mask = torch.zeros_like(ids)
    for row, item in enumerate(batch):
        ids[row, width - len(item) :] = torch.tensor(item.ids)
        mask[row, width - len(item) :] = 1
    return ids, mask


def check_fit(model: LensModel, batch: Sequence[Layout], most: int) -> None:
    """Raise a :class:`CaptureError` if ``most`` more tokens don't fit behind the longest prompt."""
    longest = max(batch, key=len)
    if len(longest) + most > model.n_ctx:
        raise CaptureError(
            f"Item {longest.name!r} has {len(longest)} tokens, and {most} more do not fit into the context "
            f"of {model.name}, {model.n_ctx}: ask for fewer, or shorten it."
        )


@contextmanager
def configured(model: LensModel, config: Any) -> Iterator[None]:
    """The model with another generation configuration: transformers would fill ours up from its own."""
    own = model.hf.generation_config
    with model.lock:
        model.hf.generation_config = config
        try:
            yield
        finally:
            model.hf.generation_config = own


def end_tokens(model: LensModel) -> list[int]:
    """The ids that end a reply."""
    own = getattr(model.hf.generation_config, "eos_token_id", None)
    listed = [] if own is None else own if isinstance(own, list) else [own]
    also = model.tokenizer.eos_token_id
    return list(dict.fromkeys([*listed, *([also] if also is not None else [])]))


def pad_token(model: LensModel) -> int:
    """The id that batches are padded with: the tokenizer's, or else an end token, or 0."""
    own = model.tokenizer.pad_token_id
    return int(own if own is not None else (end_tokens(model) or [0])[0])


def _until_end(reply: list[int], ends: list[int]) -> list[int]:
    at = next((i for i, token in enumerate(reply) if token in ends), len(reply) - 1)
    return reply[: at + 1]
