"""The report of a patch or ablate run as a page, drawn from what the run folder holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from affectlens.errors import PatchError
from affectlens.patching.ablation import AblationSweep
from affectlens.patching.method_text import meaning, methods, references
from affectlens.patching.pictures import both_ways, pictures, rates, titled, turned
from affectlens.patching.results import Agreement, PatchSweep, agreement
from affectlens.patching.said import Said
from affectlens.probing.sections import citation
from affectlens.report import Section, write

if TYPE_CHECKING:
    from affectlens.patching.study import Finished

READ = {
    "patch": "An effect is the share of the gap between a pair's two texts that a patch carries over: 0 is nothing, 1 "
    "all of it, in both directions. Intervals are 95% and resample groups of pairs; a cell is specific if it beats "
    "every null control, too.",
    "ablate": "An effect is the share of the gap between a pair's two texts that is lost: 0 is nothing, 1 all of it. "
    "The true drop in accuracy is of pairs that the metric orders right; that the likeliest token changes is damage "
    "of any kind. Intervals are 95% and resample groups of pairs.",
}
SHOWN = ["metric", "kind", "layer", "index", "segment", "extent", "source", "value", "low", "high", "n", "normalised",
         "p", "p_adjusted", "detectable"]  # fmt: skip


def render(done: "Finished") -> Path:
    """Write ``report.html``.

    Args:
        done: a run with its finished parts.
    """
    info, views = done.run.info, done.views
    lead = [_about(done), READ[info["command"]]]
    lead += [f"Not measured: {why}" for why in info.get("unfit", {}).values()] + list(info.get("left_out", ()))
    if missing := [name for name in info.get("parts", ()) if name not in done.said]:
        lead.append(f"**Not finished**: {', '.join(missing)}.")
    names = dict.fromkeys(metric for view in views.values() for metric in view.metrics)
    sections = [_found(views), *(_of_metric(done, views, name) for name in names), *_agreed(done), *_crossed(done)]
    sections.append(Section("Methods", ["A paragraph for a paper, written from this run."], methods=methods(done)))
    did = "Patching" if info["command"] == "patch" else "Ablating"
    title = f"{did} emotion in {next(iter(views.values())).sweep.meta['model']}"
    cite = f"{citation(done.run)}\n\n{references(done)}"
    return write(done.run.folder / "report.html", title, lead, sections, info, cite)


def _about(done: "Finished") -> str:
    info = done.run.info
    views = list(done.views.items())
    meta, many = views[0][1].sweep.meta, len({len(view.sweep.pairs) for _, view in views}) > 1
    sizes = dict.fromkeys(f"{_size(view.sweep.pairs)}{f' of {name}' if many else ''}" for name, view in views)
    cue = f"each followed by `{meta['cue']}`" if meta["cue"] else "without a cue"
    return (
        f"`{meta['model']}` ({meta['source'] or 'weights as loaded'}), {meta['n_layers']} layers; battery "
        f"`{meta['battery']}`, {' and '.join(sizes)}, {cue}; {info['started'][:10]}."
    )


def _size(pairs: pd.DataFrame) -> str:
    return f"{len(pairs)} pairs ({', '.join(pairs['contrast'].unique())}) in {pairs['group'].nunique()} groups"


def _found(views: dict[str, Said]) -> Section:
    lines, baselines, largest = [], [], []
    for name, view in views.items():
        prefix = f"*{name}*: " if len(views) > 1 else ""
        lines += [prefix + line for line in view.summary()]
        baselines.append(view.sweep.baselines.assign(sweep=name))
        for metric in view.metrics:
            if _told(view.sweep, metric):
                largest.append(view.sweep.top(metric=metric).assign(sweep=name))
    tables = {"baselines": pd.concat(baselines, ignore_index=True)}
    if largest:
        tables["largest effects"] = pd.concat(largest, ignore_index=True)
    return Section("What was found", lines, tables={name: _first(table, "sweep") for name, table in tables.items()})


def _of_metric(done: "Finished", views: dict[str, Said], metric: str) -> Section:
    figures, tables = [], {}
    for name, view in views.items():
        if metric not in view.metrics or not _told(view.sweep, metric):
            continue
        label = name if len(views) > 1 else ""
        figures += [titled(fig, label) for fig in pictures(view.sweep, metric)]
        effects = view.sweep.effects(metric=metric)
        of = f"{metric}, {name}"
        tables[f"{of}: effects"] = effects[[column for column in SHOWN if column in effects]]
        tables[f"{of}: effects less each control's"] = view.sweep.beside(metric=metric)
        if isinstance(view.swept, AblationSweep):
            figures += list(rates(view.swept, metric))
            tables[f"{of}: accuracy and changed tokens"] = view.swept.rates[view.swept.rates["metric"] == metric]
    unit = next(view for view in views.values() if metric in view.metrics).sweep.unit(metric)
    said = f"`{metric}` ({unit}) is {meaning(done, metric)}."
    said += "" if figures else " It is the same for both texts of every pair, so there is no figure."
    return Section(metric.replace("_", " ").capitalize(), [said], figures, tables)


def _agreed(done: "Finished") -> Iterator[Section]:
    """Where both directions were run: how alike they are, cell by cell; of quadruples, which are one, not."""
    both = [done.said.get(way) for way in ("denoise", "noise")]
    one, two = (part.sweep if part else None for part in both)
    if one is None or two is None:
        return
    try:
        found = agreement(one.table, two.table, seed=one.meta["seed"])
    except PatchError as error:
        yield Section("Denoise and noise", [str(error)])
        return
    lines = [_alike(found, metric) for metric in found.rho]
    lines.append(
        "Above the line of equality a cell is needed but not enough; below it, enough, but something else serves when "
        "it is gone."
    )
    figures = [both_ways(found, metric) for metric in found.rho if _normal(found, metric)]
    yield Section("Denoise and noise", lines, figures, {"both directions, cell by cell": found.cells})


def _alike(found: Agreement, metric: str) -> str:
    cells = found.cells[found.cells["metric"] == metric]
    apart = int((cells["p_adjusted"] <= 0.05).sum())
    return (
        f"{metric}: the rank correlation of both directions over {len(cells)} cells is {found.rho[metric]}; in {apart} "
        "cells they differ (p at most 0.05, max-T)."
    )


def _normal(found: Agreement, metric: str) -> bool:
    return bool(found.cells.loc[found.cells["metric"] == metric, "normalised"].any())


def _crossed(done: "Finished") -> Iterator[Section]:
    flip = done.flip
    if flip is None:
        return
    names = dict.fromkeys(metric for sweep in flip.sweeps.values() for metric in sweep.metrics)
    figures = [fig for metric in names for fig in turned(flip, metric)]
    lines = [
        "d = s(ax) + s(by) - s(ay) - s(bx) is what the model makes of facts and ending together. Where the facts are "
        "patched both ways, the effect is the share of d that turns. `crossed_fact` asks for the binding of facts "
        "alone: what turns there too is not affect."
    ]
    yield Section("Does patching the facts turn d?", lines, figures, {"d turned, by split and emotion": flip.table()})


def _told(sweep: PatchSweep, metric: str) -> bool:
    """Whether some pair's baselines differ, so that there are effects."""
    rows = sweep.baselines
    return bool(rows.loc[rows["metric"] == metric, "pairs"].any())


def _first(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table[[column, *(one for one in table if one != column)]]
