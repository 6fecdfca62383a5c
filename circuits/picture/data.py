"""What the page reads of circuits: rooms with their places, edges column by column, nodes, patterns and top items."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from jaxtyping import Float

from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.picture.layout import Plan, Room, entries, plan, port_of, room_of, rooms
from affectlens.circuits.space import EdgeSpace
from affectlens.errors import CircuitError
from affectlens.plots import BLUE, GREEN, ORANGE
from affectlens.probing.features.dashboard import plain
from affectlens.types import Json

NUMBERS = ("score", "score_low", "score_high", "n", "effect", "effect_low", "effect_high", "effect_n", "p",
           "p_adjusted")  # fmt: skip
OF_NODES = ("effect", "low", "high", "p_adjusted")
COLOURS = {"up": BLUE, "down": ORANGE, "both": GREEN}
Pattern = Float[np.ndarray, "query key"]


@dataclass(frozen=True, eq=False)
class Detail:
    """What a click on a head shows beside its edges."""

    tokens: tuple[str, ...] = ()  # of one example text
    patterns: Mapping[str, Pattern] = field(default_factory=dict)  # on that text, by head
    items: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)  # text and value, by node
    items_are: str = "Drop of the metric that its edges account for, estimated"  # what the values are
    unit: str = ""


def payload(graphs: Mapping[str, CircuitGraph], details: Mapping[str, Detail], *, most: int = 5000) -> Json:
    """What the page reads.

    Args:
        graphs: by name.
        details: by the same names, where there are any.
        most: edges a circuit that the page holds, the largest; the rest is counted.

    Raises:
        CircuitError: nothing to draw, another model's circuit, a pattern that does not fit its tokens, or details of
            no circuit.
    """
    space = checked(graphs, details)
    extras = {room.name: room for graph in graphs.values() for room in extra_rooms(graph)}
    every = rooms(space, list(extras.values()))
    number = {room.name: i for i, room in enumerate(every)}
    on = {name for graph in graphs.values() for name in on_circuit(graph) if name in number}
    plans = {"close": plan(space, every, on), "full": plan(space, every, [*number])}
    return {
        "rooms": [{"name": room.name, "kind": room.kind, "layer": room.layer, "heads": list(room.heads)}
                  for room in every],
        "plans": {name: _plan(one, every) for name, one in plans.items()},
        "entries": entries(space), "end": space.end, "colours": COLOURS,
        "circuits": {name: _circuit(graph, details.get(name), number, most) for name, graph in graphs.items()},
    }  # fmt: skip


def checked(graphs: Mapping[str, CircuitGraph], details: Mapping[str, Detail]) -> EdgeSpace:
    """The space that all circuits share; see :func:`payload`.

    Args:
        graphs: by name.
        details: by the same names.

    Raises:
        CircuitError: see :func:`payload`.
    """
    if not graphs:
        raise CircuitError("There is no circuit to draw: give at least one, by name.")
    spaces = {name: graph.space for name, graph in graphs.items()}
    first = next(iter(spaces))
    for name in graphs:
        if spaces[name] != spaces[first]:
            raise CircuitError(
                f"{first!r} and {name!r} are circuits of different models or ends: draw each in a page of its own."
            )
    for name, detail in details.items():
        if name not in graphs:
            raise CircuitError(f"There are details of {name!r}, which is no circuit here: {', '.join(graphs)}.")
        for head, pattern in detail.patterns.items():
            if pattern.shape != (len(detail.tokens),) * 2:
                raise CircuitError(f"The pattern of {head} is {pattern.shape} for {len(detail.tokens)} tokens.")
    return spaces[first]


def on_circuit(graph: CircuitGraph) -> set[str]:
    """The rooms that an edge leaves or enters, neurons and features; of a circuit without edges, every node's.

    Args:
        graph: the circuit.
    """
    edges = graph.edges
    ends = {*edges["sender"], *edges["receiver"]} if len(edges) else {*graph.nodes["node"]}
    return {room_of(graph.space, str(name)) for name in ends} | {room.name for room in extra_rooms(graph)}


def _circuit(graph: CircuitGraph, detail: Detail | None, number: Mapping[str, int], most: int) -> Json:
    table = graph.edges
    held = table.head(most)  # sorted by |score|
    sides = [[number[room_of(graph.space, str(name))] for name in held[side]] for side in ("sender", "receiver")]
    totals = {name: plain(table[name].abs().sum()) for name in ("score", "effect")}
    return {
        "edges": {"from": sides[0], "to": sides[1], "port": [port_of(str(name)) for name in held["receiver"]]}
        | {name: [plain(value) for value in held[name]] for name in NUMBERS},
        "n_edges": len(table), "totals": totals, "nodes": _nodes(graph, number),
        "meta": {key: plain(graph.meta[key]) for key in ("model", "emotion", "metric", "unit", "method", "n_pairs")
                 if graph.meta.get(key) is not None},
        "info": json.dumps(graph.meta, indent=1, default=str), "detail": _detail(graph, detail),
    }  # fmt: skip


def _nodes(graph: CircuitGraph, number: Mapping[str, int]) -> Json:
    """Numbers by room, where there is an effect."""
    table = graph.nodes[graph.nodes["effect"].notna()]
    named = [(room_of(graph.space, str(row["node"])), row) for _, row in table.iterrows()]
    return {str(number[room]): [plain(row[name]) for name in OF_NODES] for room, row in named if room in number}


def _detail(graph: CircuitGraph, detail: Detail | None) -> Json:
    if detail is None:
        return {"tokens": [], "patterns": {}, "items": {}, "said": "", "unit": ""}
    items = {room_of(graph.space, name): [[text, plain(value)] for text, value in some]
             for name, some in detail.items.items()}  # fmt: skip
    return {"tokens": list(detail.tokens), "items": items, "said": detail.items_are, "unit": detail.unit,
            "patterns": {name: rows_of(pattern) for name, pattern in detail.patterns.items()}}  # fmt: skip


def rows_of(pattern: Pattern) -> list[list[int]]:
    """Thousandths, each query's row without the zeros at its end: most patterns are causal.

    Args:
        pattern: of a head.
    """
    whole = np.rint(1000 * pattern).astype(int)
    return [[int(value) for value in np.trim_zeros(row, "b")] for row in whole]


def extra_rooms(graph: CircuitGraph) -> list[Room]:
    """Neurons and features of the node table that lie in a layer of the space.

    Args:
        graph: the circuit.
    """
    table = graph.nodes[graph.nodes["kind"].isin(["neuron", "feature"])]
    named = zip(table["node"].astype(str), table["kind"].astype(str), table["layer"].astype(int), strict=True)
    return [Room(node, kind, layer) for node, kind, layer in named if 0 <= layer < graph.space.n_layers]


def _plan(one: Plan, every: Sequence[Room]) -> Json:
    boxes = [[round(value, 1) for value in asdict(one.boxes[room.name]).values()] if room.name in one.boxes else None
             for room in every]  # fmt: skip
    return {"boxes": boxes, "floors": [list(line) for line in one.floors], "width": one.width, "height": one.height}
