"""Which parts are meant: names, a table of effects, or a circuit graph; and other sets of the same layers."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from affectlens.circuits.graph import CircuitGraph
from affectlens.errors import CircuitError
from affectlens.sites import Site

_WEIGHED = ("equal", "effect")


Parts = CircuitGraph | Mapping[str, float] | Sequence[str]


def effects_of(parts: Parts) -> dict[Site, float]:
    """Each part with its effect, NaN where none is known.

    Of a graph these are the heads and MLPs that lie on it, and its neurons. Their effects are the exact ones of the
    table of nodes; where a head or MLP lacks one, those of all heads and MLPs are the sums of their edges' scores.

    Args:
        parts: names, effects by name, or a graph.

    Raises:
        CircuitError: no part, a part twice, or one that can't be modulated.
    """
    if isinstance(parts, CircuitGraph):
        found = _of_graph(parts)
    elif isinstance(parts, Mapping):
        found = {str(name): float(effect) for name, effect in parts.items()}
    elif isinstance(parts, str):
        raise CircuitError(f"Give a list of parts: [{parts!r}].")
    else:
        found = {str(name): float("nan") for name in parts}
        if len(found) < len(parts):
            raise CircuitError("A part is named twice: name each once.")
    sites = {Site.parse(name): effect for name, effect in found.items()}
    wrong = [str(s) for s in sites if (s.kind, s.index is None) not in _SHAPES]
    if wrong or not sites:
        raise CircuitError(
            f"{', '.join(wrong) or 'Nothing'} can't be modulated: name heads (L12.H3), neurons (L9.N17), mlp_out or "
            "attn_out of a layer, at least one."
        )
    return sites


def _of_graph(graph: CircuitGraph) -> dict[str, float]:
    units = graph.nodes_on if len(graph.edges) else graph.nodes[graph.nodes["kind"].isin(("head", "mlp"))]
    by = "score_out" if "score_out" in units and units["effect"].isna().any() else "effect"
    neurons = graph.nodes[graph.nodes["kind"] == "neuron"]
    found = dict(zip(units["node"], units[by], strict=True)) | dict(
        zip(neurons["node"], neurons["effect"], strict=True)
    )
    return {f"{name}_out" if str(name).endswith(".mlp") else str(name): float(e) for name, e in found.items()}


_SHAPES = {("z", False), ("neurons", False), ("mlp_out", True), ("attn_out", True)}


def chosen(effects: Mapping[Site, float], top: int | None) -> dict[Site, float]:
    """The ``top`` parts of the largest absolute effect, or all.

    Args:
        effects: by part.
        top: how many.

    Raises:
        CircuitError: fewer parts, or parts without an effect to order them by.
    """
    if top is None:
        return dict(effects)
    if not 0 < top <= len(effects) or any(np.isnan(one) for one in effects.values()):
        raise CircuitError(f"top={top} of {len(effects)} parts: it counts parts, each with a known effect.")
    return dict(sorted(effects.items(), key=lambda one: -abs(one[1]))[:top])


def weights_of(effects: Sequence[float], weigh: str, signed: bool) -> Float[np.ndarray, " part"]:
    """What each part's share of the gain is.

    Args:
        effects: of each part.
        weigh: ``equal``, or ``effect``: in proportion to the absolute effect, the largest 1.
        signed: parts of negative effect, which oppose, get the weight below zero.

    Raises:
        CircuitError: another ``weigh``, or effects that are unknown or all 0 where they are needed.
    """
    values = np.asarray(effects, dtype=float)
    if weigh not in _WEIGHED:
        raise CircuitError(f"weigh={weigh!r} is not known: choose {' or '.join(_WEIGHED)}.")
    if (weigh == "effect" or signed) and (np.isnan(values).any() or not values.any()):
        raise CircuitError("Weights and signs come from effects, and these are unknown or 0: give effects by part.")
    size = np.abs(values) / np.abs(values).max() if weigh == "effect" else np.ones(len(values))
    return size * np.where(values < 0, -1.0, 1.0) if signed else size


def whole(part: Site) -> Site:
    """The site of the whole layer that a part belongs to.

    Args:
        part: a head, a neuron, or what a layer has one of.
    """
    return Site(part.kind, part.layer)


def placebos_of(
    parts: Sequence[Site], counts: Mapping[str, int], draws: int, rng: np.random.Generator
) -> list[list[Site]]:
    """Other sets of as many parts of the same layers and kinds, each uniformly at random, no two of them alike.

    Every part of a layer can be drawn, those of the circuit too: only the circuit as a whole can't. If the circuit were
    itself such a set at random, it would then be exchangeable with the placebos, which a rank among them supposes. Of
    what a layer has one of, the set is of layers.

    Args:
        parts: of the circuit.
        counts: how many heads or neurons there are, by site of a whole layer.
        draws: how many sets; all others there are if these are fewer.
        rng: draws.

    Returns:
        The sets, each with its parts in the order of ``parts``, whose weights they get.
    """
    pools = _pools(parts, counts)
    others = math.prod(math.comb(len(every), len(mine)) for every, mine in pools) - 1
    seen, out = {frozenset(parts)}, list[list[Site]]()
    while len(out) < min(draws, others):
        drawn: dict[Site, Site] = {}
        for every, mine in pools:
            order = rng.permutation(len(every))[: len(mine)]
            drawn |= {part: every[i] for part, i in zip(mine, order, strict=True)}
        if frozenset(drawn.values()) not in seen:
            seen.add(frozenset(drawn.values()))
            out.append([drawn[part] for part in parts])
    return out


def expected_overlap(parts: Sequence[Site], counts: Mapping[str, int]) -> float:
    """Which share of a circuit a random set of as many parts of the same layers holds on average.

    Args:
        parts: of the circuit.
        counts: how many heads or neurons there are, by site of a whole layer.
    """
    return sum(len(mine) ** 2 / len(every) for every, mine in _pools(parts, counts)) / len(parts)


def _pools(parts: Sequence[Site], counts: Mapping[str, int]) -> list[tuple[list[Site], list[Site]]]:
    """What can be drawn for which parts: all heads or neurons of a layer, or all layers' MLPs or attentions."""
    pools: dict[tuple[str, int | None], list[Site]] = {}
    for part in parts:
        pools.setdefault((part.kind, part.layer if part.index is not None else None), []).append(part)
    whole_layers = [Site.parse(name) for name in counts]
    return [
        ([one for one in whole_layers if one.kind == kind] if layer is None else
         [Site(kind, layer, i) for i in range(counts[str(Site(kind, layer))])], mine)
        for (kind, layer), mine in pools.items()
    ]  # fmt: skip
