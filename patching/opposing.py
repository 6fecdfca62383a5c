"""``opposed``: pairs of emotional texts from one setting that differ in their emotion, or in their valence.

A scene and its neutral partner share their topic, so what tells one emotion from another may be the same in both: then
there is no gap to patch. Two scenes from one setting with different emotions have one by design. They share no words
beyond chance, so only what follows the texts, a cue, has matched tokens that are the same words.
"""

import numpy as np

from affectlens.errors import BatteryError
from affectlens.stimuli import Battery, Stimulus

BY = ("emotion", "valence")


def opposed(
    battery: Battery, by: str = "emotion", *, pairs: int | None = None, seed: int = 0
) -> list[tuple[Stimulus, Stimulus]]:
    """Couples of emotional texts of one domain with different emotions, or with opposite valence; each text once.

    Args:
        battery: whose items with the role ``emotional`` are taken, crossed quadruples left out.
        by: ``emotion`` or ``valence``.
        pairs: take so many at most, spread evenly over domains; all by default.
        seed: of the couples and of which text is the clean one.

    Raises:
        BatteryError: if there is no such couple, or ``by`` is neither.
    """
    if by not in BY:
        raise BatteryError(f"Texts are not opposed by {by!r}; choose from {', '.join(BY)}.")
    rng = np.random.default_rng(seed)
    domains: dict[str | None, list[Stimulus]] = {}
    for at in rng.permutation(len(battery)):
        item = battery.items[at]
        if item.role == "emotional" and item.cell is None and (by == "emotion" or item.valence):
            domains.setdefault(item.domain, []).append(item)
    couples = [_coupled(items, by) for _, items in sorted(domains.items(), key=lambda pair: str(pair[0]))]
    found = [one[i] for i in range(max(map(len, couples), default=0)) for one in couples if i < len(one)]
    if not found:
        raise BatteryError(f"{battery.name} has no two emotional texts of one domain that differ in {by}.")
    return found[:pairs]


def _coupled(items: list[Stimulus], by: str) -> list[tuple[Stimulus, Stimulus]]:
    """Each text with the next one that differs, as far as they go."""
    left, out = list(items), []
    while left:
        one = left.pop()
        other = next((item for item in left if getattr(item, by) != getattr(one, by)), None)
        if other is not None:
            left.remove(other)
            out.append((one, other))
    return out
