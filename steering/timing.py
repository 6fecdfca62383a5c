"""When steering acts: which tokens, and how strongly as a reply goes on.

Positions are absolute in the sequence. A reply's token k is chosen at the position before it, so ``response`` begins
with the prompt's last token, and ``prompt`` ends before that one; together they are ``all``.

============ ============================================== =============== =====================================
positions                                                   schedule        the dose at the reply's token k
============ ============================================== =============== =====================================
all          every token                                    constant        the same throughout
prompt       the prompt without its last token              decay(16)       halves every 16 tokens
response     the positions that choose the reply's tokens   ramp(16)        grows from 1/16 to the whole over 16
first(8)     those that choose its first 8
============ ============================================== =============== =====================================
"""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.errors import SteerError

PLACES = "all, prompt, response, first(8)"
SCHEDULES = "constant, decay(16), ramp(16)"


@dataclass(frozen=True)
class Timing:
    """Where a term acts and how its dose goes on.

    >>> Timing.of("first(8)", "decay(4)")
    Timing(place='first', first=8, schedule='decay', tokens=4)
    """

    place: str = "all"
    first: int = 0
    schedule: str = "constant"
    tokens: int = 0

    @classmethod
    def of(cls, positions: str = "all", schedule: str = "constant") -> "Timing":
        """The timing that two texts name.

        Raises:
            SteerError: another form.
        """
        place, first = _parsed(positions, ("all", "prompt", "response"), ("first",), "positions", PLACES)
        kind, tokens = _parsed(schedule, ("constant",), ("decay", "ramp"), "schedule", SCHEDULES)
        return cls(place, first, kind, tokens)

    @property
    def steady(self) -> bool:
        """Whether it is the same at every token of any text."""
        return self.place == "all" and self.schedule == "constant"

    @property
    def of_replies(self) -> bool:
        """Whether one has to know where the reply begins."""
        return not self.steady

    def share(self, step: Int[Tensor, " pos"]) -> Float[Tensor, " pos"]:
        """The share of the dose at positions that choose the reply's token ``step``, below zero in the prompt."""
        inside = {
            "all": torch.ones_like(step, dtype=torch.bool),
            "prompt": step < 0,
            "response": step >= 0,
            "first": (step >= 0) & (step < self.first),
        }[self.place]
        k = step.clamp(min=0).float()
        course = {
            "constant": torch.ones_like(k),
            "decay": 0.5 ** (k / max(self.tokens, 1)),
            "ramp": ((k + 1) / max(self.tokens, 1)).clamp(max=1.0),
        }[self.schedule]
        return course * inside

    def __str__(self) -> str:
        place = f"first({self.first})" if self.place == "first" else self.place
        return place if self.schedule == "constant" else f"{place}, {self.schedule}({self.tokens})"


def _parsed(text: str, plain: tuple[str, ...], numbered: tuple[str, ...], what: str, forms: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\w+)(?:\((\d+)\))?", text.strip())
    if match and match[1] in plain and match[2] is None:
        return match[1], 0
    if match and match[1] in numbered and match[2] and int(match[2]) > 0:
        return match[1], int(match[2])
    raise SteerError(f"{what}={text!r} is not known; choose from {forms}.")
