"""What steering does to a value: add, with or without a ceiling, project out, clamp, rotate; and scale, of circuits.

``h`` is ``[batch, pos, d]``, ``u`` the unit vector, ``n`` the site's median norm and ``s`` the strength, a number or
``[batch, pos, 1]``, which is 0 where nothing is to happen. At ``s = 0`` each is the identity.

=============== =============================== ==================================================================
``add``         h + s n u                       the dose is ``s``: a share of the norm, below zero the other way
``ceiling(95)`` h + m u                         m is ``s n``, or less: what is left to that percentile of neutral tokens
``project_out`` h - s (h.u) u                   at 1 nothing of the direction is left
``clamp(90)``   h + s (c - h.u) u               at 1 the projection is ``c``, that percentile of neutral tokens' own
``rotate(30)``  h turned towards u by s 30 deg  in the plane of h and u: the length stays
``scale``       h + s w (h - r)                 each coordinate's distance from a reference ``r``, times 1 + s w
=============== =============================== ==================================================================

``ceiling`` never moves anything back: where the projection is beyond its level already, nothing is added. A dose below
zero stops at the percentile as far from the other end, ``ceiling(95)`` at 5.

``scale`` has weights ``w`` and a reference ``r`` of its own, both ``[d]``, so no text names it: the modulation of a
circuit makes it (:mod:`affectlens.circuits.modulating`). It leaves a sequence's first token as it is, an attention sink
whose activations are far from the mean of others.
"""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.errors import SteerError

KINDS = ("add", "ceiling", "project_out", "clamp", "rotate")
FORMS = "add, ceiling(95), project_out, clamp(90), rotate(30)"
MOST = {"ceiling": 100.0, "clamp": 100.0, "rotate": 180.0}  # of the arguments
Strength = Float[Tensor, "#batch #pos 1"] | float


@dataclass(frozen=True)
class Operator:
    """One of the six; ``argument`` is a percentile of ``clamp`` and ``ceiling``, an angle in degrees of ``rotate``.

    >>> str(Operator.parse("clamp(90)"))
    'clamp(90)'
    """

    kind: str
    argument: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Operator":
        """The operator that ``text`` names.

        Raises:
            SteerError: another form, a percentile beyond 0 to 100, an angle beyond 0 to 180.
        """
        match = re.fullmatch(r"(\w+)(?:\((\d+(?:\.\d+)?)\))?", text.strip())
        kind, number = (match[1], match[2]) if match else ("", None)
        if kind not in KINDS or (kind in MOST) != (number is not None):
            raise SteerError(f"There is no operator {text!r}; choose from {FORMS}.")
        if number is not None and not 0 <= float(number) <= MOST[kind]:
            raise SteerError(f"{text}: the argument of {kind} goes from 0 to {MOST[kind]:.0f}.")
        return cls(kind, None if number is None else float(number))

    @property
    def adds(self) -> bool:
        """Whether a dose of it is the dose of ``add``."""
        return self.kind in ("add", "ceiling")

    @property
    def percentiles(self) -> bool:
        """Whether it needs to know percentiles of neutral texts."""
        return self.kind in ("clamp", "ceiling")

    def __str__(self) -> str:
        return self.kind if self.argument is None else f"{self.kind}({self.argument:g})"


def add(h: Tensor, u: Float[Tensor, " d"], s: Strength, norm: float) -> Tensor:
    """``h`` with ``s * norm`` of the direction more."""
    return h + (s * norm * u).to(h.dtype)


def bounded(h: Tensor, u: Float[Tensor, " d"], step: Strength, level: float) -> Tensor:
    """``h`` with ``step`` of the direction more, but no further than to ``level``; below zero, no lower than that."""
    wide = h.float()
    room = (level - wide @ u)[..., None]
    step = torch.as_tensor(step, device=h.device)
    up, down = torch.minimum(step.clamp(min=0), room.clamp(min=0)), torch.maximum(step.clamp(max=0), room.clamp(max=0))
    return (wide + (up + down) * u).to(h.dtype)


def move(h: Tensor, u: Float[Tensor, " d"], s: Strength, level: float) -> Tensor:
    """``h`` with its projection moved a share ``s`` of the way to ``level``; ``project_out`` is the way to 0."""
    wide = h.float()
    return (wide + s * (level - wide @ u)[..., None] * u).to(h.dtype)


def rotate(h: Tensor, u: Float[Tensor, " d"], s: Strength, degrees: float) -> Tensor:
    """``h`` turned towards ``u`` by ``s * degrees``, or away from it where ``s`` is below zero; not past ``u``."""
    wide = h.float()
    length = wide.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    along = (wide @ u)[..., None]
    across = wide - along * u
    side = across.norm(dim=-1, keepdim=True)
    now = torch.atan2(side, along)  # the angle between h and u
    then = (now - s * torch.pi / 180 * degrees).clamp(0.0, torch.pi)
    turned = length * (then.cos() * u + then.sin() * across / side.clamp(min=1e-12))
    stays = (side <= 1e-6 * length) | (then == now)
    return torch.where(stays, wide, turned).to(h.dtype)


def scale(h: Tensor, w: Float[Tensor, " d"], s: Strength, reference: Float[Tensor, " d"]) -> Tensor:
    """``h`` with its distance from ``reference`` multiplied by ``1 + s * w``, coordinate by coordinate."""
    return h + (s * w * (h.float() - reference)).to(h.dtype)
