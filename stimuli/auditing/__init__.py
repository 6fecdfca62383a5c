"""The audit: what readers without a model can tell from a battery's words, and whether its design holds."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.stimuli.auditing.finding import Audit, Bounds, Finding
    from affectlens.stimuli.auditing.floors import contrast
    from affectlens.stimuli.auditing.page import floors_figure
    from affectlens.stimuli.auditing.run import audit

__all__ = ["Audit", "Bounds", "Finding", "audit", "contrast", "floors_figure"]
__getattr__, __dir__ = lazily(
    __name__,
    {"Audit": "finding", "Bounds": "finding", "Finding": "finding", "audit": "run", "contrast": "floors",
     "floors_figure": "page"},
)  # fmt: skip
