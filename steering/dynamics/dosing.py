"""From a mood to doses: the emotions that lie where the mood has gone, the stronger the further it went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.steering.directions import Directions
from affectlens.steering.dynamics.feeding import points
from affectlens.steering.dynamics.state import REST, Mood

STEP = 0.05  # doses are multiples of it: few plans have to be proved


@dataclass(frozen=True, eq=False)
class Dosing:
    """Doses from the offset of a mood from its baseline.

    The emotions whose coordinates make the least angle with the offset share a strength: the offset's length beyond
    ``still``, over ``full``, at most 1, times the ceiling. Shares go by the cosines; an emotion at 90 degrees or more
    has none. Of equal angles (on one axis there are only two) the emotion that lies further out comes first.

    Attributes:
        emotions: with coordinates.
        axes: columns of valence, arousal and dominance that the mood is fed; the others have no part.
        baseline: of the mood.
        full: how far beyond ``still`` the ceiling is reached.
        ceiling: the largest sum of doses; of 1.0 each is at most what was found safe.
        nearest: how many emotions share the strength.
        still: the length up to which an offset counts as rest and gives no dose.
        coordinates: of the emotions, made from their names if it is not given.
    """

    emotions: tuple[str, ...]
    axes: tuple[int, ...] = (0, 1, 2)
    baseline: Mood = REST
    full: float = 0.25
    ceiling: float = 1.0
    nearest: int = 1
    still: float = 0.0
    coordinates: Float[np.ndarray, "emotion 3"] = field(default_factory=lambda: np.zeros((0, 3)))

    def __post_init__(self) -> None:
        if not self.emotions or not self.axes:
            raise SteerError("Doses need one emotion and one axis at least.")
        if not (self.full > 0 and self.ceiling >= 0 and self.nearest >= 1 and self.still >= 0):
            raise SteerError(
                f"full is {self.full}, ceiling {self.ceiling}, nearest {self.nearest}, still {self.still}: full is "
                "above 0, ceiling and still 0 or more, nearest 1 or more."
            )
        if self.coordinates.shape != (len(self.emotions), 3):
            object.__setattr__(self, "coordinates", points(self.emotions))

    @classmethod
    def of(
        cls,
        directions: Directions,
        *,
        emotions: Sequence[str] | None = None,
        axes: Sequence[int] = (0, 1, 2),
        baseline: Mood = REST,
        full: float = 0.25,
        ceiling: float = 1.0,
        nearest: int = 1,
        still: float = 0.0,
    ) -> "Dosing":
        """For the emotions that there are directions of.

        Args:
            directions: with safe doses.
            emotions: only these; all by default.
            axes: that the mood is fed.
            baseline: of the mood.
            full: the offset's length, beyond ``still``, at which the ceiling is reached.
            ceiling: the largest sum of doses.
            nearest: how many emotions share it.
            still: the length up to which an offset gives no dose.

        Raises:
            SteerError: an emotion without a direction, without a safe dose or without coordinates.
        """
        names = tuple(dict.fromkeys(d.emotion for name in emotions or directions.emotions for d in directions[name]))
        if unsafe := [name for name in names if directions[name][0].safe is None]:
            raise SteerError(
                f"No safe dose of {unsafe[0]} is known, so a mood can't count in it: find it with affectlens steer "
                "MODEL --evaluate, or leave the emotion out."
            )
        return cls(names, tuple(axes), baseline, full, ceiling, nearest, still)

    def doses(self, mood: Mood | Float[np.ndarray, " 3"]) -> dict[str, float]:
        """The doses that a mood asks for, without those of 0.

        Args:
            mood: where it is.
        """
        row = self.schedule(np.asarray(mood, dtype=float)[None])[0]
        return as_doses(row, self.emotions)

    def schedule(self, moods: Float[np.ndarray, "turn 3"]) -> Float[np.ndarray, "turn emotion"]:
        """The dose of each emotion at each turn.

        Args:
            moods: of each turn.
        """
        axes = list(self.axes)
        offset = (moods - np.asarray(self.baseline))[:, axes]
        place = (self.coordinates - np.asarray(self.baseline))[:, axes]
        far, out = np.linalg.norm(offset, axis=1), np.linalg.norm(place, axis=1)
        cosine = offset @ place.T / np.maximum(far[:, None] * out[None], 1e-12)
        ranked = np.round(cosine, 9) + 1e-6 * out[None]  # of equal angles the one that lies further out
        order = np.argsort(-ranked, axis=1, kind="stable")[:, : self.nearest]
        share = np.zeros_like(cosine)
        np.put_along_axis(share, order, np.take_along_axis(np.maximum(cosine, 0.0), order, axis=1), axis=1)
        total = share.sum(1, keepdims=True)
        share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
        strength = self.ceiling * np.clip((far - self.still) / self.full, 0.0, 1.0)
        steps = np.floor(strength[:, None] * share / STEP + 0.5)
        return np.minimum(np.round(steps * STEP, 10), self.ceiling)


def as_doses(row: Sequence[float] | Float[np.ndarray, " emotion"], emotions: Sequence[str]) -> dict[str, float]:
    """Doses by emotion, without those of 0.

    Args:
        row: a dose an emotion.
        emotions: their names.
    """
    return {name: float(dose) for name, dose in zip(emotions, row, strict=True) if abs(dose) > 1e-12}


def as_row(doses: Mapping[str, float], emotions: Sequence[str]) -> Float[np.ndarray, " emotion"]:
    """A dose an emotion, in order; 0 where there is none.

    Args:
        doses: by emotion.
        emotions: their names.
    """
    return np.array([float(doses.get(name, 0.0)) for name in emotions])
