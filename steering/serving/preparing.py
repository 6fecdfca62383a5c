"""What is done for a request before the engine's queue: its plan is made and its prompt is laid out.

Long prompts take seconds, so they have a thread and a tokenizer of their own, and hold up only each other. What is
being prepared counts as waiting, and is dropped once its client has left or its time is over.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from affectlens.model import LensModel
from affectlens.steering.serving.asking import Wanted, wanted
from affectlens.steering.serving.moods import Moods
from affectlens.steering.serving.prompting import Prompts, characters
from affectlens.steering.serving.refusals import Refusal
from affectlens.steering.serving.schemas import Asked
from affectlens.steering.serving.settings import Settings
from affectlens.steering.serving.waiting import Patience, too_late

_LONG = 4  # characters for each token of the context: a longer prompt waits for other long ones
_LEFT = 499  # a status that nobody reads


class Preparing:
    """Lays out prompts, one at a time in each of two threads.

    Args:
        model: whose tokenizer and template are used.
        n_ctx: tokens that prompt and reply may have together.
        settings: the server's.
        moods: makes plans.
    """

    def __init__(self, model: LensModel, n_ctx: int, *, settings: Settings, moods: Moods) -> None:
        self.settings, self.moods, self.n_ctx = settings, moods, n_ctx
        self.short = Prompts(model, n_ctx), ThreadPoolExecutor(1, "affectlens-prompts")
        self.long = Prompts(model, n_ctx).apart(), ThreadPoolExecutor(1, "affectlens-long-prompts")

    async def wanted(self, asked: Asked, patience: Patience, leaving: Callable[[], Awaitable[None]]) -> Wanted:
        """What a body asks for.

        Args:
            asked: the body.
            patience: of the client.
            leaving: returns once the client has left.

        Raises:
            Refusal: what can't be done, or was not done in time.
        """
        prompts, thread = self.long if characters(asked) > _LONG * self.n_ctx else self.short
        do = partial(wanted, asked, settings=self.settings, prompts=prompts, moods=self.moods, patience=patience)
        work = asyncio.get_running_loop().run_in_executor(thread, do)
        left = asyncio.ensure_future(leaving())
        either: set[asyncio.Future[Any]] = {work, left}
        try:
            await asyncio.wait(either, timeout=patience.left, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Refusal(_LEFT, "The client has left.") if left.done() else too_late(patience.seconds)
            return work.result()
        finally:
            left.cancel()
            if not work.done():
                patience.end(Refusal(_LEFT, "Nobody waits any more."))
                work.cancel()

    def close(self) -> None:
        """End the threads; what waits for them is dropped."""
        for _, thread in (self.short, self.long):
            thread.shutdown(wait=False, cancel_futures=True)
