"""Sparse probes on planted features: what is planted is found, noise is not, no label of a scored item chooses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression

from affectlens.errors import BatteryError, RunError
from affectlens.probing import fits
from affectlens.probing.features import sparse_controls, sparse_latents, sparse_rung
from affectlens.probing.features.codes import Codes
from affectlens.probing.features.densities import NEAREST, matched
from affectlens.probing.features.sparse import sparse_probe
from affectlens.probing.features.sparse_choosing import best, described, explained, ranked
from affectlens.probing.features.sparse_latents import Dictionary, held_out_codes, label_table, read_out
from affectlens.probing.features.sparse_report import SparseReport
from affectlens.probing.features.supervising import supervised
from affectlens.probing.ladder import probe
from affectlens.probing.parts import Stage, stage
from affectlens.probing.sweep import sweep
from affectlens.probing.targets import select
from affectlens.store import Activations
from tests.conftest import battery_frame

D = 12


def coded(items: pd.DataFrame, features: np.ndarray) -> Codes:
    """Codes whose mean over an item's tokens is its row of ``features``: one token after the empty first."""
    n, width = features.shape
    matrix = np.zeros((2 * n, width), dtype=np.float32)
    matrix[1::2] = features
    return Codes(
        sparse.csr_array(matrix), np.zeros(2 * n, dtype=np.int64), np.arange(0, 2 * n + 1, 2), items,
        np.ones(2 * n, dtype=bool), "planted", "s" * 64, "L3.resid_post", "planted", "f" * 32, "planted", "b" * 64,
    )  # fmt: skip


def residual(items: pd.DataFrame, values: np.ndarray | None = None, seed: int = 0) -> Activations:
    """Activations at the dictionary's site; noise by default."""
    drawn = np.random.default_rng(seed).normal(size=(len(items), D)) if values is None else values
    return Activations.from_arrays(
        {"mean": drawn[:, None].astype(np.float32)}, items, layers=(3,), model="planted", fingerprint="f" * 32,
        battery="planted", battery_sha256="b" * 64,
    )  # fmt: skip


def gap(density: np.ndarray, chosen: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """The mean absolute difference of log density between each chosen feature and its matches: how good they are."""
    logs = np.log(np.maximum(density, density[density > 0].min() / 2))
    return np.abs(logs[matches] - logs[chosen]).mean(0)


def always(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Activations as a sweep asks for them, layer by layer."""

    def give(_layers: np.ndarray) -> np.ndarray:
        return x

    return give


def rare(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    """Noise as features have it: mostly zero, of many densities."""
    active = rng.random((n, width)) < rng.uniform(0.05, 0.5, width)
    return active * rng.exponential(size=(n, width))


def emotional(items: pd.DataFrame) -> np.ndarray:
    return (items["role"] == "emotional").to_numpy()


def staged(items: pd.DataFrame, rung: str = "domain", target: str = "affect") -> Stage:
    found = stage(items, select(items, target), rung)
    assert isinstance(found, Stage), found
    return found


def value(found: Stage, logits: np.ndarray) -> float:
    return float(found.worth(logits)(np.ones((1, found.n)))[0])


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One floor and few draws: what these reports are asked does not depend on them."""
    monkeypatch.setattr(sparse_rung, "FLOORS", ("surface",))
    monkeypatch.setattr(sparse_rung, "DRAWS", 19)
    monkeypatch.setattr(sparse_latents, "SHUFFLES", 19)


# the choice ----------------------------------------------------------------------------------------------------------


def test_the_explained_share_orders_as_scipys_and_sklearns_statistics_do() -> None:
    rng = np.random.default_rng(0)
    x, two, many, order = rng.normal(size=(60, 30)), np.arange(60) % 2, rng.integers(0, 4, 60), rng.normal(size=60)
    x[:, :3] += np.stack([two, many, order], axis=1)
    found: Any = stats.ttest_ind(x[two == 1], x[two == 0])
    t = np.abs(found.statistic)
    np.testing.assert_array_equal(ranked(x, two, 2), np.argsort(-t))
    np.testing.assert_array_equal(ranked(x, many, 4), np.argsort(-f_classif(x, many)[0]))
    r = np.array([stats.pearsonr(column, order)[0] for column in x.T])
    np.testing.assert_allclose(explained(x, order, 0), r**2)


def test_a_feature_that_never_varies_comes_last_and_moves_nothing() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 6)), np.arange(40) % 2
    x[:, 2], x[:, 4] = 0.0, 0.1
    assert set(ranked(x, y, 2)[-2:]) == {2, 4}
    assert explained(x, y, 2)[[2, 4]].tolist() == [0.0, 0.0]
    assert np.isfinite(described(x, y, ("a", "b"), 6, np.ones(6))["effect"]).all()


