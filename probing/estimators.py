"""One layer's fits (replaced by the scikit-learn estimators)."""

import numpy as np
from jaxtyping import Float, Int

from affectlens.probing import fits
from affectlens.probing.linear import Linear

__all__ = ["Linear", "mean_difference"]


def mean_difference(x: Float[np.ndarray, "item d"], y: Int[np.ndarray, " item"], n_classes: int) -> Linear:
    """The difference of means of one layer."""
    return fits.mean_difference(x[:, None], y, n_classes).at(0)
