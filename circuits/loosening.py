"""Loose ends of many circuits at once, and drawing an edge of each anew.

A *loose end* is an edge's end at a sender that reads nothing, or at a reader whose heads or MLP send nothing. A circuit
without any has each edge on a path from the embedding to the end: one can go on from any edge, up and down, and each
step leads to an earlier or a later node. How many loose ends an edge makes and mends is the sum over its sender and its
reader, so the best places of an edge are found without trying each.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from affectlens.circuits.space import Edges, EdgeSpace

_NOWHERE, _STEEP = 10**6, 40  # where an edge can't be; differences in loose ends above which the chance counts as zero


@dataclass(frozen=True, eq=False)
class Block:
    """The possible edges from one layer to another."""

    rows: Int[np.ndarray, " row"]  # senders
    columns: Int[np.ndarray, " column"]  # readers
    allowed: Bool[np.ndarray, "row column"]
    flat: Int[np.ndarray, " edge"]  # positions in the flat [sender, receiver] array
    size: int  # how many edges a circuit has here

    @property
    def free(self) -> bool:
        """Whether an edge could be elsewhere."""
        return self.size < len(self.flat)


def layers_of(space: EdgeSpace) -> tuple[Int[np.ndarray, " sender"], Int[np.ndarray, " receiver"]]:
    """The layer of each sender and reader, counted from 1; the embedding's is 0, the end's the last.

    Args:
        space: of the model.
    """
    written = [0, *(1 + int(name[1:].split(".")[0]) for name in space.senders[1:])]
    read = [*(1 + int(name[1:].split(".")[0]) for name in space.receivers[:-1]), space.n_layers + 1]
    return np.array(written), np.array(read)


def blocks(space: EdgeSpace, like: Edges) -> list[Block]:
    """The blocks in which a circuit has edges.

    Args:
        space: of the model.
        like: the circuit.
    """
    written, read = layers_of(space)
    out = []
    for a, b in sorted({(int(written[s]), int(read[r])) for s, r in zip(*np.nonzero(like), strict=True)}):
        rows, columns = np.flatnonzero(written == a), np.flatnonzero(read == b)
        allowed = space.allowed[np.ix_(rows, columns)]
        flat = (rows[:, None] * len(read) + columns)[allowed]
        out.append(Block(rows, columns, allowed, flat, int(like[np.ix_(rows, columns)].sum())))
    return out


class Chains:
    """Circuits that are changed side by side, with the counts that tell loose ends."""

    def __init__(self, space: EdgeSpace, edges: Bool[np.ndarray, "chain sender receiver"], rng: np.random.Generator):
        self.space, self.edges, self.rng = space, edges, rng
        self.feeds, self.fed_by = (np.ascontiguousarray(one, dtype=np.int32) for one in (space.feeds, space.feeds.T))
        self.written_in, self.read_in = layers_of(space)
        self.sent = edges.sum(2, dtype=np.int32)  # chain sender: edges out
        self.read = edges.sum(1, dtype=np.int32)  # chain receiver: edges in
        self.given = self.read @ self.feeds  # chain sender: edges into what it is computed from
        self.used = self.sent @ self.fed_by  # chain receiver: edges out of what is computed from it

    def some(self, at: Int[np.ndarray, " some"]) -> "Chains":
        """A copy of some of them."""
        return Chains(self.space, self.edges[at], self.rng)

    def put(self, at: Int[np.ndarray, " some"], other: "Chains") -> None:
        """Put others in the place of some."""
        for name in ("edges", "sent", "read", "given", "used"):
            getattr(self, name)[at] = getattr(other, name)

    def loose(self) -> Int[np.ndarray, " chain"]:
        """How many loose ends each has, counted by the edges at them."""
        return (self._unfed() * self.sent).sum(1) + (self._unused() * self.read).sum(1)

    def faulty(self) -> int | None:
        """An edge of the first circuit whose redrawing may mend a loose end, in the flat array; None if none is loose.

        Half of the time it is one at the loose end, else one that could come to it: of a sender that reads nothing,
        an edge into its layer; of a reader that is not used, one out of its layer.
        """
        unfed, unused = np.flatnonzero(self._unfed()[0]), np.flatnonzero(self._unused()[0])
        if not len(unfed) + len(unused):
            return None
        k, aside = int(self.rng.integers(len(unfed) + len(unused))), self.rng.random() < 0.5
        rows, columns = (np.arange(size) for size in self.edges.shape[1:])
        if k < len(unfed) and aside:
            columns = np.flatnonzero(self.read_in == self.written_in[unfed[k]])
        elif k < len(unfed):
            rows = unfed[k : k + 1]
        elif aside:
            rows = np.flatnonzero(self.written_in == self.read_in[unused[k - len(unfed)]])
        else:
            columns = unused[k - len(unfed)][None]
        found = np.argwhere(self.edges[0][rows[:, None], columns])
        if not len(found):
            return int(self.rng.choice(np.flatnonzero(self.edges[0])))
        row, column = found[self.rng.integers(len(found))]
        return int(rows[row]) * self.edges.shape[2] + int(columns[column])

    def redraw(self, block: Block, cold: float, *, edge: int | None = None) -> None:
        """Take an edge of a block out of each circuit, and put one in that has the better chances the less is loose.

        Args:
            block: the block.
            cold: log odds against one more loose end.
            edge: the one to take out, in the flat array; by default any.
        """
        chain, width = np.arange(len(self.edges)), len(block.columns)
        here = self.edges[:, block.rows[:, None], block.columns].reshape(len(chain), -1)
        if edge is None:
            gone = self._pick(here.astype(float))
            row, column = block.rows[gone // width], block.columns[gone % width]
        else:
            row, column = (np.full(len(chain), part) for part in divmod(edge, self.edges.shape[2]))
            gone = np.full(len(chain), int(np.searchsorted(block.rows, row[0])) * width
                           + int(np.searchsorted(block.columns, column[0])))  # fmt: skip
        self._change(chain, row, column, -1)
        here[chain, gone] = False
        worse = self._at_sender(block.rows)[:, :, None] + self._at_reader(block.columns)[:, None]
        worse = np.where(block.allowed.ravel() & ~here, worse.reshape(here.shape), _NOWHERE)
        worse -= worse.min(1, keepdims=True)
        chances = np.append(np.exp(-cold * np.arange(_STEEP)), 0.0)
        new = self._pick(chances[np.minimum(worse, _STEEP)])
        self._change(chain, block.rows[new // width], block.columns[new % width], 1)

    def moved(self, edges: Edges) -> Edges:
        """A circuit with its heads at other places in their layers, groups kept together."""
        space = self.space
        group = space.n_heads // space.n_kv
        rows, columns = np.arange(len(space.senders)), np.arange(len(space.receivers))
        for at in range(space.n_layers):
            sets = self.rng.permutation(space.n_kv)
            heads = [int(kv) * group + int(h) for kv in sets for h in self.rng.permutation(group)]
            for new, old in enumerate(heads):
                rows[space.sender[f"L{at}.H{new}"]] = space.sender[f"L{at}.H{old}"]
                columns[space.receiver[f"L{at}.H{new}.q"]] = space.receiver[f"L{at}.H{old}.q"]
            for new, old in enumerate(sets):
                for kind in "kv":
                    columns[space.receiver[f"L{at}.H{new}.{kind}"]] = space.receiver[f"L{at}.H{old}.{kind}"]
        return np.asarray(edges[np.ix_(rows, columns)])

    def _change(self, chain: np.ndarray, row: np.ndarray, column: np.ndarray, by: int) -> None:
        self.edges[chain, row, column] = by > 0
        self.sent[chain, row] += by
        self.read[chain, column] += by
        self.given += by * self.feeds[column]
        self.used += by * self.fed_by[row]

    def _pick(self, weight: Float[np.ndarray, "chain place"]) -> Int[np.ndarray, " chain"]:
        """A place for each chain, with these chances."""
        total = weight.cumsum(1)
        return (total <= self.rng.random((len(weight), 1)) * total[:, -1:]).sum(1)

    def _at_sender(self, rows: np.ndarray) -> Int[np.ndarray, "chain row"]:
        """How many edges one more from each sender makes loose, less those that it mends."""
        idle = (self.given[:, rows] == 0) & (rows != 0)
        near = np.flatnonzero(self.feeds[:, rows].any(1))
        waiting = np.where(self.used[:, near] == 0, self.read[:, near], 0)
        return idle.astype(np.int32) - waiting @ self.feeds[near[:, None], rows]

    def _at_reader(self, columns: np.ndarray) -> Int[np.ndarray, "chain column"]:
        """How many edges one more into each reader makes loose, less those that it mends."""
        idle = (self.used[:, columns] == 0) & (columns != self.edges.shape[2] - 1)
        near = np.flatnonzero(self.feeds[columns].any(0))
        waiting = np.where(self.given[:, near] == 0, self.sent[:, near], 0)
        return idle.astype(np.int32) - waiting @ self.fed_by[near[:, None], columns]

    def _unfed(self) -> Bool[np.ndarray, "chain sender"]:
        """Senders other than the embedding that have edges and read nothing."""
        out = (self.sent > 0) & (self.given == 0)
        out[:, 0] = False
        return out

    def _unused(self) -> Bool[np.ndarray, "chain receiver"]:
        """Readers other than the end that have edges and whose heads or MLP send nothing."""
        out = (self.read > 0) & (self.used == 0)
        out[:, -1] = False
        return out
