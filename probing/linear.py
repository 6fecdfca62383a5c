"""A linear read-out in the raw space of the activations, and what its logits lose."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

ABSENT = -30.0  # the logit of a class that has no training row


@dataclass(frozen=True)
class Linear:
    """``logits = x @ weights.T + bias``, for one layer or (with a leading axis) for all.

    ``k`` is 1 for two classes (positive means the second) and for an ordered target, else the number of classes.
    """

    weights: Float[np.ndarray, "*layer k d"]
    bias: Float[np.ndarray, "*layer k"]

    def __call__(self, x: Float[np.ndarray, "item *layer d"]) -> Float[np.ndarray, "item *layer k"]:
        if self.weights.ndim == 2:
            return x @ self.weights.T + self.bias
        return np.einsum("ild,lkd->ilk", x, self.weights, optimize=True) + self.bias

    def at(self, layer: int) -> "Linear":
        """One layer's."""
        return Linear(self.weights[layer], self.bias[layer])


def log_losses(
    logits: Float[np.ndarray, "item *layer k"], y: Shaped[np.ndarray, " item"]
) -> Float[np.ndarray, "item *layer"]:
    """Each item's negative log-likelihood in nats, or for an ordered target (``y`` of floats) its squared error."""
    if y.dtype.kind == "f":
        return (logits[..., 0] - y.reshape(-1, *[1] * (logits.ndim - 2))) ** 2
    both = np.concatenate([np.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits
    top = both.max(-1, keepdims=True)
    total = top[..., 0] + np.log(np.exp(both - top).sum(-1))
    own = np.take_along_axis(both, y.reshape(-1, *[1] * (logits.ndim - 1)), axis=-1)[..., 0]
    return total - own