def test_what_is_said_of_a_choice_is_cohens_d_and_the_class_it_is_highest_in() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(80, 5)), np.repeat([0, 1], [30, 50])
    x[:, 3] -= 2.0 * y
    table = described(x, y, ("calm", "moved"), 2, np.linspace(0, 1, 5))
    a, b = x[y == 0, 3], x[y == 1, 3]
    within = np.sqrt((len(a) * a.var() + len(b) * b.var()) / 80)
    assert table["feature"].iloc[0] == 3
    assert table["effect"].iloc[0] == pytest.approx((b.mean() - a.mean()) / within)
    assert table["towards"].iloc[0] == "calm"
    assert table["density"].iloc[0] == 0.75
    many = described(x, np.arange(80) % 3, ("a", "b", "c"), 5, np.ones(5))
    assert (many["effect"] > 0).all()
    graded = described(x, x[:, 1].copy(), (), 1, np.ones(5)).iloc[0]
    assert (graded["feature"], graded["towards"]) == (1, "high")
    assert graded["effect"] == pytest.approx(1.0)


def test_places_that_are_left_are_zeros_which_move_no_fit() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(50, 1, 9)) + 3, np.arange(50) % 2
    x[:, 0, 5] += y
    wide = best((2, 4))(x, y, 2)(x)
    order = ranked(x[:, 0], y, 2)
    assert wide.shape == (50, 2, 4)
    assert (wide[:, 0, 2:] == 0).all()
    padded = fits.logistic(wide, y, 2, np.full((2, 1), 0.1), tol=1e-6)[0]
    alone = fits.logistic(x[:, :, order[:2]], y, 2, np.full((1, 1), 0.1), tol=1e-6)[0]
    np.testing.assert_allclose(padded.weights[0, 0, :2], alone.weights[0, 0], rtol=1e-4)
    np.testing.assert_allclose(padded.bias[0], alone.bias[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rung", ["pair", "domain"])
def test_no_row_chooses_features_that_score_it(rung: str) -> None:
    """Every fit of a sweep, inner and outer, prepares from the very rows that it learns from, of other groups."""
    items = battery_frame(40)
    found = staged(items, rung)
    part, n = found.part, len(items)
    x = np.arange(n, dtype=float)[:, None, None] + np.zeros((1, 1, 2))  # a row tells its own number
    told: list[set[int]] = []
    turned: list[tuple[set[int], set[int]]] = []

    def prepare(rows: np.ndarray, y: np.ndarray, _n_classes: int) -> Any:
        seen = set(rows[:, 0, 0].astype(int).tolist())
        np.testing.assert_array_equal(y, part.y[rows[:, 0, 0].astype(int)])
        told.append(seen)

        def turn(values: np.ndarray) -> np.ndarray:
            turned.append((seen, set(values[:, 0, 0].astype(int).tolist())))
            return values

        return turn

    sweep(lambda _: x, part, methods=("logistic",), prepare=prepare)
    folds = len(np.unique(part.folds))
    assert len(told) == 4 * folds  # three inner folds and the outer one
    for seen, asked in turned:
        groups = {part.keys[i] for i in seen} & {part.keys[i] for i in asked - seen}
        assert asked == seen or not (seen & asked)
        assert not groups
    outer = [
        seen for seen in told if any(len(seen) + len(asked) == n for s, asked in turned if s is seen and asked != seen)
    ]
    assert len(outer) == folds


# planted truth -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_quick")
def test_one_feature_of_thousands_is_found_and_reads_what_it_can() -> None:
    """Active in 8 of 10 emotional and 1 of 10 neutral items: AUROC 0.5 + (0.8 - 0.1) / 2."""
    items, rng = battery_frame(160), np.random.default_rng(4)
    x = rare(rng, len(items), 3000)
    x[:, 1234] = rng.random(len(items)) < np.where(emotional(items), 0.8, 0.1)
    report = sparse_probe(coded(items, x), residual(items), ks=(1, 5, 50), rungs=("pair", "domain"), progress=False)
    one = report.estimate("probe", "sparse", 1)
    assert one.low < 0.85 < one.high
    assert one.value == pytest.approx(
        0.5 + (x[emotional(items), 1234].mean() - x[~emotional(items), 1234].mean()) / 2, abs=0.02
    )
    first = report.often(1)
    assert first["feature"].tolist() == [1234]
    assert first["times"].tolist() == first["folds"].tolist() == [8]
    assert first["towards"].tolist() == ["emotional"]
    assert report.headline.value > 0.8
    assert report.estimate("difference", "surface" if report.strongest_floor == "surface" else "chance").low > 0
    assert report.estimate("dense_less_sparse", "codes").high < 0
    control = report.estimate("control", "random_features", 1)
    assert control.p == 1 / 20
    assert control.low < 0.5 < control.high
    assert report.estimate("beyond_control", "random_directions").low > 0


@pytest.mark.usefixtures("_quick")
def test_the_curve_rises_while_there_are_parts_to_add_and_is_flat_after() -> None:
    items, rng = battery_frame(320), np.random.default_rng(5)
    x = rng.normal(size=(len(items), 400))
    parts = rng.choice(400, 10, replace=False)
    x[:, parts] += np.where(emotional(items), 0.35, -0.35)[:, None]
    report = sparse_probe(coded(items, x), residual(items), ks=(1, 3, 10, 20), rungs="domain", progress=False)
    score = [report.estimate("probe", "sparse", k).value for k in (1, 3, 10, 20)]
    known = [stats.norm.cdf(0.7 * np.sqrt(k / 2)) for k in (1, 3, 10)]
    np.testing.assert_allclose(score[:3], known, atol=0.04)
    assert score[0] + 0.05 < score[1] < score[2] - 0.05
    assert abs(score[3] - score[2]) < 0.02
    assert set(report.chosen.loc[report.chosen["rank"] <= 10, "feature"]) >= set(parts.tolist())
    assert abs(report.headline.value - score[2]) < 0.03
    gaps = report.curve[report.curve["kind"] == "sparse_less_floor"]
    assert gaps["k"].tolist() == [1, 3, 10, 20]
    assert (gaps["low"] > 0).all()
    assert (gaps["low"] < gaps["difference"]).all()


def test_noise_is_at_chance_though_thousands_are_searched() -> None:
    """Features chosen on all items read these labels at 0.9; chosen on the training items, at one half."""
    items, scores = battery_frame(60), []
    found = staged(items, "pair")
    for seed in range(6):
        x = rare(np.random.default_rng(seed), len(items), 4608).astype(np.float32)[:, None]
        read = sweep(always(x), found.part, methods=("logistic",), prepare=best((1, 10)), grid=sparse_rung.GRID)[""]
        scores += [value(found, read.logits["logistic"][:, i]) for i in (0, 1)] + [value(found, read.headline)]
    assert abs(np.mean(scores) - 0.5) < 0.06
    assert max(scores) < 0.75


def test_inner_folds_choose_anew_so_that_noise_is_penalised() -> None:
    """An inner loss on features that its own items helped to choose would be far below that of knowing nothing."""
    items = battery_frame(60)
    found = staged(items, "pair")
    x = rare(np.random.default_rng(0), len(items), 4608).astype(np.float32)[:, None]
    read = sweep(lambda _: x, found.part, methods=("logistic",), prepare=best((1, 10, 50)))[""]
    for fold, logits in read.inner.items():
        y = found.part.y[found.part.folds != fold]
        loss = np.logaddexp(0, -(2 * y - 1) * logits[:, 0]).mean()
        assert loss > np.log(2) - 0.02


@pytest.mark.usefixtures("_quick")
def test_all_features_is_the_dense_probe_on_the_codes() -> None:
    items, rng = battery_frame(48), np.random.default_rng(6)
    x = rng.normal(size=(len(items), 30)) + emotional(items)[:, None] * rng.normal(size=30) / 2
    report = sparse_probe(coded(items, x), residual(items), ks=(30, 99), rungs="domain", progress=False)
    logits = report.held_out.pivot(index="id", columns="reader", values="logit_0")
    np.testing.assert_allclose(logits["sparse"], logits["codes"], atol=0.02 * logits["codes"].std())
    dense = report.estimate("probe", "codes", 0)
    assert report.estimate("probe", "sparse", 99).value == pytest.approx(dense.value, abs=0.005)
    assert report.meta["ks"] == [30, 99]


@pytest.mark.usefixtures("_quick")
def test_dense_is_sklearns_optimum_and_the_residual_probe_is_the_ladders() -> None:
    items, rng = battery_frame(48), np.random.default_rng(7)
    x = rng.normal(size=(len(items), 200)) + emotional(items)[:, None] * rng.normal(size=200) / 3
    stream = residual(items, rng.normal(size=(len(items), D)) + emotional(items)[:, None] * 0.4)
    report = sparse_probe(coded(items, x), stream, ks=(5,), rungs="domain", progress=False)
    found, asked = staged(items), select(items, "affect")
    held = report.held_out[report.held_out["reader"] == "codes"]["logit_0"].to_numpy()
    for fold in np.unique(found.part.folds):
        train, test = found.part.folds != fold, found.part.folds == fold
        z = (x - x[train].mean(0)) / x[train].std(0)
        near = []
        for c in sparse_rung.GRID:
            theirs = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(z[train], asked.y[train])
            off = theirs.decision_function(z[test]) - held[test]
            near.append(np.abs(off).max() / np.abs(held[test]).max())
        assert min(near) < 5e-3
    layers = Activations.from_arrays({"mean": stream.at("mean")}, items, model="planted", fingerprint="f" * 32)
    ladder = probe(layers, rungs="domain", progress=False)
    assert report.estimate("probe", "residual", 0).value == ladder.headline.value


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    ("target", "metric"), [("category", "balanced accuracy"), ("valence", "AUROC"), ("rated", "concordance")]
)
def test_classes_and_orders_find_their_features(target: str, metric: str) -> None:
    items, rng = battery_frame(128), np.random.default_rng(8)
    x = rng.normal(size=(len(items), 300))
    emotions = sorted(items["emotion"].unique())
    for place, emotion in enumerate(emotions):
        x[:, 10 + place] += 4.0 * (emotional(items) & (items["emotion"] == emotion))
    x[:, 50] += 2.0 * items["valence"]
    items["rated"] = np.where(emotional(items), 4.0, 0.0) + rng.normal(size=len(items))
    x[:, 60] += items["rated"]
    report = sparse_probe(coded(items, x), residual(items), target=target, ks=(1, 8), rungs="pair", progress=False)
    assert report.meta["metric"] == metric
    expected = {"category": set(range(10, 18)), "valence": {50}, "rated": {60}}[target]
    always = report.often(len(expected))
    assert set(always.loc[always["times"] == always["folds"], "feature"]) == expected
    assert report.headline.value > 0.8
    if target == "category":
        named = dict(zip(always["feature"], always["towards"], strict=True))
        assert named == {10 + place: emotion for place, emotion in enumerate(emotions)}
        assert report.estimate("probe", "sparse", 1).value < 0.4 < report.estimate("probe", "sparse", 8).value
    assert any(metric in line for line in report.summary())


# controls ------------------------------------------------------------------------------------------------------------


def test_matches_are_near_in_density_and_never_chosen_or_repeated() -> None:
    rng = np.random.default_rng(9)
    density = np.exp(rng.uniform(np.log(1e-4), np.log(0.3), 2000))
    density[:100] = 0
    chosen = rng.choice(np.arange(100, 2000), 50, replace=False)
    found = matched(density, chosen, 40, seed=1)
    assert not set(found.ravel().tolist()) & set(chosen.tolist())
    assert (density[found] > 0).all()
    assert all(len(set(row.tolist())) == 50 for row in found)
    assert gap(density, chosen, found).max() < 0.25
    anything = np.stack([rng.permutation(np.arange(100, 2000))[:50] for _ in range(40)])
    assert gap(density, chosen, anything).mean() > 10 * gap(density, chosen, found).mean()
    assert len(np.unique(found[:, 0])) > NEAREST / 2
    with pytest.raises(BatteryError, match="50 features can't be matched.*10 of the rest"):
        matched(np.r_[density[chosen], np.full(10, 0.1)], np.arange(50), 3)


def test_draws_read_what_is_everywhere_and_are_scored_as_the_sparse_probe_is() -> None:
    """Where every feature carries the label alike, a random one reads as much as the best; the p says so."""
    items, rng = battery_frame(60), np.random.default_rng(10)
    found = staged(items)
    x = (rng.normal(size=(len(items), 80)) + 1.5 * emotional(items)[:, None]).astype(np.float32)[:, None]
    density = np.full(80, 0.5)
    sparse_ = sweep(lambda _: x, found.part, methods=("logistic",), prepare=best((4,)))[""]
    make = sparse_controls.random_features(density, 4)
    drawn = sparse_controls.held_out(x, found, make, grid=fits.C_GRID, draws=39)
    ours = value(found, sparse_.headline)
    score, values = sparse_controls.spread(ours, drawn, found, "random features")
    assert score.p is not None
    assert score.p == (1 + (values >= ours).sum()) / 40
    assert score.value > 0.8
    turned = make(3)(x, found.part.y, 2)(x)
    picks = matched(density, ranked(x[:, 0], found.part.y, 2)[:4], 3)
    np.testing.assert_array_equal(turned, x[:, 0][:, picks])


def test_random_directions_do_not_depend_on_labels_or_scale() -> None:
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(30, 1, 8)), np.arange(30) % 2
    make = sparse_controls.random_directions(8, 3)
    first = make(5)(x, y, 2)(x)
    assert first.shape == (30, 5, 3)
    np.testing.assert_array_equal(make(5)(x, 1 - y, 2)(x), first)
    np.testing.assert_allclose(make(5)(100 * x + 7, y, 2)(100 * x + 7), first, atol=1e-4)


