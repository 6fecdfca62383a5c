"""A model's own GGUF file in llama.cpp, for several requests at once: a :class:`Runner`.

A control vector holds for a whole pass, so requests to which the same is added at this token share one, and others get
one each. Where a plan begins or ends at the reply (:mod:`affectlens.steering.timing`), the prompt's last token, which
chooses the reply's first, is a pass of its own. The weights are those of the file, dequantised as llama.cpp does it;
the model in PyTorch lends its tokenizer and says whose directions fit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.engines.llama_course import Course, Push, check_plan
from affectlens.steering.engines.llama_matching import match
from affectlens.steering.engines.llama_native import CHUNK, Native, Token
from affectlens.steering.engines.request import Request

MOST_SLOTS = 256  # of llama.cpp
_N_CTX = 2048  # tokens a request by default: all slots' cells are held from the start
_MEMORY = 2**30  # bytes of keys and values, where a model's own context is wanted


def room_for(model: LensModel, slots: int) -> int:
    """Tokens that each of a few requests may have: the model's own context, as far as a GiB of keys and values goes.

    Args:
        model: whose sizes are meant.
        slots: the most requests at a time.
    """
    config = model.hf.config.get_text_config()
    heads = int(getattr(config, "num_key_value_heads", 0) or model.n_heads)
    size = int(getattr(config, "head_dim", 0) or model.d_model // max(model.n_heads, 1))
    cell = 2 * 4 * model.n_layers * (heads * size or model.d_model)  # a key and a value in float32, by layer
    return min(model.n_ctx, max(_N_CTX, _MEMORY // (cell * slots)))


@dataclass(eq=False)
class Seat:
    """A request in the context."""

    number: int
    course: Course
    past: int  # tokens that were read


class LlamaCpp:
    """A :class:`Runner` in llama.cpp, on processors. It adds vectors as the stream leaves blocks, from block 1 on.

    Args:
        model: whose tokenizer and directions are used.
        path: its GGUF file (:func:`affectlens.steering.engines.gguf_files.find_gguf`).
        slots: the most requests at a time.
        threads: of the processor; as many as PyTorch uses by default.
        n_ctx: tokens that a request may have; 2048 by default, if the model has so many.
        half: keep keys and values in float16, which takes half the memory, and not in float32.

    Raises:
        SteerError: no llama-cpp-python, a file that does not load or is of another model, no room.
    """

    def __init__(
        self,
        model: LensModel,
        path: str | Path,
        *,
        slots: int = 8,
        threads: int | None = None,
        n_ctx: int | None = None,
        half: bool = False,
    ) -> None:
        if not 1 <= slots <= MOST_SLOTS:
            raise SteerError(f"slots is {slots}: llama.cpp takes from 1 to {MOST_SLOTS} requests at a time.")
        if (n_ctx is not None and n_ctx < 2) or (threads is not None and threads < 1):
            raise SteerError(f"n_ctx is {n_ctx} and threads {threads}: give 2 tokens and 1 thread at least, or None.")
        file = Path(path).expanduser()
        if not file.is_file():
            raise SteerError(f"There is no file {file}: give the model's GGUF file with --gguf FILE.")
        self.model, self.slots, self.n_ctx = model, slots, min(n_ctx or _N_CTX, model.n_ctx)
        threads = threads or torch.get_num_threads()
        self.native = Native(file, seats=slots, cells=slots * self.n_ctx, threads=threads, half=half)
        try:
            match(self.native, model, file.name)
        except BaseException:
            self.native.close()
            raise
        self.says = (
            f"llama.cpp on {file.name}, weights as the file has them ({self.native.kept_as}), up to {slots} requests; "
            "those with the same dose share a pass"
        )
        self.seats: dict[int, Seat] = {}
        self._empty = list(reversed(range(slots)))

    def __repr__(self) -> str:
        return f"LlamaCpp({self.says})"

    def check(self, request: Request) -> None:
        """Raise a :class:`SteerError` for another model's plan, one that does more than adding, or too long a text.

        Args:
            request: that is asked for.
        """
        if request.plan is not None:
            request.plan.expect(self.model)
            check_plan(request.plan)
        whole = len(request.ids) + request.decoding.max_new_tokens
        if not request.ids or whole > self.n_ctx:
            raise SteerError(
                f"Prompt and reply are {len(request.ids)} and up to {request.decoding.max_new_tokens} tokens, and each "
                f"request has room for {self.n_ctx} here: shorten it, ask for fewer, or take the PyTorch engine "
                f"(--engine torch), which has room for {self.model.n_ctx}; in Python give a larger n_ctx."
            )

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether requests can be held at a time: memory for every slot was taken at the start.

        Args:
            tokens: of each.
        """
        return max(tokens) <= self.n_ctx

    def prepare(self, request: Request) -> None:
        """Nothing: a vector that is added, as ``check`` sees to, has an effect.

        Args:
            request: that was checked.
        """

    def read(self, new: Mapping[int, Request]) -> Iterator[Mapping[int, Tensor] | None]:
        """Take prompts in, some tokens at a time.

        Args:
            new: by number.

        Raises:
            SteerError: more than there are slots for, or if llama.cpp fails.
        """
        if len(new) > len(self._empty):
            raise SteerError(f"{len(new)} requests came for {len(self._empty)} free slots.")
        for key, request in new.items():
            self.seats[key] = Seat(self._empty.pop(), Course(request.plan, len(request.ids)), 0)
        parts = [
            (push, work[at : at + CHUNK]) for push, work in self._prompts(new) for at in range(0, len(work), CHUNK)
        ]
        logits: dict[int, Tensor] = {}
        for count, (push, part) in enumerate(parts):
            if count:
                yield None
            logits |= self._run(push, [(key, token) for key, token in part if key in self.seats])
        yield {key: row for key, row in logits.items() if key in self.seats}

    def step(self, tokens: Mapping[int, int]) -> Mapping[int, Tensor]:
        """The logits after one more token of each of these requests.

        Args:
            tokens: by number.

        Raises:
            SteerError: if llama.cpp fails.
        """
        alike: dict[Push, list[tuple[int, int]]] = {}
        for key, token in tokens.items():
            seat = self.seats[key]
            alike.setdefault(seat.course.at(seat.past), []).append((key, token))
        logits: dict[int, Tensor] = {}
        for push, work in alike.items():
            logits |= self._run(push, work)
        return logits

    def free(self, key: int) -> None:
        """Forget a request.

        Args:
            key: its number.
        """
        if seat := self.seats.pop(key, None):
            self.native.forget(seat.number)
            self._empty.append(seat.number)

    def close(self) -> None:
        """Give model and context back."""
        self.seats.clear()
        self.native.close()

    def _prompts(self, new: Mapping[int, Request]) -> Iterator[tuple[Push, list[tuple[int, int]]]]:
        """The prompts' tokens by what is added at them; those of a request in order."""
        most: dict[Push, list[tuple[int, int]]] = {}
        last: dict[Push, list[tuple[int, int]]] = {}
        for key, request in new.items():
            course, ids = self.seats[key].course, request.ids
            before, at_last = course.at(max(len(ids) - 2, 0)), course.at(len(ids) - 1)
            cut = len(ids) if before == at_last else len(ids) - 1
            most.setdefault(before, []).extend((key, token) for token in ids[:cut])
            last.setdefault(at_last, []).extend((key, token) for token in ids[cut:])
        yield from most.items()
        yield from last.items()

    def _run(self, push: Push, work: Sequence[tuple[int, int]]) -> dict[int, Tensor]:
        """One pass; the logits by number, of prompts that end in it and of replies."""
        if not work:
            return {}
        tokens, keys = [], {}
        for key, token in work:
            seat = self.seats[key]
            keys[seat.number] = key
            tokens.append(Token(seat.number, token, seat.past, seat.past >= seat.course.prompt - 1))
            seat.past += 1
        self.native.push(push)
        return {keys[number]: row for number, row in self.native.run(tokens).items()}
