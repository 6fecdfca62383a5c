"""What runs a model for an engine: prompts in, one token each, logits out; in PyTorch, or in llama.cpp."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from affectlens.model import LensModel
from affectlens.steering.engines.request import Request


@runtime_checkable
class Runner(Protocol):
    """A model that writes for several requests at a time, each under a number of its own.

    An engine's one thread calls it, except ``check``, which any thread may call.

    Attributes:
        model: whose tokenizer, chat template and directions are used.
        slots: the most requests at a time.
        n_ctx: tokens that prompt and reply may have together.
        says: what runs the model, in words.
    """

    model: LensModel
    slots: int
    n_ctx: int
    says: str

    def check(self, request: Request) -> None:
        """Raise a :class:`SteerError` for what can't be done here, without running the model."""

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether requests of so many tokens each, replies included, can be held at a time; a single one always can."""
        ...

    def prepare(self, request: Request) -> None:
        """Raise a :class:`SteerError` for a plan that turns out to have no effect; may run the model."""

    def read(self, new: Mapping[int, Request]) -> Iterator[Mapping[int, Tensor] | None]:
        """Take prompts in: None after each part of them, and at last each one's logits ``[d_vocab]``.

        Several may be going on at a time, and a request may be freed meanwhile. What fails concerns these alone.
        """
        ...

    def step(self, tokens: Mapping[int, int]) -> Mapping[int, Tensor]:
        """The logits ``[d_vocab]`` after one more token of each of these requests."""
        ...

    def free(self, key: int) -> None:
        """Forget a request, whether it was read or not."""

    def close(self) -> None:
        """Give back what the runner holds."""
