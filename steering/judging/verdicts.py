"""What a judge says, and what a judge is.

A judge is blind: it sees texts and nothing else, neither the emotion that a reply was steered to nor the dose, and what
it says of a text does not depend on the texts beside it. It has a closed list of classes and abstains where it has
nothing to say: on an empty text, or where its best class is none of the list. It carries the record of its own errors
on human-written text that it was not fitted on, because a share of replies that it calls joy means little without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from affectlens.errors import BatteryError, SteerError
from affectlens.stimuli.taxonomy import canonical

NEUTRAL = "neutral"


@dataclass(frozen=True, eq=False, repr=False)
class Verdicts:
    """A judge's verdicts on texts, in their order.

    Attributes:
        judge: the judge's name.
        labels: the classes that it has.
        probabilities: of each class; a row sums to at most one, the rest is what the judge has no class for. NaN in the
            rows of empty texts.
        abstained: where no class of the list is the judge's best.
    """

    judge: str
    labels: tuple[str, ...]
    probabilities: Float[np.ndarray, "item label"]
    abstained: Bool[np.ndarray, " item"]

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def best(self) -> list[str]:
        """The most probable class of each text, the first of equals; "" where the judge abstains."""
        top = np.nan_to_num(self.probabilities, nan=-1.0).argmax(1) if len(self) else []
        return ["" if out else self.labels[k] for k, out in zip(top, self.abstained, strict=True)]

    def of(self, emotion: str) -> Float[np.ndarray, " item"]:
        """The probability of one class; NaN if the judge has no such class, and in the rows of empty texts.

        Args:
            emotion: one of Plutchik's eight, basic or peak, or ``neutral``.

        Raises:
            SteerError: a name that is neither.
        """
        try:
            name = NEUTRAL if emotion == NEUTRAL else canonical(emotion)
        except BatteryError as error:
            raise SteerError(f"{error} Or ask for {NEUTRAL}.") from None
        if name not in self.labels:
            return np.full(len(self), np.nan, self.probabilities.dtype)
        return self.probabilities[:, self.labels.index(name)]

    def frame(self) -> pd.DataFrame:
        """One row a text: ``best``, ``abstained``, and a column a class."""
        columns = {label: self.probabilities[:, k] for k, label in enumerate(self.labels)}
        return pd.DataFrame({"best": self.best, "abstained": self.abstained} | columns)

    def __repr__(self) -> str:
        counts = pd.Series(self.best, dtype=object).replace("", "abstained").value_counts()
        said = ", ".join(f"{n} {label}" for label, n in counts.items())
        return f"Verdicts of {self.judge} on {len(self)} texts: {said}"


@runtime_checkable
class Judge(Protocol):
    """What evaluation needs of a judge; anything with these can be one."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    def judge(self, texts: Sequence[str], *, progress: bool | None = None) -> Verdicts:
        """The verdicts on texts, in their order."""
        ...

    def trust(self) -> pd.DataFrame:
        """The judge's figures on held-out human-written texts, one row a source and class: ``source, class, n`` (texts
        of that class) and ``recall, precision, false_alarm``, each with ``.low`` and ``.high`` (95%).

        ``false_alarm`` is the share of texts of another truth that are called the class. A reader of the table needs
        recall and false alarms; where recall is surely above false alarms on no source, the judge can't tell the
        class. A class that was not measured has no row or NaN; a judge that was not measured has no rows.
        """
        ...


def present(texts: Sequence[str]) -> list[int]:
    """The rows of texts that hold something but white space.

    >>> present(["a", " ", ""])
    [0]
    """
    return [i for i, text in enumerate(texts) if text.strip()]


def as_verdicts(
    judge: str, labels: tuple[str, ...], n: int, rows: Sequence[int], probabilities: Float[np.ndarray, "kept class"]
) -> Verdicts:
    """Verdicts on ``n`` texts from the probabilities of those that are not empty.

    Args:
        judge: its name.
        labels: its classes, the first columns of ``probabilities``; further columns are what it has no class for.
        n: texts, the empty ones included.
        rows: of the texts that were judged.
        probabilities: of each of those, in order.
    """
    out = np.full((n, len(labels)), np.nan, np.float32)
    abstained = np.ones(n, dtype=bool)
    if len(rows):
        out[list(rows)] = probabilities[:, : len(labels)].astype(np.float32)
        abstained[list(rows)] = probabilities.argmax(1) >= len(labels)
    return Verdicts(judge, labels, out, abstained)
