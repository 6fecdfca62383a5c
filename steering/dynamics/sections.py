"""The report of a study as a page: what was found, trajectories, tests, conversations to read."""

from collections.abc import Iterator
from pathlib import Path

from affectlens.report import Section, write
from affectlens.run import Run
from affectlens.steering.dynamics.drawing import doses_by_turn, moods_by_turn, replies_by_turn, tracking_by_lag
from affectlens.steering.dynamics.method_text import REFERENCES, methods
from affectlens.steering.dynamics.policies import CLOSED, PLAIN
from affectlens.steering.dynamics.result import DynamicsReport
from affectlens.steering.evaluating.sections import citation

_FIGURES = {
    "push": "Calm turns, a push (shaded), calm turns again. Bands are 95% over scripts, replies as moving means.",
    "ramp": "Levels rise to the middle of the shaded turns and fall again. Bands are 95% over scripts.",
}


def render(run: Run, report: DynamicsReport) -> Path:
    """Write ``report.html`` into the run's folder.

    Args:
        run: its folder and ``run.json``.
        report: of the study.
    """
    model = str(report.facts["model"])
    lead = [
        f"`{model}`; {', '.join(report.rules)}; {len(report.turns)} replies; {run.info['started'][:10]}. A mood "
        "beside the conversation sets the doses of each reply. What counts is whether *replies* settle, overshoot "
        "and lag, beside controls that have the doses without the loop.",
        *report.summary()[:1],
    ]
    found = {"figures of the closed loop": report.table(), "how much is steered": report.doses}
    sections = [
        Section("What was found", report.summary(), tables=found),
        *_trajectories(report), _tests(report), _read(report),
        Section("Methods", ["A paragraph for a paper, written from this run."], methods=methods(report)),
    ]  # fmt: skip
    cite = f"{citation(run, model)}\n\n{REFERENCES}"
    return write(run.folder / "report.html", f"Moods that move in {model}", lead, sections, run.info, cite)


def _trajectories(report: DynamicsReport) -> Iterator[Section]:
    for protocol in dict.fromkeys(report.turns["protocol"]):
        drawn = [
            draw(report, str(protocol), rule)
            for rule in report.rules
            for draw in (replies_by_turn, moods_by_turn, doses_by_turn)
        ]
        yield Section(f"Turn by turn: {protocol}", [_FIGURES[str(protocol)]], drawn)


def _tests(report: DynamicsReport) -> Section:
    said = [
        "`null` is the mean of the figure over other orders of turns; its p says whether turns matter at all, which "
        "they do for plain replies too; `by_noise` is what replies that nothing moves would have. What the loop does "
        "is in the differences to its controls. Only `response` and `hysteresis` are tested there (`primary`); the "
        "others have their intervals. `attainable` is the least p that so many scripts can give, `detectable` the "
        "least difference that this test, corrected, would find with 80% power.",
    ]
    drawn = [] if report.lags.empty else [tracking_by_lag(report, rule) for rule in report.rules]
    tables = {"every figure": report.figures, "closed loop less controls": report.differences}
    if not report.lags.empty:
        tables["tracking by lag"] = report.lags
    return Section("Figures and tests", said, drawn, tables)


def _read(report: DynamicsReport) -> Section:
    first = report.turns[report.turns["script"] == report.turns["script"].iloc[0]]
    first = first[(first["protocol"] == first["protocol"].iloc[0]) & (first["repeat"] == first["repeat"].min())]
    table = first[first["policy"] == PLAIN][["turn", "level", "user", "reply"]].rename(columns={"reply": PLAIN})
    for rule in report.rules:
        mine = first[(first["policy"] == CLOSED) & (first["rule"] == rule)].set_index("turn")
        doses = [column for column in mine if str(column).startswith("dose.")]
        table[f"doses, {rule}"] = [
            ", ".join(f"{str(name)[5:]} {mine.at[turn, name]:.2f}" for name in doses if mine.at[turn, name])
            for turn in table["turn"]
        ]
        table[f"closed, {rule}"] = [mine.at[turn, "reply"] for turn in table["turn"]]
    said = f"The script `{first['script'].iloc[0]}`, plain and under each rule. All of them are in the table of turns."
    tables = {"a conversation": table, "every turn": report.turns}
    return Section("To read", [said], tables=tables)
