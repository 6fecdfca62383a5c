"""A tiny model behind a real socket, engines that are slow or say what they are told, and clients by hand."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import torch
from openai import OpenAI
from torch import Tensor

from affectlens.model import LensModel
from affectlens.steering import Direction, Directions
from affectlens.steering.engines.engine import Engine
from affectlens.steering.engines.request import Load, Request
from affectlens.steering.engines.runner import Runner
from affectlens.steering.engines.together import Together
from affectlens.steering.serving.connections import Host
from affectlens.steering.serving.running import address, bound, hosted
from affectlens.steering.serving.service import Service
from affectlens.steering.serving.settings import Settings
from affectlens.testing import tiny_model

MESSAGES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
TEMPLATE = MESSAGES + "{% if add_generation_prompt %}<assistant>{% endif %}"
NAME = "tiny"
HI = [{"role": "user", "content": "hi"}]


def talking_model() -> LensModel:
    """A tiny model that has a chat template."""
    model = tiny_model("llama")
    model.tokenizer.chat_template = TEMPLATE
    return model


def moods_of(model: LensModel) -> Directions:
    """Strong random directions, so that doses write different texts; trust has no safe dose."""
    rng = np.random.default_rng(0)

    def one(emotion: str, layer: int, safe: float | None = 0.5) -> Direction:
        v = rng.standard_normal(model.d_model)
        return Direction(emotion, f"L{layer}.resid_post", (v / np.linalg.norm(v)).astype(np.float32), 5.0, "random",
                         model.name, model.fingerprint, safe=safe,
                         levels=np.linspace(-3, 3, 101).astype(np.float32))  # fmt: skip

    return Directions([one("joy", 0), one("fear", 1), one("anger", 0), one("trust", 0, None)])


class Slow(Together):
    """Takes its time for each token; the end token is never the likeliest."""

    pause = 0.01

    def step(self, tokens: Mapping[int, int]) -> Mapping[int, Tensor]:
        time.sleep(self.pause)
        return super().step(tokens)


class Scripted(Together):
    """Writes a text that it was given, to everybody."""

    def __init__(self, model: LensModel, text: str) -> None:
        super().__init__(model)
        self.script = [*model.tokenizer(text)["input_ids"], model.tokenizer.eos_token_id]
        self.at: dict[int, int] = {}

    def _says(self, keys: Iterator[int]) -> dict[int, Tensor]:
        out = {}
        for key in keys:
            out[key] = torch.zeros(len(self.model.tokenizer))
            out[key][self.script[self.at.setdefault(key, 0)]] = 60.0
            self.at[key] += 1
        return out

    def read(self, new: Mapping[int, Request]) -> Iterator[Mapping[int, Tensor] | None]:
        for logits in super().read(new):
            yield None if logits is None else self._says(iter(logits))

    def step(self, tokens: Mapping[int, int]) -> Mapping[int, Tensor]:
        return self._says(iter(super().step(tokens)))


@dataclass(frozen=True)
class Site:
    """A server that runs."""

    url: str
    service: Service
    host: Host
    kept: ExitStack  # closes its clients

    @property
    def load(self) -> Load:
        return self.service.engine.load()

    @property
    def place(self) -> tuple[str, int]:
        """Where to connect."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def client(self, **how: Any) -> OpenAI:
        given = {"api_key": "none", "max_retries": 0, "timeout": 60, **how}
        return self.kept.enter_context(OpenAI(base_url=f"{self.url}/v1", **given))

    def post(self, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
        """A request to the served model; ``...`` leaves a field out."""
        own = {"model": self.service.settings.name, "max_tokens": 4, "temperature": 0}
        own |= {"messages": HI} if "chat" in path else {"prompt": "hi"}
        given = {k: v for k, v in (own | body).items() if v is not ...}
        return httpx.post(self.url + path, json=given, timeout=60)

    def stream(self, **body: Any) -> Any:
        """Chunks of a greedy reply to ``hi``, as the official client gives them."""
        given: dict[str, Any] = {"model": NAME, "messages": HI, "temperature": 0, "stream": True} | body
        return self.client().chat.completions.create(**given)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=60)

    def metric(self, name: str, **labels: str) -> float:
        return self.service.counts.registry.get_sample_value(f"affectlens_{name}", labels) or 0.0


@contextmanager
def site(
    model: LensModel,
    *,
    runner: Runner | None = None,
    queue: int = 64,
    send_buffer: int = 0,
    **limits: Any,
) -> Iterator[Site]:
    """The model behind a socket of this machine."""
    settings = Settings(**{"name": NAME, "drain": 10.0, **limits})
    with bound("127.0.0.1", 0) as listener, Engine(runner or Together(model), room=queue) as engine:
        if send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        service = Service(engine, moods_of(model), settings=settings)
        with hosted(service, listener) as host, ExitStack() as kept:
            yield Site(address(listener), service, host, kept)


def soon(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether something is so within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False


def raw_post(body: bytes, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    """A request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def said_by(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    got = b""
    try:
        while part := connection.recv(65536):
            got += part
    except ConnectionError:
        pass
    return got


def streamed(**body: Any) -> bytes:
    """A streamed request as bytes."""
    given = {"model": NAME, "messages": HI, "temperature": 0, "stream": True} | body
    text = json.dumps(given).encode()
    return raw_post(text, f"Content-Length: {len(text)}")
