"""The circumplex: do the first two components of the emotions lie in people's valence and arousal?

1. Principal components of the centred directions; no use is made of the norms.
2. Orthogonal Procrustes (rotation or reflection, one scale) of the first two onto valence and arousal. Each of these is
   standardised, so that a line along valence can't explain more than half. The fit is 1 minus the normalised residual
   (``scipy.spatial.procrustes``'s disparity); p re-orders the names in the norms.
3. Arousal by itself: the second aligned coordinate against arousal, with valence and its square taken out of both. The
   square, because a bent valence line (a horseshoe) looks like arousal, which is high at both ends of valence. Its
   null re-orders what valence does not explain of arousal and aligns anew (Freedman and Lane 1983).

A circumplex is claimed only if 2 and 3 both hold and there are 24 names or more: beside a valence axis,
eight points leave too few to see a second one (Russell 1980, JPSP 39, drew his circle from 28 words).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.probing.geometry.curves import curve
from affectlens.probing.geometry.directions import Directions
from affectlens.probing.geometry.grams import centred, principal
from affectlens.probing.geometry.models import LEAST, Norms, coordinates
from affectlens.probing.geometry.nulls import DRAWS, compare, orders

LEAST_TERMS = 24
STATISTICS = ("fit", "valence", "arousal", "arousal given valence", "variance in the plane")


@dataclass(frozen=True)
class Circumplex:
    """The fit at each layer, and where the names lie after alignment."""

    table: pd.DataFrame  # statistic, layer, value, low, high, n, unit, p, p_adjusted
    coordinates: pd.DataFrame  # name, layer, x, y (aligned, standardised), valence, arousal (standardised norms)
    n_terms: int

    @property
    def refusal(self) -> str | None:
        """Why no circle can be claimed from so few names, or None."""
        if self.n_terms >= LEAST_TERMS:
            return None
        many = {8: "Eight", 7: "Seven", 6: "Six", 5: "Five"}.get(self.n_terms, str(self.n_terms))
        return f"{many} points cannot tell a circle from one valence axis: a claim needs {LEAST_TERMS} terms."

    def claim(self, layer: int, *, level: float = 0.05) -> str:
        """``circumplex``, ``valence axis``, ``neither`` or ``refused`` at one layer, by p corrected over layers.

        Args:
            layer: a layer of the model.
            level: what p must not exceed.
        """
        if self.refusal:
            return "refused"
        at = self.table[self.table["layer"] == layer].set_index("statistic")["p_adjusted"]
        if at["fit"] <= level and at["arousal given valence"] <= level:
            return "circumplex"
        return "valence axis" if at["valence"] <= level else "neither"


def circumplex(directions: Directions, *, norms: Norms | None = None, seed: int = 0, draws: int = DRAWS) -> Circumplex:
    """Fit the first two components to people's valence and arousal, at every layer.

    Args:
        directions: of emotions or words; names without norms are left out.
        norms: valence and arousal of the names; the Glasgow Norms by default.
        seed: of the random orders, where there are more than eight names.
        draws: how many.

    Raises:
        BatteryError: fewer than five names have norms.
    """
    human = coordinates(directions.names, norms)[:, :2]
    rated = np.flatnonzero(np.isfinite(human).all(1))
    if len(rated) < LEAST:
        raise BatteryError(
            f"{len(rated)} of the names have norms; a circumplex needs {LEAST}: give norms= of your own."
        )

    def shape(gram: Float[np.ndarray, "many n n"], kept: Int[np.ndarray, " n"]) -> Float[np.ndarray, "many k"]:
        rows = np.flatnonzero(np.isin(kept, rated))
        points, share = principal(centred(gram[:, rows[:, None], rows[None]]))
        return np.stack([*_fit(points, _standard(human[kept[rows]])), share], axis=-1)

    found = curve(directions, shape)
    target = _standard(human[rated])
    points, _ = principal(centred(directions.gram[:, rated[:, None], rated[None]]))
    moved, exact = orders(len(rated), seed=seed, draws=draws)
    drawn = _re_ordered(points, target[moved])
    nulls = [compare(found.value[:, k], drawn[k], exact=exact) for k in range(3)]
    nulls.append(compare(found.value[:, 3], _arousal_re_ordered(points, target, moved), exact=exact))
    table = found.rows(
        directions, STATISTICS, [*nulls, None], "statistic", (0.0, -1.0, -1.0, -1.0, 0.0), terms=len(rated)
    )
    return Circumplex(table, _placed(directions, points, target, rated), len(rated))


def _fit(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """By layer: 1 - residual; the correlation of each aligned axis; and that of arousal given valence."""
    turn, size = _turn(np.einsum("lni,nj->lij", points, target))
    power = (points**2).sum((-1, -2)) * (target**2).sum()
    fit = np.divide(size**2, power, out=np.zeros_like(size), where=power > 0)
    aligned = points @ turn
    basis = _bent(target[:, 0])
    bare = target[:, 1] - basis @ (basis.T @ target[:, 1])
    second = aligned[..., 1] - (aligned[..., 1] @ basis) @ basis.T
    return fit, _along(aligned[..., 0], target[:, 0]), _along(aligned[..., 1], target[:, 1]), _along(second, bare)


def _re_ordered(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """``[statistic, draw, layer]``: fit and both correlations for many targets, from inner products alone."""
    cross = np.einsum("lni,dnj->dlij", points, targets, optimize=True)
    turn, size = _turn(cross)
    inner = np.einsum("lni,lnj->lij", points, points)
    power = (targets[0] ** 2).sum()
    scale = np.trace(inner, axis1=-2, axis2=-1) * power
    fit = np.divide(size**2, scale, out=np.zeros_like(size), where=scale > 0)
    length = np.sqrt(np.maximum(np.einsum("dlik,lij,dljk->dlk", turn, inner, turn, optimize=True), 0) * power / 2)
    shown = np.einsum("dlik,dlik->dlk", turn, cross)
    r = np.divide(shown, length, out=np.zeros_like(shown), where=length > 1e-12)
    return np.stack([fit, r[..., 0], r[..., 1]])


def _arousal_re_ordered(points: np.ndarray, target: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """``[draw, layer]``: arousal given valence, once its part beyond valence is re-ordered and all is aligned."""
    basis = _bent(target[:, 0])
    left = target[:, 1] - basis @ (basis.T @ target[:, 1])
    arousal = (target[:, 1] - left)[None] + left[moved]
    arousal = (arousal - arousal.mean(1, keepdims=True)) / arousal.std(1, keepdims=True)
    targets = np.stack([np.broadcast_to(target[:, 0], arousal.shape), arousal], axis=-1)
    turn, _ = _turn(np.einsum("lni,dnj->dlij", points, targets, optimize=True))
    bare = arousal - (arousal @ basis) @ basis.T
    rest = points - np.einsum("nk,mk,lmi->lni", basis, basis, points, optimize=True)
    inner = np.einsum("lni,lnj->lij", rest, rest)
    shown = np.einsum("dli,lni,dn->dl", turn[..., 1], rest, bare, optimize=True)
    length = np.sqrt(np.maximum(np.einsum("dli,lij,dlj->dl", turn[..., 1], inner, turn[..., 1], optimize=True), 0))
    length = length * np.linalg.norm(bare, axis=1)[:, None]
    return np.divide(shown, length, out=np.zeros_like(shown), where=length > 1e-12)


def _turn(cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The orthogonal 2 by 2 matrices nearest to these, and the sum of their singular values, in closed form."""
    a, b, c, d = cross[..., 0, 0], cross[..., 0, 1], cross[..., 1, 0], cross[..., 1, 1]
    side = np.where(a * d - b * c >= 0, 1.0, -1.0)
    near = np.stack([np.stack([a + side * d, b - side * c], -1), np.stack([c - side * b, d + side * a], -1)], -2)
    size = np.hypot(near[..., 0, 0], near[..., 0, 1])
    return near / np.maximum(size, 1e-300)[..., None, None], size


def _bent(valence: np.ndarray) -> np.ndarray:
    """An orthonormal basis of a constant, valence and its square."""
    return np.linalg.qr(np.stack([np.ones_like(valence), valence, valence**2], axis=1))[0]


def _along(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation of each row of x with y, both of mean 0."""
    size = np.linalg.norm(x, axis=-1) * np.linalg.norm(y)
    return np.divide(x @ y, size, out=np.zeros_like(size), where=size > 1e-12)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / values.std(0)


def _placed(directions: Directions, points: np.ndarray, target: np.ndarray, rated: np.ndarray) -> pd.DataFrame:
    turn, _ = _turn(np.einsum("lni,nj->lij", points, target))
    aligned = points @ turn
    size = np.sqrt((aligned**2).mean((-1, -2), keepdims=True))
    aligned = np.divide(aligned, size, out=np.zeros_like(aligned), where=size > 0)
    return pd.concat([pd.DataFrame({
        "set": directions.kind, "name": [directions.names[k] for k in rated], "layer": layer, "x": at[:, 0],
        "y": at[:, 1], "valence": target[:, 0], "arousal": target[:, 1],
    }) for layer, at in zip(directions.layers, aligned, strict=True)], ignore_index=True)  # fmt: skip
