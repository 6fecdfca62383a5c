"""``AgreementReport``: five answers for every layer and emotion, which say, draw, save and question each other."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from affectlens.circuits.agreeing.marks import NO, QUESTIONS, VERDICTS, YES
from affectlens.circuits.agreeing.words import FLAGS, UNREAD, UNUSED, headline, methods, summary
from affectlens.errors import CircuitError
from affectlens.tables import load_tables, save_tables
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from affectlens.report import Section


@dataclass(frozen=True, eq=False, repr=False)
class AgreementReport:
    """The outcome of :func:`affectlens.circuits.agreeing.agree`.

    ``table`` has one row a layer, emotion and question (read, causal, feature, steerable, circuit): ``verdict`` (yes,
    no, undecided, not measured); ``value, low, high``, the deciding difference with its 95% interval; ``control``, what
    it is from; ``p_adjusted`` over the question's family; ``n`` clusters; ``undone``, whether something is surely there
    and a control is not surely beaten; ``source`` and ``why``. The rule:
    :mod:`affectlens.circuits.agreeing.marks`.
    """

    table: pd.DataFrame
    meta: Json  # model, fingerprint, battery, worth, sources, where and by which metric was patched

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, in order."""
        return tuple(int(layer) for layer in dict.fromkeys(self.table["layer"]))

    @property
    def emotions(self) -> tuple[str, ...]:
        """The emotions, in order."""
        return tuple(str(emotion) for emotion in dict.fromkeys(self.table["emotion"]))

    def at(self, layer: int, emotion: str) -> pd.DataFrame:
        """The five rows of a cell.

        Args:
            layer: the layer.
            emotion: the emotion.

        Raises:
            CircuitError: if there is no such cell.
        """
        rows = self.table[(self.table["layer"] == layer) & (self.table["emotion"] == emotion)]
        if rows.empty:
            raise CircuitError(
                f"There is no {emotion} at layer {layer}: layers are {self.layers[0]} to {self.layers[-1]}, "
                f"emotions {', '.join(self.emotions)}."
            )
        return rows.set_index("question").loc[list(QUESTIONS)].reset_index()

    def flags(self) -> pd.DataFrame:
        """Where reading and using differ surely: ``layer, emotion, flag``, and both estimates.

        *Read but not used*: read is a yes, and causal is a no, which says that a difference worth having is excluded.
        Where patching surely moves the metric, and a control as much, nothing is flagged.
        *Used but not read*: the other way round. A cell that is undecided in either is not flagged.
        """
        key, kept = ["layer", "emotion"], ["verdict", "value", "low", "high", "p_adjusted"]
        told = self.table[~((self.table["question"] == "causal") & self.table["undone"])]  # a control does as much
        read, used = (told[told["question"] == name][[*key, *kept]] for name in ("read", "causal"))
        both = read.merge(used, on=key, suffixes=("_read", "_causal"))
        given = list(zip(both["verdict_read"], both["verdict_causal"], strict=True))
        both.insert(2, "flag", [{(YES, NO): UNUSED, (NO, YES): UNREAD}.get(one, "") for one in given])
        found = both[both["flag"] != ""].sort_values("flag", key=lambda flag: flag.map(FLAGS.index), kind="stable")
        return found.drop(columns=["verdict_read", "verdict_causal"]).reset_index(drop=True)

    def counts(self) -> pd.DataFrame:
        """How many cells have each verdict, by question."""
        found = pd.crosstab(self.table["question"], self.table["verdict"])
        return found.reindex(index=list(QUESTIONS), columns=list(VERDICTS), fill_value=0)

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown. If a control undoes a finding, that comes first."""
        return summary(self)

    def plot(self) -> "Figure":
        """Layer by emotion with five marks a cell: :func:`affectlens.circuits.agreeing.figures.grid`."""
        from affectlens.circuits.agreeing.figures import grid

        return grid(self)

    def sections(self) -> "list[Section]":
        """The parts of an HTML report, for :func:`affectlens.report.write`."""
        from affectlens.report import Section

        tables = {"answers, counted": self.counts().reset_index(), "every answer": self.table}
        if not (flags := self.flags()).empty:
            tables = {"flagged cells": flags} | tables
        return [Section("Do reading, using and steering agree?", self.summary(), [self.plot()], tables, methods(self))]

    def save(self, folder: str | Path) -> None:
        """Write ``results/agreement.json`` and ``results/agreement.marks.parquet``.

        Args:
            folder: of the run.
        """
        path = Path(folder) / "results" / "agreement.json"
        save_tables(path, self.meta, {_FILE: self.table})

    @classmethod
    def load(cls, folder: str | Path) -> "AgreementReport":
        """Read what :meth:`save` wrote.

        Args:
            folder: of the run.

        Raises:
            RunError: it is not there, or damaged.
        """
        again = "join the stages again with agree()"
        meta, found = load_tables(
            Path(folder) / "results" / "agreement.json", {"table": _FILE},
            missing=f"{folder} holds no agreement report: {again}.", again=again,
        )  # fmt: skip
        return cls(found["table"], meta)

    def __repr__(self) -> str:
        from affectlens.probing.names import plain

        return f"AgreementReport({plain(headline(self))})"

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        return f"<h3>{escape(str(self.meta['model']))}</h3>{lines}{self.counts().to_html(border=0)}"

    def _ipython_display_(self) -> None:
        from IPython import display

        ipython: Any = display
        ipython.display(ipython.HTML(self._repr_html_()))
        ipython.display(self.plot())


_FILE = "agreement.marks.parquet"
