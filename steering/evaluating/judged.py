"""The judges' columns of a table of replies. A judge is given texts alone: not the target, not the dose."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from affectlens.steering.judging.masking import without_words
from affectlens.steering.judging.verdicts import Judge
from affectlens.stimuli.taxonomy import EMOTIONS


def judged(replies: pd.DataFrame, judges: Sequence[Judge], *, progress: bool | None = None) -> pd.DataFrame:
    """The replies with ``NAME`` (label, empty where it abstains), ``NAME.p`` and ``NAME.masked`` of each judge.

    Args:
        replies: one row a reply.
        judges: who reads them, as they are and with emotion words masked.
        progress: show bars; by default where a person is looking.
    """
    texts = replies["reply"].tolist()
    masked = [without_words(text) for text in texts]
    found = replies.copy()
    for judge in judges:
        both = judge.judge(texts + masked, progress=progress)
        best, target = both.best, np.full(len(texts), np.nan)
        for emotion in set(replies["emotion"]) & set(EMOTIONS):
            rows = (replies["emotion"] == emotion).to_numpy()
            target[rows] = both.of(emotion)[: len(texts)][rows]
        found[judge.name], found[f"{judge.name}.p"] = best[: len(texts)], target
        found[f"{judge.name}.masked"] = best[len(texts) :]
    return found
