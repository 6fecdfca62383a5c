"""``FeatureReport``: what a search for features found, as tidy tables that write, load, print and draw themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from affectlens.tables import load_tables, save_tables
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from affectlens.probing.features.dashboard import Card


@dataclass(frozen=True)
class FeatureReport:
    """The outcome of :func:`affectlens.probing.find_features`.

    Attributes:
        meta: model, dictionary, battery, settings, the rule of the classes.
        differential: by :func:`affectlens.probing.features.differing.differential`: each tested feature and emotion,
            for keyword-free and for keyword-rich texts (``texts``).
        enrichment: how many survive, beside random labels.
        placed: the features that either comparison found in the discovery half (``found_by``), on the keyword-affect
            plane by scenes of the other half, with their class; ``survives``, whether they were confirmed there.
        counts: how many of each class, by emotion.
        evaluation: what the dictionary explains of this battery, beside an untrained one.
        stability: how many come back in a dictionary of another seed, if one was given.
    """

    meta: Json
    differential: pd.DataFrame
    enrichment: pd.DataFrame
    placed: pd.DataFrame = field(default_factory=pd.DataFrame)
    counts: pd.DataFrame = field(default_factory=pd.DataFrame)
    evaluation: pd.DataFrame = field(default_factory=pd.DataFrame)
    stability: pd.DataFrame = field(default_factory=pd.DataFrame)
    cards: "Mapping[int, Card]" = field(default_factory=dict, repr=False, compare=False)

    def surviving(self, emotion: str = "affect", texts: str = "keyword-free") -> pd.DataFrame:
        """The features of an emotion that were found and confirmed, the largest effect first.

        Args:
            emotion: one, or ``affect`` for all together.
            texts: what was compared with the neutral twins: keyword-free or keyword-rich.

        Raises:
            KeyError: an emotion that was not searched for.
        """
        if emotion not in set(self.differential["emotion"]):
            raise KeyError(f"{emotion!r} was not searched for; there are {', '.join(self.emotions)}.")
        table = self.differential[self.differential["texts"] == texts]
        part = table[(table["emotion"] == emotion) & table["survives"]]
        return part.iloc[part["d"].abs().argsort()[::-1]].reset_index(drop=True)

    @property
    def emotions(self) -> tuple[str, ...]:
        """What was searched for, ``affect`` among them."""
        return tuple(dict.fromkeys(self.differential["emotion"]))

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown."""
        from affectlens.probing.features.words import summary

        return summary(self)

    def plot(self) -> "Figure":
        """The keyword-affect plane."""
        from affectlens.probing.features.figures import plane_figure

        return plane_figure(self.placed)

    def save(self, folder: str | Path) -> None:
        """Write ``results/features.json`` and a parquet file a table."""
        path = Path(folder) / "results" / "features.json"
        save_tables(path, self.meta, {f"{name}.parquet": getattr(self, name) for name in TABLES})

    @classmethod
    def load(cls, folder: str | Path) -> "FeatureReport":
        """Read what :meth:`save` wrote.

        Raises:
            RunError: nothing finished is there, or it is damaged.
        """
        again = "continue it with affectlens features find --resume"
        meta, found = load_tables(
            Path(folder) / "results" / "features.json", {name: f"{name}.parquet" for name in TABLES},
            missing=f"{folder} holds no finished search: {again}.", again="remove the tables, and " + again,
        )  # fmt: skip
        tables: dict[str, Any] = dict(found)
        return cls(meta, **tables)

    def __repr__(self) -> str:
        from affectlens.probing.names import plain

        return "\n".join(plain(line) for line in self.summary())

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        return f"<h3>{escape(str(self.meta['sae']))}</h3>{lines}"

    def _ipython_display_(self) -> None:
        from IPython import display

        ipython: Any = display
        ipython.display(ipython.HTML(self._repr_html_()))
        if not self.placed.empty:
            ipython.display(self.plot())


TABLES = tuple(f.name for f in fields(FeatureReport) if f.name not in ("meta", "cards"))