# the report ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> SparseReport:
    items, rng = battery_frame(48), np.random.default_rng(12)
    x = rare(rng, len(items), 60)
    x[:, 5] += emotional(items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_rung, "FLOORS", ("surface",))
        patch.setattr(sparse_rung, "DRAWS", 9)
        return sparse_probe(
            coded(items, x),
            residual(items),
            ks=(2, 1, 40),
            rungs=("pair", "domain", "author", "emotion"),
            progress=False,
        )


def test_every_reader_and_difference_has_its_interval(small: SparseReport) -> None:
    table = small.scores
    assert small.rungs == ("pair", "domain", "emotion")
    assert small.meta["rung"] == "domain"
    assert small.meta["skipped"] == {"author": "no item has a named author"}
    assert np.isfinite(table[["value", "low", "high"]].to_numpy(dtype=float)).all()
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    for rung in small.rungs:
        floor = small.strongest(rung)
        for k in (-1, 1, 2, 40):
            ours = small.estimate("probe", "sparse", k, rung)
            least = 0.5 if floor == "chance" else small.estimate("floor", floor, 0, rung).value
            assert small.estimate("difference", floor, k, rung).value == pytest.approx(ours.value - least)
            for name in ("codes", "residual"):
                dense = small.estimate("probe", name, 0, rung)
                assert small.estimate("dense_less_sparse", name, k, rung).value == pytest.approx(
                    dense.value - ours.value
                )
    assert set(table.loc[table["kind"] == "control", "rung"]) == {"domain"}
    assert "random_features at k = 40" in small.meta["skipped_controls"]
    assert not small.has("control", "random_directions", 40)  # more than the activations have dimensions
    with pytest.raises(KeyError, match="no probe sparse at k = 3"):
        small.estimate("probe", "sparse", 3)


