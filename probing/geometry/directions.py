"""Directions at every layer, what noise leaves of them, and what is left without the shared valence axis."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.probing.geometry.averaging import averages, leaving_out, products, signed
from affectlens.probing.geometry.grams import centred, less_contrast
from affectlens.probing.geometry.nulls import JACKKNIFE, drawn_within, jackknife

About = dict[str, str | int]


@dataclass(frozen=True, eq=False)
class Directions:
    """A direction for each name at every layer, with the rows that it is the mean of.

    Of emotions (:func:`affectlens.probing.geometry.means`) a row is a scene, and intervals resample scenes. Of
    words (:func:`affectlens.probing.geometry.word_means`) a row is a word in one carrier, and they resample words.
    """

    kind: Literal["emotions", "words"]
    names: tuple[str, ...]
    layers: tuple[int, ...]
    values: Float[np.ndarray, "layer row d"] = field(repr=False)
    table: pd.DataFrame = field(repr=False)  # of the rows: name; of scenes also group, valence, domain
    about: About = field(default_factory=dict)  # model, battery, site, position, groups dropped
    less: "tuple[Directions, Float[np.ndarray, ' name']] | None" = field(repr=False, default=None)  # the axis taken out

    @property
    def valence_removed(self) -> bool:
        """Whether these come from :meth:`without_valence`."""
        return self.less is not None

    @cached_property
    def labels(self) -> Int[np.ndarray, " row"]:
        """Each row's name, as an index into ``names``."""
        place = {name: k for k, name in enumerate(self.names)}
        return np.array([place[name] for name in self.table["name"]], dtype=np.int64)

    @cached_property
    def raw(self) -> Float[np.ndarray, "layer name d"]:
        """Means of rows."""
        return averages(self.labels, len(self.names), np.ones((1, len(self.table))), centre=False)[0] @ self.values

    @property
    def centred(self) -> Float[np.ndarray, "layer name d"]:
        """Directions less their mean: what an emotion adds beyond affect as such."""
        return self.raw - self.raw.mean(1, keepdims=True)

    @cached_property
    def gram(self) -> Float[np.ndarray, "layer name name"]:
        """Inner products of the centred directions: all that the findings are made from."""
        return centred(self.raw @ self.raw.swapaxes(-1, -2))

    @cached_property
    def inner(self) -> Float[np.ndarray, "layer row row"]:
        """Inner products of the rows."""
        return self.values @ self.values.swapaxes(-1, -2)

    @cached_property
    def resampled(self) -> Float[np.ndarray, "draw layer name name"]:
        """Of emotions: ``gram`` in each bootstrap draw of scenes, the valence axis fitted anew. The draws are the same
        for all directions of the same scenes, so that these can be compared."""
        if self.less is not None:
            return less_contrast(self.less[0].resampled, self.less[1])
        hats = averages(self.labels, len(self.names), drawn_within(self.labels), centre=True)
        return products(self.inner, hats)

    @property
    def unit(self) -> str:
        """What is resampled for intervals."""
        return "scene" if self.kind == "emotions" else "word"

    def reliability(self) -> pd.DataFrame:
        """Split-half reliability (Spearman-Brown) of the centred directions by layer, all together and each by itself.

        Over all ways to split each name's rows into halves, the mean inner product of the half directions is that of
        distinct rows, which noise does not raise. Over the squared length of the direction it is the split-half
        reliability with the Spearman-Brown correction, without a split being drawn. It is the noise ceiling: 1 without
        noise, 0 (or a little below) where the rows of a name have nothing in common.
        """
        value = self._reliable(np.ones((1, len(self.table))))[0]
        left = self._reliable(leaving_out(len(self.table))) if self.kind == "emotions" else self._less_words()
        low, high = jackknife(value[:, : left.shape[-1]], left)
        n = len(self.table) if self.kind == "emotions" else len(self.names)
        out = [pd.DataFrame({"set": self.kind, "name": name, "layer": self.layers, "value": value[:, k],
                             "low": low[:, k], "high": high[:, k], "n": n, "unit": self.unit, "method": JACKKNIFE})
               for k, name in enumerate(("all", *self.names)[: low.shape[1]])]  # fmt: skip
        return pd.concat(out, ignore_index=True)

    def _reliable(self, weights: np.ndarray) -> np.ndarray:
        """``[draw, layer, 1 + name]``: the noise-free part of each centred direction's squared length, all first."""
        n, out = len(self.names), []
        for hat, weight in zip(averages(self.labels, n, weights, centre=False), weights, strict=True):
            raw = hat @ self.values
            noise = self._noise(hat, raw, np.bincount(self.labels, weight))
            extra = noise * (1 - 2 / n) + noise.sum(-1, keepdims=True) / n**2  # the share of the mean's noise too
            power = ((raw - raw.mean(1, keepdims=True)) ** 2).sum(-1)
            both = [np.c_[x.sum(-1), x] for x in (power - extra, power)]
            out.append(both[0] / np.maximum(both[1], np.finfo(float).tiny))
        return np.stack(out)

    def _less_words(self) -> np.ndarray:
        """``[word, layer, 1]``: the reliability of all words without each."""
        n = len(self.names)
        hat = averages(self.labels, n, np.ones((1, len(self.table))), centre=False)[0]
        noise, own = self._noise(hat, self.raw, np.bincount(self.labels)), (self.raw**2).sum(-1)
        total = self.raw.sum(1)
        square = (total**2).sum(-1)[:, None] - 2 * np.einsum("ld,lnd->ln", total, self.raw) + own
        power = own.sum(-1, keepdims=True) - own - square / (n - 1)
        extra = (noise.sum(-1, keepdims=True) - noise) * (1 - 1 / (n - 1))
        return ((power - extra) / np.maximum(power, np.finfo(float).tiny)).T[..., None]

    def _noise(self, hat: np.ndarray, raw: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``[layer, name]``: what noise adds to the squared length of each mean of rows."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return ((self.values**2).sum(-1) @ hat.T - (raw**2).sum(-1)) / (rows - 1)

    def valence_contrast(self) -> Float[np.ndarray, " name"]:
        """Weights of the emotions whose sum is the pleasant scenes' mean less the unpleasant ones', by the battery.

        Raises:
            BatteryError: words, which the battery does not sign, or fewer than two scenes of either valence.
        """
        if self.kind == "words":
            raise BatteryError("Words carry no valence of their own: give norm_contrast(directions.names).")
        weights = signed(self.table["valence"].to_numpy(dtype=np.int64))
        return np.bincount(self.labels, weights, minlength=len(self.names))

    def valence_axis(self, contrast: Float[np.ndarray, " name"] | None = None) -> Float[np.ndarray, "layer d"]:
        """The axis that :meth:`without_valence` takes out; its length is not 1.

        Args:
            contrast: weights of the names that sum to 0, for example
                :func:`affectlens.probing.geometry.norm_contrast`: the axis is the weighted sum of the directions. By
                default :meth:`valence_contrast`.
        """
        return np.einsum("n,lnd->ld", self.valence_contrast() if contrast is None else contrast, self.raw)

    def without_valence(self, contrast: Float[np.ndarray, " name"] | None = None) -> "Directions":
        """The directions of rows from which the valence axis is projected out; nothing of it is left.

        Intervals fit the axis anew in each resample.

        Args:
            contrast: as in :meth:`valence_axis`.

        Raises:
            BatteryError: as :meth:`valence_contrast`, if no contrast is given.
        """
        c = self.valence_contrast() if contrast is None else contrast
        axis = self.valence_axis(c)
        size = np.linalg.norm(axis, axis=-1, keepdims=True)
        unit = np.divide(axis, size, out=np.zeros_like(axis), where=size > 0)
        values = self.values
        for _ in range(2):  # the second time for what rounding left
            values = values - (values @ unit[..., None]) * unit[:, None]
        return replace(self, values=values, less=(self, c))
