"""``Comparison``: what scaling and replacing a circuit's parts gives beside steering and asking, at equal cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from affectlens.circuits.modulating.outcomes import curves, outcomes
from affectlens.stats import Estimate
from affectlens.steering.evaluating.frames import CHOOSE, REPORT, judges_of
from affectlens.steering.evaluating.quality import quality
from affectlens.steering.evaluating.safety import Choice, typical
from affectlens.steering.evaluating.shares import first, read
from affectlens.steering.evaluating.verdicts import Verdict
from affectlens.tables import load_tables, save_tables
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from affectlens.circuits.modulating.trial import Written


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The outcome of :func:`affectlens.circuits.modulating.compare`; it says, draws, saves and tabulates itself."""

    replies: pd.DataFrame  # one row a reply, judged, with what is wrong with it as text
    neutral: pd.DataFrame  # one row a neutral text, way and dose
    outcomes: pd.DataFrame  # shares, differences and costs within each budget, on the half ``report``
    curves: pd.DataFrame  # share and cost of every way at every dose, on the half ``report``
    judges: pd.DataFrame  # their figures on held-out human-written texts
    facts: Json = field(default_factory=dict)  # model, emotions, parts, budgets, doses chosen, seeds, counts

    @property
    def emotions(self) -> tuple[str, ...]:
        """The targets."""
        return tuple(self.facts["emotions"])

    @property
    def budgets(self) -> tuple[float, ...]:
        """The perplexity ratios within which ways are compared."""
        return tuple(self.facts["budgets"])

    def get(
        self, quantity: str, *, way: str, emotion: str, judge: str = "", budget: float = 1.5, masked: bool = False
    ) -> Estimate | None:
        """One outcome with its interval; None where the way has no dose within the budget, or it was not measured.

        Args:
            quantity: such as ``share`` or ``less steer`` (:func:`affectlens.circuits.modulating.outcomes.outcomes`).
            way: scale, replace, steer or prompted.
            emotion: the target.
            judge: its name; none for costs.
            budget: the perplexity ratio.
            masked: with emotion words masked.
        """
        table = self.outcomes
        rows = table[(table["quantity"] == quantity) & (table["way"] == way) & (table["emotion"] == emotion)]
        rows = rows[(rows["judge"] == judge) & (rows["budget"] == budget) & (rows["masked"] == masked)]
        row = first(rows)
        return None if row is None else read(row)

    def able(self, judge: str, emotion: str) -> bool:
        """Whether a judge tells the emotion in human-written texts, as far as that was measured.

        Args:
            judge: its name.
            emotion: the target.
        """
        none = pd.DataFrame()
        if not {"judge", "class"} <= set(self.judges):
            return True
        known = self.judges[(self.judges["judge"] == judge) & (self.judges["class"] == emotion)]
        return Verdict(emotion, judge, none, none, none, known).able

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown. What is not above its placebo comes first."""
        from affectlens.circuits.modulating.words import summary

        return summary(self)

    def table(self, *, budget: float = 1.5) -> pd.DataFrame:
        """The table of a paper: one row an emotion, way and judge, with 95% intervals.

        Args:
            budget: the perplexity ratio.
        """
        names = ("share", "less plain", "less random", "less steer", "less prompted")
        shares = self.outcomes[(self.outcomes["quantity"] == "share") & (self.outcomes["budget"] == budget)]
        rows = []
        for row in shares[~shares["masked"]].to_dict("records"):
            at: Json = {"way": row["way"], "emotion": row["emotion"], "judge": row["judge"], "budget": budget}
            found = {name: self.get(name, **at) for name in names}
            hidden: Json = at | {"masked": True}
            masked = self.get("share", **hidden)
            cost = self.get("cost", way=at["way"], emotion=at["emotion"], budget=budget)
            random, plain = found["less random"], found["less plain"]
            rows.append({name: at[name] for name in ("emotion", "way", "judge")} | {
                "dose": row["dose"], "within": row["within"], "cost": "" if cost is None else str(cost),
                **{name: "" if one is None else str(one) for name, one in found.items()},
                "share, words masked": "" if masked is None else str(masked),
                "p plain": None if plain is None else plain.p_adjusted,
                "p random": None if random is None else random.p_adjusted,
            })  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, judge: str | None = None) -> "Figure":
        """Share against perplexity ratio by way: :func:`affectlens.circuits.modulating.figures.frontier`.

        Args:
            judge: whose; the first by default.
        """
        from affectlens.circuits.modulating.figures import frontier

        return frontier(self, judge)

    def save(self, folder: str | Path) -> None:
        """Write ``results/*.parquet`` and, last, ``results/modulation.json``.

        Args:
            folder: of the run.
        """
        home = Path(folder) / "results"
        save_tables(home / FILE, self.facts, {f"{name}.parquet": getattr(self, name) for name in TABLES})

    @classmethod
    def load(cls, folder: str | Path) -> "Comparison":
        """Read what :meth:`save` wrote.

        Args:
            folder: of the run.

        Raises:
            RunError: if there is none, or it is damaged.
        """
        facts, tables = load_tables(
            Path(folder) / "results" / FILE, {name: f"{name}.parquet" for name in TABLES},
            missing=f"{folder} holds no finished comparison of modulation: it has no results/{FILE}.",
            again="compare anew",
        )  # fmt: skip
        return cls(**{name: tables.get(name, pd.DataFrame()) for name in TABLES}, facts=facts)

    def __repr__(self) -> str:
        return f"Comparison({len(self.replies)} replies; {', '.join(self.emotions)}; {', '.join(self.facts['judges'])})"


FILE = "modulation.json"
TABLES = ("replies", "neutral", "outcomes", "curves", "judges")


def comparison_of(written: "Written", judges: pd.DataFrame, facts: Mapping[str, object]) -> Comparison:
    """From what was written and judged to the outcome.

    Args:
        written: replies, neutral texts and the doses chosen.
        judges: each judge's figures on held-out texts.
        facts: model, emotions, parts, seed.
    """
    rows, seed = written.replies.reset_index(drop=True), int(str(facts["seed"]))
    ordinary = typical(rows[(rows["condition"] == "plain") & (rows["half"] == REPORT)])
    wrong = quality(rows["reply"].tolist(), perplexity=rows["ppl"].to_numpy(dtype=float), typical=ordinary)
    rows = rows.assign(**{str(name): wrong[name] for name in wrong})
    said: Json = dict(facts) | {
        "judges": list(judges_of(rows)), "budgets": list(dict.fromkeys(budget for budget, _, _ in written.chosen)),
        "doses": [{"budget": budget} | _plain(one) for (budget, _, _), one in written.chosen.items()],
        "n_choose": int(rows.loc[rows["half"] == CHOOSE, "prompt"].nunique()),
        "n_report": int(rows.loc[rows["half"] == REPORT, "prompt"].nunique()),
    }  # fmt: skip
    return Comparison(
        rows, written.neutral, outcomes(rows, written.neutral, written.chosen, seed=seed),
        curves(rows, written.neutral, seed=seed), judges.reset_index(drop=True), said,
    )  # fmt: skip


def _plain(found: Choice) -> dict[str, object]:
    row = found.row
    return {"way" if name == "condition" else name: value for name, value in row.items()}
