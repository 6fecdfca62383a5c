"""Fits of every layer at once, on one set of training rows: logistic, mean difference, shrinkage LDA, ridge.

Each takes ``x [item, layer, d]`` and labels (class indices, or floats for an ordered target) and gives weights in the
raw space of the activations. The logistic and the ridge standardise by the training rows and fold the scaler back into
the weights; with fewer rows than dimensions all work in the span of the rows, where their optima lie.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from affectlens.probing.linear import ABSENT, Linear
from affectlens.probing.problem import Problem
from affectlens.probing.solver import solve

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1)  # for standardised activations
C_GRID_SPARSE = (1e-1, 1e0, 1e1, 1e2)  # for TF-IDF rows of norm one
C_GRID_SMALL = (1e-3, 1e-2, 1e-1, 1e0)  # for a few standardised features
RIDGE_GRID = (0.1, 1.0, 10.0, 100.0)  # penalties, in mean eigenvalues of the standardised rows
_LARGEST = 3e7  # numbers in the kernels of one batch of layers

Values = Float[np.ndarray, "item layer d"]
Labels = Shaped[np.ndarray, " item"]


@dataclass(frozen=True)
class Standard:
    """Rows less their mean, over their spread if ``scale``."""

    z: Float[Tensor, "layer item d"]
    mean: Float[Tensor, "layer 1 d"]
    spread: Float[Tensor, "layer 1 d"]

    @classmethod
    def of(cls, x: Values, scale: bool) -> "Standard":
        rows = torch.as_tensor(np.moveaxis(x, 1, 0)).to(torch.float64, copy=True).contiguous()
        mean = rows.mean(1, keepdim=True)
        rows -= mean
        if not scale:
            return cls(rows, mean, torch.ones_like(mean))
        spread = torch.linalg.vector_norm(rows, dim=1, keepdim=True) / rows.shape[1] ** 0.5 + 1e-8
        rows /= spread
        return cls(rows, mean, spread)

    @property
    def spanned(self) -> bool:
        """Whether there are no more rows than columns."""
        return self.z.shape[1] <= self.z.shape[2]

    def typical(self) -> Float[Tensor, " layer"]:
        """The sum of the eigenvalues over the number of rows: the unit of a ridge's penalty."""
        return self.z.square().sum((1, 2)) / self.z.shape[1] + 1e-12

    def rows(self) -> Float[Tensor, "layer n m"]:
        """The kernel of the rows if they span less than the space, else the rows."""
        return torch.bmm(self.z, self.z.transpose(1, 2)) if self.spanned else self.z

    def raw(
        self, coef: Float[Tensor, "layer n c k"], bias: Float[Tensor, "layer c k"]
    ) -> tuple[Float[np.ndarray, "layer c k d"], Float[np.ndarray, "layer c k"]]:
        """Weights and biases that read unscaled activations."""
        layers, _, c, k = coef.shape
        if self.spanned:
            coef = torch.bmm(self.z.transpose(1, 2), coef.flatten(2)).view(layers, -1, c, k)
        weights = coef.permute(0, 2, 3, 1) / self.spread[:, :, None]
        moved = bias - (weights * self.mean[:, :, None]).sum(-1)
        return weights.cpu().numpy(), moved.cpu().numpy()


