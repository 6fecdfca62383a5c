"""A reply on its way from the engine's thread to a socket; the thread never waits for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from affectlens.steering.engines.engine import Engine
from affectlens.steering.engines.request import End, Piece, Reason
from affectlens.steering.serving.asking import Wanted
from affectlens.steering.serving.counting import Counts

_GRACE = 5.0  # seconds beyond a request's patience in which the engine must have said that it ended


class Flow:
    """One reply. What the engine tells is kept until it is read; there is no more of it than tokens were asked for.

    Args:
        engine: that writes.
        wanted: what.
        counts: where it is counted.

    Raises:
        Busy: the engine's queue is full.
        AffectLensError: as for :meth:`Engine.submit`.
    """

    def __init__(self, engine: Engine, wanted: Wanted, counts: Counts) -> None:
        self.wanted, self.counts = wanted, counts
        self.end: End | None = None
        self._stopping = False
        self._began, self._first, self._last = time.monotonic(), 0.0, 0.0
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[Piece | End] = asyncio.Queue()
        self.ticket = engine.submit(wanted.request, self._tell)
        counts.prompt.inc(len(wanted.request.ids))
        for emotion in wanted.steering.emotions:
            counts.steered.labels(emotion).inc()

    def _tell(self, event: Piece | End) -> None:
        self._last = time.monotonic()
        self._first = self._first or self._last
        with suppress(RuntimeError):  # the server has gone
            self._loop.call_soon_threadsafe(self._told.put_nowait, event)

    def cancel(self, *, stopping: bool = False) -> None:
        """Nobody reads any more, or the server must end.

        Args:
            stopping: it is the server.
        """
        self._stopping |= stopping
        self.ticket.cancel()

    @property
    def reason(self) -> Reason | str:
        """How it ended; ``stopping`` where the server cut it."""
        cut = self._stopping and self.end is not None and self.end.reason == "cancelled"
        return "stopping" if cut else self.end.reason if self.end else ""

    async def pieces(self) -> AsyncIterator[str]:
        """The text as it comes; afterwards :attr:`end` says how it ended."""
        deadline = self._loop.time() + self.wanted.request.patience + _GRACE
        try:
            while self.end is None:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await self._told.get()
                except TimeoutError:
                    event = End("timeout", len(self.ticket.ids))
                if isinstance(event, End):
                    self.end = event
                else:
                    yield event.text
        finally:
            self.ticket.cancel()
            self._count()

    def _count(self) -> None:
        written = self.end.tokens if self.end else len(self.ticket.ids)
        self.counts.written.inc(written)
        self.counts.ended.labels(self.reason or "cancelled").inc()
        if written:
            self.counts.first.observe(self._first - self._began)
            if written > 1 and self.end is not None:
                self.counts.each.observe((self._last - self._first) / (written - 1))
