"""Linear probes with their floors, their controls and their intervals; asking, transfer, geometry, SAE features."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.probing import geometry
    from affectlens.probing.comparing import compare
    from affectlens.probing.contexts.formatting import formats
    from affectlens.probing.contexts.instructing import malleability
    from affectlens.probing.contexts.persisting import persistence
    from affectlens.probing.estimators import LDAProbe, LogisticProbe, MeanDifferenceProbe, MLPProbe, RidgeProbe
    from affectlens.probing.features.codes import Codes, encode_battery
    from affectlens.probing.features.evaluating import evaluate_saes
    from affectlens.probing.features.making import make_sae
    from affectlens.probing.features.report import FeatureReport
    from affectlens.probing.features.sparse import sparse_probe
    from affectlens.probing.features.sparse_report import SparseReport
    from affectlens.probing.features.study import find_features
    from affectlens.probing.features.supervising import supervised
    from affectlens.probing.ladder import probe
    from affectlens.probing.probes import Probes
    from affectlens.probing.prompting.asking import ask
    from affectlens.probing.prompting.checking import comprehension
    from affectlens.probing.prompting.two_by_two import bound_or_not
    from affectlens.probing.report import ProbeReport
    from affectlens.probing.sae import Sae
    from affectlens.probing.sae_files import load_sae
    from affectlens.probing.tokens.reading import read_tokens
    from affectlens.probing.transferring import transfer

__all__ = [
    "Codes",
    "FeatureReport",
    "LDAProbe",
    "LogisticProbe",
    "MLPProbe",
    "MeanDifferenceProbe",
    "ProbeReport",
    "Probes",
    "RidgeProbe",
    "Sae",
    "SparseReport",
    "ask",
    "bound_or_not",
    "compare",
    "comprehension",
    "encode_battery",
    "evaluate_saes",
    "find_features",
    "formats",
    "geometry",
    "load_sae",
    "make_sae",
    "malleability",
    "persistence",
    "probe",
    "read_tokens",
    "sparse_probe",
    "supervised",
    "transfer",
]
_FROM = {
    "comparing": ("compare",), "contexts.formatting": ("formats",), "contexts.instructing": ("malleability",),
    "contexts.persisting": ("persistence",),
    "estimators": ("LDAProbe", "LogisticProbe", "MLPProbe", "MeanDifferenceProbe", "RidgeProbe"),
    "features.codes": ("Codes", "encode_battery"), "features.evaluating": ("evaluate_saes",),
    "features.making": ("make_sae",), "features.report": ("FeatureReport",), "features.sparse": ("sparse_probe",),
    "features.sparse_report": ("SparseReport",), "features.study": ("find_features",),
    "features.supervising": ("supervised",), "sae": ("Sae",), "sae_files": ("load_sae",),
    "ladder": ("probe",), "probes": ("Probes",), "prompting.asking": ("ask",),
    "prompting.checking": ("comprehension",), "prompting.two_by_two": ("bound_or_not",), "report": ("ProbeReport",),
    "tokens.reading": ("read_tokens",), "transferring": ("transfer",), "": ("geometry",),
}  # fmt: skip
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