def logistic(
    x: Values, y: Labels, n_classes: int, c: Float[np.ndarray, "layer c"], *, scale: bool = True, tol: float = 1e-3
) -> list[Linear]:
    """One logistic probe of every layer for each column of ``c`` (scikit-learn's C, of the summed loss).

    Classes that have no training row get a bias of -30.
    """
    present = np.unique(y)
    codes = torch.as_tensor(np.searchsorted(present, y))
    two = len(present) <= 2
    hot = codes[:, None].double() if two else torch.nn.functional.one_hot(codes).double()
    parts = []
    step = max(1, int(_LARGEST // len(y) ** 2))
    for start in range(0, x.shape[1], step):
        chunk = slice(start, start + step)
        rows = Standard.of(x[:, chunk], scale)
        penalty = torch.as_tensor(np.ascontiguousarray(c[chunk]), dtype=torch.float64)
        parts.append(rows.raw(*solve(Problem(rows.rows(), rows.spanned, hot[:, None], penalty), tol=tol)))
    weights, bias = (np.concatenate(part) for part in zip(*parts, strict=True))
    if n_classes > 2:
        weights, bias = _every_class(weights, bias, present, n_classes)
    return [Linear(weights[:, i], bias[:, i]) for i in range(c.shape[1])]


def _every_class(
    weights: np.ndarray, bias: np.ndarray, present: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Room for the classes that have no training row; one logit of two classes becomes two, half each."""
    if len(present) == 2:
        weights, bias = (np.concatenate([-part / 2, part / 2], axis=2) for part in (weights, bias))
    wide = np.zeros((*weights.shape[:2], n_classes, weights.shape[3]))
    floor = np.full((*bias.shape[:2], n_classes), ABSENT)
    wide[:, :, present], floor[:, :, present] = weights, bias
    return wide, floor


def mean_difference(x: Values, y: Labels, n_classes: int) -> Linear:
    """Difference of class means, unit length, threshold half-way between; no scaling, no covariance.

    For more than two classes, each class's mean less the mean of the class means. For an ordered target, the covariance
    of the activations with it (the slope of the means), scaled to least squares.
    """
    x = x.astype(np.float64)
    if y.dtype.kind == "f":
        centre, away = x.mean(0), y - y.mean()
        unit = _unit(np.einsum("i,ild->ld", away, x - centre))
        along = np.einsum("ild,ld->il", x - centre, unit)
        slope = (along * away[:, None]).sum(0) / ((along**2).sum(0) + 1e-12)
        weights = (unit * slope[:, None])[:, None]
        return Linear(weights, y.mean() - np.einsum("lkd,ld->lk", weights, centre))
    if n_classes == 2:
        low, high = x[y == 0].mean(0), x[y == 1].mean(0)
        weights = _unit(high - low)[:, None]
        return Linear(weights, -np.einsum("lkd,ld->lk", weights, (low + high) / 2))
    present = np.unique(y)
    means = np.stack([x[y == k].mean(0) for k in present], axis=1)
    centre = means.mean(1, keepdims=True)
    units = _unit(means - centre)
    weights = np.zeros((x.shape[1], n_classes, x.shape[2]))
    bias = np.full((x.shape[1], n_classes), -1e9)
    weights[:, present], bias[:, present] = units, -np.einsum("lkd,ld->lk", units, centre[:, 0])
    return Linear(weights, bias)


def _unit(direction: Float[np.ndarray, "*any d"]) -> Float[np.ndarray, "*any d"]:
    return direction / (np.linalg.norm(direction, axis=-1, keepdims=True) + 1e-12)


def ridge(
    x: Values, y: Labels, n_classes: int, penalties: tuple[float, ...] = (1.0,), *, scale: bool = True
) -> list[Linear]:
    """Least squares with a penalty, in mean eigenvalues of the rows; for classes, of their indicators."""
    rows = Standard.of(x, scale)
    aim = torch.as_tensor(coded(y, n_classes))
    centre = aim.mean(0)
    grams = rows.rows() if rows.spanned else torch.bmm(rows.z.transpose(1, 2), rows.z)
    right = (aim - centre).expand(len(grams), -1, -1)
    if not rows.spanned:
        right = torch.bmm(rows.z.transpose(1, 2), right)
    typical = rows.typical()
    out = []
    for penalty in penalties:
        root = torch.linalg.cholesky(grams + (penalty * typical)[:, None, None] * torch.eye(grams.shape[1]).to(grams))
        coef = torch.cholesky_solve(right, root)
        weights, bias = rows.raw(coef[:, :, None], centre.expand(len(grams), 1, -1))
        out.append(Linear(weights[:, 0], bias[:, 0]))
    return out


def coded(y: Labels, n_classes: int) -> Float[np.ndarray, "item k"]:
    """Labels as numbers: -1 and 1, indicators, or the order itself."""
    if not n_classes:
        return y[:, None].astype(np.float64)
    return (2.0 * y - 1)[:, None] if n_classes == 2 else np.eye(n_classes)[y]


def lda(x: Values, y: Labels, n_classes: int) -> Linear:
    """Linear discriminant analysis with the shrinkage of Ledoit and Wolf (2004), equal priors.

    The within-class covariance is shrunk to a multiple of the identity after standardising each feature, as
    scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")`` does, but pooled over classes.
    """
    rows = Standard.of(x, True)
    present = np.unique(y)
    hot = torch.as_tensor(np.eye(n_classes)[y][:, present])
    means = torch.einsum("lid,ik->lkd", rows.z, hot / hot.sum(0))
    rest = rows.z - torch.einsum("ik,lkd->lid", hot, means)
    n, d = rest.shape[1:]
    gram = torch.bmm(rest, rest.transpose(1, 2)) if n <= d else torch.bmm(rest.transpose(1, 2), rest)
    trace = rest.square().sum((1, 2)) / n
    square = gram.square().sum((1, 2)) / n**2  # of the covariance's entries
    spread = (rest.square().sum(2) ** 2).sum(1) / n
    above = (square - trace**2 / d).clamp(min=1e-12)
    share = (((spread - square) / n).clamp(min=0) / above).clamp(max=1.0)
    own = share * trace / d + 1e-9
    toward = means - means.mean(1, keepdim=True)
    aims = (means[:, 1:] - means[:, :1]) if n_classes == 2 else toward
    if n <= d:  # (own I + s R'R)^-1 v = (v - s R' (own I + s R R')^-1 R v) / own
        s = (1 - share)[:, None, None] / n
        inner = own[:, None, None] * torch.eye(n).to(gram) + s * gram
        within = torch.cholesky_solve(torch.bmm(rest, aims.transpose(1, 2)), torch.linalg.cholesky(inner))
        found = (aims - (s * torch.bmm(rest.transpose(1, 2), within)).transpose(1, 2)) / own[:, None, None]
    else:
        cov = own[:, None, None] * torch.eye(d).to(gram) + (1 - share)[:, None, None] * gram / n
        found = torch.cholesky_solve(aims.transpose(1, 2), torch.linalg.cholesky(cov)).transpose(1, 2)
    middle = means.mean(1, keepdim=True) if n_classes == 2 else (means + means.mean(1, keepdim=True)) / 2
    bias = -(found * middle).sum(-1)
    weights, bias_ = rows_raw(rows, found, bias)
    if n_classes > 2:
        wide, floor = _every_class(weights[:, None], bias_[:, None], present, n_classes)
        weights, bias_ = wide[:, 0], floor[:, 0]
    return Linear(weights, bias_)


def rows_raw(
    rows: Standard, weights: Float[Tensor, "layer k d"], bias: Float[Tensor, "layer k"]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights on standardised activations, as weights on raw ones."""
    raw = weights / rows.spread
    return raw.cpu().numpy(), (bias - (raw * rows.mean).sum(-1)).cpu().numpy()
