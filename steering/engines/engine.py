"""An engine: one thread that writes the replies to all requests, and a queue of bounded length before it.

Each turn of its loop reads a part of the prompts that were let in, then writes one token of every reply; what came in
meanwhile is let in at the next turn. So requests begin and end whenever they do, and nobody waits for a whole reply.
"""

import itertools
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any

from torch import Tensor

from affectlens.errors import AffectLensError, CaptureError, SteerError
from affectlens.generating import end_tokens
from affectlens.steering.applying import steered_here
from affectlens.steering.engines.request import End, Load, Piece, Reason, Request, Tell
from affectlens.steering.engines.runner import Runner
from affectlens.steering.engines.spelling import Speller
from affectlens.steering.engines.ticket import Ticket, finite

_LOG = logging.getLogger(__name__)
_TOGETHER = 512  # tokens of prompts, padding included, that are let in at a time


class Busy(SteerError):
    """The queue is full, or the engine takes nothing any more."""


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
        self._waiting: deque[Ticket] = deque()
        self._reading: list[Ticket] = []
        self._parts: Iterator[Mapping[int, Tensor] | None] = iter(())
        self._writing: dict[int, Ticket] = {}
        self._next: dict[int, int] = {}  # the token that each reply goes on with
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
            Busy: the queue is full, or the engine is closing.
            CaptureError: a prompt without tokens, or one that does not fit into the context with its reply.
            SteerError: a plan that the runner can't do; inside a ``with steer(...)`` of the same model.
        """
        needed = len(request.ids) + request.decoding.max_new_tokens
        if not request.ids or needed > self.runner.n_ctx:
            raise CaptureError(
                f"The prompt has {len(request.ids)} tokens, and {request.decoding.max_new_tokens} more are asked for; "
                f"the context holds {self.runner.n_ctx}, and a prompt needs one at least."
            )
        if steered_here(self.runner.model):
            raise SteerError("The engine writes in a thread of its own, which waits for your steer(...) to end.")
        self.runner.check(request)
        speller = Speller(self.runner.model.tokenizer, request.stops)
        ticket = Ticket(next(self._keys), request, speller, self._ends, tell)
        with self._wake:
            if self._closing or not self._thread.is_alive():
                raise Busy("The engine is closing and takes no more requests.")
            if len(self._waiting) >= self.room:
                raise Busy(f"{len(self._waiting)} requests are waiting, and there is room for no more: try again soon.")
            self._waiting.append(ticket)
            self._wake.notify()
        return ticket

    def stream(self, request: Request) -> Iterator[str]:
        """The pieces of a reply as they are written; whoever stops reading stops the writing.

        Args:
            request: what is wanted.

        Raises:
            SteerError: as for :meth:`submit`, or if the reply failed.
        """
        told: SimpleQueue[Piece | End] = SimpleQueue()
        ticket = self.submit(request, told.put)
        try:
            while isinstance(event := told.get(), Piece):
                yield event.text
        finally:
            ticket.cancel()
        if event.reason == "error":
            raise SteerError(event.error)

    def write(self, request: Request) -> tuple[str, End]:
        """A whole reply, and how it ended.

        Args:
            request: what is wanted.

        Raises:
            SteerError: as for :meth:`submit`, or if the reply failed.
        """
        told: SimpleQueue[Piece | End] = SimpleQueue()
        self.submit(request, told.put)
        pieces = []
        while isinstance(event := told.get(), Piece):
            pieces.append(event.text)
        if event.reason == "error":
            raise SteerError(event.error)
        return "".join(pieces), event

    def load(self) -> Load:
        """What it is doing."""
        with self._wake:
            active = len(self._reading) + len(self._writing)
            return Load(active, len(self._waiting), self.runner.slots, self.room)

    def close(self, patience: float = 30.0) -> None:
        """Take nothing new, end what was taken, and stop; what is left after ``patience`` is cancelled.

        Args:
            patience: in seconds.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(patience)
        while self._thread.is_alive():  # a request may just be on its way from one list to another
            with self._wake:
                left = [*self._waiting, *self._reading, *self._writing.values()]
            for ticket in left:
                ticket.cancel()
            self._thread.join(0.2)
        self.runner.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_how: Any) -> None:
        self.close()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._reading or self._writing or self._closing):
                    self._wake.wait()
                if not (self._waiting or self._reading or self._writing):
                    return
            try:
                self._turn()
            except Exception as error:
                if not isinstance(error, AffectLensError):
                    _LOG.exception("The engine failed at a turn.")
                self._fail(f"The engine failed: {error or type(error).__name__}")

    def _turn(self) -> None:
        self._drop_lapsed()
        if not self._reading:
            self._let_in()
        if self._reading and (logits := next(self._parts)) is not None:
            with self._wake:
                self._writing |= {ticket.key: ticket for ticket in self._reading}
                self._reading = []
            self._choose(logits)
        if self._writing:
            self._choose(self.runner.step(dict(self._next)))

    def _let_in(self) -> None:
        """Take from the queue what there are slots for, as much as is read at a time."""
        with self._wake:
            free = self.runner.slots - len(self._writing)
            new: list[Ticket] = []
            while self._waiting and len(new) < free:
                widest = max(len(ticket.request.ids) for ticket in [*new, self._waiting[0]])
                if new and widest * (len(new) + 1) > _TOGETHER:
                    break
                new.append(self._waiting.popleft())
            self._reading = new
        if fit := [ticket for ticket in new if self._prepared(ticket)]:
            self._parts = self.runner.read({ticket.key: ticket.request for ticket in fit})

    def _prepared(self, ticket: Ticket) -> bool:
        """Whether the runner can do it; if not, it is told so."""
        try:
            self.runner.prepare(ticket.request)
        except AffectLensError as error:
            ticket.end("error", str(error))
            with self._wake:
                self._reading.remove(ticket)
        return not ticket.ended

    def _choose(self, logits: Mapping[int, Tensor]) -> None:
        for key, row in logits.items():
            ticket = self._writing[key]
            if not finite(row):
                self._end(ticket, "error", "The model gave no finite logits: a dose is too high, or dtype too small.")
            elif isinstance(taken := ticket.take(row), int):
                self._next[key] = taken
            else:
                self._end(ticket, taken)

    def _drop_lapsed(self) -> None:
        with self._wake:
            waiting = [ticket for ticket in self._waiting if ticket.lapsed]
            for ticket in waiting:
                self._waiting.remove(ticket)
        for ticket in waiting:
            ticket.end(ticket.lapsed or "cancelled")
        for ticket in list(self._writing.values()):
            if (reason := ticket.lapsed) is not None:
                self._end(ticket, reason)

    def _end(self, ticket: Ticket, reason: Reason, error: str = "", *, ours: bool = False) -> None:
        """Free its slot, then tell it: whoever is told finds the slot free."""
        self.runner.free(ticket.key)
        self._next.pop(ticket.key, None)
        with self._wake:
            self._writing.pop(ticket.key, None)
        ticket.end(reason, error, ours=ours)

    def _fail(self, sentence: str) -> None:
        with self._wake:
            failed = [*self._reading, *self._writing.values()]
            self._reading = []
        for ticket in failed:
            self._end(ticket, "error", sentence, ours=True)
