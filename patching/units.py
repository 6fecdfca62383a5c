"""Where a sweep patches: the names of sites and positions, as sites of the model and matched tokens of a pair."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from affectlens.errors import CaptureError, PatchError
from affectlens.model import LensModel
from affectlens.patching.pairs import SEGMENTS, Match, PatchPair
from affectlens.positions import Position
from affectlens.sites import Site

Sites = str | Site | Iterable[str | Site]
Positions = str | int | Iterable[str | int]
EACH = "each"
_PARTED = re.compile(r"(?P<site>(?:L\d+\.)?(?:z|q|k|v|pattern))\.each")


@dataclass(frozen=True)
class Unit:
    """Tokens that are patched together."""

    segment: str  # a segment's name, span:words, or an offset from the end
    position: int  # in the base text, of a token patched by itself; -1 for several
    matches: tuple[Match, ...]  # position in the source, position in the base


def expand_sites(model: LensModel, sites: Sites) -> tuple[Site, ...]:
    """Sites by name; ``heads`` is ``z.each``, and ``z.each`` is each head's ``z`` by itself (also q, k, v, pattern).

    Raises:
        SiteError: a site that the model lacks.
        PatchError: no site, or features of a dictionary that can't decode.
    """
    asked = [sites] if isinstance(sites, str | Site) else list(sites)
    found: dict[Site, None] = {}
    for one in asked:
        name = "z.each" if one == "heads" else one
        parted = _PARTED.fullmatch(name) if isinstance(name, str) else None
        for site in model.sites.expand(parted["site"] if parted else name):
            if site.kind == "features" and model.sites.dictionaries[site.sae or ""].decode is None:
                raise PatchError(f"{site} can't be patched: its dictionary was attached without decode=.")
            heads = range(model.sites.shape(site)[0]) if parted else [site.index]
            found |= dict.fromkeys(replace(site, index=head) for head in heads)
    if not found:
        raise PatchError("No site is named: give one, for example resid_pre or heads.")
    return tuple(found)


def expand_positions(positions: Positions) -> tuple[str | int, ...]:
    """Position names, each checked.

    Raises:
        PatchError: a name that is none, or an absolute position, which two texts of different length don't share.
    """
    asked = [positions] if isinstance(positions, str | int) else list(positions)
    for one in asked:
        if not isinstance(one, int | str):
            raise PatchError(f"Position {one!r} is neither a name nor an offset from the end.")
        if isinstance(one, int) and one >= 0:
            raise PatchError(f"Position {one} is counted from the start, where texts differ: count from the end, -1.")
        if isinstance(one, str) and one != EACH and one not in SEGMENTS and not one.startswith("span:"):
            raise PatchError(
                f"There is no position {one!r}: choose from {', '.join(SEGMENTS)}, each, span:WORDS, or an offset "
                "from the end such as -1."
            )
    if not asked:
        raise PatchError(f"No position is named: choose from {', '.join(SEGMENTS)}, each, span:WORDS.")
    return tuple(dict.fromkeys(asked))


def units(pair: PatchPair, positions: Iterable[str | int]) -> Iterator[Unit | str]:
    """The units of a pair whose clean text is the source; a sentence in place of one that has no matched tokens."""
    for name in positions:
        if name == EACH:
            owner = {match: part for part in SEGMENTS[:4] for match in pair.segments[part]}
            yield from (Unit(owner[match], match[1], (match,)) for match in pair.segments["all"])
            continue
        matches, why = _matches(pair, name)
        yield Unit(str(name), -1, matches) if matches else f"{pair.name} has no {name}{why}"


def _matches(pair: PatchPair, name: str | int) -> tuple[tuple[Match, ...], str]:
    """The matched tokens that are meant; if none, why."""
    every = pair.segments["all"]
    if isinstance(name, int):
        return (every[name:][:1], "") if -name <= len(every) else ((), f": {len(every)} tokens from the difference on")
    if not name.startswith("span:"):
        return pair.segments[name], " after the first difference"
    rule = Position("span", name.removeprefix("span:"))
    try:
        sides = [np.flatnonzero(rule.mask(side.layout)) for side in (pair.clean, pair.corrupt)]
    except CaptureError as error:
        return (), f" in both texts: {error}"
    if len(sides[0]) != len(sides[1]):
        return (), f" of equal length in both texts ({len(sides[0])} and {len(sides[1])} tokens)"
    return tuple(zip(sides[0].tolist(), sides[1].tolist(), strict=True)), ""
