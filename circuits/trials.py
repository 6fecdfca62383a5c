"""One pair made ready: its emotional text's run, which circuits change, and what every sender writes in either text."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.space import EdgeSpace
from affectlens.circuits.standing import stands
from affectlens.circuits.walking import Attendant, Stream, Walker
from affectlens.circuits.wiring import wire
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.patching.choosing import runner_for
from affectlens.patching.engine import Engine
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric, Reading
from affectlens.patching.pairs import PatchPair
from affectlens.patching.reading import Out
from affectlens.patching.recorded import Recorded
from affectlens.sites import Site
from affectlens.types import Json

FACTS = ["pair", "group", "domain", "emotion", "clean", "corrupt"]  # of a pair, in tables


def end_layer(metric: Metric) -> int | None:
    """The layer whose stream a metric reads; None if it reads the logits.

    Args:
        metric: what a circuit is judged by.

    Raises:
        CircuitError: a metric that reads at several places, or what is generated.
    """
    said = bool(metric.labels or metric.logits)
    if metric.generate:
        raise CircuitError(f"{metric.name!r} reads generated text: a circuit ends where one pass of the model ends.")
    if said + len(metric.layers) != 1:
        raise CircuitError(f"{metric.name!r} reads at several places, or none: a circuit has one end. Split it.")
    return next(iter(metric.layers), None)


@dataclass(frozen=True, eq=False)
class Bench:
    """A model with one metric, ready for pairs."""

    walker: Walker
    job: Job
    space: EdgeSpace
    memory: float  # bytes that a batch may take

    @classmethod
    def of(cls, model: LensModel, metric: Metric, memory: float) -> "Bench":
        """Find the wiring up to where the metric reads.

        Raises:
            CircuitError: a metric without one end, or a model whose edges can't be told apart.
        """
        layer = end_layer(metric)
        space = EdgeSpace.of(model, layer=layer)
        engine = runner_for(model, memory=memory)
        if not isinstance(engine, Engine):
            raise CircuitError(f"{model.name} can't be walked through block by block, which telling edges apart needs.")
        sites = [Site(kind, at) for at in range(space.n_layers) for kind in ("z", "mlp_out")]
        job = Job(engine, [metric], sites, denoise=False)
        return cls(Walker(engine, wire(model, space.n_layers)), job, space, memory * 1e9)

    @property
    def metric(self) -> Metric:
        """What is read."""
        return self.job.metrics[0]

    def expect(self, space: EdgeSpace) -> None:
        """Refuse edges of another model, or of another metric's end.

        Raises:
            CircuitError: if ``space`` is not this one.
        """
        if space != self.space:
            raise CircuitError(
                f"These edges end at {space.end} of another model or metric; this one reads {self.space.end}."
            )

    @torch.no_grad()
    def trial(self, pair: PatchPair) -> "Trial":
        """Run both texts."""
        here, there = stands(pair)
        engine, sites = self.walker.engine, self.job.sites
        base, other = (engine.record(side.prompt, sites, tails=True) for side in (pair.clean, pair.corrupt))
        read = self.job.ends(pair.swapped(), other, base)
        clean, corrupt = self._senders(base)[:, here], self._senders(other)[:, there]
        heads = {at: (base.sites[Site("z", at)][here], other.sites[Site("z", at)][there])
                 for at, wiring in enumerate(self.walker.wiring) if wiring.after is not None}  # fmt: skip
        base.sites.clear()
        return Trial(self, pair, base, here[0], clean, corrupt, heads, read)

    def _senders(self, run: Recorded) -> Float[Tensor, "sender pos d_model"]:
        parts = [run.streams[0][None]]
        for at, wiring in enumerate(self.walker.wiring):
            parts += [wiring.written(run.sites[Site("z", at)][None])[0], run.sites[Site("mlp_out", at)][None]]
        return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class Trial:
    """A pair's runs. ``clean`` and ``corrupt`` are what senders write at the clean text's tokens from ``begin`` on."""

    bench: Bench
    pair: PatchPair
    base: Recorded
    begin: int
    clean: Float[Tensor, "sender pos d_model"]
    corrupt: Float[Tensor, "sender pos d_model"]
    heads: Mapping[int, tuple[Tensor, Tensor]]  # both texts' z where a norm follows attention, by layer
    read: Mapping[str, Reading]  # of both unpatched texts, ``clean`` and ``corrupt``

    @cached_property
    def facts(self) -> Json:
        """What a table's rows say of the pair."""
        ends = {name: float(self.bench.metric(self.read[name])[0]) for name in ("clean", "corrupt")}
        pair = self.pair
        return {"pair": pair.name, "group": pair.group, "domain": pair.domain, "emotion": pair.emotion, **ends}

    def walk(self, x: Stream, attendant: Attendant) -> Stream:
        """Runs of the clean text from what enters the first block; what leaves the last one."""
        return self.bench.walker.walk(self.base, self.begin, x, attendant)

    def value(self, x: Stream) -> Float[Tensor, " row"]:
        """The metric of runs, from the streams at the end."""
        job, engine, prompt = self.bench.job, self.bench.walker.engine, self.pair.clean.prompt
        streams = {at: engine.whole(self.base, at, x, self.begin, len(x)) for at in job.needs.layers}
        out: Out = engine.read(self.base, prompt, job.needs, x, self.begin, streams)
        reading = job.reading(self.pair.swapped(), self.pair.clean, out).beside(self.read)
        return self.bench.metric(reading)
