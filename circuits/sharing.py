"""What circuits of several emotions have in common, compared at one size, as a section of the report."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.overlapping import jaccard, overlap_table
from affectlens.circuits.selecting import at_sizes
from affectlens.circuits.wheel import dendrogram
from affectlens.probing.geometry.models import LEAST
from affectlens.report import Section

if TYPE_CHECKING:
    from affectlens.circuits.finding import Found


def of_one_size(found: Mapping[str, "Found"]) -> dict[str, CircuitGraph]:
    """Each emotion's circuit at the same share of the edges.

    Of circuits of unequal sizes the index can't be more than the ratio of the sizes, so a tree of them is a tree of
    sizes. The share is the middle one of those that were tested, or the next at which every circuit has edges.

    Args:
        found: by emotion.
    """
    sizes = sorted(float(one.graph.meta["size"]) for one in found.values())
    shares = list(dict.fromkeys(sizes[(len(sizes) - 1) // 2 :]))
    masks = {
        emotion: at_sizes(one.scores.space, one.scores.mean(), shares, str(one.graph.meta["selection"]))
        for emotion, one in found.items()
    }
    share = next(one for one in shares if all(each[one].any() for each in masks.values()))
    return {emotion: CircuitGraph.of(one.scores, masks[emotion][share], meta=one.graph.meta | {"size": share})
            for emotion, one in found.items()}  # fmt: skip


def again(found: Mapping[str, "Found"], share: float) -> dict[str, float]:
    """The index of each emotion's circuit and the one that its other scenes give: what chance leaves of one circuit.

    Two emotions whose circuits share as much are not told apart by them.

    Args:
        found: by emotion.
        share: of the edges.
    """
    out = {}
    for emotion, one in found.items():
        rule, space = str(one.graph.meta["selection"]), one.scores.space
        mine, theirs = (at_sizes(space, scores.mean(), (share,), rule)[share] for scores in (one.scores, one.held))
        out[emotion] = float(jaccard(mine[space.allowed], theirs[space.allowed]))
    return out


def sections(found: Mapping[str, "Found"]) -> Iterator[Section]:
    """The section, where there are two circuits or more.

    Args:
        found: by emotion.
    """
    if len(found) < 2:
        return
    graphs = of_one_size(found)
    size = next(iter(graphs.values())).meta["size"]
    table = overlap_table(graphs)
    edges, same = table[table["of"] == "edges"], again(found, size)
    sure = edges[edges["p_adjusted"] <= 0.05]
    lines = [
        f"All at {size:.2%} of the edges, as unequal circuits can't share more than the smaller one has: two circuits "
        f"share {edges['value'].mean():.2f} of their edges on average (random circuits as large: "
        f"{edges['expected'].mean():.2f}); {len(sure)} of {len(edges)} pairs of emotions share more than circuits with "
        "as many edges between the same layers do (one-sided, Benjamini-Hochberg).",
        f"Found anew on its other scenes, one emotion's circuit shares {min(same.values()):.2f} to "
        f"{max(same.values()):.2f} of its edges with itself; those of two emotions share {edges['value'].min():.2f} to "
        f"{edges['value'].max():.2f}.",
    ]
    figures = []
    if len(graphs) >= LEAST:
        tree = dendrogram(graphs)
        lines, figures = [*lines, *tree.summary()], [tree.plot()]
    yield Section("What the circuits share", lines, figures, {"overlaps, edges and nodes": table})
