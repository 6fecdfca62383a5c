"""What a plan adds to the stream at each position, as llama.cpp takes it: one vector a layer, for a whole pass.

llama.cpp's table of vectors begins at block 1, and block N's vector is added to the stream as it leaves that block: it
is our ``LN.resid_post`` (see :mod:`affectlens.steering.exporting.vectors`).
"""

from dataclasses import replace

import numpy as np
import torch

from affectlens.errors import SteerError
from affectlens.steering.operators import Operator
from affectlens.steering.plan import SteeringPlan, Term
from affectlens.steering.timing import Timing

Push = tuple[tuple[int, bytes], ...]  # vectors by layer, as float32; equal pushes are equal tuples
NOTHING: Push = ()


class Course:
    """A plan's vectors along one request: the prompt, its last token, and then each token of the reply."""

    def __init__(self, plan: SteeringPlan | None, prompt: int) -> None:
        self.prompt = prompt
        acting = plan.acting if plan is not None else {}
        self.terms = {site.layer: terms for site, terms in acting.items()}
        self.timings = tuple({term.timing: None for terms in self.terms.values() for term in terms})
        self._shares: tuple[float, ...] | None = None
        self._push = NOTHING

    def at(self, position: int) -> Push:
        """What is added at a position of the text.

        Args:
            position: from 0, the prompt's first token.
        """
        step = torch.tensor([position - (self.prompt - 1)])
        shares = tuple(1.0 if timing.steady else float(timing.share(step)) for timing in self.timings)
        if shares != self._shares:
            self._shares, self._push = shares, self._summed(dict(zip(self.timings, shares, strict=True)))
        return self._push

    def _summed(self, shares: dict[Timing, float]) -> Push:
        found = []
        for layer, terms in self.terms.items():
            total = np.sum([shares[term.timing] * term.vector for term in terms], axis=0).astype(np.float32)
            if np.any(total):
                found.append((layer, total.tobytes()))
        return tuple(found)


def check_how(operator: Operator, *, watched: bool = False) -> None:
    """Refuse what is more than adding whatever it is done with, before there is a plan.

    Args:
        operator: that a plan is to have.
        watched: it is to have a gate or a loop.

    Raises:
        SteerError: another operator than ``add``, a gate or a loop.
    """
    if operator.kind != "add" or watched:
        what = f"the operator {operator}" if operator.kind != "add" else "a gate or a loop"
        raise SteerError(
            f"llama.cpp adds vectors and can do nothing else, and {what} is asked for: the PyTorch engine can "
            "(--engine torch)."
        )


def check_plan(plan: SteeringPlan) -> None:
    """Refuse what is no vector that is added as the stream leaves a block, whatever the text is.

    Args:
        plan: of a request.

    Raises:
        SteerError: another operator, a gate or a loop, another site, layer 0, or doses that cancel.
    """
    if plan.is_nothing:
        return
    for site, terms in plan.acting.items():
        for term in terms:
            if what := _beyond(term):
                raise SteerError(
                    f"llama.cpp adds vectors and can do nothing else, and {term.direction.emotion} at {site} has "
                    f"{what}: the PyTorch engine can (--engine torch)."
                )
        if site.kind != "resid_post":
            raise SteerError(
                f"llama.cpp adds vectors to the stream as it leaves a block (resid_post), and {site} is elsewhere: "
                "the PyTorch engine can steer there (--engine torch)."
            )
        if site.layer == 0:
            raise SteerError(
                "llama.cpp has no control vector for layer 0: leave its directions out, or take the PyTorch engine "
                "(--engine torch)."
            )
    whole = Course(plan, 1)
    if not whole._summed(dict.fromkeys(whole.timings, 1.0)):
        raise SteerError("These doses cancel: nothing would be added. Change one of them.")


def _beyond(term: Term) -> str:
    """What of a term is more than adding, in words; empty if nothing is."""
    if term.operator.kind != "add":
        return f"the operator {term.operator}"
    return "" if replace(term, timing=Timing()).adds_always else "a gate or a loop"
