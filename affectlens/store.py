"""Activations: what a capture gives, in memory or memory-mapped from the store, and how it is saved and found."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int

from affectlens.errors import CaptureError, StoreError
from affectlens.manifests import FORMAT, Plan, Values, is_ragged, shard_name
from affectlens.paths import cache_dir, written_whole
from affectlens.positions import Position
from affectlens.shards import Shards
from affectlens.sites import Site


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of a battery's items.

    ``acts.at("mean")`` is an array ``[item, layer, d_model]`` in float32, ``acts["L12.resid_post"]`` one site's
    ``[item, d_model]``; transformer-lens's names work too. Where tokens are not pooled (position ``all``, and attention
    patterns, which lie over keys) the first axis is tokens, item after item: ``acts.item(3)`` cuts one out.
    """

    values: Values = field(repr=False)  # site name without its layer -> position -> [item or token, layer, ...]
    layers: dict[str, tuple[int, ...]]  # site name without its layer -> the layers captured
    items: pd.DataFrame = field(repr=False)  # one row an item: id, text and whatever the battery knows
    model: str  # the name that was loaded
    fingerprint: str  # of the model: weights, config, tokenizer, template, dtype
    battery: str  # its name
    battery_sha256: str
    ids: Int[np.ndarray, "token"] = field(repr=False)  # token ids, item after item; empty if they are not known
    offsets: Int[np.ndarray, "item_plus_one"] = field(repr=False)  # where each item's tokens begin

    @classmethod
    def from_arrays(
        cls,
        values: Mapping[str, np.ndarray],
        items: pd.DataFrame,
        *,
        site: str = "resid_post",
        layers: tuple[int, ...] | None = None,
        model: str = "arrays",
        fingerprint: str = "",
        battery: str = "arrays",
        battery_sha256: str = "",
    ) -> "Activations":
        """Pooled activations from anywhere: position -> ``[item, layer, ...]``, one site at some layers."""
        kept = {position: np.asarray(value, dtype=np.float32) for position, value in values.items()}
        if unpooled := [position for position in kept if is_ragged(site, position)]:
            raise CaptureError(f"from_arrays takes one row an item; {site} at {unpooled[0]!r} has one a token.")
        n_layers = int(next(iter(kept.values())).shape[1])
        none = np.zeros(0, dtype=np.int32), np.zeros(len(items) + 1, dtype=np.int64)
        return cls({site: kept}, {site: layers or tuple(range(n_layers))}, items, model, fingerprint, battery,
                   battery_sha256, *none)  # fmt: skip

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of what was captured, without layers; the first is the default."""
        return tuple(self.values)

    @property
    def site(self) -> str:
        return self.sites[0]

    @property
    def positions(self) -> tuple[str, ...]:
        """The pooling rules that were captured; the first is the default."""
        return tuple(self.values[self.site])

    @property
    def n_layers(self) -> int:
        return len(self.layers[self.site])

    @property
    def d_model(self) -> int:
        return int(self.at().shape[-1])

    def __len__(self) -> int:
        return len(self.items)

    def at(
        self, position: str | Position | None = None, site: str | None = None
    ) -> Float32[np.ndarray, "item layer *part"]:
        """One site's activations at every captured layer, pooled by ``position``; the first captured by default.

        ``site`` is a name without its layer, as in :attr:`sites`; for one layer write ``acts["L12.resid_post"]``.

        Raises:
            CaptureError: if that site or position was not captured.
        """
        what = str(site or self.site)
        if what not in self.values:
            raise CaptureError(
                f"{what} was not captured, only {', '.join(self.sites)}: capture again with it in sites=."
            )
        name = str(position) if position else self.positions[0]
        if name not in self.values[what]:
            name = str(Position.parse(name))  # however its argument was quoted
        if name not in self.values[what]:
            raise CaptureError(
                f"Position {name!r} was not captured, only {', '.join(self.positions)}: "
                f"capture again with positions={[*self.positions, name]}."
            )
        return self.values[what][name]

    def __getitem__(self, site: "str | Site | tuple[str | Site, str]") -> Float32[np.ndarray, "item *part"]:
        """One site: ``acts["L12.H3"]``, ``acts["L12.z", "last"]``, ``acts["blocks.12.hook_resid_post"]``."""
        address, position = site if isinstance(site, tuple) else (site, None)
        one = address if isinstance(address, Site) else Site.parse(address)
        whole = one if one.what in self.values else Site(one.kind, one.layer, None, one.sae)
        if one.layer not in self.layers.get(whole.what, ()):
            there = "; ".join(f"{what} at layers {list(self.layers[what])}" for what in self.sites)
            raise CaptureError(f"{one} was not captured. There are {there}.")
        value: np.ndarray = self.at(position, whole.what)[:, self.layers[whole.what].index(one.layer)]
        return value if whole == one else value[:, one.index]

    def item(
        self, item: int | str, position: str = "all", site: str | None = None
    ) -> Float32[np.ndarray, "pos layer *part"]:
        """One item's activations token by token, where tokens were not pooled; ``item`` is a row or an id.

        Raises:
            CaptureError: if there is no such item, or what is asked for was pooled.
        """
        what = site or self.site
        if not is_ragged(what, position):
            raise CaptureError(f"{what} was pooled by {position!r}: capture again with positions='all'.")
        rows = np.flatnonzero(self.items["id"] == item) if isinstance(item, str) else np.array([item])
        if len(rows) != 1 or not 0 <= rows[0] < len(self):
            raise CaptureError(f"There is no item {item!r} here.")
        return self.at(position, what)[self.offsets[rows[0]] : self.offsets[rows[0] + 1]]

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{what} {'x'.join(map(str, self.at(None, what).shape[2:])) or '1'} at {len(self.layers[what])} layers"
            for what in self.sites
        )
        return f"Activations({len(self)} items: {shown}; {'+'.join(self.positions)}; {self.model}, {self.battery})"

    def save(self, folder: str | Path) -> Path:
        """Write everything to ``folder``, which must not exist yet, in the store's format; not the column ``meta``.

        Raises:
            StoreError: the folder exists, its disk is full, or a column of ``items`` can't be written.
        """
        target = Path(folder)
        if target.exists():
            raise StoreError(f"{target} exists already: choose another name or remove it.")
        plan = self._plan()
        with written_whole(target) as work:
            shards = Shards.create(work / "activations", plan, self.items, self.ids, self.offsets)
            shards.write(0, 1, self.values)
            for path in shards.home.iterdir():
                path.rename(work / path.name)
            shards.home.rmdir()
        return target

    def _plan(self) -> Plan:
        shapes = {what: {p: list(v.shape) for p, v in group.items()} for what, group in self.values.items()}
        layers = {what: list(layers) for what, layers in self.layers.items()}
        return Plan(self.model, self.fingerprint, self.battery, self.battery_sha256, list(self.positions), layers,
                    shapes, [list(range(len(self)))], torch.get_num_threads())  # fmt: skip

    @classmethod
    def load(cls, folder: str | Path) -> "Activations":
        """Open what :meth:`save` or a capture wrote, memory-mapped.

        Raises:
            StoreError: if the folder is not one of ours, is not complete, or a file in it is not as it was written.
        """
        shards = Shards(Path(folder))
        if shards.damaged:
            names = ", ".join(shard_name(what) for what in shards.plan.shapes)
            raise StoreError(f"{folder} is damaged (in {names}): remove it and capture again.")
        if shards.missing:
            raise StoreError(
                f"{folder} is not complete: {len(shards.missing)} batches are missing; capture again to go on."
            )
        return cls.opened(shards, shards.items())

    @classmethod
    def opened(cls, shards: Shards, items: pd.DataFrame) -> "Activations":
        """The activations in an open, complete folder."""
        plan = shards.plan
        layers = {what: tuple(layers) for what, layers in plan.layers.items()}
        return cls(shards.arrays(), layers, items, plan.model, plan.fingerprint, plan.battery, plan.battery_sha256,
                   shards.ids, shards.offsets)  # fmt: skip


def key(fingerprint: str, battery_sha256: str, sites: list[str], positions: list[str], extra: list[str]) -> str:
    """The address of a capture in the store; ``extra`` is whatever else its values depend on."""
    parts = json.dumps([FORMAT, fingerprint, battery_sha256, sites, positions, extra])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def folder(address: str) -> Path:
    """Where the capture with this address lives, or will."""
    return cache_dir() / "activations" / address
