"""The batched solver: laws, and scikit-learn's optimum."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from affectlens.probing import solver
from affectlens.probing.fits import Standard, logistic
from affectlens.probing.linear import ABSENT
from affectlens.probing.problem import Leading, Problem
from affectlens.probing.solver import solve

CS = ((1e-3, 1e-1), (1e-2, 1.0), (1e-1, 1e-4))  # a layer's own


def planted(n: int, d: int, k: int, *, layers: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated rows in which class j leans towards axis j."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    x = rng.normal(size=(n, layers, d)) + rng.normal(size=(n, layers, 3)) @ rng.normal(size=(3, d))
    x[np.arange(n), :, y] += 1.5
    return x, y


def hot(y: np.ndarray) -> Tensor:
    k = int(y.max()) + 1
    return torch.as_tensor(y[:, None] if k == 2 else np.eye(k)[y], dtype=torch.float64)[:, None]


def problem(x: np.ndarray, y: np.ndarray, c: tuple[tuple[float, ...], ...] = CS, *, spanned: bool) -> Problem:
    z = torch.as_tensor(np.moveaxis(x - x.mean(0), 1, 0).copy())
    return Problem(z @ z.transpose(1, 2) if spanned else z, spanned, hot(y), torch.tensor(c, dtype=torch.float64))


def weights(x: np.ndarray, it: Problem, coef: Tensor) -> np.ndarray:
    """``[layer, d, c, k]``."""
    z = np.moveaxis(x - x.mean(0), 1, 0)
    return np.einsum("lnd,lnck->ldck", z, coef.numpy()) if it.spanned else coef.numpy()


def optimum(x: np.ndarray, y: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's, by Newton's method with a direct solver, in the space of the columns: ``[k, d]``, ``[k]``."""
    fit = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(x, y)
    return fit.coef_, fit.intercept_


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """In lengths of the wanted."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize(("n", "d"), [(40, 90), (90, 12), (50, 50)])
def test_optimum_is_scikit_learns(n: int, d: int, k: int) -> None:
    x, y = planted(n, d, k)
    it = problem(x, y, spanned=n <= d)
    coef, bias = solve(it)
    found = weights(x, it, coef)
    for layer, column in itertools.product(range(3), range(2)):
        want, level = optimum(x[:, layer] - x[:, layer].mean(0), y, CS[layer][column])
        assert distance(found[layer, :, column].T, want) < 1e-3
        np.testing.assert_allclose(bias[layer, column], level, atol=5e-3)


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("spanned", [True, False])
@pytest.mark.parametrize("k", [2, 5])
def test_tol_is_a_certificate(tol: float, spanned: bool, k: int) -> None:
    x, y = planted(40, 60, k)
    it = problem(x, y, spanned=spanned)
    exact, found = (weights(x, it, solve(it, tol=t)[0]) for t in (1e-11, tol))
    for layer, column in itertools.product(range(3), range(2)):
        off = found[layer, :, column] - exact[layer, :, column]
        assert np.linalg.norm(off) <= tol * np.linalg.norm(found[layer, :, column])


@pytest.mark.parametrize("k", [2, 5])
def test_span_and_space_agree(k: int) -> None:
    x, y = planted(30, 40, k)
    (dual, bias), (primal, level) = (solve(problem(x, y, spanned=spanned), tol=1e-8) for spanned in (True, False))
    assert distance(weights(x, problem(x, y, spanned=True), dual), primal.numpy()) < 1e-7
    np.testing.assert_allclose(bias, level, atol=1e-6)


def bad(name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[tuple[float, ...], ...]]:
    """Rows as language models give them, and worse."""
    x, y = planted(60, 20 if "few" in name else 80, 2, layers=1, seed=seed)
    c: tuple[tuple[float, ...], ...] = ((1e-2, 1.0),)
    if "outlier" in name:
        x[:, :, 3] *= 1000
    if "collinear" in name:
        x[:, :, 10:] = x[:, :, 10:11] + 1e-7 * x[:, :, 10:]
    if "separable" in name:
        x[:, :, 0] += 50 * y[:, None]
        c = ((1.0, 100.0),)
    if "unbalanced" in name:
        y = (np.arange(60) < 2).astype(int)
    if "far" in name:
        x = x + 1e4
    if "tiny" in name:
        x, c = 1e-4 * x, ((1e4, 1e6),)
    if "huge" in name:
        x, c = 1e25 * x, ((1e-52, 1e-50),)  # K overflows in single precision
    return x, y, c


@pytest.mark.parametrize(
    "name",
    ["outlier", "outlier few", "collinear", "collinear few", "separable", "separable few", "unbalanced", "far", "tiny",
     "huge", "outlier collinear separable unbalanced"],
)  # fmt: skip
def test_bad_rows(name: str) -> None:
    """The reference is scikit-learn's Newton on the rows' own coordinates, scaled so that it sees ones."""
    x, y, c = bad(name)
    it = problem(x, y, c, spanned="few" not in name)
    coef, _ = solve(it)
    found = weights(x, it, coef)
    z = x[:, 0] - x[:, 0].mean(0)
    left, size, turn = np.linalg.svd(z, full_matrices=False)
    unit = size[0]
    for column, each in enumerate(c[0]):
        want, _ = optimum(left * (size / unit), y, each * unit**2)
        assert distance(found[0, :, column].T, want @ turn / unit) < 1.5e-3


@pytest.mark.parametrize("seed", [3, 7])
def test_a_null_space_that_gathers_rounding(seed: int) -> None:
    """K's eigenvalues span sixteen orders and C is large: the span fails, and K's eigenvectors take over."""
    x, y, c = bad("outlier collinear separable unbalanced", seed)
    spanned, free = (problem(x, y, c, spanned=spanned) for spanned in (True, False))
    want = solve(free, tol=1e-6)[0].numpy()
    assert distance(weights(x, spanned, solve(spanned)[0]), want) < 1.5e-3


@pytest.mark.parametrize("k", [2, 3])
def test_three_rows(k: int) -> None:
    x, y = planted(3, 10, k)
    y = np.arange(3) % k
    it = problem(x, y, spanned=True)
    found = weights(x, it, solve(it)[0])
    want, _ = optimum(x[:, 0] - x[:, 0].mean(0), y, CS[0][0])
    assert distance(found[0, :, 0].T, want) < 1e-3


@pytest.mark.parametrize("spanned", [True, False])
@pytest.mark.parametrize("k", [2, 3])
def test_equal_rows_tell_only_how_frequent_classes_are(spanned: bool, k: int) -> None:
    y = np.array([0, 1, 1, 1, 0, 1] if k == 2 else [0, 1, 1, 2, 2, 2])
    coef, bias = solve(problem(np.ones((6, 3, 8)), y, spanned=spanned))
    assert (coef == 0).all()
    chances = torch.sigmoid(bias)[0, 0] if k == 2 else torch.softmax(bias, -1)[0, 0]
    np.testing.assert_allclose(chances, [2 / 3] if k == 2 else [1 / 6, 1 / 3, 1 / 2], atol=1e-6)


def test_a_class_without_rows_gets_the_floor() -> None:
    x, _ = planted(40, 90, 2)
    y = np.where(np.arange(40) % 2, 3, 1)
    grid = np.full((3, 1), 0.1)
    (wide,), (narrow,) = logistic(x, y, 5, grid, tol=1e-7), logistic(x, y // 3, 2, grid, tol=1e-7)
    assert (wide.weights[:, [0, 2, 4]] == 0).all()
    assert (wide.bias[:, [0, 2, 4]] == ABSENT).all()
    logits = wide(x)
    np.testing.assert_allclose(logits[..., 3] - logits[..., 1], narrow(x)[..., 0], atol=1e-6)


def test_logistic_scales_and_folds_back() -> None:
    x, y = planted(40, 90, 2)
    raw = x * np.random.default_rng(0).uniform(0.1, 100, 90) + 7
    (got,) = logistic(raw, y, 2, np.full((3, 1), 0.1), tol=1e-6)
    rows = Standard.of(raw, True)
    want, level = optimum(rows.z[1].numpy(), y, 0.1)
    np.testing.assert_allclose(got(raw)[:, 1, 0], rows.z[1].numpy() @ want[0] + level, atol=1e-4)


@pytest.mark.parametrize("spanned", [True, False])
@pytest.mark.parametrize("k", [2, 5])
def test_alone_or_in_company(spanned: bool, k: int) -> None:
    """A layer and a C by themselves end where they do in a batch; layers and columns can come in any order."""
    x, y = planted(40, 60, k)
    it = problem(x, y, spanned=spanned)
    coef, bias = solve(it, tol=1e-9)
    for layer, column in itertools.product(range(3), range(2)):
        one, level = solve(replace(it, rows=it.rows[[layer]], c=it.c[[layer]][:, [column]]), tol=1e-9)
        torch.testing.assert_close(one[0, :, 0], coef[layer, :, column], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(level[0, 0], bias[layer, column], rtol=1e-6, atol=1e-7)
    turned, _ = solve(replace(it, rows=it.rows[[2, 0, 1]], c=it.c[[2, 0, 1]].flip(1)), tol=1e-9)
    torch.testing.assert_close(turned.flip(2), coef[[2, 0, 1]], rtol=1e-6, atol=1e-8)


def test_order_of_rows_is_no_matter() -> None:
    x, y = planted(40, 60, 2)
    order = np.random.default_rng(0).permutation(40)
    (one, bias), (two, level) = (solve(problem(x[o], y[o], spanned=True), tol=1e-9) for o in (np.arange(40), order))
    torch.testing.assert_close(one[:, order], two, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(bias, level, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("spanned", [True, False])
def test_labels_of_their_own_for_every_column(spanned: bool) -> None:
    x, y = planted(40, 60, 2)
    other = np.random.default_rng(0).permutation(y)
    it = problem(x, y, spanned=spanned)
    coef, bias = solve(replace(it, y=torch.cat([hot(y), hot(other)], 1)), tol=1e-8)
    for column, labels in enumerate((y, other)):
        one, level = solve(replace(it, y=hot(labels)), tol=1e-8)
        torch.testing.assert_close(one[:, :, column], coef[:, :, column], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(level[:, column], bias[:, column], rtol=1e-5, atol=1e-7)


def test_deterministic() -> None:
    x, y = planted(40, 60, 5)
    one, two = (solve(problem(x, y, spanned=True)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


@pytest.mark.parametrize("spanned", [True, False])
def test_softening_inverts_the_hessian_of_equal_chances(spanned: bool) -> None:
    """On rows of a rank that the leading vectors cover it is (1 + bend Z'Z)^-1; its image stays K times it."""
    x, y = planted(40, 12, 2, layers=1)
    it = problem(x, y, ((0.5,),), spanned=spanned)
    what = it.pulled(torch.randn(1, 1, 1, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    soft = Leading.of(it).softened(what, torch.full((1, 1), 0.3, dtype=torch.float64))
    again = soft.plus(it.pulled(it.seen(soft)), torch.full((1, 1), 0.3, dtype=torch.float64))
    torch.testing.assert_close(again.image, what.image, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(it.vector(soft.coef).image, soft.image, rtol=1e-6, atol=1e-6)


def test_double_precision_mends_what_single_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate does not rest on the first stage: wrong, it only costs time."""
    x, y = planted(40, 60, 2)
    it = problem(x, y, spanned=True)
    want = solve(it, tol=1e-9)[0]
    descend = solver._descend

    def astray(*given: Any) -> tuple[Tensor, Tensor, int]:
        coef, bias, steps = descend(*given)
        return (coef + 1, bias - 3, steps) if coef.dtype == torch.float32 else (coef, bias, steps)

    monkeypatch.setattr(solver, "_descend", astray)
    assert distance(weights(x, it, solve(it)[0]), weights(x, it, want)) < 1e-3


def test_says_so_if_it_falls_short(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = planted(40, 60, 2)
    monkeypatch.setattr(solver, "MOST", 1)
    monkeypatch.setattr(solver, "AGAIN", 2)
    with pytest.warns(ConvergenceWarning, match=r"did not come within 1e-09 of their optimum"):
        solve(problem(x, y, spanned=True), tol=1e-9)
