"""The replies of ``affectlens steer``: as text, or plain and steered side by side, by the engine that was asked for."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.console import emit, say
from affectlens.generating import Decoding
from affectlens.steering.explaining import one_line
from affectlens.steering.launching import Asked
from affectlens.steering.plan import SteeringPlan

if TYPE_CHECKING:
    from affectlens.steering.sides import Beside


def write_plainly(asked: Asked, *, streamed: bool, both: bool) -> None:
    """Replies as plain text.

    Args:
        asked: what was typed.
        streamed: print as it is written.
        both: the plain reply first.
    """
    asked.check_template()
    plan = asked.plan
    with _writing(asked) as write:
        if asked.as_json:
            facts = {"model": asked.model.name, "plan": plan.explain(), **asked.decoding, "chat": asked.chat}
            reply = "".join(write(plan, False))
            emit(facts | {"prompt": asked.prompt, "reply": reply}, as_json=True)
            return
        if not asked.quiet:
            say(one_line(plan.explain()) + "\n")
        for name, one in [("plain: ", None), ("steered: ", plan)] if both else [("", plan)]:
            print(name, end="", flush=True)
            for piece in write(one, streamed):
                print(piece, end="", flush=True)
            print()


@contextmanager
def _writing(asked: Asked) -> Iterator[Callable[[SteeringPlan | None, bool], Iterable[str]]]:
    """What writes a reply by a plan, at once or in pieces, with the engine that was asked for."""
    from affectlens.steering import starting, writing

    how = asked.decoding | {"chat": asked.chat}
    if asked.gguf is None:
        show = False if asked.quiet or asked.as_json else None
        yield (
            lambda plan, streamed: (
                writing.stream(asked.model, asked.prompt, doses=plan, **how)
                if streamed
                else writing.write(asked.model, [asked.prompt], doses=plan, progress=show, **how)
            )
        )
        return
    from affectlens.steering.side_by_side import laid_out

    (prompt,), _ = laid_out(asked.model, [asked.prompt], asked.chat)
    with starting.llama(asked.model, asked.gguf) as engine:
        decoding = Decoding(**asked.decoding)
        yield lambda plan, _: engine.stream(starting.wanted(engine, prompt, decoding, plan))


def show_beside(asked: Asked) -> None:
    """The steered reply beside the plain one.

    Args:
        asked: what was typed.
    """
    from rich.console import Console

    asked.check_template()
    found = _by_llama(asked, asked.gguf) if asked.gguf is not None else _by_model(asked)
    if asked.as_json:
        emit(found.as_json(), as_json=True)
        return
    say(one_line(found.plan.explain()) + "\n")
    console = Console()
    if console.is_terminal:
        console.print(found)
    else:
        print(found)


def _by_model(asked: Asked) -> "Beside":
    from affectlens.steering.side_by_side import beside

    return beside(asked.model, [asked.prompt], asked.plan, probes=asked.probes, chat=asked.chat,
                  progress=False if asked.as_json else None, **asked.decoding)  # fmt: skip


def _by_llama(asked: Asked, gguf: Path) -> "Beside":
    """Both replies by llama.cpp; the model reads their tokens."""
    from affectlens.probing.probes import Probes
    from affectlens.steering import side_by_side, starting
    from affectlens.steering.readers import readers_for
    from affectlens.steering.sides import Beside

    model, plan, decoding = asked.model, asked.plan, Decoding(**asked.decoding)
    probes = Probes.load(asked.probes) if asked.probes else None
    readers = readers_for(model, plan, probes, None, None)
    (prompt,), (said,) = side_by_side.laid_out(model, [asked.prompt], asked.chat)
    with starting.llama(model, gguf) as engine:
        plain, steered = (starting.written(engine, prompt, decoding, one) for one in (None, plan))
    pair = side_by_side.paired(model, said, prompt, (plain, steered), plan, readers)
    return Beside((pair,), readers, plan, model.name, decoding)
