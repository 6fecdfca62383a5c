"""The probes keep scikit-learn's contract, and their weights read raw activations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from affectlens.probing.estimators import LDAProbe, LogisticProbe, MeanDifferenceProbe, MLPProbe, RidgeProbe

LINEAR = [LogisticProbe, MeanDifferenceProbe, LDAProbe]
CLASSIFIERS = [*LINEAR, MLPProbe]


def expected(estimator: Any) -> dict[str, str]:
    """Failures with their reason."""
    typed = "it gives a constructor values of every wrong type, which beartype, on in these tests alone, refuses"
    return {"check_do_not_raise_errors_in_init_or_set_params": typed} if estimator.get_params() else {}


@parametrize_with_checks(  # type: ignore[untyped-decorator]  # scikit-learn is not typed
    [LogisticProbe(), MeanDifferenceProbe(), LDAProbe(), RidgeProbe(), MLPProbe(hidden=8)],
    expected_failed_checks=expected,
)
def test_scikit_learns_contract(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def planted(n: int = 60, d: int = 100, k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows with unequal spreads and far from the origin; class j is moved along axis j."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    x = rng.normal(size=(n, d))
    x[np.arange(n), y] += 3
    return x * rng.uniform(0.5, 20, d) + 10 * rng.normal(size=d), y


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("d", [12, 100])
def test_logistic_is_scikit_learns(k: int, d: int) -> None:
    x, y = planted(d=d, k=k)
    names = np.array(["joy", "anger", "fear", "trust"])[y]
    scaler = StandardScaler().fit(x)
    want = LogisticRegression(C=0.05, tol=1e-10, max_iter=10000).fit(scaler.transform(x), names)
    got = LogisticProbe(C=0.05, tol=1e-6).fit(x, names)
    assert list(got.classes_) == list(want.classes_)
    np.testing.assert_allclose(got.coef_, want.coef_ / scaler.scale_, rtol=1e-3, atol=1e-5)
    logits = want.decision_function(scaler.transform(x))
    np.testing.assert_allclose(got.decision_function(x), logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(got.predict_proba(x), want.predict_proba(scaler.transform(x)), atol=1e-4)
    np.testing.assert_allclose(got.predict_log_proba(x), np.log(got.predict_proba(x)), atol=1e-9)
    assert (got.predict(x) == want.predict(scaler.transform(x))).all()


def test_without_scaling_the_penalty_is_on_raw_weights() -> None:
    x, y = planted(d=12)
    want = LogisticRegression(C=1e-3, tol=1e-10, max_iter=20000).fit(x - x.mean(0), y)
    got = LogisticProbe(C=1e-3, scale=False, tol=1e-6).fit(x, y)
    assert np.linalg.norm(got.coef_ - want.coef_) < 1e-3 * np.linalg.norm(want.coef_)


def test_ridge_is_scikit_learns() -> None:
    x, _ = planted(d=100)
    y = x[:, 0] - 2 * x[:, 5] + 7
    scaler = StandardScaler().fit(x)
    z = np.asarray(scaler.transform(x))
    want = Ridge(alpha=3.0 * (z**2).sum() / len(z)).fit(z, y)
    got = RidgeProbe(penalty=3.0).fit(x, y)
    np.testing.assert_allclose(got.predict(x), want.predict(z), rtol=1e-4)
    np.testing.assert_allclose(got.coef_, want.coef_ / scaler.scale_, rtol=1e-4)
    assert got.direction_ @ got.coef_ == pytest.approx(np.linalg.norm(got.coef_))


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("d", [8, 100])
def test_lda_is_gaussian_with_ledoit_and_wolfs_covariance(k: int, d: int) -> None:
    x, y = planted(d=d, k=k)
    z = StandardScaler().fit_transform(x)
    means = np.stack([z[y == j].mean(0) for j in range(k)])
    covariance, _ = ledoit_wolf(z - means[y], assume_centered=True)
    likelihoods = np.stack([multivariate_normal(mean, covariance).logpdf(z) for mean in means], 1)
    np.testing.assert_allclose(LDAProbe().fit(x, y).predict_proba(x), softmax(likelihoods, axis=1), atol=1e-5)


def test_mean_difference_points_from_mean_to_mean() -> None:
    x, y = planted()
    probe = MeanDifferenceProbe().fit(x, y)
    low, high = x[y == 0].mean(0), x[y == 1].mean(0)
    np.testing.assert_allclose(probe.direction_[0], (high - low) / np.linalg.norm(high - low), atol=1e-9)
    assert probe.decision_function(np.stack([(low + high) / 2]))[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("make", LINEAR)
@pytest.mark.parametrize("k", [2, 4])
def test_weights_are_in_the_space_of_the_activations(make: Any, k: int) -> None:
    """A step along a direction raises its logit by coef_ . step, whatever was scaled inside."""
    x, y = planted(k=k)
    probe = make().fit(x, y)
    np.testing.assert_allclose(np.linalg.norm(probe.direction_, axis=1), 1)
    for j, unit in enumerate(probe.direction_):
        before, after = (probe.decision_function(rows).reshape(len(x), -1)[:, j] for rows in (x, x + 5 * unit))
        np.testing.assert_allclose(after - before, 5 * np.linalg.norm(probe.coef_[j]), rtol=1e-6)


@pytest.mark.parametrize("make", CLASSIFIERS)
@pytest.mark.parametrize("k", [2, 3])
def test_reads_what_was_planted_and_nothing_else(make: Any, k: int) -> None:
    x, y = planted(n=120, d=20, k=k)
    assert cross_val_score(make(), x, y, cv=4).mean() > 1 / k + 0.25
    shuffled = np.random.default_rng(1).permutation(y)
    assert cross_val_score(make(), x, shuffled, cv=4).mean() < 1 / k + 0.2


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_refuses_a_single_class(make: Any) -> None:
    x, _ = planted()
    with pytest.raises(ValueError, match=r"needs two classes at least; these labels have one class"):
        make().fit(x, np.zeros(len(x), dtype=int))


def test_goes_into_a_search() -> None:
    x, y = planted()
    search: Any = GridSearchCV(LogisticProbe(), {"C": [1e-4, 1e-1]}, cv=3).fit(x, y)
    assert search.best_params_["C"] in (1e-4, 1e-1)
    best: Any = clone(search.best_estimator_)
    assert best.get_params() == search.best_estimator_.get_params()


def test_the_hidden_layer_reads_what_no_line_can() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    assert cross_val_score(MLPProbe(), x, y, cv=3).mean() > 0.85
    assert cross_val_score(LogisticProbe(), x, y, cv=3).mean() < 0.65
