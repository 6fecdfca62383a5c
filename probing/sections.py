"""The probe report as a page: the claim first, then a section a target, drawn from what the run folder holds."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from affectlens.probing.beside import binding
from affectlens.probing.figures import floor_band, ladder_figure, transfer_heat
from affectlens.probing.method_text import methods
from affectlens.probing.report import ProbeReport
from affectlens.probing.words import claim
from affectlens.report import Section, write
from affectlens.run import Run

VIEW = "view.html"  # a few texts coloured token by token, written while the model was at hand
_TABLES = {  # of a target's section, beside its scores
    "layers": "difference from the floor by layer, and permutation p",
    "transfer": "transfer matrix", "asked": "asking instead of reading", "crossed": "crossed quadruples by layer",
    "checks": "answers to the quadruples' factual checks", "false_alarms": "false alarms",
}  # fmt: skip


def render(run: Run, reports: Sequence[ProbeReport]) -> Path:
    """Write ``report.html`` from what the run folder holds."""
    meta = reports[0].meta
    lead = [
        f"`{meta['model']}` ({meta['source'] or 'weights as loaded'}), {meta['n_layers']} layers, "
        f"d_model {meta['d_model']}; battery `{meta['battery']}`; {run.info['started'][:10]}. Every score stands "
        "beside its lexical floor under the same folds, with a 95% interval that resamples what is held out."
    ]
    lead += ["What survives: " + "; ".join(claim(report) for report in reports) + "."]
    lead += [f"Not probed: {why}" for why in run.info.get("unfit", {}).values()]
    sections = [_findings(reports)] + [_section(report) for report in reports]
    view = run.folder / "results" / VIEW
    if view.is_file():
        said = "Texts that no probe was trained on, coloured by the affect probe token by token; hover for the score."
        sections.append(Section("What the probe sees", [said], html=view.read_text(encoding="utf-8")))
    return write(run.folder / "report.html", f"Emotion in {meta['model']}", lead, sections, run.info, citation(run))


def citation(run: Run) -> str:
    """BibTeX for the software as it was run."""
    used = run.info["versions"]["affectlens"]
    return (
        "@software{affectlens,\n  title = {AffectLens: mechanistic interpretability of emotion in language models},\n"
        f"  version = {{{used}}},\n  year = {{{run.info['started'][:4]}}},\n"
        f"  note = {{run on {run.info['config']['model']}, battery {run.info['config']['battery']} "
        f"(SHA-256 {run.info['battery_sha256'][:12]}), seed {run.info['config']['seed']}}}\n}}"
    )


def _findings(reports: Sequence[ProbeReport]) -> Section:
    lines = [report.summary()[0] for report in reports]
    rows = pd.concat([r.table().assign(target=r.target, metric=r.meta["metric"]) for r in reports], ignore_index=True)
    first = ["target", "metric"]
    return Section("What was found", lines, tables={"all scores": rows[first + [c for c in rows if c not in first]]})


def _section(report: ProbeReport) -> Section:
    figures = [ladder_figure(report), report.plot(), floor_band(report)]
    figures += [report.plot_crossed()] if not report.crossed.empty else []
    figures += [transfer_heat(report)] if not report.transfer.empty else []
    facts = binding(report)
    figures += [facts.plot()] if facts else []
    tables = {f"{report.target} by rung, reader and layer": report.scores}
    tables |= {said: getattr(report, name) for name, said in _TABLES.items() if not getattr(report, name).empty}
    if facts:
        tables["bound or not, followed or not"] = facts.table().reset_index(names="quadruples")
    return Section(report.target.capitalize(), report.summary(), figures, tables, methods(report))
