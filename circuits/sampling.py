"""Random circuits like a given one: as many edges between each two layers, all of them on a path to the end.

What is matched, exactly: for each layer of a sender and layer of a reader, the number of edges between them, and so the
total. The embedding and the end are layers of their own. What is not matched: ports (q, k, v), how many nodes take
part, and how many edges each has.

1. Edges are drawn uniformly between each two layers. If all lie on a path, that is a uniform draw.
2. Else one edge at a time is taken out and drawn anew between the same layers, with chances that fall with the number
   of *loose ends* (:mod:`affectlens.circuits.loosening`), ever more steeply: Gibbs sampling with simulated annealing
   (Geman and Geman 1984), then aimed at the loose ends that are left. What comes out is spread over all such circuits,
   not quite evenly.
3. Where that leaves loose ends in a large circuit, what is loose is taken out, and as many edges are drawn between
   the same layers among nodes that have a path.
4. Where that can't be, which happens to very sparse circuits, the given circuit's heads get other places in
   their layers, and its edges are drawn anew one at a time under the condition that none comes loose.
"""

import numpy as np
from jaxtyping import Int

from affectlens.circuits.loosening import Block, Chains, blocks, layers_of
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.errors import CircuitError

TOGETHER = 100  # circuits that are drawn side by side
STEPS, MOST = 1500, 30  # of annealing; redraws of each edge. Larger circuits have few loose ends, and are not annealed
COLD, FROZEN = 8.0, 60.0  # log odds against one more loose end


def random_circuits(space: EdgeSpace, like: Edges, n: int, *, seed: int = 0) -> list[Edges]:
    """Connected random circuits with as many edges as ``like`` between each two layers.

    Args:
        space: of the model.
        like: a circuit, all of it on a path from the embedding to the end.
        n: how many to draw.
        seed: of the draws.

    Raises:
        CircuitError: a circuit of another space, or with edges that lie on no path.
    """
    _check(space, like)
    if not like.any():
        return [like.copy() for _ in range(n)]
    rng = np.random.default_rng(seed)
    within = blocks(space, like)
    out: list[Edges] = []
    while len(out) < n:
        out += _drawn(space, like, within, min(TOGETHER, n - len(out)), rng)
    return out


def random_circuit(space: EdgeSpace, like: Edges, rng: np.random.Generator) -> Edges:
    """One of :func:`random_circuits`; many are drawn faster together.

    Args:
        space: of the model.
        like: a circuit, all of it on a path from the embedding to the end.
        rng: what draws.

    Raises:
        CircuitError: a circuit of another space, or with edges that lie on no path.
    """
    _check(space, like)
    return _drawn(space, like, blocks(space, like), 1, rng)[0] if like.any() else like.copy()


def by_layer(space: EdgeSpace, edges: Edges) -> Int[np.ndarray, "from_layer to_layer"]:
    """How many edges lead from each layer to each: the embedding is row 0, layer 0 is 1, the end is the last column.

    Args:
        space: of the model.
        edges: a circuit.
    """
    written, read = layers_of(space)
    out = np.zeros((space.n_layers + 2, space.n_layers + 2), dtype=np.int64)
    rows, columns = np.nonzero(edges)
    np.add.at(out, (written[rows], read[columns]), 1)
    return out


def _drawn(space: EdgeSpace, like: Edges, within: list[Block], n: int, rng: np.random.Generator) -> list[Edges]:
    chains = Chains(space, np.stack([_uniform(like, within, rng) for _ in range(n)]), rng)
    home = np.full(like.size, -1)
    for number, block in enumerate(within):
        home[block.flat] = number
    if (open_ones := np.flatnonzero(chains.loose())).size:
        chains.put(open_ones, _annealed(chains.some(open_ones), within))
    for k in np.flatnonzero(chains.loose()):
        if (full := _filled(space, chains.edges[k], within, rng)) is not None:
            chains.edges[k] = full
            continue
        one = chains.some(np.array([k]))
        _aim(one, within, home)
        if one.loose().any():
            one = Chains(space, chains.moved(like)[None], rng)
            for block in _scan(within, 3, rng):
                one.redraw(block, FROZEN)
        chains.put(np.array([k]), one)
    return list(chains.edges)


def _filled(space: EdgeSpace, edges: Edges, within: list[Block], rng: np.random.Generator) -> Edges | None:
    """Without what lies on no path, and as many edges more between nodes that do; None if there are not so many."""
    out = space.connected(edges)
    fed, used = (out.any(0) @ space.feeds), (space.feeds @ out.any(1))  # by something, by somebody
    fed[0] = used[-1] = True
    live = space.allowed & fed[:, None] & used[None]
    for block in within:
        lacking = block.size - int(out.ravel()[block.flat].sum())
        open_ones = block.flat[live.ravel()[block.flat] & ~out.ravel()[block.flat]]
        if lacking > len(open_ones):
            return None
        out.ravel()[rng.choice(open_ones, size=lacking, replace=False)] = True
    return out


def _uniform(like: Edges, within: list[Block], rng: np.random.Generator) -> Edges:
    """As many edges in each block, anywhere in it."""
    out = np.zeros_like(like)
    for block in within:
        out.ravel()[rng.choice(block.flat, size=block.size, replace=False)] = True
    return out


def _annealed(some: Chains, within: list[Block]) -> Chains:
    """Redraw edges under a falling temperature; the last fifth is cold."""
    edges = sum(block.size for block in within if block.free)
    plan = _scan(within, min(MOST, STEPS // max(edges, 1)), some.rng)
    for k, block in enumerate(plan):
        some.redraw(block, 1 + (COLD - 1) * min(1.0, 1.25 * k / len(plan)))
    return some


def _aim(one: Chains, within: list[Block], home: Int[np.ndarray, " edge"]) -> None:
    """Redraw edges at loose ends, and now and then another, until there are none or it has taken too long."""
    for _ in range(200 + 20 * int(one.loose()[0])):
        if (edge := one.faulty()) is None:
            return
        if one.rng.random() < 0.02:
            edge = int(one.rng.choice(np.flatnonzero(one.edges[0])))
        if within[home[edge]].free:
            one.redraw(within[home[edge]], COLD, edge=edge)


def _scan(within: list[Block], sweeps: int, rng: np.random.Generator) -> list[Block]:
    """Each block once for each of its edges and sweeps, in random order within a sweep; full ones have no choice."""
    once = [block for block in within if block.free for _ in range(block.size)]
    return [once[k] for _ in range(sweeps) for k in rng.permutation(len(once))]


def _check(space: EdgeSpace, like: Edges) -> None:
    space.check(like)
    if loose := int((like & ~space.connected(like)).sum()):
        raise CircuitError(
            f"{loose} edges of this circuit lie on no path from the embedding to the end, and random circuits are to "
            "be connected like it: prune it first, with space.connected."
        )
