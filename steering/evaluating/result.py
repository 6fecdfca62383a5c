"""``SteeringReport``: what an evaluation of steering found, which says, draws, saves and tabulates itself."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from affectlens.errors import SteerError
from affectlens.steering.evaluating.frames import CHOOSE, REPORT, checked, judges_of
from affectlens.tables import load_tables, save_tables
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from affectlens.stats import Estimate
    from affectlens.steering.evaluating.verdicts import Verdict

_COLUMNS = ("plain", "steer", "random", "shuffled", "mean", "orthogonal", "prompted", "fewshot", "heads", "neurons")


@dataclass(frozen=True, eq=False, repr=False)
class SteeringReport:
    """The outcome of :func:`report_on`.

    Attributes:
        replies: one row a reply, with what is wrong with it as text
            (:func:`affectlens.steering.evaluating.quality.quality`).
        neutral: one row a neutral text and dose.
        doses: dose and response (:func:`affectlens.steering.evaluating.doses.dose_response`).
        targets: target shares at the safe dose (:func:`affectlens.steering.evaluating.targets.target_shares`).
        leakage: target by judged emotion (:func:`affectlens.steering.evaluating.leakage.leakages`).
        stability: over methods, emotions, combinations
            (:func:`affectlens.steering.evaluating.stability.stabilities`).
        agreement: the judges' kappa (:func:`affectlens.steering.evaluating.agreement.agreements`).
        judges: each judge's figures on held-out human-written texts, as they were given.
        facts: model, method, safe doses, seeds and counts, as JSON.
    """

    replies: pd.DataFrame
    neutral: pd.DataFrame
    doses: pd.DataFrame
    targets: pd.DataFrame
    leakage: pd.DataFrame
    stability: pd.DataFrame
    agreement: pd.DataFrame
    judges: pd.DataFrame
    facts: Json = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The headline's method of directions."""
        return str(self.facts["method"])

    @property
    def emotions(self) -> tuple[str, ...]:
        """Those that were steered."""
        return tuple(dict.fromkeys(row["emotion"] for row in self.facts["arms"]))

    @property
    def safe(self) -> dict[str, float | None]:
        """The safe dose of each emotion by the headline's method, as a fraction of the norm; None if there is none."""
        return {emotion: self.choice(emotion)["safe"] for emotion in self.emotions}

    def choice(self, emotion: str) -> Json:
        """How the safe dose of an emotion was chosen: ``safe, stopped, by, ratio, neutral``.

        Args:
            emotion: its name.

        Raises:
            SteerError: if it was not steered.
        """
        rows = [row for row in self.facts["arms"] if row["emotion"] == emotion]
        if not rows:
            raise SteerError(f"{emotion!r} was not steered; there are {', '.join(self.emotions)}.")
        mine = [row for row in rows if row["condition"] == "steer" and row["method"] == self.method]
        empty: Json = {"safe": None, "stopped": None, "by": "", "ratio": None, "neutral": False}
        return dict(mine[0]) if mine else empty

    @cached_property
    def verdicts(self) -> "list[Verdict]":
        """What may be said of each emotion by each judge."""
        from affectlens.steering.evaluating.verdicts import verdicts

        return verdicts(self.targets, self.emotions, judges_of(self.replies), self.method, records=self.judges)

    def ppl_ratio(self, emotion: str) -> "Estimate | None":
        """The replies' perplexity at the safe dose over the plain ones', on the prompts that did not choose the dose.

        Args:
            emotion: the target.
        """
        from affectlens.steering.evaluating.verdicts import ppl_ratio

        return ppl_ratio(self.doses, self.choice(emotion))

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown. If a placebo undoes a finding, that comes first."""
        from affectlens.steering.evaluating.words import summary

        return summary(self)

    def table(self) -> pd.DataFrame:
        """The table of a paper: one row an emotion and judge, a column a condition, with 95% intervals.

        ``ppl_ratio`` is that of the replies at the dose, on the prompts that did not choose it.
        """
        rows = []
        for one in self.verdicts:
            found = {name: one.share if name == "steer" else one.of(name) for name in _COLUMNS}
            random = one.less("random")
            shown = {name: "" if value is None else str(value) for name, value in found.items()}
            ratio = self.ppl_ratio(one.emotion)
            rows.append({"emotion": one.emotion, "judge": one.judge, "dose": one.dose,
                         "ppl_ratio": "" if ratio is None else str(ratio), **shown,
                         "p": random.p if random else None, "p_adjusted": random.p_adjusted if random else None,
                         "finding": str(one.finding)})  # fmt: skip
        table = pd.DataFrame(rows)
        return table[[name for name in table if not (table[name] == "").all()]]

    def plot(self, judge: str | None = None) -> "Figure":
        """Target shares at the safe dose beside every control: :func:`affectlens.steering.evaluating.figures.bars`.

        Args:
            judge: whose; the first by default.
        """
        from affectlens.steering.evaluating.figures import bars

        return bars(self, judge)

    def plot_doses(self, emotion: str) -> "Figure":
        """Dose and response: :func:`affectlens.steering.evaluating.figures.dose_curves`.

        Args:
            emotion: the target.
        """
        from affectlens.steering.evaluating.figures import dose_curves

        return dose_curves(self, emotion)

    def save(self, folder: str | Path) -> None:
        """Write ``results/*.parquet`` and, last, ``results/steering.json``.

        Args:
            folder: of the run.
        """
        home = Path(folder) / "results"
        save_tables(home / FILE, self.facts, {f"{name}.parquet": getattr(self, name) for name in TABLES})

    @classmethod
    def load(cls, folder: str | Path) -> "SteeringReport":
        """Read what :meth:`save` wrote.

        Args:
            folder: of the run.

        Raises:
            RunError: if there is none, or it is damaged.
        """
        facts, tables = load_tables(
            Path(folder) / "results" / FILE, {name: f"{name}.parquet" for name in TABLES},
            missing=f"{folder} holds no finished evaluation: it has no results/{FILE}.", again="run it anew",
        )  # fmt: skip
        return cls(**{name: tables.get(name, pd.DataFrame()) for name in TABLES}, facts=facts)

    def __repr__(self) -> str:
        n, judges = len(self.replies), ", ".join(judges_of(self.replies))
        return f"SteeringReport({n} replies, {len(self.emotions)} emotions by {self.method}; judged by {judges})"

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        return lines + self.table().to_html(index=False, border=0, float_format="{:.3g}".format)

    def _ipython_display_(self) -> None:
        from IPython import display

        ipython: Any = display
        ipython.display(ipython.HTML(self._repr_html_()))
        ipython.display(self.plot())


FILE = "steering.json"
TABLES = tuple(one.name for one in fields(SteeringReport) if one.name != "facts")


def report_on(
    replies: pd.DataFrame, neutral: pd.DataFrame, *, judges: pd.DataFrame | None = None, facts: Json | None = None
) -> SteeringReport:
    """From judged replies to a report.

    Safe doses come from the half ``choose`` of the prompts alone, all else from the half ``report``.

    Args:
        replies: one row a reply: ``condition, method, site, emotion, dose, draw, prompt, half, seed, reply, n_new,
            ppl``, and of each judge ``JUDGE`` (label, empty where it abstains), ``JUDGE.p`` and ``JUDGE.masked``,
            which are not read on the half ``choose``.
        neutral: one row a neutral text and dose: ``emotion, method, site, dose, text, nll, plain_nll``.
        judges: each judge's figures on held-out texts: ``judge, source, class, n, recall, false_alarm`` with ``.low``
            and ``.high``; these also correct the shares, and silence a judge on a class that it can't tell.
        facts: what else there is to know. ``method`` names the headline's method (by default the first), ``seed`` that
            of the bootstraps, ``cosines`` lists ``emotion, a, b, cosine`` of two methods' directions,
            ``left_out`` says by name why something was not run, ``self_judged`` lists the judges that read with the
            steered model.

    Raises:
        SteerError: tables that lack columns or plain replies, or nothing that was steered.
    """
    from affectlens.steering.evaluating.agreement import agreements
    from affectlens.steering.evaluating.doses import dose_response
    from affectlens.steering.evaluating.leakage import leakages
    from affectlens.steering.evaluating.quality import quality
    from affectlens.steering.evaluating.safety import choices, typical
    from affectlens.steering.evaluating.stability import stabilities
    from affectlens.steering.evaluating.targets import target_shares

    given: Json = dict(facts or {})
    seed = int(given.get("seed", 0))
    rows = checked(replies, neutral).reset_index(drop=True)
    ordinary = typical(rows[(rows["condition"] == "plain") & (rows["half"] == REPORT)])
    wrong = quality(rows["reply"].tolist(), perplexity=rows["ppl"].to_numpy(dtype=float), typical=ordinary)
    rows = rows.assign(**{str(name): wrong[name] for name in wrong})
    chosen = choices(rows, neutral)
    methods = [one.arm.method for one in chosen if one.arm.condition == "steer"]
    if not methods:
        raise SteerError("Nothing was steered: the table of replies has no row of the condition steer.")
    said = given | {
        "method": given.get("method", methods[0]), "seed": seed, "arms": [one.row for one in chosen],
        "judges": list(judges_of(rows)), "typical_ppl": ordinary,
        "n_choose": int(rows.loc[rows["half"] == CHOOSE, "prompt"].nunique()),
        "n_report": int(rows.loc[rows["half"] == REPORT, "prompt"].nunique()),
    }  # fmt: skip
    if said["method"] not in methods:
        raise SteerError(f"There are no replies by the method {said['method']!r}; there are {', '.join(set(methods))}.")
    return SteeringReport(
        rows, neutral, dose_response(rows, neutral, seed=seed),
        target_shares(rows, chosen, judges=judges, seed=seed), leakages(rows, chosen, seed=seed),
        stabilities(rows, chosen, cosines=given.get("cosines", ()), seed=seed), agreements(rows, chosen, seed=seed),
        pd.DataFrame() if judges is None else judges.reset_index(drop=True), said,
    )  # fmt: skip
