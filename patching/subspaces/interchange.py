"""A pair whose base run takes over what the source run has, in a subspace at one layer and at its matched tokens.

With an orthonormal basis R the value b of a base's token becomes b + R R^T (s - b), where s is its match's value: the
part in the subspace is the source's, the rest stays. Tokens without a match stay the base's; those of verbalisers of
several tokens are among them, and up to the site have seen the base alone. The runs are the engine's, from the layer
above the site on, and gradients pass through them to the basis.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.errors import PatchError
from affectlens.patching.cells import Change
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric, Reading
from affectlens.patching.pairs import SEGMENTS, PatchPair
from affectlens.patching.recorded import Recorded
from affectlens.sites import Site

Move = Callable[[Float[Tensor, "match d_model"]], Float[Tensor, "match d_model"]]  # of source less base, what is added


@dataclass(frozen=True, eq=False)
class Exchange:
    """One pair at one site; as in a :class:`Job`, ``pair.clean`` is the source and ``pair.corrupt`` the base."""

    job: Job
    pair: PatchPair
    base: Recorded
    site: Site  # the stream that leaves the layer, named as what enters the next one where there is one
    at: tuple[int, ...]  # the base's tokens
    source: Float[Tensor, "match d_model"]
    here: Float[Tensor, "match d_model"]  # the base's values
    read: Mapping[str, Reading]  # of the unpatched runs, ``clean`` and ``corrupt``
    ends: tuple[float, float]  # the metric of the clean text and of the corrupt one

    @classmethod
    def of(cls, job: Job, pair: PatchPair, layer: int, segment: str) -> "Exchange":
        """Run both texts and keep what interchanges at this site need.

        Raises:
            PatchError: a pair without tokens in the segment.
        """
        if not pair.segments[segment]:
            raise PatchError(f"{pair.name} has no matched tokens in segment {segment!r}: leave it out.")
        runs = [job.runner.record(side.prompt) for side in (pair.clean, pair.corrupt)]
        read = job.ends(pair, *runs)
        clean, corrupt = (float(job.metrics[0](read[name])[0]) for name in ("clean", "corrupt"))
        there, at = zip(*pair.segments[segment], strict=True)
        n_layers = len(runs[0].streams) - 1
        site = Site("resid_pre", layer + 1) if layer + 1 < n_layers else Site("resid_post", layer)
        source, here = (run.streams[layer + 1][list(places)] for run, places in zip(runs, (there, at), strict=True))
        return cls(job, pair, _from(runs[1], site.layer), site, at, source, here, read, (clean, corrupt))

    @property
    def aim(self) -> float:
        """The metric of the source: what a perfect interchange brings the base to."""
        return self.ends[0] if self.job.denoise else self.ends[1]

    @property
    def start(self) -> float:
        """The metric of the base."""
        return self.ends[1] if self.job.denoise else self.ends[0]

    def values(self, moves: Sequence[Move]) -> Float[Tensor, " row"]:
        """The metric of the base's run with each move made, in float64; gradients pass through.

        Args:
            moves: one a run.
        """
        way = self.source - self.here
        cells = [(Change(self.site, self.at, self.here + move(way)),) for move in moves]
        out: dict[int, Tensor] = {}
        metric: Metric = self.job.metrics[0]
        for rows, found in self.job.runner.run(self.base, self.pair.corrupt.prompt, cells, self.job.needs):
            value = metric(self.job.reading(self.pair, self.pair.corrupt, found).beside(self.read)).double()
            out |= dict(zip(rows, value, strict=True))
        return torch.stack([out[row] for row in range(len(cells))])


def within(basis: Float[Tensor, "d_model k"]) -> Move:
    """The move that interchanges a subspace.

    Args:
        basis: orthonormal columns.
    """
    return lambda way: (way @ basis.to(way)) @ basis.to(way).T


def whole(way: Float[Tensor, "match d_model"]) -> Float[Tensor, "match d_model"]:
    """The move that interchanges the site: all dimensions.

    Args:
        way: the source's values less the base's.
    """
    return way


def check_site(job: Job, layer: int, segment: str, n_layers: int) -> None:
    """What can't be interchanged, or not be followed by gradients, is said before anything runs.

    Raises:
        PatchError: a layer or a segment that does not exist, or a metric that reads generated text or nothing above
            the layer.
    """
    metric = job.metrics[0]
    if not 0 <= layer < n_layers:
        raise PatchError(f"Layer {layer} does not exist: the model has layers 0 to {n_layers - 1}.")
    if segment not in SEGMENTS:
        raise PatchError(f"There is no segment {segment!r}; choose from {', '.join(SEGMENTS)}.")
    if metric.generate:
        raise PatchError(f"{metric.name!r} reads generated text, which has no gradient: choose another metric.")
    if not (metric.labels or metric.logits) and max(metric.layers, default=-1) < layer:
        raise PatchError(f"{metric.name!r} reads nothing above layer {layer}: choose a lower layer.")


def _from(run: Recorded, layer: int) -> Recorded:
    """A run without the keys and values of layers that interchanges never compute."""
    for below in [one for one in run.memory.keys if one < layer]:
        del run.memory.keys[below], run.memory.values[below]
    return run
