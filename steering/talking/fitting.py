"""The conversation as a prompt that fits into the context: where it is too long, its oldest exchanges are not sent."""

from collections.abc import Sequence

from affectlens.errors import SteerError
from affectlens.layouts import Layout, Message, lay_out
from affectlens.model import LensModel
from affectlens.quiet import quiet_transformers
from affectlens.steering.talking.exchanges import Exchange
from affectlens.texts import as_table


def fit(
    model: LensModel, exchanges: Sequence[Exchange], said: str, *, most: int, n_ctx: int
) -> tuple[Layout, int]:  # fmt: skip
    """The prompt of the next reply, and how many of the oldest exchanges are not in it.

    Args:
        model: whose template is used.
        exchanges: that went before.
        said: what is replied to.
        most: tokens of the reply.
        n_ctx: tokens that prompt and reply may have together.

    Raises:
        SteerError: what was said does not fit by itself.
        CaptureError: a template that refuses the conversation.
    """
    room = min(n_ctx, model.n_ctx) - most
    length: int | None = None
    for left_out in range(len(exchanges) + 1):
        messages = [*(m for one in exchanges[left_out:] for m in one.messages), {"role": "user", "content": said}]
        if (length := _length(model, messages)) is None or length <= room:
            return lay_out(model, as_table([messages]).frame(), chat=True)[0], left_out
    raise SteerError(
        f"What you said has {length} tokens, and with {most} more for the reply it does not fit into the context of "
        f"{model.name}, {room + most}: shorten it, or ask for shorter replies, /tokens 16."
    )


def _length(model: LensModel, messages: list[Message]) -> int | None:
    """The tokens of a conversation; None where the template refuses it, which laying it out will say in a sentence."""
    try:
        text = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        with quiet_transformers():
            return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception:
        return None
