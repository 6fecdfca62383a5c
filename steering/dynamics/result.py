"""``DynamicsReport``: what a mood beside a conversation did to the replies, as tables, sentences and figures."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from affectlens.steering.dynamics.contrasting import differences
from affectlens.steering.dynamics.inferring import Measured, figures, lags, measured
from affectlens.steering.dynamics.noising import by_noise
from affectlens.steering.dynamics.policies import CLOSED, CONTROLS, PLAIN
from affectlens.steering.dynamics.scripts import PROTOCOLS
from affectlens.tables import load_tables, save_tables
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TABLES = ("turns", "figures", "differences", "lags", "doses")
CERTAIN = 0.05  # the level of every test


@dataclass(frozen=True, eq=False, repr=False)
class DynamicsReport:
    """The outcome of :func:`affectlens.steering.dynamics.run`.

    Attributes:
        turns: one row a conversation and turn: what was said, the mood, the doses, and ``measured``, the instrument's
            reading of the reply.
        figures: every figure with its interval and its null (:func:`affectlens.steering.dynamics.inferring.figures`).
        differences: the closed loop less each control, in pairs.
        lags: tracking by lag.
        doses: by rule, policy and phase (before, under and after the push) the mean sum of doses, the share of turns
            that are steered at all, and the mean length of what is added, in shares of the site's norm.
        facts: model, rules, feed, instrument, settings and counts, as JSON.
    """

    turns: pd.DataFrame
    figures: pd.DataFrame
    differences: pd.DataFrame
    lags: pd.DataFrame
    doses: pd.DataFrame
    facts: Json = field(default_factory=dict)

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules, in words."""
        return tuple(dict.fromkeys(str(name) for name in self.figures["rule"]))

    def row(self, figure: str, rule: str, policy: str = CLOSED) -> Json:
        """A figure's row.

        Args:
            figure: such as settling.
            rule: in words.
            policy: whose.
        """
        rows = self.figures
        mine = rows[(rows["figure"] == figure) & (rows["rule"] == rule) & (rows["policy"] == policy)]
        return dict(mine.iloc[0]) if len(mine) else {}

    def less(self, figure: str, rule: str) -> dict[str, Json]:
        """The differences of a figure to each control.

        Args:
            figure: such as settling.
            rule: in words.
        """
        rows = self.differences
        mine = rows[(rows["figure"] == figure) & (rows["rule"] == rule)]
        return {str(row["control"]): {str(name): x for name, x in row.items()} for row in mine.to_dict("records")}

    def own(self) -> Iterator[tuple[str, str]]:
        """The rules and figures by which the closed loop surely differs from every control."""
        for rule in self.rules:
            for name in dict.fromkeys(self.figures["figure"]):
                found = self.less(str(name), rule)
                if found and all(row["p_adjusted"] <= CERTAIN for row in found.values()):
                    yield rule, str(name)

    def table(self) -> pd.DataFrame:
        """The table of a paper: a row a rule and figure, with 95% intervals; differences to each control."""
        rows = []
        for rule in self.rules:
            for name in dict.fromkeys(self.figures["figure"]):
                one, less = self.row(str(name), rule), self.less(str(name), rule)
                row: Json = {"rule": rule, "figure": name, CLOSED: _said(one), "by turn order": one["null"],
                             "p": one["p_adjusted"]}  # fmt: skip
                for control in CONTROLS:
                    row[f"less {control}"] = _said(less[control]) if control in less else ""
                row["least p"] = min((d["p_adjusted"] for d in less.values()), default=None)
                rows.append(row)
        return pd.DataFrame(rows)

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown. What is not the loop's doing comes first."""
        from affectlens.steering.dynamics.words import summary

        return summary(self)

    def plot(self, protocol: str = "push") -> "Figure":
        """The replies by turn under every policy: :func:`affectlens.steering.dynamics.drawing.replies_by_turn`.

        Args:
            protocol: push or ramp.
        """
        from affectlens.steering.dynamics.drawing import replies_by_turn

        return replies_by_turn(self, protocol, self.rules[0])

    def save(self, folder: str | Path) -> None:
        """Write ``results/*.parquet`` and, last, ``results/dynamics.json``.

        Args:
            folder: of the run.
        """
        tables = {f"{name}.parquet": getattr(self, name) for name in TABLES}
        save_tables(Path(folder) / "results" / "dynamics.json", self.facts, tables)

    @classmethod
    def load(cls, folder: str | Path) -> "DynamicsReport":
        """Read what :meth:`save` wrote.

        Args:
            folder: of the run.

        Raises:
            RunError: there is none, or it is damaged.
        """
        facts, tables = load_tables(
            Path(folder) / "results" / "dynamics.json", {name: f"{name}.parquet" for name in TABLES},
            missing=f"{folder} holds no finished dynamics: it has no results/dynamics.json.", again="run it anew",
        )  # fmt: skip
        return cls(**{name: tables.get(name, pd.DataFrame()) for name in TABLES}, facts=facts)

    def __repr__(self) -> str:
        said = f"{len(self.turns)} replies, {', '.join(self.rules)}"
        return f"DynamicsReport({said}; fed by {self.facts.get('feed')}, measured by {self.facts.get('instrument')})"

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        return lines + self.table().to_html(index=False, border=0, float_format="{:.3g}".format)

    def _ipython_display_(self) -> None:
        from IPython import display

        ipython: Any = display
        ipython.display(ipython.HTML(self._repr_html_()))
        ipython.display(self.plot())


def report_on(turns: pd.DataFrame, facts: Json) -> DynamicsReport:
    """From the table of turns to a report.

    Args:
        turns: one row a conversation and turn, with ``measured``, ``alone`` and ``added``.
        facts: with ``band, window, sign`` and ``seed``; what else there is to know.
    """
    seed, sign = int(facts.get("seed", 0)), int(facts.get("sign", -1))
    how: Json = {"band": float(facts["band"]), "window": int(facts["window"]), "seed": seed}
    found: dict[str, Measured] = {}
    for protocol in PROTOCOLS:
        if (one := measured(turns, protocol, sign=sign)) is not None:
            found[protocol] = one
    every = list(found.values())
    found_figures = figures(every, **how)
    found_figures["by_noise"] = found_figures["figure"].map(by_noise(turns, **how))
    by_lag = lags(found["push"], seed=seed) if "push" in found else pd.DataFrame()
    return DynamicsReport(turns, found_figures, differences(every, **how), by_lag, dosed(turns), facts)


def dosed(turns: pd.DataFrame) -> pd.DataFrame:
    """How much each policy steers, in each phase.

    Args:
        turns: one row a conversation and turn, with ``added``.
    """
    doses = turns[[column for column in turns if str(column).startswith("dose.")]].sum(axis=1)
    above = turns["turn"].where(turns["level"] > 0).groupby([turns["protocol"], turns["script"]])
    first, last = above.transform("min"), above.transform("max")
    phase = np.where(turns["turn"] < first, "before", np.where(turns["turn"] > last, "after", "push"))
    rows = turns.assign(dose=doses, phase=phase, steered=doses > 0)
    rows = rows[rows["policy"] != PLAIN]
    found = rows.groupby(["rule", "policy", "phase"], sort=False)[["dose", "steered", "added"]].mean()
    return found.reset_index()


def _said(row: Json) -> str:
    return f"{row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