def test_the_report_speaks_draws_and_comes_back(small: SparseReport, tmp_path: Path) -> None:
    said = " ".join(small.summary())
    expected = ["In a band", "F5 (emotional)", "no item has a named author", "same density", "can't be matched"]
    for words in (*expected, str(small.headline), str(small.estimate("probe", "residual", 0))):
        assert words in said, words
    assert "**" not in repr(small)
    assert "<table" in small._repr_html_()
    figure: Any = small.plot()
    names = [trace.name for trace in figure.data if trace.name]
    assert any("sparse" in name for name in names)
    assert any("residual" in name for name in names)
    small.save(tmp_path)
    back = SparseReport.load(tmp_path, "affect")
    assert back.summary() == small.summary()
    pd.testing.assert_frame_equal(back.scores, small.scores)
    with pytest.raises(RunError, match="no finished sparse probes of category"):
        SparseReport.load(tmp_path, "category")
    (tmp_path / "sparse" / "affect.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        SparseReport.load(tmp_path, "affect")


def test_the_nested_score_is_that_of_the_k_each_fold_chose(small: SparseReport) -> None:
    rows = small.chosen[small.chosen["rung"] == "domain"]
    assert rows.groupby("fold")["k"].nunique().eq(1).all()
    assert set(rows["k"]) <= {1, 2, 40}
    table = small.often(2)
    assert table["times"].sum() == 2 * 8
    assert table["feature"].iloc[0] == 5


@pytest.mark.parametrize(
    ("ks", "message"), [((), "numbers of features"), ((0, 3), "from 1 on"), ((5,), "same battery")]
)
def test_mistakes_are_said(ks: Sequence[int], message: str) -> None:
    items = battery_frame(24)
    other = items.iloc[::-1].reset_index(drop=True) if message == "same battery" else items
    with pytest.raises(BatteryError, match=message):
        sparse_probe(coded(items, np.ones((48, 4))), residual(other), ks=ks, progress=False)


# the supervised dictionary -------------------------------------------------------------------------------------------


def test_the_read_out_is_the_ladders_ridge_and_the_dictionary_least_squares() -> None:
    rng = np.random.default_rng(13)
    x, y = rng.normal(size=(50, 20)) * rng.uniform(0.5, 3, 20), np.arange(50) % 2
    theirs = fits.ridge(x[:, None], y, 2)[0].at(0)(x)[:, 0]
    ours = read_out(x, y[:, None].astype(float))(x)[:, 0]
    np.testing.assert_allclose(2 * ours - 1, theirs, rtol=1e-6, atol=1e-9)
    labels = rng.normal(size=(50, 3))
    truth = rng.normal(size=(3, 20))
    made = Dictionary.of(4 + labels @ truth, labels)
    np.testing.assert_allclose(made.rows, truth, atol=1e-9)
    np.testing.assert_allclose(made(labels), 4 + labels @ truth, atol=1e-9)


def test_codes_of_a_fold_do_not_see_it() -> None:
    rng = np.random.default_rng(14)
    x, labels, folds = rng.normal(size=(30, 5)), rng.normal(size=(30, 2)), np.arange(30) % 3
    first = held_out_codes(x, labels, folds)
    labels[folds == 1] += 9.0
    np.testing.assert_array_equal(held_out_codes(x, labels, folds)[folds == 1], first[folds == 1])
    assert np.abs(held_out_codes(x, labels, folds)[folds == 0] - first[folds == 0]).max() > 0.1


def planted(n: int = 128, noise: float = 1.0) -> tuple[pd.DataFrame, np.ndarray]:
    """Activations made of labels: a direction for affect, each emotion and each domain."""
    items, rng = battery_frame(n), np.random.default_rng(15)
    labels, _ = label_table(select(items, "affect"))
    rows = rng.normal(size=(labels.shape[1], 40))
    return items, labels.to_numpy() @ rows + noise * rng.normal(size=(len(items), 40))


@pytest.mark.usefixtures("_quick")
def test_a_dictionary_of_the_labels_explains_what_labels_make() -> None:
    items, x = planted()
    one_emotion = np.asarray(emotional(items) & (items["emotion"] == "joy"), dtype=float)
    features = np.c_[rare(np.random.default_rng(16), len(items), 50), one_emotion]
    found = supervised(coded(items, features), residual(items, x))
    signal = 1 - 40 / float(((x - x.mean(0)) ** 2).sum(1).mean())
    assert found.explained("labels").value == pytest.approx(signal, abs=0.06)
    assert abs(found.explained("codes").value - signal) < 0.15
    assert found.explained("shuffled").high < 0.05
    assert found.variance.set_index("reader").loc["shuffled", "p"] == 1 / 20
    latent, feature = found.estimate("affect", "auroc", "latent"), found.estimate("affect", "auroc", "feature")
    assert latent.value > 0.95
    assert abs(feature.value - 0.5) < 0.1
    gap_ = found.estimate("affect", "latent_less", "feature")
    assert gap_.low > 0
    assert gap_.value == pytest.approx(latent.value - feature.value)
    assert abs(found.estimate("affect", "latent_less", "dense").value) < 0.05
    assert found.estimate("joy", "auroc", "feature").value == 1.0
    assert set(found.scores["label"]) == {"affect", *items["emotion"], *items["domain"]}
    assert any("tied to labels explains" in line for line in found.summary())
    assert found.decoder.shape == (17, 40)


@pytest.mark.usefixtures("_quick")
def test_labels_that_a_fold_never_taught_are_not_scored() -> None:
    items, x = planted(64)
    found = supervised(coded(items, rare(np.random.default_rng(17), len(items), 20)), residual(items, x), rung="domain")
    assert set(found.scores["label"]) == {"affect", *items["emotion"]}
    assert found.meta["skipped"] == {
        ", ".join(sorted(items["domain"].unique())): "the training items of some fold lack them"
    }
    with pytest.raises(BatteryError, match="The rung author does not apply.*no item has a named author"):
        supervised(coded(items, np.ones((128, 3))), residual(items, x), rung="author")
    with pytest.raises(BatteryError, match="rung split does not apply"):
        supervised(coded(items, np.ones((128, 3))), residual(items, x), rung="split")
