"""The fits as scikit-learn estimators, for pipelines, searches and cross-validation of one layer.

``coef_`` and ``intercept_`` read raw activations whatever was scaled inside, so that a probe's weights are a direction
of the model's own space: ``direction_`` has it at unit length.
"""

import warnings
from abc import abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from affectlens.probing.fits import lda, logistic, mean_difference, ridge
from affectlens.probing.linear import Linear

Rows = Float[np.ndarray, "item d"]


class _ClassProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """A linear read-out of classes; each method says how it is fitted."""

    classes_: Shaped[np.ndarray, " class"]
    coef_: Float[np.ndarray, "k d"]  # k is 1 for two classes (positive means the second)
    intercept_: Float[np.ndarray, " k"]

    @abstractmethod
    def _linear(self, x: Float[np.ndarray, "item 1 d"], codes: Shaped[np.ndarray, " item"], n_classes: int) -> Linear:
        """Fit the only layer."""

    def fit(self, X: Any, y: Any) -> Any:
        """Fit to the rows.

        Args:
            X: activations ``[item, d]``.
            y: one label an item, of any kind.

        Raises:
            ValueError: fewer than two classes, or what is no finite matrix with a label a row.
        """
        x, codes = _checked(self, X, y)
        fitted = self._linear(x[:, None], codes, len(self.classes_)).at(0)
        self.coef_, self.intercept_ = fitted.weights, fitted.bias
        return self

    @property
    def direction_(self) -> Float[np.ndarray, "k d"]:
        """The weights at unit length, in the space of the activations."""
        check_is_fitted(self)
        return self.coef_ / np.linalg.norm(self.coef_, axis=1, keepdims=True).clip(min=1e-300)

    def decision_function(self, X: Any) -> Float[np.ndarray, "item *k"]:
        """Logits: one an item for two classes (positive means the second), else one a class.

        Args:
            X: activations ``[item, d]``.
        """
        check_is_fitted(self)
        x: Any = validate_data(self, X, reset=False, dtype=np.float64)
        logits = Linear(self.coef_, self.intercept_)(x)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict(self, X: Any) -> Shaped[np.ndarray, " item"]:
        """The class with the highest logit.

        Args:
            X: activations ``[item, d]``.
        """
        logits = self.decision_function(X)
        return self.classes_[(logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(1)]


class _ChanceProbe(_ClassProbe):
    """A read-out whose logits are log-odds."""

    def predict_proba(self, X: Any) -> Float[np.ndarray, "item class"]:
        """Each class's probability.

        Args:
            X: activations ``[item, d]``.
        """
        logits = self.decision_function(X)
        return np.stack([expit(-logits), expit(logits)], 1) if logits.ndim == 1 else softmax(logits, axis=1)

    def predict_log_proba(self, X: Any) -> Float[np.ndarray, "item class"]:
        """Its logarithm.

        Args:
            X: activations ``[item, d]``.
        """
        logits = self.decision_function(X)
        both = np.stack([np.zeros_like(logits), logits], 1) if logits.ndim == 1 else logits
        return both - np.logaddexp.reduce(both, axis=1, keepdims=True)


class LogisticProbe(_ChanceProbe):
    """Logistic regression with an L2 penalty, softmax from three classes on (Alain and Bengio 2016).

    Args:
        C: inverse of the penalty on the summed loss of the scaled rows, as scikit-learn has it.
        scale: standardise by the training rows.
        tol: bound on |w - optimum| / |w|, in the space of the scaled rows.
    """

    def __init__(self, C: float = 1e-2, scale: bool = True, tol: float = 1e-3) -> None:
        self.C = C
        self.scale = scale
        self.tol = tol

    def _linear(self, x: Float[np.ndarray, "item 1 d"], codes: Shaped[np.ndarray, " item"], n_classes: int) -> Linear:
        return logistic(x, codes, n_classes, np.full((1, 1), float(self.C)), scale=self.scale, tol=self.tol)[0]


class MeanDifferenceProbe(_ClassProbe):
    """Difference of class means at unit length, the threshold half-way between (Marks and Tegmark 2023).

    For more than two classes, each class's mean less the mean of the class means.
    """

    def _linear(self, x: Float[np.ndarray, "item 1 d"], codes: Shaped[np.ndarray, " item"], n_classes: int) -> Linear:
        return mean_difference(x, codes, n_classes)


class LDAProbe(_ChanceProbe):
    """Linear discriminant analysis with the shrinkage of Ledoit and Wolf (2004), equal priors."""

    def _linear(self, x: Float[np.ndarray, "item 1 d"], codes: Shaped[np.ndarray, " item"], n_classes: int) -> Linear:
        return lda(x, codes, n_classes)


class RidgeProbe(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Ridge regression of an ordered target, such as valence (Hoerl and Kennard 1970), on standardised rows.

    Args:
        penalty: in mean eigenvalues of the standardised rows, so that it means the same for every width.
    """

    coef_: Float[np.ndarray, " d"]
    intercept_: float

    def __init__(self, penalty: float = 1.0) -> None:
        self.penalty = penalty

    def fit(self, X: Any, y: Any) -> Any:
        """Fit to the rows.

        Args:
            X: activations ``[item, d]``.
            y: one number an item.
        """
        x, aim = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        fitted = ridge(np.array(x)[:, None], np.array(aim, dtype=np.float64), 0, (float(self.penalty),))[0].at(0)
        self.coef_, self.intercept_ = fitted.weights[0], float(fitted.bias[0])
        return self

    @property
    def direction_(self) -> Float[np.ndarray, " d"]:
        """The weights at unit length, in the space of the activations."""
        check_is_fitted(self)
        return self.coef_ / max(float(np.linalg.norm(self.coef_)), 1e-300)

    def predict(self, X: Any) -> Float[np.ndarray, " item"]:
        """The target's value.

        Args:
            X: activations ``[item, d]``.
        """
        check_is_fitted(self)
        return validate_data(self, X, reset=False, dtype=np.float64) @ self.coef_ + self.intercept_


class MLPProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """One hidden layer on standardised rows: only beside a linear probe, to say whether the information is linear.

    What it reads may be computed by the probe itself (Hewitt and Liang 2019).

    Args:
        hidden: width of the hidden layer.
        alpha: penalty on the squared weights.
        max_iter: iterations of L-BFGS at most.
        random_state: of the first weights.
    """

    classes_: Shaped[np.ndarray, " class"]
    pipeline_: Pipeline
    n_iter_: int

    def __init__(self, hidden: int = 64, alpha: float = 1.0, max_iter: int = 200, random_state: Any = 0) -> None:
        self.hidden = hidden
        self.alpha = alpha
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Any:
        """Fit to the rows.

        Args:
            X: activations ``[item, d]``.
            y: one label an item, of any kind.

        Raises:
            ValueError: fewer than two classes, or what is no finite matrix with a label a row.
        """
        x, codes = _checked(self, X, y)
        net = MLPClassifier((self.hidden,), solver="lbfgs", alpha=self.alpha, max_iter=self.max_iter,
                            random_state=self.random_state)  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # to stop early is a penalty, too
            self.pipeline_ = make_pipeline(StandardScaler(), net).fit(x, codes)
        self.n_iter_ = net.n_iter_
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "item class"]:
        """Each class's probability.

        Args:
            X: activations ``[item, d]``.
        """
        check_is_fitted(self)
        return self.pipeline_.predict_proba(validate_data(self, X, reset=False, dtype=np.float64))

    def predict(self, X: Any) -> Shaped[np.ndarray, " item"]:
        """The likeliest class.

        Args:
            X: activations ``[item, d]``.
        """
        chances = self.predict_proba(X)
        return self.classes_[chances.argmax(1)]


def _checked(probe: Any, X: Any, y: Any) -> tuple[Rows, Shaped[np.ndarray, " item"]]:
    """Finite rows of our own (a read-only map stays as it was) and class indices; sets what scikit-learn asks for."""
    x, labels = validate_data(probe, X, y, dtype=np.float64)
    check_classification_targets(labels)
    probe.classes_, codes = np.unique(labels, return_inverse=True)
    if len(probe.classes_) < 2:
        raise ValueError(f"{type(probe).__name__} needs two classes at least; these labels have one class.")
    return np.array(x), codes
