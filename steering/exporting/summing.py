"""What a steering plan adds to each site, where that is one constant vector: all that a file or a bias can hold."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.sites import Site
from affectlens.steering.directions import Directions
from affectlens.steering.operators import Operator
from affectlens.steering.plan import SteeringPlan, Term, named, strength


def summed(
    directions: Directions, doses: Mapping[str, float], raw: bool = False
) -> dict[int, Float[np.ndarray, " d_model"]]:
    """What doses of several emotions add to the residual stream after each block, as one vector a layer.

    Args:
        directions: where each emotion's directions are taken from, all of them at ``resid_post``.
        doses: such as ``{"joy": 0.6, "fear": -0.3}``; 1.0 is an emotion's safe dose.
        raw: doses are shares of the site's median norm instead.

    Returns:
        By layer, in the units of the residual stream, float32; layers where nothing is added are left out.

    Raises:
        SteerError: all doses 0, an emotion without directions or without a safe dose, a site other than ``resid_post``.
    """
    return by_layer(constant(plan_of(directions, doses, raw=raw)))


def plan_of(directions: Directions, doses: Mapping[str, float], *, raw: bool) -> SteeringPlan:
    """The plan that adds these doses at every token: what :func:`affectlens.steering.plan.plan_for` makes, without the
    model.

    Raises:
        SteerError: no doses, a dose that is no number, an emotion without directions or without a safe dose.
    """
    if not doses:
        raise SteerError('No emotion is named: give doses such as {"joy": 0.6}.')
    adding = Operator("add")
    terms = [
        Term(one, dose, strength(one, dose, adding, raw), raw, adding)
        for name, dose in named(doses).items()
        for one in directions[name]
    ]
    return SteeringPlan(tuple(terms))


def constant(plan: SteeringPlan) -> dict[Site, Float[np.ndarray, " d"]]:
    """The vector that a plan adds at each site, conflicts settled; the same at every token of any text.

    Raises:
        SteerError: a plan that does something else than that, or nothing.
    """
    for term in plan.terms:
        if not term.adds_always and term.strength:
            raise SteerError(
                f"A file holds only what is added to every token alike, and {term.direction.emotion} at "
                f"{term.direction.site} has {_other(term)}: export a plan with operator add, positions all, schedule "
                "constant, no gate and no loop, or steer with affectlens.steering.steer."
            )
    sums = {site: _sum(terms) for site, terms in plan.acting.items()}
    kept = {site: total for site, total in sums.items() if np.any(total)}
    if not kept:
        raise SteerError("There is nothing to export: every dose is 0, or the doses cancel. Give one that is not.")
    return kept


def _sum(terms: tuple[Term, ...]) -> Float[np.ndarray, " d"]:
    return np.sum([term.vector for term in terms], axis=0).astype(np.float32)


def _other(term: Term) -> str:
    """What of a term no file can hold, in words."""
    if term.operator.kind != "add":
        return f"operator {term.operator}"
    if term.gate:
        return "a gate"
    if term.loop:
        return "a loop"
    timing = term.timing
    return f"positions {timing.place}" if timing.place != "all" else f"schedule {timing.schedule}"


def by_layer(sums: Mapping[Site, Float[np.ndarray, " d"]]) -> dict[int, Float[np.ndarray, " d_model"]]:
    """Vectors by layer, where all are added to the stream as it leaves a block.

    Raises:
        SteerError: any other site.
    """
    if others := [site for site in sums if site.kind != "resid_post"]:
        raise SteerError(
            f"A control vector is added to the residual stream as it leaves a block (resid_post), and {others[0]} is "
            'elsewhere: bake it into a checkpoint (to="checkpoint"), or export directions at resid_post.'
        )
    return {site.layer: total for site, total in sums.items()}
