"""A set of penalised logistic regressions on shared rows, and what is cheap to know about the rows.

With no more rows than columns the weights are kept in the span of the rows, w = Z'a, where all that is ever needed is
the kernel K = ZZ'; else as they are.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

RANK = 48
TINY = 1e-30

Coef = Float[Tensor, "layer c k m"]  # of rows, or of columns
Logits = Float[Tensor, "layer c k n"]
PerClass = Float[Tensor, "layer c k"]
Each = Float[Tensor, "layer c"]  # one number a problem


@dataclass(frozen=True)
class Vector:
    """Weights: coefficients (of rows, or of columns), and their image under K."""

    coef: Coef
    image: Coef  # K @ coef in the span of the rows; the same tensor as ``coef`` otherwise

    def product(self, other: "Vector") -> Each:
        return inner(self.coef, other.image)

    def length(self) -> Each:
        return self.product(self).abs().sqrt()  # rounding can make the product of a vanishing vector negative

    def plus(self, other: "Vector", times: Each) -> "Vector":
        wide = times[:, :, None, None]
        coef = torch.addcmul(self.coef, wide, other.coef)
        return Vector(coef, coef if self.image is self.coef else torch.addcmul(self.image, wide, other.image))

    def minus(self, other: "Vector") -> "Vector":
        coef = self.coef - other.coef
        return Vector(coef, coef if self.image is self.coef else self.image - other.image)

    def kept(self, layers: Bool[Tensor, " layer"], columns: Bool[Tensor, " c"]) -> "Vector":
        coef = self.coef[layers][:, columns]
        return Vector(coef, coef if self.image is self.coef else self.image[layers][:, columns])


@dataclass(frozen=True)
class Problem:
    """Rows, labels and penalties. ``rows`` is K ``[layer n n]`` if ``spanned``, else Z ``[layer n d]``."""

    rows: Float[Tensor, "layer n m"]
    spanned: bool
    y: Float[Tensor, "n #c k"]  # 0 or 1; one column for two classes, else one-hot
    c: Each

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the coefficients: layer, c, k, m."""
        return self.c.shape[0], self.c.shape[1], self.y.shape[2], self.rows.shape[2]

    @cached_property
    def labels(self) -> Float[Tensor, "#c k n"]:
        return self.y.permute(1, 2, 0).contiguous()

    def float(self) -> "Problem":
        return Problem(self.rows.float(), self.spanned, self.y.float(), self.c.float())

    def kept(self, layers: Bool[Tensor, " layer"], columns: Bool[Tensor, " c"]) -> "Problem":
        y = self.y if self.y.shape[1] == 1 else self.y[:, columns]
        return replace(self, rows=self.rows if layers.all() else self.rows[layers], y=y, c=self.c[layers][:, columns])

    def chances(self, logits: Logits) -> Logits:
        return logits.sigmoid() if logits.shape[2] == 1 else logits.softmax(2)

    def vector(self, coef: Coef) -> Vector:
        return Vector(coef, times(coef, self.rows) if self.spanned else coef)

    def seen(self, weights: Vector) -> Logits:
        """The logits that weights give."""
        return weights.image if self.spanned else times(weights.coef, self.rows.transpose(1, 2))

    def pulled(self, per_item: Logits) -> Vector:
        """Z' times a number an item: weights."""
        image = times(per_item, self.rows)
        return Vector(per_item, image) if self.spanned else Vector(image, image)

    def squares(self) -> Float[Tensor, "layer n"]:
        """Squared lengths of the rows."""
        return self.rows.diagonal(dim1=1, dim2=2) if self.spanned else self.rows.square().sum(2)


@dataclass(frozen=True)
class Leading:
    """Orthonormal weights near the leading eigenvectors of Z'Z, and the mean eigenvalue of what they leave."""

    coefs: Float[Tensor, "layer m r"]
    images: Float[Tensor, "layer m r"]
    sizes: Float[Tensor, "layer r"]  # eigenvalues
    rest: Float[Tensor, " layer"]

    @classmethod
    def of(cls, problem: Problem) -> "Leading":
        """By subspace iteration from a fixed random start (Halko, Martinsson and Tropp 2011)."""
        rows, m = problem.rows, problem.rows.shape[2]
        rank = min(RANK, *rows.shape[1:])
        start = torch.randn(m, rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        basis = start.to(rows).expand(len(rows), -1, -1)
        for _ in range(2):
            turned = torch.bmm(rows, basis)
            basis = torch.linalg.qr(turned if problem.spanned else torch.bmm(rows.transpose(1, 2), turned)).Q
        turned = torch.bmm(rows, basis)
        sizes, turn = torch.linalg.eigh(torch.bmm((basis if problem.spanned else turned).transpose(1, 2), turned))
        sure = sizes > torch.finfo(rows.dtype).eps ** 0.5 * sizes[:, -1:]  # what rounding leaves orthonormal
        if problem.spanned:
            turn = turn * torch.where(sure, sizes.clamp(min=TINY).rsqrt(), 0.0)[:, None]
        sizes, coefs = torch.where(sure, sizes, 0.0), torch.bmm(basis, turn)
        rest = (problem.squares().sum(1) - sizes.sum(1)).clamp(min=0) / (m - sure.sum(1)).clamp(min=1)
        images = torch.bmm(turned, turn) if problem.spanned else coefs
        return cls(coefs, images, sizes, rest)

    def softened(self, what: Vector, bend: Each) -> Vector:
        """(1 + bend * Z'Z)^-1 of weights, Z'Z taken as the mean of the rest outside the leading eigenvectors."""
        rest = 1 + bend * self.rest[:, None]
        share = 1 / (1 + bend[:, :, None] * self.sizes[:, None]) - 1 / rest[:, :, None]
        within = times(what.image, self.coefs) * share[:, :, None]
        coef = times(within, self.coefs.transpose(1, 2)) + what.coef / rest[:, :, None, None]
        if what.image is what.coef:
            return Vector(coef, coef)
        return Vector(coef, times(within, self.images.transpose(1, 2)) + what.image / rest[:, :, None, None])

    def kept(self, layers: Bool[Tensor, " layer"]) -> "Leading":
        if layers.all():
            return self
        return Leading(self.coefs[layers], self.images[layers], self.sizes[layers], self.rest[layers])


def times(what: Float[Tensor, "layer c k a"], rows: Float[Tensor, "layer a b"]) -> Float[Tensor, "layer c k b"]:
    """A product with the rows of each layer."""
    return torch.bmm(what.flatten(1, 2), rows).view(*what.shape[:3], -1)


def inner(one: Float[Tensor, "layer c k a"], two: Float[Tensor, "layer c k a"]) -> Each:
    """Summed products, by matrix products: one pass over both."""
    layers, c, k, a = one.shape
    return torch.bmm(one.reshape(layers * c, 1, k * a), two.reshape(layers * c, k * a, 1)).view(layers, c)
