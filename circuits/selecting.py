"""From the score of every edge to a circuit of n edges.

- ``threshold`` takes the n edges with the largest scores, wherever they are.
- ``greedy`` grows from the end (Hanna et al. 2024, arXiv:2403.17806): of the edges into nodes that are in, the largest
  comes next, and brings its sender in. So nothing is chosen that can't reach the end.

Both put all edges in an order, and a circuit is the start of it: circuits of one rule are nested. What lies on no path
from the embedding to the end carries nothing there and is then taken out, which leaves fewer than n edges. With
``fill`` the start is as long as it may be for n edges to be left at most; as more edges only open more paths, the
pruned circuits are nested too.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np
from jaxtyping import Float, Int

from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.errors import CircuitError

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
Scored = Float[np.ndarray, "sender receiver"]
Order = Int[np.ndarray, " edge"]  # positions in the flat [sender, receiver] array


def threshold(
    space: EdgeSpace, scores: Scored, n: int, *, absolute: bool = True, prune: bool = True, fill: bool = False
) -> Edges:
    """The n edges with the largest scores, pruned.

    Args:
        space: of the model.
        scores: of each edge, for example its mean estimated drop.
        n: how many edges.
        absolute: by size, whatever the sign; otherwise the most positive.
        prune: take out what lies on no path from the embedding to the end.
        fill: choose so many that what is left after pruning is as near n as it can be from below.

    Raises:
        CircuitError: scores of another shape or not finite, or an n that the space doesn't have.
    """
    return first(space, ranked(space, scores, absolute=absolute), n, prune=prune, fill=fill)


def greedy(
    space: EdgeSpace, scores: Scored, n: int, *, absolute: bool = True, prune: bool = True, fill: bool = False
) -> Edges:
    """The n edges that are reached first from the end, pruned.

    Args:
        space: of the model.
        scores: of each edge, for example its mean estimated drop.
        n: how many edges.
        absolute: by size, whatever the sign; otherwise the most positive.
        prune: take out what lies on no path from the embedding; all of it reaches the end.
        fill: choose so many that what is left after pruning is as near n as it can be from below.

    Raises:
        CircuitError: scores of another shape or not finite, or an n that the space doesn't have.
    """
    return first(space, grown(space, scores, absolute=absolute), n, prune=prune, fill=fill)


def at_sizes(
    space: EdgeSpace, scores: Scored, fractions: Sequence[float] = FRACTIONS, rule: str = "greedy",
    *, absolute: bool = True, prune: bool = True, fill: bool = True,
) -> dict[float, Edges]:  # fmt: skip
    """A circuit for each share of all edges, nested; 1 is every edge.

    Args:
        space: of the model.
        scores: of each edge.
        fractions: above 0, at most 1.
        rule: ``greedy`` or ``threshold``.
        absolute: by size, whatever the sign.
        prune: take out what lies on no path from the embedding to the end.
        fill: count the edges that are left after pruning. A size too small for any path gives an empty circuit.

    Raises:
        CircuitError: a rule or a fraction that is none, or scores that don't fit.
    """
    if rule not in RULES:
        raise CircuitError(f"There is no rule {rule!r} for choosing edges: use {' or '.join(RULES)}.")
    if wrong := [one for one in fractions if not 0 < one <= 1]:
        raise CircuitError(f"{wrong[0]} is no share of the edges: give fractions above 0 and at most 1.")
    order = RULES[rule](space, scores, absolute=absolute)
    sizes = {one: max(1, round(one * space.n_edges)) for one in fractions}
    return {one: first(space, order, n, prune=prune, fill=fill) for one, n in sizes.items()}


def first(space: EdgeSpace, order: Order, n: int, *, prune: bool = True, fill: bool = False) -> Edges:
    """The circuit at the start of an order of edges.

    Args:
        space: of the model.
        order: all edges, the best first.
        n: how many edges.
        prune: take out what lies on no path from the embedding to the end.
        fill: count what is left after pruning.

    Raises:
        CircuitError: an n that the space doesn't have.
    """
    if not 1 <= n <= len(order):
        raise CircuitError(f"A circuit of {n} edges can't be chosen: this space has 1 to {len(order)}.")
    if not (prune and fill):
        start = _start(space, order, n)
        return space.connected(start) if prune else start
    least, most = n, len(order)  # a start of n leaves n at most, and longer ones never fewer
    while least < most:
        middle = (least + most + 1) // 2
        if int(space.connected(_start(space, order, middle)).sum()) <= n:
            least = middle
        else:
            most = middle - 1
    return space.connected(_start(space, order, least))


def ranked(space: EdgeSpace, scores: Scored, *, absolute: bool = True) -> Order:
    """All edges by falling score; of equal scores the one that is computed first.

    Args:
        space: of the model.
        scores: of each edge.
        absolute: by size, whatever the sign.

    Raises:
        CircuitError: scores of another shape, or not finite.
    """
    at = np.flatnonzero(space.allowed)
    return at[np.argsort(-_checked(space, scores, absolute).ravel()[at], kind="stable")]


def grown(space: EdgeSpace, scores: Scored, *, absolute: bool = True) -> Order:
    """All edges in the order in which they are reached from the end, always the largest of those into what is in.

    Args:
        space: of the model.
        scores: of each edge.
        absolute: by size, whatever the sign.

    Raises:
        CircuitError: scores of another shape, or not finite.
    """
    weight, width = _checked(space, scores, absolute), len(space.receivers)
    waiting: list[list[tuple[float, int, int]]] = []  # into each receiver, the best last
    for column in range(width):
        rows = np.flatnonzero(space.allowed[:, column])
        rows = rows[np.argsort(-weight[rows, column], kind="stable")][::-1]
        waiting.append([(-float(weight[row, column]), int(row) * width + column, column) for row in rows])
    opened_by = [np.flatnonzero(space.feeds[:, row]).tolist() for row in range(len(space.senders))]
    open_now = {width - 1}
    heap = [waiting[-1].pop()]  # the best that is left into each open receiver
    heapify(heap)
    out = np.empty(space.n_edges, dtype=np.int64)
    for k in range(len(out)):
        _, edge, column = heap[0]
        if waiting[column]:
            heapreplace(heap, waiting[column].pop())
        else:
            heappop(heap)
        out[k] = edge
        for new in opened_by[edge // width]:
            if new not in open_now:
                open_now.add(new)
                heappush(heap, waiting[new].pop())
    return out


RULES = {"greedy": grown, "threshold": ranked}


def _start(space: EdgeSpace, order: Order, n: int) -> Edges:
    out = np.zeros(space.allowed.shape, dtype=bool)
    out.ravel()[order[:n]] = True
    return out


def _checked(space: EdgeSpace, scores: Scored, absolute: bool) -> Scored:
    if scores.shape != space.allowed.shape:
        raise CircuitError(f"These scores are {scores.shape} and the edges {space.allowed.shape}: another model's?")
    if not np.isfinite(scores[space.allowed]).all():
        raise CircuitError("Some scores of edges are not finite: run the model in float32.")
    return np.abs(scores) if absolute else scores
