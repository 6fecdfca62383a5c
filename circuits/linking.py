"""A circuit as a network, by node, and beside another one."""

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd

from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.errors import CircuitError

if TYPE_CHECKING:
    from affectlens.circuits.graph import CircuitGraph

ON = ["node", "layer", "kind", "edges_in", "edges_out", "score_in", "score_out", "effect", "low", "high", "p_adjusted"]


def node_of(name: str) -> str:
    """The node of a sender, or of a reader that belongs to one: ``L3.mlp_in`` is ``L3.mlp``, ``L3.H2.q`` is ``L3.H2``.

    Args:
        name: of a sender or reader; of a key-value head's readers see :func:`readers`.
    """
    return name.replace(".mlp_out", ".mlp").replace(".mlp_in", ".mlp").removesuffix(".q")


def readers(space: EdgeSpace, receiver: str) -> tuple[list[str], str]:
    """The nodes that a reader belongs to, and its port: q, k, v or in. A key-value head's are its group's heads.

    Args:
        space: of the model.
        receiver: its name.
    """
    if receiver == "end" or receiver.endswith(".mlp_in"):
        return [node_of(receiver)], "in"
    port = receiver.rpartition(".")[2]
    fed = np.flatnonzero(space.feeds[space.receiver[receiver]])
    return [space.senders[at] for at in fed], port


def kind_of(node: str) -> tuple[str, int]:
    """A node's kind and layer; the embedding's and the end's layer is -1.

    Args:
        node: such as ``L3.H2``, ``L3.mlp``, ``L3.N17``, ``L3.F7@name``, ``embedding`` or ``end``.
    """
    if node in ("embedding", "end"):
        return node, -1
    layer, _, part = node[1:].partition(".")
    return {"m": "mlp", "H": "head", "N": "neuron", "F": "feature"}[part[0]], int(layer)


def network(graph: "CircuitGraph") -> "nx.MultiDiGraph[str]":
    """A circuit as networkx has it, with every number.

    Parallel edges are told apart by their key, the port. An edge into a key-value head is drawn to each query head of
    its group; those are one edge, whose name is in ``shared`` of each (elsewhere empty) and in ``name``.

    Args:
        graph: the circuit.
    """
    out: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    numbers = graph.nodes.set_index("node")
    for _, row in graph.edges.iterrows():
        heads, port = readers(graph.space, row["receiver"])
        shared = row["receiver"] if port in "kv" else ""
        facts = {str(key): _plain(value) for key, value in row.items()}
        facts |= {"port": port, "shared": shared, "name": f"{row['sender']} -> {row['receiver']}"}
        for head in heads:
            out.add_edge(node_of(row["sender"]), node_of(head), key=port, **facts)
    out.add_nodes_from(numbers.index)
    for node in out.nodes:
        kind, layer = kind_of(node)
        more = {str(key): _plain(value) for key, value in numbers.loc[node].items()} if node in numbers.index else {}
        out.nodes[node].update({**more, "kind": kind, "layer": layer})
    return out


def nodes_on(graph: "CircuitGraph") -> pd.DataFrame:
    """Heads and MLPs on the circuit, in the order of computation.

    A node is on it if an edge leaves it, or if one enters it and leads on to no other head: in a pruned circuit both.

    Args:
        graph: the circuit.

    Returns:
        ``node, layer, kind``; ``edges_in, edges_out`` (how many) and ``score_in, score_out`` (the sums of their scores,
        in the metric's unit; a key-value head's edge counts for each head of its group); and of the table of nodes
        ``effect, low, high, p_adjusted``, NaN where there are none.
    """
    space, mask = graph.space, graph.mask
    score = np.zeros(mask.shape)
    rows, columns = (graph.edges[name].map(at).to_numpy(dtype=int)
                     for name, at in (("sender", space.sender), ("receiver", space.receiver)))  # fmt: skip
    score[rows, columns] = graph.edges["score"].fillna(0.0)
    feeds = space.feeds
    table = pd.DataFrame({
        "node": [node_of(name) for name in space.senders], "edges_in": mask.sum(0) @ feeds, "edges_out": mask.sum(1),
        "score_in": score.sum(0) @ feeds, "score_out": score.sum(1),
    })  # fmt: skip
    table = table[on(space, mask)]
    facts = [kind_of(node) for node in table["node"]]
    table = table.assign(kind=[kind for kind, _ in facts], layer=[layer for _, layer in facts])
    known = graph.nodes[["node", "effect", "low", "high", "p_adjusted"]].astype({"node": object})
    return table.merge(known, on="node", how="left")[ON]


