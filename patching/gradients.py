"""Gradients of a metric over a whole run, and what they say that patches would do.

A patch moves a site's value at some tokens from the base's to the source's. To first order the metric then changes by

    sum over tokens and dimensions of  gradient x (source's value - base's value),

and one forward and one backward pass give the gradient at every site and token at once: attribution patching (Nanda
2023; Syed et al. 2023, arXiv:2310.10348). Where the metric bends between the two texts the gradient at the base
misleads. Integrated gradients average it along the straight path from what the base has on entering the first block to
what the source has there, at all matched tokens together (Hanna et al. 2024, arXiv:2403.17806). The estimates of
``resid_pre`` of layer 0 then sum to what the exact patch of all these tokens changes; of two texts of equal length, to
the whole gap. The path is cut by the rule of Gauss and Legendre, which comes closer with as many gradients than equal
steps do.

The passes are the engine's: they begin at the first token that differs, and several points of the path are one batch.
A site's gradient is that of a zero which a patch adds to its value, so it is the derivative of what a patch does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.errors import PatchError
from affectlens.patching.cells import Change
from affectlens.patching.engine import Engine
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric, Reading
from affectlens.patching.pairs import Match, PatchPair
from affectlens.patching.recorded import Recorded
from affectlens.sites import Site

ENTRY = Site("resid_pre", 0)


@dataclass(frozen=True, eq=False)
class Ends:
    """Both texts of a pair, run; as in a job, the pair's ``clean`` is the source and its ``corrupt`` the base."""

    job: Job
    pair: PatchPair
    source: Recorded  # with the sites' values
    base: Recorded
    read: Mapping[str, Reading]  # ``clean`` and ``corrupt``

    @classmethod
    def of(cls, job: Job, pair: PatchPair) -> "Ends":
        """Run both, with the job's sites and what enters the first block."""
        sites = tuple(dict.fromkeys((*job.sites, ENTRY)))
        source, base = (job.runner.record(side.prompt, sites) for side in (pair.clean, pair.corrupt))
        return cls(job, pair, source, base, job.ends(pair, source, base))

    def metric(self, metric: Metric) -> tuple[float, float]:
        """The metric of the clean and of the corrupt text."""
        clean, corrupt = (float(metric(self.read[name])[0]) for name in ("clean", "corrupt"))
        return clean, corrupt

    def difference(self, site: Site, matches: Iterable[Match]) -> Float[Tensor, "match *part"]:
        """The source's values less the base's, at matched tokens."""
        there, here = (list(places) for places in zip(*matches, strict=True))
        return self.source.sites[site][there] - self.base.sites[site][here]


@dataclass(frozen=True, eq=False)
class Gradients:
    """The derivative of a metric by every site's value, at the base's tokens from ``begin`` on.

    Before ``begin`` both texts have the same values, so no patch there changes anything.
    """

    ends: Ends
    begin: int
    values: dict[Site, Float[Tensor, "pos *part"]]

    def estimates(self, site: Site, matches: Iterable[Match]) -> Float[Tensor, "match index"]:
        """The estimated change of the metric by patching each matched token, in float64.

        One column a head (of q, k, v and z) or neuron, else a single one; tokens and columns add up to larger patches.

        Args:
            site: a whole site, of those asked for.
            matches: position in the source's text, position in the base's.
        """
        matches = list(matches)
        late = [i for i, (_, base) in enumerate(matches) if base >= self.begin]
        gradient = self.values[site]
        wide = gradient.shape[1:-1] if gradient.ndim > 2 or site.kind != "neurons" else gradient.shape[1:]
        out = torch.zeros(len(matches), int(np.prod(wide)), dtype=torch.float64)
        if late:
            moved = self.ends.difference(site, [matches[i] for i in late]).double()
            product = gradient[[matches[i][1] - self.begin for i in late]].double() * moved
            out[late] = (product if wide == gradient.shape[1:] else product.sum(-1)).reshape(len(late), -1).cpu()
        return out


def gradients(engine: Engine, ends: Ends, metric: Metric, *, steps: int = 0) -> Gradients:
    """The gradient of a metric by every site of the job, in one forward and one backward pass (a batch of them).

    Args:
        engine: what runs it; its memory bounds how many points of the path are one batch.
        ends: the pair's two runs.
        metric: what is differentiated, in its own unit.
        steps: gradients averaged along the path from base to source; 0 is the gradient at the base alone.

    Returns:
        ``[pos, *part]`` for each whole site of ``ends.job.sites``; zero where nothing that is read depends on it.

    Raises:
        PatchError: a metric that can't be differentiated, or fewer steps than none.
    """
    if steps < 0:
        raise PatchError(f"steps is {steps}: give the number of gradients along the path, 8 for example.")
    if metric.generate:
        raise PatchError(f"{metric.name!r} reads generated text, which has no gradient: patch exactly instead.")
    model, pair, n = engine.model, ends.pair, ends.base.tokens.n_prompt
    begin = min(base for _, base in pair.segments["all"])
    points, shares = _path(steps)
    with torch.inference_mode(False), torch.enable_grad():
        zeros = {
            site: torch.zeros(n - begin, *model.sites.shape(site), dtype=model.dtype, device=model.device)
            for site in ends.job.sites
        }
        leaves = [zero.requires_grad_() for zero in zeros.values()]
        added = [Change(site, tuple(range(begin, n)), partial(torch.add, zero)) for site, zero in zeros.items()]
        cells = [(one, *added) for one in _moved(ends, points)]
        for rows, out in engine.run(ends.base, pair.corrupt.prompt, cells, ends.job.needs):
            reading = ends.job.reading(pair, pair.corrupt, out).beside(ends.read)
            value = (metric(reading).double() * torch.tensor(shares[rows], device=model.device)).sum()
            if _has_gradient(value, reading, metric):
                torch.autograd.backward(value, inputs=leaves)
    found = {site: torch.zeros_like(zero) if zero.grad is None else zero.grad for site, zero in zeros.items()}
    return Gradients(ends, begin, {site: value.detach() for site, value in found.items()})


def _path(steps: int) -> tuple[Float[np.ndarray, " step"], Float[np.ndarray, " step"]]:
    """Where on the way from base (0) to source (1) gradients are taken, and their shares of the average."""
    if steps == 0:
        return np.zeros(1), np.ones(1)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def _moved(ends: Ends, points: Float[np.ndarray, " step"]) -> list[Change]:
    """What enters the first block, from the base's values so much of the way to the source's."""
    matches = ends.pair.segments["all"]
    at, way = tuple(base for _, base in matches), ends.difference(ENTRY, matches)
    return [Change(ENTRY, at, partial(torch.add, float(point) * way)) for point in points]


def _has_gradient(value: Tensor, reading: Reading, metric: Metric) -> bool:
    """Whether the metric depends on any site; if it reads what does, it must."""
    read = (reading.logprobs, reading.logits, *reading.streams.values())
    if not value.requires_grad and any(one is not None and one.requires_grad for one in read):
        raise PatchError(f"{metric.name!r} has no gradient by what it reads: patch exactly instead.")
    return bool(value.requires_grad)
