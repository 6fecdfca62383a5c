"""What every request passes before anything reads it: host, token, the body's kind, size and time; and slow readers.

Nothing larger than the limit is ever kept: bytes are counted as they come. A refusal is sent at once, and what is
still on its way is then thrown away for a moment, so that a client that is still sending gets to read it. What fails
behind it is answered here, and so is counted, and seen by a web page that may ask.
"""

import asyncio
import hmac
import logging
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from affectlens.steering.serving.refusals import Refusal
from affectlens.steering.serving.service import Service

_LOG = logging.getLogger(__name__)
_OPEN = ("/healthz",)  # needs no token
_LINGER = 2.0  # seconds in which the rest of a refused body is thrown away
_CLOSE = (b"connection", b"close")
_JSON = re.compile(rb"application/(?:[^;\s]+\+)?json\s*(?:;|$)", re.IGNORECASE)


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it.

        Args:
            scope: of ASGI.
            receive: of ASGI.
            send: of ASGI.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(self.service, scope, receive, send)
        refusal = self._refused(scope, exchange)
        respond = refusal.response() if refusal else self.app
        try:
            await respond(scope, exchange.receive, exchange.send)
        except Exception:
            _LOG.exception("The server failed at a request to %s.", scope["path"])
            if exchange.began:  # the client must not take it for a whole answer
                exchange.abort()
                return
            failure = Refusal(500, "The server failed at this request; its log says where.")
            await failure.response()(scope, exchange.receive, exchange.send)

    def _refused(self, scope: Scope, exchange: "Exchange") -> Refusal | None:
        settings, headers = self.service.settings, exchange.headers
        host = re.sub(r":[0-9]+$", "", headers.get(b"host", b"").decode("latin-1").lower())
        if settings.hosts and host not in settings.hosts:
            return Refusal(403, "This server is for its own machine: ask it by 127.0.0.1, or start it with a token.")
        if settings.token is not None and scope["path"] not in _OPEN:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            right = hmac.compare_digest(given.strip(), settings.token.encode())
            if kind.lower() != b"bearer" or not right:
                return Refusal(401, "The token is missing or wrong: send Authorization: Bearer TOKEN.",
                               headers={"WWW-Authenticate": "Bearer"})  # fmt: skip
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > settings.max_body:
            return exchange.too_large()
        if scope["method"] == "POST" and not _JSON.match(headers.get(b"content-type", b"").strip()):
            # browsers let any page send the other kinds here without asking
            return Refusal(415, "Send the body as JSON, with Content-Type: application/json.")
        return None


class Exchange:
    """One request's body and its answer."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self.service, self.scope = service, scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive, self._send = receive, send
        self._deadline = asyncio.get_running_loop().time() + service.settings.body_patience
        self._came = 0
        self._read = self.headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in self.headers
        self._gone = False
        self.began = False  # to answer

    def too_large(self) -> Refusal:
        """The refusal of a body beyond the limit."""
        return Refusal(413, f"The body is larger than {self.service.settings.max_body} bytes: shorten it.")

    async def receive(self) -> Message:
        """The next of the body, as far as it may go; once it was read, whatever comes.

        Raises:
            Refusal: it is too large, or takes too long.
        """
        if self._read:
            message = await self._receive()
            self._gone |= message["type"] == "http.disconnect"
            return message
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            patience = self.service.settings.body_patience
            raise Refusal(408, f"The body did not come within {patience:g} s: send it at once.") from None
        self._took(message)
        if self._came > self.service.settings.max_body:
            raise self.too_large()
        return message

    async def send(self, message: Message) -> None:
        """Send, but wait for a client that does not read only as long as for a reply.

        Args:
            message: of ASGI.
        """
        if message["type"] == "http.response.start":
            self.began = True
            status = 499 if self._gone else message["status"]
            self.service.counts.request(self.scope["path"], status)
            if not self._read:
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
        elif not self._read and not message.get("more_body"):
            await self._patiently({**message, "more_body": True})
            await self._throw_away()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._patiently(message)

    def abort(self) -> None:
        """Cut the connection, where the server can."""
        abort: Any = self.scope.get("state", {}).get("abort")
        if abort is not None:
            abort()

    async def _patiently(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self.service.settings.timeout):
                await self._send(message)
        except TimeoutError:
            self.abort()
            await asyncio.sleep(0)  # the connection is lost by now, and what is sent goes nowhere

    async def _throw_away(self) -> None:
        most = self._came + 8 * self.service.settings.max_body
        try:
            async with asyncio.timeout(_LINGER):
                while not self._read and self._came < most:
                    self._took(await self._receive())
        except TimeoutError:
            pass
        self._read = True

    def _took(self, message: Message) -> None:
        self._came += len(message.get("body", b""))
        self._gone |= message["type"] == "http.disconnect"
        self._read = self._gone or not message.get("more_body", False)
