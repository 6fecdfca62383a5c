"""Texts without their emotion words: what a judge still sees when a reply may not name its emotion."""

import re
from functools import lru_cache

from affectlens.stimuli.auditing.wording import emotion_words

TOKEN = "something"
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


def without_words(text: str, *, token: str = TOKEN) -> str:
    """The text with each emotion word of our lexicon replaced; a capital stays one.

    >>> without_words("Happy news! I was so afraid of it.")
    'Something news! I was so something of it.'

    Args:
        text: any text.
        token: what stands in a word's place.
    """
    return _WORD.sub(lambda found: _masked(found.group(), token), text)


@lru_cache(maxsize=65536)
def _masked(word: str, token: str) -> str:
    if not emotion_words(word):
        return word
    return token[:1].upper() + token[1:] if word[:1].isupper() else token
