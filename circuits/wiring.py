"""How a model's heads and MLPs read from the residual stream and write to it, found by running the model once.

Of each block: what stands between the stream and what the query, key and value matrices are given (a norm, or nothing),
the same of the MLP; these matrices and the heads' parts of the o matrix; and the norm after attention, where a family
has one (Gemma). With these each reader can be given an input of its own, and each head's output stands alone.

A norm after attention scales the sum of all heads by one number a token. With that number of the run in hand, heads'
contributions add up to what attention adds to the stream.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.anatomy import Call, Parts, off
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.taps import Tap, observed

Norm = Callable[[Tensor], Tensor]  # called past the hooks that a walk has on its module
LARGE = 1e3  # a constant vector of this size has an RMS beside which a norm's epsilon is nothing


@dataclass(frozen=True, eq=False)
class Reads:
    """One matrix from the stream (normed) to heads: ``value = given @ weight + bias``."""

    weight: Float[Tensor, "head d_in d_head"]
    bias: Float[Tensor, "head d_head"]

    def of(self, given: Float[Tensor, "row head pos d_in"]) -> Float[Tensor, "row pos head d_head"]:
        """Each head's value from its own input."""
        return torch.einsum("rhpd,hde->rphe", given, self.weight) + self.bias

    def back(self, gradient: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "head row pos d_in"]:
        """The gradient by each head's own input, from that by its value."""
        return torch.einsum("rphe,hde->hrpd", gradient, self.weight)


@dataclass(frozen=True, eq=False)
class Wiring:
    """One block's readers and writers."""

    enter: Norm  # from the stream to what q, k and v read
    reads: dict[str, Reads]  # q, k, v
    out: Float[Tensor, "head d_head d_model"]
    out_bias: Float[Tensor, " d_model"]
    after: Norm | None  # the norm after attention
    feed_enter: Norm  # from the stream to what the MLP reads
    feed: nn.Module  # the MLP
    feed_after: Norm | None  # the norm after it
    parallel: bool

    @property
    def feed_tap(self) -> Tap:
        """Where the MLP's input is reached."""
        return Tap(self.feed, "in", self.out.shape[-1])

    def written(self, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row head pos d_model"]:
        """What each head adds to the stream, a norm after attention taken at this run's scale."""
        each = torch.einsum("rphe,hed->rhpd", z, self.out)
        if self.after is None:
            return each
        whole = each.sum(1) + self.out_bias
        gain = self.after(torch.full_like(whole[:1, :1], LARGE))
        normed, plain = self.after(whole), gain * whole
        scale = (normed * plain).sum(-1, keepdim=True) / (plain * plain).sum(-1, keepdim=True).clamp(min=1e-30)
        return each * (gain * scale)[:, None]

    def attention(self, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row pos d_model"]:
        """What attention adds to the stream in all."""
        whole = torch.einsum("rphe,hed->rpd", z, self.out) + self.out_bias
        return whole if self.after is None else self.after(whole)

    def fed(self, stream: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """What the MLP adds to the stream, given a stream."""
        value = self.feed.forward(self.feed_enter(stream))
        value = value[0] if isinstance(value, tuple) else value
        return value if self.feed_after is None else self.feed_after(value)


_FOUND: "WeakKeyDictionary[LensModel, list[Wiring]]" = WeakKeyDictionary()  # of the first blocks


def wire(model: LensModel, layers: int) -> list[Wiring]:
    """The wiring of the first blocks; found once a model, whose weights do not change.

    Args:
        model: from :func:`affectlens.load_model`.
        layers: how many blocks.

    Raises:
        CircuitError: a block that reads the stream, or writes to it, in a way that can't be followed.
    """
    if len(_FOUND.get(model, ())) < layers:
        calls, parts = observed(model)
        _FOUND[model] = [_wire(model, layer, calls[layer], parts[layer]) for layer in range(layers)]
    return _FOUND[model][:layers]


@torch.no_grad()
def _wire(model: LensModel, layer: int, calls: list[Call], part: Parts) -> Wiring:
    if part.attn_out is None or part.mlp_out is None or part.heads is None or part.feed is None:
        raise CircuitError(f"Layer {layer} of {model.name} does not add heads and an MLP to one stream.")
    x = calls[-1].given
    mid = x if part.mid is None else part.mid.given
    taps = {kind: model.sites.find(Site(kind, layer)) for kind in "qkv"}
    given = [next(c.given for c in calls if c.module is tap.module) for tap in taps.values()]
    if not all(torch.equal(given[0], one) for one in given):
        raise CircuitError(f"Queries, keys and values of layer {layer} of {model.name} read different things.")
    heads = model.sites.find(Site("z", layer)).heads
    assert heads is not None
    weight, bias = _matrix(part.heads.module, part.heads.given)
    attention = _norm_of(part.attention, part.attn_out)
    found = Wiring(
        _between(model, layer, calls, x, given[0]),
        {kind: _reads(tap, given[0]) for kind, tap in taps.items()},
        weight.reshape(heads.count, heads.d_head, -1), bias, attention,
        _between(model, layer, calls, mid, part.feed.given), part.feed.module, _norm_of(part.feed, part.mlp_out),
        part.mid is None,
    )  # fmt: skip
    written = found.written(heads.cut(part.heads.given)).sum(1)
    if attention is None:
        written = written + bias
    if off(written, part.attn_out.gave) > (1e-3 if x.dtype == torch.float32 else 0.1):
        raise CircuitError(f"The heads of layer {layer} of {model.name} do not add up to what its attention gives.")
    return found


def _between(model: LensModel, layer: int, calls: Sequence[Call], start: Tensor, end: Tensor) -> Norm:
    """What makes ``end`` of ``start``."""
    if torch.equal(start, end):
        return unchanged
    for call in (one for one in calls if one.name and one.gave.shape == end.shape):
        if call.given.shape == start.shape and torch.equal(call.given, start) and torch.equal(call.gave, end):
            return _past(call.module)
    raise CircuitError(
        f"Layer {layer} of {model.name} reads the stream through something else than one norm, which can't be followed."
    )


def _norm_of(part: Call | None, out: Call) -> Norm | None:
    """The norm between a part's own output and what it adds to the stream."""
    return None if part is None or part.module is out.module else _past(out.module)


def unchanged(value: Tensor) -> Tensor:
    """Where there is no norm."""
    return value


def _past(module: nn.Module) -> Norm:
    found: Norm = module.forward
    return found


def _matrix(module: nn.Module, like: Tensor) -> tuple[Float[Tensor, "d_in d_out"], Float[Tensor, " d_out"]]:
    """The weight and bias of an affine module, by running it.

    Raises:
        CircuitError: one that is not.
    """
    size = like.shape[-1]
    rows = torch.cat((torch.eye(size), torch.zeros(1, size)))[None].to(like)
    value = module(rows)[0]
    weight, bias = value[:-1] - value[-1:], value[-1].clone()
    if off(like @ weight + bias, module(like)) > (1e-3 if like.dtype == torch.float32 else 0.1):
        raise CircuitError(f"{type(module).__name__} is more than a matrix and a bias, so heads' parts can't be told.")
    return weight, bias


def _reads(tap: Tap, like: Tensor) -> Reads:
    heads = tap.heads
    assert heads is not None
    cut: Callable[[Tensor], Tensor] = heads.cut
    weight, bias = _matrix(tap.module, like)
    return Reads(cut(weight[None])[0].movedim(1, 0).contiguous(), cut(bias[None, None])[0, 0].contiguous())
