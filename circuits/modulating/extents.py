"""How much a comparison writes, and the ways that it compares, each as what is done to a site at a dose."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from affectlens.circuits.modulating.modulation import Modulation
from affectlens.errors import CircuitError
from affectlens.steering.directions import Directions
from affectlens.steering.evaluating.conditions import addition as added
from affectlens.steering.evaluating.rows import Addition, Scaling
from affectlens.steering.extracting import placebos

WAYS = ("scale", "replace", "steer", "prompted")


@dataclass(frozen=True)
class Extent:
    """How much is written. Grids go upward; a way's dose is the largest within the budget, there and below."""

    gains: tuple[float, ...]  # of deviations from neutral, above 1
    replace: tuple[float, ...]  # doses of what the emotion adds on average
    doses: tuple[float, ...]  # of the residual directions, raw
    prompts: int  # of each half
    tokens: int  # of a reply
    draws: int  # of each way's placebo, or as many as there are
    texts: int  # neutral ones
    budgets: tuple[float, ...] = (1.1, 1.5)  # perplexity ratios

    def __post_init__(self) -> None:
        if min(self.gains, default=2.0) <= 1 or min((*self.replace, *self.doses), default=1.0) <= 0 or self.draws < 2:
            raise CircuitError("Gains are above 1, doses above 0, and placebos need 2 draws or more.")


# Gains are fine near 1: on SmolLM2-135M a gain of 2 on sixteen heads made replies four times as perplexing.
FULL = Extent((1.1, 1.25, 1.5, 2.0, 3.0), (1.0, 2.0, 4.0, 8.0, 16.0), (0.1, 0.15, 0.2, 0.3, 0.4), 16, 24, 39, 16)
QUICK = Extent((1.1, 1.25, 1.5), (2.0, 4.0, 8.0), (0.1, 0.2, 0.4), 4, 16, 9, 8)


@dataclass(frozen=True)
class Way:
    """One way to one emotion."""

    name: str
    emotion: str
    method: str
    site: str
    doses: tuple[float, ...]  # of ``scale`` the gain less 1
    change: Callable[[float], Addition]
    placebo: Callable[[int, float], Addition]  # by draw and dose
    draws: int  # how many placebos there are


def ways_of(modulation: Modulation, directions: Directions, extent: Extent, seed: int) -> Iterator[Way]:
    """The three ways that change activations; asking in words is the fourth.

    Args:
        modulation: of an emotion.
        directions: the residual ones, of the same emotion among others.
        extent: how much.
        seed: of the placebos' draws.
    """
    emotion, here = modulation.emotion, f"{len(modulation.parts)} parts"
    drawn = modulation.placebos(extent.draws, seed=seed)
    for name, doses in (("scale", tuple(gain - 1 for gain in extent.gains)), ("replace", extent.replace)):
        yield Way(name, emotion, "modulation", here, doses, _changing([modulation], name), _placebo(drawn, name),
                  len(drawn))  # fmt: skip
    mine = directions.only(emotion)
    sites = [one.at for one in mine]
    random = np.stack([placebos(mine, kind="random", draws=extent.draws, site=at, seed=seed) for at in sites], axis=1)

    def placebo(draw: int, dose: float) -> Addition:
        return {one.at: dose * one.norm * v.astype(np.float64) for one, v in zip(mine, random[draw], strict=True)}

    site = str(sites[0]) if len(sites) == 1 else f"{len(sites)} sites"
    method = mine.all[0].called
    yield Way("steer", emotion, method, site, extent.doses, lambda dose: added(mine, emotion, dose), placebo,
              extent.draws)  # fmt: skip


def _changing(one: Sequence[Modulation], name: str) -> Callable[[float], Addition]:
    return lambda dose: addition(one[0], name, dose)


def _placebo(drawn: Sequence[Modulation], name: str) -> Callable[[int, float], Addition]:
    return lambda draw, dose: addition(drawn[draw], name, dose)


def addition(modulation: Modulation, way: str, dose: float) -> Addition:
    """What a modulation does to each site of a batch's row: the same as its :meth:`Modulation.plan`.

    Args:
        modulation: the parts.
        way: ``scale``, by the gain ``1 + dose``; or ``replace``, a shift.
        dose: above 0.
    """
    if way == "scale":
        return {site: Scaling(dose * w, -dose * w * modulation.mean(site)) for site, w in modulation.by_site.items()}
    return {
        site: dose * w * (modulation.mean(site, "target") - modulation.mean(site))
        for site, w in modulation.by_site.items()
    }
