"""Writing the replies of many conversations at one turn, each with its own doses."""

import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.layouts import Message
from affectlens.model import LensModel
from affectlens.steering.directions import Directions
from affectlens.steering.engines.request import End, Piece, Request, Tell
from affectlens.steering.fitting import fit
from affectlens.steering.plan import SteeringPlan, plan_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from affectlens.steering.engines.engine import Engine
    from affectlens.steering.engines.ticket import Ticket

SLOTS = 32  # replies that are written at a time
_Key = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, float], ...], int]
_SILENCE = "..."  # what stands in the history for a reply that was empty: templates refuse empty messages


@dataclass(frozen=True)
class Asked:
    """A reply that is wanted."""

    messages: tuple[tuple[str, str], ...]  # the user's line and the reply in turn; of the last pair the reply is empty
    doses: Mapping[str, float]
    seed: int


@dataclass(frozen=True)
class Written:
    """A reply, and how many of the oldest exchanges did not fit into the context before it."""

    text: str
    dropped: int = 0


def key(one: Asked) -> _Key:
    """What a reply depends on.

    Args:
        one: a reply that is wanted.
    """
    return one.messages, tuple(sorted(one.doses.items())), one.seed


@runtime_checkable
class Writer(Protocol):
    """Writes replies; a reply does not depend on what else is asked."""

    def __call__(self, asked: Sequence[Asked]) -> list[Written]: ...


class EngineWriter:
    """A writer by an engine: all replies share their forward passes, whatever their doses are.

    The same words under the same doses and the same luck are written once: policies agree wherever a mood is at rest.
    Made by :func:`writing`.
    """

    def __init__(self, model: LensModel, engine: "Engine", directions: Directions, decoding: Decoding) -> None:
        self.model, self.engine, self.directions, self.decoding = model, engine, directions, decoding
        self._known: dict[_Key, Written] = {}

    def __call__(self, asked: Sequence[Asked]) -> list[Written]:
        """The replies, in order.

        Args:
            asked: each with its own doses and luck.

        Raises:
            SteerError: a plan that can't be, or a reply that failed.
            CaptureError: a line that does not fit into the context by itself.
        """
        new = {key(one): one for one in asked}
        fresh = {name: one for name, one in new.items() if name not in self._known}
        self._known |= dict(zip(fresh, self._write(list(fresh.values())), strict=True))
        return [self._known[key(one)] for one in asked]

    def _write(self, asked: Sequence[Asked]) -> list[Written]:
        told: SimpleQueue[tuple[int, Piece | End]] = SimpleQueue()
        texts, dropped = [""] * len(asked), [0] * len(asked)
        waiting = list(enumerate(asked))
        running: dict[int, Ticket] = {}
        try:
            while waiting or running:
                while waiting and len(running) < SLOTS:
                    at, one = waiting.pop(0)
                    request, dropped[at] = self._request(one)
                    running[at] = self.engine.submit(request, _telling(told, at))
                at, event = told.get()
                if isinstance(event, Piece):
                    texts[at] += event.text
                    continue
                del running[at]
                if event.reason not in ("stop", "length"):
                    raise SteerError(event.error or f"A reply ended by {event.reason}: run it anew with --resume.")
        finally:
            for ticket in running.values():
                ticket.cancel()
        return [Written(text.strip(), n) for text, n in zip(texts, dropped, strict=True)]

    def _request(self, one: Asked) -> tuple[Request, int]:
        ids, dropped = fitting(self.model, one.messages, self.decoding.max_new_tokens)
        plan: SteeringPlan | None = None
        if one.doses:
            plan = plan_for(self.model, one.doses, directions=self.directions)
        return Request(ids, replace(self.decoding, seed=one.seed), plan, patience=math.inf), dropped


def _telling(told: "SimpleQueue[tuple[int, Piece | End]]", at: int) -> Tell:
    return lambda event: told.put((at, event))


@contextmanager
def writing(model: LensModel, directions: Directions, decoding: Decoding) -> "Iterator[EngineWriter]":
    """A writer, whose engine is closed at the end.

    Args:
        model: that replies.
        directions: that doses are of.
        decoding: how tokens are chosen; each reply has its own seed.
    """
    from affectlens.steering.engines.engine import Engine
    from affectlens.steering.engines.together import Together

    engine = Engine(Together(model, slots=SLOTS), room=SLOTS)
    try:
        yield EngineWriter(model, engine, directions, decoding)
    finally:
        engine.close(patience=0.0)


def fitting(model: LensModel, said: Sequence[tuple[str, str]], most: int) -> tuple[tuple[int, ...], int]:
    """The tokens of a conversation, without as many of its oldest exchanges as do not fit; and how many those are.

    Args:
        model: whose template and context are meant.
        said: the user's line and the model's reply in turn, the last pair with an empty reply.
        most: tokens that the reply may have.

    Raises:
        CaptureError: a last line that does not fit by itself, or a chat template that is missing or refuses it.
    """
    prompt, dropped = fit(model, [_pair(*one) for one in said[:-1]], said[-1][0], most=most)
    return tuple(prompt.ids), dropped


def messages(said: Sequence[tuple[str, str]]) -> list[Message]:
    """Pairs of a user's line and the model's reply as messages, without the reply that is yet to come.

    Args:
        said: the pairs, in order.
    """
    return [message for one in said for message in _pair(*one)][:-1]


def _pair(line: str, reply: str) -> list[Message]:
    return [{"role": "user", "content": line}, {"role": "assistant", "content": reply or _SILENCE}]
