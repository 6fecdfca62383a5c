"""Where patched values come from: the pair's other text, and the controls that a finding has to beat.

================== =================================================================================================
``matched``        the pair's other text, at each token's match
``random``         a text of another group, whatever it evokes
``same_emotion``   an emotional text of another group with the pair's emotion: not a null but a test of generality
``neutral``        a neutral text of another group
``wrong_position`` the pair's other text, at matched tokens outside of what is patched, from half-way round on
================== =================================================================================================

A control's texts have no matched tokens, so each token takes the one that is as far from the end of the same segment
(and from its end again, where that is shorter); the first token of a text serves for none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from affectlens.patching.pairs import Match, PatchPair, Side
from affectlens.patching.units import Unit

MATCHED = "matched"
CONTROLS = ("random", "same_emotion", "neutral", "wrong_position")


@dataclass(frozen=True, eq=False)
class Source:
    """A text to take values from, with the position in it for each position of the base."""

    kind: str
    side: Side
    places: dict[int, int] = field(default_factory=dict)  # base position -> position in the source's text
    elsewhere: tuple[Match, ...] = ()  # of a wrong position: the matched tokens to choose from

    def of(self, unit: Unit) -> list[int]:
        """The source's positions for a unit's tokens; none where nothing lies outside of the unit."""
        if not self.elsewhere:
            return [self.places[at] for _, at in unit.matches]
        own, n = set(unit.matches), len(self.elsewhere)
        first = next((i for i, match in enumerate(self.elsewhere) if match in own), 0) + n // 2
        free = [match[0] for i in range(n) if (match := self.elsewhere[(first + i) % n]) not in own]
        return [free[i % len(free)] for i in range(len(unit.matches))] if free else []


def sources(
    pair: PatchPair, units: Sequence[Unit], others: Sequence[PatchPair], controls: Sequence[str], seed: int
) -> Iterator[Source]:
    """The matched source and the controls that there are; ``pair.clean`` is the source and ``pair.corrupt`` the base.

    Args:
        pair: the pair.
        units: what will be patched.
        others: all pairs, whose texts serve as controls, turned as ``pair`` is.
        controls: which of :data:`CONTROLS`.
        seed: of the choice of texts; the choice depends on the pair's name, not on its place among others.
    """
    matches = tuple(dict.fromkeys(match for unit in units for match in unit.matches))
    yield Source(MATCHED, pair.clean, {base: source for source, base in matches})
    every = pair.segments["all"]
    if "wrong_position" in controls and len(every) > 1:
        yield Source("wrong_position", pair.clean, elsewhere=every)
    rng = np.random.default_rng([seed, *pair.name.encode()])
    own = {pair.clean.group, pair.corrupt.group}
    foreign = [(one, end) for one in others if one.group != pair.group for end in (0, 1)
               if (one.clean, one.corrupt)[end].group not in own]  # fmt: skip
    for kind in (c for c in CONTROLS if c in controls and c != "wrong_position"):
        fitting = [(one, end) for one, end in foreign if _fits(kind, (one.clean, one.corrupt)[end], pair)]
        if fitting:
            one, end = fitting[rng.integers(len(fitting))]
            yield Source(kind, (one.clean, one.corrupt)[end], _by_segment(pair, matches, one, end))


def _fits(kind: str, side: Side, pair: PatchPair) -> bool:
    if kind == "random":
        return True
    if kind == "neutral":
        return side.affect is False
    return side.affect is True and side.emotion == pair.emotion


def _by_segment(pair: PatchPair, matches: Sequence[Match], other: PatchPair, end: int) -> dict[int, int]:
    """For each base position the other text's, as far from the end of the same segment."""
    owner: dict[int, tuple[str, int]] = {}
    for part in ("changed", "shared", "ending", "cue"):
        n = len(pair.segments[part])
        owner |= {base: (part, n - i) for i, (_, base) in enumerate(pair.segments[part])}
    whole = len(other.clean if end == 0 else other.corrupt)
    out = {}
    for _, base in matches:
        part, back = owner.get(base, ("all", len(pair.corrupt) - base))
        theirs = other.segments[part] or other.segments["all"]
        places = [match[end] for match in theirs if match[end]] or list(range(1, whole))
        out[base] = places[-1 - (back - 1) % len(places)]
    return out
