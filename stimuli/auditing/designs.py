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
        """Groups with one emotional and one neutral item that are no cells of a quadruple."""
        out = []
        for items in self.battery.groups().values():
            sides = {role: [s for s in items if s.role == role and s.cell is None] for role in ("emotional", "neutral")}
            if all(len(side) == 1 for side in sides.values()):
                out.append(Pair(sides["emotional"][0], sides["neutral"][0]))
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

    def paired(self, key: str) -> "Paired | str":
        """The pairs as rows (emotional, neutral, emotional, ...) with folds by ``key``, or why there are none."""
        if len(self.pairs) < 3:
            return f"{len(self.pairs)} matched pairs"
        values = [getattr(pair.emotional, key) for pair in self.pairs]
        if None in values:
            return f"{values.count(None)} pairs have no {key}"
        codes, names = pd.factorize(pd.Series(values))
        if len(names) < 3:
            return f"fewer than three kinds of {key}"
        return Paired(self.pairs, np.asarray(codes, dtype=int))


@dataclass(frozen=True)
class Paired:
    """Pairs with the fold of each."""

    pairs: tuple[Pair, ...]
    fold: Int[np.ndarray, " pair"]

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
        return np.repeat(np.arange(len(self.pairs)), 2)
