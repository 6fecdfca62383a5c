"""Token positions: which tokens of a text a pooled activation stands for.

Positions are absolute in the sequence, so padding, batching and caching never move them.

The first token is left out of ``mean`` whether or not it is a BOS: in most language models it is an attention
sink whose residual norm says nothing about the text (on SmolLM2-135M 22,680 at layer 15, where every other
token of the same sentence lies between 130 and 200), and a mean that includes it mostly encodes the length.
"""

import re

import numpy as np
from jaxtyping import Bool, Float

from affectlens.errors import CaptureError

NAMES = ("mean", "last", "ending")
_SENTENCE_END = re.compile(r"[.?!][\"')\]]*\s+(?=\S)")


def check_positions(names: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """``names`` as a tuple without repeats, each one known.

    Raises:
        CaptureError: if a name is unknown or none is given.
    """
    wanted = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in NAMES]
    if unknown or not wanted:
        raise CaptureError(f"Positions {unknown or '()'} are not known; choose from {', '.join(NAMES)}.")
    return wanted


def ending_start(text: str) -> int:
    """The offset, in characters, of the last sentence of ``text``.

    >>> ending_start("The bell rang. Nobody came.")
    15
    """
    starts = [match.end() for match in _SENTENCE_END.finditer(text)]
    return starts[-1] if starts else 0


def weights(
    name: str,
    spans: list[tuple[int, int]],
    special: Bool[np.ndarray, "pos"],
    ending: int,
) -> Float[np.ndarray, "pos"]:
    """The pooling weights of one text, summing to one.

    Args:
        name: ``mean``, ``last`` or ``ending``.
        spans: the characters that each token covers, as the tokenizer gives them.
        special: the tokens that the tokenizer added.
        ending: where the text's ending begins, in characters.

    Returns:
        A vector over the tokens. ``mean`` weighs the text's tokens but the first of the sequence; ``last`` the last
        one; ``ending`` those that cover a character at or after ``ending``.
    """
    text = ~special
    if name == "last":
        chosen = np.zeros_like(text)
        chosen[np.flatnonzero(text)[-1:]] = True
    elif name == "ending":
        chosen = text & np.array([end > ending for _, end in spans], dtype=bool)
    else:
        chosen = text.copy()
    if name != "last" and chosen.sum() > 1:
        chosen[0] = False
    if not chosen.any():
        raise CaptureError(f"Position {name!r} picks no token.")
    return (chosen / chosen.sum()).astype(np.float32)
