"""A circuit's heads and neurons, scaled or replaced as a model writes, and what that gives beside steering.

``modulation_of`` takes the parts and their means over training scenes, ``modulation.plan(gain)`` is a steering plan for
``steer``, ``write``, ``stream`` and ``beside``, and ``compare`` sets it beside steering and prompting at equal cost.
"""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.circuits.modulating.comparing import compare
    from affectlens.circuits.modulating.comparison import Comparison
    from affectlens.circuits.modulating.extents import FULL, QUICK, Extent
    from affectlens.circuits.modulating.making import modulate, modulation_of
    from affectlens.circuits.modulating.modulation import Modulation
    from affectlens.circuits.modulating.sections import section

__all__ = ["FULL", "QUICK", "Comparison", "Extent", "Modulation", "compare", "modulate", "modulation_of", "section"]
__getattr__, __dir__ = lazily(__name__, {
    "FULL": "extents", "QUICK": "extents", "Extent": "extents", "Comparison": "comparison", "compare": "comparing",
    "Modulation": "modulation", "modulate": "making", "modulation_of": "making", "section": "sections",
})  # fmt: skip
