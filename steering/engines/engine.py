"""An engine: one thread that writes the replies to all requests, and a queue of bounded length before it.

Requests begin and end whenever they do (:mod:`affectlens.steering.engines.desk`), and nobody waits for another's whole
reply.
"""

import itertools
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any

from affectlens.errors import CaptureError, SteerError
from affectlens.generating import end_tokens
from affectlens.steering.applying import steered_here
from affectlens.steering.engines.desk import Desk
from affectlens.steering.engines.request import End, Load, Piece, Request, Tell
from affectlens.steering.engines.runner import Runner
from affectlens.steering.engines.spelling import Speller
from affectlens.steering.engines.ticket import Ticket


class Busy(SteerError):
    """The queue is full."""


class Closed(SteerError):
    """The engine takes nothing any more."""


class Engine:
    """Writes replies with a :class:`Runner`; close it, or use it in a ``with``.

    Args:
        runner: what runs the model; the engine closes it.
        room: how many requests may wait.

    Raises:
        SteerError: no room at all.
    """

    def __init__(self, runner: Runner, *, room: int = 64) -> None:
        if room < 1:
            raise SteerError(f"room is {room}: one request at least must be able to wait.")
        self.runner, self.room = runner, room
        self._wake = Condition()
        self._desk = Desk(runner, self._wake)
        self._keys = itertools.count()
        self._closing = False
        self._ends = tuple(end_tokens(runner.model))
        self._thread = Thread(target=self._work, name="affectlens-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, tell: Tell) -> Ticket:
        """Ask for a reply; ``tell`` gets its pieces and then its end, from the engine's thread, and must be quick.

        Args:
            request: what is wanted.
            tell: called with each :class:`Piece` and the :class:`End`.

        Raises:
            Busy: the queue is full.
            Closed: the engine is closing.
            CaptureError: a prompt without tokens, or one that does not fit into the context with its reply.
            SteerError: a plan that the runner can't do; inside a ``with steer(...)`` of the same model.
        """
        if not request.ids or request.tokens > self.runner.n_ctx:
            raise CaptureError(
                f"The prompt has {len(request.ids)} tokens, and {request.decoding.max_new_tokens} more are asked for; "
                f"the context holds {self.runner.n_ctx}, and a prompt needs one at least."
            )
        self._expect_unsteered()
        self.runner.check(request)
        speller = Speller(self.runner.model.tokenizer, request.stops)
        ticket = Ticket(next(self._keys), request, speller, self._ends, tell)
        with self._wake:
            if self._closing or not self.alive:
                raise Closed("The engine is closing and takes no more requests.")
            if (n := len(self._desk.waiting)) >= self.room:
                raise Busy(f"{n} requests are waiting, and there is room for no more: try again soon.")
            self._desk.waiting.append(ticket)
            self._wake.notify()
        return ticket

    def stream(self, request: Request) -> Iterator[str]:
        """The pieces of a reply as they are written; whoever stops reading stops the writing.

        Args:
            request: what is wanted.

        Raises:
            SteerError: as for :meth:`submit`, or if the reply failed or took longer than its patience.
        """
        told: SimpleQueue[Piece | End] = SimpleQueue()
        ticket = self.submit(request, told.put)
        try:
            while isinstance(event := told.get(), Piece):
                yield event.text
        finally:
            ticket.cancel()
        _expect_whole(event)

    def reply(self, request: Request) -> tuple[list[int], End]:
        """The tokens of a whole reply, the end token included where there was one, and how it ended.

        Args:
            request: what is wanted.

        Raises:
            SteerError: as for :meth:`stream`.
        """
        ticket, end = self._waited(request)
        return list(ticket.ids), end

    def write(self, request: Request) -> tuple[str, End]:
        """A whole reply, and how it ended.

        Args:
            request: what is wanted.

        Raises:
            SteerError: as for :meth:`stream`.
        """
        ticket, end = self._waited(request)
        return ticket.speller.text, end

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def load(self) -> Load:
        """What it is doing."""
        with self._wake:
            active = len(self._desk.reading) + len(self._desk.writing)
            return Load(active, len(self._desk.waiting), self.runner.slots, self.room)

    def close(self, patience: float = 30.0) -> None:
        """Take nothing new, end what was taken, and stop; what is left after ``patience`` is cancelled.

        Args:
            patience: in seconds.

        Raises:
            SteerError: inside a ``with steer(...)`` of the same model, which what is left would wait for.
        """
        self._expect_unsteered()
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(patience)
        while self._thread.is_alive():  # a request may just be on its way from one list to another
            with self._wake:
                left = [*self._desk.waiting, *self._desk.reading, *self._desk.writing.values()]
            for ticket in left:
                ticket.cancel()
            self._thread.join(0.2)
        self.runner.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_how: Any) -> None:
        self.close(0.0 if kind else 30.0)

    def _waited(self, request: Request) -> tuple[Ticket, End]:
        told: SimpleQueue[Piece | End] = SimpleQueue()
        ticket = self.submit(request, told.put)
        try:
            while isinstance(event := told.get(), Piece):
                pass
        finally:
            ticket.cancel()
        _expect_whole(event)
        return ticket, event

    def _expect_unsteered(self) -> None:
        if steered_here(self.runner.model):
            raise SteerError("The engine writes in a thread of its own, which waits for your steer(...) to end.")

    def _work(self) -> None:
        try:
            while True:
                with self._wake:
                    while self._desk.idle and not self._closing:
                        self._wake.wait()
                    if self._desk.idle:
                        return
                self._desk.turn()
        finally:
            self._desk.end_all("The engine has stopped.")


def _expect_whole(end: End) -> None:
    """Raise a :class:`SteerError` for a reply that is none, or not all of one."""
    if end.reason == "error":
        raise SteerError(end.error)
    if end.reason == "timeout":
        raise SteerError(f"The reply took longer than its patience; {end.tokens} tokens were written: ask for fewer.")
