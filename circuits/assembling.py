"""Nodes of a circuit from what patching and ablation found.

A cell of a sweep is a node if it is a head's output (``z`` of one head), an MLP's output, a neuron or a feature. The
residual stream and a layer's whole attention are no nodes. Values and tests are the sweep's own: whether a node is
specific is its rule (:func:`affectlens.patching.effects.beside`), and its family of tests all the cells of the metric.
"""

import numpy as np
import pandas as pd

from affectlens.circuits import linking
from affectlens.circuits.graph import EDGES, NODES, CircuitGraph, Scores
from affectlens.circuits.selecting import threshold
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.errors import CircuitError
from affectlens.patching.ablation import AblationSweep
from affectlens.patching.effects import CELL, MATCHED, NOTHING
from affectlens.patching.results import PatchSweep
from affectlens.sites import Site
from affectlens.types import Json

KINDS = {"z": "head", "mlp_out": "mlp", "neurons": "neuron", "features": "feature"}
EFFECTS = [*NODES, "p", "n", "normalised", "specific"]
Found = PatchSweep | AblationSweep


def node_effects(
    found: Found, *, metric: str | None = None, segment: str | None = None, extent: str | None = None,
    dictionary: str = "",
) -> pd.DataFrame:  # fmt: skip
    """The effect of each node that a sweep has patched or ablated.

    Args:
        found: from :func:`affectlens.patching.patch` or :func:`affectlens.patching.ablate`.
        metric: its name; the first by default.
        segment: where it was patched; need not be said if there is one.
        extent: ``segment`` (patched as a whole) or ``token`` (one by one); need not be said if there is one.
        dictionary: the name of the dictionary that features are of.

    Returns:
        ``node, layer, kind, effect, low, high, p_adjusted, p, n`` groups, ``normalised`` (a share of the gap; else in
        the metric's unit) and ``specific``, by falling effect.

    Raises:
        CircuitError: a sweep without nodes there, or with several segments or extents of which none is named.
    """
    if isinstance(found, AblationSweep) and (found.table["together"] > 1).any():
        raise CircuitError("This ablation took several sites out together, so no effect is a node's: run it without.")
    sweep = found.sweep if isinstance(found, AblationSweep) else found
    name = metric or sweep.metrics[0]
    cells = sweep.effects(metric=name, source=MATCHED)
    verdict = sweep.beside(metric=name, control=NOTHING)[[*CELL, "specific"]]
    cells = cells.merge(verdict, on=CELL, how="left")
    whole = cells["kind"].isin(["mlp_out"]) & (cells["index"] < 0)
    part = cells["kind"].isin(["z", "neurons", "features"]) & (cells["index"] >= 0)
    cells = cells[whole | part]
    if segment is not None:
        cells = cells[cells["segment"] == segment]
    if extent is not None:
        cells = cells[cells["extent"] == extent]
    if cells.empty:
        raise CircuitError("This sweep has no nodes there: patch or ablate heads, mlp_out, neurons or features.")
    open_ones = {name: sorted(set(cells[name])) for name in ("segment", "extent") if cells[name].nunique() > 1}
    if open_ones:
        said = "; ".join(f"{name}s {', '.join(values)}" for name, values in open_ones.items())
        raise CircuitError(f"This sweep has {said}: say which with {' and '.join(f'{name}=' for name in open_ones)}.")
    names = [_name(kind, int(layer), int(index), dictionary)
             for kind, layer, index in cells[["kind", "layer", "index"]].itertuples(index=False)]  # fmt: skip
    out = cells.assign(node=names, kind=cells["kind"].map(KINDS), effect=cells["value"])
    return out[EFFECTS].sort_values("effect", ascending=False, kind="stable").reset_index(drop=True)


def assemble(
    space: EdgeSpace, found: Found | pd.DataFrame, *, scores: Scores | None = None, n: int | None = None,
    metric: str | None = None, segment: str | None = None, extent: str | None = None, meta: Json | None = None,
    seed: int = 0,
) -> CircuitGraph:  # fmt: skip
    """A circuit from its nodes: those that are specific, with the edges among them if scores are given.

    Args:
        space: of the model.
        found: a sweep of patches or ablations, or its :func:`node_effects`.
        scores: of all edges. Without them the circuit has nodes and no edges.
        n: the edges with the largest scores among those between the nodes, the embedding and the end; all by default.
        metric: of a sweep: its name.
        segment: of a sweep: where it was patched.
        extent: of a sweep: ``segment`` (patched as a whole) or ``token`` (one by one).
        meta: what to add.
        seed: of the bootstrap.

    Raises:
        CircuitError: no node is specific, a node that the space lacks, or scores of another space.
    """
    nodes = (found if isinstance(found, pd.DataFrame)
             else node_effects(found, metric=metric, segment=segment, extent=extent))  # fmt: skip
    chosen = nodes[nodes["specific"]].reset_index(drop=True)
    if chosen.empty:
        raise CircuitError(
            "No node is specific, that is, beats every control that was run: there is no circuit to build."
        )
    own = {linking.node_of(name) for name in space.senders}
    units = chosen[chosen["kind"].isin(["head", "mlp"])]
    if lacking := [node for node in units["node"] if node not in own]:
        raise CircuitError(f"{lacking[0]} is no node of this space, which ends at {space.end}: is it another model's?")
    facts: Json = {"selection": "nodes that are specific", "n_nodes": len(chosen)} | (meta or {})
    if scores is None:
        return CircuitGraph(space, _no_edges(), chosen, facts)
    if scores.space != space:
        raise CircuitError("The scores are of another space than the nodes: score the edges of the same model anew.")
    mask = among(space, set(units["node"]))
    if n is not None and n < int(mask.sum()):
        mean = scores.values.mean(0, dtype=float)
        order = threshold(space, abs(mean) * mask, n, prune=False)
        mask = mask & order
    return CircuitGraph.of(scores, space.connected(mask), nodes=chosen, meta=facts, seed=seed)


def among(space: EdgeSpace, nodes: set[str]) -> Edges:
    """All edges between some nodes, the embedding and the end; a key-value head is in with any head of its group.

    Args:
        space: of the model.
        nodes: heads and MLPs.
    """
    senders = [name == "embedding" or linking.node_of(name) in nodes for name in space.senders]
    readers = [name == "end" or not nodes.isdisjoint(linking.readers(space, name)[0]) for name in space.receivers]
    return np.asarray(space.allowed & np.array(senders)[:, None] & np.array(readers))


def _no_edges() -> pd.DataFrame:
    text = {"sender": object, "receiver": object, "n": int}
    return pd.DataFrame({name: pd.Series(dtype=text.get(name, float)) for name in EDGES})


def _name(kind: str, layer: int, index: int, dictionary: str) -> str:
    if kind == "mlp_out":
        return f"L{layer}.mlp"
    return str(Site(kind, layer, index, dictionary or "sae" if kind == "features" else None))
