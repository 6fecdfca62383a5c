"""Linear probes with their floors, their controls and their intervals."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.probing.ladder import probe
    from affectlens.probing.probes import Probes
    from affectlens.probing.report import ProbeReport

__all__ = ["ProbeReport", "Probes", "probe"]
__getattr__, __dir__ = lazily(__name__, {"ProbeReport": "report", "Probes": "probes", "probe": "ladder"})
