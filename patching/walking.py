"""A model's blocks called one by one, with rows that join on the way, on a text's last positions alone.

A block's arguments beside its hidden states (position embeddings, masks, the cache) depend on the tokens' positions and
not on what is computed. So one pass of the body in which every block hands its input on gives them, in whatever form
the family has them; the mask and the cache are then exchanged for ours, and blocks run on what rows and positions we
like. The same trick gives the final norm and the head: all blocks hand on, and the last one hands out our stream.

Nothing is known of families here: :func:`affectlens.patching.choosing.check_engine` compares the outcome with the plain
model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.taps import first


@dataclass
class Memory:
    """Keys and values in place of a key-value cache: those of the positions before, for as many rows as there are.

    With ``keep`` what comes in is stored.
    """

    keys: dict[int, Tensor] = field(default_factory=dict)  # layer -> [1, head, pos, d_head]
    values: dict[int, Tensor] = field(default_factory=dict)
    before: int = 0  # how many positions of the stored ones go before the tokens in hand
    keep: bool = False
    is_compileable = False

    def update(self, keys: Tensor, values: Tensor, layer: int, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """What a family's attention calls to add its new keys and values, and to get all."""
        if self.keep:
            self.keys[layer], self.values[layer] = keys, values
            return keys, values
        return self._whole(self.keys[layer], keys), self._whole(self.values[layer], values)

    def _whole(self, stored: Tensor, new: Tensor) -> Tensor:
        if not self.before:
            return new
        return torch.cat((stored[:, :, : self.before].expand(new.shape[0], -1, -1, -1), new), dim=2)

    def get_seq_length(self, *_args: Any) -> int:
        """How many positions went before."""
        return self.before


@dataclass(frozen=True)
class Passage:
    """What the blocks are given beside their hidden states, and what enters the first of them."""

    x: Float[Tensor, "row pos d_model"]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]  # of each block: further arguments, and named ones


class Blocks:
    """The model's blocks, to be walked through.

    Raises:
        PatchError: a model whose blocks take no attention mask or no cache.
    """

    def __init__(self, model: LensModel) -> None:
        self.model = model
        self.widths = _output_lengths(model)

    def passage(self, ids: Int[Tensor, "row pos"], places: Int[Tensor, "row pos"]) -> Passage:
        """The arguments of the blocks for tokens at these absolute positions."""
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        entered: list[Tensor] = []

        def hand_on(layer: int, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            entered.append(x)
            calls.append((args, kwargs))
            return self._as_output(layer, x)

        device, real = self.model.device, torch.ones_like(ids)
        real[:, 0] = 0  # else some attention takes no mask at all, and there is nothing to exchange
        with self._instead(hand_on):
            self.model.body(
                input_ids=ids.to(device), position_ids=places.to(device), attention_mask=real.to(device),
                past_key_values=_Marker(), use_cache=True,
            )  # fmt: skip
        return Passage(entered[0], calls)

    def masks(self, length: int) -> list[Bool[Tensor, "query key"]]:
        """Which keys each block's queries may see, in a text of this length."""
        ids = torch.zeros(1, length + 1, dtype=torch.long)  # the first token is masked, and cut off
        passage = self.passage(ids, torch.arange(length + 1)[None])
        return [_allowed(args, kwargs)[1:, 1:] for args, kwargs in passage.calls]

    def step(
        self, layer: int, x: Float[Tensor, "row pos d_model"], passage: Passage, mask: Float[Tensor, "*row query key"],
        memory: Memory,
    ) -> Float[Tensor, "row pos d_model"]:  # fmt: skip
        """One block."""
        args, kwargs = passage.calls[layer]

        def ours(value: Any) -> Any:
            if isinstance(value, _Marker):
                return memory
            return mask if _is_mask(value) else value

        named = {name: ours(value) for name, value in kwargs.items()}
        out: Tensor = first(self.model.blocks[layer](x, *map(ours, args), **named))
        return out

    def head(self, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_vocab"]:
        """The logits of a stream that leaves the last block."""
        last = self.model.n_layers - 1

        def hand_out(layer: int, hidden: Tensor, *_args: Any, **_kwargs: Any) -> Any:
            return self._as_output(layer, x if layer == last else hidden)

        with self._instead(hand_out):
            logits: Tensor = self.model.hf(inputs_embeds=torch.zeros_like(x), use_cache=False).logits
        return logits

    def _as_output(self, layer: int, x: Tensor) -> Any:
        return x if self.widths[layer] is None else (x,) + (None,) * (self.widths[layer] - 1)

    @contextmanager
    def _instead(self, act: Callable[..., Any]) -> Iterator[None]:
        """Every block's ``forward`` replaced, and put back whatever happens."""
        blocks = list(self.model.blocks)
        own = [block.__dict__.get("forward") for block in blocks]
        try:
            for layer, block in enumerate(blocks):
                block.__dict__["forward"] = _bound(act, layer)
            yield
        finally:
            for block, before in zip(blocks, own, strict=True):
                del block.__dict__["forward"]
                if before is not None:
                    block.__dict__["forward"] = before


class _Marker(DynamicCache):  # type: ignore[misc]  # transformers is not typed
    """An empty cache, to be recognised among a block's arguments."""


def _bound(act: Callable[..., Any], layer: int) -> Callable[..., Any]:
    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return act(layer, hidden_states, *args, **kwargs)

    return forward


def _output_lengths(model: LensModel) -> list[Any]:
    """Of each block's output the length of its tuple; None is a tensor by itself."""
    found: list[Any] = []
    handles = [
        block.register_forward_hook(lambda _m, _a, out: found.append(len(out) if isinstance(out, tuple) else None))
        for block in model.blocks
    ]
    try:
        with torch.no_grad():
            model.body(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[1] == 1 and value.shape[2] == value.shape[3]


def _allowed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bool[Tensor, "query key"]:
    given = (*args, *kwargs.values())
    masks = [value[0, 0] for value in given if _is_mask(value)]
    if len(masks) != 1 or not any(isinstance(value, _Marker) for value in given):
        raise PatchError("The blocks take no attention mask or no key-value cache.")
    return masks[0] if masks[0].dtype == torch.bool else masks[0] >= 0
