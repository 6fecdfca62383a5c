"""How a site is reached in a model: found by running the model, not by a table of module names.

One short forward pass records what goes in and out of every module of each block. Then, by the laws of a residual
block (``x`` enters, ``y`` leaves):

1. ``attn_out`` and ``mlp_out`` are the outputs ``a`` and ``m`` of two children of the block for which ``x + a + m = y``
   at every token. Norms after attention (Gemma) and dropouts need no special case.
2. ``resid_mid`` exists if a child is given ``x + a``; in a parallel block (GPT-NeoX) none is.
3. ``z`` and ``neurons`` are what goes into the last matrix of the attention and of the MLP, the one whose output is
   that part's own (with its adapter, where there is one).
4. ``pattern`` is the second output of the attention module, under eager attention.

A site that a block lacks is not in the table. What is found is a set of modules, so it holds for every later input.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from affectlens.model import LensModel

PROBE = "Rain fell on the roof of the mill all night, and by morning the lane was under water."


@dataclass(frozen=True)
class Tap:
    """Where a site is: the input or the output of a module."""

    module: nn.Module
    side: str  # "in", "out", or "weights" for the second output of an attention module
    width: int  # the size of the value's last axis
    block: nn.Module | None = None  # resid_mid alone: the block whose input is added to the output of ``module``


@dataclass
class _Call:
    """One module's call in the probing pass."""

    name: str  # inside its block; "" is the block itself
    module: nn.Module
    given: Tensor
    gave: Tensor


def first(value: Any) -> Any:
    """The hidden states in a module's output, which some families wrap in a tuple."""
    return value[0] if isinstance(value, tuple | list) and value else value


def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden states among a module's arguments."""
    return args[0] if args else kwargs.get("hidden_states")


@torch.inference_mode()
def discover(model: "LensModel") -> dict[tuple[int, str], Tap]:
    """Every site of every block, as ``(layer, kind) -> Tap``.

    ``resid_pre`` and ``resid_post`` are there for all blocks; others where the laws above hold.
    """
    table: dict[tuple[int, str], Tap] = {}
    ids = model.tokenizer(PROBE, return_tensors="pt").input_ids[:, :16].to(model.device)
    with ExitStack() as handles:
        calls: list[list[_Call]] = [[] for _ in model.blocks]
        for layer, block in enumerate(model.blocks):
            for name, module in block.named_modules():
                keep = _keeper(calls[layer], name)
                handles.callback(module.register_forward_hook(keep, with_kwargs=True).remove)
        model.body(input_ids=ids, use_cache=False)
    for layer, block in enumerate(model.blocks):
        found = {"resid_pre": Tap(block, "in", model.d_model), "resid_post": Tap(block, "out", model.d_model)}
        found |= _inside(block, calls[layer], 1e-3 if model.dtype == torch.float32 else 0.1, model.n_heads)
        table |= {(layer, kind): tap for kind, tap in found.items()}
    return table


def _keeper(calls: list[_Call], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x, y = given(args, kwargs), first(output)
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            calls.append(_Call(name, module, x.clone(), y.clone()))

    return keep


def _inside(block: nn.Module, calls: list[_Call], tolerance: float, n_heads: int) -> dict[str, Tap]:
    if not calls or calls[-1].name:
        return {}  # the block was given no hidden states that we can see
    x, y = calls[-1].given, calls[-1].gave
    children = [c for c in calls if c.name and "." not in c.name and c.gave.shape == x.shape]
    pairs = [
        (off(a.gave + m.gave, y - x), i, j) for i, a in enumerate(children) for j, m in enumerate(children) if i < j
    ]
    if not pairs or min(pairs)[0] > tolerance:
        return {}
    _, i, j = min(pairs)
    attn, mlp = children[i], children[j]
    table = {"attn_out": Tap(attn.module, "out", x.shape[-1]), "mlp_out": Tap(mlp.module, "out", x.shape[-1])}
    if any(off(c.given - x, attn.gave) <= tolerance for c in children if c.given.shape == x.shape):
        table["resid_mid"] = Tap(attn.module, "out", x.shape[-1], block)
    attention, feed = _source(children, i), _source(children, j)
    matrix = _last_matrix(calls, attention)
    if matrix is not None and matrix.given.shape[-1] % n_heads == 0:
        table["z"] = Tap(matrix.module, "in", matrix.given.shape[-1])
        table["pattern"] = Tap(attention.module, "weights", n_heads)
    if (matrix := _last_matrix(calls, feed)) is not None:
        table["neurons"] = Tap(matrix.module, "in", matrix.given.shape[-1])
    return table


def off(found: Tensor, expected: Tensor) -> float:
    """The median over tokens of the relative error; a few tokens (attention sinks) dwarf what is added to them."""
    found, expected = found.float(), expected.float()
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-20)).median())


def _source(children: list[_Call], at: int) -> _Call:
    """The child that computed ``children[at]``: itself, or the one before it if it is a norm or a dropout."""
    while at > 0 and not _matrices(children[at].module):
        at -= 1
    return children[at]


def _matrices(module: nn.Module) -> bool:
    return any(p.ndim >= 2 for p in module.parameters())


def _last_matrix(calls: list[_Call], part: _Call) -> _Call | None:
    """The call of the matrix inside ``part`` that gives the output of ``part``; with its adapter, if it has one."""
    same = [
        call
        for call in calls
        if (call.name == part.name or call.name.startswith(part.name + "."))
        and _matrices(call.module)
        and call.gave.shape == part.gave.shape
        and off(call.gave, part.gave) <= 1e-3
    ]
    wrapped = [
        call for call in same if call.given.shape == same[0].given.shape and torch.equal(call.given, same[0].given)
    ]
    return wrapped[-1] if wrapped else None
