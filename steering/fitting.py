"""The prompt of a conversation's next reply, which fits: where it is too long, the oldest exchanges are not sent."""

from collections.abc import Sequence

import numpy as np

from affectlens.errors import CaptureError
from affectlens.layouts import Layout, Message
from affectlens.model import LensModel
from affectlens.texts import as_table


def fit(
    model: LensModel, exchanges: Sequence[Sequence[Message]], said: str, *, most: int, n_ctx: int | None = None,
    advice: str = "ask for a shorter reply",
) -> tuple[Layout, int]:  # fmt: skip
    """The prompt of the next reply, and how many of the oldest exchanges are not in it.

    Args:
        model: whose template is used.
        exchanges: that went before, each as its messages.
        said: what is replied to.
        most: tokens of the reply.
        n_ctx: tokens that prompt and reply may have together; by default the model's own context.
        advice: what to do, besides shortening what was said, where that does not fit.

    Raises:
        CaptureError: what was said does not fit by itself, or a template that refuses the conversation.
    """
    whole = model.n_ctx if n_ctx is None else min(n_ctx, model.n_ctx)
    length = 0
    for left_out in range(len(exchanges) + 1):
        sent = [message for one in exchanges[left_out:] for message in one]
        prompt = prompt_of(model, [*sent, {"role": "user", "content": said}])
        length = len(prompt)
        if length + most <= whole:
            return prompt, left_out
    where = f"the context of {model.name}, {whole}"
    if whole < model.n_ctx:
        where = f"{whole} tokens, which the engine has room for (--engine torch has it for {model.n_ctx})"
    raise CaptureError(
        f"What was said has {length} tokens, and with {most} more for the reply it does not fit into {where}: "
        f"shorten it, or {advice}."
    )


def prompt_of(model: LensModel, messages: Sequence[Message]) -> Layout:
    """A conversation as the model reads it before it replies.

    :func:`affectlens.layouts.lay_out` tells the tokens of messages apart, so it refuses templates that rewrite them, as
    those do that leave earlier thoughts out. For a reply the tokens are enough: any template will do.

    Args:
        model: whose template and tokenizer are used.
        messages: the last one is replied to.

    Raises:
        CaptureError: no template, messages that are no texts, or that the template refuses.
    """
    if not getattr(model.tokenizer, "chat_template", None):
        raise CaptureError(f"{model.name} has no chat template, so it can't reply to a conversation.")
    as_table([messages]).frame()  # refuses what is no text
    try:
        text = model.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja and transformers raise many kinds; each means that these messages don't fit
        raise CaptureError(f"The chat template refuses these messages ({error!s:.200}).") from None
    # not verbose: it would warn of long texts, and who asks looks at their length
    batch = model.tokenizer([text], add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    ids, spans = list(batch["input_ids"][0]), [(int(a), int(b)) for a, b in batch["offset_mapping"][0]]
    if not ids:
        raise CaptureError("The chat template makes no tokens of these messages: there is nothing to reply to.")
    return Layout("prompt", str(text), ids, spans, np.ones(len(ids), dtype=bool), 0)
