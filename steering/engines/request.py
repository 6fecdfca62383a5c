"""What an engine is asked to write, and what it tells while it writes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from affectlens.generating import Decoding
from affectlens.steering.plan import SteeringPlan

Reason = Literal["stop", "length", "cancelled", "timeout", "error"]


@dataclass(frozen=True, eq=False)
class Request:
    """A reply that is wanted."""

    ids: tuple[int, ...]  # the prompt's tokens
    decoding: Decoding
    plan: SteeringPlan | None = None
    stops: tuple[str, ...] = ()  # texts that end the reply; they are not part of it
    patience: float = math.inf  # seconds that it may take from now on, the wait included

    @property
    def tokens(self) -> int:
        """How many tokens prompt and reply have together, at most."""
        return len(self.ids) + self.decoding.max_new_tokens


@dataclass(frozen=True)
class Piece:
    """The next of a reply's text."""

    text: str
    ids: tuple[int, ...]  # the tokens that it is of


@dataclass(frozen=True)
class End:
    """A reply's end; nothing is told after it."""

    reason: Reason
    tokens: int  # that were written, the end token included
    error: str = ""  # of reason ``error``: a sentence
    ours: bool = False  # whether the error is the engine's own, and nothing that was asked for


Tell = Callable[[Piece | End], None]


@dataclass(frozen=True)
class Load:
    """What an engine is doing."""

    active: int  # requests that are being read or written
    waiting: int
    slots: int  # how many can be active
    room: int  # how many can wait
