"""Refusals in OpenAI's form, so that its clients raise the errors that they know."""

import json
import re
from typing import Any, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {
    401: "invalid_api_key", 404: "not_found", 413: "request_too_large", 429: "queue_full", 503: "stopping",
    504: "timeout", 408: "timeout",
}  # fmt: skip
_LOOKED_AT = 20  # errors
_LONGEST = 500  # of a sentence: it may repeat what the client sent


class Refusal(HTTPException):
    """A request that is not done: a status, a sentence, and what it is about."""

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, sentence, headers)
        self.param, self.code = param, code

    @property
    def facts(self) -> dict[str, Any]:
        """The body."""
        status = self.status_code
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        sentence = self.detail if len(self.detail) <= _LONGEST else self.detail[:_LONGEST] + " ..."
        code = self.code or _CODES.get(status)
        return {"error": {"message": sentence, "type": kind, "param": self.param, "code": code}}

    def response(self) -> Response:
        """As it is sent."""
        return Json(self.facts, self.status_code, dict(self.headers or {}))


class Json(Response):
    """A body of JSON; half characters that a client sent come back as question marks."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes.

        Args:
            content: to send.
        """
        return encoded(content)


def encoded(content: Any) -> bytes:
    """JSON in UTF-8.

    Args:
        content: of which it is made.
    """
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


async def on_http_error(_request: Request, error: Exception) -> Response:
    """What a refusal, or an address that does not exist, is answered with.

    Args:
        error: it.
    """
    if isinstance(error, Refusal):
        return error.response()
    error = cast(HTTPException, error)
    said = {
        404: "There is nothing at this address: ask /v1/chat/completions, /v1/completions or /v1/models.",
        405: "This address takes another method: POST for completions, GET for the rest.",
        400: "The body can't be read as JSON.",
    }
    sentence = said.get(error.status_code, str(error.detail))
    return Refusal(error.status_code, sentence, headers=dict(error.headers or {})).response()


async def on_invalid(_request: Request, error: Exception) -> Response:
    """What a body of another form is answered with: the first field that is wrong, and what it should be.

    Args:
        error: what pydantic found.
    """
    error = cast(RequestValidationError, error)
    found = list(error.errors())[:_LOOKED_AT]
    first = max(found, key=lambda one: len(_path(error.body, list(one["loc"])[1:])))  # of several forms the likeliest
    if first["type"] == "json_invalid":
        where = f" at character {first['loc'][-1]}" if len(first["loc"]) > 1 else ""
        return Refusal(400, f"The body is not JSON: {first['ctx']['error']}{where}.").response()
    path = _path(error.body, list(first["loc"])[1:])
    if not path:
        sentence = "The body must be a JSON object, sent with Content-Type: application/json."
        return Refusal(400, sentence).response()
    return Refusal(400, f"{path}: {worded(first)}", param=path).response()


def worded(found: Any) -> str:
    """What pydantic says, as a sentence.

    Args:
        found: one of its errors.
    """
    if found["type"] == "missing":
        return "it is missing."
    text = re.sub(r"^Input should be", "it must be", str(found["msg"]).removeprefix("Value error, "))
    return text[0].lower() + text[1:].rstrip(".") + "."


def _path(body: Any, loc: list[Any]) -> str:
    """``messages[0].content`` of a place in the body; names that pydantic gives to forms are no places."""
    text = ""
    for i, part in enumerate(loc):
        if isinstance(body, dict) and (part in body or i == len(loc) - 1):
            text += f".{part}" if text else str(part)
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int):
            text += f"[{part}]"
            body = body[part] if part < len(body) else None
    return text
