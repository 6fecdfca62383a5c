"""How a site is reached in a model: found by running the model, not by a table of module names.

One short pass records what goes in and out of every module of each block, and :mod:`affectlens.anatomy` tells from that
which are which. A second one, with attention made explicit (:mod:`affectlens.attention`), hears the queries, keys and
values that attention gets, which :mod:`affectlens.heads` finds among the modules' outputs; sees which attention modules
report their weights; and, as weights times values are what heads give in it, shows by what attention gives whether
edited weights would be the model's own. What is found is a set of modules, so it holds for every later input. A user's
own hooks are off meanwhile: they would bend the laws.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from affectlens.anatomy import TOLERANCE, Call, Parts, dissect, off
from affectlens.attention import eager, explicit, hearing, is_explicit
from affectlens.errors import SiteError
from affectlens.heads import Heads, Heard, locate
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
    heads: Heads | None = None  # how heads lie in the value, where it has heads
    attends: nn.Module | None = None  # to edit a pattern: hands queries, keys and values to attention


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
    ids = _probe(model)
    with _bare(model):
        calls, parts = _dissected(model, ids)
        inside = _attentions(model, parts, calls, ids)
    table: Table = {}
    for layer, (block, one, attention) in enumerate(zip(model.blocks, parts, inside, strict=True)):
        table[layer, "resid_pre"] = Tap(block, "in", model.d_model)
        table[layer, "resid_post"] = Tap(block, "out", model.d_model)
        for kind, call in (("attn_out", one.attn_out), ("mlp_out", one.mlp_out)):
            if call:
                table[layer, kind] = Tap(call.module, "out", model.d_model)
        if one.mid and one.attn_out and one.entry:
            table[layer, "resid_mid"] = Tap(one.mid.module, "in", model.d_model, one.entry.module, one.attn_out.module)
        if one.down:
            table[layer, "neurons"] = Tap(one.down.module, "in", one.down.given.shape[-1])
        table |= {(layer, kind): tap for kind, tap in attention.items()}
        z = _z(model, one, reports="pattern" in attention)
        if z:
            table[layer, "z"] = z
    return table


@torch.inference_mode()
def observed(model: "LensModel") -> tuple[list[list[Call]], list[Parts]]:
    """Of each block the calls of its modules in one short pass, and its parts."""
    with _bare(model):
        return _dissected(model, _probe(model))


def _probe(model: "LensModel") -> Tensor:
    """Two short texts, for what is compared at the first token."""
    ids = model.tokenizer(PROBE, return_tensors="pt").input_ids[:, :16].to(model.device)
    return torch.cat((ids, ids.flip(1)))


def _dissected(model: "LensModel", ids: Tensor) -> tuple[list[list[Call]], list[Parts]]:
    calls = _calls(model, ids)
    parts = [dissect(seen) for seen in calls]
    known = frozenset(one.names for one in parts if one.names)
    return calls, [one if one.names else dissect(seen, known) for one, seen in zip(parts, calls, strict=True)]


def _z(model: "LensModel", one: Parts, *, reports: bool) -> Tap | None:
    """The heads' outputs, if what goes into the last matrix of a module that attends falls into heads."""
    if not (model.n_heads and one.heads and one.attention):
        return None
    width, name = one.heads.given.shape[-1], type(one.attention.module).__name__.lower()
    if width % model.n_heads or not (reports or "attention" in name or "attn" in name):
        return None
    heads = Heads(width // model.n_heads, 1, model.n_heads, 0, model.n_heads)
    return Tap(one.heads.module, "in", width, heads=heads)


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


def _attentions(model: "LensModel", parts: list[Parts], calls: list[list[Call]], ids: Tensor) -> list[dict[str, Tap]]:
    """Of each block the taps of ``q``, ``k``, ``v`` and ``pattern``, from a pass with explicit attention."""
    try:
        with quiet_transformers(), explicit(model), hearing() as heard, _reporting(model, parts, ids) as weights:
            again = _calls(model, ids)
            ours = [one for one in heard if is_explicit(one.module)]
    except (SiteError, AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        again, ours = [[] for _ in parts], []  # an attention of another kind: its weights may still be read
        with quiet_transformers(), eager(model), _reporting(model, parts, ids) as weights:
            model.body(input_ids=ids, use_cache=False)
    out = []
    for block, one, plain, now in zip(model.blocks, parts, calls, again, strict=True):
        within = set(block.modules())
        found, attends = _heard(plain, now, [each for each in ours if each.module in within])
        if one.attention and one.attention.module in weights:
            found["pattern"] = Tap(one.attention.module, "weights", model.n_heads, attends=attends)
        out.append(found)
    return out


def _heard(plain: list[Call], now: list[Call], heard: list[Heard]) -> tuple[dict[str, Tap], nn.Module | None]:
    """The taps of one block's queries, keys and values; and its attention, if weights times values are what it gives.

    Args:
        plain: the block's calls in the model's own pass.
        now: those in the pass with explicit attention.
        heard: the attentions in the latter.
    """
    if len(heard) != 1:
        return {}, None
    module = heard[0].module
    before, after = ([call for call in calls if call.module is module] for calls in (plain, now))
    if not (len(before) == len(after) == 1):
        return {}, None
    name = after[0].name
    taps = {
        kind: Tap(call.module, "out", call.gave.shape[-1], heads=heads)
        for kind, (call, heads) in locate([c for c in now if c.name.startswith(f"{name}.")], heard[0]).items()
    }
    same = off(after[0].gave, before[0].gave) <= TOLERANCE.get(before[0].gave.dtype, 0.1)
    return taps, module if same else None


@contextmanager
def _reporting(model: "LensModel", parts: list[Parts], ids: Tensor) -> Iterator[set[nn.Module]]:
    """Collects the attention modules whose second output is ``[batch, head, query, key]``."""
    found: set[nn.Module] = set()
    shape = (len(ids), model.n_heads, ids.shape[1], ids.shape[1])

    def see(module: nn.Module, _args: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.shape == shape:
            found.add(module)

    with ExitStack() as handles:
        for one in parts:
            if one.attention:
                handles.callback(one.attention.module.register_forward_hook(see).remove)
        yield found


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
