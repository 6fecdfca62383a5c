"""A steering plan: which directions, how strongly, by which operator, where and when; it explains itself.

Where several terms add at one site, a stated rule settles their conflict:

``sum``         the vectors are added as they are; doses add, and opposite directions cancel
``orthogonal``  each later vector loses what it shares with the earlier ones: the first named keeps its whole effect
``strongest``   at each site only the term of the largest share of the norm acts
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering.directions import Direction, Directions, spelled
from affectlens.steering.gates import Gate
from affectlens.steering.operators import Operator
from affectlens.steering.shipped import load_directions
from affectlens.steering.timing import Timing

CONFLICTS = ("sum", "orthogonal", "strongest")


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

    @property
    def adds_always(self) -> bool:
        """Whether it is the same vector at every token of any text."""
        return self.operator.kind == "add" and self.timing.steady and self.gate is None

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
    gate: Gate | None = None,
    conflict: str = "sum",
) -> SteeringPlan:
    """A plan from doses by emotion.

    Args:
        model: the model to steer.
        doses: such as ``{"joy": 0.6, "fear": -0.3}``. With ``add``, 1.0 is the emotion's validated safe dose; with the
            other operators it is the whole way (see :mod:`affectlens.steering.operators`).
        directions: a set, its file, or None for the set that is bundled for this model.
        raw: doses of ``add`` are shares of the site's median norm instead.
        operator: ``add``, ``project_out``, ``clamp(90)`` or ``rotate(30)``.
        layers: use only the directions of these layers.
        positions: ``all``, ``prompt``, ``response`` or ``first(8)`` (see :mod:`affectlens.steering.timing`).
        schedule: ``constant``, ``decay(16)`` or ``ramp(16)``, in tokens of the reply.
        gate: act only at tokens where it is open; of this model.
        conflict: ``sum``, ``orthogonal`` or ``strongest``.

    Raises:
        SteerError: an unknown emotion, operator, position, schedule or rule; no safe dose; another model's directions.
    """
    if conflict not in CONFLICTS:
        raise SteerError(f"conflict={conflict!r} is not known: choose {', '.join(CONFLICTS)}.")
    if not isinstance(doses, Mapping) or not doses:
        raise SteerError('No emotion is named: give doses such as {"joy": 0.6}.')
    if gate is not None and gate.fingerprint != model.fingerprint:
        raise SteerError(f"The gate ({gate.says}) was found in another model than {model.name}.")
    found = directions if isinstance(directions, Directions) else load_directions(directions, model)
    found.expect(model)
    only = [layers] if isinstance(layers, int) else layers
    how, when = Operator.parse(operator), Timing.of(positions, schedule)
    terms = []
    for name, dose in named(doses).items():
        mine = [d for d in found[name] if only is None or d.at.layer in only]
        if not mine:
            there = ", ".join(str(d.at.layer) for d in found[name])
            raise SteerError(f"{name} has no direction at layers {list(only or [])}, only at {there}.")
        terms += [Term(d, dose, strength(d, dose, how, raw), raw, how, when, gate) for d in mine]
        for one in mine:
            if how.kind == "clamp":
                _check_levels(one, how)
    return SteeringPlan(tuple(terms), conflict)


def strength(direction: Direction, dose: float, operator: Operator, raw: bool) -> float:
    """What a dose is of an operator: of ``add`` the signed share of the norm, of the others the share of the way.

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
    if operator.kind != "add" or raw or dose == 0:
        return dose
    if direction.safe is None:
        raise SteerError(
            f"No safe dose of {direction.emotion} is known, so a dose of {dose} means nothing yet: find it with "
            "affectlens steer MODEL --evaluate, or give a share of the norm with raw=True (--raw), 0.3 for example."
        )
    return dose * direction.safe


def _check_levels(direction: Direction, operator: Operator) -> None:
    from affectlens.steering.gates import level

    level(direction, operator.argument or 0.0)


def settled(terms: list[Term], conflict: str) -> tuple[Term, ...]:
    """The terms of one site after the rule; only those that add are in conflict."""
    adding = [t for t in terms if t.operator.kind == "add"]
    if conflict == "sum" or len(adding) < 2:
        return tuple(terms)
    if conflict == "strongest":
        best = max(adding, key=lambda t: abs(t.strength))
        return tuple(t for t in terms if t.operator.kind != "add" or t is best)
    basis: list[np.ndarray] = []
    kept: dict[int, Term] = {}
    for term in adding:
        mine = term.direction.vector.astype(np.float64)
        rest = mine - sum((b * (b @ mine) for b in basis), np.zeros_like(mine))
        length = float(np.linalg.norm(rest))
        if length < 1e-6:
            continue
        basis.append(rest / length)
        direction = replace(term.direction, vector=basis[-1].astype(np.float32))
        kept[id(term)] = replace(term, direction=direction, strength=term.strength * length)
    return tuple(kept.get(id(t), t) for t in terms if t.operator.kind != "add" or id(t) in kept)


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
