"""Schemes of emotion and the ways between them: Plutchik, Ekman, Parrott, GoEmotions.

A mapping gives None where the other scheme has no place for an emotion: Ekman has no trust and no anticipation, nor has
GoEmotions, and a judge that lacks a class abstains. Nothing is mapped by resemblance alone.

Sources: Plutchik (1980; 2001, American Scientist 89) for intensities, opposites and dyads; Ekman (1992, Cognition and
Emotion 6) for the six; Parrott (2001, Emotions in Social Psychology), after Shaver, Schwartz, Kirson and O'Connor
(1987, JPSP 52), for the three tiers; Demszky et al. (2020, ACL) for the 28 labels and their grouping under Ekman's six.
"""

from collections.abc import Iterable
from typing import NamedTuple

from affectlens.errors import BatteryError
from affectlens.stimuli.taxonomy import EMOTIONS, PEAK, canonical


class Petal(NamedTuple):
    """One of Plutchik's eight at its three intensities."""

    mild: str
    basic: str
    peak: str


_MILD = "serenity acceptance apprehension distraction pensiveness boredom annoyance interest".split()
PLUTCHIK = {basic: Petal(mild, basic, PEAK[basic]) for mild, basic in zip(_MILD, EMOTIONS, strict=True)}
OPPOSITE = {"joy": "sadness", "trust": "disgust", "fear": "anger", "surprise": "anticipation"}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}
DYADS = {  # pairs of neighbours, of next but one, of next but two; opposites do not blend
    "love": ("joy", "trust"), "submission": ("trust", "fear"), "awe": ("fear", "surprise"),
    "disapproval": ("surprise", "sadness"), "remorse": ("sadness", "disgust"), "contempt": ("disgust", "anger"),
    "aggressiveness": ("anger", "anticipation"), "optimism": ("anticipation", "joy"),
    "guilt": ("joy", "fear"), "curiosity": ("trust", "surprise"), "despair": ("fear", "sadness"),
    "unbelief": ("surprise", "disgust"), "envy": ("sadness", "anger"), "cynicism": ("disgust", "anticipation"),
    "pride": ("anger", "joy"), "hope": ("anticipation", "trust"),
    "delight": ("joy", "surprise"), "sentimentality": ("trust", "sadness"), "shame": ("fear", "disgust"),
    "outrage": ("surprise", "anger"), "pessimism": ("sadness", "anticipation"), "morbidness": ("disgust", "joy"),
    "dominance": ("anger", "trust"), "anxiety": ("anticipation", "fear"),
}  # fmt: skip
EKMAN = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
EKMAN_OF_GOEMOTIONS = {
    "anger": "anger annoyance disapproval", "disgust": "disgust", "fear": "fear nervousness",
    "joy": "joy amusement approval excitement gratitude love optimism relief pride admiration desire caring",
    "sadness": "sadness disappointment embarrassment grief remorse",
    "surprise": "surprise realization confusion curiosity",
}  # fmt: skip
GOEMOTIONS = (*sorted(" ".join(EKMAN_OF_GOEMOTIONS.values()).split()), "neutral")
PARROTT: dict[str, dict[str, str]] = {
    "love": {
        "affection": "adoration affection love fondness liking attraction caring tenderness compassion sentimentality",
        "lust": "arousal desire lust passion infatuation", "longing": "longing",
    },
    "joy": {
        "cheerfulness": "amusement bliss cheerfulness gaiety glee jolliness joviality joy delight enjoyment gladness "
                        "happiness jubilation elation satisfaction ecstasy euphoria",
        "zest": "enthusiasm zeal zest excitement thrill exhilaration", "contentment": "contentment pleasure",
        "pride": "pride triumph", "optimism": "eagerness hope optimism", "enthrallment": "enthrallment rapture",
        "relief": "relief",
    },
    "surprise": {"surprise": "amazement surprise astonishment"},
    "anger": {
        "irritation": "aggravation irritation agitation annoyance grouchiness grumpiness",
        "exasperation": "exasperation frustration",
        "rage": "anger rage outrage fury wrath hostility ferocity bitterness hate loathing scorn spite vengefulness "
                "dislike resentment",
        "disgust": "disgust revulsion contempt", "envy": "envy jealousy", "torment": "torment",
    },
    "sadness": {
        "suffering": "agony suffering hurt anguish",
        "sadness": "depression despair hopelessness gloom glumness sadness unhappiness grief sorrow woe misery "
                   "melancholy",
        "disappointment": "dismay disappointment displeasure", "shame": "guilt shame regret remorse",
        "neglect": "alienation isolation neglect loneliness rejection homesickness defeat dejection insecurity "
                   "embarrassment humiliation insult",
        "sympathy": "pity sympathy",
    },
    "fear": {
        "horror": "alarm shock fear fright horror terror panic hysteria mortification",
        "nervousness": "anxiety nervousness tenseness uneasiness apprehension worry distress dread",
    },
}  # fmt: skip
_TERTIARY = {t: (p, s) for p, tree in PARROTT.items() for s, words in tree.items() for t in words.split()}
_PETAL = {word: petal.basic for petal in PLUTCHIK.values() for word in petal}
_WORDS = {"happiness": "joy", "happy": "joy", "sad": "sadness", "angry": "anger", "afraid": "fear", "fearful": "fear",
          "disgusted": "disgust", "surprised": "surprise", "trusting": "trust"}  # fmt: skip
