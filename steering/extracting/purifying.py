"""What is taken out of a direction, in the order given, and the orthonormal basis of all of it.

================ ===============================================================================================
``neutral``      principal components of the neutral items up to half of their variance; ``neutral(5)``: the first 5
``others``       the span of the other classes' mean differences from their neutral partners, or without partners of
                 their means less the mean of those. The class's own direction may be a combination of the others'
                 own directions (centred ones sum to zero), of these it is not
``keyword``      the mean difference of keyword-rich items from their keyword-free twins
``text``         the principal components, up to half of the variance, of what a ridge regression on TF-IDF predicts of
                 the activations of groups that it has not seen; ``text(5)``: the first 5
``valence``      the mean of the pleasant classes' means less that of the unpleasant ones'
an array         ``[d]`` or ``[k, d]``: its span
================ ===============================================================================================

All in float64. A vector that has less than 1% of its length left is no direction any more: an error.
"""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.steering.extracting.contrasts import Contrast
from affectlens.steering.extracting.methods import differences, share
from affectlens.steering.extracting.wording import predicted

STEPS = ("neutral", "others", "keyword", "text", "valence")
HALF = 0.5  # of the variance, that principal components stand for
LEAST = 0.01  # of the length, that must be left
_SMALL = 1e-6  # of a basis vector's length: what rounding in float32 leaves of one inside the span before it

Basis = Float[np.ndarray, "k d"]


@dataclass(frozen=True)
class Step:
    """One thing to take out: a name with the number of components, or an array."""

    name: str
    k: int | None = None
    array: Basis | None = None

    @classmethod
    def of(cls, given: "str | np.ndarray | Step") -> "Step":
        """The step that is meant.

        Raises:
            SteerError: another name, a count where none belongs, or no finite array of one or two axes.
        """
        if isinstance(given, Step):
            return given
        if not isinstance(given, str):
            array = np.atleast_2d(np.asarray(given, dtype=np.float64))
            if array.ndim != 2 or not np.isfinite(array).all():
                raise SteerError(f"purify takes finite arrays [d] or [k, d], not one of shape {list(array.shape)}.")
            return cls("given", None, array)
        match = re.fullmatch(r"(\w+)(?:\((\d+)\))?", given.strip())
        if (
            not match
            or match[1] not in STEPS
            or (match[2] and (match[1] not in ("neutral", "text") or not int(match[2])))
        ):
            raise SteerError(f"purify has no {given!r}; choose from {', '.join(STEPS)}, neutral(5), text(5), an array.")
        return cls(match[1], int(match[2]) if match[2] else None)

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}({self.k})"


@dataclass(frozen=True)
class Purified:
    """Vectors with nothing of their bases in them; all lists are by name, then layer."""

    vectors: Float[np.ndarray, "name layer d"]  # of the length that was left
    fixed: list[list[np.ndarray]]  # orthonormal, [k, d] with a k of its own
    left: Float[np.ndarray, "name layer"]  # the share of the length
    taken: list[str]  # what was taken out, with how many components, in order


def purified(
    vectors: Float[np.ndarray, "name layer d"],
    steps: tuple[Step, ...],
    x: Float[np.ndarray, "item layer d"],
    asked: Contrast,
    *,
    seed: int = 0,
) -> Purified:
    """Take the steps' spans out of every vector, one after the other.

    Args:
        vectors: by class and layer.
        steps: in order.
        x: the contrast's activations.
        asked: the contrast.
        seed: of the folds in which words predict activations.

    Raises:
        SteerError: a step that the battery has no items for, an array of another size, or nothing left of a vector.
    """
    n_layers = vectors.shape[1]
    fixed = [[np.zeros((0, vectors.shape[2])) for _ in range(n_layers)] for _ in vectors]
    out, taken = vectors.astype(np.float64), []
    for step in steps:
        shared = None if step.name == "others" else _spans(step, x, asked, seed)
        counts = set()
        for i, k in enumerate(asked.asked):
            spans = shared if shared is not None else _others(x, asked, k)
            for layer, span in enumerate(spans):
                before = len(fixed[i][layer])
                fixed[i][layer] = joined(fixed[i][layer], span)
                counts.add(len(fixed[i][layer]) - before)
                out[i, layer] = without(vectors[i, layer], fixed[i][layer])
        low, high = min(counts), max(counts)
        taken.append(f"{step.name}({low})" if low == high else f"{step.name}({low} to {high})")
    left = np.linalg.norm(out, axis=2) / np.linalg.norm(vectors, axis=2).clip(min=1e-300)
    for i, name in enumerate(asked.names):
        if steps and left[i].min() < LEAST:
            raise SteerError(
                f"Of the direction of {name}, {left[i].min():.1%} of its length is left after purifying by "
                f"{', '.join(taken)}: less than {LEAST:.0%} is nothing. Purify by less, or fewer components."
            )
    return Purified(out, fixed, left, taken)


