"""Verbalisers: the strings whose probability stands for a label, and their tokens after each prompt.

A verbaliser is tokenised **together with its prompt**, because a tokenizer may cut the same string otherwise at the
start of a text. The prompt's own tokens must come first, unchanged; if they don't, the model would read another prompt
than the one given, and the pair is refused.

Verbalisers must be disjoint events: none may begin another, token by token, within a label or across labels. P(" hope")
counts every text that goes on with " hope", " hope"+"less" among them, so a log-sum-exp over both would count some
twice, and a comparison of their labels would favour the shorter. " joy" and " joyful" are fine where each is one token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pandas as pd

from affectlens.errors import CaptureError
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.quiet import quiet_transformers

Labels = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Prompt:
    """A prompt's tokens and, for every verbaliser, the tokens that follow them."""

    ids: tuple[int, ...]
    tails: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        """The tokens that the model reads at most: the last of a verbaliser is only predicted."""
        return len(self.ids) + max(map(len, self.tails)) - 1


def check_labels(labels: Labels) -> tuple[tuple[str, str], ...]:
    """``(label, verbaliser)`` in the given order.

    >>> check_labels({"joy": [" joy", " happiness"], "grief": " grief"})
    (('joy', ' joy'), ('joy', ' happiness'), ('grief', ' grief'))

    Args:
        labels: label to verbaliser, or to several.

    Raises:
        CaptureError: no labels, a label without verbalisers, an empty verbaliser, or one given twice.
    """
    if not labels:
        raise CaptureError(
            'There are no labels: give some, for example {"joy": " joy", "grief": [" grief", " sorrow"]}.'
        )
    pairs = tuple(
        (name, text) for name, given in labels.items() for text in ([given] if isinstance(given, str) else given)
    )
    bare = [name for name in labels if name not in {label for label, _ in pairs}]
    if bare:
        raise CaptureError(f"Label {bare[0]!r} has no verbaliser: give at least one string that stands for it.")
    owner: dict[str, str] = {}
    for label, text in pairs:
        if not text:
            raise CaptureError(f"Label {label!r} has an empty verbaliser: give a string, for example ' {label}'.")
        if text in owner:
            raise CaptureError(
                f"Verbaliser {text!r} is given twice, for {owner[text]!r} and for {label!r}: it can count for one only."
            )
        owner[text] = label
    return pairs


def encode_prompts(
    model: LensModel, items: pd.DataFrame, verbalisers: Sequence[str], *, chat: bool = False
) -> list[Prompt]:
    """Tokenise each prompt, alone and with each verbaliser after it.

    What the tokenizer puts before a text is kept, but not a second BOS where the prompt begins with one; what it puts
    behind (EOS) is left out, since the text goes on.

    Args:
        model: the model, for its tokenizer, its chat template and its context length.
        items: ``id`` and ``text``, and ``messages`` where there are conversations.
        verbalisers: the strings.
        chat: make each text the user's message of a conversation; the verbaliser begins the reply.

    Raises:
        CaptureError: a prompt without tokens; a prompt whose tokens change when a verbaliser follows; a verbaliser that
            adds no token, or begins another; a prompt too long for the context.
    """
    layouts = lay_out(model, items, chat=chat)
    texts, templated = [layout.text for layout in layouts], [bool(layout.turns) for layout in layouts]
    alone = _tokenise(model.tokenizer, texts, templated)
    columns = []
    for verbaliser in verbalisers:
        joined = _tokenise(model.tokenizer, [text + verbaliser for text in texts], templated)
        rows = zip(layouts, alone, joined, strict=True)
        columns.append([_tail(layout, ids, both, verbaliser) for layout, ids, both in rows])
    prompts = [Prompt(ids, tails) for ids, tails in zip(alone, zip(*columns, strict=True), strict=True)]
    for tails in dict.fromkeys(prompt.tails for prompt in prompts):
        _check_disjoint(verbalisers, tails)
    for layout, prompt in zip(layouts, prompts, strict=True):
        if len(prompt) > model.n_ctx:
            raise CaptureError(
                f"Prompt {layout.name!r} has {len(prompt)} tokens with its longest verbaliser and the context of "
                f"{model.name} holds {model.n_ctx}: shorten the prompt or leave it out."
            )
    return prompts


def _tokenise(tokenizer: Any, texts: list[str], templated: list[bool]) -> list[tuple[int, ...]]:
    """Tokens with what the tokenizer puts before a text, without what it puts behind."""
    out: list[tuple[int, ...]] = [()] * len(texts)
    bos = tokenizer.bos_token
    begun = [done or bool(bos and text.startswith(bos)) for text, done in zip(texts, templated, strict=True)]
    for kind in sorted(set(begun)):
        rows = [i for i, done in enumerate(begun) if done is kind]
        with quiet_transformers():
            batch = tokenizer([texts[i] for i in rows], add_special_tokens=not kind, return_special_tokens_mask=True)
        for row, ids, special in zip(rows, batch["input_ids"], batch["special_tokens_mask"], strict=True):
            kept = len(ids) if kind else max(i for i, added in enumerate(special) if not added) + 1
            out[row] = tuple(ids[:kept])
    return out


def _tail(layout: Layout, alone: tuple[int, ...], joined: tuple[int, ...], verbaliser: str) -> tuple[int, ...]:
    name, text = layout.name, layout.text
    if joined[: len(alone)] != alone:
        mend = (
            f"End the prompt without its last space and begin the verbaliser with it ({' ' + verbaliser.lstrip()!r})."
            if text[-1].isspace()
            else f"Begin the verbaliser with what starts a new token, such as a space ({' ' + verbaliser.lstrip()!r})."
        )
        raise CaptureError(
            f"Prompt {name!r} (...{text[-12:]!r}) does not keep its own tokens when {verbaliser!r} follows it: the "
            f"tokenizer joins them. {mend}"
        )
    if len(joined) == len(alone):
        raise CaptureError(
            f"Verbaliser {verbaliser!r} adds no token to prompt {name!r}: give one that the tokenizer sees."
        )
    return joined[len(alone) :]


def _check_disjoint(verbalisers: Sequence[str], tails: tuple[tuple[int, ...], ...]) -> None:
    for (short, start), (long, whole) in permutations(zip(verbalisers, tails, strict=True), 2):
        if whole[: len(start)] == start:
            raise CaptureError(
                f"Verbaliser {short!r} begins {long!r}, token by token, so its probability holds the other's and would "
                "count twice: leave one out, or end both with what closes a word (a full stop, a newline)."
            )
