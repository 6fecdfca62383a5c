"""The judges' columns of a table of replies.

A judge is given texts alone: not the target, not the dose. The half ``choose`` is not read, as doses are chosen by
perplexity.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from affectlens.model import LensModel
from affectlens.steering.judging.masking import without_words
from affectlens.steering.judging.verdicts import Judge
from affectlens.stimuli.taxonomy import EMOTIONS


def judged(replies: pd.DataFrame, judges: Sequence[Judge], *, progress: bool | None = None) -> pd.DataFrame:
    """The replies with three columns a judge: ``NAME`` (label, empty where it abstains), ``NAME.p``, ``NAME.masked``.

    Those of the half ``choose`` have empty ones.

    Args:
        replies: one row a reply.
        judges: who reads them, as they are and with emotion words masked.
        progress: show bars; by default where a person is looking.
    """
    read = (replies["half"] == "report").to_numpy()
    texts = replies.loc[read, "reply"].tolist()
    masked = [without_words(text) for text in texts]
    found = replies.copy()
    for judge in judges:
        both = judge.judge(texts + masked, progress=progress)
        best, goals = both.best, replies.loc[read, "emotion"].to_numpy()
        target = np.full(len(texts), np.nan)
        for emotion in set(goals) & set(EMOTIONS):
            target[goals == emotion] = both.of(emotion)[: len(texts)][goals == emotion]
        columns = {"": best[: len(texts)], ".p": target, ".masked": best[len(texts) :]}
        for ending, values in columns.items():
            whole = np.full(len(replies), np.nan if ending == ".p" else "", dtype=float if ending == ".p" else object)
            whole[read] = values
            found[judge.name + ending] = whole
    return found


def reads_with(judge: Judge) -> str | None:
    """The fingerprint of the language model that a judge reads with; None if it has none.

    Args:
        judge: any.
    """
    model = getattr(judge, "model", None)
    return model.fingerprint if isinstance(model, LensModel) else None
