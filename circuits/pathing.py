"""Exact path patching: one edge carries the counterfactual text's activation, and everything after it is computed anew.

The reader at the edge's end gets the clean stream with its sender's part exchanged; what it then computes is patched
into the clean text's run (Wang et al. 2023, arXiv:2211.00593; Goldowsky-Dill et al. 2023, arXiv:2304.05969). Of a head
before a norm (Gemma) its output is exchanged before the norm, which scales the new sum by itself.
"""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.space import EdgeSpace
from affectlens.circuits.trials import Bench, Trial
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.patching.cells import Change
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair
from affectlens.progress import tracked
from affectlens.sites import Site

AT_ONCE = 256


def path_patch(
    model: LensModel,
    pairs: Sequence[PatchPair],
    metric: Metric,
    space: EdgeSpace,
    edges: Sequence[str],
    *,
    memory: float = 1.0,
    progress: bool | None = None,
) -> pd.DataFrame:
    """The exact effect of single edges, pair by pair.

    Args:
        model: from :func:`affectlens.load_model`.
        pairs: from :func:`affectlens.patching.prepare`.
        metric: what is read.
        space: the edges that there are.
        edges: names, such as ``L3.H2 -> L5.H0.k``.
        memory: what a batch may take beyond the model, in GB.
        progress: show a bar; by default where a person is looking.

    Returns:
        One row a pair and edge: ``pair, group, domain, emotion, edge, full`` (the clean text's metric), ``value``
        (with the edge patched) and ``effect``, the drop, full - value.

    Raises:
        CircuitError: no pairs or edges, or an edge that the model has not.
    """
    if not pairs or not edges:
        raise CircuitError(f"{len(pairs)} pairs and {len(edges)} edges: path patching needs some of each.")
    bench = Bench.of(model, metric, memory)
    bench.expect(space)
    places = [space.index(edge) for edge in edges]
    tables = []
    for pair in tracked(pairs, "patching edges", show=progress):
        trial = bench.trial(pair)
        values = values_of(trial, places)
        facts = trial.facts
        rows = pd.DataFrame(
            {name: facts[name] for name in ("pair", "group", "domain", "emotion")}, index=range(len(edges))
        )
        tables.append(
            rows.assign(edge=list(edges), full=facts["clean"], value=values, effect=facts["clean"] - pd.Series(values))
        )
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
def values_of(trial: Trial, edges: Sequence[tuple[int, int]]) -> list[float]:
    """The metric of one pair with each edge patched by itself.

    Args:
        trial: the pair.
        edges: rows and columns of an EdgeSpace.
    """
    job, out = trial.bench.job, []
    for at in range(0, len(edges), AT_ONCE):
        cells = [(_change(trial, row, column),) for row, column in edges[at : at + AT_ONCE]]
        found, _ = job.read(trial.pair.swapped(), trial.pair.clean, trial.base, cells, trial.read)
        out += found[trial.bench.metric.name]
    return out


def _change(trial: Trial, row: int, column: int) -> Change:
    """What the edge's reader computes from its patched input."""
    space, begin = trial.bench.space, trial.begin
    at = tuple(range(begin, begin + trial.clean.shape[1]))
    name, moved = space.receivers[column], _moved(trial, row)
    if name == "end":
        last = space.n_layers - 1
        return Change(Site("resid_post", last), at, trial.base.streams[last + 1][begin:] + moved)
    layer, part = name[1:].split(".", 1)
    wiring, stream = trial.bench.walker.wiring[int(layer)], trial.base.streams[int(layer)][begin:]
    if part == "mlp_in":
        if not wiring.parallel:
            stream = trial.base.streams[int(layer) + 1][begin:] - trial.clean[space.sender[f"L{layer}.mlp_out"]]
        return Change(Site("mlp_out", int(layer)), at, wiring.fed((stream + moved)[None])[0])
    head, kind = part[1:].split(".")
    reads, given = wiring.reads[kind], wiring.enter((stream + moved)[None])[0]
    return Change(Site(kind, int(layer), int(head)), at, given @ reads.weight[int(head)] + reads.bias[int(head)])


def _moved(trial: Trial, row: int) -> Float[Tensor, "pos d_model"]:
    """What the counterfactual's sender changes in the stream."""
    layer, _, part = trial.bench.space.senders[row][1:].partition(".H")
    if not part or int(layer) not in trial.heads:
        return trial.corrupt[row] - trial.clean[row]
    wiring, (here, there) = trial.bench.walker.wiring[int(layer)], trial.heads[int(layer)]
    exchanged = here.clone()
    exchanged[:, int(part)] = there[:, int(part)]
    return (wiring.attention(exchanged[None]) - wiring.attention(here[None]))[0]
