"""How attention heads lie in a matrix's output, and which matrix of a block gives queries, keys and values.

Attention is called with queries, keys and values after all that a family does to them, which it is told from what its
modules gave in the same pass:

1. Values are as the matrix gave them. Queries and keys are turned by their position, so they are compared at the first
   one, where a rotation turns nothing.
2. A module that gave just these, in one of the layouts below, and holds a matrix, is where they are reached. One
   without a matrix (a norm of queries and keys) is followed back to what it was given.
3. One factor for all heads is allowed if nothing fits without, as some families scale what they rotate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.anatomy import Call


@dataclass(frozen=True)
class Heads:
    """A layout: the last axis is ``[group, member, d_head]``, and the heads are some members of each group.

    One group of all heads is what a matrix of its own gives. ``[q | k | v]`` side by side (GPT-2) is one group too, of
    all three. Interleaved (GPT-NeoX, and others with several query heads to a key-value head), each group holds the
    queries, the key and the value of one key-value head.
    """

    d_head: int
    groups: int
    members: int  # of one group
    start: int  # the first member that is ours
    stop: int

    @property
    def count(self) -> int:
        """How many heads there are."""
        return self.groups * (self.stop - self.start)

    def cut(self, value: Float[Tensor, "batch pos width"]) -> Float[Tensor, "batch pos head d_head"]:
        """The heads, apart."""
        return self._grouped(value)[..., self.start : self.stop, :].flatten(2, 3)

    def put(
        self, value: Float[Tensor, "batch pos width"], new: Float[Tensor, "batch pos head d_head"]
    ) -> Float[Tensor, "batch pos width"]:
        """A copy of ``value`` with other heads."""
        if self.count == self.groups * self.members:
            return new.flatten(2)
        whole = self._grouped(value).clone()
        whole[..., self.start : self.stop, :] = new.reshape(
            *new.shape[:2], self.groups, self.stop - self.start, self.d_head
        )
        return whole.flatten(2)

    def _grouped(self, value: Tensor) -> Tensor:
        return value.reshape(*value.shape[:2], self.groups, self.members, self.d_head)


@dataclass(frozen=True)
class Heard:
    """What one attention was called with: ``[batch, head, pos, d_head]``."""

    module: nn.Module  # the caller
    query: Tensor
    key: Tensor
    value: Tensor


def locate(calls: Sequence[Call], heard: Heard) -> dict[str, tuple[Call, Heads]]:
    """Of ``q``, ``k`` and ``v`` the calls that gave them, and how the heads lie there; what is not found is left out.

    Args:
        calls: of the modules inside the attention, in the order in which they ended.
        heard: from the same pass.
    """
    sizes = heard.query.shape[1], heard.key.shape[1]
    found: dict[str, tuple[Call, Heads]] = {}
    for kind, seen in (("q", heard.query), ("k", heard.key), ("v", heard.value)):
        wanted = seen.transpose(1, 2)
        wanted = wanted if kind == "v" else wanted[:, :1]
        one = _source(calls, kind, wanted, sizes, scaled=False) or _source(calls, kind, wanted, sizes, scaled=True)
        if one:
            found[kind] = one
    return found


def _source(
    calls: Sequence[Call], kind: str, wanted: Tensor, sizes: tuple[int, int], *, scaled: bool
) -> tuple[Call, Heads] | None:
    """The last matrix that gave ``wanted``, which is ``[batch, pos, head, d_head]`` at the first positions."""
    for at in reversed(range(len(calls))):
        call = calls[at]
        for layout in _layouts(call.gave, kind, wanted, sizes):
            if not _same(_read(call.gave, layout), wanted, scaled=scaled):
                continue
            if isinstance(layout, Heads) and any(p.ndim >= 2 for p in call.module.parameters()):
                return call, layout
            if call.given.shape == call.gave.shape:
                before = _read(call.given, layout)[:, : wanted.shape[1]]
                return _source(calls[:at], kind, before, sizes, scaled=scaled)
    return None


def _layouts(value: Tensor, kind: str, wanted: Tensor, sizes: tuple[int, int]) -> Iterator[Heads | int]:
    """The layouts that the shape of ``value`` allows; of what a norm of each head gives, the axis of the heads."""
    n, d_head = wanted.shape[2:]
    if value.ndim == 4 and value.shape[-1] == d_head:
        yield from (axis for axis in (1, 2) if value.shape[axis] == n)
    if value.ndim != 3 or value.shape[2] % d_head:
        return
    members, (queries, keys) = value.shape[2] // d_head, sizes
    if members == n:
        yield Heads(d_head, 1, n, 0, n)
    if members == queries + 2 * keys:
        start = {"q": 0, "k": queries, "v": queries + keys}[kind]
        yield Heads(d_head, 1, members, start, start + n)
        shared = queries // keys
        start = {"q": 0, "k": shared, "v": shared + 1}[kind]
        yield Heads(d_head, keys, shared + 2, start, start + n // keys)


def _read(value: Tensor, layout: Heads | int) -> Float[Tensor, "batch pos head d_head"]:
    return layout.cut(value) if isinstance(layout, Heads) else value.movedim(layout, 2)


def _same(found: Tensor, wanted: Tensor, *, scaled: bool) -> bool:
    """Whether they agree at the positions of ``wanted``, up to one factor if ``scaled``."""
    if found.shape[0] != wanted.shape[0] or found.shape[1] < wanted.shape[1]:
        return False
    a, b = found[:, : wanted.shape[1]].float(), wanted.float().to(found.device)
    if scaled:
        a = a * (a * b).sum() / (a * a).sum().clamp(min=1e-20)
    tolerance = 1e-4 if wanted.dtype in (torch.float32, torch.float64) else 1e-2
    return bool((a - b).norm() <= tolerance * b.norm()) and bool(b.norm() > 0)
