"""An audit as a self-contained page: the table, the worst items of each property, the words that leak, the balance."""

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from affectlens import __version__
from affectlens.plots import BLUE, GREY, ORANGE, figure
from affectlens.report import Section, write
from affectlens.stats import Estimate
from affectlens.stimuli.auditing.finding import Audit, Finding
from affectlens.stimuli.battery import Battery
from affectlens.stimuli.explorer import balance_figure


def write_page(path: Path, audit: Audit, battery: Battery) -> Path:
    """Write the page of an audit; ``battery`` is the one audited."""
    failed = [f.name for f in audit.findings if f.passed is False]
    verdict = "Every property is within its bound." if not failed else f"**Out of bounds:** {', '.join(failed)}."
    lead = [f"{audit.items} items, licence {audit.licence}, SHA-256 `{audit.sha256[:16]}`. {verdict}"]
    table = audit.frame()[["verdict", "property", "figure", "low", "high", "bound", "note"]]
    sections = [Section("Properties", [WHAT], (floors_figure(audit),), {"properties": table})]
    sections += [_section(f) for f in audit.findings if f.worst or f.words]
    sections.append(Section("Balance", ["Items by emotion and split."], (balance_figure(battery),),
                            {"counts": battery.counts()}))  # fmt: skip
    info = {"affectlens": __version__, "battery": audit.battery, "sha256": audit.sha256,
            "bounds": asdict(audit.bounds), "seconds": round(audit.seconds, 1)}  # fmt: skip
    return write(path, f"Audit of {audit.battery}", lead, sections, info, CITATION)


def floors_figure(audit: Audit) -> go.Figure:
    """Every property with an interval, as a point with its interval, beside chance."""
    rows = [(f.name, f.figure, f.passed) for f in audit.findings if isinstance(f.figure, Estimate)]
    rows = [row for row in rows if "difference" not in row[0] and "less" not in row[0]]
    fig = figure("What readers without a model can tell", "AUROC, or share of quadruples won", "")
    for passed, colour, name in (
        (True, BLUE, "within its bound"),
        (False, ORANGE, "out of bounds"),
        (None, GREY, "reported"),
    ):
        kept = [(p, e) for p, e, ok in rows if ok is passed]
        if kept:
            fig.add_scatter(
                x=[e.value for _, e in kept], y=[p for p, _ in kept], mode="markers", name=name,
                marker={"color": colour, "size": 10}, customdata=[str(e) for _, e in kept],
                hovertemplate="%{y}: %{customdata}<extra></extra>",
                error_x={"type": "data", "symmetric": False, "array": [e.high - e.value for _, e in kept],
                         "arrayminus": [e.value - e.low for _, e in kept], "color": colour},
            )  # fmt: skip
    fig.add_vline(x=0.5, line={"color": GREY, "dash": "dot"})
    fig.update_layout(
        hovermode="closest", height=160 + 34 * len(rows), yaxis={"automargin": True, "autorange": "reversed"}
    )
    return fig


def write_fixes(path: Path, audit: Audit) -> Path:
    """What to mend, one JSON object a line: property, item, figure, say."""
    from affectlens.paths import write_text

    rows = audit.fixes().to_dict("records")
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def _section(f: Finding) -> Section:
    tables = {}
    if f.worst:
        tables["worst items"] = pd.DataFrame([asdict(w) for w in f.worst])
    if f.words:
        tables["words that lean to one side"] = pd.DataFrame([asdict(w) for w in f.words])
    said = f"**{f.verdict}**: {f.said()} ({f.bound}). {f.note}".strip()
    return Section(f.name, [said], (), tables)


WHAT = (
    "Floors are held-out scores of readers that see only words. What a probe on a model scores above them is what the "
    "words alone do not explain; a floor near one leaves nothing to show."
)
CITATION = """@misc{affectlens,
  title = {AffectLens: mechanistic interpretability of emotion in language models},
  note = {Battery audit},
  year = {2026},
}"""
