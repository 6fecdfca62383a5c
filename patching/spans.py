"""Spans of one text of a pair, for what needs no matched tokens: ablations, and attention that is cut."""

from collections.abc import Sequence

import numpy as np

from affectlens.errors import CaptureError, PatchError
from affectlens.patching.pairs import PatchPair, Side
from affectlens.positions import Position

SPANS = ("text", "changed", "shared", "ending", "cue", "last")


def spans(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names of spans, each checked.

    Raises:
        PatchError: a name that is none.
    """
    asked = (names,) if isinstance(names, str) else tuple(names)
    for name in asked:
        if name not in SPANS and not name.startswith("span:"):
            raise PatchError(f"There is no span {name!r}; choose from {', '.join(SPANS)}, or span:WORDS.")
    if not asked:
        raise PatchError(f"No span is named; choose from {', '.join(SPANS)}, or span:WORDS.")
    return asked


def tokens(pair: PatchPair, side: Side, name: str) -> list[int]:
    """The positions of a span in one of the pair's texts; of ``changed`` those without a match too.

    The first token, in most models an attention sink, is in none: what is done to it is damage.
    """
    end = 0 if side is pair.clean else 1
    if name == "text":
        return list(range(1, len(side)))
    if name == "changed":
        return [at for at in (pair.alignment.a, pair.alignment.b)[end].changed if at]
    if name.startswith("span:"):
        try:
            return np.flatnonzero(Position("span", name.removeprefix("span:")).mask(side.layout)).tolist()
        except CaptureError:
            return []
    return [match[end] for match in pair.segments[name]]
