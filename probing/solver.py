"""Penalised logistic regressions by the hundred: every layer and every C of one training set in one batched solve.

The objective is scikit-learn's: |w|^2 / 2 + C * (summed log-loss), the intercept free; softmax over the classes from
three on. One product with the rows (two where there are more of them than columns) an iteration serves all problems
that share the rows.

The method is nonlinear conjugate gradients (Polak and Ribiere 1969, restarted where their factor is negative), in the
metric of the penalty and with the intercept at its optimum for the weights:

1. The mean curvature of the loss is divided out along the leading eigenvectors of the rows.
2. Along a direction the logits are linear, so that Newton's steps on its length and on the intercept cost no product.
   They are damped as the loss is self-concordant (Bach 2010), so that each lowers the objective.
3. In this metric the objective is 1-strongly convex in w, so that |gradient| bounds |w - optimum|. A problem is done
   once that bound is below ``tol`` times |w|, which makes ``tol`` a certificate of the relative error.
4. All this in single precision first. The certificate is always computed in double, and what lacks it goes on there.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.probing.problem import TINY, Coef, Each, Leading, Logits, PerClass, Problem, Vector

STEPS, MOST = 2, 2000
COARSE_MOST, COARSE_TOL = 200, 1e-5  # single precision: iterations at most, and the least tolerance it is tried for


def solve(problem: Problem, *, tol: float = 1e-3) -> tuple[Float[Tensor, "layer m c k"], Float[Tensor, "layer c k"]]:
    """Coefficients (of rows if ``spanned``, else of columns) and intercepts, each within ``tol`` of its optimum.

    Args:
        problem: what to solve.
        tol: bound on |w - optimum| / |w|, the intercept apart.
    """
    share = problem.y.double().mean(0).clamp(1e-12, 1 - 1e-12)
    coef = problem.rows.new_zeros(problem.shape)
    bias = (share.logit() if share.shape[1] == 1 else share.log()) + coef.new_zeros(problem.shape[:3])
    with torch.inference_mode():
        if tol >= COARSE_TOL:
            near, level = _descend(problem.float(), coef.float(), bias.float(), 0.9 * tol, COARSE_MOST)
            sound = (near.isfinite().all(3) & level.isfinite()).all(2)[:, :, None]
            bias, coef = torch.where(sound, level.double(), bias), torch.where(sound[..., None], near.double(), coef)
        coef, bias = _descend(problem, coef, bias, tol, MOST)
    return coef.permute(0, 3, 1, 2).clone(), bias.clone()


@dataclass(frozen=True)
class Path:
    """Where a descent is and how it came there."""

    at: Vector
    bias: PerClass
    logits: Logits  # without the intercept
    slope: Vector  # the gradient a step ago, in the metric of the penalty
    along: Vector  # the last direction
    energy: Each  # the last slope's product with itself, softened

    def kept(self, layers: Bool[Tensor, " layer"], columns: Bool[Tensor, " c"]) -> "Path":
        at, slope, along = (v.kept(layers, columns) for v in (self.at, self.slope, self.along))
        bias, logits, energy = (t[layers][:, columns] for t in (self.bias, self.logits, self.energy))
        return Path(at, bias, logits, slope, along, energy)


def _descend(problem: Problem, coef: Coef, bias: PerClass, tol: float, most: int) -> tuple[Coef, PerClass]:
    """From a start to within ``tol``, in ``most`` iterations at most; columns and layers that are done drop out."""
    coef, bias, at = coef.clone(), bias.clone(), problem.vector(coef)
    path = Path(at, bias.clone(), problem.seen(at), at, at, torch.zeros_like(problem.c))
    layers, columns = (torch.arange(size, device=coef.device) for size in coef.shape[:2])
    leading = None
    for _ in range(most):
        chance = problem.chances(path.logits + path.bias[..., None])
        slope, off = _gradient(problem, path.at, chance)
        open_ = slope.length() + off > tol * path.at.length() + 1e-12
        if not open_.any():
            break
        some, still = open_.any(1), open_.any(0)
        if 2 * some.sum() <= len(some) or not still.all():
            coef[layers[:, None], columns], bias[layers[:, None], columns] = path.at.coef, path.bias
            some |= 2 * some.sum() > len(some)  # to copy the rows pays from half on
            layers, columns, leading = layers[some], columns[still], leading and leading.kept(some)
            problem, path, slope = (part.kept(some, still) for part in (problem, path, slope))
            open_, chance = open_[some][:, still], chance[some][:, still]
        leading = leading or Leading.of(problem)
        soft = leading.softened(slope, problem.c * (chance - chance.square()).mean((2, 3)))
        energy = slope.product(soft)
        factor = (energy - path.slope.product(soft)).clamp(min=0) / path.energy
        along = soft.plus(path.along, torch.where(path.energy > 0, factor, 0.0))
        rise = problem.seen(along)
        moved, shift = _search(problem, path, along, rise, chance)
        moved, shift = moved * open_, shift * open_[:, :, None]
        at = path.at.plus(along, moved)
        logits = at.image if problem.spanned else torch.addcmul(path.logits, moved[:, :, None, None], rise)
        path = Path(at, path.bias + shift, logits, slope, along, energy)
    coef[layers[:, None], columns], bias[layers[:, None], columns] = path.at.coef, path.bias
    return coef, bias


def _gradient(problem: Problem, at: Vector, chance: Logits) -> tuple[Vector, Each]:
    """In the metric of the penalty; and how much longer it can get as the intercept goes to its optimum.

    On the way there every chance moves the same way (of two classes), so their sum tells how far all of them move.
    """
    missed = (problem.labels - chance) * problem.c[:, :, None, None]
    slope = at.plus(problem.pulled(missed), -torch.ones_like(problem.c))
    return slope, missed.sum(3).abs().sum(2) * problem.reach[:, None]


def _search(problem: Problem, path: Path, along: Vector, rise: Logits, chance: Logits) -> tuple[Each, PerClass]:
    """How far to go along a direction, and the change of the intercepts."""
    pull, stiff = path.at.product(along) / problem.c, along.product(along) / problem.c
    moved, shift = torch.zeros_like(pull), torch.zeros_like(path.bias)
    for step in range(STEPS):
        if step:
            logits = torch.addcmul(path.logits, moved[:, :, None, None], rise)
            chance = problem.chances(logits + (path.bias + shift)[..., None])
        further, by = _newton(problem.labels - chance, chance, rise, pull + moved * stiff, stiff)
        moved, shift = moved + further, shift + by
    return moved, shift


def _newton(missed: Logits, chance: Logits, rise: Logits, pull: Each, stiff: Each) -> tuple[Each, PerClass]:
    """A damped Newton step along a direction and in the intercepts.

    Args:
        missed: labels less chances.
        chance: of each class.
        rise: the logits' slope along the direction.
        pull: the penalty's derivative along it, over C.
        stiff: the penalty's second derivative, over C.
    """
    k, n = chance.shape[2:]
    if k == 1:
        bent = chance - chance.square()
        bends, bent = bent.sum(3, keepdim=True), bent * rise
    else:
        bent = chance * rise
        bent = torch.addcmul(bent, chance, bent.sum(2, keepdim=True), value=-1)
        bends = torch.diag_embed(chance.sum(3)) - chance @ chance.transpose(2, 3) + n / k**2  # all alike: no change
    bends = bends + torch.finfo(bends.dtype).eps * n * torch.eye(k).to(bends)
    cross = bent.sum(3)
    right = torch.stack([cross, missed.sum(3)], 3)
    by_cross, by_missed = (right / bends if k == 1 else torch.linalg.solve(bends, right)).unbind(3)
    down = (missed * rise).sum((2, 3)) - pull - (cross * by_missed).sum(2)
    bend = (bent * rise).sum((2, 3)) + stiff - (cross * by_cross).sum(2)
    length = down / bend.clamp(min=TINY)
    shift = by_missed - by_cross * length[:, :, None]
    far = (length[:, :, None, None] * rise + shift[..., None]).abs().amax((2, 3)) * min(k, 2) + TINY
    damp = far.log1p() / far
    return length * damp, shift * damp[:, :, None]