_TO_EKMAN = {e: e for e in EKMAN}
_TO_PARROTT = {
    "joy": "joy",
    "fear": "fear",
    "surprise": "surprise",
    "sadness": "sadness",
    "disgust": "anger",
    "anger": "anger",
}
_GO_EKMAN = {label: ekman for ekman, labels in EKMAN_OF_GOEMOTIONS.items() for label in labels.split()}
SCHEMES = ("plutchik", "ekman", "parrott", "goemotions")


def plutchik(word: str) -> str | None:
    """The one of Plutchik's eight that a word names, at any intensity, or None.

    >>> plutchik("serenity"), plutchik("happiness"), plutchik("guilt")
    ('joy', 'joy', None)
    """
    word = word.strip().lower()
    return _PETAL.get(word) or _WORDS.get(word)


def tiers(word: str) -> tuple[str, str] | None:
    """Parrott's first and second tier above a word of the third, or None.

    >>> tiers("grief")
    ('sadness', 'sadness')
    """
    return _TERTIARY.get(word.strip().lower())


def relabel(names: Iterable[str | None], to: str, *, source: str = "plutchik") -> list[str | None]:
    """Labels of one scheme as labels of another; None where the other has none.

    >>> relabel(["grief", "trust", "disgust", None], "ekman")
    ['sadness', None, 'disgust', None]
    >>> relabel(["remorse", "neutral"], "plutchik", source="goemotions")
    ['sadness', None]

    Args:
        names: labels; None and ``neutral`` stay without an emotion.
        to: plutchik, ekman, parrott (its first tier) or goemotions (labels of that name only). To their own scheme
            labels come back as they are: plutchik's by the basic name, parrott's by the first tier.
        source: the scheme that the labels are in.

    Raises:
        BatteryError: an unknown scheme, or a label that the source does not have.
    """
    for scheme in (to, source):
        if scheme not in SCHEMES:
            raise BatteryError(f"There is no scheme {scheme!r}; there are {', '.join(SCHEMES)}.")
    plain = [None if name is None else str(name).strip().lower() for name in names]
    return [None if name in (None, "neutral") else _relabelled(name, to, source) for name in plain]


def _relabelled(name: str, to: str, source: str) -> str | None:
    if source == "plutchik":
        basic = _PETAL.get(name) or canonical(name)
    elif source == "ekman":
        basic = _known(name, _TO_EKMAN, source)
    elif source == "goemotions":
        basic = _known(name, _GO_EKMAN, source)
        if to == "parrott" and name in _TERTIARY:
            return _TERTIARY[name][0]
    else:
        first, basic = _from_parrott(name)
        if to == "parrott":
            return first
    if to == source:
        return basic if to == "plutchik" else name
    if to == "plutchik":
        return basic if basic in EMOTIONS else None
    if to == "ekman":
        return _TO_EKMAN.get(basic)
    if to == "parrott":
        return _TO_PARROTT.get(basic)
    return basic if basic in GOEMOTIONS else None


def _known(name: str, table: dict[str, str], source: str) -> str:
    if name not in table:
        raise BatteryError(f"{name!r} is no label of {source}; there are {', '.join(sorted(table))}.")
    return table[name]


def _from_parrott(name: str) -> tuple[str, str]:
    """The first tier; and Plutchik's name for the word or else for its second tier, or again the first tier."""
    first = name if name in PARROTT else next((p for p, tree in PARROTT.items() if name in tree), None)
    first, second = _TERTIARY.get(name) or (first, name)
    if first is None:
        raise BatteryError(f"{name!r} is no word of Parrott's three tiers.")
    return first, _PETAL.get(name) or _PETAL.get(second) or first
