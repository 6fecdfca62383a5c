"""What the addresses of a server share: the engine, the plans, the counts, and what is running."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from affectlens.errors import AffectLensError
from affectlens.probing.probes import Probes
from affectlens.steering.directions import Directions
from affectlens.steering.engines.engine import Busy, Engine
from affectlens.steering.serving.asking import wanted
from affectlens.steering.serving.counting import Counts
from affectlens.steering.serving.flowing import Flow
from affectlens.steering.serving.moods import Moods
from affectlens.steering.serving.prompting import Prompts
from affectlens.steering.serving.refusals import Refusal
from affectlens.steering.serving.schemas import Asked
from affectlens.steering.serving.settings import Settings

_SOON = {"Retry-After": "1"}


class Service:
    """One model behind one engine.

    Args:
        engine: that writes.
        directions: by which it is steered.
        settings: names and limits.
        probes: for gates and loops that ask a probe: a set, or its file.

    Raises:
        SteerError: another model's directions, or default doses that can't be.
    """

    def __init__(
        self,
        engine: Engine,
        directions: Directions,
        *,
        settings: Settings,
        probes: Probes | str | Path | None = None,
    ) -> None:
        model = engine.runner.model
        self.engine, self.settings = engine, settings
        self.moods = Moods(model, directions, probes=probes, default=settings.doses)
        self.prompts = Prompts(model, engine.runner.n_ctx)
        self.counts = Counts(engine.load)
        self.fingerprint = model.fingerprint
        self.stopping = False
        self.running: set[Flow] = set()

    async def begin(self, asked: Asked) -> Flow:
        """Take a request.

        Args:
            asked: its body.

        Raises:
            Refusal: what can't be done, or not now.
        """
        self._check_open()
        parts: Mapping[str, Any] = {"settings": self.settings, "prompts": self.prompts, "moods": self.moods}
        what = await asyncio.to_thread(wanted, asked, **parts)
        self._check_open()
        try:
            flow = Flow(self.engine, what, self.counts)
        except Busy as error:
            raise Refusal(429, str(error), headers=_SOON) from None
        except AffectLensError as error:
            raise Refusal(400, str(error)) from None
        self.running.add(flow)
        return flow

    def end(self, flow: Flow) -> None:
        """A reply was sent, or can't be.

        Args:
            flow: it.
        """
        flow.cancel()
        self.running.discard(flow)

    def stop(self) -> None:
        """Take nothing new."""
        self.stopping = True

    def cut(self) -> None:
        """End what is still running."""
        for flow in list(self.running):
            with suppress(RuntimeError):
                flow.cancel(stopping=True)

    def _check_open(self) -> None:
        if self.stopping:
            raise Refusal(503, "The server is stopping: ask again once it is back.", headers={"Retry-After": "10"})
