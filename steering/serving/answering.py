"""Replies in OpenAI's form: whole, and in pieces."""

import secrets
import time
from typing import Any

from affectlens.steering.serving.flowing import Flow
from affectlens.steering.serving.refusals import Refusal
from affectlens.steering.serving.service import Service
from affectlens.steering.serving.waiting import too_late


class Answer:
    """What is said of one reply.

    Args:
        service: that writes it.
        flow: the reply.
        chat: of a conversation; otherwise of a text that is gone on with.
    """

    def __init__(self, service: Service, flow: Flow, *, chat: bool) -> None:
        self.flow, self.chat, self.timeout = flow, chat, service.settings.timeout
        self._frame = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}", "created": int(time.time()),
            "model": service.settings.name, "system_fingerprint": service.fingerprint,
        }  # fmt: skip
        self.emotion = flow.wanted.steering.facts

    def whole(self, text: str) -> dict[str, Any]:
        """The body of a reply that is over.

        Args:
            text: all of it.
        """
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": self._finish}
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._frame, "object": kind, "choices": [choice], "usage": self.usage, "emotion": self.emotion}

    def opening(self) -> dict[str, Any]:
        """The first piece: whose turn it is, and how it is steered."""
        return self.piece("", role="assistant") | {"emotion": self.emotion}

    def piece(self, text: str, *, role: str | None = None) -> dict[str, Any]:
        """A piece.

        Args:
            text: of it.
            role: whose turn it is, in the first.
        """
        delta = {"delta": ({"role": role} if role else {}) | {"content": text}} if self.chat else {"text": text}
        return self._chunk([{"index": 0, **delta, "logprobs": None, "finish_reason": None}])

    def last(self) -> dict[str, Any]:
        """The last piece: why it ended."""
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        return self._chunk([{"index": 0, **said, "logprobs": None, "finish_reason": self._finish}])

    def counted(self) -> dict[str, Any]:
        """What it took, after the last piece."""
        return self._chunk([]) | {"usage": self.usage}

    @property
    def usage(self) -> dict[str, int]:
        """Tokens."""
        prompt, written = len(self.flow.wanted.request.ids), self.flow.end.tokens if self.flow.end else 0
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    @property
    def failure(self) -> Refusal | None:
        """Why there is no reply, if there is none."""
        reason, end = self.flow.reason, self.flow.end
        if reason == "timeout":
            return too_late(self.timeout)
        if reason in ("stopping", "cancelled"):
            return Refusal(503, "The server stopped before the reply was over.", headers={"Retry-After": "10"})
        if reason == "error" and end is not None:
            return Refusal(500 if end.ours else 400, end.error, code=None if end.ours else "steering_failed")
        return None

    @property
    def _finish(self) -> str:
        return "length" if self.flow.reason == "length" else "stop"

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._frame, "object": kind, "choices": choices}
