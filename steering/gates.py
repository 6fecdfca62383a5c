"""A gate opens steering only at tokens where a probe, or a direction's projection, is on one side of a threshold.

It reads its own site at the same token, before anything is steered there, so it is the same with and without a cache.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.errors import SteerError
from affectlens.probing.probes import Probes
from affectlens.sites import Site
from affectlens.steering.directions import Direction


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
        linear, where = probes.at(layer), probes.layer if layer is None else layer
        several = len(linear.weights) > 1
        if (several and name is None) or (name is not None and name not in probes.classes):
            raise SteerError(f"Name the class that opens the gate: {', '.join(probes.classes)}.")
        row = probes.classes.index(name) if several and name else 0
        sign = -1.0 if not several and name is not None and name == probes.classes[0] else 1.0
        says = f"probe of {name or probes.target} at layer {where} {'below' if below else 'above'} {threshold:g}"
        site = Site(probes.site, where)
        bias = sign * float(linear.bias[row]) - threshold
        return cls(site, sign * linear.weights[row], bias, below, says, probes.fingerprint)

    def open(self, h: Float[Tensor, "batch pos d"]) -> Bool[Tensor, "batch pos"]:
        """Which tokens it opens."""
        weights = torch.as_tensor(np.asarray(self.weights, dtype=np.float32), device=h.device)
        score = h.float() @ weights + self.bias
        return score < 0 if self.below else score > 0


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
