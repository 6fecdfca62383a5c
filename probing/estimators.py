"""Linear probes in the raw space of the activations: L2-regularised logistic regression and difference of means.

Both give weights ``[k, d]`` and biases ``[k]``, with k = 1 for two classes (positive means the second class) and
one row a class otherwise. With fewer items than dimensions the logistic fit is made in the span of the training
rows, where its optimum lies (the representer theorem): exact, and some hundred times smaller.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1)  # for standardised activations
C_GRID_SPARSE = (1e-1, 1e0, 1e1, 1e2)  # for TF-IDF rows of norm one
C_GRID_SMALL = (1e-3, 1e-2, 1e-1, 1e0)  # for a few standardised features


@dataclass(frozen=True)
class Linear:
    """A linear read-out: ``logits = x @ weights.T + bias``."""

    weights: Float[np.ndarray, "k d"]
    bias: Float[np.ndarray, " k"]

    def __call__(self, x: Float[np.ndarray, "item d"]) -> Float[np.ndarray, "item k"]:
        return x @ self.weights.T + self.bias


def logistic_path(
    x: Float[np.ndarray, "item d"],
    y: Int[np.ndarray, " item"],
    n_classes: int,
    grid: tuple[float, ...] = C_GRID,
    *,
    scale: bool = True,
) -> list[Linear]:
    """One logistic probe for each C of ``grid`` (scikit-learn's C: the inverse of the penalty on the summed loss).

    ``scale`` standardises by the training rows; the scaler is folded back into the weights. Classes that have no
    training row get a bias of -30.
    """
    x = x.astype(np.float64)
    mean, spread = (x.mean(0), x.std(0) + 1e-8) if scale else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
    z = (x - mean) / spread
    basis = None
    if len(z) < z.shape[1]:
        _, size, basis = np.linalg.svd(z, full_matrices=False)
        basis = basis[: max(1, int((size > 1e-9 * size[0]).sum()))]  # one row at least: features may be constant
        z = z @ basis.T
    present = np.unique(y)
    out = []
    for c in grid:
        fit = LogisticRegression(C=c, solver="newton-cholesky", max_iter=200, tol=1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit.fit(z, y)
        weights = (fit.coef_ if basis is None else fit.coef_ @ basis) / spread
        bias = fit.intercept_ - weights @ mean
        if n_classes > 2:
            every = np.zeros((n_classes, x.shape[1])), np.full(n_classes, -30.0)
            rows = (
                (weights, bias)
                if len(present) > 2
                else (np.stack([-weights[0], weights[0]]) / 2, np.array([-bias[0], bias[0]]) / 2)
            )
            every[0][present], every[1][present] = rows
            weights, bias = every
        out.append(Linear(weights, bias))
    return out


def mean_difference(x: Float[np.ndarray, "item d"], y: Int[np.ndarray, " item"], n_classes: int) -> Linear:
    """Difference of class means, unit length, with the threshold half-way between them; no scaling, no covariance.

    For more than two classes, each class's mean less the mean of the class means, likewise.
    """
    x = x.astype(np.float64)
    if n_classes == 2:
        low, high = x[y == 0].mean(0), x[y == 1].mean(0)
        unit = (high - low) / (np.linalg.norm(high - low) + 1e-12)
        return Linear(unit[None], -(unit @ (low + high) / 2)[None])
    present = np.unique(y)
    means = np.stack([x[y == k].mean(0) for k in present])
    centre = means.mean(0)
    toward = means - centre
    units = toward / (np.linalg.norm(toward, axis=1, keepdims=True) + 1e-12)
    weights, bias = np.zeros((n_classes, x.shape[1])), np.full(n_classes, -1e9)
    weights[present], bias[present] = units, -(units @ centre)
    return Linear(weights, bias)


def log_loss(logits: Float[np.ndarray, "item k"], y: Int[np.ndarray, " item"]) -> float:
    """The mean negative log-likelihood, in nats."""
    both = np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits
    top = both.max(1, keepdims=True)
    log_total = top[:, 0] + np.log(np.exp(both - top).sum(1))
    return float((log_total - both[np.arange(len(y)), y]).mean())
