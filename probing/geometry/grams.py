"""Emotion directions by their inner products alone: cosines, the shared axis taken out, principal coordinates.

All that is said about the shape of n points in d dimensions, up to a rotation and a shift, is in their centred Gram
matrix ``[n, n]``. Working on it makes every result blind to rotations of the activations by construction, and lets a
scene be left out, or labels be shuffled, at the price of an ``n`` by ``n`` product.
"""

import numpy as np
from jaxtyping import Float, Int

TINY = 1e-12


def centred(gram: Float[np.ndarray, "*many n n"]) -> Float[np.ndarray, "*many n n"]:
    """The Gram matrix once the points' mean is taken off."""
    rows = gram - gram.mean(-1, keepdims=True)
    return rows - rows.mean(-2, keepdims=True)


def cosines(gram: Float[np.ndarray, "*many n n"]) -> Float[np.ndarray, "*many n n"]:
    """Cosines between the points; 0 with a point that has no length."""
    power = np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0.0)
    length = np.sqrt(power)
    floor = np.sqrt(TINY * np.maximum(power.mean(-1, keepdims=True), TINY**8))
    unit = np.where(length > floor, 1 / np.maximum(length, floor), 0.0)
    return np.clip(gram * unit[..., :, None] * unit[..., None, :], -1.0, 1.0)


def less_contrast(
    gram: Float[np.ndarray, "*many n n"], contrast: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "*many n n"]:
    """The Gram matrix once the axis of a contrast is projected out of the points.

    Args:
        gram: of centred points.
        contrast: weights of the points; the axis is the points' weighted sum. Where that is 0, nothing is taken out.
    """
    along = gram @ contrast
    square = (along @ contrast)[..., None, None]
    shared = along[..., :, None] * along[..., None, :]
    return gram - np.divide(shared, square, out=np.zeros_like(shared), where=square > 0)


def share_along(
    gram: Float[np.ndarray, "many n n"], contrasts: Float[np.ndarray, "draw n"]
) -> Float[np.ndarray, "draw many"]:
    """The share of the variance between points that lies on the axis of a contrast, for each contrast."""
    along = np.einsum("lmn,dn->dlm", gram, contrasts)
    scale = np.einsum("dlm,dm->dl", along, contrasts) * np.trace(gram, axis1=-2, axis2=-1)
    return np.divide((along**2).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0)


def principal(
    gram: Float[np.ndarray, "*many n n"],
) -> tuple[Float[np.ndarray, "*many n two"], Float[np.ndarray, "*many"]]:
    """The points on their first two principal components, and the share of the variance that these carry."""
    size, vectors = np.linalg.eigh(gram)
    size = np.maximum(size, 0.0)
    top = vectors[..., :, -2:][..., ::-1] * np.sqrt(size[..., -2:][..., ::-1])[..., None, :]
    return top, size[..., -2:].sum(-1) / np.maximum(size.sum(-1), TINY**8)


def upper(n: int) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """The rows and columns of the pairs of n points, each pair once."""
    first, second = np.triu_indices(n, 1)
    return first, second
