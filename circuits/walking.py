"""A text walked through block by block, with somebody at every reader and writer of the stream.

What readers are given and what writers give may be exchanged there. The walk begins at the first token that a pair's
texts do not share; the keys and values before it are the text's own.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.wiring import Wiring
from affectlens.hooks import attach
from affectlens.patching.engine import Engine
from affectlens.patching.recorded import Recorded
from affectlens.sites import Site

Stream = Float[Tensor, "row pos d_model"]


class Attendant:
    """Who stands at the readers and writers, and here lets everything pass; rows and positions are the walk's."""

    def entering(self, layer: int, x: Stream) -> None:
        """The stream comes to a block."""

    def reading(self, site: Site, value: Tensor) -> Tensor:
        """All heads' queries, keys or values, ``[row, pos, head, d_head]``; what is returned is used."""
        del site
        return value

    def attended(self, layer: int, z: Tensor, out: Stream) -> Stream:
        """The heads' outputs ``[row, pos, head, d_head]``, and what attention adds; what is returned is added."""
        del layer, z
        return out

    def feeding(self, layer: int, given: Stream) -> Stream:
        """What the MLP is given, after its norm; what is returned is used."""
        del layer
        return given

    def fed(self, layer: int, out: Stream) -> Stream:
        """What the MLP adds to the stream; what is returned is added."""
        del layer
        return out


@dataclass(frozen=True, eq=False)
class Walker:
    """A model whose first blocks can be walked."""

    engine: Engine
    wiring: list[Wiring]

    def walk(self, base: Recorded, begin: int, x: Stream, attendant: Attendant) -> Stream:
        """The stream that leaves the last of the blocks.

        Args:
            base: the text's own run.
            begin: the first position of ``x``.
            x: what enters the first block, of several runs of the text.
            attendant: who stands at the readers and writers.
        """
        passage = base.passage(self.engine.blocks, begin)
        base.memory.before = begin
        with ExitStack() as handles:
            for layer, wiring in enumerate(self.wiring):
                self._post(handles, layer, wiring, attendant)
            for layer in range(len(self.wiring)):
                attendant.entering(layer, x)
                mask = base.mask(layer, begin, x.dtype)
                x = self.engine.blocks.step(layer, x, passage, mask, base.memory)
        return x

    def _post(self, handles: ExitStack, layer: int, wiring: Wiring, attendant: Attendant) -> None:
        """Hook one block."""
        sites, z = self.engine.model.sites, Site("z", layer)
        kept: list[Tensor] = []

        def read(site: Site, value: Tensor) -> Tensor:
            return sites.with_part(site, value, attendant.reading(site, sites.part(site, value)))

        for kind in "qkv":
            site = Site(kind, layer)
            attach(handles, sites.find(site), partial(read, site), writing=True)
        attach(handles, sites.find(z), lambda value: kept.append(sites.part(z, value)))
        attended = lambda out: attendant.attended(layer, kept.pop(), out)  # noqa: E731
        attach(handles, sites.find(Site("attn_out", layer)), attended, writing=True)
        attach(handles, wiring.feed_tap, partial(attendant.feeding, layer), writing=True)
        attach(handles, sites.find(Site("mlp_out", layer)), partial(attendant.fed, layer), writing=True)
