"""``--engine llama.cpp``: llama.cpp writes, on the model's own GGUF file; the model in PyTorch lays out and reads.

Without it the model writes by itself (:mod:`affectlens.steering.writing`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from affectlens.errors import SteerError
from affectlens.generating import Decoding, end_tokens
from affectlens.layouts import Layout
from affectlens.model import LensModel
from affectlens.steering.plan import SteeringPlan

if TYPE_CHECKING:
    from affectlens.steering.engines.engine import Engine

ENGINES = ("torch", "llama.cpp")


def gguf_for(engine: str, gguf: Path | None, model: str, *, show: bool | None = None) -> Path | None:
    """The file that llama.cpp reads, or None where the model itself writes.

    Args:
        engine: as typed.
        gguf: as typed.
        model: its name; a catalogue model's own file is found by it.
        show: show a spinner where one is fetched; by default where a person is looking.

    Raises:
        SteerError: an unknown engine, a file that is not there or that no engine reads, a model without one.
    """
    if engine not in ENGINES:
        raise SteerError(f"--engine {engine} is not known: choose {' or '.join(ENGINES)}.")
    if engine == "torch":
        if gguf is not None:
            raise SteerError("--gguf belongs to --engine llama.cpp: add it, or leave the file out.")
        return None
    if gguf is not None:
        if not gguf.expanduser().is_file():
            raise SteerError(f"There is no file {gguf}: --gguf is the model's own weights as llama.cpp reads them.")
        return gguf.expanduser()
    from affectlens.steering.engines.gguf_files import find_gguf

    return find_gguf(model, show=show)


@contextmanager
def llama(model: LensModel, gguf: Path, *, slots: int = 1) -> Iterator["Engine"]:
    """An engine on llama.cpp, until the ``with`` ends.

    Args:
        model: whose GGUF file it is.
        gguf: the file.
        slots: the most replies at a time.

    Raises:
        SteerError: no llama-cpp-python, a file that does not load, or another model's.
    """
    from affectlens.steering.engines.engine import Engine
    from affectlens.steering.engines.llama import LlamaCpp

    with Engine(LlamaCpp(model, gguf, slots=slots)) as engine:
        yield engine


def written(engine: "Engine", prompt: Layout, decoding: Decoding, plan: SteeringPlan | None) -> list[int]:
    """The token ids of a reply, without its end token.

    Args:
        engine: that writes.
        prompt: what is replied to.
        decoding: how tokens are chosen.
        plan: by which it is steered; None for a plain reply.

    Raises:
        SteerError: a plan that the engine can't do, or a reply that failed.
        CaptureError: a prompt that does not fit into the context with its reply.
    """
    from affectlens.steering.engines.request import End, Piece, Request

    told: SimpleQueue[Piece | End] = SimpleQueue()
    ticket = engine.submit(Request(tuple(prompt.ids), decoding, plan), told.put)
    while isinstance(event := told.get(), Piece):
        pass
    if event.reason == "error":
        raise SteerError(event.error)
    ids, ends = list(ticket.ids), end_tokens(engine.runner.model)
    return ids[:-1] if ids and ids[-1] in ends else ids
