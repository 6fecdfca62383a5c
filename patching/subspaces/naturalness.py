"""How far an interchange leaves what a model's activations are, and what of a subspace natural variation uses.

A direction found by its effect may be the sum of one along which texts differ without effect and of one that has an
effect but along which no text differs: interchanging it carries the first one's difference into the second ("an
interpretability illusion", Makelov et al. 2023, arXiv:2311.17030). Along the direction itself the patched values are
the source's own, so nothing is seen there. It is seen in what patched values are as a whole, by their distance in the
metric of the natural covariance, and when the part of the subspace is left out in which natural values hardly vary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from affectlens.patching.subspaces.interchange import Exchange

HELD = 0.95  # of the variance, by the principal axes that count as natural


@dataclass(frozen=True, eq=False)
class Natural:
    """The variation of both texts' values at matched tokens."""

    mean: Float[np.ndarray, " d_model"]
    variance: Float[np.ndarray, " d_model"]  # along all principal axes, shrunk (Ledoit and Wolf 2004)
    axes: Float[np.ndarray, "d_model d_model"]
    used: int  # how many of the first axes hold the share of the variance

    @classmethod
    def of(cls, pairs: Sequence[Exchange]) -> "Natural":
        """Of these pairs' tokens, both texts'."""
        rows = np.concatenate([_rows(one.source) for one in pairs] + [_rows(one.here) for one in pairs])
        covariance, shrinkage = ledoit_wolf(rows)
        variance, axes = np.linalg.eigh(covariance)
        variance, axes = variance[::-1], axes[:, ::-1]
        own = np.maximum((variance - shrinkage * variance.mean()) / max(1 - shrinkage, 1e-12), 0.0)
        own[len(rows) - 1 :] = 0.0
        used = int(np.searchsorted(np.cumsum(own), HELD * own.sum())) + 1
        return cls(rows.mean(0), variance, axes, min(used, len(own)))

    @property
    def chance(self) -> float:
        """The share of a random direction's square that lies along natural axes."""
        return self.used / len(self.variance)

    def share(self, basis: Float[Tensor, "d_model k"]) -> float:
        """The share of the basis vectors' squares that lies along natural axes."""
        return float(((self.axes[:, : self.used].T @ _rows(basis)) ** 2).sum() / basis.shape[1])

    def spread(self, basis: Float[Tensor, "d_model k"]) -> float:
        """The standard deviation of natural values along the basis, over that along a random direction."""
        along = (self.variance[:, None] * (self.axes.T @ _rows(basis)) ** 2).sum() / basis.shape[1]
        return float(np.sqrt(along / self.variance.mean()))

    def part(self, basis: Float[Tensor, "d_model k"]) -> Float[Tensor, "d_model k"]:
        """The subspace's projection on the natural axes, orthonormal again."""
        axes = self.axes[:, : self.used]
        return torch.from_numpy(np.linalg.qr(axes @ (axes.T @ _rows(basis)))[0]).to(basis)

    def distance(self, x: Float[Tensor, "match d_model"]) -> float:
        """The mean squared distance from the mean in the metric of the covariance, over the number of dimensions."""
        return float((((_rows(x) - self.mean) @ self.axes) ** 2 / self.variance).mean())


def _rows(x: Tensor) -> Float[np.ndarray, "row d"]:
    return x.detach().cpu().double().numpy()
