"""A plan's names, checked, and with its defaults filled in."""

import math
import re

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.named import CUE
from affectlens.patching.replacing import KINDS
from affectlens.patching.settings import ABLATED, EVERY, LAYERS, PATCHED, AblatePlan, PatchPlan, Settings
from affectlens.patching.sources import CONTROLS
from affectlens.patching.spans import spans
from affectlens.patching.units import EACH, expand_positions, expand_sites

QUICK_CONTROLS = ("random", "wrong_position")
_EDGE = re.compile(r"(span:[^:]+|[^:]+):(span:[^:]+|[^:]+)")


def check(plan: PatchPlan | AblatePlan) -> None:
    """Whether positions, controls, kinds and spans are such; sites wait for the model.

    Args:
        plan: what was asked.

    Raises:
        PatchError: a name that is none, or two that exclude one another.
    """
    if isinstance(plan, PatchPlan):
        _check_patch(plan)
    else:
        _check_ablate(plan)


def cue_of(settings: Settings) -> str:
    """What is written after each text."""
    return CUE if settings.cue is None else settings.cue


def positions_of(settings: Settings, plan: PatchPlan) -> tuple[str | int, ...]:
    """Where is patched: what was named, or the segments that there are."""
    cue = ("cue",) if cue_of(settings) or settings.chat else ()
    return plan.positions or ("changed", "shared", "ending", *cue, "last")


def controls_of(settings: Settings, plan: PatchPlan) -> tuple[str, ...]:
    """The controls: what was named, or all; of a quick run and of quadruples two."""
    if plan.controls is not None:
        return plan.controls
    return QUICK_CONTROLS if settings.quick or plan.crossed else CONTROLS


def directions_of(plan: PatchPlan) -> tuple[str, ...]:
    """The ways to patch; quadruples need both."""
    return ("denoise", "noise") if plan.crossed else plan.directions


def sites_of(model: LensModel, settings: Settings, plan: PatchPlan | AblatePlan) -> list[str]:
    """Sites by name, or what is taken where none is named; of a quick run, each third layer of those that name none.

    Raises:
        SiteError: a site that the model lacks.
        PatchError: one that can't be patched.
    """
    names = plan.sites or (PATCHED if isinstance(plan, PatchPlan) else ABLATED)
    expand_sites(model, names)
    if plan.sites and not settings.quick:
        return list(names)
    plain = ["z.each" if name == "heads" else name for name in names]
    layers = range(0, model.n_layers, EVERY if settings.quick else math.ceil(model.n_layers / LAYERS))
    at_each = ([name] if re.match(r"L\d+\.", name) else [f"L{at}.{name}" for at in layers] for name in plain)
    return [site for some in at_each for site in some]


def edges_of(plan: AblatePlan) -> list[tuple[str, str]]:
    """The spans between which attention is cut.

    Raises:
        PatchError: what is no FROM:TO, or no span.
    """
    out = []
    for edge in plan.edges:
        found = _EDGE.fullmatch(edge)
        if not found:
            raise PatchError(f"--knockout is {edge!r}: name two spans, as in changed:last.")
        out.append((found[1], found[2]))
        spans(out[-1])
    return out


def _check_patch(plan: PatchPlan) -> None:
    if plan.positions:
        expand_positions(plan.positions)
    if wrong := [name for name in plan.controls or () if name not in CONTROLS]:
        raise PatchError(f"There is no control {wrong[0]!r}; choose from {', '.join(CONTROLS)}.")
    if plan.crossed and plan.directions != PatchPlan.directions:
        raise PatchError("--crossed patches both ways by itself: leave out --direction.")
    if plan.crossed and EACH in plan.positions:
        raise PatchError("--crossed patches segments, not single tokens: leave out --position each.")


def _check_ablate(plan: AblatePlan) -> None:
    kinds = [kind for kind in KINDS if kind != "direction"]
    if plan.kind not in kinds:
        raise PatchError(f"kind is {plan.kind!r}; choose {', '.join(kinds[:-1])} or {kinds[-1]}.")
    spans(plan.positions)
    if not edges_of(plan) and plan.window != 1:
        raise PatchError("--window is how many layers a knockout cuts together: name one, --knockout changed:last.")
    if plan.cumulative and plan.edges and not plan.sites:
        raise PatchError("--cumulative adds site to site: name some, --site attn_out.")
