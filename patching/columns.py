"""The cells of a screen as columns of an array, and their rows of the tidy table.

Estimates add up over tokens, heads and neurons, so those of all cells are sums of what one gradient gives. Single
neurons are many (1,536 a layer in a small model), so they are summed over a segment's tokens, and in the table only
those are kept whose mean over pairs is largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from affectlens.model import LensModel
from affectlens.patching.gradients import Gradients
from affectlens.patching.pairs import PatchPair
from affectlens.patching.sources import MATCHED
from affectlens.patching.units import Unit
from affectlens.sites import Site

CELL = ["kind", "layer", "index", "segment", "position"]


@dataclass(frozen=True)
class Place:
    """A cell: of every pair, or, if it is one token, of one."""

    kind: str
    layer: int
    index: int  # a head or neuron; -1 is the whole site
    segment: str
    position: int = -1  # in the base text; -1 is the whole segment
    pair: str = ""  # whose token it is

    @property
    def site(self) -> Site:
        """What is patched."""
        return Site(self.kind, self.layer, None if self.index < 0 else self.index)

    @property
    def text(self) -> str:
        """The cell in words."""
        return f"{self.site} at {self.segment if self.position < 0 else f'token {self.position} of {self.pair}'}"


@dataclass(frozen=True, eq=False)
class Screened:
    """One pair's estimates: what each column's patch at each unit adds to the base's metric."""

    pair: PatchPair
    units: Sequence[Unit]
    clean: float
    corrupt: float
    estimates: Float[np.ndarray, "unit column"]


@dataclass(frozen=True, eq=False)
class Columns:
    """What is patched, a column each: the sites asked for, then every neuron of the layers that are screened singly."""

    sites: tuple[Site, ...]
    singly: tuple[Site, ...]
    kind: Shaped[np.ndarray, " column"]
    layer: Int[np.ndarray, " column"]
    index: Int[np.ndarray, " column"]

    @classmethod
    def of(cls, model: LensModel, sites: tuple[Site, ...], singly: tuple[Site, ...]) -> "Columns":
        """The columns for these sites, and for each neuron of the sites in ``singly``."""
        rows = [(site.kind, site.layer, -1 if site.index is None else site.index) for site in sites]
        rows += [(site.kind, site.layer, i) for site in singly for i in range(model.sites.shape(site)[0])]
        kind, layer, index = zip(*rows, strict=True)
        return cls(sites, singly, np.array(kind, dtype=object), np.array(layer), np.array(index))

    def estimates(self, slope: Gradients, units: Sequence[Unit]) -> Float[np.ndarray, "unit column"]:
        """Every unit's estimates: the sums over its tokens, and over a site's heads or neurons if it is whole."""
        matches = tuple(dict.fromkeys(match for unit in units for match in unit.matches))
        member = np.array([[match in unit.matches for match in matches] for unit in units], dtype=float)
        parts = {site: member @ slope.estimates(site, matches).numpy() for site in slope.values}
        out = []
        for site in self.sites:
            part = parts[replace(site, index=None)]
            out.append(part.sum(1, keepdims=True) if site.index is None else part[:, [site.index]])
        return np.concatenate([*out, *(parts[site] for site in self.singly)], axis=1)

    def table(self, seen: Sequence[Screened], metric: str, direction: str, neurons: int) -> pd.DataFrame:
        """The tidy table of all pairs; of single neurons the first few of each layer and segment."""
        kept = {name: self._kept(seen, name, neurons) for name in {unit.segment for one in seen for unit in one.units}}
        return pd.concat([self._rows(one, metric, direction, kept) for one in seen], ignore_index=True)

    def _kept(self, seen: Sequence[Screened], segment: str, neurons: int) -> Bool[np.ndarray, " column"]:
        kept = np.ones(len(self.kind), dtype=bool)
        if not self.singly:
            return kept
        found = [row for one in seen for unit, row in zip(one.units, one.estimates, strict=True)
                 if unit.segment == segment]  # fmt: skip
        size = np.abs(np.mean(found, axis=0))
        at = len(self.sites)
        for site in self.singly:
            members = np.flatnonzero(self.layer[at:] == site.layer) + at
            kept[members[np.argsort(-size[members], kind="stable")[neurons:]]] = False
        return kept

    def _rows(self, one: Screened, metric: str, direction: str, kept: dict[str, np.ndarray]) -> pd.DataFrame:
        unit, column = np.nonzero(np.stack([kept[unit.segment] for unit in one.units]))
        base = one.corrupt if direction == "denoise" else one.clean
        pair = one.pair
        return pd.DataFrame(
            {
                "pair": pair.name, "group": pair.group, "contrast": pair.contrast, "emotion": pair.emotion,
                "source": MATCHED, "kind": self.kind[column], "layer": self.layer[column],
                "index": self.index[column], "segment": np.array([u.segment for u in one.units], dtype=object)[unit],
                "position": np.array([u.position for u in one.units])[unit], "metric": metric,
                "clean": one.clean, "corrupt": one.corrupt, "value": base + one.estimates[unit, column],
            }
        )  # fmt: skip
