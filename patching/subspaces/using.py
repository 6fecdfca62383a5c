"""Whether a model uses a concept: a metric and the loss on the texts themselves, with the concept erased as it runs.

An eraser changes the stream at every token, the cue's and the verbalisers' too, so nothing can be looked up at an
earlier one. Its control moves every token by the same distance, along the token's own part in a random subspace.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.patching.cells import Cell, Change
from affectlens.patching.engine import Engine
from affectlens.patching.job import Job
from affectlens.patching.metrics import Reading
from affectlens.patching.pairs import PatchPair, Side
from affectlens.patching.subspaces.leace import Leace, Placebo, random_basis
from affectlens.patching.subspaces.rereading import LEACE, NONE, RANDOM
from affectlens.progress import tracked
from affectlens.readout import token_logprobs
from affectlens.sites import Site
from affectlens.types import Json

TOGETHER = -1  # in place of a layer: all of them in one run
Erasers = Mapping[int, Leace]  # layer -> eraser
Key = tuple[str, int, int]  # method, layer, draw


@torch.no_grad()
def use(
    engine: Engine, job: Job, pairs: Sequence[PatchPair], erasers: Mapping[str, Erasers], *, together: bool = False,
    draws: int = 5, seed: int = 0, progress: bool | None = None,
) -> pd.DataFrame:  # fmt: skip
    """One row a text, method, layer and draw: the metric's ``value``, and the ``loss`` of the text in nats a token.

    Args:
        engine: what runs it.
        job: the metric.
        pairs: held-out pairs, both of whose texts are run.
        erasers: of each pair's group those that were fitted without it, by layer.
        together: apply all layers' erasers in one run, not one a run.
        draws: control subspaces.
        seed: of their choice.
        progress: show a bar.
    """
    job = replace(job, layers=job.layers | {engine.model.n_layers - 1})  # the loss is read there
    rows: list[Json] = []
    for pair in tracked(pairs, "running with the concept erased", show=progress):
        sides = {"clean": pair.clean, "corrupt": pair.corrupt}
        plain = {name: engine.record(side.prompt) for name, side in sides.items()}
        ends = job.ends(pair, plain["clean"], plain["corrupt"])
        for name, side in sides.items():
            base = plain[name]
            cells = dict(_cells(erasers[pair.group], len(base.tokens), together, draws, seed))
            found = [((NONE, TOGETHER, 0), *_read(engine, job, ends[name])[0])]
            keys = list(cells)
            for numbers, got in engine.run(base, side.prompt, list(cells.values()), job.needs):
                read = _read(engine, job, job.reading(pair, side, got).beside(ends))
                found += [(keys[number], *one) for number, one in zip(numbers, read, strict=True)]
            rows += [
                {"pair": pair.name, "group": pair.group, "side": name, "method": method, "layer": layer, "draw": draw,
                 "value": value, "loss": loss}
                for (method, layer, draw), value, loss in found
            ]  # fmt: skip
    return pd.DataFrame(rows)


def _cells(erasers: Erasers, n: int, together: bool, draws: int, seed: int) -> Iterator[tuple[Key, Cell]]:
    """The runs, each with its changes at all tokens."""
    every = tuple(range(n))
    bases = {
        (layer, draw): random_basis(len(one.mean), max(one.rank, 1), np.random.default_rng([seed, layer, draw]))
        for layer, one in erasers.items()
        for draw in range(draws)
    }

    def cell(layers: Sequence[int], draw: int | None) -> Cell:
        return tuple(
            Change(Site("resid_post", layer), every,
                   erasers[layer] if draw is None else Placebo(erasers[layer], bases[layer, draw]))
            for layer in layers
        )  # fmt: skip

    for layers in [list(erasers)] if together else [[layer] for layer in erasers]:
        at = TOGETHER if together else layers[0]
        yield (LEACE, at, 0), cell(layers, None)
        for draw in range(draws):
            yield (RANDOM, at, draw), cell(layers, draw)


def _read(engine: Engine, job: Job, reading: Reading) -> list[tuple[float, float]]:
    """Metric and loss of each run."""
    values = job.metrics[0](reading).tolist()
    streams = reading.streams[engine.model.n_layers - 1]
    end = _end(reading.pair, reading.side)
    ids = torch.tensor(reading.side.prompt.ids[1:end], device=streams.device)
    losses = [float(-_logprobs(engine, stream[: end - 1], ids).mean()) for stream in streams]
    return list(zip(values, losses, strict=True))


def _logprobs(engine: Engine, stream: Float[Tensor, "pos d_model"], ids: Tensor) -> Float[Tensor, " pos"]:
    return token_logprobs(engine.blocks.head(stream[None])[0], ids[:, None])[:, 0]


def _end(pair: PatchPair, side: Side) -> int:
    """Where the text ends and what follows it begins."""
    at = 0 if side is pair.clean else 1
    return min((match[at] for match in pair.segments["cue"]), default=len(side.prompt.ids))
