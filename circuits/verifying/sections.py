"""A verification as sections of a report, and the methods paragraph of a paper."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from affectlens.circuits.verifying.figures import by_cost, by_prediction, by_size
from affectlens.circuits.verifying.predicting import MARGIN
from affectlens.circuits.verifying.ranking import SHOWN
from affectlens.circuits.verifying.words import percent
from affectlens.report import Section
from affectlens.stats import DRAWS, FEW_CLUSTERS

if TYPE_CHECKING:
    from affectlens.circuits.verifying.result import Verification

PAPERS = (
    ("mueller2025mib", "MIB: A Mechanistic Interpretability Benchmark", "Mueller, Aaron and others", 2025,
     "2504.13151"),
    ("wang2023ioi", "Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small",
     "Wang, Kevin and others", 2023, "2211.00593"),
    ("shi2024circuit", "Hypothesis Testing the Circuit Hypothesis in LLMs", "Shi, Claudia and others", 2024,
     "2410.13032"),
)  # fmt: skip


def references() -> str:
    """The works that the tests are taken from, as BibTeX."""
    return "\n".join(
        f"@misc{{{key},\n  title = {{{title}}},\n  author = {{{author}}},\n  year = {{{year}}},\n"
        f"  eprint = {{{eprint}}},\n  archivePrefix = {{arXiv}}\n}}"
        for key, title, author, year, eprint in PAPERS
    )


def sections(found: "Verification") -> list[Section]:
    """The verification's part of a report.

    Args:
        found: the verification.
    """
    return list(_sections(found))


def _sections(found: "Verification") -> Iterator[Section]:
    figures = [by_size(found)] if found.divided else []
    tables = {"faithfulness by size": found.curve(), "figures": found.figures}
    yield Section("Is the circuit faithful?", found.summary(), figures, tables)
    if len(found.randoms):
        said = "Random circuits are a distribution: these are its quantiles at each size."
        yield Section("Random circuits of equal size", [said], tables={"quantiles of f": quantiles(found.randoms)})
    if len(found.sets):
        said = "Circuit and model without the same nodes, in units of f. They agree where the circuit is complete."
        yield Section("Completeness", [said], tables={"random sets of nodes": found.sets})
    if len(found.drops):
        said = (
            "`cost` is f lost. `beats` is the share of random added edges that cost less, in size. An `interaction` "
            "above zero says that the two edges stand in for each other."
        )
        drawn = [by_cost(found)] if (found.drops["kind"] == "edge").any() else []
        yield Section("Minimality", [said], drawn, {"what was dropped": found.drops})
    if len(found.edges):
        said = f"Nothing is an effect within {percent(MARGIN)} of the gap between full and none."
        yield Section("Predict, intervene, compare", [said], [by_prediction(found)], {"edges": found.edges})
    if len(found.stability):
        said = "Edges chosen again from other discovery scenes. Ranges are of the selections, no confidence intervals."
        yield Section("Stability", [said], tables={"overlap with the circuit": found.stability})
    yield Section(
        "How the circuit was verified", ["A paragraph for a paper, written from this run."], methods=methods(found)
    )


def quantiles(randoms: pd.DataFrame) -> pd.DataFrame:
    """One row a size: how many random circuits, and quantiles of f.

    Args:
        randoms: ``fraction, draw, f``.
    """
    rows = []
    for fraction, part in randoms.groupby("fraction"):
        found = np.quantile(part["f"].to_numpy(), SHOWN)
        named = {f"{100 * one:g}%": float(value) for one, value in zip(SHOWN, found, strict=True)}
        rows.append({"fraction": fraction, "draws": len(part)} | named)
    return pd.DataFrame(rows)


def methods(found: "Verification") -> str:
    """What was done, from what the verification knows of itself.

    Args:
        found: the verification.
    """
    meta = found.meta
    sizes = ", ".join(percent(one) for one in meta["fractions"])
    interval = (
        f"a bootstrap of scenes ({DRAWS} draws, everything recomputed)" if meta["n_scenes"] >= FEW_CLUSTERS else
        f"the jackknife over scenes with Student's t, as there are fewer than {FEW_CLUSTERS} scenes"
    )  # fmt: skip
    said = (
        f"Edges were chosen by {meta.get('method', 'their scores')} ({meta['rule']} selection) on "
        f"{meta['n_discovery_pairs']} pairs of {meta['n_discovery_scenes']} scenes and verified on {meta['n_pairs']} "
        f"pairs of {meta['n_scenes']} other scenes with {meta['metric']} ({meta['unit']}). Edges outside of a circuit "
        "carried the counterfactual text's activations. Faithfulness is (mean m(C) - mean m(none)) / (mean m(full) - "
        f"mean m(none)); CPR and CMD are the areas under f and |1 - f| over the sizes {sizes} "
        "of the edges, by trapezoids on the linear axis from the smallest size on (Mueller et al. 2025). 95% intervals "
        f"are by {interval} (CPR: always by the jackknife; CMD and the size: what the simultaneous band of f leaves "
        "room for); they hold for the chosen circuit, whose choice is not resampled. "
    )
    if meta["size"] is None:
        return said + "The gap between full and none was not told from zero, so nothing was divided by it."
    where = {"given": "was given", "discovery pairs": "was read on discovery pairs",
             "held-out pairs": "was read on the held-out pairs"}  # fmt: skip
    return said + (
        f"The circuit of {percent(meta['size'])} of the edges was tested (the size {where[meta['chosen_on']]}): "
        "against random circuits that are connected and have as many edges between the same layers, p = (1 + those at "
        "least as faithful) / (1 + all); against its complement; for completeness without random sets of its nodes "
        "(Wang et al. 2023); for minimality by dropping edges, nodes and pairs of edges one at a time, signs flipped "
        "over scenes with max-T, and against random edges added to the circuit (Shi et al. 2024; 90% quantile, Holm). "
        f"Scores were compared with exact path patches of single edges on the held-out pairs. Seed {meta['seed']}."
    )