def on(space: EdgeSpace, mask: Edges) -> np.ndarray:
    """Which senders other than the embedding are on a circuit.

    Args:
        space: of the model.
        mask: its edges.
    """
    sends = mask.any(1)
    unused = np.asarray(mask.any(0) & ~(space.feeds & sends).any(1))
    out = np.asarray(sends | (space.feeds & unused[:, None]).any(0))
    out[0] = False
    return out


def difference(a: "CircuitGraph", b: "CircuitGraph") -> pd.DataFrame:
    """Edge by edge what two circuits have.

    Args:
        a: one circuit.
        b: the other, of the same space.

    Returns:
        ``sender, receiver``; ``where``: both, left or right; ``score_left, score_right, effect_left, effect_right``.

    Raises:
        CircuitError: another space.
    """
    same(a, b)
    names = ["sender", "receiver", "score", "effect"]
    out = a.edges[names].merge(b.edges[names], on=names[:2], how="outer", suffixes=("_left", "_right"), indicator=True)
    where = out.pop("_merge").astype(str).str.replace("_only", "")
    out.insert(2, "where", where)
    return out.sort_values("where", kind="stable").reset_index(drop=True)


def same(a: "CircuitGraph", b: "CircuitGraph") -> None:
    """Refuse circuits of two spaces.

    Args:
        a: one circuit.
        b: the other.

    Raises:
        CircuitError: if the spaces differ.
    """
    if a.space != b.space:
        sizes = [f"{one.space.n_layers} layers of {one.space.n_heads} heads up to {one.space.end}" for one in (a, b)]
        raise CircuitError(f"These circuits are of two spaces ({sizes[0]}; {sizes[1]}): their edges can't be matched.")


def alike(a: "CircuitGraph", b: "CircuitGraph") -> None:
    """Refuse circuits whose numbers don't belong in one table: of two spaces, metrics or units, where both say which.

    Args:
        a: one circuit.
        b: the other.

    Raises:
        CircuitError: if they differ.
    """
    same(a, b)
    for key in ("metric", "unit"):
        one, other = a.meta.get(key), b.meta.get(key)
        if one is not None and other is not None and one != other:
            raise CircuitError(
                f"These circuits are of two {key}s ({one}; {other}), whose numbers can't stand in one table: compare "
                "them with diff or overlap, or score both by the same metric."
            )


def summary(graph: "CircuitGraph") -> list[str]:
    """What a circuit is, in sentences; Markdown.

    Args:
        graph: the circuit.
    """
    space, edges, unit = graph.space, graph.edges, str(graph.meta.get("unit", "the metric's unit"))
    share = len(edges) / space.n_edges
    if edges.empty and len(graph.nodes):
        lines = [f"**{_counted(graph.nodes)}, and no edges**, up to {space.end}."]
    else:
        kinds = _counted(graph.nodes_on)
        lines = [f"**{len(edges)} of {space.n_edges} edges ({share:.2%}) over {kinds}**, up to {space.end}."]
    if loose := int((graph.mask & ~space.connected(graph.mask)).sum()):
        lines.append(f"{loose} of the edges lie on no path from the embedding to the end, so they carry nothing there.")
    if len(edges):
        top = edges.iloc[0]
        lines.append(
            f"The largest estimate is of `{top['sender']} -> {top['receiver']}`: a drop of {top['score']:.3g} "
            f"[{top['score_low']:.3g}, {top['score_high']:.3g}] in {unit}."
        )
    if patched := int(edges["effect"].notna().sum()):
        passed = int((edges["p_adjusted"] <= 0.05).sum())
        least = graph.meta.get("attainable", np.nan)
        lines.append(
            f"{patched} of its edges were patched exactly; {passed} differ from zero (adjusted p at most 0.05; "
            f"the least p that the groups can give is {least:.2g})."
        )
    return lines


def _counted(nodes: pd.DataFrame) -> str:
    """How many of each kind; heads and MLPs are always named."""
    count = nodes["kind"].value_counts()
    more = [(kind, int(count.get(kind, 0))) for kind in ("neuron", "feature") if count.get(kind, 0)]
    said = [(kind, int(count.get(kind, 0))) for kind in ("head", "mlp")] + more
    named = [f"{n} {'MLP' if kind == 'mlp' else kind}{'' if n == 1 else 's'}" for kind, n in said]
    return f"{', '.join(named[:-1])} and {named[-1]}"


def _plain(value: object) -> object:
    """A Python number for a NumPy one."""
    return value.item() if isinstance(value, np.generic) else value
