"""Which metrics a battery's pairs allow, which pairs each of them can be read on, and why not the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch

from affectlens.errors import BatteryError, PatchError
from affectlens.pairing import matched_pairs
from affectlens.patching.metrics import Metric, Reading, Values
from affectlens.patching.named import EMOTION_WORDS, NAMED
from affectlens.patching.pairs import PatchPair
from affectlens.probing.targets import select
from affectlens.stimuli import Battery
from affectlens.types import TextTable

READ_OUTS = ("affect", "category", "valence")
FOLDS = 8  # that read-outs are fitted in
FEWEST = 2  # groups: one gives no interval


@dataclass(frozen=True)
class Rule:
    """Which pairs a metric can be read on: by the clean text's emotion, its valence, or neither."""

    emotions: frozenset[str] | None = None
    valence: bool = False

    def __call__(self, emotion: object, valence: object) -> bool:
        return (self.emotions is None or emotion in self.emotions) and (not self.valence or bool(valence))

    def of(self, pair: PatchPair) -> bool:
        """Whether the metric can be read on a prepared pair."""
        return self(pair.emotion, pair.valence)

    @property
    def wanted(self) -> str:
        """What the clean text of a pair must be."""
        return "pleasant or unpleasant" if self.valence else f"of {', '.join(sorted(self.emotions or ()))}"


def rules(table: TextTable, names: Sequence[str]) -> tuple[dict[str, Rule], dict[str, str]]:
    """Of each metric its rule, and why some can't be had on this battery at all.

    Args:
        table: the battery.
        names: metrics.

    Raises:
        PatchError: a name that is no metric.
    """
    out, unfit = {}, {}
    for name in names:
        if name not in NAMED:
            raise PatchError(f"There is no metric {name!r}; choose from {', '.join(NAMED)}.")
        classes: frozenset[str] = frozenset(EMOTION_WORDS)
        if name in READ_OUTS:
            try:
                classes = _classes(table, name)
            except (BatteryError, PatchError) as error:
                unfit[name] = str(error)
                continue
        out[name] = Rule(classes if name.endswith("category") else None, name.endswith("valence"))
    return out, unfit


def scarce(found: Mapping[str, Rule], facts: pd.DataFrame, where: str = "") -> dict[str, str]:
    """Why metrics can't be read on these pairs: fewer than two groups of them allow it.

    Args:
        found: metrics with their rules.
        facts: one row a pair: ``group``, ``emotion``, ``valence`` of the clean text.
        where: what pairs these are, for the sentence.
    """
    out = {}
    for name, rule in found.items():
        fit = [rule(emotion, valence) for emotion, valence in zip(facts["emotion"], facts["valence"], strict=True)]
        groups = facts.loc[fit, "group"].nunique()
        if groups < FEWEST:
            out[name] = (
                f"{name} needs {FEWEST} groups of pairs whose clean text is {rule.wanted}, and {groups} of "
                f"{facts['group'].nunique()}{where} have one."
            )
    return out


def facts_of(battery: Battery) -> pd.DataFrame:
    """``group``, ``contrast``, and ``emotion`` and ``valence`` of the clean text, one row a matched pair."""
    return matched_pairs(battery).merge(battery.frame()[["id", "emotion", "valence"]], left_on="a", right_on="id")


def guarded(metric: Metric, rule: Rule) -> Metric:
    """The metric, which is NaN on pairs that it can't be read on; their rows are then left out (:func:`read`)."""

    def value(reading: Reading) -> Values:
        if rule.of(reading.pair):
            return metric(reading)
        kept = (reading.logprobs, reading.logits, *reading.streams.values())
        rows = next(len(one) for one in kept if one is not None)
        return torch.full((rows,), torch.nan, dtype=torch.float64)

    return replace(metric, value=value)


def read(table: pd.DataFrame, pairs: Sequence[PatchPair], found: Mapping[str, Rule]) -> pd.DataFrame:
    """The rows of a sweep's table whose metric can be read on their pair."""
    unread = {(name, pair.name) for name, rule in found.items() for pair in pairs if not rule.of(pair)}
    keys = zip(table["metric"], table["pair"], strict=True)
    return table[[key not in unread for key in keys]].reset_index(drop=True)


def left_out(pairs: Sequence[PatchPair], found: Mapping[str, Rule], where: str = "") -> list[str]:
    """Of each metric that some pairs don't allow, how many and why, as a sentence."""
    out = []
    for name, rule in found.items():
        if n := sum(not rule.of(pair) for pair in pairs):
            out.append(
                f"{n} of {len(pairs)} pairs{where} are left out of {name}: their clean text is not {rule.wanted}."
            )
    return out


def _classes(table: TextTable, name: str) -> frozenset[str]:
    question = select(table.frame(), name)
    if question.ordered:
        raise PatchError(f"{name} is an order in this battery, and a read-out needs classes.")
    groups = question.items["group"].nunique()
    if groups < FOLDS:
        raise PatchError(
            f"{name} is read by directions fitted on other groups, in {FOLDS} folds, and this battery has {groups} "
            "groups for it."
        )
    return frozenset(question.classes)
