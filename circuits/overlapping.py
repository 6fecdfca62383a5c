"""How much two circuits share, beside what random circuits of the same sizes share.

The Jaccard index is the number of edges (or nodes) in both over the number in either. Two circuits of a model share
edges by their size and by the layers they use alone, so each index stands beside its null: the index of random
connected circuits with as many edges between each two layers as either has
(:func:`affectlens.circuits.sampling.random_circuits`). The test is one-sided, that they share more than such circuits
do; p = (1 + hits) / (1 + draws). Nodes are heads and MLPs; the embedding and the end are in every circuit.

Of every circuit only what lies on a path from the embedding to the end is compared, as all of a random one does.

What the null does not know: how certain the edges of either circuit are. For that, resample what they were found on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from affectlens.circuits import linking
from affectlens.circuits.sampling import random_circuits
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.errors import CircuitError

if TYPE_CHECKING:
    from affectlens.circuits.graph import CircuitGraph


@dataclass(frozen=True)
class Overlap:
    """A Jaccard index with its null."""

    value: float
    shared: int  # edges or nodes in both
    either: int  # in one at least
    expected: float  # mean of random circuits
    null_low: float  # their middle 95%
    null_high: float
    p: float  # one-sided Monte Carlo
    attainable: float  # the least p that so many draws can give
    draws: int

    def __str__(self) -> str:
        return (
            f"{self.value:.2f} (random circuits {self.expected:.2f} [{self.null_low:.2f}, {self.null_high:.2f}], "
            f"p {self.p:.2g})"
        )


@dataclass(frozen=True, eq=False)
class Sets:
    """A circuit's edges and nodes, and those of random circuits like it, as rows of booleans."""

    edges: Bool[np.ndarray, " edge"]
    nodes: Bool[np.ndarray, " node"]
    random_edges: Bool[np.ndarray, "draw edge"]
    random_nodes: Bool[np.ndarray, "draw node"]

    @classmethod
    def of(cls, space: EdgeSpace, mask: Edges, *, draws: int, seed: int) -> "Sets":
        """Draw the random circuits of one.

        Args:
            space: of the model.
            mask: its edges; those on no path are left out.
            draws: how many.
            seed: of the draws.
        """
        kept = space.connected(mask)
        drawn = random_circuits(space, kept, draws, seed=seed)
        return cls(kept[space.allowed], linking.on(space, kept), np.stack([one[space.allowed] for one in drawn]),
                   np.stack([linking.on(space, one) for one in drawn]))  # fmt: skip


def overlaps(a: "CircuitGraph", b: "CircuitGraph", *, draws: int = 199, seed: int = 0) -> dict[str, Overlap]:
    """The Jaccard index of the ``edges`` and of the ``nodes`` of two circuits.

    Args:
        a: one circuit.
        b: the other.
        draws: random circuits of each.
        seed: of the draws.

    Raises:
        CircuitError: two spaces, or no draws.
    """
    linking.same(a, b)
    one, other = (Sets.of(graph.space, graph.mask, draws=_counted(draws), seed=seed + k)
                  for k, graph in enumerate((a, b)))  # fmt: skip
    return compared(one, other)


def overlap_table(graphs: Mapping[str, "CircuitGraph"], *, draws: int = 199, seed: int = 0) -> pd.DataFrame:
    """The overlap of each two of several circuits.

    Args:
        graphs: by name, for example the emotion.
        draws: random circuits of each.
        seed: of the draws.

    Returns:
        A row each two and ``of`` (edges, nodes): ``a, b, of`` and what :class:`Overlap` has; ``p_adjusted`` is
        Benjamini-Hochberg over the pairs, of edges and nodes each.

    Raises:
        CircuitError: fewer than two circuits, two spaces, or no draws.
    """
    if len(graphs) < 2:
        raise CircuitError(f"{len(graphs)} circuit was given: overlaps need two at least.")
    listed = list(graphs.items())
    for _, graph in listed[1:]:
        linking.same(listed[0][1], graph)
    sets = {name: Sets.of(graph.space, graph.mask, draws=_counted(draws), seed=seed + k)
            for k, (name, graph) in enumerate(listed)}  # fmt: skip
    rows = [{"a": a, "b": b, "of": of, **asdict(found)}
            for a, b in combinations(sets, 2) for of, found in compared(sets[a], sets[b]).items()]  # fmt: skip
    table = pd.DataFrame(rows)
    adjusted = table.groupby("of")["p"].transform(lambda p: stats.false_discovery_control(p.to_numpy()))
    return table.assign(p_adjusted=adjusted)


def compared(a: Sets, b: Sets) -> dict[str, Overlap]:
    """The overlaps of two circuits whose random ones are drawn.

    Args:
        a: of one circuit.
        b: of the other.
    """
    return {"edges": _overlap(a.edges, b.edges, a.random_edges, b.random_edges),
            "nodes": _overlap(a.nodes, b.nodes, a.random_nodes, b.random_nodes)}  # fmt: skip


def jaccard(a: Bool[np.ndarray, "... what"], b: Bool[np.ndarray, "... what"]) -> Float[np.ndarray, "..."]:
    """Shared over either, of booleans along the last axis; 1 where both are empty.

    Args:
        a: one set, or many.
        b: the other.
    """
    both, either = (a & b).sum(-1), (a | b).sum(-1)
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def _overlap(a: np.ndarray, b: np.ndarray, random_a: np.ndarray, random_b: np.ndarray) -> Overlap:
    value, null = float(jaccard(a, b)), jaccard(random_a, random_b)
    low, high = np.percentile(null, [2.5, 97.5])
    draws, hits = len(null), int((null >= value - 1e-12).sum())
    return Overlap(value, int((a & b).sum()), int((a | b).sum()), float(null.mean()), float(low), float(high),
                   (1 + hits) / (1 + draws), 1 / (1 + draws), draws)  # fmt: skip


def _counted(draws: int) -> int:
    if draws < 1:
        raise CircuitError(f"{draws} random circuits can't make a null: draw 19 at least for p to reach 0.05.")
    return draws
