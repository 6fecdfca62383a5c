"""The geometry of emotion directions: cosines, RSA, CKA, the circumplex, clusters. Start with :func:`geometry`."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.probing.geometry.carriers import Terms, terms, word_means
    from affectlens.probing.geometry.circle import Circumplex, circumplex
    from affectlens.probing.geometry.clusters import silhouettes
    from affectlens.probing.geometry.dendrograms import tree_agreement
    from affectlens.probing.geometry.directions import Directions
    from affectlens.probing.geometry.kernels import cka
    from affectlens.probing.geometry.models import norm_contrast
    from affectlens.probing.geometry.relating import rsa
    from affectlens.probing.geometry.report import GeometryReport
    from affectlens.probing.geometry.scenes import agreement, means
    from affectlens.probing.geometry.whole import geometry

__all__ = [
    "Circumplex", "Directions", "GeometryReport", "Terms", "agreement", "circumplex", "cka", "geometry", "means",
    "norm_contrast", "rsa", "silhouettes", "terms", "tree_agreement", "word_means",
]  # fmt: skip
_FROM = {
    "carriers": ("Terms", "terms", "word_means"), "circle": ("Circumplex", "circumplex"), "clusters": ("silhouettes",),
    "dendrograms": ("tree_agreement",), "directions": ("Directions",), "kernels": ("cka",),
    "models": ("norm_contrast",), "relating": ("rsa",), "report": ("GeometryReport",), "scenes": ("agreement", "means"),
    "whole": ("geometry",),
}  # fmt: skip
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
