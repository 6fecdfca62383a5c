"""``affectlens compare``, and what a comparison says: its sentences, its figure, its table and its page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.console import emit, say, table
from affectlens.errors import AffectLensError

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from affectlens.probing.comparing import Comparison
    from affectlens.stats import Estimate
    from affectlens.types import Json

PAGE = "comparison.html"
LEVEL = 0.05  # of the corrected test
_NAMES = {"fingerprint": "weights", "battery_sha256": "battery", "quick": "length of the ladder"}


def compare(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of finished probe runs; the first is the base.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Of all that every run has; repeat for several.")] = None,
    out: Annotated[Path | None, typer.Option(help=f"Write a page: an .html file, or a folder for {PAGE}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")] = False,
) -> None:
    """Lay finished probe runs side by side, and test each against the first.

    Example: affectlens compare runs/base runs/instruct --out compared
    """
    if out is not None and out.is_file() and out.suffix != ".html":
        raise AffectLensError(f"{out} is a file and no .html: give --out a folder, or a name that ends in .html.")
    from affectlens.probing import comparing

    found = comparing.compare(*(runs or []), target=target)
    path = None if out is None else page(found, out if out.suffix == ".html" else out / PAGE)
    if as_json:
        emit(facts(found) | {"report": None if path is None else str(path)}, as_json=True)
        return
    from affectlens.probing.names import plain

    shown = wide(found)
    table("Runs compared, with 95% intervals", list(shown.columns), shown.to_numpy().tolist())
    for line in found.summary():
        say("\n" + plain(line))
    if path is not None:
        say(f"\nReport: {path}")


def facts(found: "Comparison") -> "Json":
    """A comparison as JSON holds it: runs, sentences, rows; what is not there is null."""
    from affectlens.probing.names import plain

    rows = found.table.astype(object).where(found.table.notna(), None).to_dict("records")
    return {"runs": list(found.runs), "summary": [plain(line) for line in found.summary()], "table": rows}


def wide(found: "Comparison", target: str | None = None) -> "pd.DataFrame":
    """One row a target and quantity, one column a run: values with their intervals, as text."""
    import pandas as pd

    from affectlens.probing.comparing import LESS
    from affectlens.probing.names import signed

    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in _rows(found, target):
        less = row["what"] == LESS
        value = signed(_estimate(row)) if less or row["what"].startswith("over") else str(_estimate(row))
        said = row["note"] if row["n"] == 0 else f"{value} ({row['note']})" if less or row["what"] == "floor" else value
        quantity = f"{row['what']}: {row['case']}" if row["case"] and not less else row["what"]
        cells.setdefault((row["target"], quantity), {})[row["run"]] = said
    names = [run["name"] for run in found.runs]
    return pd.DataFrame([
        {"target": of, "quantity": quantity} | {name: said.get(name, "") for name in names}
        for (of, quantity), said in cells.items()
    ])  # fmt: skip


def as_html(found: "Comparison") -> str:
    """The sentences and the table, for a notebook."""
    from affectlens.report import markdown

    lines = "".join(f"<p>{markdown(line)}</p>" for line in found.summary())
    return f"<h3>Runs compared</h3>{lines}{wide(found).to_html(index=False, border=0)}"


def summary(found: "Comparison", target: str | None = None) -> list[str]:
    """What survives, in sentences, of one target or all; Markdown."""
    lines = [] if target else [_runs(found)]
    for name in [target] if target else found.targets:
        lines += differences(found, name) + _scores(found, name) + _agreement(found, name) + _beside(found, name)
    return lines


def differences(found: "Comparison", target: str) -> list[str]:
    """How each run differs from the first, and whether that survives."""
    from affectlens.probing.comparing import LESS, OVER, SAME
    from affectlens.probing.names import signed
    from affectlens.stats import detectable

    first, family = found.runs[0]["name"], int(((found.table["what"] == LESS) & found.table["p"].notna()).sum())
    lines = []
    for row in _rows(found, target, LESS):
        if not row["n"]:
            lines.append(f"`{row['run']}` and `{first}` are not compared on {target}: they tell other classes apart.")
        elif row["method"] == SAME:
            lines.append(
                f"**`{row['run']}` reads {target} just as `{first}` does**: {SAME}, a difference of exactly 0."
            )
        else:
            gap = _estimate(row)
            side = "as well as" if not gap.value else "better than" if gap.value > 0 else "worse than"
            what = f"{target}, each less its floor," if row["case"] == OVER else target
            by = f"{' by' if gap.value else ':'} {signed(gap)}"
            design = f"Paired over {gap.n} {gap.unit}s" if row["note"] == "paired" else row["note"].capitalize()
            over = f", {gap.p_adjusted:.3f} over {family} comparisons" if family > 1 else ""
            lines.append(
                f"**`{row['run']}` reads {what} {side} `{first}`{by}: {stands(gap)}.** {design}; p = {gap.p:.3f}"
                f"{over}; the least difference that this design finds with 80% power is {detectable(gap):.2f}."
            )
    return lines


def stands(gap: "Estimate") -> str:
    """What the interval of a difference and its corrected test allow one to say."""
    if gap.low <= 0 <= gap.high:
        return "not distinguishable"
    if gap.p_adjusted is not None and gap.p_adjusted <= LEVEL:
        return "this survives"
    return "not distinguishable, for the interval leaves zero out but the corrected test does not"


def _runs(found: "Comparison") -> str:
    """The runs, and in what they differ."""
    from affectlens.probing.comparing import SETTINGS

    said = [f"`{run['name']}` ({run['n_layers']} layers, d_model {run['d_model']}, {run['dtype']}, battery "
            f"{run['battery']}, seed {run['seed']})" for run in found.runs]  # fmt: skip
    differ = [_NAMES.get(key, key) for key in SETTINGS if len({str(run[key]) for run in found.runs}) > 1]
    how = f"They differ in {', '.join(differ)}" if differ else "They have the same weights and settings"
    return f"Compared with {said[0]}: {'; '.join(said[1:])}. {how}."


def _scores(found: "Comparison", target: str) -> list[str]:
    """Each run's own score, over its floor and its neutral partners."""
    from affectlens.probing.comparing import OVER, SCORE
    from affectlens.probing.names import UNITS, signed
    from affectlens.probing.words import verdict

    parts, above, scores = [], [], _rows(found, target, SCORE)
    for row in scores:
        (over,) = _rows(found, target, OVER, row["run"])
        line = f"`{row['run']}` {row['case']} {_estimate(row)}, {signed(_estimate(over))} over {over['note']}: "
        line += verdict(_estimate(over))
        above.append(over["low"] > 0)
        for partners in _rows(found, target, "over its neutral partners", row["run"]):
            line += "" if partners["low"] > 0 else ", but not above its neutral partners, so topic could explain it"
        parts.append(line)
    note = "" if any(above) else " None is above its floor, so a difference between them would say little."
    return [f"Each by itself, whole {UNITS[scores[0]['note']]} held out: {'; '.join(parts)}.{note}"]


