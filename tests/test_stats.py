"""Intervals and tests against SciPy, scikit-learn and simulation."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from affectlens.metrics import accuracy, auroc
from affectlens.stats import Statistic, binomial, estimate, multinomial, sign_flips


def mean_of(values: np.ndarray) -> Statistic:
    return lambda weights: weights @ values / weights.sum(1)


def test_auroc_equals_sklearn_in_one_fold_and_averages_over_folds() -> None:
    rng = np.random.default_rng(0)
    y, scores = rng.integers(0, 2, 60), rng.normal(size=60).round(1)
    groups, one = np.arange(60) // 3, np.ones((1, 20))
    whole = auroc(scores, y, np.zeros(60, dtype=int), groups)(one)[0]
    assert whole == pytest.approx(roc_auc_score(y, scores))
    folds = groups % 2
    shifted = scores + 100.0 * folds  # folds on different scales: within-fold AUROC doesn't care
    parts = [(y[folds == f], scores[folds == f]) for f in (0, 1)]
    pairs = [int((a == 1).sum() * (a == 0).sum()) for a, _ in parts]
    expected = np.average([roc_auc_score(a, s) for a, s in parts], weights=pairs)
    assert auroc(shifted, y, folds, groups)(one)[0] == pytest.approx(expected)


def test_auroc_weights_are_what_deleting_or_repeating_a_group_does() -> None:
    rng = np.random.default_rng(1)
    y, scores, groups = np.tile([0, 1], 10), rng.normal(size=20), np.arange(20) // 2
    folds = np.zeros(20, dtype=int)
    weights = np.ones((1, 10))
    weights[0, 3] = 0
    kept = groups != 3
    assert auroc(scores, y, folds, groups)(weights)[0] == pytest.approx(roc_auc_score(y[kept], scores[kept]))


def test_bootstrap_of_auroc_is_centred_when_pairs_are_matched() -> None:
    """Each pair is ordered right, across pairs is noise: weighing copies of a pair twice would shift the interval."""
    rng = np.random.default_rng(2)
    base = rng.normal(scale=50, size=40)
    scores = np.stack([base, base + 1], axis=1).ravel()
    statistic = auroc(scores, np.tile([0, 1], 40), np.arange(80) // 8, np.arange(80) // 2)
    value, draws = statistic(np.ones((1, 40)))[0], statistic(multinomial(40))
    assert abs(np.nanmean(draws) - value) < 0.01


def test_balanced_accuracy_equals_sklearn() -> None:
    rng = np.random.default_rng(3)
    y, logits = rng.integers(0, 4, 50), rng.normal(size=(50, 4))
    ours = accuracy(logits, y, np.arange(50))(np.ones((1, 50)))[0]
    assert ours == pytest.approx(balanced_accuracy_score(y, logits.argmax(1)))


@pytest.mark.parametrize("n", [10, 60])
def test_interval_covers_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(4)
    hits, runs = 0, 300
    for seed in range(runs):
        found = estimate(mean_of(rng.normal(0.3, 1, n)), n, "item", seed=seed, bounds=None)
        hits += found.low <= 0.3 <= found.high
    assert stats.binomtest(hits, runs, 0.95).pvalue > 0.001


def test_width_of_the_bootstrap_matches_the_analytic_one() -> None:
    values = np.random.default_rng(5).normal(size=200)
    found = estimate(mean_of(values), 200, "item", bounds=None)
    expected = 2 * 1.96 * values.std(ddof=1) / np.sqrt(200)
    assert (found.high - found.low) == pytest.approx(expected, rel=0.1)


def test_a_share_at_its_bound_keeps_an_interval() -> None:
    found = estimate(mean_of(np.ones(32)), 32, "pair")
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(stats.binomtest(32, 32).proportion_ci().low)


@pytest.mark.parametrize(("wins", "n"), [(0, 8), (3, 8), (8, 8), (61, 96)])
def test_binomial_equals_scipy(wins: int, n: int) -> None:
    expected = stats.binomtest(wins, n).proportion_ci(method="exact")
    found = binomial(wins, n, "quadruple")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_sign_flips_equal_scipy_and_max_t_dominates() -> None:
    values = np.random.default_rng(6).normal(0.6, 1, size=(9, 5))
    found = sign_flips(values)
    for column in range(5):
        theirs = stats.permutation_test(
            (values[:, column],), lambda x: np.abs(x.mean()), permutation_type="samples", n_resamples=2**9,
            alternative="greater",
        )  # fmt: skip
        assert found.p[column] == pytest.approx(theirs.pvalue)
    assert (found.p_adjusted >= found.p).all()
    assert found.attainable == 2 / 2**9


def test_sign_flips_are_uniform_under_the_null_and_family_wise_error_is_kept() -> None:
    rng = np.random.default_rng(7)
    p, family = [], []
    for seed in range(200):
        found = sign_flips(rng.normal(size=(20, 6)), seed=seed, draws=199)
        p.append(found.p[0])
        family.append(found.p_adjusted.min() <= 0.05)
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert stats.binomtest(sum(family), 200, 0.05, alternative="greater").pvalue > 0.001


def test_sign_flips_of_zeros_reject_nothing() -> None:
    found = sign_flips(np.zeros((8, 3)))
    assert (found.p == 1).all()
