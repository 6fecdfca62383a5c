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
from affectlens.steering.gates import Gate, level
from affectlens.steering.ordering import check_order
from affectlens.steering.plan import Term
from affectlens.steering.running import Running

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
        self.shares: dict[int, Tensor] = {}  # by loop: what it leaves of the dose there
        self.looping = False
        self._readings: list[tuple[Site, Callable[[Tensor], None]]] | None = None
        self._ready: dict[tuple[int, torch.device], tuple[object, Tensor]] = {}

    def readings(self) -> list[tuple[Site, Callable[[Tensor], None]]]:
        """What is to be read before anything is steered: a site, and what takes its tap's whole value.

        Raises:
            SteerError: a gate or a loop whose site is computed after what it acts on.
        """
        if self._readings is None:
            acting = self.steering.plan.acting
            check_order(self.model, acting)
            terms = [term for here in acting.values() for term in here]
            gates = {id(term.gate): term.gate for term in terms if term.gate is not None}
            loops = {id(term.loop): term.loop for term in terms if term.loop is not None}
            self._readings = [(gate.site, partial(self._see, gate)) for gate in gates.values()]
            self._readings += [(loop.site, partial(self._follow, Running(loop))) for loop in loops.values()]
            self.looping = bool(loops)
        return self._readings

    def watch_gates(self, handles: ExitStack) -> None:
        """Read what gates and loops read, until ``handles`` close.

        Raises:
            SteerError: a gate or a loop whose site is computed after what it acts on.
        """
        for site, see in self.readings():
            attach(handles, self.model.sites.find(site), see)

    def check_beams(self, beams: int) -> None:
        """Raise a :class:`SteerError` for a search that a loop can't follow; ``generate`` asks before it begins."""
        if beams > 1 and self.looping:
            raise SteerError(
                f"A loop follows one reply a row, and num_beams={beams} would exchange the rows as it goes: leave out "
                "the loop, or num_beams."
            )

    def _see(self, gate: Gate, value: Tensor) -> None:
        if id(self.model) in PROVING:
            return
        part = self.model.sites.part(gate.site, value)
        self.opened[id(gate)] = is_open = gate.open(part.reshape(*value.shape[:2], -1))
        real = self.cursor.positions.to(value.device) >= 0
        self.steering.opened += int((is_open & real).sum())
        self.steering.seen += int(real.sum())

    def _follow(self, running: Running, value: Tensor) -> None:
        if id(self.model) in PROVING:
            return
        past, width = self.cursor.past, self._reply_begins("a loop needs")
        part = self.model.sites.part(running.loop.site, value).reshape(*value.shape[:2], -1)
        real = self.cursor.positions.to(value.device) >= 0
        self.shares[id(running.loop)] = share = running.read(part, real, past, width)
        read = real & (torch.arange(past, past + part.shape[1], device=value.device) >= width)
        self.steering.given += float((share * read).sum())
        self.steering.looped += int(read.sum())

    def _reply_begins(self, who: str) -> int:
        if self.width is None:
            raise SteerError(
                f"{who} to know where the reply begins: call model.hf.generate, or say how long the prompt is, "
                "steer(..., prompt_tokens=12)."
            )
        return self.width

    def act(self, site: Site, terms: tuple[Term, ...], value: Tensor) -> Tensor:
        """The tap's value with all terms of the site done, in order."""
        if id(self.model) in PROVING and not self.forced:
            return value
        part = self.model.sites.part(site, value)
        h = part.reshape(*value.shape[:2], -1)
        for term in terms:
            h = self._done(term, h, self._share(term, h))
        return self.model.sites.with_part(site, value, h.reshape(part.shape))

    def _done(self, term: Term, h: Tensor, share: Tensor) -> Tensor:
        """The values with one term done, at a share of its strength."""
        operator, kind, d = term.operator, term.operator.kind, term.direction
        if kind == "add" or (kind == "ceiling" and self.forced):
            return operators.add(h, self._kept(term, lambda: term.vector, h.device), share, 1.0)
        u = self._kept(d, lambda: d.vector, h.device)
        s = term.strength * share
        if kind == "scale":
            return operators.scale(h, u * d.norm, s, self._reference(term, h.device))
        if kind == "rotate":
            return operators.rotate(h, u, s, operator.argument or 0.0)
        if kind == "ceiling":
            return operators.bounded(h, u, s * d.norm, level(d, term.bound))
        return operators.move(h, u, s, level(d, operator.argument or 0.0) if kind == "clamp" else 0.0)

    def _share(self, term: Term, h: Tensor) -> Float[Tensor, "#batch pos 1"]:
        """The share of the dose at each token of the running pass; 0 at padding."""
        n = h.shape[1]
        if self.forced:
            return torch.ones(1, n, 1, device=h.device)
        real = (self.cursor.positions >= (1 if term.operator.kind == "scale" else 0)).to(h.device)
        share = real.float()
        if not term.timing.steady:
            width = self._reply_begins(f"positions {term.timing} need")
            column = torch.arange(self.cursor.past, self.cursor.past + n, device=h.device)
            share = share * term.timing.share(column - (width - 1))
        if term.gate is not None:
            share = share * self.opened[id(term.gate)].to(h.device)
        if term.loop is not None:
            share = share * self.shares[id(term.loop)].to(h.device)
        return share[..., None]

    def _reference(self, term: Term, device: torch.device) -> Float[Tensor, " d"]:
        if term.reference is None:
            raise SteerError("scale moves away from a reference, and this term has none: make it by a Modulation.")
        goal = term.reference
        return self._kept(goal, lambda: goal, device)

    def _kept(self, owner: object, make: Callable[[], np.ndarray], device: torch.device) -> Float[Tensor, " d"]:
        """An array as a tensor, made once for its owner, which is held so that its id stays its own."""
        key = (id(owner), device)
        if key not in self._ready:
            self._ready[key] = owner, torch.as_tensor(make(), dtype=torch.float32, device=device)
        return self._ready[key][1]
