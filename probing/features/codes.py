"""Codes: what a dictionary's features do at every token of a battery, kept sparse."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Int
from scipy import sparse

from affectlens.capturing import capture
from affectlens.errors import CaptureError
from affectlens.layouts import lay_out
from affectlens.model import LensModel
from affectlens.positions import Position
from affectlens.probing.sae import Sae
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.store import Activations
from affectlens.texts import Texts

POOLINGS = ("mean", "max", "share", "ending")
CHUNK = 4096  # tokens encoded at a time


@dataclass(frozen=True, eq=False)
class Codes:
    """Feature activations of every token of a table of texts.

    The first token of each item is an empty row: it is an attention sink, whose norm says nothing about the text.
    """

    matrix: sparse.csr_array = field(repr=False)  # [token, feature], float32
    ids: Int[np.ndarray, "token"] = field(repr=False)  # token ids, item after item
    offsets: Int[np.ndarray, "item_plus_one"] = field(repr=False)  # where each item's tokens begin
    items: pd.DataFrame = field(repr=False)
    endings: Bool[np.ndarray, "token"] = field(repr=False)  # tokens of each item's ending
    sae: str  # the dictionary's name
    sae_sha256: str
    site: str  # what it reads
    model: str
    fingerprint: str
    battery: str
    battery_sha256: str

    @property
    def n_features(self) -> int:
        return int(self.matrix.shape[1])

    def __len__(self) -> int:
        return len(self.items)

    def pooled(self, how: str = "mean") -> Float32[np.ndarray, "item feature"]:
        """One row an item: the ``mean`` over its tokens, the ``max``, the ``share`` of them at which a feature is
        active, or the mean over its ``ending``.

        Raises:
            CaptureError: another name, or an ending of the first token alone.
        """
        if how not in POOLINGS:
            raise CaptureError(f"There is no pooling {how!r} of features; choose from {', '.join(POOLINGS)}.")
        if how == "max":
            return np.stack([
                np.asarray(self.matrix[a:b].max(axis=0).todense(), dtype=np.float32).ravel()
                for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)
            ])  # fmt: skip
        counted = np.ones(len(self.ids), dtype=bool)
        counted[self.offsets[:-1]] = False
        if how == "ending":
            counted &= self.endings
        item = np.repeat(np.arange(len(self)), np.diff(self.offsets))[counted]
        counts = np.bincount(item, minlength=len(self))
        if not counts.all():
            raise CaptureError(f"{self.items['id'].iloc[int(counts.argmin())]} has no token to pool but its first.")
        pool = sparse.csr_array(
            (1 / counts[item].astype(np.float32), (item, np.flatnonzero(counted))), shape=(len(self), len(self.ids))
        )
        return np.asarray((pool @ ((self.matrix > 0) if how == "share" else self.matrix)).todense(), dtype=np.float32)

    def row(self, item: int, feature: int) -> Float[np.ndarray, " token"]:
        """One feature over one item's tokens."""
        return self.matrix[self.offsets[item] : self.offsets[item + 1]][:, [feature]].toarray()[:, 0]

    @cached_property
    def density(self) -> Float[np.ndarray, " feature"]:
        """The share of tokens at which each feature is active, the items' first left out."""
        active = np.bincount(self.matrix.indices[self.matrix.data > 0], minlength=self.n_features)
        return active / max(len(self.ids) - len(self), 1)

    @property
    def l0(self) -> float:
        """How many features are active at a token, on average."""
        return float(self.density.sum())

    def activations(self, how: str = "mean") -> Activations:
        """Pooled codes as activations of the site ``features@NAME``, for :func:`affectlens.probing.probe`."""
        layer = Site.parse(self.site).layer
        return Activations.from_arrays(
            {how: self.pooled(how)[:, None]}, self.items, site=f"features@{self.sae}", layers=(layer,),
            model=self.model, fingerprint=self.fingerprint, battery=self.battery, battery_sha256=self.battery_sha256,
        )  # fmt: skip


def averaged(acts: Activations, site: Site) -> Activations:
    """Activations that were captured at every token, as means over each item's tokens but the first.

    Args:
        acts: captured with ``positions="all"``.
        site: which of them.
    """
    values = np.asarray(acts[site, "all"], dtype=np.float64).reshape(len(acts.ids), -1)
    values[acts.offsets[:-1]] = 0
    means = np.add.reduceat(values, acts.offsets[:-1]) / (np.diff(acts.offsets) - 1)[:, None]
    return Activations.from_arrays(
        {"mean": means[:, None]}, acts.items, site=site.what, layers=(site.layer,), model=acts.model,
        fingerprint=acts.fingerprint, battery=acts.battery, battery_sha256=acts.battery_sha256,
    )  # fmt: skip


def encode_battery(
    model: LensModel, sae: Sae, texts: Texts, *, cache: bool = True, progress: bool | None = None
) -> Codes:
    """Run the model over the texts as far as the dictionary's site, and encode every token.

    Args:
        model: from :func:`affectlens.load_model`.
        sae: from :func:`affectlens.load_sae`.
        texts: a battery, a table or plain texts.
        cache: keep and reuse the site's activations in the cache folder.
        progress: show bars.

    Raises:
        SiteError: the dictionary does not fit the model.
        CaptureError: no texts, or one too long.
    """
    sae.attach(model)
    acts = capture(model, texts, sites=sae.site, positions="all", cache=cache, progress=progress)
    return encode_tokens(model, acts, sae.encode, sae, progress=progress)


def encode_tokens(
    model: LensModel,
    acts: Activations,
    encode: Callable[[torch.Tensor], torch.Tensor],
    sae: Sae,
    *,
    progress: bool | None = None,
) -> Codes:
    """Codes of activations that were captured at every token.

    Args:
        model: whose tokens these are.
        acts: captured with ``positions="all"`` at the site of ``sae``.
        encode: ``[token, d_in]`` to ``[token, n_features]``.
        sae: what ``encode`` belongs to.
        progress: show a bar.
    """
    values = np.asarray(acts[sae.site, "all"]).reshape(len(acts.ids), -1)
    parts = []
    for at in tracked(range(0, len(values), CHUNK), f"encoding {acts.battery} with {sae.name}", show=progress):
        codes = encode(torch.from_numpy(np.array(values[at : at + CHUNK])).to(model.device)).cpu().numpy()
        firsts = acts.offsets[(acts.offsets >= at) & (acts.offsets < at + len(codes))] - at
        codes[firsts] = 0
        parts.append(sparse.csr_array(codes))
    rule = Position("ending")
    endings = np.concatenate([rule.mask(layout) for layout in lay_out(model, acts.items)])
    return Codes(
        sparse.csr_array(sparse.vstack(parts, format="csr")), np.asarray(acts.ids), np.asarray(acts.offsets),
        acts.items, endings, sae.name, sae.sha256, str(sae.site), acts.model, acts.fingerprint, acts.battery,
        acts.battery_sha256,
    )  # fmt: skip
