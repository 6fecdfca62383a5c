"""From a target and a rung to the parts of a sweep: who is learnt from, who is scored, what is resampled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.metrics import metric
from affectlens.probing import folds
from affectlens.probing.sweep import Part
from affectlens.probing.targets import Target
from affectlens.stats import Statistic

UNITS = {"random": "scene", "pair": "scene", "split": "domain"}  # other rungs resample what they hold out


@dataclass(frozen=True)
class Stage:
    """One rung of one target, ready to be swept."""

    rung: str
    asked: Target
    source: Part  # learnt from: the scored items themselves, but for the rung ``split``
    part: Part  # scored
    clusters: Int[np.ndarray, " item"]  # what is resampled, integers from 0
    unit: str

    @property
    def n(self) -> int:
        """How many clusters there are."""
        return int(self.clusters.max()) + 1

    @property
    def n_folds(self) -> int:
        """How many folds share what they learn from."""
        return len(np.unique(self.part.folds))

    def worth(self, logits: Float[np.ndarray, "item k"]) -> Statistic:
        """The target's metric of held-out logits."""
        return metric(logits, self.asked.y, compared(self.part.folds, self.asked), self.clusters)


def compared(fold: Int[np.ndarray, " item"], asked: Target) -> Int[np.ndarray, " item"]:
    """Inside which items are compared: the fold, and for an intensity the scene too."""
    if asked.within is None:
        return fold
    return np.unique(np.stack([fold, asked.within]), axis=1, return_inverse=True)[1]


def stages_of(
    items: pd.DataFrame, asked: Target, rungs: str | Sequence[str], seed: int = 0
) -> tuple[dict[str, Stage], dict[str, str]]:
    """The rungs that apply, in the ladder's order, and why the others do not.

    Raises:
        BatteryError: a rung of another name.
    """
    wanted = (rungs,) if isinstance(rungs, str) else tuple(rungs)
    if unknown := [rung for rung in wanted if rung not in folds.RUNGS]:
        raise BatteryError(f"There is no rung {unknown[0]!r}; choose from {', '.join(folds.RUNGS)}.")
    found = {rung: stage(items, asked, rung, seed=seed) for rung in folds.RUNGS if rung in wanted}
    return (
        {rung: one for rung, one in found.items() if isinstance(one, Stage)},
        {rung: why for rung, why in found.items() if isinstance(why, str)},
    )


def stage(items: pd.DataFrame, asked: Target, rung: str, *, seed: int = 0) -> Stage | str:
    """The rung ``rung`` of a target, or the reason why it does not apply.

    Args:
        items: the whole battery's table.
        asked: the target.
        rung: one of :data:`affectlens.probing.folds.RUNGS`.
        seed: of the folds.
    """
    if rung == "split":
        return _across_splits(items, asked, seed)
    keys = folds.keys(asked.items, rung, target=asked.name)
    if isinstance(keys, str):
        return keys
    try:
        fold = folds.split(keys, asked.y, folds.OUTER, seed=seed)
    except BatteryError as error:
        return str(error)
    part = Part(asked.rows, asked.y, len(asked.classes), keys, fold)
    return Stage(rung, asked, part, part, *_clusters(asked.items, rung))


def _clusters(items: pd.DataFrame, rung: str) -> tuple[Int[np.ndarray, " item"], str]:
    column = items["group" if rung in ("random", "pair") else rung]
    return np.asarray(pd.factorize(column)[0]), UNITS.get(rung, rung)


def _across_splits(items: pd.DataFrame, asked: Target, seed: int) -> Stage | str:
    """Learn from the keyword-rich twins of other domains, score the keyword-free."""
    if asked.ordered and asked.within is not None:
        return "it compares steps of intensity, which keyword-rich twins do not have"
    taught = keyword_items(items, asked)
    if isinstance(taught, str):
        return taught
    rows, y = taught
    under = stage(items, asked, "domain", seed=seed)
    if isinstance(under, str):
        return under
    fold_of = dict(zip(asked.items["domain"], under.part.folds, strict=True))
    domains = items.loc[rows, "domain"]
    fold = np.array([fold_of.get(d, -1) for d in domains])
    codes = np.asarray(pd.factorize(domains)[0])
    source = Part(rows, y, len(asked.classes), codes, fold)
    return Stage("split", asked, source, under.part, under.clusters, "domain")


def keyword_items(items: pd.DataFrame, asked: Target) -> tuple[Int[np.ndarray, " item"], np.ndarray] | str:
    """Rows and labels of the keyword-rich twins (with their neutrals, for affect), or why there are none."""
    keyword = items[items["role"] == "keyword"] if "role" in items else items.iloc[:0]
    keyword = keyword[keyword["group"].isin(asked.items["group"])]
    if keyword.empty:
        return "there are no keyword-rich twins"
    if asked.name == "affect":
        neutral = asked.items[(asked.items["role"] == "neutral") & asked.items["group"].isin(keyword["group"])]
        if neutral.empty:
            return "there are no keyword-rich twins"
        rows = np.concatenate([keyword.index.to_numpy(), neutral.index.to_numpy()])
        return rows, np.repeat([1, 0], [len(keyword), len(neutral)])
    told = dict(zip(asked.items["group"], asked.y, strict=True))
    return keyword.index.to_numpy(), np.array([told[group] for group in keyword["group"]])
