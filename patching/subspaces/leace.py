"""LEACE: the least change after which no linear reader can tell a concept (Belrose et al. 2023, arXiv:2306.03819).

A linear classifier of the activations x beats the constant if and only if its classes have different means, that is, if
x and the concept z covary. Of all affine maps that leave no covariance, the one that moves x least, in every quadratic
norm at once, whitens x, projects out what covaries with z, and takes the whitening back:

    r(x) = x - W^-1 P W (x - mean),    W = cov(x)^(-1/2),    P onto the columns of W cov(x, z)

The guarantee is of the rows that it was fitted on. On others the concept comes back as far as the covariance was
mistaken there, most of all with fewer rows than dimensions; what is left is to be measured, not assumed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from affectlens.errors import PatchError

TOLERANCE = 1e-10  # of the largest singular value of the centred rows: what is smaller is taken for zero


@dataclass(frozen=True, eq=False, repr=False)
class Leace:
    """A fitted eraser, ``r(x) = x - left @ (right.T @ (x - mean))``."""

    mean: Float[np.ndarray, " d"]
    left: Float[np.ndarray, "d rank"]  # the directions along which x is moved
    right: Float[np.ndarray, "d rank"]  # what is read of x to know how far
    moved: float  # mean squared length of the change on the rows of the fit

    @classmethod
    def fit(
        cls, x: Shaped[np.ndarray, "item d"], z: Shaped[np.ndarray, "item *k"], *, shrinkage: float = 0.0,
        tol: float = TOLERANCE,
    ) -> "Leace":  # fmt: skip
        """The closed form, in float64, within the span of the rows where these are few.

        Args:
            x: activations ``[item, d]``.
            z: the concept: a label an item (whole numbers, booleans or texts), a number an item (floats), or
                ``[item, k]`` such as one-hot labels or several numbers.
            shrinkage: from 0 to 1, how far the covariance that whitens is drawn to a multiple of the identity. The
                guarantee on the rows of the fit stays; the change is the least of all only at 0. At 1 the differences
                of the means are projected out orthogonally.
            tol: singular values of the centred rows below this share of the largest are taken for zero (a
                pseudo-inverse), and so are those of the whitened covariance with the concept.

        Raises:
            PatchError: fewer than two rows, values that are not finite, a concept that does not vary, a shrinkage
                outside of 0 to 1.
        """
        rows, coded = _checked(x, z, shrinkage)
        mean = rows.mean(0)
        _, size, axes = np.linalg.svd(rows - mean, full_matrices=False)
        kept = size > tol * size.max(initial=0)
        if not kept.any():
            raise PatchError("All rows are the same: there is nothing to erase from them.")
        axes = axes[kept]
        variance = size[kept] ** 2 / len(rows)
        spread = np.sqrt((1 - shrinkage) * variance + shrinkage * variance.sum() / rows.shape[1])
        shared = axes @ ((rows - mean).T @ (coded - coded.mean(0))) / len(rows)
        basis, strength, _ = np.linalg.svd(shared / spread[:, None], full_matrices=False)
        basis = basis[:, strength > max(tol, 1e-10) * max(1.0, strength.max())]
        left, right = axes.T @ (basis * spread[:, None]), axes.T @ (basis / spread[:, None])
        change = ((rows - mean) @ right) @ left.T
        return cls(mean, left, right, float((change**2).sum(1).mean()))

    @property
    def rank(self) -> int:
        """How many directions are erased: at most the number of classes less one, or of numbers."""
        return self.left.shape[1]

    def erase(self, x: Shaped[np.ndarray, "*item d"]) -> Float[np.ndarray, "*item d"]:
        """The activations without the concept, in float64.

        Args:
            x: activations; any axes before the last.

        Raises:
            PatchError: another width than that of the fit.
        """
        if x.shape[-1] != len(self.mean):
            raise PatchError(f"The activations have width {x.shape[-1]}; this eraser was fitted on {len(self.mean)}.")
        rows = x.astype(np.float64)
        return rows - ((rows - self.mean) @ self.right) @ self.left.T

    def __call__(self, x: Float[Tensor, "*item d"]) -> Float[Tensor, "*item d"]:
        """The same on tensors in their own precision, as a change in a run (:class:`affectlens.patching.cells.Change`).

        Args:
            x: activations; any axes before the last.
        """
        mean, left, right = (torch.from_numpy(part).to(x) for part in (self.mean, self.left, self.right))
        return x - ((x - mean) @ right) @ left.T

    def __repr__(self) -> str:
        return f"Leace(rank {self.rank} of {len(self.mean)}, moves a row by {self.moved**0.5:.3g} on average)"


@dataclass(frozen=True, eq=False)
class Placebo:
    """A change as large as an eraser's, value by value, along the value's own part in a random subspace."""

    eraser: Leace
    basis: Float[np.ndarray, "d rank"]

    def __call__(self, x: Float[Tensor, "*item d"]) -> Float[Tensor, "*item d"]:
        """The changed values.

        Args:
            x: activations; any axes before the last.
        """
        basis, mean = (torch.from_numpy(part).to(x) for part in (self.basis, self.eraser.mean))
        size = torch.linalg.vector_norm(x - self.eraser(x), dim=-1, keepdim=True)
        along = ((x - mean) @ basis) @ basis.T
        return x - along * (size / torch.linalg.vector_norm(along, dim=-1, keepdim=True).clamp(min=1e-12))


def random_basis(d: int, rank: int, rng: np.random.Generator) -> Float[np.ndarray, "d rank"]:
    """An orthonormal basis of a uniformly random subspace."""
    return np.linalg.qr(rng.normal(size=(d, rank)))[0]


def project_out(
    x: Shaped[np.ndarray, "*item d"], mean: Float[np.ndarray, " d"], basis: Float[np.ndarray, "d rank"]
) -> Float[np.ndarray, "*item d"]:
    """``x`` with its part in the subspace replaced by the mean's."""
    rows = x.astype(np.float64)
    return rows - ((rows - mean) @ basis) @ basis.T


def _checked(
    x: Shaped[np.ndarray, "item d"], z: Shaped[np.ndarray, "item *k"], shrinkage: float
) -> tuple[Float[np.ndarray, "item d"], Float[np.ndarray, "item k"]]:
    if len(x) < 2 or not np.isfinite(x).all():
        raise PatchError(f"An eraser is fitted on two rows or more, all finite; these are {x.shape[0]} x {x.shape[1]}.")
    if not 0 <= shrinkage <= 1:
        raise PatchError(f"shrinkage is {shrinkage}; it is a share from 0 (none) to 1.")
    if z.ndim == 1 and z.dtype.kind != "f":
        found, codes = np.unique(z, return_inverse=True)
        coded = np.eye(len(found))[codes]
    else:
        coded = z.reshape(len(z), -1).astype(np.float64)
    if not np.isfinite(coded).all() or not coded.std(0).any():
        raise PatchError("The concept to erase must be finite and take two values at least in these rows.")
    return x.astype(np.float64), coded
