"""The model itself, in PyTorch, for many requests at once: one forward pass a token, whatever each one's doses are.

Prompts are read in parts, apart from the replies that are being written, so that a long one holds nobody up for long;
then their rows join the batch that writes. Nothing that one row does touches another: masks keep padding out, and
every operation of a decoder is by row.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.applying import prove
from affectlens.steering.engines.request import Request
from affectlens.steering.engines.rows import Steered, steering_rows
from affectlens.steering.engines.storage import Storage, last_logits
from affectlens.steering.engines.suiting import context, expect_rows

_CHUNK = 512  # tokens of prompts that are read at a time, padding included
_USUAL = 2048  # tokens that a slot holds on the average, so that long requests don't take all memory


class Batch:
    """Requests that are one batch: their rows, in order."""

    def __init__(self, model: LensModel) -> None:
        self.model = model
        self.storage = Storage()
        self.keys: list[int] = []
        self.steered: dict[int, Steered | None] = {}
        self._accepts = set(inspect.signature(model.hf.forward).parameters)

    def run(self, ids: Tensor, real: Tensor) -> dict[int, Tensor]:
        """The logits after the next columns ``[row, n]``, by request.

        Args:
            ids: their tokens.
            real: 1 where a token is one, 0 at padding.
        """
        storage = self.storage
        with torch.inference_mode():
            storage.expect_room(ids.shape[1], self.model.n_ctx)
        storage.mask = torch.cat((storage.mask, real), dim=1) if len(storage.mask) else real
        positions = storage.positions(ids.shape[1])
        rows = [self.steered[key] for key in self.keys]
        for row, places in zip(rows, positions, strict=True):
            if row is not None:
                row.place(places)
        with self.model.lock, torch.inference_mode(), steering_rows(self.model, rows):
            logits = last_logits(self.model, storage, ids, self._accepts)
        return dict(zip(self.keys, logits, strict=True))

    def join(self, other: "Batch") -> None:
        """Take another batch's requests."""
        with torch.inference_mode():
            self.storage.join(other.storage)
        self.keys += other.keys
        self.steered |= other.steered

    def drop(self, key: int) -> None:
        """Forget a request, if it is here."""
        if key not in self.keys:
            return
        row = self.keys.index(key)
        with torch.inference_mode():
            self.storage.drop(row)
        self.keys[row] = self.keys[-1]
        self.keys.pop()
        del self.steered[key]


class Together:
    """A :class:`Runner` in PyTorch; requests with different plans share every forward pass."""

    def __init__(self, model: LensModel, slots: int = 16) -> None:
        if slots < 1:
            raise SteerError(f"slots is {slots}: an engine needs one at least.")
        self.model, self.slots, self.n_ctx = model, slots, context(model)
        self.says = f"PyTorch on {model.device}, up to {slots} requests in one pass"
        self.writing = Batch(model)
        expect_rows(self)

    def check(self, request: Request) -> None:
        """Raise a :class:`SteerError` for another model's plan, or a token that the model does not have.

        Args:
            request: that is asked for.
        """
        known = self.model.hf.get_input_embeddings().weight.shape[0]
        if not 0 <= min(request.ids) <= max(request.ids) < known:
            raise SteerError(f"The prompt has tokens that {self.model.name} lacks: its ids are 0 to {known - 1}.")
        if request.plan is not None:
            request.plan.expect(self.model)

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether requests can be held at a time: each has as many columns as the longest.

        Args:
            tokens: of each, its reply included.
        """
        return len(tokens) * max(tokens) <= self.slots * min(self.n_ctx, _USUAL)

    def prepare(self, request: Request) -> None:
        """Prove that the plan does something, each plan once, and that its gates can be read in time.

        Args:
            request: that will be read.

        Raises:
            SteerError: a plan that changes no logit, or a gate behind what it opens.
        """
        if request.plan is not None and not request.plan.is_nothing:
            with self.model.lock:
                prove(self.model, request.plan)
            Steered(self.model, request.plan, len(request.ids))

    def read(self, new: Mapping[int, Request]) -> Iterator[Mapping[int, Tensor] | None]:
        """Take prompts in, some columns at a time.

        Args:
            new: by number.
        """
        batch = Batch(self.model)
        for key, request in new.items():
            plan = None if request.plan is None or request.plan.is_nothing else request.plan
            batch.keys.append(key)
            batch.steered[key] = Steered(self.model, plan, len(request.ids)) if plan else None
        width = max(len(request.ids) for request in new.values())
        ids = torch.zeros(len(new), width, dtype=torch.long)
        real = torch.zeros_like(ids)
        for row, request in enumerate(new.values()):
            ids[row, width - len(request.ids) :] = torch.tensor(request.ids)
            real[row, width - len(request.ids) :] = 1
        at_a_time = max(_CHUNK // len(new), 1)
        for at in range(0, width, at_a_time):
            logits = batch.run(ids[:, at : at + at_a_time], real[:, at : at + at_a_time])
            if at + at_a_time < width:
                yield None
        self.writing.join(batch)
        yield logits

    def step(self, tokens: Mapping[int, int]) -> Mapping[int, Tensor]:
        """The logits after one more token of each request that is being written.

        Args:
            tokens: by number, one of each request.

        Raises:
            SteerError: not one of each.
        """
        batch = self.writing
        if set(tokens) != set(batch.keys):
            raise SteerError("A step takes one token of each request that is being written: free those that ended.")
        ids = torch.tensor([[tokens[key]] for key in batch.keys])
        return batch.run(ids, torch.ones_like(ids))

    def free(self, key: int) -> None:
        """Forget a request.

        Args:
            key: its number.
        """
        self.writing.drop(key)

    def close(self) -> None:
        """Forget all of them."""
        self.writing = Batch(self.model)
