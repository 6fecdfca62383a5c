"""What a transformer block is made of, read off one pass by the laws of a residual block.

``x`` enters the block, ``y`` leaves it:

1. ``attn_out`` and ``mlp_out`` are the outputs ``a`` and ``m`` of two children of the block for which ``x + a + m = y``
   at every token. Norms after attention (Gemma) and dropouts need no special case.
2. ``resid_mid`` exists if a child is given ``x + a``; in a parallel block (GPT-NeoX) none is.
3. ``z`` and ``neurons`` are what goes into the last matrix of the attention and of the MLP, the one whose output is
   that part's own (with its adapter, where there is one). Mixtures of experts have no such matrix, so no neurons.

In half precision ``y - x`` is blurred where the stream is large beside what a block adds. There the children that obey
law 1 strictly in other blocks are taken, if here they obey it within that blur.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # relative; 0.1 in half precisions


@dataclass(frozen=True)
class Call:
    """One module's call in the probing pass."""

    name: str  # inside its block; "" is the block itself
    module: nn.Module
    given: Tensor
    gave: Tensor


@dataclass(frozen=True)
class Parts:
    """The calls of a block that carry its sites; None where the block has none such."""

    names: tuple[str, str] | None = None  # of the children that add to the stream
    attn_out: Call | None = None
    mlp_out: Call | None = None
    mid: Call | None = None  # is given x + a
    entry: Call | None = None  # is given x
    attention: Call | None = None
    heads: Call | None = None  # is given z
    down: Call | None = None  # is given the neurons
    feed: Call | None = None  # the MLP, without a norm after it


def dissect(calls: list[Call], known: frozenset[tuple[str, str]] | None = None) -> Parts:
    """The parts of one block from its calls, the block's own last.

    Args:
        calls: of every module in the block, in the order in which they ended.
        known: names of children that obey law 1 in other blocks; given, these are tried within the blur.
    """
    if not calls or calls[-1].name:
        return Parts()  # the block was given no hidden states that we can see
    x, y = calls[-1].given, calls[-1].gave
    children = [c for c in calls if c.name and "." not in c.name and c.gave.shape == x.shape]
    tolerance, blur = TOLERANCE.get(x.dtype, 0.1), 4 * torch.finfo(x.dtype).eps if known else 0.0
    pairs = [
        (off(a.gave + m.gave, y - x, x, blur), i, j)
        for i, a in enumerate(children)
        for j, m in enumerate(children)
        if i < j and (not known or (a.name, m.name) in known)
    ]
    if not pairs or min(pairs)[0] > tolerance:
        return _by_name(calls, children)
    _, i, j = min(pairs)
    attn, mlp = children[i], children[j]
    within = [c for c in calls if c.name and c.given.shape == x.shape]
    mid = next((c for c in within if off(c.given - x, attn.gave, x, blur) <= tolerance), None)
    attention, feed = _source(children, i), _source(children, j)
    return Parts(
        (attn.name, mlp.name), attn, mlp, mid, next((c for c in within if torch.equal(c.given, x)), None),
        attention, last_matrix(calls, attention), last_matrix(calls, feed), feed,
    )  # fmt: skip


def _by_name(calls: list[Call], children: list[Call]) -> Parts:
    """Where a block scales what it adds, or law 1 fails otherwise: heads and neurons only, by the classes' names."""

    def called(*words: str) -> Call | None:
        return next((c for c in children if any(w in type(c.module).__name__.lower() for w in words)), None)

    attention, feed = called("attention", "attn"), called("mlp", "feedforward", "ffn")
    return Parts(
        attention=attention,
        heads=last_matrix(calls, attention) if attention else None,
        down=last_matrix(calls, feed) if feed else None,
    )


def off(found: Tensor, expected: Tensor, beside: Tensor | None = None, blur: float = 0.0) -> float:
    """The median over tokens of the relative error; a few tokens (attention sinks) dwarf what is added to them.

    An error of ``blur`` times the norm of ``beside`` is forgiven.
    """
    error = (found.float() - expected.float()).norm(dim=-1)
    if beside is not None:
        error = (error - blur * beside.float().norm(dim=-1)).clamp(min=0)
    return float((error / expected.float().norm(dim=-1).clamp(min=1e-20)).median())


def _source(children: list[Call], at: int) -> Call:
    """The child that computed ``children[at]``: itself, or the one before it if it is a norm or a dropout."""
    while at > 0 and not any(p.ndim >= 2 for p in children[at].module.parameters()):
        at -= 1
    return children[at]


def last_matrix(calls: list[Call], part: Call) -> Call | None:
    """The call of the matrix inside ``part`` that gives the output of ``part``; with its adapter, if it has one."""
    same = [
        call
        for call in calls
        if (call.name == part.name or call.name.startswith(part.name + "."))
        and getattr(getattr(call.module, "weight", None), "ndim", 0) == 2
        and call.gave.shape == part.gave.shape
        and off(call.gave, part.gave) <= 1e-3
    ]
    wrapped = [c for c in same if c.given.shape == same[0].given.shape and torch.equal(c.given, same[0].given)]
    return wrapped[-1] if wrapped else None
