"""Token positions: which tokens of a text a pooled activation stands for.

=================== ==========================================================================
``mean``            every token of the text
``mean_from(k)``    those from absolute position ``k`` on
``last``            the last one
``ending``          the last sentence, or the item's own ending
``span("text")``    the tokens that cover the first occurrence of these words
``turn(i)``         message ``i`` of a conversation, counted from 0, or back from the end by -1
``role(user)``      every message of a role
``template_end``    the last token of a rendered conversation, from which the reply begins
``all``             each token by itself, the tokenizer's own ones too; nothing is pooled
=================== ==========================================================================

Positions are absolute in the sequence, so padding, batching and caching never move them. In a conversation, ``mean``
and its kin mean the messages' words, not the template's.

Where several tokens are pooled, the first of the sequence is left out, whether or not it is a BOS: in most language
models it is an attention sink whose residual norm says nothing about the text (on SmolLM2-135M 22,680 at layer 15,
where every other token of the same sentence lies between 130 and 200), and a mean that includes it mostly encodes
the length.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from affectlens.errors import CaptureError
from affectlens.layouts import Layout

_PLAIN = ("mean", "last", "ending", "template_end", "all")
_NUMBERED = ("mean_from", "turn")
_NAMED = ("span", "role")
FORMS = 'mean, last, ending, mean_from(5), span("text"), turn(-1), role(user), template_end, all'


@dataclass(frozen=True)
class Position:
    """A pooling rule; prints and parses in the forms above.

    >>> str(Position.parse("span('the quay')"))
    'span("the quay")'
    """

    kind: str
    argument: int | str | None = None

    def __post_init__(self) -> None:
        known = (
            (self.kind in _PLAIN and self.argument is None)
            or (self.kind == "turn" and isinstance(self.argument, int))
            or (self.kind == "mean_from" and isinstance(self.argument, int) and self.argument >= 0)
            or (self.kind in _NAMED and isinstance(self.argument, str) and self.argument)
        )
        if not known:
            raise CaptureError(f"Position {self.kind!r} with {self.argument!r} is not known; choose from {FORMS}.")

    @classmethod
    def parse(cls, text: str) -> "Position":
        """The rule that ``text`` names.

        Raises:
            CaptureError: if it is none of the forms above.
        """
        match = re.fullmatch(r"(\w+)(?:\((.+)\))?", text.strip(), re.DOTALL)
        if match and match[1] in _PLAIN and match[2] is None:
            return cls(match[1])
        number = r"-?\d+" if match and match[1] == "turn" else r"\d+"
        if match and match[1] in _NUMBERED and re.fullmatch(number, match[2] or ""):
            return cls(match[1], int(match[2]))
        if match and match[1] in _NAMED and match[2]:
            return cls(match[1], _unquoted(match[2].strip()))
        raise CaptureError(f"Position {text!r} is not known; choose from {FORMS}.")

    def __str__(self) -> str:
        if self.argument is None:
            return self.kind
        said = json.dumps(self.argument, ensure_ascii=False) if self.kind == "span" else self.argument
        return f"{self.kind}({said})"

    @property
    def ragged(self) -> bool:
        """Whether it keeps every token instead of pooling them."""
        return self.kind == "all"

    def mask(self, layout: Layout) -> Bool[np.ndarray, "pos"]:
        """The tokens of one text that are meant.

        Raises:
            CaptureError: if the text has none: the words do not occur, or there is no such message.
        """
        chosen = self._chosen(layout)
        if not chosen.any():
            raise CaptureError(f"Position {self} picks no token of item {layout.name!r}.")
        if self.kind not in ("last", "all", "template_end") and chosen.sum() > 1:
            chosen[0] = False
        return chosen

    def weights(self, layout: Layout) -> Float32[np.ndarray, "pos"]:
        """Pooling weights over the tokens of one text, which sum to one."""
        mask = self.mask(layout)
        return (mask / mask.sum()).astype(np.float32)

    def _chosen(self, layout: Layout) -> np.ndarray:
        content = layout.content.copy()
        if self.kind == "last":
            return np.arange(len(content)) == (np.flatnonzero(content)[-1] if content.any() else -1)
        if self.kind == "ending":
            return content & layout.covers(layout.ending, len(layout.text))
        if self.kind == "mean_from":
            content[: int(self.argument or 0)] = False
            return content
        if self.kind == "span":
            words = str(self.argument)
            within = [(t.start, t.end) for t in layout.turns] or [(0, len(layout.text))]
            starts = [at for a, b in within if (at := layout.text.find(words, a, b)) >= 0]
            return content & layout.covers(starts[0], starts[0] + len(words)) if starts else content & False
        if self.kind in ("turn", "role", "template_end"):
            return self._of_turns(layout, content)
        return np.ones_like(content) if self.kind == "all" else content

    def _of_turns(self, layout: Layout, content: np.ndarray) -> np.ndarray:
        if not layout.turns:
            raise CaptureError(
                f"Position {self} needs a conversation, and item {layout.name!r} is a plain text: "
                "capture with chat=True, or give lists of messages."
            )
        if self.kind == "template_end":
            return np.arange(len(content)) == len(content) - 1
        if self.kind == "turn":
            at, n = int(self.argument or 0), len(layout.turns)
            turns = [layout.turns[at]] if -n <= at < n else []
        else:
            turns = [turn for turn in layout.turns if turn.role == self.argument]
        return np.logical_or.reduce([content & False, *(content & layout.covers(t.start, t.end) for t in turns)])


def parse_positions(names: str | Position | Iterable[str | Position]) -> tuple[Position, ...]:
    """The rules named, without repeats, in the given order.

    Raises:
        CaptureError: if a name is unknown or none is given.
    """
    listed = [names] if isinstance(names, str | Position) else list(names)
    found = tuple(dict.fromkeys(n if isinstance(n, Position) else Position.parse(n) for n in listed))
    if not found:
        raise CaptureError(f"No position is named; choose from {FORMS}.")
    return found


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text[1:-1]
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
