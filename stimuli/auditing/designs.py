"""What of a battery the properties look at: matched pairs, keyword twins, quadruples."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Int

from affectlens.stimuli.battery import Battery
from affectlens.stimuli.stimulus import CELLS, Stimulus


@dataclass(frozen=True)
class Pair:
    """An emotional item and its matched neutral."""

    emotional: Stimulus
    neutral: Stimulus

    @property
    def group(self) -> str:
        return self.emotional.group


@dataclass(frozen=True)
class Design:
    """A battery seen as pairs and quadruples."""

    battery: Battery

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Each emotional item with a neutral of its group that is no cell of a quadruple.

        With several neutrals in a group they go round; with fewer than emotional items, one has several partners.
        """
        out = []
        for items in self.battery.groups().values():
            whole = [s for s in items if s.cell is None]
            emotional, neutral = ([s for s in whole if s.role == role] for role in ("emotional", "neutral"))
            if neutral:
                out += [Pair(s, neutral[i % len(neutral)]) for i, s in enumerate(emotional)]
        return tuple(out)

    @cached_property
    def keywords(self) -> tuple[tuple[Stimulus, Stimulus], ...]:
        """Emotional items with their keyword twins."""
        emotional = {pair.group: pair.emotional for pair in self.pairs}
        return tuple((emotional[s.group], s) for s in self.battery if s.role == "keyword" and s.group in emotional)

    @cached_property
    def quadruples(self) -> dict[str, dict[str, Stimulus]]:
        """Complete quadruples by group: cell to item."""
        found: dict[str, dict[str, Stimulus]] = {}
        for s in self.battery:
            if s.cell is not None:
                found.setdefault(s.group, {})[s.cell] = s
        return {group: cells for group, cells in found.items() if set(cells) == set(CELLS)}

    def crossed(self) -> dict[str, dict[str, Stimulus]]:
        """The quadruples that evoke an emotion in two of their cells."""
        return {g: cells for g, cells in self.quadruples.items() if any(s.affect for s in cells.values())}

    def keyword_free(self) -> tuple[Stimulus, ...]:
        """Items that must hold no emotion word: all but keyword twins and decoys."""
        return tuple(s for s in self.battery if s.role not in ("keyword", "decoy"))

    def paired(self, *keys: str) -> "Paired | str":
        """The pairs as rows (emotional, neutral, emotional, ...) with folds, or why there are none.

        The folds are by the first of ``keys`` that at least three values of the emotional items have; pairs without a
        value are left out. With no such key, and several keys to choose from, eight folds of whole groups.
        """
        for key in keys:
            kept = [pair for pair in self.pairs if getattr(pair.emotional, key) is not None]
            if len({getattr(pair.emotional, key) for pair in kept}) >= 3:
                codes, _ = pd.factorize(pd.Series([getattr(pair.emotional, key) for pair in kept]))
                out = len(self.pairs) - len(kept)
                said = f"{key}s held out" + (f"; {out} pairs without {key} left out" if out else "")
                return Paired(tuple(kept), np.asarray(codes, dtype=int), said)
        groups, _ = pd.factorize(pd.Series([pair.group for pair in self.pairs], dtype=object))
        if len(keys) > 1 and len(set(groups)) >= 8:
            return Paired(
                self.pairs, np.asarray(groups % 8, dtype=int), "groups held out: too few " + " and ".join(keys)
            )
        few = f", fewer than three kinds of {' or '.join(keys)}" if len(self.pairs) > 2 else ""
        return f"{len(self.pairs)} matched pairs{few}"


@dataclass(frozen=True)
class Paired:
    """Pairs with the fold of each."""

    pairs: tuple[Pair, ...]
    fold: Int[np.ndarray, " pair"]
    said: str  # what the folds hold out

    @property
    def texts(self) -> list[str]:
        return [s.text for pair in self.pairs for s in (pair.emotional, pair.neutral)]

    @property
    def y(self) -> Int[np.ndarray, " item"]:
        """1 for emotional, 0 for neutral."""
        return np.tile([1, 0], len(self.pairs))

    @property
    def folds(self) -> Int[np.ndarray, " item"]:
        return np.repeat(self.fold, 2)

    @property
    def clusters(self) -> Int[np.ndarray, " item"]:
        codes, _ = pd.factorize(pd.Series([pair.group for pair in self.pairs], dtype=object))
        return np.repeat(np.asarray(codes, dtype=int), 2)
