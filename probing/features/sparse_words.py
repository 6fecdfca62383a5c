"""What sparse probes found in sentences: the headline with its floor, dense probes, curve, controls. Markdown."""

from affectlens.probing.features.sparse_report import SparseReport
from affectlens.probing.names import ASKED, FLOOR_NAMES, READER_NAMES, UNITS, signed
from affectlens.probing.report import NESTED
from affectlens.probing.words import verdict
from affectlens.stats import Estimate, detectable

DENSE = {"codes": "all features", "residual": "the residual stream"}
CONTROLS = {"random_features": "random features of the same density", "random_directions": "random directions"}
NAMED = 8  # features that are listed at most


def summary(report: SparseReport) -> list[str]:
    """The sentences, most important first."""
    lines = [_headline(report), _floor(report), *(_dense(report, name) for name in DENSE), _curve(report)]
    lines += [_control(report, kind) for kind in CONTROLS if report.has("control", kind)]
    lines += [f"There is no control {name.replace('_', ' ')}: {why}" for name, why in _skipped(report)]
    lines.append(_choice(report))
    lines += [_rung(report, rung) for rung in report.rungs if rung != report.meta["rung"]]
    return lines + [f"The {rung} rung does not apply: {why}." for rung, why in report.meta["skipped"].items()]


def _skipped(report: SparseReport) -> list[tuple[str, str]]:
    return list(report.meta["skipped_controls"].items())


def _headline(report: SparseReport) -> str:
    meta = report.meta
    stands = verdict(report.estimate("difference", report.strongest_floor))
    asked = ASKED.get(report.target, f"Column {report.target}")
    rows = report.chosen[report.chosen["rung"] == meta["rung"]]
    picked = rows.groupby("fold")["k"].first().tolist()
    return (
        f"**{asked} is read from a few of the {meta['n_features']:,} features of `{meta['sae']}` (`{meta['site']}`) "
        f"with {meta['metric']} {report.headline}, {stands}.** How many was chosen inside each fold (k = "
        f"{', '.join(map(str, picked))}), which from its training items alone; features pooled by {meta['how']}, "
        f"{meta['n_items']} items in {meta['n_groups']} scenes, whole {UNITS[meta['rung']]} held out; chance is "
        f"{meta['chance']:.3g}."
    )


def _floor(report: SparseReport) -> str:
    name = report.strongest_floor
    gap = report.estimate("difference", name)
    reach = "" if name == "chance" else f"The strongest reader of words alone ({FLOOR_NAMES[name]}) reaches "
    said = "No reader of words alone is above chance; " if name == "chance" else f"{_at(report, name)}; "
    return (
        f"{reach}{said}the sparse probe less {READER_NAMES.get(name, name)}: {signed(gap)}. A difference of "
        f"{detectable(gap):.2f} would have been found four times in five."
    )


def _at(report: SparseReport, floor: str) -> Estimate:
    return report.estimate("floor", floor, 0)


def _dense(report: SparseReport, name: str) -> str:
    gap = report.estimate("dense_less_sparse", name)
    shown = (
        "more than the few show" if gap.low > 0 else "less than the few do" if gap.high < 0
        else "not distinguishable from the few"
    )  # fmt: skip
    return (
        f"The dense probe on {DENSE[name]} reaches {report.estimate('probe', name, 0)}: {shown} "
        f"(dense less sparse {signed(gap)})."
    )


def _curve(report: SparseReport) -> str:
    ks = report.meta["ks"]
    said = ", ".join(f"{k}: {report.estimate('probe', 'sparse', k)}" for k in ks)
    band = report.curve[report.curve["kind"] == "sparse_less_floor"]
    above = band.loc[band["low"] > 0, "k"].tolist()
    where = f"above the floor at k = {', '.join(map(str, above))}" if above else "above the floor at no k"
    return f"By number of features {said}. In a band that holds for all {len(ks)} at once: {where}."


def _control(report: SparseReport, kind: str) -> str:
    found = report.estimate("control", kind)
    line = f"As many {CONTROLS[kind]} reach {found} ({found.n} draws; p = {found.p:.3f} that a draw reads as much)"
    return f"{line}; the sparse probe less their mean {signed(report.estimate('beyond_control', kind))}."


def _choice(report: SparseReport) -> str:
    table = report.often()
    folds = int(table["folds"].iloc[0])
    always = table[table["times"] == folds]
    named = ", ".join(f"F{row['feature']} ({row['towards']})" for row in always.head(NAMED).to_dict("records"))
    more = f" and {len(always) - NAMED} more" if len(always) > NAMED else ""
    listed = f": {named}{more}" if len(always) else ""
    return f"Of {len(table)} features chosen in any of {folds} folds, {len(always)} were chosen in all{listed}."


def _rung(report: SparseReport, rung: str) -> str:
    name = report.strongest(rung)
    gap = report.estimate("difference", name, NESTED, rung)
    dense = report.estimate("probe", "residual", 0, rung)
    return (
        f"With {UNITS[rung]} held out ({rung}): sparse {report.estimate('probe', 'sparse', NESTED, rung)}, residual "
        f"stream {dense}; sparse less {READER_NAMES.get(name, name)} {signed(gap)}, {verdict(gap)}."
    )
