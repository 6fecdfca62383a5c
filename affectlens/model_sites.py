"""The sites that one model has: expanding names, checking addresses, cutting parts out of values."""

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from affectlens.errors import SiteError
from affectlens.sites import KINDS, Site
from affectlens.taps import Tap, discover

if TYPE_CHECKING:
    from affectlens.model import LensModel


@dataclass(frozen=True)
class Dictionary:
    """A sparse autoencoder, attached to a model under a name; without ``decode`` it can be watched but not edited."""

    site: Site  # what it reads, for example L12.resid_post
    encode: Callable[[Tensor], Tensor]  # [..., d] -> [..., n_features]
    n_features: int
    sha256: str  # of its weights, so that the store tells it from others
    decode: Callable[[Tensor], Tensor] | None = None  # [..., n_features] -> [..., d]


class ModelSites:
    """What can be addressed in a model; ``model.sites`` prints as a list of it.

    ``part(site, value)`` cuts a site out of its tap's value; ``with_part`` puts a changed one back.
    """

    def __init__(self, model: "LensModel") -> None:
        self._table = discover(model)
        self._name, self.n_layers, self.n_heads = model.name, model.n_layers, model.n_heads
        self.dictionaries: dict[str, Dictionary] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that at least one block has, in the order in which a block computes them."""
        there = {kind for _, kind in self._table} | ({"features"} if self.dictionaries else set())
        return tuple(kind for kind in KINDS if kind in there)

    def attach(self, name: str, dictionary: Dictionary) -> None:
        """Give a dictionary a name: its features are then sites, ``L12.F7@name``."""
        self.find(dictionary.site)
        self.dictionaries[name] = dictionary

    def expand(self, sites: str | Site | Iterable[str | Site]) -> tuple[Site, ...]:
        """The sites that are meant, in the order asked, each checked; a name without a layer means every layer.

        Raises:
            SiteError: a site that does not parse or that this model lacks; the message lists what exists.
        """
        asked = [sites] if isinstance(sites, str | Site) else list(sites)
        found = tuple(dict.fromkeys(site for one in asked for site in self._meant(one)))
        if not found:
            raise SiteError("No site is named: give one, for example resid_post or L12.H3.")
        for site in found:
            self.find(site)
        return found

    def _meant(self, one: str | Site) -> list[Site]:
        if isinstance(one, Site):
            return [one]
        if not isinstance(one, str):
            raise SiteError(f"{one!r} is not a site: give a text such as L12.resid_post, or a Site.")
        if re.match(r"L\d|blocks\.", one):
            return [Site.parse(one)]
        pattern = Site.parse(f"L0.{one}")
        if pattern.kind == "features":
            return [replace(pattern, layer=self._dictionary(pattern).site.layer)]
        layers = [layer for layer in range(self.n_layers) if (layer, pattern.kind) in self._table]
        if 0 < len(layers) < self.n_layers:
            lacking = sorted(set(range(self.n_layers)) - set(layers))
            warnings.warn(
                f"{self._name} has no {pattern.kind} at layers {lacking}: {one} leaves them out.", stacklevel=4
            )
        return [replace(pattern, layer=layer) for layer in layers or [0]]

    def _dictionary(self, site: Site) -> Dictionary:
        if site.sae not in self.dictionaries:
            there = ", ".join(self.dictionaries) or "none"
            raise SiteError(f"No dictionary is attached to {self._name} as {site.sae!r} (there are: {there}).")
        return self.dictionaries[site.sae or ""]

    def find(self, site: Site) -> Tap:
        """Where ``site`` is in the model.

        Raises:
            SiteError: if the layer, the kind, the head, neuron or feature does not exist.
        """
        if site.layer >= self.n_layers:
            raise SiteError(f"{site} is beyond {self._name}, which has layers 0 to {self.n_layers - 1}.")
        if site.kind == "features":
            dictionary = self._dictionary(site)
            if dictionary.site.layer != site.layer:
                raise SiteError(f"{site}: the dictionary {site.sae} reads {dictionary.site}, not layer {site.layer}.")
            tap, size = self.find(dictionary.site), dictionary.n_features
        else:
            found = self._table.get((site.layer, site.kind))
            if found is None:
                there = ", ".join(k for k in KINDS if (site.layer, k) in self._table)
                raise SiteError(f"{self._name} has no {site}; layer {site.layer} has {there}.")
            tap, size = found, self._count(site, found)
        if site.index is not None and site.index >= size:
            what = "counts key-value heads" if site.kind in ("k", "v") else "counts"
            raise SiteError(f"{site} is beyond {self._name}: its layer {site.layer} {what} from 0 to {size - 1} there.")
        return tap

    def has(self, site: Site) -> bool:
        """Whether the site's layer has its kind."""
        return site.kind == "features" or (site.layer, site.kind) in self._table

    def _count(self, site: Site, tap: Tap) -> int:
        if tap.heads:
            return tap.heads.count
        return self.n_heads if site.kind == "pattern" else tap.width

    def shape(self, site: Site) -> tuple[int, ...]:
        """The shape of the site at one token; of a pattern, at one pair of query and key."""
        tap = self.find(site)
        if tap.heads and site.kind != "features":
            return (tap.heads.count, tap.heads.d_head) if site.index is None else (tap.heads.d_head,)
        if site.index is not None:
            return ()
        if site.kind == "pattern":
            return (self.n_heads,)
        return (self._dictionary(site).n_features,) if site.kind == "features" else (tap.width,)

    def part(self, site: Site, value: Tensor) -> Tensor:
        """The site in its tap's value: heads apart, and cut to one head, neuron or feature if the site names it."""
        if site.kind == "features":
            dictionary = self._dictionary(site)
            value = dictionary.encode(self.part(dictionary.site, value))
        elif heads := self.find(site).heads:
            value = heads.cut(value)
        return value if site.index is None else value.select(_axis(site), site.index)

    def with_part(self, site: Site, old: Tensor, new: Tensor) -> Tensor:
        """The tap's value ``old`` with the site's part replaced by ``new``; ``old`` itself is left as it is.

        Of features the reconstruction's change is added to what was there, so what the dictionary fails to rebuild
        stays, and codes put back as they were change no bit.
        """
        if site.kind == "features":
            return self._with_features(site, old, new)
        if site.index is not None:
            part, new = new, self.part(replace(site, index=None), old).clone()
            new.select(_axis(site), site.index).copy_(part)
        heads = self.find(site).heads
        return heads.put(old, new) if heads else new.reshape(old.shape)

    def _with_features(self, site: Site, old: Tensor, new: Tensor) -> Tensor:
        dictionary = self._dictionary(site)
        if dictionary.decode is None:
            raise SiteError(f"{site} can be watched but not edited: its dictionary was attached without decode=.")
        stream = self.part(dictionary.site, old)
        codes = dictionary.encode(stream)
        if site.index is not None:
            part, new = new, codes.clone()
            new[..., site.index] = part
        change = dictionary.decode(new) - dictionary.decode(codes)
        return self.with_part(dictionary.site, old, stream + change.to(stream.dtype))

    def __repr__(self) -> str:
        rows = []
        for kind in self.kinds:
            layers = [layer for layer in range(self.n_layers) if (layer, kind) in self._table]
            if layers:
                site = Site(kind, layers[0])
                gaps = "" if len(layers) == layers[-1] - layers[0] + 1 else f", {len(layers)} of them"
                rows.append(f"  L{layers[0]}..{layers[-1]}.{kind:<11} {list(self.shape(site))}{gaps}")
        rows += [
            f"  {d.site.text} -> L{d.site.layer}.features@{name} [{d.n_features}]"
            for name, d in self.dictionaries.items()
        ]
        return "\n".join([f"Sites of {self._name}:", *rows])


def _axis(site: Site) -> int:
    """The axis of a site's values that its index picks from."""
    return {"pattern": 1, "neurons": -1, "features": -1}.get(site.kind, 2)
