"""One edit of features in one text: which tokens change, and to what.

The features' activations become others at each token of a span; what the dictionary fails to rebuild stays:
``x + decode(new) - decode(codes)``. Tokens at which nothing changes are left alone, so an edit of a feature that is not
active is no edit, bit by bit. The second control has the same changes along random directions: each feature's decoder
row is exchanged for a random one, and the change of each token keeps its norm.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.patching.cells import Change
from affectlens.probing.sae import Sae
from affectlens.sites import Site
from affectlens.types import Json

TOGETHER = -1  # stands for all features at once
FEATURE, PLACEBO, DIRECTION = "feature", "placebo", "direction"


@dataclass(frozen=True)
class Step:
    """What is edited in one run."""

    source: str  # the feature itself, a placebo of it, or a random direction
    feature: int  # whom it speaks for; TOGETHER is all of them
    draw: int  # which placebo or direction; -1 is the feature itself
    edited: tuple[int, ...]  # the features whose activations change

    @property
    def facts(self) -> Json:
        """The columns that name it."""
        return {"source": self.source, "feature": self.feature, "draw": self.draw}


@dataclass(frozen=True, eq=False)
class Text:
    """One text at the dictionary's site."""

    x: Float[Tensor, "pos d_in"]
    codes: Float[Tensor, "pos feature"]
    at: list[int]  # the tokens that may change


@dataclass(frozen=True, eq=False)
class Edits:
    """The edits of one plan.

    Args:
        sae: the dictionary.
        levels: what each feature's activation becomes.
        shape: of the site at one token.
        seed: of random directions.
    """

    sae: Sae
    levels: Mapping[int, float]
    shape: tuple[int, ...]
    seed: int

    @property
    def site(self) -> Site:
        return self.sae.site

    def change(self, text: Text, step: Step) -> tuple[Change | None, float]:
        """What the step changes in a text, and the mean norm of the change over the tokens that change."""
        at, moved = self.moved(text, step)
        if not at:
            return None, 0.0
        new = (text.x[at] + moved).reshape(len(at), *self.shape)
        return Change(self.site, tuple(at), new), float(moved.norm(dim=-1).mean())

    def moved(self, text: Text, step: Step) -> tuple[list[int], Float[Tensor, "changed d_in"]]:
        """The tokens that change, and by what."""
        chosen = list(step.edited)
        levels = torch.tensor([self.levels[one] for one in chosen], dtype=torch.float32, device=text.codes.device)
        by = levels - text.codes[text.at][:, chosen]
        there = (by != 0).any(dim=1)
        at = [one for one, yes in zip(text.at, there.tolist(), strict=True) if yes]
        old = text.codes[at]
        new = old.clone()
        new[:, chosen] = levels
        moved = self.sae.decode(new) - self.sae.decode(old)
        if step.source == DIRECTION and at:
            moved = self._elsewhere(moved, by[there], step)
        return at, moved

    def _elsewhere(
        self, moved: Float[Tensor, "changed d_in"], by: Float[Tensor, "changed edited"], step: Step
    ) -> Float[Tensor, "changed d_in"]:
        """Changes as large, along random rows in place of the decoder's."""
        size = torch.from_numpy(np.linalg.norm(self.sae.decoder[list(step.edited)], axis=1)).to(by)
        rows = torch.stack([self._row(step.draw, one) for one in step.edited]).to(by)
        other = (by * size) @ rows
        return other * (moved.norm(dim=-1, keepdim=True) / other.norm(dim=-1, keepdim=True).clamp(min=1e-12))

    def _row(self, draw: int, feature: int) -> Float[Tensor, " d_in"]:
        vector = np.random.default_rng([self.seed, draw, feature]).normal(size=self.sae.d_in)
        return torch.from_numpy((vector / np.linalg.norm(vector)).astype(np.float32))
