"""What a reply is read with: a linear read-out of one site at each token, a direction's projection or a probe's logit.

1. The direction that steers, at its own site. As the reply is written, that reading holds the added vector itself.
2. The same direction at a later layer of the residual stream, halfway from the last steered layer to the end.
3. Probes, or directions from another file, which had no part in the writing: the best there is, where there are any.

Projections are divided by the direction's ``norm``, the unit of raw doses; at a later layer it is the same number, so
that readings of one direction compare over layers in one unit.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.errors import BatteryError, SteerError
from affectlens.hooks import watch
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.probing.tokens.reading import find_class
from affectlens.sites import Site
from affectlens.steering.directions import Direction, Directions
from affectlens.steering.plan import SteeringPlan

_STREAM = ("resid_pre", "resid_mid", "resid_post")


@dataclass(frozen=True, eq=False)
class Reader:
    """``weights . h + bias`` at each token of a site."""

    emotion: str  # the emotion, or the class of a probe
    site: Site
    weights: Float[np.ndarray, " d"]
    bias: float
    says: str  # what the number is
    zeroed: bool  # a logit: its zero means something by itself
    own: bool  # the very direction that steers, at the very site


def readers_for(
    model: LensModel, plan: SteeringPlan, probes: Probes | None, readers: Directions | str | Path | None,
    layer: int | None,
) -> tuple[Reader, ...]:  # fmt: skip
    """The readers of a plan's replies; the first is the one that colours them.

    Args:
        model: that is steered.
        plan: whose emotions are read.
        probes: read with their logits.
        readers: read with these directions.
        layer: of the probes or, without probes and readers, of the plan's own directions.

    Raises:
        SteerError: readers that lack every emotion of the plan, none for a plan that only scales, or a layer that the
            model lacks.
        StoreError: probes of another model, or without that layer.
        BatteryError: probes of several classes that lack an emotion of the plan.
    """
    if layer is not None and not 0 <= layer < model.n_layers:
        raise SteerError(f"{model.name} has no layer {layer}: its layers are 0 to {model.n_layers - 1}.")
    steering = {
        (t.direction.emotion, t.direction.site): t.direction for t in sorted(plan.terms, key=lambda t: -abs(t.strength))
    }
    emotions = tuple(dict.fromkeys(emotion for emotion, _ in steering))
    steering = {key: d for key, d in steering.items() if not d.facts.get("weights")}
    found: list[Reader] = []
    if probes is not None:
        found += _of_probes(model, probes, emotions, layer)
    if readers is not None:
        found += _of_others(model, readers, emotions)
    if not found and not steering:
        raise SteerError("Scaling parts has no direction to read replies with: give beside probes= or readers=.")
    if not found:
        found += _later(model, list(steering.values()), layer)
    return (*found, *(_projecting(d, d.at, own=True) for d in steering.values()))


def _of_probes(model: LensModel, probes: Probes, emotions: tuple[str, ...], layer: int | None) -> list[Reader]:
    probes.expect(model.fingerprint, model.name)
    linear, site = probes.at(layer), Site(probes.site, probes.layer if layer is None else layer)
    found: dict[str, Reader] = {}
    for emotion in emotions:
        try:
            column, sign, name = find_class(probes, emotion)
        except BatteryError:
            if len(linear.weights) > 1:
                raise
            column, sign, name = find_class(probes, None)  # affect: it tells whether, not which
        at = column or 0
        says = f"logit of {name} of the {probes.main} probe of {probes.target} at {site}"
        weights = sign * linear.weights[at].astype(np.float64)
        found[name] = Reader(name, site, weights, sign * float(linear.bias[at]), says, zeroed=True, own=False)
    return list(found.values())


def _of_others(model: LensModel, given: Directions | str | Path, emotions: tuple[str, ...]) -> list[Reader]:
    others = given if isinstance(given, Directions) else Directions.load(given)
    others.expect(model)
    found = [_projecting(d, d.at, own=False) for emotion in emotions if emotion in others for d in others[emotion]]
    if not found:
        raise SteerError(
            f"These directions are of {', '.join(others.emotions)}, and none of these is steered: give readers of "
            f"{' or '.join(emotions)}."
        )
    return found


def _later(model: LensModel, steering: list[Direction], layer: int | None) -> list[Reader]:
    top = max(d.at.layer for d in steering)
    where = (top + model.n_layers) // 2 if layer is None else layer
    if where <= top and layer is None:
        return []
    found: dict[str, Reader] = {}
    for d in steering:
        if d.at.kind in _STREAM:
            at = Site("resid_post", where)
            found[d.emotion] = _projecting(d, at, own=at == d.at)
    return [reader for reader in found.values() if not reader.own]


def _projecting(direction: Direction, site: Site, *, own: bool) -> Reader:
    from_there = "" if site == direction.at else f", found at {direction.at}"
    says = (
        f"projection at {site} on the {direction.method} direction of {direction.emotion}{from_there}, in units of its "
        f"norm ({direction.norm:.0f})"
    )
    weights = direction.vector.astype(np.float64) / direction.norm
    return Reader(direction.emotion, site, weights, 0.0, says, zeroed=False, own=own)


@torch.inference_mode()
def read(
    model: LensModel, prompt: list[int], reply: list[int], readers: tuple[Reader, ...]
) -> Float[np.ndarray, "pos reader"]:
    """Each reader's value at each token of a reply, in one pass over prompt and reply; what edits the model takes part.

    Args:
        model: the model.
        prompt: its token ids.
        reply: those of the reply.
        readers: what reads.
    """
    if not reply:
        return np.zeros((0, len(readers)))
    seen: dict[Site, np.ndarray] = {}

    def see(site: Site, value: Tensor) -> None:
        seen[site] = value[0, len(prompt) :].float().reshape(len(reply), -1).cpu().numpy().astype(np.float64)

    ids = torch.tensor([[*prompt, *reply]], device=model.device)
    with model.lock, watch(model, list(dict.fromkeys(r.site for r in readers)), see, stop=True):
        model.body(input_ids=ids, use_cache=False)
    return np.stack([seen[r.site] @ r.weights + r.bias for r in readers], axis=-1)
