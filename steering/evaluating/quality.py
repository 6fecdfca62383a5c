"""What is wrong with a reply as text: repetition, poverty of words, refusal, and whether it is degenerate. English.

Distinct-n (Li et al. 2016, arXiv:1510.03055) is the number of different n-grams over the number of n-grams. A loop is
a unit of one to eight tokens that comes at least three times on end (a single token, four times): a model that has
broken down loops, and its perplexity then *falls*, which is why perplexity alone can't tell. Tokens are lower-cased
words and punctuation marks, not the model's.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

LOOPED = 0.3  # share of tokens in loops: a chorus stays below, a reply that has run into a loop ends in it
POOR = 0.5  # distinct-2: every bigram twice; 64 tokens of human prose have 0.9 and more
STRANGE = 10.0  # times the plain replies' perplexity: 2.3 nats a token above; word salad is 4 and more above
SHORT = 8  # bigrams below which distinct-2 says nothing
_LONGEST = 8  # tokens in the unit of a loop
_TOKEN = re.compile(r"\w+(?:'\w+)*|[^\w\s]")
_DO = r"(?:help (?:you|with)|assist|provide|fulfil+|comply|engage|generate|answer (?:that|this)|do that|discuss)"
REFUSALS = {
    "apology": r"\b(?:i'm|i am) (?:(?:very|so|really) )?sorry,? (?:but )?(?:i|as an)\b.{0,40}?"
    r"\b(?:can't|cannot|can not|unable|won't|not able)\b|\bi apologi[sz]e,? but i\b",
    "inability": rf"\bi(?: (?:can't|cannot|can not|could not|couldn't)|(?:'m| am) (?:unable|not able) to) {_DO}\b",
    "machine": r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|virtual assistant|chatbot)\b",
    "unwilling": rf"\bi (?:won't|will not|refuse to|must decline|have to decline)(?: to)?(?: {_DO}|\.|$)",
    "policy": r"\bagainst my (?:guidelines|programming|policy|policies)\b|\bnot appropriate for me to\b",
}
_REFUSALS = {name: re.compile(pattern, re.I | re.S) for name, pattern in REFUSALS.items()}


def quality(
    texts: Sequence[str], *, perplexity: Float[np.ndarray, " text"] | None = None, typical: float | None = None
) -> pd.DataFrame:
    """One row a text, in order: ``tokens, distinct1, distinct2, repetition, longest_repeat, refusal, degenerate, why``.

    ``repetition`` is the share of tokens in loops, ``longest_repeat`` the longest run of tokens covered by 4-grams that
    the text had before, ``refusal`` the name of the first rule of ``REFUSALS`` that the text meets, or empty.
    ``why`` says what makes a text degenerate: ``empty``, ``loop`` (repetition above 0.3), ``poor`` (distinct-2 below
    0.5 in eight bigrams or more) or ``strange`` (perplexity above ten times ``typical``).

    Args:
        texts: the replies.
        perplexity: of each under the unsteered model; NaN where there is none.
        typical: the perplexity of ordinary replies: the geometric mean of the plain ones. Without it none is strange.
    """
    each = {text: _measured(text) for text in dict.fromkeys(texts)}
    rows = pd.DataFrame([each[text] for text in texts], columns=_COLUMNS)
    strange = np.zeros(len(rows), dtype=bool)
    if perplexity is not None and typical is not None:
        strange = np.nan_to_num(perplexity, nan=0.0, posinf=np.inf) > STRANGE * typical
    poor = (rows["distinct2"] < POOR) & (rows["tokens"] > SHORT)
    causes = [rows["tokens"] == 0, rows["repetition"] > LOOPED, poor, strange]
    why = np.select([np.asarray(cause, dtype=bool) for cause in causes], ["empty", "loop", "poor", "strange"], "")
    return rows.assign(degenerate=why != "", why=why)


_COLUMNS = ["tokens", "distinct1", "distinct2", "repetition", "longest_repeat", "refusal"]


def _measured(text: str) -> tuple[int, float, float, float, int, str]:
    plain = text.replace("\u2019", "'")
    tokens = _TOKEN.findall(plain.lower())
    refusal = next((name for name, rule in _REFUSALS.items() if rule.search(plain)), "")
    return (len(tokens), distinct(tokens, 1), distinct(tokens, 2), looped(tokens), longest_repeat(tokens), refusal)


def distinct(tokens: Sequence[str], n: int) -> float:
    """Different n-grams over n-grams; NaN if there is none.

    >>> distinct("a b a b a".split(), 2)
    0.5

    Args:
        tokens: of a text.
        n: the length of a gram.
    """
    grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else float("nan")


def looped(tokens: Sequence[str]) -> float:
    """The share of tokens in loops; NaN of nothing.

    >>> looped("I am so so so so glad".split())
    0.5714285714285714

    Args:
        tokens: of a text.
    """
    inside = np.zeros(len(tokens), dtype=bool)
    for n in range(1, min(_LONGEST, len(tokens) // 3) + 1):
        need = n * (3 if n == 1 else 2)  # tokens that equal the one n before, on end
        run = 0
        for i in range(n, len(tokens)):
            run = run + 1 if tokens[i] == tokens[i - n] else 0
            if run >= need:
                inside[i - run - n + 1 : i + 1] = True
    return float(inside.mean()) if len(tokens) else float("nan")


def longest_repeat(tokens: Sequence[str]) -> int:
    """The longest run of tokens covered by 4-grams that came before; 0 if none came twice.

    >>> longest_repeat("we went to the sea and we went to the sea again".split())
    5

    Args:
        tokens: of a text.
    """
    seen: set[tuple[str, ...]] = set()
    longest = run = 0
    for i in range(len(tokens) - 3):
        gram = tuple(tokens[i : i + 4])
        run = (run + 1 if run else 4) if gram in seen else 0
        longest = max(longest, run)
        seen.add(gram)
    return longest
