"""The report of a search for features, and its dashboard, as pages."""

import json
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, figure
from affectlens.probing.features.dashboard import write_dashboard
from affectlens.probing.features.report import FeatureReport
from affectlens.probing.features.words import claim
from affectlens.probing.names import plain
from affectlens.probing.sections import citation
from affectlens.report import Section, write
from affectlens.run import Run

MORE = ".section.json"  # sections that other commands put into results/: title, sentences, and tables by file name


def render(run: Run, report: FeatureReport) -> Path:
    """Write ``report.html``, and ``dashboard.html`` while the features' texts are at hand."""
    meta = report.meta
    lead = [
        f"`{meta['model']}` ({meta['source'] or 'weights as loaded'}), dictionary `{meta['sae']}` "
        f"({meta['n_features']:,} {meta['architecture']} features at {meta['site']}); battery `{meta['battery']}`; "
        f"{run.info['started'][:10]}.",
        f"What was found: {claim(report)}.",
    ]
    page = run.folder / "dashboard.html"
    if report.cards:
        title = f"Features of emotion in {meta['model']}"
        write_dashboard(page, title=title, placed=report.placed, cards=report.cards, info=run.info,
                        lead=[plain(line) for line in lead])  # fmt: skip
    if page.is_file():
        lead.append("Browse the features, their texts and their tokens in `dashboard.html` beside this page.")
    figures = [] if report.placed.empty else [report.plot()]
    found = Section("What was found", report.summary(), [*figures, counts_figure(report)], _tables(report),
                    methods(report))  # fmt: skip
    sections = [found, *_more(run.folder / "results")]
    title = f"Features of emotion in {meta['model']}: keywords or affect?"
    return write(run.folder / "report.html", title, lead, sections, run.info, citation(run))


def counts_figure(report: FeatureReport) -> go.Figure:
    """How many features survive for each emotion, beside the range that random labels give."""
    fig = figure("Features that survive, and under random labels", "", "features")
    by = report.enrichment.groupby(["texts", "contrast"], sort=False)
    for colour, ((texts, kind), part) in zip((BLUE, ORANGE, GREEN, PURPLE), by, strict=False):
        contrast = f"{texts}, {kind}"
        high, low = part["null_high"] - part["null_mean"], part["null_mean"] - part["null_low"]
        fig.add_bar(x=part["emotion"], y=part["count"], name=contrast, marker_color=colour)
        fig.add_scatter(
            x=part["emotion"], y=part["null_mean"], mode="markers", name=f"random labels, {contrast}",
            error_y={"array": high, "arrayminus": low}, marker={"symbol": "line-ew-open", "color": GREY, "size": 14},
        )  # fmt: skip
    return fig


def methods(report: FeatureReport) -> str:
    """The methods paragraph, for a paper."""
    meta = report.meta
    dealt = "domains" if (report.differential["dealt"] == "domain").all() else "scenes"
    recipe = meta["facts"].get("recipe", {})
    trained = (
        f" The dictionary was trained with SAELens on {recipe['activations']:,} activations (k {recipe['k']}, learning "
        f"rate {recipe['lr']:g}, seed {recipe['seed']})." if recipe else ""
    )  # fmt: skip
    return (
        f"Features of the dictionary {meta['sae']} (SHA-256 {meta['sae_sha256'][:12]}) at {meta['site']} of "
        f"{meta['model']} (fingerprint {meta['fingerprint'][:12]}) were averaged over the tokens of each item of "
        f"{meta['battery']} (SHA-256 {meta['battery_sha256'][:12]}), the first token left out.{trained} "
        f"Keyword-free and keyword-rich texts were compared with matched neutral ones within scenes; the {dealt} were "
        f"dealt into halves. In the first, two-sided sign-flip tests were corrected over the features of each emotion "
        f"that could pass (Benjamini-Hochberg, {meta['q']:.2f}); in the second, one-sided tests over what was found. "
        f"Effects, responses and classes are those of the second half. "
        f"Counts stand beside those of {meta['draws']} random labellings. {meta['rule']} Seed {meta['seed']}."
    )


def _tables(report: FeatureReport) -> dict[str, pd.DataFrame]:
    named = {
        "features on the plane, with classes": report.placed, "classes by emotion": report.counts,
        "survivors beside random labels": report.enrichment, "how good the dictionary is here": report.evaluation,
        "what comes back from another seed": report.stability,
        "all tested features that were found": report.differential[report.differential["q"] <= report.meta["q"]],
    }  # fmt: skip
    return {name: frame for name, frame in named.items() if not frame.empty}


def _more(home: Path) -> list[Section]:
    """Sections that other commands have added to the run."""
    out = []
    for path in sorted(home.glob(f"*{MORE}")):
        told = json.loads(path.read_text(encoding="utf-8"))
        tables = {name: pd.read_parquet(home / file) for name, file in told["tables"].items()}
        out.append(Section(told["title"], told["sentences"], tables=tables))
    return out
