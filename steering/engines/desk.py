"""What an engine's thread does: lets requests in, reads their prompts, writes a token of each, ends them.

Each turn lets in what there are slots for, reads a part of one group of prompts (the groups take turns, so that a long
prompt holds up no short one) and writes one token of every reply. What fails while it is read ends alone; what fails
while all are written ends all, as their states are one.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Condition

from torch import Tensor

from affectlens.errors import AffectLensError
from affectlens.steering.engines.request import Reason
from affectlens.steering.engines.runner import Runner
from affectlens.steering.engines.ticket import Ticket, finite

_LOG = logging.getLogger(__name__)
_TOGETHER = 512  # tokens of prompts, padding included, that are one group
_LOST = "The model gave no finite logits: a dose is too high, or dtype too small."


@dataclass(eq=False)
class Group:
    """Prompts that are read together."""

    tickets: list[Ticket]
    parts: Iterator[Mapping[int, Tensor] | None]


class Desk:
    """The requests of one engine; all but the lists' lengths is its thread's alone.

    Args:
        runner: what runs the model.
        wake: held while the lists change.
    """

    def __init__(self, runner: Runner, wake: Condition) -> None:
        self.runner, self.wake = runner, wake
        self.waiting: deque[Ticket] = deque()
        self.groups: deque[Group] = deque()  # the next one to be read first
        self.writing: dict[int, Ticket] = {}
        self._next: dict[int, int] = {}  # the token that each reply goes on with

    @property
    def reading(self) -> list[Ticket]:
        """Those whose prompts are being read."""
        return [ticket for group in self.groups for ticket in group.tickets]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self.groups or self.writing)

    def turn(self) -> None:
        """Do the next of everything."""
        self._drop_lapsed()
        try:
            self._let_in()
        except Exception as error:
            self._fail(list(self.waiting), error)
        if self.groups:
            self._read(self.groups[0])
        if self.writing:
            try:
                self._choose(self.runner.step(dict(self._next)))
            except Exception as error:
                self._fail(list(self.writing.values()), error)

    def end_all(self, sentence: str) -> None:
        """Nothing goes on after this.

        Args:
            sentence: what went wrong.
        """
        with self.wake:
            left = [*self.waiting, *self.reading, *self.writing.values()]
            self.waiting.clear()
            self.groups.clear()
            self.writing.clear()
        for ticket in left:
            ticket.end("error", sentence, ours=True)

    def _let_in(self) -> None:
        """Take from the queue what there are slots and room for, as much as is read together."""
        with self.wake:
            new = [self.waiting.popleft() for _ in range(self._ready())]
            if not new:
                return
            group = Group(list(new), iter(()))
            self.groups.append(group)
        for ticket in new:
            try:
                self.runner.prepare(ticket.request)
            except AffectLensError as error:
                self._end(ticket, "error", str(error))
            except Exception as error:
                self._fail([ticket], error)
        if group.tickets:
            group.parts = self.runner.read({ticket.key: ticket.request for ticket in group.tickets})

    def _ready(self) -> int:
        """How many of the queue can be let in as one group."""
        there = [*self.reading, *self.writing.values()]
        free, n = self.runner.slots - len(there), 0
        while n < min(free, len(self.waiting)):
            more = list(self.waiting)[: n + 1]
            if n and max(len(ticket.request.ids) for ticket in more) * len(more) > _TOGETHER:
                break
            if (there or n) and not self.runner.fits([ticket.request.tokens for ticket in [*there, *more]]):
                break
            n += 1
        return n

    def _read(self, group: Group) -> None:
        """Read a part of a group; at the prompts' end its replies begin."""
        tickets = list(group.tickets)
        try:
            logits = next(group.parts)
            if logits is None:
                self.groups.rotate(-1)
                return
            with self.wake:
                self.groups.remove(group)
                self.writing |= {ticket.key: ticket for ticket in tickets}
            self._choose(logits)
        except Exception as error:
            self._fail(tickets, error)

    def _choose(self, logits: Mapping[int, Tensor]) -> None:
        for key, row in logits.items():
            ticket = self.writing.get(key)
            if ticket is None:  # it left while its prompt was read
                self._free(key)
            elif not finite(row):
                self._end(ticket, "error", _LOST)
            elif isinstance(taken := ticket.take(row), int):
                self._next[key] = taken
            else:
                self._end(ticket, taken)

    def _drop_lapsed(self) -> None:
        with self.wake:
            here = [*self.waiting, *self.reading, *self.writing.values()]
        for ticket in here:
            if (reason := ticket.lapsed) is not None:
                self._end(ticket, reason)

    def _end(self, ticket: Ticket, reason: Reason, error: str = "", *, ours: bool = False) -> None:
        """Free its slot, then tell it: whoever is told finds the slot free."""
        with self.wake:
            if ticket in self.waiting:
                self.waiting.remove(ticket)
            for group in [group for group in self.groups if ticket in group.tickets]:
                group.tickets.remove(ticket)
                if not group.tickets:
                    self.groups.remove(group)
            self.writing.pop(ticket.key, None)
        self._next.pop(ticket.key, None)
        self._free(ticket.key)
        ticket.end(reason, error, ours=ours)

    def _free(self, key: int) -> None:
        try:
            self.runner.free(key)
        except Exception:  # a device that is lost: the others are told at their next step
            _LOG.exception("A request could not be freed.")

    def _fail(self, tickets: list[Ticket], error: Exception) -> None:
        """End those that a failure concerns."""
        if not isinstance(error, AffectLensError):
            _LOG.error("The engine failed at a turn.", exc_info=error)
        for ticket in tickets:
            self._end(ticket, "error", f"The engine failed: {error or type(error).__name__}", ours=True)
