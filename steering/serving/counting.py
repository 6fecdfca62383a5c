"""What a server counts, in a registry of its own."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from affectlens.steering.engines.request import Load

PLACES = ("/", "/healthz", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions")
_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_EACH = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Counts:
    """The metrics of one server.

    Args:
        load: what its engine is doing.
    """

    def __init__(self, load: Callable[[], Load]) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "affectlens"}
        self.requests = Counter("requests", "Requests by address and status.", ["endpoint", "status"], **own)
        self.prompt = Counter("prompt_tokens", "Tokens of prompts that were taken.", **own)
        self.written = Counter("written_tokens", "Tokens that were written.", **own)
        self.ended = Counter("replies", "Replies by how they ended.", ["reason"], **own)
        self.steered = Counter("steered_requests", "Requests by the emotions that acted.", ["emotion"], **own)
        self.first = Histogram("first_token_seconds", "Until a reply's first text.", buckets=_FIRST, **own)
        self.each = Histogram("token_seconds", "A token after the first, by reply.", buckets=_EACH, **own)
        Gauge("active_requests", "Being read or written.", **own).set_function(lambda: load().active)
        Gauge("waiting_requests", "In the queue.", **own).set_function(lambda: load().waiting)

    def request(self, path: str, status: int) -> None:
        """Count an answer; addresses that don't exist are one.

        Args:
            path: what was asked.
            status: what was answered.
        """
        place = path if path in PLACES else "/v1/models/" if path.startswith("/v1/models/") else "other"
        self.requests.labels(place, str(status)).inc()

    def text(self) -> bytes:
        """All of them, in Prometheus' format."""
        return generate_latest(self.registry)
