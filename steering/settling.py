"""Where several terms add at one site, a stated rule settles their conflict.

``sum``         the vectors are added as they are; doses add, and opposite directions cancel
``orthogonal``  each later vector loses what it shares with the earlier ones: the first named keeps its whole effect
``strongest``   at each site only the term of the largest share of the norm acts

Terms of other operators, a ceiling's too, are in no conflict: they act in their order.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from affectlens.steering.plan import Term

CONFLICTS = ("sum", "orthogonal", "strongest")


def settled(terms: "list[Term]", conflict: str) -> "tuple[Term, ...]":
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
