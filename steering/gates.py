"""A gate opens steering only at tokens where a probe, or a direction's projection, is on one side of a threshold.

It reads its own site at the same token, before anything is steered there, so it is the same with and without a cache.
"""

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
from affectlens.steering.shipped import load_directions
from affectlens.steering.thresholds import Threshold, needed


@dataclass(frozen=True, eq=False)
class Reading:
    """``weights . h + bias`` at each token of a site."""

    site: Site
    weights: Float[np.ndarray, " d"]
    bias: float
    says: str

    def of(self, h: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos"]:
        """Its value at each token."""
        return h.float() @ torch.as_tensor(np.asarray(self.weights, dtype=np.float32), device=h.device) + self.bias


@dataclass(frozen=True, eq=False)
class Gate:
    """Open where ``weights . h + bias`` is above zero at ``site``, or below it if ``below``."""

    site: Site
    weights: Float[np.ndarray, " d"]
    bias: float
    below: bool = False
    says: str = "a gate"
    fingerprint: str = ""  # of the model that it was found in

    @classmethod
    def of_direction(cls, direction: Direction, percentile: float | int, *, below: bool = False) -> "Gate":
        """Open where the projection passes a percentile of that of neutral texts.

        Raises:
            SteerError: a direction without levels, or a percentile beyond 0 to 100.
        """
        says = f"{direction.emotion} at {direction.site} {'below' if below else 'above'} percentile {percentile:g}"
        return cls(direction.at, direction.vector, -level(direction, percentile), below, says, direction.fingerprint)

    @classmethod
    def of_probe(
        cls, probes: Probes, *, name: str | None = None, layer: int | None = None, threshold: float = 0.0,
        below: bool = False,
    ) -> "Gate":  # fmt: skip
        """Open where a saved probe's logit passes ``threshold``.

        Args:
            probes: of the model that is steered.
            name: the class whose logit is read; needed where there are more than two.
            layer: the chosen one by default.
            threshold: in logits.
            below: open below it instead.

        Raises:
            SteerError: a class that the probes lack, or none where one must be named.
        """
        reading = logit_of(probes, name, layer)
        says = f"{reading.says} {'below' if below else 'above'} {threshold:g}"
        return cls(reading.site, reading.weights, reading.bias - threshold, below, says, probes.fingerprint)

    def open(self, h: Float[Tensor, "batch pos d"]) -> Bool[Tensor, "batch pos"]:
        """Which tokens it opens."""
        score = Reading(self.site, self.weights, self.bias, self.says).of(h)
        return score < 0 if self.below else score > 0


def parse_gate(
    text: str,
    model: LensModel,
    *,
    directions: Directions | str | Path | None = None,
    probes: Probes | str | Path | None = None,
) -> Gate:
    """The gate that a text names: ``fear>90``, ``fear<50``, ``probe:joy>0.5``, ``probe:joy@12<0``.

    Args:
        text: an emotion of the directions and a percentile of neutral texts, or a class of the probes and a logit; the
            layer behind ``@`` may be left out.
        model: that is steered.
        directions: whose projections are read; by default those bundled for the model.
        probes: whose logits are read, or their file.

    Raises:
        SteerError: another form, an emotion or class that is not there, no percentiles, another model's directions.
        StoreError: probes that can't be read, or of another model.
    """
    one = Threshold.parse(text, "gate")
    if one.probe:
        found = needed(probes, text, model)
        name = one.class_of(found)
        return Gate.of_probe(found, name=name, layer=one.layer, threshold=one.number, below=one.below)
    mine = directions if isinstance(directions, Directions) else load_directions(directions, model)
    mine.expect(model)
    return Gate.of_direction(one.direction(mine), one.number, below=one.below)


def logit_of(probes: Probes, name: str | None, layer: int | None) -> Reading:
    """How a saved probe's logit is read.

    Args:
        probes: the probes.
        name: the class; needed where there are more than two.
        layer: the chosen one by default.

    Raises:
        SteerError: a class that the probes lack, or none where one must be named.
        StoreError: a layer without a probe.
    """
    linear, where = probes.at(layer), probes.layer if layer is None else layer
    several = len(linear.weights) > 1
    if (several and name is None) or (name is not None and name not in probes.classes):
        raise SteerError(f"Name the class that is read, one of {', '.join(probes.classes)}.")
    row = probes.classes.index(name) if several and name else 0
    sign = -1.0 if not several and name is not None and name == probes.classes[0] else 1.0
    says = f"probe of {name or probes.target} at layer {where}"
    return Reading(Site(probes.site, where), sign * linear.weights[row], sign * float(linear.bias[row]), says)


def level(direction: Direction, percentile: float | int) -> float:
    """A percentile of the projection of neutral texts on the direction.

    Raises:
        SteerError: if the direction does not know them.
    """
    if len(direction.levels) != 101 or not 0 <= percentile <= 100:
        raise SteerError(
            f"The direction of {direction.emotion} does not know percentile {percentile:g}: extract it anew, from a "
            "battery with neutral items, and ask for 0 to 100."
        )
    return float(np.interp(percentile, np.arange(101), direction.levels))
