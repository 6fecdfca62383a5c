"""What of a subspace natural differences use, and how far an interchange there is from what texts differ in.

A direction found by its effect may be the sum of one along which texts differ without effect and of one that has an
effect but along which no texts differ: interchanging it carries the first one's difference into the second ("an
interpretability illusion", Makelov et al. 2023, arXiv:2311.17030). Along the direction itself the patched values are
the source's own, so nothing is seen there. It is seen in two ways: by what is left of the effect when the part of the
subspace outside the main axes of natural differences is taken away, and by the change's length in the metric of these
differences, which is 1 a dimension along any principal axis and grows as large variation is carried into small.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from affectlens.patching.subspaces.interchange import Exchange

HELD = 0.95  # of the mean squared difference, by the principal axes that count as natural


@dataclass(frozen=True, eq=False)
class Natural:
    """The differences of two texts at their matched tokens: second moments, since zero is no difference."""

    variance: Float[np.ndarray, " d_model"]  # along all principal axes, shrunk (Ledoit and Wolf 2004)
    axes: Float[np.ndarray, "d_model d_model"]
    used: int  # how many of the first axes hold the share

    @classmethod
    def of(cls, pairs: Sequence[Exchange]) -> "Natural":
        """Of these pairs' tokens."""
        rows = np.concatenate([_rows(one.source - one.here) for one in pairs])
        moment, shrinkage = ledoit_wolf(rows, assume_centered=True)
        variance, axes = np.linalg.eigh(moment)
        variance, axes = np.maximum(variance[::-1], 1e-9 * variance[-1]), axes[:, ::-1]
        own = np.maximum((variance - shrinkage * variance.mean()) / max(1 - shrinkage, 1e-12), 0.0)
        own[len(rows) :] = 0.0
        used = int(np.searchsorted(np.cumsum(own), HELD * own.sum())) + 1
        return cls(variance, axes, min(used, len(own)))

    @property
    def chance(self) -> float:
        """The share of a random direction's square that lies along natural axes."""
        return self.used / len(self.variance)

    def share(self, basis: Float[Tensor, "d_model k"]) -> float:
        """The share of the basis vectors' squares that lies along natural axes."""
        return float(((self.axes[:, : self.used].T @ _rows(basis)) ** 2).sum() / basis.shape[1])

    def spread(self, basis: Float[Tensor, "d_model k"]) -> float:
        """The root mean square of natural differences along the basis, over that along a random direction."""
        along = (self.variance[:, None] * (self.axes.T @ _rows(basis)) ** 2).sum() / basis.shape[1]
        return float(np.sqrt(along / self.variance.mean()))

    def part(self, basis: Float[Tensor, "d_model k"]) -> Float[Tensor, "d_model k"]:
        """The subspace's projection on the natural axes, orthonormal again; it has no more dimensions than these."""
        axes = self.axes[:, : self.used]
        inside = np.linalg.svd(axes.T @ _rows(basis), full_matrices=False)[0]
        return torch.from_numpy(axes @ inside).to(basis)

    def strain(self, change: Float[Tensor, "match d_model"], k: int) -> float:
        """The mean squared length of changes in the metric of natural differences, a dimension.

        Args:
            change: what an interchange adds.
            k: of how many dimensions it is.
        """
        return float((((_rows(change) @ self.axes) ** 2 / self.variance).sum(1) / k).mean())


def _rows(x: Tensor) -> Float[np.ndarray, "row d"]:
    return x.detach().cpu().double().numpy()
