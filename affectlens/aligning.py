"""Token spans of a matched pair whose texts differ in length: shared prefix, changed clause, shared suffix, ending.

The prefix is the longest run of equal tokens from the start, the suffix the longest from the end of what is left, and
the changed clause everything between. The prefix comes first, so what repeats ("a a", "a a a") is never counted twice.

What activation patching can rely on:

- Prefix and suffix are paired one to one, and paired tokens are the same token. With causal attention the prefix has
  the same activations in both texts, so patching there changes nothing; the suffix has the same words after a
  different past, and there a difference is the past's doing.
- The changed clause is paired **from the right**, because its last tokens have read the whole of it; when the lengths
  differ, the first tokens of the longer clause have no partner. These pairs are places, not equal words.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from affectlens.errors import ModelError
from affectlens.layouts import Layout, ending_start, lay_out

Pair = tuple[int, int]


@runtime_checkable
class Item(Protocol):
    """What an alignment needs of a stimulus: a name, a text, and where its ending begins, in characters."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def ending(self) -> int: ...


@dataclass(frozen=True)
class Side:
    """One text of an alignment. The ranges hold positions in the tokenised sequence, BOS included, half-open.

    ``prefix``, ``changed`` and ``suffix`` follow one another and make up the sequence; ``ending`` lies across them.
    """

    name: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]  # the characters that each token adds to the text
    prefix: range
    changed: range
    suffix: range
    ending: range  # the last sentence, or the stimulus' own ending; no token that the tokenizer or a template added

    def text(self, span: range) -> str:
        """The characters of the tokens in ``span``."""
        return "".join(self.tokens[i] for i in span)


@dataclass(frozen=True, repr=False)
class Alignment:
    """Two texts, cut into shared prefix, changed clause and shared suffix; print it, or show it in a notebook."""

    a: Side
    b: Side

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """``(position in a, position in b)`` over prefix and suffix: the same token on both sides."""
        return (*zip(self.a.prefix, self.b.prefix, strict=True), *zip(self.a.suffix, self.b.suffix, strict=True))

    @property
    def changed_pairs(self) -> tuple[Pair, ...]:
        """The changed clause's pairs, counted from its end; the longer clause's first tokens are in none."""
        both = min(len(self.a.changed), len(self.b.changed))
        here, there = (side.changed[len(side.changed) - both :] for side in (self.a, self.b))
        return tuple(zip(here, there, strict=True))

    @property
    def ending_shared(self) -> bool:
        """Whether the endings are the same tokens, each with its partner: then only the past tells the texts apart."""
        ends = len(self.a.ending) == len(self.b.ending)
        return ends and set(zip(self.a.ending, self.b.ending, strict=False)) <= set(self.pairs)

    def swapped(self) -> "Alignment":
        """The same alignment with ``a`` and ``b`` exchanged."""
        return Alignment(self.b, self.a)

    def __repr__(self) -> str:
        a, b = self.a, self.b
        return (
            f"Alignment({a.name}, {b.name}: {len(a.ids)} and {len(b.ids)} tokens; prefix {len(a.prefix)}, "
            f"changed {len(a.changed)} and {len(b.changed)}, suffix {len(a.suffix)})"
        )

    def __str__(self) -> str:
        from affectlens.marking import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from affectlens.marking import as_html

        return as_html(self)


def align(model: Any, a: str | Item, b: str | Item, *, chat: bool = False) -> Alignment:
    """Cut two texts into shared prefix, changed clause and shared suffix, by token.

    >>> from affectlens.testing import tiny_tokenizer
    >>> found = align(tiny_tokenizer(), "It rained. He ran.", "It thawed. He ran.")
    >>> found.a.changed, found.b.changed, found.pairs[-1]
    (range(3, 7), range(3, 7), (17, 17))

    Args:
        model: a :class:`LensModel`, or a fast tokenizer.
        a: a text or a stimulus. A text's ending is its last sentence; a stimulus may carry its own.
        b: the other.
        chat: make each text the user's message of a conversation, as ``capture(chat=True)`` does.

    Raises:
        ModelError: a tokenizer that is not fast, so that it can't place tokens in the text.
        CaptureError: a text without tokens or longer than the context.
    """
    rows = [
        {"id": name, "text": given, "ending": ending_start(given)}
        if isinstance(given, str)
        else {"id": given.id, "text": given.text, "ending": given.ending}
        for given, name in ((a, "a"), (b, "b"))
    ]
    reader = _reader(model)
    return cut(reader.tokenizer, *lay_out(reader, pd.DataFrame(rows), chat=chat))


def align_rows(
    model: Any, items: pd.DataFrame, pairs: Iterable[tuple[str, str]], *, chat: bool = False
) -> Iterator[Alignment]:
    """Alignments of many pairs, given by ids, with each text tokenised once.

    Args:
        model: a :class:`LensModel`, or a fast tokenizer.
        items: ``id`` and ``text``, and ``ending`` (characters) where the items have their own.
        pairs: ids.
        chat: make each text the user's message of a conversation.
    """
    reader = _reader(model)
    layouts = {layout.name: layout for layout in lay_out(reader, items, chat=chat)}
    for a, b in pairs:
        yield cut(reader.tokenizer, layouts[a], layouts[b])


def cut(tokenizer: Any, a: Layout, b: Layout) -> Alignment:
    """Align two tokenised texts: the longest shared prefix, then the longest shared suffix of what is left.

    Args:
        tokenizer: theirs, for the names of its special tokens.
        a: a text.
        b: the other.
    """
    prefix = _run(a.ids, b.ids)
    suffix = _run(a.ids[prefix:][::-1], b.ids[prefix:][::-1])

    def side(layout: Layout) -> Side:
        n = len(layout)
        late = np.flatnonzero(layout.content & layout.covers(layout.ending, len(layout.text)))
        ending = range(int(late[0]), int(late[-1]) + 1) if len(late) else range(n, n)
        spans = range(prefix), range(prefix, n - suffix), range(n - suffix, n)
        return Side(layout.name, tuple(layout.ids), tuple(_tokens(tokenizer, layout)), *spans, ending=ending)

    return Alignment(side(a), side(b))


def _reader(model: Any) -> Any:
    """What can lay out texts: the model, or a stand-in around a tokenizer."""
    tokenizer = getattr(model, "tokenizer", model)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"Give align a model or a fast tokenizer, which places tokens in the text; got {model!r:.80}.")
    return model if tokenizer is not model else SimpleNamespace(tokenizer=model, n_ctx=2**31, name="the tokenizer")


def _tokens(tokenizer: Any, layout: Layout) -> Iterator[str]:
    """Each token's characters from the end of the one before: no space is lost, no split character shows twice."""
    done = 0
    for token, (start, end) in zip(layout.ids, layout.spans, strict=True):
        yield layout.text[done:end] if end > start else str(tokenizer.convert_ids_to_tokens(token))
        done = max(done, end)


def _run(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens are equal from the start."""
    for i, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return i
    return min(len(a), len(b))
