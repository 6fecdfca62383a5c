"""Circuits as files: JSON, which is complete, and GraphML, which Gephi, Cytoscape, yEd and networkx read.

GraphML has no place for the space, the order of rows, or columns that are empty; so the JSON text travels in an
attribute of the graph, from which the circuit is read back. If another program has changed the edges, the two differ,
and the file is refused.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from affectlens.circuits import linking
from affectlens.circuits.space import EdgeSpace
from affectlens.errors import CircuitError
from affectlens.paths import write_text
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.circuits.graph import CircuitGraph

FORMAT = "affectlens circuit 1"
SUFFIXES = (".json", ".graphml")


def write(graph: "CircuitGraph", path: Path) -> Path:
    """Write a circuit under a temporary name, then rename.

    Args:
        graph: the circuit.
        path: ending in .json or .graphml.

    Raises:
        CircuitError: another ending, or facts that JSON can't hold.
    """
    kind = _suffix(path)
    text = to_json(graph)
    write_text(path, text if kind == ".json" else _graphml(graph, text))
    return path


def read(path: Path) -> tuple[EdgeSpace, pd.DataFrame, pd.DataFrame, Json]:
    """The parts of a circuit that :func:`write` wrote.

    Args:
        path: of the file.

    Raises:
        CircuitError: if there is none, it is damaged, or its edges were changed elsewhere.
    """
    kind = _suffix(path)
    if not path.is_file():
        raise CircuitError(f"There is no circuit at {path}.")
    try:
        text = path.read_text(encoding="utf-8")
        return from_json(text) if kind == ".json" else _from_graphml(text)
    except CircuitError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise CircuitError(f"The circuit in {path} is damaged ({said:.80}): save it anew.") from None


def to_json(graph: "CircuitGraph") -> str:
    """A circuit as text.

    Args:
        graph: the circuit.

    Raises:
        CircuitError: facts that JSON can't hold.
    """
    whole = {"format": FORMAT, "space": graph.space.to_json(), "meta": graph.meta,
             "edges": _columns(graph.edges), "nodes": _columns(graph.nodes)}  # fmt: skip
    try:
        return json.dumps(whole, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CircuitError(f"The circuit's meta can't be written as JSON ({error}): use plain values.") from None


def from_json(text: str) -> tuple[EdgeSpace, pd.DataFrame, pd.DataFrame, Json]:
    """The parts of a circuit from its text.

    Args:
        text: from :func:`to_json`.

    Raises:
        CircuitError: another format.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CircuitError("This file is no circuit of AffectLens, or a newer one's: its format is another.")
    return EdgeSpace.from_json(found["space"]), _frame(found["edges"]), _frame(found["nodes"]), found["meta"]


def _columns(table: pd.DataFrame) -> Json:
    return {str(name): {"dtype": str(column.dtype), "values": [_value(one) for one in column.tolist()]}
            for name, column in table.items()}  # fmt: skip


def _value(one: Any) -> Any:
    """What strict JSON can hold: null for NaN and None, words for the infinite."""
    if one is None or (isinstance(one, float) and np.isnan(one)):
        return None
    if isinstance(one, float) and np.isinf(one):
        return "inf" if one > 0 else "-inf"
    return one


def _frame(columns: Json) -> pd.DataFrame:
    out = {}
    for name, column in columns.items():
        values = column["values"]
        if column["dtype"].startswith("float"):
            values = [np.nan if one is None else float(one) for one in values]
        out[name] = pd.Series(values, dtype=column["dtype"])
    return pd.DataFrame(out)


def _graphml(graph: "CircuitGraph", text: str) -> str:
    import networkx as nx

    whole = graph.nx.copy()
    whole.graph["affectlens"] = text
    for a, b, port, facts in whole.edges(keys=True, data=True):
        facts["id"] = f"{a} -> {b} {port}"
    for node in whole.nodes:  # numbers that are missing are left out: GraphML has no empty value
        facts = whole.nodes[node]
        for key in [key for key, value in facts.items() if value is None]:
            del facts[key]
    return "\n".join(nx.generate_graphml(whole, edge_id_from_attribute="id"))


def _from_graphml(text: str) -> tuple[EdgeSpace, pd.DataFrame, pd.DataFrame, Json]:
    import networkx as nx

    whole = nx.parse_graphml(text, force_multigraph=True)
    if "affectlens" not in whole.graph:
        raise CircuitError("This GraphML is not from AffectLens: its graph has no attribute affectlens.")
    parts = from_json(whole.graph["affectlens"])
    space, edges, _, _ = parts
    drawn = {(a, b, facts.get("port")) for a, b, facts in whole.edges(data=True)}
    wanted = set()
    for sender, receiver in edges[["sender", "receiver"]].itertuples(index=False):
        heads, port = linking.readers(space, receiver)
        wanted |= {(linking.node_of(sender), head, port) for head in heads}
    if drawn != wanted:
        raise CircuitError("The edges of this GraphML were changed by another program: load the JSON, or save it anew.")
    return parts


def _suffix(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise CircuitError(f"{path.name} ends in neither {' nor '.join(SUFFIXES)}: name a file that does.")
    return path.suffix.lower()
