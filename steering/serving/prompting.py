"""Prompts as tokens, just as :func:`affectlens.steering.write` lays them out.

What can't fit is refused before it is laid out: first by its characters, then by tokens that are counted piece by piece
only until there are too many.
"""

import copy
from typing import Any

from affectlens.errors import CaptureError
from affectlens.layouts import Layout, Message, lay_out
from affectlens.model import LensModel
from affectlens.steering.fitting import prompt_of
from affectlens.steering.serving.refusals import Refusal
from affectlens.steering.serving.schemas import Asked, ChatAsked, Said, TextAsked
from affectlens.steering.serving.waiting import Patience
from affectlens.texts import as_table

TOO_LONG = "context_length_exceeded"
_PIECE = 16384  # characters that are counted at a time
_SPARE = 1.25  # cutting a text in pieces makes a few tokens more of it, never so many


class Prompts:
    """Tokenises prompts, for one thread: a tokenizer changes while it works.

    Args:
        model: whose tokenizer and template are used.
        n_ctx: tokens that prompt and reply may have together.
    """

    def __init__(self, model: LensModel, n_ctx: int) -> None:
        self.model, self.n_ctx = model, n_ctx
        self._most = n_ctx * max(map(len, model.tokenizer.get_vocab()))  # no token is longer than its name

    def apart(self) -> "Prompts":
        """The same, with a tokenizer of its own, for another thread."""
        model = copy.copy(self.model)
        model.tokenizer = copy.deepcopy(self.model.tokenizer)
        return Prompts(model, self.n_ctx)

    def chat(self, asked: ChatAsked, patience: Patience) -> tuple[int, ...]:
        """A conversation's tokens.

        Args:
            asked: the request.
            patience: of the client.

        Raises:
            Refusal: messages that the template refuses, or that are longer than the context; nobody waits any more.
        """
        if not getattr(self.model.tokenizer, "chat_template", None):
            raise Refusal(400, f"{self.model.name} has no chat template: ask /v1/completions.", param="messages")
        if asked.messages[-1].role == "assistant":
            raise Refusal(400, "The last message is the assistant's: end with the user's.", param="messages")
        return self._laid_out([_message(said) for said in asked.messages], "messages", patience)

    def text(self, asked: TextAsked, patience: Patience) -> tuple[int, ...]:
        """The tokens of a text that is gone on with.

        Args:
            asked: the request.
            patience: of the client.

        Raises:
            Refusal: several prompts, tokens that don't exist, or more than the context holds; nobody waits any more.
        """
        prompt: Any = asked.prompt
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
            if len(prompt) > 1:
                raise Refusal(400, f"{len(prompt)} prompts are given: ask for each by itself.", param="prompt")
            prompt = prompt[0]
        if isinstance(prompt, str):
            return self._laid_out(prompt, "prompt", patience)
        if not isinstance(prompt, list) or not prompt or not all(type(token) is int for token in prompt):
            raise Refusal(400, "prompt: write a text, a list of one text, or a list of tokens.", param="prompt")
        size = len(self.model.tokenizer)
        wrong = next((token for token in prompt if not 0 <= token < size), None)
        if wrong is not None:
            raise Refusal(400, f"Token {wrong} is not known: there are {size}, from 0.", param="prompt")
        if len(prompt) > self.n_ctx:
            raise self._too_long(len(prompt), "prompt")
        return tuple(prompt)

    def _laid_out(self, prompt: str | list[Message], param: str, patience: Patience) -> tuple[int, ...]:
        self._check_roughly(prompt, param, patience)
        try:
            layout = self._as_it_is(prompt) if isinstance(prompt, str) else prompt_of(self.model, prompt)
        except CaptureError as error:
            code = TOO_LONG if "context" in str(error) else None
            raise Refusal(400, str(error), param=param, code=code) from None
        if len(layout.ids) > self.n_ctx:
            raise self._too_long(len(layout.ids), param)
        return tuple(layout.ids)

    def _as_it_is(self, text: str) -> Layout:
        frame = as_table([text]).frame()
        frame["id"] = "prompt"
        return lay_out(self.model, frame)[0]

    def _check_roughly(self, prompt: str | list[Message], param: str, patience: Patience) -> None:
        """Refuse what is far too long before it is laid out, which takes its time for each token and message."""
        texts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
        if (size := sum(map(len, texts))) <= self.n_ctx:
            return
        if size > self._most:
            sentence = f"The prompt has {size} characters, and the context holds {self.n_ctx} tokens: shorten it."
            raise Refusal(400, sentence, param=param, code=TOO_LONG)
        sure = "".join(texts).encode("utf-8", "replace").decode()
        tokenizer, count = self.model.tokenizer.backend_tokenizer, 0
        for start in range(0, len(sure), _PIECE):
            patience.check()
            # a batch of one, as other threads run only while a batch is encoded
            (piece,) = tokenizer.encode_batch([sure[start : start + _PIECE]], add_special_tokens=False)
            count += len(piece.ids)
            if count > _SPARE * self.n_ctx:
                raise self._too_long(count, param, more="" if start + _PIECE >= len(sure) else "more than ")

    def _too_long(self, count: int, param: str, *, more: str = "") -> Refusal:
        sentence = f"The prompt has {more}{count} tokens, and the context holds {self.n_ctx}: shorten it."
        return Refusal(400, sentence, param=param, code=TOO_LONG)


def characters(asked: Asked) -> int:
    """How many characters the texts of a prompt have.

    Args:
        asked: the request.
    """
    if isinstance(asked, ChatAsked):
        return sum(len(_message(said)["content"]) for said in asked.messages)
    prompt = getattr(asked, "prompt", None)
    texts = prompt if isinstance(prompt, list) else [prompt]
    return sum(len(text) for text in texts if isinstance(text, str))


def _message(said: Said) -> Message:
    content = said.content if isinstance(said.content, str) else "".join(part.text for part in said.content)
    return {"role": "system" if said.role == "developer" else said.role, "content": content}