def joined(basis: Float[np.ndarray, "k d"], span: Float[np.ndarray, "more d"]) -> Float[np.ndarray, "both d"]:
    """An orthonormal basis of both; ``basis`` is orthonormal and stays as it is."""
    rows = list(basis)
    for vector in span:
        length = float(np.linalg.norm(vector))
        rest = without(vector, np.array(rows).reshape(-1, len(vector)))
        size = float(np.linalg.norm(rest))
        if size > _SMALL * length:
            rows.append(rest / size)
    return np.array(rows).reshape(-1, basis.shape[1])


def without(vector: Float[np.ndarray, " d"], basis: Basis) -> Float[np.ndarray, " d"]:
    """The vector less its part in an orthonormal basis; twice, so that rounding leaves none either."""
    rest = vector - (vector @ basis.T) @ basis
    return rest - (rest @ basis.T) @ basis


def _spans(step: Step, x: np.ndarray, asked: Contrast, seed: int) -> list[Basis]:
    """What a step takes out of every class, by layer."""
    if step.array is not None:
        if step.array.shape[1] != x.shape[2]:
            raise SteerError(f"The array to purify by has {step.array.shape[1]} columns, and the site {x.shape[2]}.")
        return [step.array] * x.shape[1]
    if step.name == "neutral":
        rows = asked.baseline >= 0
        if asked.binary or not rows.any():
            raise SteerError("purify neutral needs neutral items beside the classes, and this battery has none.")
        return _components(x[rows], step.k)
    if step.name == "text":
        fitted = (asked.code >= 0) | (asked.baseline >= 0)
        return _components(predicted(x[fitted], asked.part(fitted), seed=seed), step.k)
    weights = _keyword(asked) if step.name == "keyword" else _valence(asked)
    return list(np.einsum("i,ild->ld", weights, x)[:, None])


def _keyword(asked: Contrast) -> Float[np.ndarray, " item"]:
    pairs = differences(asked.group, asked.keyword, asked.code >= 0)
    if not len(pairs):
        raise SteerError("purify keyword needs keyword-rich twins (role keyword) of the items, and there are none.")
    return pairs.mean(0)


def _valence(asked: Contrast) -> Float[np.ndarray, " item"]:
    sides = []
    for sign in (1, -1):
        means = [
            share(mine)
            for k in range(len(asked.classes))
            if (mine := (asked.code == k) & (asked.valence == sign)).any()
        ]
        if not means:
            raise SteerError("purify valence needs classes of both valences (column valence), and one side is empty.")
        sides.append(np.mean(means, axis=0))
    return sides[0] - sides[1]


def _others(x: np.ndarray, asked: Contrast, k: int) -> list[Basis]:
    """By layer, the other classes' differences."""
    rest = [j for j in range(len(asked.classes)) if j != k and (asked.code == j).any()]
    if not rest:
        raise SteerError("purify others needs other classes, and there is one.")
    if all((asked.baseline == j).any() for j in rest):
        pairs = [differences(asked.group, asked.code == j, asked.baseline == j) for j in rest]
        weights = np.stack([p.mean(0) if len(p) else share(asked.code == j) - share(asked.baseline == j)
                            for j, p in zip(rest, pairs, strict=True)])  # fmt: skip
    else:
        weights = np.stack([share(asked.code == j) for j in rest])
        weights -= weights.mean(0)
    return list(np.einsum("ji,ild->ljd", weights, x, optimize=True))


def _components(x: Float[np.ndarray, "item layer d"], k: int | None) -> list[Basis]:
    """The first principal components of each layer: ``k``, or up to half of the variance."""
    out = []
    for layer in range(x.shape[1]):
        rows = x[:, layer] - x[:, layer].mean(0)
        _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
        sure = int((sizes > 1e-9 * max(sizes[0], 1e-300)).sum())
        reached = np.cumsum(sizes**2) / max(float((sizes**2).sum()), 1e-300)
        out.append(axes[: min(sure, k if k is not None else int(np.searchsorted(reached, HALF)) + 1)])
    return out
