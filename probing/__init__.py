"""Linear probes with their floors, their controls and their intervals; asking, transfer, contexts and geometry."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.probing import geometry
    from affectlens.probing.comparing import compare
    from affectlens.probing.contexts.formatting import formats
    from affectlens.probing.contexts.instructing import malleability
    from affectlens.probing.contexts.persisting import persistence
    from affectlens.probing.estimators import LDAProbe, LogisticProbe, MeanDifferenceProbe, MLPProbe, RidgeProbe
    from affectlens.probing.ladder import probe
    from affectlens.probing.probes import Probes
    from affectlens.probing.prompting.asking import ask
    from affectlens.probing.prompting.checking import comprehension
    from affectlens.probing.prompting.two_by_two import bound_or_not
    from affectlens.probing.report import ProbeReport
    from affectlens.probing.tokens.reading import read_tokens
    from affectlens.probing.transferring import transfer

__all__ = [
    "LDAProbe",
    "LogisticProbe",
    "MLPProbe",
    "MeanDifferenceProbe",
    "ProbeReport",
    "Probes",
    "RidgeProbe",
    "ask",
    "bound_or_not",
    "compare",
    "comprehension",
    "formats",
    "geometry",
    "malleability",
    "persistence",
    "probe",
    "read_tokens",
    "transfer",
]
_FROM = {
    "comparing": ("compare",), "contexts.formatting": ("formats",), "contexts.instructing": ("malleability",),
    "contexts.persisting": ("persistence",),
    "estimators": ("LDAProbe", "LogisticProbe", "MLPProbe", "MeanDifferenceProbe", "RidgeProbe"),
    "ladder": ("probe",), "probes": ("Probes",), "prompting.asking": ("ask",),
    "prompting.checking": ("comprehension",), "prompting.two_by_two": ("bound_or_not",), "report": ("ProbeReport",),
    "tokens.reading": ("read_tokens",), "transferring": ("transfer",), "": ("geometry",),
}  # fmt: skip
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
