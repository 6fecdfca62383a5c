"""What a plan's hooks do as the model runs."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.cursors import Cursor
from affectlens.errors import SteerError
from affectlens.hooks import attach
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering import operators
from affectlens.steering.gates import level
from affectlens.steering.plan import Term

if TYPE_CHECKING:
    from affectlens.steering.applying import Steering


def constant(model: LensModel, site: Site, terms: tuple[Term, ...]) -> Callable[[Tensor], Tensor]:
    """The hook of terms that add at every token: one addition, its vector summed beforehand."""
    whole = torch.as_tensor(np.sum([t.vector for t in terms], axis=0), dtype=torch.float32)
    whole = whole.reshape(model.sites.shape(site))

    @lru_cache(maxsize=8)
    def ready(device: torch.device, dtype: torch.dtype) -> Tensor:
        return whole.to(device, dtype)

    def act(value: Tensor) -> Tensor:
        part = model.sites.part(site, value)
        return model.sites.with_part(site, value, part + ready(value.device, value.dtype))

    return act


PROVING: set[int] = set()  # models on which a plan is being proved: plans that are in place stand aside


class Acting:
    """A plan's terms at the tokens, and with the doses, that they are for."""

    def __init__(
        self, model: LensModel, steering: "Steering", cursor: Cursor | None, width: int | None, forced: bool
    ) -> None:
        self.model = model
        self.steering = steering
        self.cursor = cursor or Cursor()
        self.width = width  # columns of the prompt, padding included
        self.forced = forced
        self.opened: dict[int, Tensor] = {}  # by gate: where it is open in the running pass
        self._ready: dict[tuple[int, torch.device], Tensor] = {}

    def watch_gates(self, handles: ExitStack) -> None:
        """Read each gate's site, before anything is steered there.

        Raises:
            SteerError: a gate whose site is computed after the site that it opens.
        """
        for site, terms in self.steering.plan.acting.items():
            for term in terms:
                gate = term.gate
                if gate is None or id(gate) in self.opened:
                    continue
                if gate.site == site and self.model.sites.find(site).adds:
                    raise SteerError(f"{site} is a sum that is steered before it can be read: gate an earlier site.")
                if gate.site > site:
                    raise SteerError(f"The gate reads {gate.site}, which is computed after {site}: choose an earlier.")
                self.opened[id(gate)] = torch.zeros(0)
                attach(handles, self.model.sites.find(gate.site), partial(self._read, term))

    def _read(self, term: Term, value: Tensor) -> None:
        assert term.gate
        if id(self.model) in PROVING:
            return
        part = self.model.sites.part(term.gate.site, value)
        self.opened[id(term.gate)] = is_open = term.gate.open(part.reshape(*value.shape[:2], -1))
        real = self.cursor.positions.to(value.device) >= 0
        self.steering.opened += int((is_open & real).sum())
        self.steering.seen += int(real.sum())

    def act(self, site: Site, terms: tuple[Term, ...], value: Tensor) -> Tensor:
        """The tap's value with all terms of the site done, in order."""
        if id(self.model) in PROVING and not self.forced:
            return value
        part = self.model.sites.part(site, value)
        h = part.reshape(*value.shape[:2], -1)
        for term in terms:
            u = self._unit(term, value.device)
            s = term.strength * self._share(term, h)
            if term.operator.kind == "add":
                h = operators.add(h, u, s, term.direction.norm)
            elif term.operator.kind == "scale":
                h = operators.scale(h, u * term.direction.norm, s, self._reference(term, value.device))
            elif term.operator.kind == "rotate":
                h = operators.rotate(h, u, s, term.operator.argument or 0.0)
            else:
                clamps = term.operator.kind == "clamp"
                goal = level(term.direction, term.operator.argument or 0.0) if clamps else 0.0
                h = operators.move(h, u, s, goal)
        return self.model.sites.with_part(site, value, h.reshape(part.shape))

    def _share(self, term: Term, h: Tensor) -> Float[Tensor, "#batch pos 1"]:
        """The share of the dose at each token of the running pass; 0 at padding."""
        n = h.shape[1]
        if self.forced:
            return torch.ones(1, n, 1, device=h.device)
        real = (self.cursor.positions >= (1 if term.operator.kind == "scale" else 0)).to(h.device)
        share = real.float()
        if not term.timing.steady:
            if self.width is None:
                raise SteerError(
                    f"positions {term.timing} need to know where the reply begins: call model.hf.generate, or say how "
                    "long the prompt is, steer(..., prompt_tokens=12)."
                )
            column = torch.arange(self.cursor.past, self.cursor.past + n, device=h.device)
            share = share * term.timing.share(column - (self.width - 1))
        if term.gate is not None:
            share = share * self.opened[id(term.gate)].to(h.device)
        return share[..., None]

    def _unit(self, term: Term, device: torch.device) -> Float[Tensor, " d"]:
        return self._kept(term.direction.vector, device)

    def _reference(self, term: Term, device: torch.device) -> Float[Tensor, " d"]:
        if term.reference is None:
            raise SteerError("scale moves away from a reference, and this term has none: make it by a Modulation.")
        return self._kept(term.reference, device)

    def _kept(self, array: Float[np.ndarray, " d"], device: torch.device) -> Float[Tensor, " d"]:
        key = (id(array), device)
        if key not in self._ready:
            self._ready[key] = torch.as_tensor(array, dtype=torch.float32, device=device)
        return self._ready[key]
