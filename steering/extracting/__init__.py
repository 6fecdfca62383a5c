"""Directions by every method, from any battery and site, purified, scored on held-out groups; and their placebos."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.steering.extracting.chosen import Selection
    from affectlens.steering.extracting.decoding import from_decoder
    from affectlens.steering.extracting.figures import cosine_heat, score_curve
    from affectlens.steering.extracting.making import extract
    from affectlens.steering.extracting.overlap import cosines
    from affectlens.steering.extracting.placebo import placebos
    from affectlens.steering.extracting.selecting import select_parts

__all__ = [
    "Selection",
    "cosine_heat",
    "cosines",
    "extract",
    "from_decoder",
    "placebos",
    "score_curve",
    "select_parts",
]
_FROM = {
    "making": ("extract",), "placebo": ("placebos",), "decoding": ("from_decoder",), "overlap": ("cosines",),
    "chosen": ("Selection",), "selecting": ("select_parts",), "figures": ("cosine_heat", "score_curve"),
}  # fmt: skip
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
