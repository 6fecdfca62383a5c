"""Erasers for several layers of one run, each fitted on the stream as the ones below it have left it.

Concept scrubbing (Belrose et al. 2023, section 5), of the residual stream between blocks: what a lower layer's eraser
has removed, later blocks may compute anew from what it could not see, and the next eraser is fitted on that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from affectlens.layouts import Layout
from affectlens.patching.engine import Engine
from affectlens.patching.recorded import Recorded
from affectlens.patching.subspaces.leace import Leace
from affectlens.patching.walking import Memory
from affectlens.positions import Position
from affectlens.verbalisers import Prompt


@dataclass(frozen=True, eq=False)
class Begun:
    """A text run up to the first layer at which something is erased."""

    run: Recorded  # without its streams, keys and values
    stream: Float[Tensor, "pos d_model"]
    pool: Float[Tensor, " pos"]  # each token's weight


@torch.no_grad()
def begin(engine: Engine, prompt: Prompt, layout: Layout, layer: int, rule: Position) -> Begun:
    """Run one text up to the stream that leaves ``layer``."""
    run = engine.record(prompt)
    stream = run.streams[layer + 1].clone()
    blank = Recorded(run.tokens, run.streams[:0], Memory(), run.allowed)
    return Begun(blank, stream, torch.from_numpy(rule.weights(layout)).to(stream))


@torch.no_grad()
def fit_through(
    engine: Engine, texts: Sequence[Begun], z: Shaped[np.ndarray, " item"], layers: Sequence[int], *,
    shrinkage: float = 0.0,
) -> dict[int, Leace]:  # fmt: skip
    """An eraser for each layer, of the pooled stream after all lower ones have been applied at every token.

    Args:
        engine: what walks through the blocks.
        texts: the training texts, begun at the first layer.
        z: their labels.
        layers: rising.
        shrinkage: of the erasers.
    """
    streams = [one.stream for one in texts]
    out: dict[int, Leace] = {}
    at = layers[0]
    for layer in layers:
        streams = [_walk(engine, one, stream, at + 1, layer) for one, stream in zip(texts, streams, strict=True)]
        pooled = torch.stack([one.pool @ stream for one, stream in zip(texts, streams, strict=True)])
        out[layer] = Leace.fit(pooled.double().cpu().numpy(), z, shrinkage=shrinkage)
        streams = [out[layer](stream) for stream in streams]
        at = layer
    return out


def _walk(
    engine: Engine, text: Begun, stream: Float[Tensor, "pos d_model"], first: int, last: int
) -> Float[Tensor, "pos d_model"]:
    """The stream after layers ``first`` to ``last``; itself if there are none."""
    if first > last:
        return stream
    passage, x = text.run.passage(engine.blocks, 0), stream[None]
    for layer in range(first, last + 1):
        x = engine.blocks.step(layer, x, passage, text.run.mask(layer, 0, x.dtype), Memory(keep=True))
    return x[0]
