"""uvicorn, with time-outs for those that connect and say nothing, and a stop in two steps.

On the first Ctrl-C (or SIGTERM) nothing new is taken, ``/healthz`` says so, and running replies are ended for as long
as ``drain`` allows; then connections are closed. A second one ends replies at once.
"""

import asyncio
import socket
import time
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from affectlens.steering.serving.app import build_app
from affectlens.steering.serving.service import Service

_KEEP_ALIVE = 5  # seconds between two requests of a connection
_HEAD = 16 * 1024  # bytes of a request's head
_SPARE = 512  # connections beyond those that the engine has room for: uvicorn counts those that ask for nothing too
_CLOSING = 3  # seconds in which connections must be closed at the end


class Line(H11Protocol):
    """A connection whose requests' heads must come in time, and that can be cut."""

    head_patience = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {**self.app_state, "abort": self.cut}
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head.

        Args:
            transport: of asyncio.
        """
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes.

        Args:
            data: that came.
        """
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting.

        Args:
            exc: of asyncio.
        """
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP; in the middle of an exchange nothing can be said, and the line is cut.

        Args:
            msg: what to say.
        """
        if self.conn.our_state is h11.SEND_RESPONSE and self.cycle is not None:
            self.cycle.disconnected = True  # what was to answer sends nothing any more
            self.cycle.message_event.set()
        elif self.conn.our_state is not h11.IDLE:
            self.cut()
            return
        super().send_400_response(msg)

    def cut(self) -> None:
        """Close it now, whatever is still to be sent."""
        if self.transport is not None:
            self.transport.abort()

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            if self._head_timer is not None:
                self._head_timer.cancel()
            self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_patience, self.cut)


class Host(uvicorn.Server):
    """A server of one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        load = service.engine.load()
        most = 2 * (load.slots + load.room) + _SPARE
        patience = {"head_patience": service.settings.head_patience}
        super().__init__(uvicorn.Config(
            build_app(service), http=type("Line", (Line,), patience), loop="asyncio", ws="none", lifespan="off",
            interface="asgi3", log_config=None, log_level="error",  # what is not HTTP is no news
            access_log=False, proxy_headers=False, server_header=False, limit_concurrency=most,
            timeout_keep_alive=_KEEP_ALIVE, timeout_graceful_shutdown=2 * _CLOSING,
            h11_max_incomplete_event_size=_HEAD,
        ))  # fmt: skip
        self._deadline: float | None = None

    def begin_stop(self) -> None:
        """Take nothing new, and end once running replies have; from any thread."""
        self.service.stop()
        if self._deadline is None:
            self._deadline = time.monotonic() + self.service.settings.drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 (uvicorn calls it so)
        """What a signal does.

        Args:
            sig: its number.
            frame: where it came.
        """
        if self._deadline is not None:
            self._deadline = 0.0
        self.begin_stop()

    async def on_tick(self, counter: int) -> bool:
        """Whether it is over; uvicorn asks ten times a second.

        Args:
            counter: of these.
        """
        over = await super().on_tick(counter)
        if self._deadline is None:
            return over
        if self.service.running and time.monotonic() < self._deadline:
            return over
        self.service.cut()
        return True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the connections; what still hangs after some seconds is cut.

        Args:
            sockets: that it listens at.
        """
        cutting = asyncio.get_running_loop().call_later(_CLOSING, self._cut)
        await super().shutdown(sockets)
        cutting.cancel()

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, Line):
                connection.cut()
