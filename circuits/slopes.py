"""Gradients of a metric by what every reader of the stream is given, itself alone.

A zero is added to each head's queries, keys and values and to what each MLP is given; one backward pass gives the
gradients by these. Matrices and norms take them back to the stream, where a reader's gradient is that of a change which
only this reader sees.
"""

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.trials import Trial
from affectlens.circuits.walking import Attendant, Stream
from affectlens.circuits.wiring import Norm, unchanged
from affectlens.errors import CircuitError
from affectlens.sites import Site

Shift = Callable[[int, str, Stream], Stream]  # layer, ``attn_out`` or ``mlp_out``, what is written -> what shall be


class Leaves(Attendant):
    """Adds the zeros, and keeps what norms were given."""

    def __init__(self, trial: Trial, shift: Shift | None) -> None:
        self.wiring = trial.bench.walker.wiring
        self.shift = shift or (lambda _layer, _kind, out: out)
        self.zeros: dict[tuple[int, str], Tensor] = {}
        self.entered: list[Stream] = []
        self.mid: list[Stream] = []

    def entering(self, layer: int, x: Stream) -> None:
        del layer
        self.entered.append(x.detach())
        self.mid.append(x.detach())

    def reading(self, site: Site, value: Tensor) -> Tensor:
        return self._with_zero(site.layer, site.kind, value)

    def attended(self, layer: int, z: Tensor, out: Stream) -> Stream:
        del z
        moved = self.shift(layer, "attn_out", out)
        if not self.wiring[layer].parallel:
            self.mid[layer] = self.mid[layer] + moved.detach()
        return moved

    def feeding(self, layer: int, given: Stream) -> Stream:
        return self._with_zero(layer, "mlp_in", given)

    def fed(self, layer: int, out: Stream) -> Stream:
        return self.shift(layer, "mlp_out", out)

    def _with_zero(self, layer: int, kind: str, value: Tensor) -> Tensor:
        zero = torch.zeros_like(value, requires_grad=True)
        self.zeros[layer, kind] = zero
        return value + zero

    def slopes(self) -> Iterator[Float[Tensor, "receiver row pos d_model"]]:
        """The gradients by readers' own streams but the end's, a layer at a time, in the order of an EdgeSpace."""
        for layer, wiring in enumerate(self.wiring):
            back = torch.cat([wiring.reads[kind].back(self._gradient(layer, kind)) for kind in "qkv"])
            feed = through(wiring.feed_enter, self.mid[layer], self._gradient(layer, "mlp_in")[None])
            yield torch.cat([through(wiring.enter, self.entered[layer], back), feed])

    def _gradient(self, layer: int, kind: str) -> Tensor:
        zero = self.zeros[layer, kind]
        return torch.zeros_like(zero) if zero.grad is None else zero.grad


def through(
    norm: Norm, x: Stream, gradient: Float[Tensor, "receiver row pos d_model"]
) -> Float[Tensor, "receiver row pos d_model"]:
    """A gradient by what a norm gives, as one by what it is given.

    Args:
        norm: or nothing.
        x: what it was given.
        gradient: of several readers.
    """
    if norm is unchanged:
        return gradient
    with torch.inference_mode(False), torch.enable_grad():
        given = x.expand(len(gradient), *x.shape).clone().requires_grad_()
        (found,) = torch.autograd.grad(norm(given), given, gradient)
    return found


def slopes(
    trial: Trial, x: Stream, shares: Float[Tensor, " row"], away: Float[Tensor, "sender pos d_model"],
    shift: Shift | None = None,
) -> Float[Tensor, "sender receiver"]:  # fmt: skip
    """The slope of the metric as readers are given a change, summed over several runs, each times its share.

    Args:
        trial: the pair.
        x: what enters the first block, of each run.
        shares: of each run.
        away: the change of each sender, in float32.
        shift: what becomes of what attention and MLPs write.

    Raises:
        CircuitError: a metric that can't be differentiated.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaves = Leaves(trial, shift)
        left = trial.walk(x, leaves)
        end = torch.zeros_like(left, requires_grad=True)
        value = (trial.value(left + end).double() * shares.to(left.device).double()).sum()
        if not value.requires_grad:
            raise CircuitError(f"{trial.bench.metric.name!r} has no gradient by what it reads: patch edges exactly.")
        torch.autograd.backward(value, inputs=[*leaves.zeros.values(), end])
    last = torch.zeros_like(left) if end.grad is None else end.grad
    with torch.no_grad():
        parts = (part.detach().float().sum(1) for part in chain(leaves.slopes(), [last[None]]))
        return torch.cat([torch.einsum("spd,vpd->sv", away, part) for part in parts], dim=1)
