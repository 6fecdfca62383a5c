"""A steering plan: which directions, how strongly, by which operator, where and when; it explains itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.sites import Site
from affectlens.steering.directions import Direction, Directions, spelled
from affectlens.steering.gates import Gate, level, parse_gate
from affectlens.steering.looping import Loop, parse_loop
from affectlens.steering.operators import Operator
from affectlens.steering.ordering import check_order
from affectlens.steering.settling import CONFLICTS, settled
from affectlens.steering.shipped import load_directions
from affectlens.steering.timing import Timing


@dataclass(frozen=True, eq=False)
class Term:
    """One direction's part in a plan."""

    direction: Direction
    dose: float  # as asked: 1.0 is the safe dose, or a share of the norm if the term is raw
    strength: float  # of ``add`` the signed share of the norm, of ``scale`` the gain less 1, else the share of the way
    raw: bool = False  # whether the dose was asked for as a share of the norm
    operator: Operator = field(default_factory=lambda: Operator("add"))
    timing: Timing = field(default_factory=Timing)
    gate: Gate | None = None
    reference: Float[np.ndarray, " d"] | None = None  # of ``scale``: the value from which it moves away
    loop: Loop | None = None  # multiplies the strength by how far the reply is from a target

    @property
    def adds_always(self) -> bool:
        """Whether it is the same vector at every token of any text."""
        return self.operator.kind == "add" and self.timing.steady and self.gate is None and self.loop is None

    @property
    def bound(self) -> float:
        """Of ``ceiling``: the percentile that stops it; for a dose below zero, the one as far from the other end."""
        named = self.operator.argument or 0.0
        return named if self.strength > 0 else 100.0 - named

    @property
    def vector(self) -> Float[np.ndarray, " d"]:
        """What ``add`` adds at full strength, in the site's own units; of ``scale`` the gain less 1. ``[d]``."""
        return self.strength * self.direction.norm * self.direction.vector.astype(np.float64)


@dataclass(frozen=True, eq=False)
class SteeringPlan:
    """Terms in the order in which they act. Plans add up: ``plan_a + plan_b``."""

    terms: tuple[Term, ...]
    conflict: str = "sum"

    @property
    def is_nothing(self) -> bool:
        """Whether every dose is 0: then no hook is installed, and the model is bitwise the unsteered one."""
        return all(term.strength == 0 for term in self.terms)

    @cached_property
    def acting(self) -> dict[Site, tuple[Term, ...]]:
        """The terms by site, conflicts settled, without those of dose 0."""
        found: dict[Site, list[Term]] = {}
        for term in self.terms:
            if term.strength:
                found.setdefault(term.direction.at, []).append(term)
        return {site: settled(terms, self.conflict) for site, terms in sorted(found.items())}

    def expect(self, model: LensModel) -> None:
        """Raise a :class:`SteerError` if a direction was found in another model.

        Args:
            model: that is to be steered.
        """
        for term in self.terms:
            if term.direction.fingerprint != model.fingerprint:
                raise SteerError(f"This plan is for {term.direction.model}, not for {model.name}.")

    def __add__(self, other: "SteeringPlan") -> "SteeringPlan":
        if self.conflict != other.conflict:
            raise SteerError(f"These plans settle conflicts by {self.conflict} and {other.conflict}: choose one rule.")
        return SteeringPlan(self.terms + other.terms, self.conflict)

    def explain(self) -> str:
        """What will happen, in words: one line a term, then what the terms do to each other."""
        from affectlens.steering.explaining import explained

        return explained(self)

    def __repr__(self) -> str:
        return self.explain()


