"""Names of emotions: Plutchik's eight, with the peak form of each as an alias of its basic one.

Plutchik, R. (1980), A general psychoevolutionary theory of emotion, in Theories of Emotion, vol. 1.
"""

from affectlens.errors import BatteryError

PEAK = {
    "joy": "ecstasy",
    "trust": "admiration",
    "fear": "terror",
    "surprise": "amazement",
    "sadness": "grief",
    "disgust": "loathing",
    "anger": "rage",
    "anticipation": "vigilance",
}
EMOTIONS = tuple(PEAK)
_ALIASES = {peak: basic for basic, peak in PEAK.items()} | {basic: basic for basic in EMOTIONS}


def canonical(name: str) -> str:
    """The basic name of an emotion, from its basic or its peak word.

    >>> canonical("grief")
    'sadness'

    Raises:
        BatteryError: if the name is neither.
    """
    try:
        return _ALIASES[name.strip().lower()]
    except KeyError:
        raise BatteryError(
            f"{name!r} is not one of Plutchik's emotions: use {', '.join(EMOTIONS)}, "
            f"or a peak form ({', '.join(PEAK.values())})."
        ) from None
