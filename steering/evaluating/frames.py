"""The table of replies: what it must hold, who judged it, and which of its rows belong together."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from affectlens.errors import SteerError
from affectlens.stimuli.taxonomy import EMOTIONS

CHOOSE, REPORT = "choose", "report"
STEERED = ("steer", "heads", "neurons")
PLACEBOS = ("random", "shuffled", "mean", "orthogonal")
ASKED = ("prompted", "fewshot")
CONDITIONS = ("plain", *STEERED, *PLACEBOS, *ASKED)
LABELS = (*EMOTIONS, "neutral")
REPLIES = ("condition", "method", "site", "emotion", "dose", "draw", "prompt", "half", "seed", "reply", "n_new", "ppl")
RATES = {"judge", "source", "class", "n",
         *(f"{name}{end}" for name in ("recall", "false_alarm") for end in ("", ".low", ".high"))}  # fmt: skip
NEUTRAL = ("emotion", "method", "site", "dose", "text", "nll", "plain_nll")


def checked(replies: pd.DataFrame, neutral: pd.DataFrame) -> pd.DataFrame:
    """The replies, if both tables are what they must be.

    Args:
        replies: one row a reply.
        neutral: one row a neutral text and dose.

    Raises:
        SteerError: missing columns, no judge, unknown conditions or halves, no plain replies, or a reply twice.
    """
    for name, frame, needed in (("replies", replies, REPLIES), ("neutral texts", neutral, NEUTRAL)):
        if missing := [column for column in needed if column not in frame]:
            raise SteerError(f"The table of {name} has no {', '.join(missing)}: it needs {', '.join(needed)}.")
    if not judges_of(replies):
        raise SteerError("No judge has read the replies: each needs a column of labels and one named `JUDGE.p`.")
    for column, known in (("condition", CONDITIONS), ("half", (CHOOSE, REPORT))):
        if strange := sorted(set(replies[column]) - set(known)):
            raise SteerError(f"The column {column} has {', '.join(map(str, strange))}; expected {', '.join(known)}.")
    for half in (CHOOSE, REPORT):
        if replies[(replies["condition"] == "plain") & (replies["half"] == half)].empty:
            raise SteerError(f"The half {half} has no plain replies, and nothing to compare the others with.")
    key = ["condition", "method", "site", "emotion", "dose", "draw", "prompt", "seed"]
    if replies.duplicated(key).any():
        raise SteerError(f"A reply is there twice: {', '.join(key)} must name it.")
    if both := sorted(set(_prompts(replies, CHOOSE)) & set(_prompts(replies, REPORT))):
        raise SteerError(f"Prompt {both[0]} is in both halves: what chooses a dose can't report on it.")
    return replies


def _prompts(replies: pd.DataFrame, half: str) -> list[str]:
    return [str(one) for one in replies.loc[replies["half"] == half, "prompt"].unique()]


def judges_of(replies: pd.DataFrame) -> tuple[str, ...]:
    """The judges' names, in the order of the columns.

    Args:
        replies: one row a reply.
    """
    names = [str(column) for column in replies]
    return tuple(name for name in names if f"{name}.p" in names)


def classes_of(replies: pd.DataFrame, judge: str) -> tuple[str, ...]:
    """The labels that a judge has: those it gave, and targets of which it gave a probability, on the half ``report``.

    Args:
        replies: one row a reply.
        judge: its name.
    """
    mine = replies[replies["half"] == REPORT]
    known = set(mine[judge]) | set(mine.loc[mine[f"{judge}.p"].notna(), "emotion"])
    return tuple(label for label in LABELS if label in known)


@dataclass(frozen=True)
class Arm:
    """One way to steer to one emotion."""

    condition: str
    emotion: str
    method: str
    site: str

    def of(self, frame: pd.DataFrame, dose: float | None = None) -> pd.DataFrame:
        """Its rows, of a table with or without conditions; at one dose."""
        rows = frame[(frame["emotion"] == self.emotion) & (frame["method"] == self.method)]
        rows = rows[rows["site"] == self.site]
        if "condition" in rows:
            rows = rows[rows["condition"] == self.condition]
        return rows if dose is None else at_dose(rows, dose)


def arms_of(replies: pd.DataFrame) -> list[Arm]:
    """Every way and single emotion that was steered, in order of appearance.

    Args:
        replies: one row a reply.
    """
    names = ["condition", "emotion", "method", "site"]
    rows = replies.loc[replies["condition"].isin(STEERED) & replies["emotion"].isin(EMOTIONS), names]
    found = [Arm(*map(str, row)) for row in rows.drop_duplicates().itertuples(index=False)]
    return sorted(found, key=lambda arm: (STEERED.index(arm.condition), EMOTIONS.index(arm.emotion)))


def at_dose(rows: pd.DataFrame, dose: float) -> pd.DataFrame:
    """Rows of that dose, to within rounding.

    Args:
        rows: with a column ``dose``.
        dose: as a fraction of the norm.
    """
    return rows[np.isclose(rows["dose"].to_numpy(dtype=float), dose, rtol=1e-6, atol=1e-9)]


def placebo_rows(replies: pd.DataFrame, kind: str, emotion: str, dose: float) -> pd.DataFrame:
    """The placebo that matches an emotion's dose: made for it, or for no emotion.

    Args:
        replies: one row a reply.
        kind: of placebo.
        emotion: the target.
        dose: of the steering that it stands beside.
    """
    rows = replies[(replies["condition"] == kind) & replies["emotion"].isin([emotion, ""])]
    return at_dose(rows, dose)
