"""A steering plan in words."""

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from affectlens.steering.looping import Loop
    from affectlens.steering.plan import SteeringPlan, Term


def explained(plan: "SteeringPlan") -> str:
    """One line a term, in the order in which they act, then conflicts and warnings."""
    if plan.is_nothing:
        return "Every dose is 0: no hook is installed, and the model is bitwise the unsteered one."
    lines = []
    for site, terms in plan.acting.items():
        lines.append(f"{site}:")
        lines += [f"  {_line(term)}" for term in terms]
        adding = [t for t in terms if t.operator.kind == "add"]
        if len(adding) > 1:
            total = float(np.linalg.norm(np.sum([t.vector for t in adding], axis=0)))
            lines.append(f"  together at full strength {total / adding[0].direction.norm:.2f} of the norm")
    asked = [t for t in plan.terms if t.strength and t.operator.kind == "add"]
    for a, b in combinations(asked, 2):
        if a.direction.site == b.direction.site:
            cosine = float(a.direction.vector @ b.direction.vector)
            lines.append(f"{a.direction.emotion} and {b.direction.emotion} at {a.direction.site}: cosine {cosine:.2f}")
    if any(t.direction.site == u.direction.site for t, u in combinations(asked, 2)):
        lines.append({
            "sum": "Conflicts: the vectors are summed as they are.",
            "orthogonal": "Conflicts: each later vector loses what it shares with the earlier ones.",
            "strongest": "Conflicts: at each site only the largest share of the norm acts.",
        }[plan.conflict])  # fmt: skip
    lines += [f"Warning: {one}" for one in _warnings([t for t in plan.terms if t.strength and t.operator.adds])]
    return "\n".join(lines)


def one_line(explained: str) -> str:
    """A plan's explanation without its line breaks.

    >>> one_line("L3.resid_post:\\n  joy dose +1\\nWarning: weak.")
    'L3.resid_post: joy dose +1; Warning: weak.'

    Args:
        explained: from :meth:`SteeringPlan.explain`.
    """
    return "; ".join(line.strip() for line in explained.splitlines()).replace(":; ", ": ")


def _line(term: "Term") -> str:
    d = term.direction
    what = {
        "add": f"{term.strength:+.3f} of the norm ({d.norm:.0f})",
        "ceiling": f"{term.strength:+.3f} of the norm ({d.norm:.0f}), not beyond percentile {term.bound:g} of neutral",
        "project_out": f"{term.strength:.0%} of its projection taken out",
        "clamp": f"projection moved {term.strength:.0%} of the way to percentile {term.operator.argument} of neutral",
        "scale": f"distance of its parts from their reference times {1 + term.strength:g}",
        "rotate": f"turned by {term.strength * (term.operator.argument or 0):+.1f} degrees",
    }[term.operator.kind]
    gate = f", where {term.gate.says}" if term.gate else ""
    taken = f", without {', '.join(d.purified)}" if d.purified else ""
    loop = f", by how far the reply's {term.loop.says}{_setting(term.loop)}" if term.loop else ""
    return f"{d.emotion} dose {term.dose:+g}: {term.operator}, {what}, {term.timing}{gate}{loop} ({d.called}{taken})"


def _setting(loop: "Loop") -> str:
    return f" (gain {loop.gain:g}, memory {loop.memory:g})"


def _warnings(asked: "list[Term]") -> list[str]:
    found = []
    for term in asked:
        loop = term.loop
        if loop is not None and loop.emotion == term.direction.emotion and loop.above == (term.strength > 0):
            found.append(
                f"the dose of {loop.emotion} takes the reply away from the loop's target: write "
                f"{loop.emotion}{'<' if loop.above else '>'} instead, or give a dose of the other sign."
            )
        d = term.direction
        if d.safe is None:
            found.append(f"no safe dose of {d.emotion} is known; replies may fall apart.")
        elif abs(term.strength) > d.safe * (1 + 1e-9):
            found.append(
                f"{d.emotion} is at {abs(term.strength):.2f} of the norm, beyond the {d.safe:.2f} that was safe."
            )
    return list(dict.fromkeys(found))
