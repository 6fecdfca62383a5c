"""A closed loop: the dose falls as the reply's own running score nears a target, and rises as it drifts away.

At each token of the reply the loop reads a score ``x``, before anything is steered there, and acts by their running
mean ``s``, in which a token counts half as much for each ``memory`` tokens that came after it:

    s[k] = sum over j <= k of 0.5 ** ((k - j) / memory) * x[j]  /  sum of those weights

``joy<75``  share = clip(gain * (target - s), 0, 1)   the whole dose far below the target, none at it or above it
``joy>75``  share = clip(gain * (s - target), 0, 1)   the other way round, for a negative dose

The score of a direction counts in its spread over neutral texts, half of what lies between percentiles 16 and 84: with
gain 1 the dose falls over the last spread before the target, with gain 2 over the last half of one. That of a probe
counts in logits. Until a token of the reply has been read, at the prompt's last token and before, the share is 1.

What a loop reads must be computed before all that is steered: so it sees what the words did, and not the vector that is
being added. The share is a function of the reply's tokens alone, so caches, batches and padding change nothing.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.sites import Site
from affectlens.steering.directions import Direction, Directions
from affectlens.steering.gates import Reading, level, logit_of
from affectlens.steering.shipped import load_directions
from affectlens.steering.thresholds import Threshold, needed

FORMS = "joy<75, probe:joy<1.0, or joy<75, gain 2, memory 8"


@dataclass(frozen=True, eq=False)
class Loop:
    """Acts by how far the running mean of ``weights . h + bias`` over the reply's tokens is from ``target``."""

    site: Site
    weights: Float[np.ndarray, " d"]
    bias: float
    target: float  # in the score's unit: spreads over neutral texts, or logits
    above: bool = False  # act while the score is above the target instead of below
    gain: float = 1.0  # of the whole dose, by unit of the score
    memory: float = 8.0  # tokens after which a token counts half
    says: str = "a loop"
    fingerprint: str = ""  # of the model that it was found in
    emotion: str = ""  # whose score it is, or the class of a probe

    def __post_init__(self) -> None:
        for name, value in (("gain", self.gain), ("memory", self.memory)):
            if not (math.isfinite(value) and value > 0):
                raise SteerError(f"The loop's {name} is {value:g}: give a number above zero.")

    @classmethod
    def of_direction(
        cls, direction: Direction, percentile: float | int, *, above: bool = False, gain: float = 1.0,
        memory: float = 8.0,
    ) -> "Loop":  # fmt: skip
        """Hold the projection near a percentile of that of neutral texts.

        Args:
            direction: of the model that is steered.
            percentile: the target, 0 to 100.
            above: act while the score is above it.
            gain: of the dose, by spread of neutral texts.
            memory: tokens after which a token counts half.

        Raises:
            SteerError: a direction without levels, or whose neutral texts don't differ; a percentile beyond 0 to 100.
        """
        middle, spread = level(direction, 50), (level(direction, 84) - level(direction, 16)) / 2
        if spread <= 0:
            raise SteerError(f"Neutral texts don't differ on {direction.emotion} at {direction.site}: read another.")
        says = f"{direction.emotion} at {direction.site} is {'above' if above else 'below'} percentile {percentile:g}"
        weights = direction.vector.astype(np.float64) / spread
        target = (level(direction, percentile) - middle) / spread
        return cls(direction.at, weights, -middle / spread, target, above, gain, memory, says, direction.fingerprint,
                   direction.emotion)  # fmt: skip

    @classmethod
    def of_probe(
        cls, probes: Probes, *, name: str | None = None, layer: int | None = None, target: float = 0.0,
        above: bool = False, gain: float = 1.0, memory: float = 8.0,
    ) -> "Loop":  # fmt: skip
        """Hold a saved probe's logit near ``target``.

        Args:
            probes: of the model that is steered.
            name: the class whose logit is read; needed where there are more than two.
            layer: the chosen one by default.
            target: in logits.
            above: act while the logit is above it.
            gain: of the dose, by logit.
            memory: tokens after which a token counts half.

        Raises:
            SteerError: a class that the probes lack, or none where one must be named.
        """
        read = logit_of(probes, name, layer)
        says = f"{read.says} is {'above' if above else 'below'} {target:g}"
        return cls(read.site, read.weights, read.bias, target, above, gain, memory, says, probes.fingerprint,
                   name or probes.target)  # fmt: skip

    def score(self, h: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos"]:
        """What is read at each token."""
        return Reading(self.site, self.weights, self.bias, self.says).of(h)

    def share(
        self, scores: Float[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"], *, since: int = 0
    ) -> Float[Tensor, "batch new"]:
        """The share of the dose at tokens of a reply.

        Args:
            scores: at all of the reply's tokens so far.
            real: False at padding, which counts for nothing.
            since: the first token whose share is wanted.
        """
        at = torch.arange(scores.shape[1], device=scores.device)
        after = (at[since:, None] - at[None]).float()
        weight = torch.where(after >= 0, 0.5 ** (after.clamp(min=0) / self.memory), 0.0)
        counted = real.float() @ weight.T
        mean = torch.where(real, scores, 0.0) @ weight.T / counted.clamp(min=1e-30)
        lacking = (mean - self.target) if self.above else (self.target - mean)
        return torch.where(counted > 0, (self.gain * lacking).clamp(0.0, 1.0), 1.0)


def parse_loop(
    text: str,
    model: LensModel,
    *,
    directions: Directions | str | Path | None = None,
    probes: Probes | str | Path | None = None,
) -> Loop:
    """The loop that a text names: ``joy<75``, ``probe:joy<1.0``, ``joy<75, gain 2, memory 8``.

    Args:
        text: an emotion of the directions and a percentile of neutral texts, or a class of the probes and a logit;
            behind a comma the gain, 1 by default, and the memory in tokens, 8 by default.
        model: that is steered.
        directions: whose projections are read; by default those bundled for the model.
        probes: whose logits are read, or their file.

    Raises:
        SteerError: another form, an emotion or class that is not there, no percentiles, another model's directions.
        StoreError: probes that can't be read, or of another model.
    """
    one, how = read_text(text)
    if one.probe:
        found = needed(probes, text, model)
        name = one.class_of(found)
        return Loop.of_probe(found, name=name, layer=one.layer, target=one.number, above=not one.below, **how)
    mine = directions if isinstance(directions, Directions) else load_directions(directions, model)
    mine.expect(model)
    return Loop.of_direction(one.direction(mine), one.number, above=not one.below, **how)


def read_text(text: str) -> tuple[Threshold, dict[str, float]]:
    """A loop's text: its target, and its gain and memory where they are named.

    Args:
        text: as typed.

    Raises:
        SteerError: another form.
    """
    first, *rest = text.split(",")
    how: dict[str, float] = {}
    for part in rest:
        name, _, number = part.strip().partition(" ")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name not in ("gain", "memory") or name in how or not (math.isfinite(value) and value > 0):
            raise SteerError(f"The loop {text!r} is not known: write {FORMS}; gain and memory are above zero.")
        how[name] = value
    return Threshold.parse(first, "loop"), how
