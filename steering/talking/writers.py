"""Who writes the replies: the model itself, one after the other, or an engine, all of them in one forward pass."""

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import nullcontext
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol, runtime_checkable

from affectlens.errors import SteerError
from affectlens.generating import Decoding, generate
from affectlens.layouts import Layout
from affectlens.model import LensModel
from affectlens.steering.applying import steer, steered_here
from affectlens.steering.engines.engine import Engine
from affectlens.steering.engines.request import End, Piece, Request, Tell
from affectlens.steering.engines.spelling import Speller
from affectlens.steering.engines.ticket import Ticket
from affectlens.steering.plan import SteeringPlan

Plans = Mapping[str, SteeringPlan | None]  # by the name of the reply; None is a plain one
Pieces = Generator[tuple[str, Piece], None, None]


@runtime_checkable
class Writer(Protocol):
    """Writes replies to one prompt under several plans; whoever stops reading stops the writing.

    Attributes:
        n_ctx: tokens that prompt and reply may have together.
    """

    n_ctx: int

    def check(self, plan: SteeringPlan) -> None:
        """Raise a :class:`SteerError` for a plan that can't be followed here, without writing."""

    def stream(self, prompt: Layout, plans: Plans, decoding: Decoding) -> Pieces:
        """Pieces of the replies as they come, by the reply's name; a piece may have tokens and no text."""
        ...


class ByModel:
    """Replies that the model writes by Hugging Face's own ``generate``, one after the other."""

    def __init__(self, model: LensModel) -> None:
        self.model, self.n_ctx = model, model.n_ctx

    def check(self, plan: SteeringPlan) -> None:
        """Refuse another model's plan; of its own, the model follows any.

        Args:
            plan: that is asked for.

        Raises:
            SteerError: another model's.
        """
        plan.expect(self.model)

    def stream(self, prompt: Layout, plans: Plans, decoding: Decoding) -> Pieces:
        """Pieces of the replies, one reply after the other.

        Args:
            prompt: what is replied to.
            plans: by the reply's name.
            decoding: how tokens are chosen; all replies share the luck.

        Raises:
            SteerError: as for :func:`affectlens.steering.steer`; inside a ``with steer(...)``.
        """
        if steered_here(self.model):
            raise SteerError("A chat writes in a thread of its own, which waits for your steer(...) to end.")
        for name, plan in plans.items():
            for piece in self._one(prompt, plan, decoding):
                yield name, piece

    def _one(self, prompt: Layout, plan: SteeringPlan | None, decoding: Decoding) -> Iterator[Piece]:
        told: SimpleQueue[Piece | BaseException | None] = SimpleQueue()
        halted, telling = Event(), _Telling(self.model.tokenizer, told)

        def work() -> None:  # all of it in one thread: what is suspended between pieces steers nothing else
            try:
                with steer(self.model, plan) if plan is not None else nullcontext():
                    generate(self.model, [prompt], decoding, streamer=telling, halted=halted)
                told.put(None)
            except BaseException as error:  # raised again where the reader is
                told.put(error)

        writer = Thread(target=work, daemon=True)
        writer.start()
        try:
            while (event := told.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            halted.set()
            writer.join()


class _Telling:
    """A streamer as ``generate`` of transformers takes it, which keeps each piece with its tokens."""

    def __init__(self, tokenizer: Any, told: "SimpleQueue[Piece | BaseException | None]") -> None:
        self.speller, self.told, self.prompted = Speller(tokenizer), told, False

    def put(self, ids: Any) -> None:
        if not self.prompted:  # the first are the prompt's
            self.prompted = True
            return
        for token in ids.reshape(-1).tolist():
            self.speller.add(token)
            self.told.put(Piece(self.speller.tell(), (token,)))

    def end(self) -> None:
        self.told.put(Piece(self.speller.end(), ()))


class ByEngine:
    """Replies that an engine writes at the same time."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.n_ctx = engine, engine.runner.n_ctx

    def check(self, plan: SteeringPlan) -> None:
        """Refuse what the engine can't do.

        Args:
            plan: that is asked for.

        Raises:
            SteerError: by :meth:`Engine.submit`, for the plan.
        """
        self.engine.runner.check(Request((0,), Decoding(1), plan))

    def stream(self, prompt: Layout, plans: Plans, decoding: Decoding) -> Pieces:
        """Pieces of the replies as they come.

        Args:
            prompt: what is replied to.
            plans: by the reply's name.
            decoding: how tokens are chosen; all replies share the luck.

        Raises:
            SteerError: as for :meth:`Engine.submit`, or if a reply failed or took too long.
        """
        told: SimpleQueue[tuple[str, Piece | End]] = SimpleQueue()
        tickets: dict[str, Ticket] = {}
        heard = dict.fromkeys(plans, 0)  # tokens
        try:
            for name, plan in plans.items():
                request = Request(tuple(prompt.ids), decoding, plan, patience=math.inf)  # who talks stops it by Ctrl-C
                tickets[name] = self.engine.submit(request, _named(name, told))
            open_ = set(plans)
            while open_:
                name, event = told.get()
                if isinstance(event, End):
                    open_.remove(name)
                    _check(event)
                    event = Piece("", tuple(tickets[name].ids[heard[name] :]))
                heard[name] += len(event.ids)
                yield name, event
        finally:
            for ticket in tickets.values():
                ticket.cancel()


def _named(name: str, told: "SimpleQueue[tuple[str, Piece | End]]") -> Tell:
    return lambda event: told.put((name, event))


def _check(end: End) -> None:
    if end.reason == "error":
        raise SteerError(end.error)
    if end.reason in ("timeout", "cancelled"):
        raise SteerError(f"The reply ended before its time ({end.reason}): ask again.")
