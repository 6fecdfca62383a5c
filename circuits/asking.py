"""What a circuit is asked about: an emotion's scenes beside their neutral twins, dealt in two, and a metric.

Edges are scored and chosen on one half of the scenes and judged on the other. The halves share no scene, and each has
its part of every domain.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.patching.metrics import Metric, words_of
from affectlens.patching.named import CUE, named_metrics
from affectlens.patching.pairs import PatchPair, prepare
from affectlens.stimuli import Battery
from affectlens.stimuli.taxonomy import canonical

CONTRAST = "emotional/neutral"
LEAST = 4  # scenes of each half


@dataclass(frozen=True, eq=False)
class Question:
    """One emotion's pairs and what is read of them."""

    emotion: str
    metric: Metric
    discovery: tuple[PatchPair, ...]  # edges are scored and chosen on these
    held: tuple[PatchPair, ...]  # and judged on these


def questions(
    model: LensModel, battery: Battery, emotions: Sequence[str], *, metric: str = "said_category",
    contrast: str = CONTRAST, layer: int | None = None, pairs: int | None = None, cue: str = CUE, chat: bool = False,
    seed: int = 0, progress: bool | None = None,
) -> list[Question]:  # fmt: skip
    """A question for each emotion.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: with matched pairs.
        emotions: by Plutchik's basic or peak words.
        metric: by name, as :func:`affectlens.patching.named_metrics` takes it.
        contrast: which pairs: ``emotional/neutral``, ``ax/bx``.
        layer: that read-outs read.
        pairs: how many scenes of each emotion at most; all by default.
        cue: what is written after each text.
        chat: make each text the user's message of a conversation.
        seed: of the halves.
        progress: show bars.

    Raises:
        CircuitError: an emotion without enough scenes of this contrast.
        PatchError: a metric that is not known.
    """
    (found,) = named_metrics(model, battery, [metric], layer=layer, cue=cue, chat=chat, seed=seed, progress=progress)
    asked = [canonical(name) for name in emotions]
    every = [pair for pair in prepare(model, battery, labels=words_of([found]), cue=cue, chat=chat)
             if pair.contrast == contrast]  # fmt: skip
    out = []
    for emotion in dict.fromkeys(asked):
        mine = [pair for pair in every if pair.emotion == emotion]
        halves = halve(mine, pairs, seed)
        scenes = [len({pair.group for pair in half}) for half in halves]
        if min(scenes) < LEAST:
            there = sorted({str(pair.emotion) for pair in every if pair.emotion})
            raise CircuitError(
                f"{sum(scenes)} scenes of {battery.name} have pairs {contrast} of {emotion}; a circuit needs eight "
                f"scenes, four to find it and four to judge it (there are pairs of {', '.join(there) or 'no emotion'})."
            )
        out.append(Question(emotion, found, *halves))
    return out


def halve(
    pairs: Sequence[PatchPair], most: int | None = None, seed: int = 0
) -> tuple[tuple[PatchPair, ...], tuple[PatchPair, ...]]:
    """Pairs dealt in two by scene, domain by domain.

    Args:
        pairs: of one emotion.
        most: scenes to take, of all domains alike; all by default.
        seed: of the dealing.
    """
    domains = {pair.group: str(pair.domain) for pair in pairs}
    rng, counts, rank = np.random.default_rng(seed), Counter[str](), dict[str, int]()
    for at in rng.permutation(len(domains)):
        name = list(domains)[at]
        rank[name] = counts[domains[name]]
        counts[domains[name]] += 1
    kept = sorted(rank, key=lambda name: (rank[name], domains[name]))[:most]
    side = {name: at % 2 for at, name in enumerate(sorted(kept, key=lambda name: (domains[name], rank[name])))}
    first, second = (tuple(pair for pair in pairs if side.get(pair.group) == half) for half in (0, 1))
    return first, second
