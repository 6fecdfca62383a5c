"""Steering for other engines: control vectors in their formats, and checkpoints with the vector in the weights."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.steering.exporting.importing import import_directions
    from affectlens.steering.exporting.summing import summed
    from affectlens.steering.exporting.writing import export

__all__ = ["export", "import_directions", "summed"]
__getattr__, __dir__ = lazily(
    __name__, {"export": "writing", "import_directions": "importing", "summed": "summing"}
)  # fmt: skip
