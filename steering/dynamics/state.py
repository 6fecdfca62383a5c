"""A mood and the rules by which it moves: smoothing, and smoothing with momentum.

A mood is a point of valence, arousal and dominance, each from -1 to 1. At each turn it is pulled to a target, which is
the rule's baseline plus what was read in what was said:

``FirstOrder``   m' = m + rate (target - m): it nears a steady target by the same share each turn, and never passes it.
``SecondOrder``  v' = momentum v + rate (target - m), m' = m + v': a damped oscillator in discrete time. It passes its
                 target and comes back where momentum > (1 - sqrt(rate))^2.

With nothing to read the target is the baseline, so the mood returns to it. After the first- and second-order updates of
Subaharan (2026, arXiv:2601.16087). At a bound of the cube the mood stops and its velocity along that axis is lost.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError

AXES = ("valence", "arousal", "dominance")
Moods = Float[np.ndarray, "turn 3"]
Point = Float[np.ndarray, " 3"]


class Mood(NamedTuple):
    """A point of affect, each coordinate from -1 to 1."""

    valence: float = 0.0
    arousal: float = 0.0
    dominance: float = 0.0


REST = Mood()


@runtime_checkable
class Rule(Protocol):
    """How a mood moves."""

    @property
    def baseline(self) -> Mood:
        """Where it returns to."""
        ...

    @property
    def says(self) -> str:
        """The rule in words."""
        ...

    def advance(self, mood: Point, velocity: Point, reading: Point) -> tuple[Point, Point]:
        """The next mood and velocity.

        Args:
            mood: now.
            velocity: now.
            reading: of what was said, as an offset from the baseline.
        """
        ...


@dataclass(frozen=True)
class FirstOrder:
    """m' = m + rate (target - m).

    Attributes:
        rate: above 0, up to 1, where the mood is the last reading alone.
        baseline: where it returns to.
    """

    rate: float = 0.3
    baseline: Mood = REST

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise SteerError(f"The rate is {self.rate}: a first-order rule takes one above 0, up to 1.")
        _check(self.baseline)

    @property
    def says(self) -> str:
        """The rule in words."""
        return f"first order, rate {self.rate:g}"

    def advance(self, mood: Point, velocity: Point, reading: Point) -> tuple[Point, Point]:  # noqa: ARG002
        """The next mood, and how far it moved.

        Args:
            mood: now.
            velocity: has no part in it.
            reading: of what was said, as an offset from the baseline.
        """
        return _within(mood, self.rate * (np.asarray(self.baseline) + reading - mood))


@dataclass(frozen=True)
class SecondOrder:
    """v' = momentum v + rate (target - m); m' = m + v'.

    Attributes:
        rate: the stiffness: above 0 and below 2 (1 + momentum), beyond which it would swing up.
        momentum: the share of the velocity that is kept, from 0, which is the first order, to below 1.
        baseline: where it returns to.
    """

    rate: float = 0.3
    momentum: float = 0.6
    baseline: Mood = REST

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise SteerError(f"The momentum is {self.momentum}: it is a share from 0 to below 1.")
        if not 0 < self.rate < 2 * (1 + self.momentum):
            most = 2 * (1 + self.momentum)
            raise SteerError(f"The rate is {self.rate}: with this momentum it is above 0 and below {most:g}.")
        _check(self.baseline)

    @classmethod
    def damped(cls, stiffness: float, damping: float, baseline: Mood = REST) -> "SecondOrder":
        """The same rule by its stiffness, which is the rate, and its damping, which is 1 - momentum.

        Args:
            stiffness: how strongly it is pulled.
            damping: the share of the velocity that is lost.
            baseline: where it returns to.
        """
        return cls(stiffness, 1 - damping, baseline)

    @property
    def says(self) -> str:
        """The rule in words."""
        return f"second order, rate {self.rate:g}, momentum {self.momentum:g}"

    def advance(self, mood: Point, velocity: Point, reading: Point) -> tuple[Point, Point]:
        """The next mood and velocity.

        Args:
            mood: now.
            velocity: now.
            reading: of what was said, as an offset from the baseline.
        """
        return _within(mood, self.momentum * velocity + self.rate * (np.asarray(self.baseline) + reading - mood))


@dataclass
class MoodState:
    """A mood that is told what was read, turn by turn, and keeps where it was.

    >>> state = MoodState(FirstOrder(0.5))
    >>> state.feel(np.array([-0.8, 0.0, 0.0])).valence
    -0.4
    """

    rule: Rule

    def __post_init__(self) -> None:
        self._mood, self._velocity = np.asarray(self.rule.baseline, dtype=float), np.zeros(3)
        self.history: list[Mood] = []

    @property
    def mood(self) -> Mood:
        """Where it is."""
        return Mood(*(float(x) for x in self._mood))

    def feel(self, reading: Point) -> Mood:
        """Move by a reading, in which NaN stands for an axis that was not read.

        Args:
            reading: an offset from the baseline.
        """
        self._mood, self._velocity = self.rule.advance(self._mood, self._velocity, np.nan_to_num(reading))
        self.history.append(self.mood)
        return self.mood


def trajectory(rule: Rule, readings: Moods) -> Moods:
    """The mood after each turn, from rest at the baseline.

    Args:
        rule: by which it moves.
        readings: of each turn, offsets from the baseline; NaN where an axis was not read.
    """
    state = MoodState(rule)
    return np.array([state.feel(reading) for reading in readings], dtype=float).reshape(-1, 3)


def rule_of(order: str, rate: float, momentum: float, baseline: Mood = REST) -> FirstOrder | SecondOrder:
    """A rule by its name.

    Args:
        order: first or second.
        rate: of either.
        momentum: of the second.
        baseline: where it returns to.

    Raises:
        SteerError: another name, or numbers that the rule can't have.
    """
    if order not in ("first", "second"):
        raise SteerError(f"The rule {order!r} is not known: choose first or second.")
    return FirstOrder(rate, baseline) if order == "first" else SecondOrder(rate, momentum, baseline)


def _within(mood: Point, step: Point) -> tuple[Point, Point]:
    moved = mood + step
    kept = np.clip(moved, -1.0, 1.0)
    return kept, np.where(kept == moved, step, 0.0)


def _check(baseline: Mood) -> None:
    if len(baseline) != 3 or not all(-1 <= x <= 1 for x in baseline):
        raise SteerError(f"The baseline is {tuple(baseline)}: give three numbers from -1 to 1.")
