"""What a model does on a circuit alone: edges outside of it carry the counterfactual text's activation, at every token.

Every reader of the stream gets an input of its own: the stream, and for each edge that is cut what its sender writes in
the counterfactual in place of what it writes now. So one pass of the model, with as many rows as circuits, gives each
circuit's value; nothing is approximated. With every edge kept it is the clean text's run, with none the other's.

A norm after attention is taken at each run's own scale, in the circuit's and in the counterfactual's.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.circuits.trials import Bench, Trial
from affectlens.circuits.walking import Attendant, Stream
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair
from affectlens.progress import tracked
from affectlens.sites import Site

CPU_TOKENS = 256  # of a batch; more are slower, as each reader's input goes through memory


class Mixing(Attendant):
    """Gives each reader what its edges carry."""

    def __init__(self, trial: Trial, cut: Float[Tensor, "row receiver sender"]) -> None:
        space, (_, pos, width) = trial.bench.space, trial.clean.shape
        self.trial, self.cut, self.space = trial, cut, space
        self.wiring = trial.bench.walker.wiring
        self.away = trial.corrupt.new_empty(len(cut), len(space.senders), pos * width)  # corrupt less current
        self.known = 0
        self.stream = self.to_feed = trial.corrupt[None, 0]
        self.values: dict[Site, Tensor] = {}

    def entering(self, layer: int, x: Stream) -> None:
        if layer == 0:
            self._wrote(x[:, None])
        self.stream = x
        wiring, first = self.wiring[layer], self.space.receiver[f"L{layer}.H0.q"]
        per = [self.space.n_heads, self.space.n_kv, self.space.n_kv]
        carried = self._carried(slice(first, first + sum(per) + 1), slice(0, self.known))
        self.to_feed = carried[:, -1]
        given = wiring.enter(x[:, None] + carried[:, :-1])
        for kind, part in zip("qkv", torch.split(given, per, dim=1), strict=True):
            self.values[Site(kind, layer)] = wiring.reads[kind].of(part)

    def reading(self, site: Site, value: Tensor) -> Tensor:
        return self.values.pop(site).to(value)

    def attended(self, layer: int, z: Tensor, out: Stream) -> Stream:
        self._wrote(self.wiring[layer].written(z))
        if not self.wiring[layer].parallel:
            self.stream = self.stream + out
        return out

    def feeding(self, layer: int, given: Stream) -> Stream:
        at, heads = self.space.receiver[f"L{layer}.mlp_in"], slice(self.known - self.space.n_heads, self.known)
        carried = self.to_feed + self._carried(slice(at, at + 1), heads)[:, 0]
        return self.wiring[layer].feed_enter(self.stream + carried).to(given)

    def fed(self, layer: int, out: Stream) -> Stream:
        del layer
        self._wrote(out[:, None])
        return out

    def end(self, x: Stream) -> Stream:
        """What the metric reads."""
        at = self.space.receiver["end"]
        return x + self._carried(slice(at, at + 1), slice(0, self.known))[:, 0]

    def _wrote(self, current: Float[Tensor, "row sender pos d_model"]) -> None:
        upto = self.known + current.shape[1]
        self.away[:, self.known : upto] = (self.trial.corrupt[self.known : upto] - current).flatten(2)
        self.known = upto

    def _carried(self, receivers: slice, senders: slice) -> Float[Tensor, "row receiver pos d_model"]:
        """What cut edges change for these readers; a row at a time, as it is memory that this waits for."""
        cut, away = self.cut[:, receivers, senders], self.away[:, senders]
        out = away.new_empty(*cut.shape[:2], away.shape[2])
        for row in range(len(cut)):
            torch.mm(cut[row], away[row], out=out[row])
        return out.view(*cut.shape[:2], *self.stream.shape[1:])


@torch.no_grad()
def values_on(trial: Trial, circuits: Sequence[Edges]) -> list[float]:
    """The metric of one pair on each circuit.

    Args:
        trial: the pair.
        circuits: sets of edges.
    """
    out: list[float] = []
    allowed = trial.bench.space.allowed
    for rows in _batches(trial, len(circuits)):
        outside = np.stack([allowed & ~kept for kept in circuits[rows]])
        cut = torch.from_numpy(outside).to(trial.corrupt).transpose(1, 2).contiguous()
        x = trial.base.streams[0][None, trial.begin :].expand(len(cut), -1, -1)
        mixing = Mixing(trial, cut)
        out += trial.value(mixing.end(trial.walk(x, mixing))).tolist()
    return out


def circuit_values(
    model: LensModel,
    pairs: Sequence[PatchPair],
    metric: Metric,
    space: EdgeSpace,
    circuits: Sequence[Edges],
    *,
    memory: float = 1.0,
    progress: bool | None = None,
) -> pd.DataFrame:
    """A metric on circuits, pair by pair.

    Args:
        model: from :func:`affectlens.load_model`.
        pairs: from :func:`affectlens.patching.prepare`.
        metric: what is read.
        space: the edges that there are.
        circuits: sets of them.
        memory: what a batch may take beyond the model, in GB.
        progress: show a bar; by default where a person is looking.

    Returns:
        One row a pair and circuit: ``pair, group, domain, emotion, circuit`` (its place in the list), ``value``; and of
        the pair ``full`` (every edge kept, the clean text's own), ``none`` (no edge kept) and ``corrupt`` (the other
        text's own).

    Raises:
        CircuitError: no pairs, or edges that are not this model's and metric's.
    """
    if not pairs:
        raise CircuitError("No pairs were given to run circuits on.")
    bench = Bench.of(model, metric, memory)
    bench.expect(space)
    for kept in circuits:
        space.check(kept)
    tables = []
    for pair in tracked(pairs, "running circuits", show=progress):
        trial = bench.trial(pair)
        none, *values = values_on(trial, [np.zeros_like(space.allowed), *circuits])
        rows = pd.DataFrame({"circuit": range(len(circuits)), "value": values})
        facts = trial.facts
        rows = rows.assign(full=facts["clean"], none=none, corrupt=facts["corrupt"])
        for at, name in enumerate(("pair", "group", "domain", "emotion")):
            rows.insert(at, name, facts[name])
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def _batches(trial: Trial, n: int) -> Iterator[slice]:
    """As many circuits at once as what their senders write leaves room for; on a processor, as its cache does."""
    space, (senders, pos, width) = trial.bench.space, trial.clean.shape
    readers = space.n_heads + 2 * space.n_kv
    size = trial.clean.element_size() * pos * width * (senders + 6 * readers + 24)
    fit = max(1, int(trial.bench.memory / size))
    if trial.corrupt.device.type == "cpu":
        fit = min(fit, max(1, CPU_TOKENS // pos))
    return (slice(at, min(at + fit, n)) for at in range(0, n, fit))
