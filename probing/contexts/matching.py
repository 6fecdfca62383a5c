"""What the studies of new contexts share: matched items, and directions fitted on other domains that read them.

A direction that was fitted on all items of a battery may not score them again, in whatever context. So each study fits
its own: for every fold of whole domains one direction from the other domains' items, in a base context, and it reads
the fold's items in the new one. The folds are the same in every context, so that what is compared is read alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from affectlens.capturing import capture
from affectlens.errors import BatteryError, StoreError
from affectlens.metrics import average
from affectlens.model import LensModel
from affectlens.probing import fits, folds
from affectlens.probing.linear import Linear
from affectlens.probing.targets import select
from affectlens.stats import Statistic
from affectlens.store import Activations
from affectlens.texts import Texts, as_table
from affectlens.types import Json

Fit = Callable[[np.ndarray, np.ndarray, int], Linear]  # items, classes 0 and 1, and 2: the number of classes
RUNGS = ("domain", "pair", "author", "emotion")  # those that never split a scene


def mean_difference(x: Float[np.ndarray, "item d"], y: Int[np.ndarray, " item"], n_classes: int) -> Linear:
    """The difference of class means of one layer (:func:`affectlens.probing.fits.mean_difference`).

    Args:
        x: activations.
        y: class indices.
        n_classes: how many classes there are.
    """
    return fits.mean_difference(x[:, None], y, n_classes).at(0)


@dataclass(frozen=True)
class Reader:
    """A direction of unit length and the threshold on it; scores are distances from the threshold."""

    direction: Float[np.ndarray, " d"]
    threshold: float

    def __call__(self, x: Float[np.ndarray, "*some d"]) -> Float[np.ndarray, "*some"]:
        return x @ self.direction - self.threshold


@dataclass(frozen=True)
class Matched:
    """Scenes told both ways, and how directions are cross-fitted on them."""

    items: pd.DataFrame  # the emotional and the neutral items, numbered from 0
    rows: Int[np.ndarray, " item"]  # where they stand in the battery
    emotional: Bool[np.ndarray, " item"]
    labels: Int[np.ndarray, " item"]  # class in the fit, 0 or 1
    fitted: Bool[np.ndarray, " item"]  # whether the item has a class: for valence, emotional items alone
    sign: Float[np.ndarray, " group"]  # of a scene's emotional less its neutral score; for affect, always 1
    scenes: Int[np.ndarray, " item"]
    folds: Int[np.ndarray, " item"]

    @property
    def n(self) -> int:
        return len(self.sign)

    @property
    def contrasts(self) -> Float[np.ndarray, "group item"]:
        """Each scene's row takes the signed mean of its emotional items less that of its neutral ones."""
        return self.sign[:, None] * (self.means(self.emotional) - self.means(~self.emotional))

    def means(self, chosen: Bool[np.ndarray, " item"]) -> Float[np.ndarray, "group item"]:
        """Each scene's row takes the mean of its chosen items."""
        inside = (np.arange(self.n)[:, None] == self.scenes) & chosen
        return inside / np.maximum(inside.sum(1, keepdims=True), 1)


def matched(items: pd.DataFrame, *, target: str = "affect", rung: str = "domain", seed: int = 0) -> Matched:
    """The scenes of a battery that have emotional and neutral items, split into folds.

    Args:
        items: a battery's table.
        target: ``affect``, or ``valence`` (pleasant against unpleasant, fitted on emotional items alone).
        rung: what is held out whole: ``domain``, ``pair``, ``author`` or ``emotion``.
        seed: of the folds.

    Raises:
        BatteryError: another target or rung, fewer than two such scenes, or a rung that does not apply.
    """
    if target not in ("affect", "valence"):
        raise BatteryError(f"Target {target!r} has no paired difference: choose affect or valence.")
    if rung not in RUNGS:
        raise BatteryError(f"Scenes can't be held out by {rung!r}: choose from {', '.join(RUNGS)}.")
    both = select(items.reset_index(drop=True), "affect").items
    told = both.groupby("group")["role"].transform("nunique") == 2
    if target == "valence":
        lead = both[both["role"] == "emotional"].groupby("group")["valence"].first()
        told &= both["group"].map(lead).fillna(0) != 0
    table = both[told]
    if table["group"].nunique() < 2:
        raise BatteryError(f"{table['group'].nunique()} scenes have an emotional and a neutral item; two are needed.")
    rows, table = table.index.to_numpy(), table.reset_index(drop=True)
    emotional = (table["role"] == "emotional").to_numpy()
    scenes, names = pd.factorize(table["group"])
    first = table[emotional].groupby("group")["valence"].first()
    sign = np.sign(first.loc[names].to_numpy(dtype=float)) if target == "valence" else np.ones(len(names))
    labels = (sign[scenes] > 0).astype(int) if target == "valence" else emotional.astype(int)
    fitted = emotional if target == "valence" else np.ones(len(table), dtype=bool)
    keys = folds.keys(table, rung)
    if isinstance(keys, str):
        raise BatteryError(f"Directions can't be fitted with whole {rung}s held out, as {keys}: try rung='pair'.")
    try:
        split = folds.split(keys[fitted], labels[fitted], folds.OUTER, seed=seed)
    except BatteryError as error:
        raise BatteryError(f"Directions can't be fitted with whole {rung}s held out: {error}.") from None
    fold = np.zeros(len(names), dtype=int)
    fold[scenes[fitted]] = split
    return Matched(table, rows, emotional, labels, fitted, sign, scenes, fold[scenes])


