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

import math
import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from affectlens.probing.problem import TINY, Coef, Each, Leading, Logits, PerClass, Problem, Vector, inner, times

NEGLIGIBLE = 1e-3  # of a logit: weights that move logits less count as if they moved them so far, for ``tol``
STEPS = 2  # of Newton along a direction
MOST, AGAIN = 500, 3  # iterations from one start at most, and starts
COARSE_MOST, COARSE_TOL = 200, 1e-5  # single precision: iterations at most, and the least tolerance it is tried for


def solve(problem: Problem, *, tol: float = 1e-3) -> tuple[Float[Tensor, "layer m c k"], Float[Tensor, "layer c k"]]:
    """Coefficients (of rows if ``spanned``, else of columns) and intercepts, each within ``tol`` of its optimum.

    Args:
        problem: what to solve.
        tol: bound on |w - optimum| / |w|, the intercept apart.
    """
    with torch.inference_mode():
        coef, bias = _start(problem)
        if tol >= COARSE_TOL:
            coef, bias, _ = _descend(problem.float(), coef.float(), bias.float(), 0.9 * tol, COARSE_MOST)
        coef, bias, steps = _finish(problem, coef.double(), bias.double(), tol)
        if steps and problem.spanned:
            coef, bias, steps = _turned(problem, tol)
    if steps:
        warnings.warn(f"Logistic fits did not come within {tol:g} of their optimum.", ConvergenceWarning, stacklevel=2)
    return coef.permute(0, 3, 1, 2).clone(), bias.clone()


def _start(problem: Problem) -> tuple[Coef, PerClass]:
    """No weights, and the intercepts that are best without."""
    coef = problem.rows.new_zeros(problem.shape)
    share = problem.y.mean(0).clamp(1e-12, 1 - 1e-12)
    level = share.logit() if share.shape[1] == 1 else share.log() - share.log().mean(1, keepdim=True)
    return coef, level + coef.new_zeros(problem.shape[:3])


def _finish(problem: Problem, coef: Coef, bias: PerClass, tol: float) -> tuple[Coef, PerClass, int]:
    """To within ``tol`` on the evidence of a fresh image, or else how many steps the last descent took.

    No optimum has a larger penalty than the whole loss without weights: what has gone astray starts anew.
    """
    most = 2 * problem.c * len(problem.y) * math.log(max(2, problem.shape[2]))
    steps = 0
    for _ in range(AGAIN):
        at = problem.vector(coef)
        sane = ((at.product(at) <= most) & bias.isfinite().all(2))[:, :, None]
        origin, level = _start(problem)
        coef, bias = torch.where(sane[..., None], coef, origin), torch.where(sane, bias, level)
        coef, bias, steps = _descend(problem, coef, bias, tol, MOST)
        if not steps:
            break
    return coef, bias, steps


def _turned(problem: Problem, tol: float) -> tuple[Coef, PerClass, int]:
    """In the coordinates of K's eigenvectors: for a K so near singular that its null space gathers rounding."""
    sizes, turn = torch.linalg.eigh(problem.rows)
    sure = sizes > torch.finfo(sizes.dtype).eps * sizes.shape[1] * sizes[:, -1:]
    root = torch.where(sure, sizes, 0.0).sqrt()
    free = replace(problem, rows=turn * root[:, None], spanned=False)
    coef, bias, steps = _finish(free, *_start(free), tol)
    return times(coef, (turn * torch.where(sure, 1 / root, 0.0)[:, None]).transpose(1, 2)), bias, steps


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


def _descend(problem: Problem, coef: Coef, bias: PerClass, tol: float, most: int) -> tuple[Coef, PerClass, int]:
    """To within ``tol``, in ``most`` steps at most, and how many it took; columns and layers that are done drop out."""
    coef, bias, at = coef.clone(), bias.clone(), problem.vector(coef)
    path = Path(at, bias.clone(), problem.seen(at), at, at, torch.zeros_like(problem.c))
    layers, columns = (torch.arange(size, device=coef.device) for size in coef.shape[:2])
    reach, leading = problem.squares().amax(1, keepdim=True).sqrt(), None
    steps, least = 0, max(tol * NEGLIGIBLE, 1000 * torch.finfo(coef.dtype).eps)
    while True:
        chance = problem.chances(path.logits + path.bias[..., None])
        slope, off = _gradient(problem, path.at, chance)
        open_ = (slope.length() + off * reach - tol * path.at.length()) * reach > least
        count = int(open_.sum())
        if steps == most or not count:
            break
        steps += 1
        some, still = open_.any(1), open_.any(0)
        if count < open_.numel() and (2 * some.sum() <= len(some) or not still.all()):
            coef[layers[:, None], columns], bias[layers[:, None], columns] = path.at.coef, path.bias
            some |= 2 * some.sum() > len(some)  # to copy the rows pays from half on
            layers, columns, reach, leading = layers[some], columns[still], reach[some], leading and leading.kept(some)
            problem, path, slope = problem.kept(some, still), path.kept(some, still), slope.kept(some, still)
            open_, chance = open_[some][:, still], chance[some][:, still]
        leading = leading or Leading.of(problem)
        soft = leading.softened(slope, problem.c * _spread(chance).mean((2, 3)))
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
    return coef, bias, steps


def _gradient(problem: Problem, at: Vector, chance: Logits) -> tuple[Vector, Each]:
    """In the metric of the penalty; and how much longer it can get as the intercept goes to its optimum.

    On that way every chance moves to the same side where there are two classes, so that their sum tells how far all of
    them move, in units of the longest row; with more classes it tells the order of it.
    """
    missed = (problem.labels - chance) * problem.c[:, :, None, None]
    return at.minus(problem.pulled(missed)), missed.sum(3).abs().sum(2)


def _spread(chance: Logits) -> Logits:
    """p (1 - p)."""
    return torch.addcmul(chance, chance, chance, value=-1)


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
    least = torch.finfo(chance.dtype).eps * n
    if k == 1:
        bent = _spread(chance)
        bends, bent = bent.sum(3, keepdim=True) + least, bent * rise
    else:
        bent = chance * rise
        bent = torch.addcmul(bent, chance, bent.sum(2, keepdim=True), value=-1)
        bends = torch.diag_embed(chance.sum(3) + least) - chance @ chance.transpose(2, 3)
        bends += n / k**2  # the curvature for a shift of all intercepts, which changes no chance
    cross, off = bent.sum(3), missed.sum(3)
    if k == 1:
        by_cross, by_missed = cross / bends[..., 0], off / bends[..., 0]
    else:
        by_cross, by_missed = torch.linalg.solve(bends, torch.stack([cross, off], 3)).unbind(3)
    down = inner(missed, rise) - pull - (cross * by_missed).sum(2)
    bend = inner(bent, rise) + stiff - (cross * by_cross).sum(2)
    length = down / bend.clamp(min=TINY)
    shift = by_missed - by_cross * length[:, :, None]
    far = (length[:, :, None, None] * rise + shift[..., None]).abs().amax((2, 3)) * min(k, 2) + TINY
    damp = far.log1p() / far
    return length * damp, shift * damp[:, :, None]
