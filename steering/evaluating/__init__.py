"""From judged replies to what may be said of steering: :func:`report_on`."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.steering.evaluating.result import SteeringReport, report_on

__all__ = ["SteeringReport", "report_on"]
__getattr__, __dir__ = lazily(__name__, {"SteeringReport": "result", "report_on": "result"})
