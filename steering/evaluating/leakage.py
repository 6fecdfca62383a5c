"""Where the replies go: target emotion by judged emotion, less what plain replies are called anyway.

At the safe dose, on the half ``report``. The diagonal is the effect; ``others`` is the sum of the changes over the
seven other emotions, ``neutral`` and ``none`` (no label) what is left, so that all changes of a row sum to zero.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.stats import Estimate
from affectlens.steering.evaluating.frames import REPORT, classes_of, judges_of
from affectlens.steering.evaluating.safety import Choice
from affectlens.steering.evaluating.shares import called, gap, record, share, tabled
from affectlens.stimuli.taxonomy import EMOTIONS

OTHERS, NONE = "others", "none"


def leakages(replies: pd.DataFrame, chosen: Sequence[Choice], *, seed: int = 0) -> pd.DataFrame:
    """One row a way of steering, judge, judged label and quantity: ``share`` and ``less plain``, with intervals.

    ``judged`` is an emotion that the judge has, ``neutral``, ``none`` or ``others``; ``target`` is the emotion steered.

    Args:
        replies: one row a reply.
        chosen: the safe doses; what has none is not reported.
        seed: of bootstraps.
    """
    mine = replies[replies["half"] == REPORT]
    plain = mine[mine["condition"] == "plain"]
    out = []
    for one in chosen:
        rows = one.arm.of(mine, one.safe) if one.safe is not None else mine.iloc[:0]
        for judge in judges_of(replies) if len(rows) else ():
            classes = classes_of(replies, judge)
            for judged in (*classes, NONE, OTHERS):
                about = {"condition": one.arm.condition, "method": one.arm.method, "site": one.arm.site,
                         "target": one.arm.emotion, "dose": one.safe, "judge": judge, "judged": judged}  # fmt: skip
                hits, others = (_hits(part, judge, judged, one.arm.emotion, classes) for part in (rows, plain))
                found: dict[str, Estimate | None] = {
                    "share": share(rows, hits, seed=seed), "less plain": gap(rows, hits, plain, others, seed=seed)
                }  # fmt: skip
                out += [about | {"quantity": name} | record(it) for name, it in found.items() if it is not None]
    return tabled(out, _COLUMNS)


_COLUMNS = ("condition", "method", "site", "target", "dose", "judge", "judged", "quantity")


def _hits(
    rows: pd.DataFrame, judge: str, judged: str, target: str, classes: Sequence[str]
) -> Float[np.ndarray, " reply"]:
    if judged == OTHERS:
        other = [label for label in classes if label in EMOTIONS and label != target]
        return rows[judge].isin(other).to_numpy(dtype=float)
    return called(rows, judge, "" if judged == NONE else judged)
