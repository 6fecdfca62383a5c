"""Feeds by lexicon: VADER's valence, or a user's own table of words. None is shipped: VADER is a dependency.

VADER: Hutto and Gilbert (2014, ICWSM), its compound score. It knows some 7,500 words and nothing of what happened: an
event that is told without one of them reads 0.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from affectlens.errors import BatteryError, SteerError
from affectlens.steering.dynamics.feeding import Readings
from affectlens.steering.dynamics.state import AXES
from affectlens.stimuli.lexical import words
from affectlens.stimuli.norms import VAD, read_norms


class LexiconFeed:
    """A feed by words: by VADER (valence alone), or by a table of valence, arousal and dominance.

    Args:
        table: a file (comma or tab, columns for word, valence, arousal, dominance, named as in NRC-VAD, Warriner's or
            the Glasgow Norms), or points by word. None for VADER.
        bounds: the least and the largest value of the table's scale, which become -1 and 1.

    Raises:
        SteerError: a table without words, that can't be read, or with values beyond the bounds.
    """

    def __init__(self, table: str | Path | Mapping[str, VAD] | None = None, *,
                 bounds: tuple[float, float] = (1.0, 9.0)) -> None:  # fmt: skip
        self.name = (
            "lexicon" if table is None else f"table {Path(table).name}" if isinstance(table, str | Path) else "table"
        )
        self.axes: tuple[str, ...] = AXES[:1] if table is None else AXES
        self._points = None if table is None else _scaled(_loaded(table), bounds)

    def read(self, texts: Sequence[str], *, progress: bool | None = None) -> Readings:  # noqa: ARG002
        """The readings of texts.

        By table a text's point is the mean over its words that the table has, each time that they occur.

        Args:
            texts: any number.
            progress: takes no time to show.
        """
        rows = [self._vader(text) if self._points is None else self._mean(text) for text in texts]
        values = np.array([row[0] for row in rows], dtype=float).reshape(-1, 3)
        return Readings(values, np.array([row[1] for row in rows], dtype=float))

    @property
    def digest(self) -> str:
        """The sha256 of the table's words and points; empty for VADER."""
        return "" if self._points is None else sha256(repr(sorted(self._points.items())).encode()).hexdigest()

    def _mean(self, text: str) -> tuple[Sequence[float], float]:
        said = words(text)
        found = [self._points[word] for word in said if self._points and word in self._points]
        if not found:
            return (np.nan, np.nan, np.nan), 0.0
        return [float(x) for x in np.mean(found, axis=0)], len(found) / len(said)

    def _vader(self, text: str) -> tuple[Sequence[float], float]:
        said = words(text)
        if not said:
            return (np.nan, np.nan, np.nan), 0.0
        known = sum(word in self._analyser.lexicon for word in said)
        return (float(self._analyser.polarity_scores(text)["compound"]), np.nan, np.nan), known / len(said)

    @cached_property
    def _analyser(self) -> Any:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        return SentimentIntensityAnalyzer()


def _loaded(table: str | Path | Mapping[str, VAD]) -> Mapping[str, VAD]:
    if not isinstance(table, str | Path):
        return {word.strip().lower(): VAD(*point) for word, point in table.items()}
    try:
        return read_norms(Path(table).expanduser())
    except (OSError, UnicodeDecodeError, BatteryError) as error:
        raise SteerError(f"The lexicon {table} can't be read: {error}") from None


def _scaled(table: Mapping[str, VAD], bounds: tuple[float, float]) -> dict[str, tuple[float, ...]]:
    low, high = bounds
    if not table or not low < high:
        raise SteerError("A lexicon needs one word at least, and bounds of which the first is the lower one.")
    found = {word: tuple(2 * (x - low) / (high - low) - 1 for x in point) for word, point in table.items()}
    if wrong := [word for word, point in found.items() if not all(-1 - 1e-9 <= x <= 1 + 1e-9 for x in point)]:
        raise SteerError(
            f"{wrong[0]!r} has a value beyond {low:g} to {high:g}: give the bounds of the table's scale, such as "
            "bounds=(0, 1) (--bounds 0,1)."
        )
    return found
