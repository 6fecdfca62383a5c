"""Is a layer on the circuit of an emotion? What its edges carry on held-out pairs, beside random circuits.

1. The edges' scores on other pairs than those that chose the circuit are turned by the sign of their mean on the pairs
   that chose it: an edge found to support the metric counts for what it supports, one found to hold it down for what it
   holds down. An edge that means nothing then has mean zero, whatever its size; its absolute score would not.
2. Of each pair and layer, the turned scores of the circuit's edges whose sender is in the layer are summed, less the
   same sum for random circuits (connected to the end, and matched by layer), averaged over those circuits.
3. Over pairs this is divided by the metric's gap, clean less corrupt (a ratio of means; groups are resampled). Signs of
   whole groups are flipped for p, with max-T over layers, and over emotions as in
   :func:`affectlens.circuits.agreeing.marks.across`.

A yes says that the circuit's edges out of this layer carry more of the metric than random edges out of the same layer
do. It does not say that the layer's part is large, and parts do not add up to one: edges on one path count twice. The
scores are estimates by gradients; an exact path patch of single edges is the circuit's own table.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from affectlens.circuits.agreeing.layered import ByLayer
from affectlens.circuits.agreeing.marks import LEVEL, UNDECIDED, Mark, across, blank, decided
from affectlens.circuits.scoring import EdgeScores
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.errors import CircuitError
from affectlens.patching.effects import flipped, measured
from affectlens.types import Json


@runtime_checkable
class Circuit(Protocol):
    """What is needed of a circuit: :class:`affectlens.circuits.CircuitGraph`."""

    @property
    def space(self) -> EdgeSpace: ...
    @property
    def mask(self) -> Edges: ...
    @property
    def meta(self) -> Json: ...


def circuit_by_layer(
    graph: Circuit, scores: EdgeScores, random: Sequence[Edges], *, found: EdgeScores, seed: int = 0
) -> ByLayer:  # fmt: skip
    """What the edges out of each layer carry, less what random circuits' edges out of it do.

    Args:
        graph: the circuit of one emotion.
        scores: of the edges on pairs that did not choose it.
        random: circuits of the same space, connected and matched by layer.
        found: the scores on the pairs that chose it.
        seed: of bootstrap and flips.

    Returns:
        One row a layer: ``value, low, high``, a share of the gap if ``normalised``, else in the metric's unit; ``p``
        (max-T over layers), ``attainable``, ``n`` groups; ``edges`` of the circuit that leave the layer; ``own``, p
        of what they carry, random edges aside.

    Raises:
        CircuitError: no random circuit, another space, or a group of pairs in both scores.
    """
    _checked(graph, scores, random, found)
    union = np.any([graph.mask, *random], axis=0)
    rows, columns = np.nonzero(union)
    turned = scores.values[:, rows, columns].astype(float) * np.sign(found.mean()[rows, columns])
    layer = _layers(graph.space)[rows]
    own = _summed(turned, graph.mask[rows, columns], layer, graph.space.n_layers)
    null = np.mean([_summed(turned, one[rows, columns], layer, graph.space.n_layers) for one in random], axis=0)
    gap = (scores.pairs["clean"] - scores.pairs["corrupt"]).to_numpy(dtype=float)
    gap = gap * np.sign(gap.mean())  # turned scores are positive where they carry, whichever way the metric goes
    group = np.asarray(pd.factorize(scores.pairs["group"])[0])
    tells = measured(gap[:, None], np.ones(len(gap)), group, seed).iloc[0]
    sure = bool(tells["low"] > 0 or tells["high"] < 0)
    tested = flipped([own - null], group, seed)[0].drop(columns="p").rename(columns={"p_adjusted": "p"})
    less = measured(own - null, gap, group, seed, sure).join(tested)
    alone = measured(own, gap, group, seed, sure).join(flipped([own], group, seed)[0])
    counts = np.bincount(_layers(graph.space)[np.nonzero(graph.mask)[0]] + 1, minlength=graph.space.n_layers + 1)[1:]
    table = less.assign(
        layer=np.arange(graph.space.n_layers), emotion=str(graph.meta.get("emotion", "")), edges=counts,
        control="random circuits", own=alone["p_adjusted"].where(alone["low"] > 0, 1.0),
        why=[f"{edges} edges leave it; the circuit's carry {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
             for edges, row in zip(counts, alone.itertuples(), strict=True)],
    )  # fmt: skip
    kept = ("model", "fingerprint", "battery", "battery_sha256", "emotion", "metric", "method", "n_pairs")
    meta = {"question": "circuit", "n_random": len(random), "seed": seed, "skipped": {}} | {
        name: graph.meta[name] for name in kept if name in graph.meta}  # fmt: skip
    return ByLayer("circuit", table, meta)


def _checked(graph: Circuit, scores: EdgeScores, random: Sequence[Edges], found: EdgeScores) -> None:
    if not len(random):
        raise CircuitError("No random circuit was given: what a layer carries means nothing without their share.")
    if not graph.space == scores.space == found.space or any(one.shape != graph.mask.shape for one in random):
        raise CircuitError("The circuit, its scores and the random circuits are of different spaces: give one model's.")
    if both := sorted(set(scores.pairs["group"]) & set(found.pairs["group"])):
        raise CircuitError(
            f"{len(both)} groups of pairs ({both[0]}...) chose the circuit and would score it: give `scores` of others."
        )


def _layers(space: EdgeSpace) -> Int[np.ndarray, " sender"]:
    """The layer of each sender; -1 is the embedding's."""
    return np.array([-1 if name == "embedding" else int(name[1:].split(".")[0]) for name in space.senders])


def _summed(
    turned: Float[np.ndarray, "pair edge"], inside: Bool[np.ndarray, " edge"], layer: Int[np.ndarray, " edge"], n: int
) -> Float[np.ndarray, "pair layer"]:
    """The sum over the edges that are inside, by the layer of their sender."""
    member = (layer[:, None] == np.arange(n)) & inside[:, None]
    return turned @ member.astype(float)


def circuit_marks(circuits: Mapping[str, ByLayer], worth: float, sources: Mapping[str, str]) -> list[Mark]:
    """A mark for each emotion and layer.

    Args:
        circuits: by emotion.
        worth: the smallest difference worth having, a share of the gap.
        sources: by emotion, the run folder or "in memory".
    """
    if not circuits:
        return []
    parts = [one.table.assign(emotion=emotion) for emotion, one in circuits.items()]
    every = pd.concat(parts, ignore_index=True)
    every["p_adjusted"] = across(every["p"], every["emotion"])
    every["undone"] = (across(every["own"], every["emotion"]) <= LEVEL) & (every["low"] <= 0)
    return [_mark({str(name): value for name, value in row.items()}, worth, sources)
            for row in every.to_dict("records")]  # fmt: skip


def _mark(row: Json, worth: float, sources: Mapping[str, str]) -> Mark:
    layer, emotion = int(row["layer"]), str(row["emotion"])
    low, high, p = (float(row[name]) for name in ("low", "high", "p_adjusted"))
    why = str(row["why"])
    if row["n"] < 2:
        return blank(layer, emotion, "circuit", f"{why}; {int(row['n'])} group of pairs gives no interval",
                     sources[emotion])  # fmt: skip
    verdict = decided(low, high, p, worth) if row["normalised"] else UNDECIDED
    if not row["normalised"]:
        why += "; the metric does not surely tell these texts from their partners"
    return Mark(layer, emotion, "circuit", verdict, float(row["value"]), low, high, str(row["control"]), p,
                int(row["n"]), bool(row["undone"]), sources[emotion], why)  # fmt: skip
