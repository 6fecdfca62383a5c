"""One text's own run, kept: the streams, keys and values that resumed runs start from, and values to patch with.

Verbalisers of several tokens are read in the same run. Their tokens but the last follow the prompt, each verbaliser's
as a branch of its own: it sees the prompt and itself, and its positions count on from the prompt's end.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.attention import explicit
from affectlens.hooks import attach
from affectlens.model import LensModel
from affectlens.patching.walking import Blocks, Memory, Passage
from affectlens.sites import Site
from affectlens.verbalisers import Prompt


@dataclass(frozen=True)
class Tokens:
    """A prompt's tokens and its verbalisers' branches, in one row."""

    ids: tuple[int, ...]
    places: tuple[int, ...]  # absolute positions
    branch: tuple[int, ...]  # of each token the verbaliser's number; -1 is the prompt
    n_prompt: int

    @classmethod
    def of(cls, prompt: Prompt) -> "Tokens":
        """The prompt's tokens, then each verbaliser's but its last."""
        ids, n = list(prompt.ids), len(prompt.ids)
        places, branch = list(range(n)), [-1] * n
        for number, tail in enumerate(prompt.tails):
            ids += tail[:-1]
            places += range(n, n + len(tail) - 1)
            branch += [number] * (len(tail) - 1)
        return cls(tuple(ids), tuple(places), tuple(branch), n)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seen(self) -> Bool[Tensor, "query key"]:
        """Which tokens are in one branch, or in the prompt before it."""
        branch = torch.tensor(self.branch)
        return (branch[None] == -1) | (branch[None] == branch[:, None])


@dataclass
class Recorded:
    """What is kept of a text's run.

    Attributes:
        tokens: what was run.
        streams: the residual stream entering each layer, and leaving the last one; ``[layer, pos, d_model]``.
        memory: keys and values.
        allowed: which keys each layer's queries may see.
        sites: values asked for, ``[pos, *part]``; of a pattern ``[head, query, key]``; over the prompt alone, unless
            verbalisers' tokens were asked for as well.
    """

    tokens: Tokens
    streams: Float[Tensor, "layer pos d_model"]
    memory: Memory
    allowed: list[Bool[Tensor, "query key"]]
    sites: dict[Site, Tensor] = field(default_factory=dict)

    def passage(self, blocks: Blocks, begin: int) -> Passage:
        """The blocks' arguments for the tokens from ``begin`` on."""
        ids, places = torch.tensor(self.tokens.ids[begin:])[None], torch.tensor(self.tokens.places[begin:])[None]
        return blocks.passage(ids, places)

    def mask(self, layer: int, begin: int, dtype: torch.dtype) -> Float[Tensor, "1 1 query key"]:
        """The additive mask of a layer's queries from ``begin`` on."""
        allowed = self.allowed[layer][begin:]
        blank = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return blank.masked_fill(~allowed, torch.finfo(dtype).min)[None, None]


@torch.no_grad()
def run_once(
    model: LensModel, blocks: Blocks, prompt: Prompt, sites: tuple[Site, ...] = (), *, tails: bool = False
) -> Recorded:
    """Run a text once, unpatched, and keep what others start from.

    Args:
        model: the model.
        blocks: its blocks.
        prompt: the text and its verbalisers.
        sites: of which the values are kept as well, whole kinds or parts.
        tails: keep them at the verbalisers' tokens too.
    """
    tokens = Tokens.of(prompt)
    places = torch.tensor(tokens.places)
    longest = int(places.max()) + 1
    seen = tokens.seen
    allowed = [whole.cpu()[places][:, places] & seen for whole in blocks.masks(longest)]
    memory = Memory(keep=True)
    found = Recorded(tokens, torch.empty(0, 0, 0), memory, [one.to(model.device) for one in allowed])
    passage = found.passage(blocks, 0)
    x, streams = passage.x, []

    def keep(site: Site, value: Tensor) -> None:
        whole, n = model.sites.part(site, value)[0], len(tokens) if tails else tokens.n_prompt
        found.sites[site] = (whole[..., :n, :n] if site.kind == "pattern" else whole[:n]).clone()

    with ExitStack() as handles:
        if any(site.kind == "pattern" for site in sites):
            handles.enter_context(explicit(model))
        for site in sites:
            attach(handles, model.sites.find(site), partial(keep, site))
        for layer in range(model.n_layers):
            streams.append(x[0])
            x = blocks.step(layer, x, passage, found.mask(layer, 0, x.dtype), memory)
    found.streams = torch.stack([*streams, x[0]])
    memory.keep = False
    return found
