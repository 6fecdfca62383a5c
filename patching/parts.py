"""The sweeps that a run consists of: which pairs of the battery, at which sites, read by which metrics."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from affectlens.errors import BatteryError, PatchError
from affectlens.model import LensModel
from affectlens.pairing import matched_pairs
from affectlens.patching.ablating import ablate, knockout
from affectlens.patching.ablation import AblationSweep
from affectlens.patching.applying import FEWEST, Rule, facts_of, left_out, rules, scarce
from affectlens.patching.flipping import CONTEXTS, SPLITS, whole_quadruples
from affectlens.patching.metrics import words_of
from affectlens.patching.named import named_metrics
from affectlens.patching.pairs import PatchPair, choose, prepare
from affectlens.patching.plans import check, controls_of, cue_of, directions_of, edges_of, positions_of, sites_of
from affectlens.patching.results import PatchSweep
from affectlens.patching.settings import AblatePlan, PatchPlan, Settings
from affectlens.patching.sweeping import patch
from affectlens.stimuli import Battery
from affectlens.stimuli.battery import NAMED
from affectlens.types import Json

FIRST = "emotional/neutral"  # what pairs of a battery of ours are, unless others are named
Swept = PatchSweep | AblationSweep


@dataclass(frozen=True)
class Question:
    """What can be asked of a battery, before any model is there."""

    splits: dict[str, Battery]  # what is swept by itself ("" where all is one): the items of its pairs
    contrasts: tuple[str, ...]
    rules: dict[str, dict[str, Rule]]  # of each split the metrics that its pairs allow
    unfit: dict[str, str]  # the metrics that can't be had, and why


@dataclass(frozen=True)
class Part:
    """One sweep of a run; ``work`` takes ``metric``, ``folder`` and ``progress``."""

    name: str  # its folder in the run
    pairs: tuple[PatchPair, ...]
    rules: dict[str, Rule]
    work: Callable[..., Swept]


def question(table: Battery, settings: Settings, plan: PatchPlan | AblatePlan) -> Question:
    """Check what was asked against the battery.

    Raises:
        PatchError: a name that is none, no metric that the battery allows, or quadruples that all lack a cell.
        BatteryError: pairs that the battery does not have.
    """
    check(plan)
    crossed = isinstance(plan, PatchPlan) and plan.crossed
    contrasts = CONTEXTS if crossed else _contrasts(table, settings)
    splits = dict(_crossed(table) if crossed else [("", _of(table, contrasts))])
    found, unfit = rules(table, settings.metrics)
    fit: dict[str, dict[str, Rule]] = {}
    for split, items in splits.items():
        why = scarce(found, facts_of(items), f" of {split}" if split else "")
        fit[split] = {name: rule for name, rule in found.items() if name not in why}
        unfit |= {f"{name} in {split}" if split else name: said for name, said in why.items()}
    if not any(fit.values()):
        raise PatchError(next(iter(unfit.values())))
    return Question({split: items for split, items in splits.items() if fit[split]}, contrasts, fit, unfit)


def parts_of(model: LensModel, asked: Question, settings: Settings, plan: PatchPlan | AblatePlan) -> list[Part]:
    """The sweeps, their pairs chosen and tokenised.

    Raises:
        PatchError: a layer that the model lacks, or metrics that none of the chosen pairs allows.
        SiteError: a site that the model lacks.
        CaptureError: texts that the model can't read.
    """
    if settings.layer is not None and settings.layer >= model.n_layers:
        raise PatchError(f"layer is {settings.layer}; {model.name} has layers 0 to {model.n_layers - 1}.")
    made = _patches(model, settings, plan) if isinstance(plan, PatchPlan) else _ablations(model, settings, plan)
    works = list(made)
    out: list[Part] = []
    for split, items in asked.splits.items():
        spoken = [name for name in asked.rules[split] if name.startswith("said_")]
        labels = words_of(named_metrics(model, items, spoken))
        every = prepare(model, items, labels=labels, cue=cue_of(settings), chat=settings.chat)
        pairs = tuple(choose([p for p in every if p.contrast in asked.contrasts], settings.groups, settings.seed))
        fit = {name: rule for name, rule in asked.rules[split].items()
               if len({pair.group for pair in pairs if rule.of(pair)}) >= FEWEST}  # fmt: skip
        home = f"{split}/" if split else ""
        out += [Part(home + name, pairs, fit, partial(work, pairs)) for name, work in works if fit]
    if not out:
        raise PatchError(f"The {settings.groups} groups chosen allow none of these metrics: take more, --pairs 32.")
    return out


def remarks(parts: Sequence[Part], asked: Question) -> tuple[list[str], dict[str, str]]:
    """Which pairs are left out of which metrics, as sentences; and all metrics that can't be had, with the reason."""
    by_split = {part.name.rpartition("/")[0]: part for part in parts}
    said, unfit = [], dict(asked.unfit)
    for split, part in by_split.items():
        said += left_out(part.pairs, part.rules, f" of {split}" if split else "")
        for name in asked.rules[split]:
            if name not in part.rules:
                unfit[name] = f"{name} can be read on fewer than {FEWEST} of the groups chosen: take more, --pairs 32."
    return said, unfit


def _patches(model: LensModel, settings: Settings, plan: PatchPlan) -> Iterator[tuple[str, Callable[..., Swept]]]:
    given: Json = {
        "sites": sites_of(model, settings, plan), "positions": positions_of(settings, plan),
        "controls": controls_of(settings, plan), "chat": settings.chat, "seed": settings.seed,
        "memory": settings.memory,
    }  # fmt: skip
    for way in directions_of(plan):
        yield way, partial(patch, model, direction=way, **given)


def _ablations(model: LensModel, settings: Settings, plan: AblatePlan) -> Iterator[tuple[str, Callable[..., Swept]]]:
    given: Json = {"chat": settings.chat, "seed": settings.seed, "memory": settings.memory}
    if plan.sites or not plan.edges:
        sites = sites_of(model, settings, plan)
        yield "ablation", partial(ablate, model, sites=sites, positions=plan.positions, kind=plan.kind,
                                  cumulative=plan.cumulative, control=plan.control, **given)  # fmt: skip
    if plan.edges:
        yield "knockout", partial(knockout, model, edges=edges_of(plan), window=plan.window, heads=plan.heads, **given)


def _contrasts(table: Battery, settings: Settings) -> tuple[str, ...]:
    there = tuple(dict.fromkeys(matched_pairs(table)["contrast"]))
    if settings.contrast is not None and settings.contrast not in there:
        raise BatteryError(f"{table.name} has no pairs {settings.contrast!r}; it has {', '.join(there)}.")
    if settings.contrast is None and settings.battery not in NAMED:
        return there
    return (settings.contrast or FIRST,)


def _of(table: Battery, contrasts: Sequence[str]) -> Battery:
    """The items of these pairs alone, so that no others are tokenised."""
    rows = matched_pairs(table)
    rows = rows[rows["contrast"].isin(contrasts)]
    ids = {*rows["a"], *rows["b"]}
    return Battery(table.name, tuple(item for item in table if item.id in ids), table.licence, table.source)


def _crossed(table: Battery) -> Iterator[tuple[str, Battery]]:
    there = [split for split in SPLITS if any(item.split == split for item in table)]
    if not there:
        raise BatteryError(f"{table.name} has no crossed quadruples: take core or full.")
    for split in there:
        yield split, whole_quadruples(table, split)
