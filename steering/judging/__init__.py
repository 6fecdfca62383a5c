"""Blind judges of the emotion in a text, with the record of their own errors; they work offline.

:func:`encoder_judge` reads a sentence encoder of another family than what is steered, with a head fitted on GoEmotions;
:func:`likelihood_judge` a language model's posterior; :func:`endpoint_judge` asks a server, if there is one. None sees
what a reply was steered to. :func:`kappa` says how far two agree, :func:`corrected` takes a judge's known errors out of
a share, and :func:`without_words` masks emotion words, so that a reply may be judged by the rest.
"""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.steering.judging.agreeing import corrected, kappa
    from affectlens.steering.judging.by_encoder import EncoderJudge, encoder_judge
    from affectlens.steering.judging.by_endpoint import EndpointJudge, endpoint_judge
    from affectlens.steering.judging.by_likelihood import LikelihoodJudge, calibrated, likelihood_judge
    from affectlens.steering.judging.masking import without_words
    from affectlens.steering.judging.scoring import Record, record
    from affectlens.steering.judging.verdicts import Judge, Verdicts

__all__ = [
    "EncoderJudge",
    "EndpointJudge",
    "Judge",
    "LikelihoodJudge",
    "Record",
    "Verdicts",
    "calibrated",
    "corrected",
    "encoder_judge",
    "endpoint_judge",
    "kappa",
    "likelihood_judge",
    "record",
    "without_words",
]
_FROM = {
    "agreeing": ("corrected", "kappa"), "by_encoder": ("EncoderJudge", "encoder_judge"),
    "by_endpoint": ("EndpointJudge", "endpoint_judge"),
    "by_likelihood": ("LikelihoodJudge", "calibrated", "likelihood_judge"), "masking": ("without_words",),
    "scoring": ("Record", "record"), "verdicts": ("Judge", "Verdicts"),
}  # fmt: skip
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
