"""A closed loop at work: the scores of the reply that is being written, from its first token to the running one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.errors import SteerError
from affectlens.steering.looping import Loop


class Running:
    """A loop at work: the scores of the running reply."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._scores = torch.zeros(0, 0)
        self._real = torch.zeros(0, 0, dtype=torch.bool)

    def read(
        self, h: Float[Tensor, "batch pos d"], real: Bool[Tensor, "batch pos"], past: int, width: int
    ) -> Float[Tensor, "batch pos"]:
        """The share of the dose at each token of a pass, which is read.

        Args:
            h: the values at the loop's site.
            real: False at padding.
            past: columns that went before.
            width: those of the prompt, padding included.

        Raises:
            SteerError: tokens of the reply that were read by another pass, or rows that are not those of before.
        """
        before, first = max(past - width, 0), min(max(width - past, 0), h.shape[1])
        scores, kept = self.loop.score(h[:, first:].detach()), self._scores[:, :before]
        if before and kept.shape != (len(h), before):
            raise SteerError(
                "The loop has not read the reply from its first token on, for these rows: begin each generation "
                "inside steer(...), and keep its rows."
            )
        new = real[:, first:]
        self._scores = torch.cat((kept, scores), dim=1) if before else scores
        self._real = torch.cat((self._real[:, :before], new), dim=1) if before else new
        share = torch.ones(h.shape[:2], device=h.device)
        if len(new[0]):
            share[:, first:] = self.loop.share(self._scores, self._real, since=before)
        return share
