"""Causal tests of subspaces: erase a concept (:func:`erase`), or interchange a few directions (:func:`das`)."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.patching.subspaces.erasing import erase
    from affectlens.patching.subspaces.erasure import Erasure
    from affectlens.patching.subspaces.leace import Leace
    from affectlens.patching.subspaces.outcomes import SubspaceSearch
    from affectlens.patching.subspaces.searching import das

__all__ = ["Erasure", "Leace", "SubspaceSearch", "das", "erase"]
__getattr__, __dir__ = lazily(
    __name__,
    {"Erasure": "erasure", "Leace": "leace", "SubspaceSearch": "outcomes", "das": "searching", "erase": "erasing"},
)
