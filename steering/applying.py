"""``with steer(model, {"joy": 0.6}):`` and every pass of the model inside is steered, in its own ``generate`` too.

Hugging Face's generation runs as it is: cached or not, batched, padded on either side, sampled, by beams, streamed. A
plan that only adds at every token costs one addition a site and step. Of anything else it must be known where each
token stands, so the model's passes are followed, and ``generate`` tells where the reply begins.
"""

import hashlib
import math
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import Any

import torch

from affectlens.cursors import following
from affectlens.errors import SteerError
from affectlens.hooks import attach
from affectlens.model import LensModel
from affectlens.steering.acting import PROVING, Acting, constant
from affectlens.steering.listening import listening
from affectlens.steering.plan import SteeringPlan, plan_for

_HOLDERS: "weakref.WeakKeyDictionary[LensModel, list[int]]" = weakref.WeakKeyDictionary()
_PROVED: OrderedDict[str, None] = OrderedDict()  # the last plans whose effect was seen
_KEPT = 4096
_HOW = {"directions", "raw", "operator", "layers", "positions", "schedule", "gate", "loop", "probes", "conflict"}
_PROOF = 4  # tokens of the pass that proves an effect


@dataclass
class Steering:
    """Steering that is on."""

    plan: SteeringPlan
    opened: int = 0  # tokens at which a gate was open
    seen: int = 0  # tokens that a gate looked at
    given: float = 0.0  # what loops left of the dose at the reply's tokens, summed
    looped: int = 0  # the reply's tokens that loops read

    @property
    def share(self) -> float:
        """The mean share of the dose that loops left at the reply's tokens; 1 where there were none."""
        return self.given / self.looped if self.looped else 1.0


@contextmanager
def steer(
    model: LensModel, doses: Mapping[str, float] | SteeringPlan, *, prompt_tokens: int | None = None, **how: Any
) -> Iterator[Steering]:
    """Steer every pass of ``model`` inside the ``with``.

    Dose 0 installs nothing. A plan that changes no logit is an error. Two may be nested: their doses add. Another
    thread that wants to steer or write with the same model waits.

    Args:
        model: from :func:`affectlens.load_model`; call ``model.hf.generate`` or ``model.hf`` as ever.
        doses: ``{"joy": 0.6, "fear": -0.3}``, or a plan from :func:`affectlens.steering.plan_for`.
        prompt_tokens: how many columns of the batch are the prompt, padding included, if you call the model itself;
            ``generate`` says it by itself.
        how: what :func:`affectlens.steering.plan_for` takes: ``directions``, ``raw``, ``operator``, ``layers``,
            ``positions``, ``schedule``, ``gate``, ``loop``, ``probes``, ``conflict``.

    Yields:
        :class:`Steering`, with the plan.

    Raises:
        SteerError: as for :func:`affectlens.steering.plan_for`; a plan that changes no logit; positions that need to
            know where the reply begins, where nothing says it.
    """
    if wrong := sorted(set(how) - _HOW):
        raise SteerError(f"steer does not know {', '.join(wrong)}: it takes {', '.join(sorted(_HOW))}.")
    if isinstance(doses, SteeringPlan) and how:
        raise SteerError(f"A plan says it all: leave out {', '.join(how)}, or give doses instead.")
    plan = doses if isinstance(doses, SteeringPlan) else plan_for(model, doses, **how)
    steering = Steering(plan)
    if plan.is_nothing:
        yield steering
        return
    plan.expect(model)
    with model.lock:  # hooks are the model's: another thread would be steered by them
        prove(model, plan)
        holders = _HOLDERS.setdefault(model, [])
        holders.append(get_ident())
        try:
            with _installed(model, steering, prompt_tokens):
                yield steering
        finally:
            holders.pop()


def steered_here(model: LensModel) -> bool:
    """Whether this thread has steering of the model in place.

    Args:
        model: the model.
    """
    return get_ident() in _HOLDERS.get(model, [])


@contextmanager
def _installed(
    model: LensModel, steering: Steering, prompt_tokens: int | None, *, forced: bool = False
) -> Iterator[None]:
    """The hooks in place; ``forced``: at every token, at full strength, every gate and loop open."""
    plan = steering.plan
    simple = {site: all(t.adds_always or (forced and t.operator.kind == "add") for t in terms)
              for site, terms in plan.acting.items()}  # fmt: skip
    with ExitStack() as handles:
        cursor = handles.enter_context(nullcontext() if all(simple.values()) else following(model))
        acting = Acting(model, steering, cursor, prompt_tokens, forced)
        if cursor is not None and not forced:
            handles.enter_context(listening(model, acting))
            acting.watch_gates(handles)
        for site, terms in plan.acting.items():
            act = constant(model, site, terms) if simple[site] else partial(acting.act, site, terms)
            attach(handles, model.sites.find(site), act, writing=True)
        handles.enter_context(model.edited())
        yield


def prove(model: LensModel, plan: SteeringPlan) -> None:
    """Raise a :class:`SteerError` if the plan at full strength changes no logit; a plan is tried once.

    Args:
        model: to be steered, whose lock is held.
        plan: with a dose that is not 0.
    """
    key = _proof_key(model, plan)
    if key in _PROVED:
        _PROVED.move_to_end(key)
        return
    size = model.hf.get_input_embeddings().weight.shape[0]
    ids = torch.arange(_PROOF, device=model.device)[None] * 7 % size
    PROVING.add(id(model))
    try:
        with torch.inference_mode():
            plain = model.hf(ids, use_cache=False).logits
            with _installed(model, Steering(plan), None, forced=True):
                steered = model.hf(ids, use_cache=False).logits
    finally:
        PROVING.discard(id(model))
    if torch.equal(plain, steered):
        raise SteerError(
            "This plan changes no logit, though a dose is not 0: it is too small for the model's dtype, or its "
            "directions have no part in what the model computes. Raise the dose, or choose another site."
        )
    _PROVED[key] = None
    if len(_PROVED) > _KEPT:
        _PROVED.popitem(last=False)


def _proof_key(model: LensModel, plan: SteeringPlan) -> str:
    """What a proof holds for; a single vector that moves logits in float32 does so at up to twice its length too."""
    alone = len(plan.terms) == 1 and plan.terms[0].operator.kind == "add" and model.dtype == torch.float32
    said = [plan.conflict.encode(), model.fingerprint.encode()]
    for term in plan.terms:
        size = f"{math.copysign(1, term.strength)} {math.frexp(term.strength)[1]}".encode()
        vector = size + term.direction.vector.tobytes() if alone else term.vector.tobytes()
        said.append(f"{term.direction.site} {term.operator} {term.direction.norm}".encode() + vector)
    said += [term.reference.tobytes() for term in plan.terms if term.reference is not None]
    return hashlib.sha256(b"|".join(said)).hexdigest()
