"""The report of an evaluation as a page: what was found, doses, targets, leakage, stability, replies to read."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from affectlens.report import Section, write
from affectlens.run import Run
from affectlens.steering.evaluating.figures import bars, dose_curves, frontier, leakage_heat
from affectlens.steering.evaluating.method_text import REFERENCES, methods
from affectlens.steering.evaluating.result import SteeringReport
from affectlens.steering.evaluating.samples import samples, shown
from affectlens.steering.evaluating.verdicts import ppl_ratio


def render(run: Run, report: SteeringReport) -> Path:
    """Write ``report.html`` into the run's folder.

    Args:
        run: its folder and ``run.json``.
        report: of the evaluation.
    """
    facts = report.facts
    model = str(facts.get("model", run.info["config"].get("model", "a language model")))
    lead = [
        f"`{model}`; directions by `{report.method}`; {len(report.replies)} replies; {run.info['started'][:10]}. Every "
        "share stands beside plain replies and placebos of the same norm, with a 95% interval that resamples prompts; "
        "doses were chosen on prompts that nothing else is reported on.",
        *report.summary()[:1],
    ]
    sections = [_found(report), *_doses(report), *_targets(report), *_leakage(report), *_stability(report)]
    sections += [*_read(report)]
    sections.append(Section("Methods", ["A paragraph for a paper, written from this run."], methods=methods(report)))
    cite = f"{citation(run, model)}\n\n{REFERENCES}"
    return write(run.folder / "report.html", f"Steering emotion in {model}", lead, sections, run.info, cite)


def citation(run: Run, model: str) -> str:
    """BibTeX for the software as it was run.

    Args:
        run: its ``run.json``.
        model: the model's name.
    """
    return (
        "@software{affectlens,\n  title = {AffectLens: mechanistic interpretability of emotion in language models},\n"
        f"  version = {{{run.info['versions']['affectlens']}}},\n  year = {{{run.info['started'][:4]}}},\n"
        f"  note = {{run on {model}, seed {run.info['config'].get('seed', 0)}}}\n}}"
    )


def _found(report: SteeringReport) -> Section:
    tables = {"target shares at the safe dose": report.table()}
    if not report.judges.empty:
        tables["the judges on held-out human-written texts"] = report.judges
    if not report.agreement.empty:
        tables["agreement of the judges"] = report.agreement
    return Section("What was found", report.summary(), [bars(report, judge) for judge in _able(report)], tables)


def _able(report: SteeringReport) -> list[str]:
    """The judges that have at least one target's class."""
    return [judge for judge in report.facts["judges"] if (report.targets["judge"] == judge).any()]


def _doses(report: SteeringReport) -> Iterator[Section]:
    rows = report.doses[(report.doses["condition"] == "steer") & (report.doses["method"] == report.method)]
    steered = [emotion for emotion in report.emotions if (rows["emotion"] == emotion).any()]
    ratios = [ppl_ratio(report.doses, row) for row in report.facts["arms"]]
    chosen = pd.DataFrame(report.facts["arms"])
    chosen["ppl_ratio"] = ["" if ratio is None else str(ratio) for ratio in ratios]
    said = [
        "Above, the share of replies called the target; below, both perplexities as multiples of the plain ones. "
        "Dose 0 is the plain replies. The dashed line is the safe dose, which other prompts chose.",
        "Looping text has a *low* perplexity: read the share of degenerate replies beside it.",
        "Of the safe doses, `ratio` is at the dose that stopped the search, and `ppl_ratio` that of the replies at the "
        "safe dose, on the prompts that did not choose it.",
    ]
    figures = [dose_curves(report, emotion) for emotion in steered]
    figures += [frontier(report, judge) for judge in _able(report)]
    yield Section("Dose and response", said, figures, {"safe doses": chosen, "dose and response": report.doses})


def _targets(report: SteeringReport) -> Iterator[Section]:
    if not report.targets.empty:
        said = (
            "A miss is a violation (coherent, and of another class), an incoherence (degenerate) or an abstention. "
            "`attainable` is the least p that so many draws can give, before correction over the `family` of "
            "emotions; `detectable` the least difference that would "
            "have been found with 80% power; `masked` is with emotion words masked."
        )
        yield Section("Targets at the safe dose", [said], tables={"every share and difference": report.targets})


def _leakage(report: SteeringReport) -> Iterator[Section]:
    if not report.leakage.empty:
        said = "What the replies are called beside the target. `others` is the sum over the seven other emotions."
        figures = [leakage_heat(report, judge) for judge in _able(report)]
        yield Section("Leakage to other emotions", [said], figures, {"leakage": report.leakage})


def _stability(report: SteeringReport) -> Iterator[Section]:
    if not report.stability.empty:
        said = (
            "The correlation of the emotions' effects between methods, the spread of a method's effects over emotions, "
            "and what each part of a combination gives beside the same dose alone."
        )
        yield Section("Stability", [said], tables={"stability": report.stability})


def _read(report: SteeringReport) -> Iterator[Section]:
    table = samples(report)
    if not table.empty:
        said = (
            f"Three an emotion: two drawn at random (seed {report.facts['seed']}) and the one of the highest "
            "perplexity. None was picked by hand."
        )
        judges = [str(one) for one in report.facts["judges"]]
        yield Section("Replies to read", [said], tables={"these replies": table}, html=shown(table, judges))
