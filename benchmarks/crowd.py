"""Clients of a server that know what they should be told: proper ones, and every other kind."""

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

_PLACE = "/v1/chat/completions"
_WAIT = 0.3  # seconds until who was refused goes on


class Crowd:
    """Clients that know what they should be told."""

    def __init__(self, url: str, place: tuple[str, int]) -> None:
        self.url, self.place = url, place
        self.name, self.emotions = (httpx.get(f"{url}/v1/models").json()["data"][0][k] for k in ("id", "emotions"))
        self.asked = [self._body(self.emotions, i) for i in range(24)]
        self.right = [self._text(httpx.post(url + _PLACE, json=body, timeout=120).json()) for body in self.asked]
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.over = threading.Event()

    def _body(self, emotions: list[str], i: int) -> dict[str, Any]:
        emotion = {emotions[i % len(emotions)]: round(-1.5 + 0.13 * i, 2)}
        return {"model": self.name, "messages": [{"role": "user", "content": f"{i} things"}], "seed": i,
                "temperature": 0.7 * (i % 2), "max_tokens": 8 + 2 * i, "emotion": emotion if i % 5 else {}}  # fmt: skip

    @staticmethod
    def _text(reply: dict[str, Any]) -> str:
        return str(reply["choices"][0]["message"]["content"])

    def work(self, seed: int) -> None:
        """Be one client after another until it is over."""
        luck = random.Random(seed)
        kinds: list[tuple[Callable[[random.Random], None], int]] = [
            (self.whole, 5), (self.streamed, 5), (self.leaves, 4), (self.impatient, 3), (self.garbage, 2),
            (self.oversize, 1), (self.endless, 1), (self.half, 2), (self.mistaken, 2), (self.lazy, 1), (self.dosed, 2),
        ]  # fmt: skip
        while not self.over.is_set():
            kind = luck.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
            try:
                kind(luck)
                self.done[kind.__name__] += 1
            except Exception as error:  # any is a finding
                self.wrong.append(f"{kind.__name__}: {type(error).__name__}: {error!s:.200}")

    def whole(self, luck: random.Random) -> None:
        """Ask, and wait."""
        i = luck.randrange(len(self.asked))
        response = self._until_there_is_room(self.asked[i])
        if response is None:
            return
        if response.status_code != 200 or self._text(response.json()) != self.right[i]:
            self.wrong.append(f"whole {i}: {response.status_code} {response.text[:200]}")
        self.done["replies"] += 1

    def _until_there_is_room(self, body: dict[str, Any]) -> httpx.Response | None:
        """Ask again until it is not refused for others' sake; None if it is over before that."""
        while not self.over.is_set():
            response = httpx.post(self.url + _PLACE, json=body, timeout=120)
            if response.status_code != 429:
                return response
            self._refused()
        return None

    def _refused(self) -> None:
        """Wait a little, as who is told that the queue is full does."""
        self.done["429"] += 1
        self.over.wait(_WAIT)

    def streamed(self, luck: random.Random, *, leave: int = -1) -> None:
        """Ask, and read as it comes."""
        i = luck.randrange(len(self.asked))
        text, last = "", ""
        with httpx.stream("POST", self.url + _PLACE, json=self.asked[i] | {"stream": True}, timeout=120) as response:
            if response.status_code == 429:
                self._refused()
                return
            for line in response.iter_lines():
                last = line or last
                if line.startswith("data: {"):
                    choices = json.loads(line[6:])["choices"]
                    text += choices[0]["delta"].get("content", "") if choices else ""
                    leave -= 1
                if leave == 0:
                    return
        if text != self.right[i] or last != "data: [DONE]":
            self.wrong.append(f"streamed {i}: {text!r} {last!r}")
        self.done["replies"] += 1

    def leaves(self, luck: random.Random) -> None:
        """Leave in the middle of a reply."""
        self.streamed(luck, leave=luck.randint(1, 8))

    def impatient(self, luck: random.Random) -> None:
        """Leave before a reply, sometimes without a farewell."""
        body = json.dumps(luck.choice(self.asked) | {"max_tokens": 500}).encode()
        with socket.create_connection(self.place) as line:
            line.sendall(self._head(f"Content-Length: {len(body)}") + body)
            time.sleep(luck.random() * 0.1)
            if luck.random() < 0.5:  # a reset
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    def garbage(self, luck: random.Random) -> None:
        """Say what is not HTTP, or not JSON."""
        junk = luck.randbytes(luck.randint(1, 3000))
        head = luck.choice([b"", b"GET / HTTP/1.1\r\n", self._head(f"Content-Length: {len(junk)}"),
                            self._head("Transfer-Encoding: chunked")])  # fmt: skip
        with socket.create_connection(self.place) as line:
            line.settimeout(0.3)
            self._say(line, head + junk)

    def oversize(self, luck: random.Random) -> None:
        """Send more than may be."""
        body = b'{"prompt": "' + b"x" * luck.randint(1_100_000, 3_000_000) + b'"}'
        response = httpx.post(f"{self.url}/v1/completions", content=body, timeout=60,
                              headers={"content-type": "application/json"})  # fmt: skip
        if response.status_code != 413:
            self.wrong.append(f"oversize: {response.status_code}")

    def endless(self, _luck: random.Random) -> None:
        """Send without an end."""
        with socket.create_connection(self.place) as line:
            line.settimeout(5)
            self._say(line, self._head("Transfer-Encoding: chunked"), read=False)
            for _ in range(200):
                if not self._say(line, b"4e20\r\n" + b"x" * 20_000 + b"\r\n", read=False):
                    return

    def half(self, luck: random.Random) -> None:
        """Send half a request, and go."""
        body = json.dumps(luck.choice(self.asked)).encode()
        whole = self._head(f"Content-Length: {len(body)}") + body
        with socket.create_connection(self.place) as line:
            self._say(line, whole[: luck.randrange(len(whole))], read=False)
            time.sleep(luck.random() * 0.05)

    def mistaken(self, luck: random.Random) -> None:
        """Ask for what can't be."""
        tiny = {"emotion": {self.emotions[0]: 1e-12}}  # makes a plan that only the engine refuses
        wrong = luck.choice([{"emotion": {"hope": 1}}, {"emotion": 3}, {"n": 2}, {"model": "x"}, {"messages": []},
                             tiny, tiny])  # fmt: skip
        status = httpx.post(self.url + _PLACE, json=luck.choice(self.asked) | wrong, timeout=60).status_code
        if status == 429:
            self._refused()
        elif status != (404 if "model" in wrong else 400):
            self.wrong.append(f"mistaken {wrong}: {status}")

    def dosed(self, luck: random.Random) -> None:
        """Ask for a dose that nobody asked for before: no plan that is kept helps."""
        emotion = {luck.choice(self.emotions): round(luck.uniform(0.05, 1.0), 9)}
        body = luck.choice(self.asked) | {"max_tokens": 4, "emotion": emotion}
        response = self._until_there_is_room(body)
        if response is None:
            return
        if response.status_code != 200 or response.json()["emotion"]["doses"] != emotion:
            self.wrong.append(f"dosed {emotion}: {response.status_code} {response.text[:200]}")
        self.done["replies"] += 1

    def lazy(self, luck: random.Random) -> None:
        """Ask for a stream, and hardly read it."""
        body = json.dumps(luck.choice(self.asked) | {"stream": True, "max_tokens": 300}).encode()
        with socket.create_connection(self.place) as line:
            line.sendall(self._head(f"Content-Length: {len(body)}") + body)
            for _ in range(5):
                time.sleep(luck.random() * 0.2)
                line.recv(50)

    @staticmethod
    def _head(*headers: str) -> bytes:
        lines = [f"POST {_PLACE} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    @staticmethod
    def _say(line: socket.socket, words: bytes, *, read: bool = True) -> bool:
        """Whether the other side still listens."""
        try:
            line.sendall(words)
            if read:
                line.recv(4096)
        except OSError:
            return False
        return True
