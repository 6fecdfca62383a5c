"""Text in, steered text out: batched, or streamed as it is written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from threading import Event, Thread
from typing import Any

from affectlens.capturing import budget, plan_batches
from affectlens.errors import SteerError
from affectlens.generating import Decoding, generate
from affectlens.layouts import Layout, Message, lay_out
from affectlens.model import LensModel
from affectlens.progress import tracked
from affectlens.steering.applying import steer, steered_here
from affectlens.steering.fitting import prompt_of
from affectlens.steering.plan import SteeringPlan
from affectlens.texts import as_table

Doses = Mapping[str, float] | SteeringPlan | None


def write(
    model: LensModel,
    prompts: Sequence[str | Sequence[Message]],
    *,
    doses: Doses = None,
    max_new_tokens: int = 64,
    chat: bool = True,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: bool | None = None,
    **how: Any,
) -> list[str]:
    """A reply to each prompt, steered or, without doses, plain. A reply does not depend on what else is asked.

    Args:
        model: from :func:`affectlens.load_model`.
        prompts: texts, or conversations as lists of messages.
        doses: ``{"joy": 0.6}``, a plan, or None.
        max_new_tokens: the longest reply.
        chat: make each text the user's message, in the model's own template; otherwise it is gone on with.
        temperature: 0 takes the likeliest token; above, tokens are sampled.
        top_p: sample from the likeliest tokens that have this probability together.
        seed: of the sampling; each prompt's luck is its own and the same for every dose.
        progress: show a bar; by default where a person is looking.
        how: what :func:`affectlens.steering.plan_for` takes.

    Raises:
        SteerError: as for :func:`affectlens.steering.steer`.
        CaptureError: prompts that are none, or do not fit into the context.
    """
    _check_how(doses, how)
    layouts = _laid_out(model, prompts, chat)
    decoding = Decoding(max_new_tokens, temperature, top_p, seed)
    replies: list[str] = [""] * len(layouts)
    plan = plan_batches([len(x) + max_new_tokens for x in layouts], budget(model, None))
    with steer(model, doses, **how) if doses is not None else nullcontext():
        for rows in tracked(plan, "replies", show=progress):
            written = generate(model, [layouts[row] for row in rows], decoding, keys=rows)
            for row, ids in zip(rows, written, strict=True):
                replies[row] = model.tokenizer.decode(ids, skip_special_tokens=True)
    return replies


def stream(
    model: LensModel,
    prompt: str | Sequence[Message],
    *,
    doses: Doses = None,
    max_new_tokens: int = 64,
    chat: bool = True,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    **how: Any,
) -> Iterator[str]:
    """Pieces of one reply as they are written; joined they are what :func:`write` gives for the prompt alone.

    Args:
        model: from :func:`affectlens.load_model`.
        prompt: a text, or a conversation as a list of messages.
        doses: ``{"joy": 0.6}``, a plan, or None.
        max_new_tokens: the longest reply.
        chat: make the text the user's message, in the model's own template.
        temperature: 0 takes the likeliest token; above, tokens are sampled.
        top_p: sample from the likeliest tokens that have this probability together.
        seed: of the sampling.
        how: what :func:`affectlens.steering.plan_for` takes.

    Raises:
        SteerError: as for :func:`affectlens.steering.steer`; inside a ``with steer(...)``.
        CaptureError: a prompt that is none, or does not fit into the context.
    """
    from transformers import TextIteratorStreamer

    _check_how(doses, how)
    if steered_here(model):
        raise SteerError(
            "stream writes in a thread of its own, which waits for your steer(...) to end: give it doses=."
        )
    layouts = _laid_out(model, [prompt], chat)
    decoding = Decoding(max_new_tokens, temperature, top_p, seed)
    pieces = TextIteratorStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True)
    failed: list[BaseException] = []
    halted = Event()

    def work() -> None:  # all of it in one thread: what is suspended between pieces steers nothing else
        try:
            with steer(model, doses, **how) if doses is not None else nullcontext():
                generate(model, layouts, decoding, streamer=pieces, halted=halted)
        except BaseException as error:  # raised again where the reader is
            failed.append(error)
            pieces.end()

    writer = Thread(target=work, daemon=True)
    writer.start()
    try:
        yield from pieces
    finally:
        halted.set()  # whoever stops reading stops the writing
        writer.join()
    if failed:
        raise failed[0]


def _check_how(doses: Doses, how: Mapping[str, Any]) -> None:
    if doses is None and how:
        raise SteerError(f"Without doses nothing is steered: leave out {', '.join(how)}, or give doses=.")


def _laid_out(model: LensModel, prompts: Sequence[str | Sequence[Message]], chat: bool) -> list[Layout]:
    if isinstance(prompts, str):
        raise SteerError("Give a list of prompts: put a single one into a list.")
    frame = as_table(list(prompts)).frame()
    if frame.empty:
        raise SteerError("There is no prompt to reply to.")
    if all(isinstance(prompt, str) for prompt in prompts):
        return lay_out(model, frame, chat=chat)
    rows = zip(frame["id"], prompts, strict=True)
    return [replace(_of_one(model, prompt, chat), name=str(name)) for name, prompt in rows]


def _of_one(model: LensModel, prompt: str | Sequence[Message], chat: bool) -> Layout:
    if not isinstance(prompt, str):
        return prompt_of(model, prompt)
    (layout,) = lay_out(model, as_table([prompt]).frame(), chat=chat)
    return layout
