"""How a site is reached in a model: found by running the model, not by a table of module names.

One short pass records what goes in and out of every module of each block, and :mod:`affectlens.anatomy` tells from that
which are which. A second one, with eager attention, sees which attention modules report their weights. What is found is
a set of modules, so it holds for every later input. A user's own hooks are off meanwhile: they would bend the laws.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from affectlens.anatomy import Call, Parts, dissect
from affectlens.quiet import quiet_transformers

if TYPE_CHECKING:
    from affectlens.model import LensModel

PROBE = "Rain fell on the roof of the mill all night, and by morning the lane was under water."


@dataclass(frozen=True)
class Tap:
    """Where a site is: the input or the output of a module."""

    module: nn.Module
    side: str  # "in", "out", or "weights" for the second output of an attention module
    width: int  # the size of the value's last axis
    base: nn.Module | None = None  # to edit resid_mid: its input is added to the output of ``adds``
    adds: nn.Module | None = None


Table = dict[tuple[int, str], Tap]


def first(value: Any) -> Any:
    """The hidden states in a module's output, which some families wrap in a tuple."""
    return value[0] if isinstance(value, tuple | list) and value else value


def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden states among a module's arguments."""
    return args[0] if args else kwargs.get("hidden_states")


@torch.inference_mode()
def discover(model: "LensModel") -> Table:
    """Every site of every block, as ``(layer, kind) -> Tap``.

    ``resid_pre`` and ``resid_post`` are there for all blocks; others where the block has them.
    """
    ids = model.tokenizer(PROBE, return_tensors="pt").input_ids[:, :16].to(model.device)
    with _bare(model):
        calls = _calls(model, ids)
        parts = [dissect(seen) for seen in calls]
        known = frozenset(one.names for one in parts if one.names)
        parts = [one if one.names else dissect(seen, known) for one, seen in zip(parts, calls, strict=True)]
        weights = _reporting(model, parts, ids)
    table: Table = {}
    for layer, (block, one) in enumerate(zip(model.blocks, parts, strict=True)):
        table[layer, "resid_pre"] = Tap(block, "in", model.d_model)
        table[layer, "resid_post"] = Tap(block, "out", model.d_model)
        for kind, call in (("attn_out", one.attn_out), ("mlp_out", one.mlp_out)):
            if call:
                table[layer, kind] = Tap(call.module, "out", model.d_model)
        if one.mid and one.attn_out and one.entry:
            table[layer, "resid_mid"] = Tap(one.mid.module, "in", model.d_model, one.entry.module, one.attn_out.module)
        if one.down:
            table[layer, "neurons"] = Tap(one.down.module, "in", one.down.given.shape[-1])
        if one.attention and one.attention.module in weights:
            table[layer, "pattern"] = Tap(one.attention.module, "weights", model.n_heads)
        if model.n_heads and one.heads and one.attention and one.heads.given.shape[-1] % model.n_heads == 0:
            name = type(one.attention.module).__name__.lower()
            if one.attention.module in weights or "attention" in name or "attn" in name:
                table[layer, "z"] = Tap(one.heads.module, "in", one.heads.given.shape[-1])
    return table


def _calls(model: "LensModel", ids: Tensor) -> list[list[Call]]:
    """What each module of each block was given and gave, in one pass."""
    calls: list[list[Call]] = [[] for _ in model.blocks]
    with ExitStack() as handles:
        for layer, block in enumerate(model.blocks):
            for name, module in block.named_modules():
                before, after = _keepers(calls[layer], name)
                handles.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
                handles.callback(module.register_forward_hook(after).remove)
        model.body(input_ids=ids, use_cache=False)
    return calls


def _keepers(calls: list[Call], name: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Copies, as some families compute in place; the input is taken before the module runs."""
    entered: list[Any] = []

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = given(args, kwargs)
        entered.append(x.clone() if isinstance(x, Tensor) else None)

    def after(module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        x, y = entered.pop(), first(output)
        if isinstance(x, Tensor) and isinstance(y, Tensor) and x.is_floating_point():
            calls.append(Call(name, module, x.to(y.device), y.clone()))

    return before, after


def _reporting(model: "LensModel", parts: list[Parts], ids: Tensor) -> set[nn.Module]:
    """The attention modules whose second output, under eager attention, is ``[batch, head, query, key]``."""
    found: set[nn.Module] = set()
    shape = (1, model.n_heads, ids.shape[1], ids.shape[1])

    def see(module: nn.Module, _args: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.shape == shape:
            found.add(module)

    with ExitStack() as handles, quiet_transformers():
        for one in parts:
            if one.attention:
                handles.callback(one.attention.module.register_forward_hook(see).remove)
        with eager(model):
            model.body(input_ids=ids, use_cache=False)
    return found


@contextmanager
def eager(model: "LensModel") -> Iterator[None]:
    """Attention that reports its weights, and afterwards the one that was there."""
    before = model.hf.config.get_text_config()._attn_implementation
    model.hf.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.hf.set_attn_implementation(before)


@contextmanager
def _bare(model: "LensModel") -> Iterator[None]:
    """The model without anybody's hooks, which are all back afterwards."""
    kept = [(m, m._forward_hooks, m._forward_pre_hooks) for m in model.hf.modules()]
    try:
        for module, _, _ in kept:
            module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()
        yield
    finally:
        for module, after, before in kept:
            module._forward_hooks, module._forward_pre_hooks = after, before


def foreign_hooks(model: "LensModel") -> bool:
    """Whether somebody else's hooks are on the model, which may change what it computes.

    transformers, accelerate and peft leave hooks of their own, which belong to the model.
    """
    ours = ("affectlens.", "transformers.", "accelerate.", "peft.")
    for module in model.hf.modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if not str(getattr(hook, "__module__", "")).startswith(ours):
                return True
    return bool(_global_forward_hooks or _global_forward_pre_hooks)
