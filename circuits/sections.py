"""The report of a circuit run as a page: what was found, the picture, each circuit's proofs, what layers agree on."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from scipy.stats import false_discovery_control

from affectlens.circuits import sharing
from affectlens.circuits.finding import Found
from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.picture.page import fragment, write_picture
from affectlens.circuits.verifying.completing import MEAN, WORST
from affectlens.circuits.verifying.words import without
from affectlens.probing.sections import citation
from affectlens.report import Section, write

if TYPE_CHECKING:
    from affectlens.circuits.study import Finished

PAGE = "picture.html"
SHOWN = ("gap", "cpr", "cmd", "size", "f", "complement", "above_random", MEAN, WORST)
READ = (
    "An edge joins what writes into the residual stream with what reads it. On a circuit, edges outside of it carry "
    "what the other text of the pair has there. Faithfulness 1 is the model's own difference between the two texts, 0 "
    "none of it. Edges were scored and chosen on one half of the scenes, and estimated scores are of that half, where "
    "the largest are flattered; exact effects and all figures of the verification are of the other half."
)


def render(done: "Finished") -> Path:
    """Write ``report.html`` and the picture.

    Args:
        done: a finished run.
    """
    info, graphs, home = done.run.info, graphs_of(done), done.run.folder
    first = next(iter(done.found.values())).graph.meta
    lead = [
        f"`{first['model']}` ({first['source'] or 'weights as loaded'}); battery `{first['battery']}`; metric "
        f"`{first['metric']}`, in {first['unit']}; {first['method']}, {first['steps']} steps; {info['started'][:10]}.",
        READ,
    ]
    if done.details or not (home / PAGE).is_file():  # else what is there shows more
        write_picture(home / PAGE, graphs, details=done.details)
    lead.append(f"Walk through the circuits in `{PAGE}` beside this page.")
    sections = [_first(done, graphs), *done.agreement.sections(), *sharing.sections(done.found)]
    for emotion, one in done.found.items():
        sections += _of(emotion, one)
    title = f"Circuits of {', '.join(done.found)} in {first['model']}"
    return write(home / "report.html", title, lead, sections, info, citation(done.run))


def graphs_of(done: "Finished") -> dict[str, CircuitGraph]:
    """The graphs by emotion.

    Args:
        done: a run.
    """
    return {emotion: one.graph for emotion, one in done.found.items()}


def headlines(done: "Finished") -> list[str]:
    """A sentence an emotion, then what the layers agree on.

    Args:
        done: a run.
    """
    own = [f"**{emotion}**: {one.verification.summary()[0]}" for emotion, one in done.found.items()]
    left = [f"Not joined: the {stage} run {why}" for stage, why in done.agreement.meta.get("unfit", {}).items()]
    return [*own, *done.agreement.summary()[:1], *left]


def facts(found: dict[str, Found]) -> pd.DataFrame:
    """One row an emotion and figure of its verification: ``emotion, edges, tested, name, value, low, high, n, p``...

    ``p_adjusted`` is Benjamini-Hochberg over the emotions, of each figure that has a p; ``nodes`` are those that the
    worst set takes out.

    Args:
        found: by emotion.
    """
    parts = [one.verification.figures.assign(emotion=emotion, edges=len(one.graph.edges), tested=one.graph.meta["size"])
             for emotion, one in found.items()]  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    worst = {emotion: " ".join(one.verification.worst) for emotion, one in found.items()}
    table = table.assign(nodes=table["emotion"].map(worst).where(table["name"] == WORST, ""))
    known = table["p"].notna()
    adjusted = table[known].groupby("name")["p"].transform(lambda p: false_discovery_control(p.to_numpy(dtype=float)))
    first = ["emotion", "edges", "tested", "name"]
    return table.assign(p_adjusted=adjusted)[first + [c for c in table if c not in first] + ["p_adjusted"]]


def shown(done: "Finished") -> pd.DataFrame:
    """The figures that matter most, an emotion a row, as text with intervals.

    Args:
        done: a run.
    """
    rows = []
    for emotion, one in done.found.items():
        proof = one.verification
        there = {name: str(proof.estimate(name)) for name in SHOWN if proof.has(name)}
        if WORST in there:
            there[WORST] += f" {without(proof.worst)}"
        rows.append({"emotion": emotion, "edges": f"{len(one.graph.edges):,}", **there})
    return pd.DataFrame(rows).fillna("")


def _first(done: "Finished", graphs: dict[str, CircuitGraph]) -> Section:
    tables = {"circuits, one a row": shown(done), "every figure": facts(done.found)}
    return Section("What was found", headlines(done), tables=tables, html=fragment(graphs, details=done.details))


def _of(emotion: str, one: Found) -> list[Section]:
    proofs = one.verification.sections()
    tables = {f"edges of {emotion}": one.graph.edges, f"heads and MLPs of {emotion}": one.graph.nodes}
    own = Section(f"The circuit of {emotion}", one.graph.summary(), tables={k: v for k, v in tables.items() if len(v)})
    return [own, *proofs]