def cross_fitted(
    x: Float[np.ndarray, "item d"],
    labels: Int[np.ndarray, " item"],
    split: Int[np.ndarray, " item"],
    *,
    fitted: Bool[np.ndarray, " item"] | None = None,
    method: Fit = mean_difference,
) -> list[Reader]:
    """One reader a fold, fitted on the items of all other folds.

    Args:
        x: activations.
        labels: the class of each item, 0 or 1.
        split: the fold of each item, from 0; whole domains, as a rule.
        fitted: the items that have a class; all by default.
        method: ``(items, classes, 2) -> Linear``; the difference of means by default.

    Raises:
        BatteryError: if all items outside some fold are of one class, or lie in one point.
    """
    use = np.ones(len(labels), dtype=bool) if fitted is None else fitted
    out = []
    for fold in range(int(split.max()) + 1):
        train = use & (split != fold)
        if len(np.unique(labels[train])) < 2:
            raise BatteryError("Holding out one fold leaves items of a single class to fit a direction on.")
        probe = method(x[train], labels[train], 2)
        size = float(np.linalg.norm(probe.weights[0]))
        if not size > 0:
            raise BatteryError("The two classes have the same mean, so there is no direction between them.")
        out.append(Reader(probe.weights[0] / size, -float(probe.bias[0]) / size))
    return out


def read(
    readers: Sequence[Reader], x: Float[np.ndarray, "item d"], split: Int[np.ndarray, " item"]
) -> Float[np.ndarray, " item"]:
    """Each item's score by the reader of its own fold, which has not seen it."""
    scores = np.empty(len(x))
    for fold, reader in enumerate(readers):
        scores[split == fold] = reader(x[split == fold].astype(np.float64))
    return scores


def spread(
    scores: Float[np.ndarray, "item *k"], split: Int[np.ndarray, " item"], chosen: Bool[np.ndarray, " item"]
) -> Float[np.ndarray, "*k"]:
    """The standard deviation of the chosen items' scores within folds: the unit of every shift and difference."""
    total, freedom = np.zeros(scores.shape[1:]), 0
    for fold in np.unique(split[chosen]):
        own = scores[chosen & (split == fold)]
        total, freedom = total + ((own - own.mean(0)) ** 2).sum(0), freedom + len(own) - 1
    return np.asarray(np.sqrt(total / max(freedom, 1)) + 1e-12)


def random_directions(draws: int, d: int, seed: int) -> Float[np.ndarray, "draw d"]:
    """Unit vectors, uniform on the sphere."""
    drawn = np.random.default_rng(seed).normal(size=(draws, d))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def activations_of(
    model: LensModel, items: pd.DataFrame, *, layer: int, position: str, chat: bool = False, progress: bool | None
) -> Float[np.ndarray, "item d"]:
    """The residual stream leaving one layer, pooled; the pass stops there."""
    site = f"L{layer}.resid_post"
    return capture(model, items, sites=site, positions=position, chat=chat, progress=progress)[site].astype(np.float64)


def table_of(given: Activations | Texts, model: LensModel, layer: int) -> tuple[pd.DataFrame, Json]:
    """A battery's items, and what a result says of its origin.

    Raises:
        StoreError: activations of another model.
    """
    if isinstance(given, Activations):
        if given.fingerprint != model.fingerprint:
            raise StoreError(
                f"These activations are of {given.model} ({given.fingerprint[:12]}), not of {model.name} "
                f"({model.fingerprint[:12]}): capture them anew, or give the battery instead."
            )
        frame, name, sha256 = given.items, given.battery, given.battery_sha256
    else:
        table = as_table(given)
        frame, name, sha256 = table.frame(), table.name, table.sha256
    origin = {"model": model.name, "source": model.source, "fingerprint": model.fingerprint, "battery": name,
              "battery_sha256": sha256, "site": f"L{layer}.resid_post", "layer": layer}  # fmt: skip
    return frame.reset_index(drop=True), origin


def mean_of(values: Float[np.ndarray, " group"]) -> Statistic:
    """The mean over scenes, as a function of their weights."""
    return average(values, np.arange(len(values)))
