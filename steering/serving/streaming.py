"""Replies to sockets: whole, or as server-sent events; whoever leaves stops the writing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from affectlens.steering.serving.answering import Answer
from affectlens.steering.serving.refusals import Json, encoded
from affectlens.steering.serving.service import Service


class Reply(Response):
    """Sends an answer once it is over."""

    def __init__(self, service: Service, answer: Answer) -> None:
        super().__init__()
        self.service, self.answer = service, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write, and send.

        Args:
            scope: of ASGI.
            receive: of ASGI.
            send: of ASGI.
        """
        flow = self.answer.flow
        leaving = asyncio.create_task(_watch(receive, self.answer))
        try:
            text = "".join([piece async for piece in flow.pieces()])
        finally:
            leaving.cancel()
            self.service.end(flow)
        failure = self.answer.failure
        response = failure.response() if failure else Json(self.answer.whole(text))
        await response(scope, receive, send)


class Stream(Reply):
    """Sends an answer piece by piece.

    Args:
        service: that writes it.
        answer: what is said.
        usage: end with what it took.
    """

    def __init__(self, service: Service, answer: Answer, *, usage: bool) -> None:
        super().__init__(service, answer)
        self.usage = usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI calls it so)
        """Write, and send meanwhile.

        Args:
            scope: of ASGI.
            receive: of ASGI.
            send: of ASGI.
        """
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache",
                   "x-accel-buffering": "no"}  # fmt: skip
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        leaving = asyncio.create_task(_watch(receive, self.answer))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            async for event in self._events():
                data = event if isinstance(event, bytes) else encoded(event)
                await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leaving.cancel()
            self.service.end(self.answer.flow)

    async def _events(self) -> AsyncIterator[dict[str, Any] | bytes]:
        answer, blank = self.answer, {"usage": None} if self.usage else {}
        yield answer.opening() | blank
        async for text in answer.flow.pieces():
            yield answer.piece(text) | blank
        if (failure := answer.failure) is not None:
            yield failure.facts
            return
        yield answer.last() | blank
        if self.usage:
            yield answer.counted()
        yield b"[DONE]"


async def left(receive: Receive) -> None:
    """Returns once the client has left.

    Args:
        receive: of ASGI.
    """
    while (await receive())["type"] != "http.disconnect":
        pass


async def _watch(receive: Receive, answer: Answer) -> None:
    """Cancel the writing once the client leaves."""
    await left(receive)
    answer.flow.cancel()
