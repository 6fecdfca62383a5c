"""Token scores as pieces of text to look at: every character once, with the score of the tokens that cover it."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from affectlens.probing.tokens.scores import TextScores, TokenScores


@dataclass(frozen=True)
class Piece:
    """Characters that are shown together, and the tokens that cover them; none where the tokenizer skips them."""

    start: int
    end: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Shown:
    """One piece with its score, the mean over its tokens."""

    text: str
    score: float
    winner: str  # the class, where the winning one is shown
    why_grey: str  # empty if it is coloured
    tokens: int

    def __str__(self) -> str:
        return f"{self.score:+.2f}" + (f" {self.winner}" if self.winner else "")


def cut(text: str, spans: Sequence[tuple[int, int]]) -> tuple[Piece, ...]:
    """``text`` in pieces, each character in exactly one.

    Tokens that share a character are joined, and so are those that share what is one sign to the eye: a letter and its
    combining marks, an emoji and its modifiers, a carriage return and its line feed.

    >>> [(p.start, p.end, p.tokens) for p in cut("a \N{SNOWMAN}", [(0, 1), (2, 3), (2, 3)])]
    [(0, 1, (0,)), (1, 2, ()), (2, 3, (1, 2))]
    """
    cuts = {0, len(text)} | {at for start, end in spans if start < end for at in (start, end)}
    for start, end in spans:
        cuts.difference_update(range(start + 1, end))
    edges = sorted(at for at in cuts if not 0 < at < len(text) or not _one_sign(text, at))
    tokens: list[list[int]] = [[] for _ in edges[1:]]
    for token, (start, _) in enumerate(spans):
        tokens[min(bisect_right(edges, start), len(tokens)) - 1].append(token)
    return tuple(Piece(a, b, tuple(t)) for a, b, t in zip(edges, edges[1:], tokens, strict=False))


def _one_sign(text: str, at: int) -> bool:
    """Whether the characters on both sides of ``at`` are seen as one."""
    before, after = text[at - 1], text[at]
    joins = unicodedata.category(after).startswith("M") or after == "\u200d" or "\U0001f3fb" <= after <= "\U0001f3ff"
    return joins or before == "\u200d" or before + after == "\r\n"


def shown(scores: "TokenScores", one: "TextScores", layer: int | None = None) -> list[Shown]:
    """The pieces of a text with their scores at a layer, the chosen one by default."""
    at = scores.layers.index(scores.layer if layer is None else layer)
    out = []
    for piece in one.pieces:
        tokens = list(piece.tokens)
        kept = [t for t in tokens if one.scored[t] and not one.sinks[t, at]]
        why = ""
        if not kept:
            first, own = 0 in tokens, any(one.scored[t] for t in tokens)
            why = "no token" if not tokens else "first token" if first else "outlying norm" if own else "not the text's"
        score, winner = float("nan"), ""
        if tokens:
            values, winners = scores.scale(one.logits[kept or tokens].mean(0))
            score, winner = float(values[at]), "" if winners is None else scores.named(winners, at)
        out.append(Shown(one.text[piece.start : piece.end], score, winner, why, len(tokens)))
    return out


def limit(rows: Sequence[Sequence[Shown]]) -> float:
    """Where the scale ends: the distance from zero that 19 of 20 coloured pieces stay within, so that one of them can't
    pale the rest. With fewer than 20 it is the largest."""
    sizes = [abs(s.score) for row in rows for s in row if not s.why_grey]
    return float(np.quantile(sizes, 0.95, method="higher")) or 1.0 if sizes else 1.0


def visible(text: str) -> str:
    """``text`` with a mark before each line break, and pictures of other control characters in their place.

    >>> visible("a\\r\\nb\\rc")
    'a⏎\\nb␍c'
    """
    marked = re.sub(r"\r?\n", "⏎\n", text)
    return "".join(_picture(c) if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in marked)


def _picture(control: str) -> str:
    code = ord(control)
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"<{code:02x}>"
