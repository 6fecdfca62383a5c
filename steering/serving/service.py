"""What the addresses of a server share: the engine, the plans, the counts, and what is running."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from affectlens.errors import AffectLensError
from affectlens.probing.probes import Probes
from affectlens.steering.directions import Directions
from affectlens.steering.engines.engine import Busy, Closed, Engine
from affectlens.steering.serving.counting import Counts
from affectlens.steering.serving.flowing import Flow
from affectlens.steering.serving.moods import Moods
from affectlens.steering.serving.preparing import Preparing
from affectlens.steering.serving.refusals import Refusal
from affectlens.steering.serving.schemas import Asked
from affectlens.steering.serving.settings import Settings
from affectlens.steering.serving.waiting import Patience

_SOON, _LATER = {"Retry-After": "1"}, {"Retry-After": "10"}


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
        self.preparing = Preparing(model, engine.runner.n_ctx, settings=settings, moods=self.moods)
        self.counts = Counts(engine.load)
        self.fingerprint = model.fingerprint
        self.stopping = False
        self.running: set[Flow] = set()
        self.prepared: set[Patience] = set()  # those whose requests are being prepared

    @property
    def trouble(self) -> str:
        """Why it takes no requests; empty where it does."""
        return "stopping" if self.stopping else "" if self.engine.alive else "the engine has stopped"

    async def begin(self, asked: Asked, leaving: Callable[[], Awaitable[None]]) -> Flow:
        """Take a request; its patience begins now.

        Args:
            asked: its body.
            leaving: returns once the client has left.

        Raises:
            Refusal: what can't be done, or not now.
        """
        self._check_open()
        self._check_room()
        patience = Patience(self.settings.timeout)
        self.prepared.add(patience)
        try:
            what = await self.preparing.wanted(asked, patience, leaving)
            self._check_open()
            flow = Flow(self.engine, what, self.counts)
        except Busy as error:
            raise Refusal(429, str(error), headers=_SOON) from None
        except Closed as error:
            raise Refusal(503, str(error), headers=_LATER) from None
        except AffectLensError as error:
            raise Refusal(400, str(error)) from None
        finally:
            self.prepared.discard(patience)
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
        for patience in list(self.prepared):
            patience.end(_stopping())
        for flow in list(self.running):
            with suppress(RuntimeError):
                flow.cancel(stopping=True)

    def close(self) -> None:
        """End its threads; the engine is closed by whoever made it."""
        self.cut()
        self.preparing.close()

    def _check_open(self) -> None:
        if self.stopping:
            raise _stopping()

    def _check_room(self) -> None:
        """What is being prepared takes the place that it will have in the queue, or a slot."""
        load, n = self.engine.load(), len(self.prepared)
        waiting = n + load.waiting
        if load.waiting >= load.room or waiting + load.active >= load.room + load.slots:
            raise Refusal(429, f"{waiting} requests are waiting, and there is room for no more: try again soon.",
                          headers=_SOON)  # fmt: skip


def _stopping() -> Refusal:
    return Refusal(503, "The server is stopping: ask again once it is back.", headers=_LATER)