def _agreement(found: "Comparison", target: str) -> list[str]:
    from affectlens.probing.comparing import AGREEMENT

    said = []
    for run in found.runs:
        if rows := _rows(found, target, AGREEMENT, run["name"]):
            said.append(f"`{run['name']}` " + ", ".join(f"{_estimate(row)} over {row['case']}" for row in rows))
    lead = f"Item by item, held-out logits agree with those of `{found.runs[0]['name']}` (Spearman): "
    return [lead + "; ".join(said) + "."] if said else []


def _beside(found: "Comparison", target: str) -> list[str]:
    """What is only set side by side."""
    lines = []
    for what in ("quadruples won", "called emotional", "asked"):
        cases: dict[str, list[str]] = {}
        for row in _rows(found, target, what):
            cases.setdefault(row["case"], []).append(f"`{row['run']}` {_estimate(row)}")
        said = [f"{case}, {', '.join(each)}" for case, each in cases.items()]
        lines += [f"{what.capitalize()}, side by side and not tested: {'; '.join(said)}."] if said else []
    return lines


def depth_curves(found: "Comparison", target: str) -> "Figure":
    """Score by relative depth, one curve a run, and the floor of each."""
    from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, band, figure, level
    from affectlens.probing.comparing import OVER, SCORE

    scores = _rows(found, target, SCORE)
    metric = scores[0]["case"]
    fig = figure(f"{target}: {metric} by relative depth", "layer / (number of layers - 1)", metric)
    floors: dict[tuple[str, float], list[str]] = {}
    for place, row in enumerate(scores):
        curve = found.layers[(found.layers["target"] == target) & (found.layers["run"] == row["run"])]
        x, low, value, high = (curve[c].astype(float).tolist() for c in ("depth", "low", "value", "high"))
        colour = (BLUE, ORANGE, GREEN, PURPLE)[place % 4]
        band(fig, x, low, value, high, row["run"], colour, dash=("solid", "dash", "dot")[place // 4 % 3])
        (over,) = _rows(found, target, OVER, row["run"])
        floors.setdefault((over["note"], round(row["value"] - over["value"], 6)), []).append(row["run"])
    for (name, value), of in floors.items():
        whose = "" if len(floors) == 1 else f" of {', '.join(of)}"
        level(fig, [0.0, 1.0], value, f"floor{whose}: {name}", GREY)
    fig.update_layout(hovermode="closest")
    return fig


def page(found: "Comparison", path: Path) -> Path:
    """Write the comparison as one HTML file that needs nothing else."""
    from affectlens.probing.comparing import __doc__ as method
    from affectlens.report import Section, write

    sections = []
    for name in found.targets:
        rows = found.table[found.table["target"] == name]
        tables = {f"{name} side by side": wide(found, name), f"{name}, all numbers": rows.astype(object).fillna("")}
        how = " ".join((method or "").split())
        sections.append(Section(name.capitalize(), found.summary(name), [found.plot(name)], tables, how))
    lead = [_runs(found), *(line for name in found.targets for line in differences(found, name))]
    title = " against ".join(run["name"] for run in found.runs)
    return write(path, title, lead, sections, {"command": "compare", "runs": found.runs}, _citation(found))


def _citation(found: "Comparison") -> str:
    used, year = (found.runs[0]["versions"] or {}).get("affectlens", ""), found.runs[0]["started"][:4]
    note = "; ".join(f"{run['model']}, battery {run['battery']}, seed {run['seed']}" for run in found.runs)
    return (
        "@software{affectlens,\n  title = {AffectLens: mechanistic interpretability of emotion in language models},\n"
        f"  version = {{{used}}},\n  year = {{{year}}},\n  note = {{comparison of runs: {note}}}\n}}"
    )


def _rows(found: "Comparison", *key: str | None) -> list[dict[str, Any]]:
    """The table's rows of a target, quantity and run; None and what is left out mean any."""
    rows: Any = found.table.to_dict("records")
    given = [(name, one) for name, one in zip(("target", "what", "run"), key, strict=False) if one is not None]
    return [row for row in rows if all(row[name] == one for name, one in given)]


def _estimate(row: dict[str, Any]) -> "Estimate":
    from affectlens.stats import Estimate

    p, adjusted = (None if row[c] != row[c] else float(row[c]) for c in ("p", "p_adjusted"))
    return Estimate(row["value"], row["low"], row["high"], row["n"], row["unit"], p, adjusted, row["method"])
