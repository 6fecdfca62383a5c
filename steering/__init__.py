"""Directions of emotion, and steering by them: extract, explain, steer, measure, export."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.steering.applying import steer
    from affectlens.steering.directions import Direction, Directions
    from affectlens.steering.gates import Gate
    from affectlens.steering.plan import SteeringPlan, plan_for
    from affectlens.steering.shipped import bundled, load_directions
    from affectlens.steering.writing import stream, write

__all__ = [
    "Direction", "Directions", "Gate", "SteeringPlan", "bundled", "load_directions", "plan_for", "steer", "stream",
    "write",
]  # fmt: skip
_FROM = {
    "shipped": ("bundled", "load_directions"), "directions": ("Direction", "Directions"), "gates": ("Gate",),
    "writing": ("stream", "write"), "plan": ("SteeringPlan", "plan_for"), "applying": ("steer",),
}  # fmt: skip
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
