"""``CircuitGraph``: a circuit's edges and nodes with their numbers, as tables, as a set of edges, and as a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.circuits import linking, numbering, storing
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.errors import CircuitError
from affectlens.types import Json

if TYPE_CHECKING:
    import networkx as nx

    from affectlens.circuits.overlapping import Overlap

EDGE = ["sender", "receiver"]
EDGES = [*EDGE, "score", "score_low", "score_high", "effect", "effect_low", "effect_high", "p", "p_adjusted",
         "effect_n", "n"]  # fmt: skip
NODES = ["node", "layer", "kind", "effect", "low", "high", "p_adjusted"]


@runtime_checkable
class Scores(Protocol):
    """What is needed of the scores of edges: :class:`affectlens.circuits.scoring.EdgeScores`."""

    @property
    def space(self) -> EdgeSpace: ...
    @property
    def values(self) -> Float[np.ndarray, "pair sender receiver"]: ...
    @property
    def pairs(self) -> pd.DataFrame: ...
    @property
    def meta(self) -> Json: ...


@dataclass(frozen=True, eq=False, repr=False)
class CircuitGraph:
    """A circuit. Tables are sorted and checked when it is made.

    ``edges`` has one row an edge: ``sender, receiver``; ``score, score_low, score_high`` (mean estimated drop of the
    metric, in its unit, with its 95% interval over groups), over ``n`` pairs; ``effect, effect_low, effect_high, p,
    p_adjusted`` (drop under exact path patching, sign flips by group, max-T over all patched edges), over ``effect_n``
    pairs, all NaN where it was not patched. Positive: the edge supports the metric. ``nodes`` has ``node, layer, kind,
    effect, low, high, p_adjusted``, and may have more columns.

    Raises:
        CircuitError: a table that lacks columns, names an edge that the space lacks, or names one twice.
    """

    space: EdgeSpace
    edges: pd.DataFrame
    nodes: pd.DataFrame
    meta: Json  # model, fingerprint, emotion, metric, unit, method, selection, n_pairs, n_groups

    def __post_init__(self) -> None:
        for name, table, columns in (("edges", self.edges, EDGES), ("nodes", self.nodes, NODES)):
            if lacking := [column for column in columns if column not in table]:
                raise CircuitError(f"The table of {name} lacks {', '.join(lacking)}: it needs {', '.join(columns)}.")
        for sender, receiver in self.edges[EDGE].itertuples(index=False):
            row, column = self.space.sender.get(sender, -1), self.space.receiver.get(receiver, -1)
            if row < 0 or column < 0 or not self.space.allowed[row, column]:
                raise CircuitError(f"There is no edge '{sender} -> {receiver}' in this space: is it another model's?")
        if len(twice := self.edges[self.edges.duplicated(EDGE)]):
            raise CircuitError(f"The edge '{twice['sender'].iloc[0]} -> {twice['receiver'].iloc[0]}' is there twice.")
        if len(again := self.nodes[self.nodes.duplicated("node")]):
            raise CircuitError(f"The node {again['node'].iloc[0]} is there twice: give each one row.")
        order = np.argsort(-self.edges["score"].abs().fillna(-1).to_numpy(dtype=float), kind="stable")
        object.__setattr__(self, "edges", self.edges.iloc[order].reset_index(drop=True))
        object.__setattr__(self, "nodes", self.nodes.reset_index(drop=True))

    @classmethod
    def of(
        cls, scores: Scores, mask: Edges, *, effects: pd.DataFrame | None = None, nodes: pd.DataFrame | None = None,
        meta: Json | None = None, seed: int = 0,
    ) -> "CircuitGraph":  # fmt: skip
        """A circuit with the numbers of its edges: :func:`affectlens.circuits.numbering.edge_table`.

        Args:
            scores: of all edges, pair by pair.
            mask: the edges of the circuit.
            effects: of exact path patching, from :func:`affectlens.circuits.pathing.path_patch`. All that was patched
                is one family of tests, whether it is in the circuit or not.
            nodes: from :func:`affectlens.circuits.assembling.node_effects`.
            meta: what to add to what the scores say of themselves.
            seed: of bootstrap and flips.

        Raises:
            CircuitError: edges that the space lacks, or effects of an edge that it lacks.
        """
        scores.space.check(mask)
        edges, facts = numbering.edge_table(scores, mask, effects, seed=seed)
        table = pd.DataFrame(columns=NODES) if nodes is None else nodes
        facts = {**scores.meta, "n_pairs": len(scores.pairs), "n_groups": scores.pairs["group"].nunique(), **facts}
        return cls(scores.space, edges, table, facts | (meta or {}))

    @cached_property
    def mask(self) -> Edges:
        """The edges as a set."""
        out = np.zeros(self.space.allowed.shape, dtype=bool)
        out[self.edges["sender"].map(self.space.sender).to_numpy(dtype=int),
            self.edges["receiver"].map(self.space.receiver).to_numpy(dtype=int)] = True  # fmt: skip
        return out

    @cached_property
    def nx(self) -> "nx.MultiDiGraph[str]":
        """As a network: :func:`affectlens.circuits.linking.network`."""
        return linking.network(self)

    @cached_property
    def nodes_on(self) -> pd.DataFrame:
        """Heads and MLPs on the circuit: :func:`affectlens.circuits.linking.nodes_on`."""
        return linking.nodes_on(self)

    def threshold(self, least: float, *, by: str = "score", prune: bool = True) -> "CircuitGraph":
        """The edges of at least this size, whatever their sign; those without the number go.

        Args:
            least: in the metric's unit.
            by: ``score`` or ``effect``.
            prune: take out what then lies on no path from the embedding to the end.

        Raises:
            CircuitError: another column.
        """
        if by not in ("score", "effect"):
            raise CircuitError(f"Edges can't be chosen by {by!r}: use score or effect.")
        kept = self.edges[self.edges[by].abs() >= least]
        return self._part(kept, f"{by} of at least {least}", prune)

    def largest(self, n: int, *, prune: bool = False) -> "CircuitGraph":
        """The n edges with the largest scores, or all if there are fewer.

        Unless pruned, some may lie on no path from the embedding to the end: :meth:`summary` counts them.

        Args:
            n: how many.
            prune: take out what then lies on no path from the embedding to the end.
        """
        return self._part(self.edges.head(n), f"the {n} largest", prune)

    def union(self, other: "CircuitGraph") -> "CircuitGraph":
        """The edges of either; numbers are this one's where it has the edge, else the other's.

        Args:
            other: a circuit of the same space, metric and unit.

        Raises:
            CircuitError: another space, metric or unit.
        """
        linking.alike(self, other)
        both = pd.concat([self.edges[EDGES], other.edges[EDGES]]).drop_duplicates(EDGE)
        nodes = pd.concat([one.nodes for one in (self, other) if len(one.nodes)] or [self.nodes])
        return self._joined(other, both, nodes.drop_duplicates("node"), "union")

    def intersection(self, other: "CircuitGraph") -> "CircuitGraph":
        """The edges of both, with this one's numbers; not pruned, so some may lie on no path from embedding to end.

        Args:
            other: a circuit of the same space, metric and unit.

        Raises:
            CircuitError: another space, metric or unit.
        """
        linking.alike(self, other)
        kept = self.edges.merge(other.edges[EDGE], on=EDGE)
        return self._joined(other, kept, self.nodes[self.nodes["node"].isin(other.nodes["node"])], "intersection")

    def diff(self, other: "CircuitGraph") -> pd.DataFrame:
        """Edge by edge what the two have: :func:`affectlens.circuits.linking.difference`."""
        return linking.difference(self, other)

    def overlap(self, other: "CircuitGraph", *, draws: int = 199, seed: int = 0) -> Mapping[str, "Overlap"]:
        """Jaccard index of the ``edges`` and of the ``nodes``, beside what random circuits of the same sizes share.

        Of both circuits only what lies on a path from the embedding to the end is compared, as random circuits do.

        Args:
            other: another circuit of the same space.
            draws: random circuits of each.
            seed: of the draws.

        Raises:
            CircuitError: another space, or no draws.
        """
        from affectlens.circuits.overlapping import overlaps

        return overlaps(self, other, draws=draws, seed=seed)

    def save(self, path: str | Path) -> Path:
        """Write it whole, as JSON or GraphML by the suffix: :func:`affectlens.circuits.storing.write`."""
        return storing.write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "CircuitGraph":
        """Read what :meth:`save` wrote.

        Raises:
            CircuitError: if there is none, or it is damaged.
        """
        return cls(*storing.read(Path(path)))

    def summary(self) -> list[str]:
        """What it is, in sentences; Markdown."""
        return linking.summary(self)

    def _part(self, edges: pd.DataFrame, said: str, prune: bool) -> "CircuitGraph":
        found = CircuitGraph(self.space, edges, self.nodes, self.meta | {"part": said})
        return found._pruned() if prune else found

    def _pruned(self) -> "CircuitGraph":
        """Without the edges on no path."""
        kept = self.space.connected(self.mask)
        stays = [bool(kept[self.space.sender[a], self.space.receiver[b]])
                 for a, b in self.edges[EDGE].itertuples(index=False)]  # fmt: skip
        return CircuitGraph(self.space, self.edges[np.array(stays, dtype=bool)], self.nodes, self.meta)

    def _joined(self, other: "CircuitGraph", edges: pd.DataFrame, nodes: pd.DataFrame, how: str) -> "CircuitGraph":
        shared: Json = {key: value for key, value in self.meta.items() if other.meta.get(key) == value}
        return CircuitGraph(self.space, edges, nodes, shared | {"joined": how, "of": [self.meta, other.meta]})

    def __repr__(self) -> str:
        what = ", ".join(str(self.meta[key]) for key in ("emotion", "metric", "model") if self.meta.get(key))
        of = f" of {what}" if what else ""
        nodes = self.nodes_on if len(self.edges) else self.nodes
        return f"CircuitGraph({len(self.edges)} of {self.space.n_edges} edges, {len(nodes)} nodes{of})"

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        shown: Any = self.edges.head(10)
        return lines + shown.to_html(index=False, border=0, float_format="{:.3g}".format)
