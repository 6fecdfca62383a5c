"""Circuits with something taken out or put in: without a node, an edge, a pair of edges; with a random path.

A node is taken out of a set of edges by taking out every edge that leaves it: what flows into it then reaches nothing.
The embedding is no such node, as without it nothing of the text is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from affectlens.circuits.linking import on
from affectlens.circuits.space import Edges, EdgeSpace

EDGE, NODE, PAIR = "edge", "node", "pair of edges"
FIRST, DRAWN, ALL, COUPLE = "first by score", "drawn from the others", "all", "drawn"


@dataclass(frozen=True, eq=False)
class Drop:
    """One thing that is taken out of a circuit."""

    kind: str
    removed: str
    chosen: str
    left: Edges  # the circuit without it
    parts: tuple[str, ...] = ()  # of a pair, its two edges


def without_nodes(edges: Edges, rows: Sequence[int] | Int[np.ndarray, " node"]) -> Edges:
    """Edges but those that leave some nodes.

    Args:
        edges: a circuit, or every edge.
        rows: of the senders.
    """
    out = edges.copy()
    out[np.asarray(rows, dtype=int)] = False
    return out


def node_sets(space: EdgeSpace, circuit: Edges, n: int, *, seed: int = 0) -> list[Int[np.ndarray, " node"]]:
    """Random sets of a circuit's nodes, from one to half of them: their sizes are spread evenly over logarithms.

    Args:
        space: of the model.
        circuit: its edges.
        n: how many sets are drawn; those drawn twice count once.
        seed: of the draw.
    """
    rows = np.flatnonzero(on(space, circuit))
    if not len(rows):
        return []
    rng = np.random.default_rng(seed)
    sizes = np.rint(np.geomspace(1, max(1, len(rows) // 2), n)).astype(int)
    sets = [tuple(np.sort(rng.choice(rows, size=size, replace=False)).tolist()) for size in sizes]
    return [np.array(one) for one in dict.fromkeys(sets)]


def drops(space: EdgeSpace, circuit: Edges, scores: np.ndarray, n: int, *, seed: int = 0) -> list[Drop]:
    """What is dropped: so many edges, half as many nodes, and half as many pairs of these edges.

    Args:
        space: of the model.
        circuit: from which.
        scores: mean score of every edge.
        n: edges; if the circuit has no more, all are dropped.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    size = np.abs(np.where(circuit, scores, 0.0))
    edges = np.argwhere(circuit)
    picked = _pick(edges[np.argsort(-size[tuple(edges.T)], kind="stable")], n, rng)
    out, names = [], []
    for (row, column), how in picked:
        left = circuit.copy()
        left[row, column] = False
        names.append(space.name(int(row), int(column)))
        out.append(Drop(EDGE, names[-1], how, left))
    rows = np.flatnonzero(on(space, circuit))
    ordered = rows[np.argsort(-size[rows].sum(1), kind="stable")]
    for row, how in _pick(ordered, n // 2, rng):
        out.append(Drop(NODE, space.senders[int(row)], how, without_nodes(circuit, [int(row)])))
    couples = [(a, b) for a in range(len(picked)) for b in range(a)]
    for at in sorted(rng.permutation(len(couples))[: n // 2].tolist()):
        a, b = couples[at]
        both = out[a].left & out[b].left
        out.append(Drop(PAIR, f"{names[b]} and {names[a]}", COUPLE, both, (names[b], names[a])))
    return out


def _pick(ordered: np.ndarray, n: int, rng: np.random.Generator) -> list[tuple[Any, str]]:
    """All if there are no more than n; else the first half of n, and the other half drawn from the others."""
    if len(ordered) <= n:
        return [(one, ALL) for one in ordered]
    first = (n + 1) // 2
    others = np.sort(rng.permutation(len(ordered) - first)[: n - first]) + first
    return [(one, FIRST) for one in ordered[:first]] + [(one, DRAWN) for one in ordered[others]]


def inflated(space: EdgeSpace, circuit: Edges, n: int, *, seed: int = 0) -> list[tuple[Edges, Edges]]:
    """The circuit with a random path added, and the same without one random edge of those that the path added.

    Shi et al. (2024, arXiv:2410.13032) measure so what an edge costs that is in a circuit for no reason.

    Args:
        space: of the model.
        circuit: the circuit.
        n: how many.
        seed: of the paths.
    """
    rng, out = np.random.default_rng(seed), []
    for _ in range(n if (space.allowed & ~circuit).any() else 0):
        path = random_path(space, rng)
        while not (new := [edge for edge in path if not circuit[edge]]):
            path = random_path(space, rng)
        more = circuit.copy()
        for edge in path:
            more[edge] = True
        less = more.copy()
        less[new[int(rng.integers(len(new)))]] = False
        out.append((more, less))
    return out


def random_path(space: EdgeSpace, rng: np.random.Generator) -> list[tuple[int, int]]:
    """A path from the embedding to the end: at each node one of the edges that leave it, all alike.

    Args:
        space: of the model.
        rng: where it is drawn from.
    """
    row, path = 0, []
    while True:
        column = int(rng.choice(np.flatnonzero(space.allowed[row])))
        path.append((row, column))
        if column == len(space.receivers) - 1:
            return path
        row = int(rng.choice(np.flatnonzero(space.feeds[column])))