def plan_for(
    model: LensModel,
    doses: Mapping[str, float],
    *,
    directions: Directions | str | Path | None = None,
    raw: bool = False,
    operator: str = "add",
    layers: int | Sequence[int] | None = None,
    positions: str = "all",
    schedule: str = "constant",
    gate: Gate | str | None = None,
    loop: Loop | str | None = None,
    probes: Probes | str | Path | None = None,
    conflict: str = "sum",
) -> SteeringPlan:
    """A plan from doses by emotion.

    Args:
        model: the model to steer.
        doses: such as ``{"joy": 0.6, "fear": -0.3}``. With ``add`` and ``ceiling``, 1.0 is the emotion's validated safe
            dose; with the other operators it is the whole way (see :mod:`affectlens.steering.operators`).
        directions: a set, its file, or None for the set that is bundled for this model.
        raw: doses of ``add`` are shares of the site's median norm instead.
        operator: ``add``, ``ceiling(95)``, ``project_out``, ``clamp(90)`` or ``rotate(30)``.
        layers: use only the directions of these layers.
        positions: ``all``, ``prompt``, ``response`` or ``first(8)`` (see :mod:`affectlens.steering.timing`).
        schedule: ``constant``, ``decay(16)`` or ``ramp(16)``, in tokens of the reply.
        gate: act only at tokens where it is open: ``"fear>90"`` or ``"probe:joy<0"``, or a :class:`Gate` of this model.
        loop: act less as the reply's own score nears a target: ``"joy<75"`` or ``"probe:joy<1, gain 2, memory 8"``, or
            a :class:`Loop` of this model (see :mod:`affectlens.steering.looping`).
        probes: whose classes the texts of ``gate`` and ``loop`` may name, or their file.
        conflict: ``sum``, ``orthogonal`` or ``strongest``.

    Raises:
        SteerError: an unknown emotion, operator, position, schedule, gate, loop or rule; no safe dose; another model's
            directions, gate or loop; a gate or loop that is computed after what it acts on.
        StoreError: probes that can't be read, or of another model.
    """
    if conflict not in CONFLICTS:
        raise SteerError(f"conflict={conflict!r} is not known: choose {', '.join(CONFLICTS)}.")
    if not isinstance(doses, Mapping) or not doses:
        raise SteerError('No emotion is named: give doses such as {"joy": 0.6}.')
    found = directions if isinstance(directions, Directions) else load_directions(directions, model)
    found.expect(model)
    opens, follows = _watching(model, found, gate, loop, probes)
    only = [layers] if isinstance(layers, int) else layers
    how, when = Operator.parse(operator), Timing.of(positions, schedule)
    terms = []
    for name, dose in named(doses).items():
        mine = [d for d in found[name] if only is None or d.at.layer in only]
        if not mine:
            there = ", ".join(str(d.at.layer) for d in found[name])
            raise SteerError(f"{name} has no direction at layers {list(only or [])}, only at {there}.")
        terms += [Term(d, dose, strength(d, dose, how, raw), raw, how, when, opens, loop=follows) for d in mine]
        for one in mine if how.percentiles else ():
            level(one, how.argument or 0.0)
    plan = SteeringPlan(tuple(terms), conflict)
    check_order(model, plan.acting)
    return plan


def _watching(
    model: LensModel, directions: Directions, gate: Gate | str | None, loop: Loop | str | None,
    probes: Probes | str | Path | None,
) -> tuple[Gate | None, Loop | None]:  # fmt: skip
    """The gate and the loop, made of their texts, and of this model."""
    opens = parse_gate(gate, model, directions=directions, probes=probes) if isinstance(gate, str) else gate
    follows = parse_loop(loop, model, directions=directions, probes=probes) if isinstance(loop, str) else loop
    for what, one in (("gate", opens), ("loop", follows)):
        if one is not None and one.fingerprint != model.fingerprint:
            raise SteerError(f"The {what} ({one.says}) was found in another model than {model.name}.")
    return opens, follows


def strength(direction: Direction, dose: float, operator: Operator, raw: bool) -> float:
    """What a dose is of an operator: of ``add`` and ``ceiling`` the share of the norm, of the others that of the way.

    Args:
        direction: that the dose is of.
        dose: as asked.
        operator: what it is done by.
        raw: whether doses of ``add`` are shares of the norm already.

    Raises:
        SteerError: a dose that is no number or beyond what the operator takes, or no safe dose to count in.
    """
    if not np.isfinite(dose):
        raise SteerError(f"The dose of {direction.emotion} is {dose}: give a number.")
    if operator.kind in ("project_out", "clamp") and not 0 <= dose <= 1:
        raise SteerError(f"{operator} takes a dose from 0 to 1, the share of the way; {direction.emotion} has {dose}.")
    if not operator.adds or raw or dose == 0:
        return dose
    if direction.safe is None:
        raise SteerError(
            f"No safe dose of {direction.emotion} is known, so a dose of {dose} means nothing yet: find it with "
            "affectlens steer MODEL --evaluate, or give a share of the norm with raw=True (--raw), 0.3 for example."
        )
    return dose * direction.safe


def named(doses: Mapping[str, float]) -> dict[str, float]:
    """Doses by the basic word; an emotion that is named twice, by both its words, is refused.

    Raises:
        SteerError: an emotion named twice, or a dose that is no number.
    """
    try:
        found = {spelled(name): float(dose) for name, dose in doses.items()}
    except (TypeError, ValueError):
        raise SteerError(f"Doses are numbers by name, such as {{'joy': 0.6}}, not {dict(doses)!r}.") from None
    if len(found) < len(doses):
        raise SteerError(f"An emotion is named twice in {', '.join(doses)}: basic and peak words are one emotion.")
    return found
