"""``ByLayer``: what one question gives for layers and emotions, before it is joined with the others."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from affectlens.tables import load_tables, save_tables
from affectlens.types import Json


@dataclass(frozen=True, eq=False)
class ByLayer:
    """A tidy table with one row a layer and emotion, and what it was made from.

    ``table`` has ``layer, emotion``; ``value, low, high`` (the deciding difference and its 95% interval), ``control``
    (what it is the difference from), ``p`` or ``p_adjusted``, ``n`` clusters, ``undone`` and ``why``; and what the
    maker adds.
    """

    question: str  # read or circuit
    table: pd.DataFrame
    meta: Json  # model, fingerprint, battery, battery_sha256, settings, and `skipped`: why an emotion is not there

    def save(self, folder: str | Path) -> None:
        """Write ``results/QUESTION_by_layer.*``.

        Args:
            folder: of the run.
        """
        name = f"{self.question}_by_layer"
        save_tables(Path(folder) / "results" / f"{name}.json", self.meta, {f"{name}.parquet": self.table})

    @classmethod
    def load(cls, folder: str | Path, question: str) -> "ByLayer":
        """Read what :meth:`save` wrote.

        Args:
            folder: of the run.
            question: read or circuit.

        Raises:
            RunError: it is not there, or damaged.
        """
        name = f"{question}_by_layer"
        maker = {"read": "read_by_emotion(acts)", "circuit": "circuit_by_layer(graph, scores, random, found=scores)"}
        meta, found = load_tables(
            Path(folder) / "results" / f"{name}.json", {"table": f"{name}.parquet"},
            missing=f"{folder} has no {question} by layer and emotion: make it with {maker.get(question, name)} and "
                    "save it there.",
            again="make it again",
        )  # fmt: skip
        return cls(question, found.get("table", pd.DataFrame(columns=["layer", "emotion"])), meta)

    def __repr__(self) -> str:
        emotions = ", ".join(dict.fromkeys(self.table["emotion"]))
        return f"ByLayer({self.question} on {self.meta['model']}: {self.table['layer'].nunique()} layers; {emotions})"
