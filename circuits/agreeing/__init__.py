"""Is what is read also used, a feature, steerable, on the circuit? For every layer and emotion: :func:`agree`."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.circuits.agreeing.carrying import circuit_by_layer
    from affectlens.circuits.agreeing.finding import find_runs
    from affectlens.circuits.agreeing.joining import agree
    from affectlens.circuits.agreeing.layered import ByLayer
    from affectlens.circuits.agreeing.reading import read_by_emotion
    from affectlens.circuits.agreeing.report import AgreementReport

__all__ = ["AgreementReport", "ByLayer", "agree", "circuit_by_layer", "find_runs", "read_by_emotion"]
__getattr__, __dir__ = lazily(__name__, {
    "AgreementReport": "report", "ByLayer": "layered", "agree": "joining", "circuit_by_layer": "carrying",
    "find_runs": "finding", "read_by_emotion": "reading",
})  # fmt: skip
