"""What a text looks like to a model: its tokens, the characters that they cover, its messages, its ending.

Everything about positions is asked of a layout, which is made once and knows nothing of batches or padding.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from affectlens.errors import CaptureError

if TYPE_CHECKING:
    from affectlens.model import LensModel

Message = dict[str, str]
_SENTENCE_END = re.compile(r"[.?!][\"')\]]*\s+(?=\S)")


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, in characters of the rendered text."""

    role: str
    start: int
    end: int


@dataclass(frozen=True)
class Layout:
    """One text, tokenised."""

    name: str  # the item's id
    text: str  # what was tokenised; of a conversation, the rendered template
    ids: list[int]
    spans: list[tuple[int, int]]  # the characters that each token covers
    content: Bool[np.ndarray, "pos"]  # tokens of the text, or of messages; not the tokenizer's or the template's
    ending: int  # where the ending begins, in characters
    turns: tuple[Turn, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def covers(self, start: int, end: int) -> Bool[np.ndarray, "pos"]:
        """The tokens that cover a character of ``text[start:end]``."""
        return np.array([a < end and b > start for a, b in self.spans], dtype=bool)


def ending_start(text: str) -> int:
    """The offset, in characters, of the last sentence of ``text``.

    >>> ending_start("The bell rang. Nobody came.")
    15
    """
    starts = [match.end() for match in _SENTENCE_END.finditer(text)]
    return starts[-1] if starts else 0


def lay_out(model: "LensModel", frame: pd.DataFrame, *, chat: bool = False) -> list[Layout]:
    """Tokenise every item of a table.

    Args:
        model: whose tokenizer and chat template are used.
        frame: ``id`` and ``text``; ``ending`` (characters) and ``messages`` if there are any.
        chat: make each text the user's message of a conversation.

    Raises:
        CaptureError: a text with no tokens, one longer than the context, or a template that can't be used.
    """
    given = frame["ending"] if "ending" in frame else [None] * len(frame)
    talks = frame["messages"] if "messages" in frame else [None] * len(frame)
    planned = []
    for name, text, ending, messages in zip(frame["id"], frame["text"], given, talks, strict=True):
        if chat and messages is None:
            messages = [{"role": "user", "content": str(text)}]
        rendered, turns = _render(model, messages, name) if messages is not None else (str(text), ())
        # an item's own ending counts in its text, which is the last message if it is in a conversation
        start = turns[-1].start if turns else 0
        said = rendered[start : turns[-1].end] if turns else rendered
        trimmed = max(str(text).find(said), 0)  # some templates strip the messages
        own = ending_start(said) if ending is None else max(int(ending) - trimmed, 0)
        planned.append((str(name), rendered, start + own, turns))
    out: list[Layout] = []
    for special in (True, False):  # templates write their own special tokens
        rows = [i for i, p in enumerate(planned) if bool(p[3]) != special]
        out += _tokenised(model, [planned[i] for i in rows], special) if rows else []
    order = [i for special in (True, False) for i, p in enumerate(planned) if bool(p[3]) != special]
    return [layout for _, layout in sorted(zip(order, out, strict=True), key=lambda pair: pair[0])]


def _tokenised(
    model: "LensModel", planned: Sequence[tuple[str, str, int, tuple[Turn, ...]]], special: bool
) -> list[Layout]:
    batch = model.tokenizer(  # not verbose: it would warn of long texts, which we refuse by name
        [p[1] for p in planned], add_special_tokens=special, verbose=False,
        return_offsets_mapping=True, return_special_tokens_mask=True,
    )  # fmt: skip
    out = []
    for i, (name, text, ending, turns) in enumerate(planned):
        ids, spans = batch["input_ids"][i], [(int(a), int(b)) for a, b in batch["offset_mapping"][i]]
        content = ~np.array(batch["special_tokens_mask"][i], dtype=bool)
        if turns:
            said = Layout(name, text, ids, spans, content, ending)
            content = np.logical_or.reduce([said.covers(turn.start, turn.end) for turn in turns])
        if not content.any():
            raise CaptureError(f"Item {name!r} has no tokens: every text needs at least one.")
        if len(ids) > model.n_ctx:
            raise CaptureError(
                f"Item {name!r} has {len(ids)} tokens and the context of {model.name} holds {model.n_ctx}: "
                "shorten the text or leave the item out."
            )
        out.append(Layout(name, text, list(ids), spans, content, ending, turns))
    return out


def _render(model: "LensModel", messages: Sequence[Message], name: Any) -> tuple[str, tuple[Turn, ...]]:
    """The conversation as the template writes it, and where its messages are.

    Marks take the messages' places first, so that a message that also occurs in the template is never mistaken.
    """
    if not getattr(model.tokenizer, "chat_template", None):
        raise CaptureError(f"{model.name} has no chat template: capture plain texts, without chat=True.")
    try:
        roles, contents = [m["role"] for m in messages], [m["content"] for m in messages]
        prompting = roles[-1] != "assistant"
        marks = [f"\ue000{i}\ue001" for i in range(len(contents))]
        marked, rendered = (
            model.tokenizer.apply_chat_template(
                [{"role": r, "content": c} for r, c in zip(roles, words, strict=True)],
                tokenize=False, add_generation_prompt=prompting,
            )
            for words in (marks, contents)
        )  # fmt: skip
    except Exception as error:  # jinja and transformers raise many kinds; each means that these messages don't fit
        raise CaptureError(f"Item {name!r}: the chat template refuses these messages ({error!s:.200}).") from None
    for words in (contents, [c.strip() for c in contents]):
        text, turns, rest = "", [], marked
        for role, mark, content in zip(roles, marks, words, strict=True):
            before, _, rest = rest.partition(mark)
            turns.append(Turn(role, len(text + before), len(text + before + content)))
            text += before + content
        if text + rest == rendered:
            return rendered, tuple(turns)
    raise CaptureError(f"Item {name!r}: the chat template rewrites the messages, so their tokens can't be told apart.")
