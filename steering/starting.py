"""``--engine llama.cpp``: llama.cpp writes, on the model's own GGUF file; the model in PyTorch lays out and reads.

Without it the model writes by itself (:mod:`affectlens.steering.writing`).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.layouts import Layout
from affectlens.model import LensModel
from affectlens.steering.ends import without_end
from affectlens.steering.plan import SteeringPlan

if TYPE_CHECKING:
    from affectlens.steering.engines.engine import Engine
    from affectlens.steering.engines.request import Request

LLAMA = "llama.cpp"
ENGINES = ("torch", LLAMA)


def gguf_for(
    engine: str, gguf: Path | None, model: str, *, show: bool | None = None, fetch: bool = True
) -> Path | None:
    """The file that llama.cpp reads, or None where the model itself writes.

    Args:
        engine: as typed.
        gguf: as typed.
        model: its name; a catalogue model's own file is found by it.
        show: show a spinner where one is fetched; by default where a person is looking.
        fetch: find the model's own file where none is typed; False gives None, where nothing will be written.

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
    if not fetch:
        return None
    from affectlens.steering.engines.gguf_files import find_gguf

    return find_gguf(model, show=show)


@contextmanager
def llama(model: LensModel, gguf: Path, *, slots: int = 1) -> Iterator["Engine"]:
    """An engine on llama.cpp, with the model's own context where memory allows; the end of the ``with`` cancels it.

    Args:
        model: whose GGUF file it is.
        gguf: the file.
        slots: the most replies at a time.

    Raises:
        SteerError: no llama-cpp-python, a file that does not load, or another model's.
    """
    from affectlens.steering.engines.engine import Engine
    from affectlens.steering.engines.llama import LlamaCpp, room_for

    engine = Engine(LlamaCpp(model, gguf, slots=slots, n_ctx=room_for(model, slots)))
    try:
        yield engine
    finally:
        engine.close(0.0)


def wanted(engine: "Engine", prompt: Layout, decoding: Decoding, plan: SteeringPlan | None) -> "Request":
    """What to ask of the engine for somebody who waits, however long it takes.

    Args:
        engine: that is to write.
        prompt: what is replied to.
        decoding: how tokens are chosen.
        plan: by which it is steered; None for a plain reply.

    Raises:
        SteerError: a plan that the engine can't do, or a prompt for which it has no room.
    """
    from affectlens.steering.engines.request import Request

    request = Request(tuple(prompt.ids), decoding, plan, patience=math.inf)
    engine.runner.check(request)  # its sentences say which engine can
    return request


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
    ids, _ = engine.reply(wanted(engine, prompt, decoding, plan))
    return without_end(engine.runner.model, ids)
