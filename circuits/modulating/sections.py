"""A comparison as a section of a report, and as a page of its own."""

from pathlib import Path

import pandas as pd

from affectlens.circuits.modulating.comparison import Comparison
from affectlens.circuits.modulating.figures import frontier
from affectlens.circuits.modulating.words import methods
from affectlens.report import Section, write
from affectlens.run import Run
from affectlens.steering.evaluating.sections import citation


def section(found: Comparison) -> Section:
    """What was found, share against cost for every emotion and judge, and every figure as a table.

    Args:
        found: the comparison.
    """
    said = [
        *found.summary(),
        "A way's dose is the largest whose two perplexity ratios (replies, neutral text) were within the budget on "
        "other prompts; looping text has a low perplexity, so read `coherent` and `degenerate` beside the share. Of "
        "every outcome `least` is the least adjusted p that its row alone can reach with so many prompts or draws.",
    ]
    figures = [frontier(found, judge, emotion) for emotion in found.emotions for judge in found.facts["judges"]]
    tables = {f"at most {budget:g} times the perplexity": found.table(budget=budget) for budget in found.budgets}
    tables |= {"every outcome": found.outcomes, "share and cost by dose": found.curves,
               "doses chosen": pd.DataFrame(found.facts["doses"])}  # fmt: skip
    tables = {name: table for name, table in tables.items() if not table.empty}
    return Section("Modulating the circuit", said, figures, tables, methods=methods(found))


def render(run: Run, found: Comparison) -> Path:
    """Write ``report.html`` into the run's folder.

    Args:
        run: its folder and ``run.json``.
        found: the comparison.
    """
    model = str(found.facts["model"])
    lead = [
        f"`{model}`; {len(found.replies)} replies; {run.info['started'][:10]}. Every share stands beside plain replies "
        "and placebos, with a 95% interval that resamples prompts; doses were chosen on other prompts."
    ]
    return write(run.folder / "report.html", f"Modulating circuits of emotion in {model}", lead, [section(found)],
                 run.info, citation(run, model))  # fmt: skip
