"""Words as the lexical readers see them: tokens, sentences, closed lists, and what can be counted on the surface."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")  # letters of any alphabet, and digits
FUNCTION_WORDS = (
    "a about above across after again against all almost along already also although always am among an and "
    "another any anybody anyone anything are around as at away back be because been before behind being below "
    "beside between beyond both but by can cannot could did do does down during each either else enough even "
    "ever every everybody everyone everything few for from had has have he her here hers herself him himself "
    "his how i if in inside instead into is it its itself just last least less like many may me might mine "
    "more most much must my myself near neither never next no nobody none nor not nothing now of off often on "
    "once one only onto or other our out outside over own past per quite rather round same several shall she "
    "should since so some somebody someone something still such than that the their theirs them themselves "
    "then there these they this those though through till to together too towards under until up upon us very "
    "was we were what when where whether which while who whoever whom whose why will with within without would "
    "yet you your"
).split()


def words(text: str) -> list[str]:
    """Lower-cased words; an apostrophe joins.

    >>> words("She hadn't gone.")
    ['she', "hadn't", 'gone']
    """
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def function_word_rates(texts: Sequence[str]) -> Float[np.ndarray, "item 1 d"]:
    """The rate of each function word and of words ending in n't, per word of the text."""
    index = {word: i for i, word in enumerate(FUNCTION_WORDS)}
    out = np.zeros((len(texts), 1, len(index) + 1))
    for row, text in enumerate(texts):
        found = words(text)
        for word in found:
            place = len(index) if word.endswith("n't") else index.get(word)
            if place is not None:
                out[row, 0, place] += 1 / len(found)
    return out


def surface_features(texts: Sequence[str]) -> Float[np.ndarray, "item 1 d"]:
    """Characters, words, sentences, words a sentence, letters a word, type-token ratio, capitals, and six marks."""
    rows = []
    for text in texts:
        found, sentences = words(text) or [""], max(1, len(re.findall(r"[.?!]+", text)))
        marks = [text.count(mark) for mark in (",", ";", ":", "-", '"', "'")]
        rows.append([
            len(text), len(found), sentences, len(found) / sentences, sum(map(len, found)) / len(found),
            len(set(found)) / len(found), sum(c.isupper() for c in text), *marks,
        ])  # fmt: skip
    return np.array(rows, dtype=float)[:, None]


def grams(text: str) -> list[str]:
    """Words and pairs of neighbouring words.

    >>> grams("The dog slept.")
    ['the', 'dog', 'slept', 'the dog', 'dog slept']
    """
    found = words(text)
    return found + [f"{a} {b}" for a, b in pairwise(found)]


NEGATIONS = frozenset("not no never nothing none nobody nowhere neither nor without cannot".split())
ABSOLUTES = frozenset(
    "all every each any some only still left last ever always already just everything everyone entire whole".split()
)
OFFICE = frozenset(
    "standard reviewed noted routine scheduled schedule documented logged filed updated procedure protocol assessment "
    "processed regular report reported listed confirmed checked recorded figures spreadsheet quarterly".split()
)
CLICHES = (
    r"tears?\b(?! (?:up|off|open|out|down|in two|it|the))", r"trembl\w*", r"shiver\w*", r"shudder\w*", r"goosebumps?",
    r"gasp\w*", r"scream\w*", r"sobb\w*", r"clench\w* (?:his|her|their) (?:fists?|jaws?|teeth)",
    r"heart (?:was |were )?(?:pound|rac|sank|leap|leapt|broke)\w*", r"(?:went|turned) pale", r"grin(?:ned|ning|s)?\b",
    r"smil\w+", r"frown\w*", r"blush\w*", r"lump in (?:his|her|their) throat",
    r"(?:sadly|luckily|unluckily|fortunately|unfortunately|tragically|wonderfully|terribly|awfully|dreadfully)\b",
    r"(?:horribly|hopefully|mercifully|beautifully|miraculously|sickeningly|shockingly|thankfully)\b", r"!",
)  # fmt: skip


def sentences(text: str) -> list[str]:
    """Sentences, split after a full stop, a question mark or an exclamation mark (and a closing quotation mark).

    >>> sentences('He said "No." Then he left.')
    ['He said "No."', 'Then he left.']
    """
    return [part for part in re.split(r"(?<=[.?!])\s+|(?<=[.?!][\"'\u201d\u2019])\s+", text.strip()) if part]


def count(text: str, among: frozenset[str]) -> int:
    """How many words of ``text`` are in a closed list; words in n't are negations.

    >>> count("She didn't say no.", NEGATIONS)
    2
    """
    return sum(word in among or (among is NEGATIONS and word.endswith("n't")) for word in words(text))
