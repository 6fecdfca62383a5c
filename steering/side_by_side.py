"""``beside``: the plain and the steered reply to the same prompts, each token read twice.

1. Both replies are written under the same decoding and the same seed: each prompt has the same luck in both.
2. *As written*: one pass over prompt and reply with the plan in place, exactly where it stood while the reply was
   written. These are the states of the writing itself, and they hold the added vector: at the steered site the
   reading is shifted by the dose whatever the words are, so it shows that steering took place, not what it did.
3. *Read anew*: the plain model reads both replies, with nothing added. What differs now is in the words. This is what
   colours them, by a later layer than the steered ones or by probes or directions of another origin (see
   :mod:`affectlens.steering.readers`), since a direction that chose the words is no judge of them. It is a picture
   to look at; judges and intervals are in ``affectlens steer MODEL --evaluate``.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from affectlens.capturing import budget, plan_batches
from affectlens.errors import SteerError
from affectlens.generating import Decoding, generate
from affectlens.layouts import Layout, Message, lay_out
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.progress import tracked
from affectlens.steering import colouring
from affectlens.steering.applying import steer
from affectlens.steering.directions import Directions
from affectlens.steering.ends import without_end
from affectlens.steering.plan import SteeringPlan, plan_for
from affectlens.steering.readers import Reader, read, readers_for
from affectlens.steering.sides import Beside, Pair, Reply
from affectlens.texts import as_table


def beside(
    model: LensModel,
    prompts: Sequence[str | Sequence[Message]],
    doses: Mapping[str, float] | SteeringPlan,
    *,
    directions: Directions | str | Path | None = None,
    probes: Probes | str | Path | None = None,
    readers: Directions | str | Path | None = None,
    layer: int | None = None,
    max_new_tokens: int = 64,
    chat: bool = True,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: bool | None = None,
    **how: Any,
) -> Beside:
    """The plain and the steered reply to each prompt, and what is read at each of their tokens.

    A reading is of one of two passes. ``as written`` is the state in which the steered reply was written: it holds the
    added vector, and at the steered site it is shifted by the dose whatever the words are. ``read anew`` is the plain
    model reading the finished text; it colours the replies, at a later layer or by ``probes`` or ``readers``.

    Args:
        model: from :func:`affectlens.load_model`.
        prompts: texts, or conversations as lists of messages.
        doses: ``{"joy": 0.6, "fear": -0.3}``, or a plan from :func:`affectlens.steering.plan_for`.
        directions: the set that steers, its file, or None for the one that is bundled for this model.
        probes: colour by the logit of these probes, or of their file; a gate or a loop may name one of them too.
        readers: colour by the projection on these directions, or on those of a file.
        layer: where probes or, without these and ``readers``, the steering directions are read; by default the probes'
            own, and halfway from the last steered layer to the end.
        max_new_tokens: the longest reply.
        chat: make each text the user's message, in the model's own template; otherwise it is gone on with.
        temperature: 0 takes the likeliest token; above, tokens are sampled.
        top_p: sample from the likeliest tokens that have this probability together.
        seed: of the sampling; both replies share it.
        progress: show a bar; by default where a person is looking.
        how: what else :func:`affectlens.steering.plan_for` takes.

    Raises:
        SteerError: as for :func:`affectlens.steering.steer`; readers that don't fit; a model that is being edited.
        CaptureError: prompts that are none, or do not fit into the context.
        StoreError: probes of another model.
    """
    if model.editing:
        raise SteerError("The model is being edited, so its plain reply is not plain: call beside outside of steer().")
    if isinstance(doses, SteeringPlan) and (how or directions is not None):
        raise SteerError("A plan says it all: leave out directions and whatever else plan_for takes, or give doses.")
    loaded = probes if isinstance(probes, Probes) or probes is None else Probes.load(probes)
    how |= {"directions": directions, "probes": loaded}
    plan = doses if isinstance(doses, SteeringPlan) else plan_for(model, doses, **how)
    reading = readers_for(model, plan, loaded, readers, layer)
    layouts, said = laid_out(model, prompts, chat)
    decoding = Decoding(max_new_tokens, temperature, top_p, seed)
    plain = _written(model, layouts, decoding, None, progress)
    steered = _written(model, layouts, decoding, plan, progress)
    pairs = tuple(
        paired(model, said[row], prompt, (plain[row], steered[row]), plan, reading)
        for row, prompt in enumerate(layouts)
    )
    return Beside(pairs, reading, plan, model.name, decoding)


def laid_out(
    model: LensModel, prompts: Sequence[str | Sequence[Message]], chat: bool
) -> tuple[list[Layout], list[str]]:
    """The prompts' tokens, and what each says; of a conversation its last message.

    Args:
        model: whose template and tokenizer are used.
        prompts: texts, or conversations.
        chat: make each text the user's message.

    Raises:
        SteerError: no prompt, or a single text.
        CaptureError: one that can't be laid out.
    """
    if isinstance(prompts, str):
        raise SteerError("Give a list of prompts: put a single one into a list.")
    frame = as_table(list(prompts)).frame()
    if frame.empty:
        raise SteerError("There is no prompt to reply to.")
    return lay_out(model, frame, chat=chat), [str(text) for text in frame["text"]]


def paired(
    model: LensModel, said: str, prompt: Layout, ids: tuple[list[int], list[int]], plan: SteeringPlan,
    readers: tuple[Reader, ...],
) -> Pair:  # fmt: skip
    """Two replies to a prompt, read token by token by the model, whoever wrote them.

    Args:
        model: that reads.
        said: the prompt's text.
        prompt: its tokens.
        ids: those of the plain and of the steered reply, without end tokens.
        plan: by which the second was steered.
        readers: what is read.
    """
    plain, steered = ids
    return Pair(said, _reply(model, prompt, plain, None, readers), _reply(model, prompt, steered, plan, readers))


def _written(
    model: LensModel, prompts: list[Layout], how: Decoding, plan: SteeringPlan | None, progress: bool | None
) -> list[list[int]]:
    """Token ids of the replies, without end tokens."""
    out = [list[int]() for _ in prompts]
    batches = plan_batches([len(x) + how.max_new_tokens for x in prompts], budget(model, None))
    with steer(model, plan) if plan is not None else nullcontext():
        for rows in tracked(batches, "steered replies" if plan else "plain replies", show=progress):
            for row, ids in zip(rows, generate(model, [prompts[row] for row in rows], how, keys=rows), strict=True):
                out[row] = without_end(model, ids)
    return out


def _reply(
    model: LensModel, prompt: Layout, ids: list[int], plan: SteeringPlan | None, readers: tuple[Reader, ...]
) -> Reply:
    anew = written = read(model, prompt.ids, ids, readers)
    if plan is not None:
        with steer(model, plan, prompt_tokens=len(prompt)):
            written = read(model, prompt.ids, ids, readers)
    text = model.tokenizer.decode(ids, skip_special_tokens=True)
    return Reply(text, tuple(ids), colouring.strings(model.tokenizer, ids), written, anew)
