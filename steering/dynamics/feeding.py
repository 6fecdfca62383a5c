"""What a text's valence, arousal and dominance are: a feed reads texts, and moves a mood or measures a reply.

Coordinates of emotions are people's ratings of their names (Glasgow Norms, Scott et al. 2019), moved from the scale of
1 to 9 to -1 to 1. A reader of several emotions gives the sum of its probabilities times their coordinates; what it
calls neutral, or has no class for, lies at 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.probing.geometry.models import coordinates
from affectlens.steering.dynamics.state import AXES

NEUTRAL = "neutral"
_MIDDLE, _HALF = 5.0, 4.0  # of the norms' scale


@dataclass(frozen=True, eq=False)
class Readings:
    """What a feed has read.

    Attributes:
        values: valence, arousal and dominance of each text; NaN in the rows of texts in which nothing was found, and in
            the columns of axes that the feed does not read.
        coverage: of each text the share that was read: of its words, or of a reader's probability.
    """

    values: Float[np.ndarray, "text 3"]
    coverage: Float[np.ndarray, " text"]

    def __len__(self) -> int:
        return len(self.values)


@runtime_checkable
class Feed(Protocol):
    """Reads texts; anything with these can be one."""

    @property
    def name(self) -> str: ...
    @property
    def axes(self) -> tuple[str, ...]:
        """Of ``valence, arousal, dominance`` those that it reads."""
        ...

    def read(self, texts: Sequence[str], *, progress: bool | None = None) -> Readings:
        """The readings of texts, in their order; no text's depends on the others.

        Args:
            texts: any number.
            progress: show a bar; by default where a person is looking.
        """
        ...


def points(emotions: Sequence[str]) -> Float[np.ndarray, "emotion 3"]:
    """Valence, arousal and dominance of emotions, each from -1 to 1; ``neutral`` is 0.

    Args:
        emotions: their names.

    Raises:
        SteerError: a name that the norms lack.
    """
    found = (coordinates([name.strip().lower() for name in emotions]).reshape(-1, 3) - _MIDDLE) / _HALF
    found[[name == NEUTRAL for name in emotions]] = 0.0
    if (lacking := np.flatnonzero(np.isnan(found).any(1))).size:
        raise SteerError(
            f"The norms have no valence, arousal and dominance of {emotions[lacking[0]]!r}: leave it out, or choose "
            "an emotion that they have."
        )
    return found


def blended(probabilities: Float[np.ndarray, "text emotion"], emotions: Sequence[str]) -> Readings:
    """The sum of probabilities times coordinates.

    Args:
        probabilities: a row sums to at most one; NaN in the rows of texts that were not read.
        emotions: of the columns.
    """
    values = probabilities.astype(np.float64) @ points(emotions)
    return Readings(values, np.nan_to_num(probabilities.astype(np.float64)).sum(1))


def axes_of(feed: Feed) -> list[int]:
    """The columns that a feed reads.

    Args:
        feed: whose.

    Raises:
        SteerError: a feed that reads none, or another axis.
    """
    if not feed.axes or set(feed.axes) - set(AXES):
        raise SteerError(f"The feed {feed.name} reads {feed.axes}: it must be one or more of {', '.join(AXES)}.")
    return [AXES.index(axis) for axis in feed.axes]
