"""Probes on planted data, where the answer is known, and against scikit-learn."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sk_log_loss

from affectlens.errors import BatteryError, StoreError
from affectlens.probing import ProbeReport, Probes, fits, probe
from affectlens.probing.crossed import beyond_binding, score
from affectlens.probing.floors import FLOORS, floor, tfidf
from affectlens.probing.folds import INNER, keys, split
from affectlens.probing.linear import Linear, log_losses
from affectlens.probing.parts import stage
from affectlens.probing.rung import _strongest
from affectlens.probing.sweep import Part, sweep
from affectlens.probing.targets import select
from affectlens.probing.words import verdict
from affectlens.stats import Estimate
from affectlens.stimuli.crossing import differences, quadruples
from affectlens.stimuli.lexical import function_word_rates, surface_features
from tests.conftest import activations, battery_frame

D = 20
LADDER = ("pair", "domain")


def logistic_path(x: np.ndarray, y: np.ndarray, n_classes: int, grid: tuple[float, ...]) -> list[Linear]:
    """One layer's."""
    return [f.at(0) for f in fits.logistic(x[:, None], y, n_classes, np.array([grid]))]


def mean_difference(x: np.ndarray, y: np.ndarray, n_classes: int) -> Linear:
    return fits.mean_difference(x[:, None], y, n_classes).at(0)


def log_loss(logits: np.ndarray, y: np.ndarray) -> float:
    return float(log_losses(logits, y).mean())


def part_of(asked: Any, rung: str = "pair") -> Part:
    found = stage(asked.items.reset_index(drop=True), dataclasses.replace(asked, rows=np.arange(len(asked.y))), rung)
    assert not isinstance(found, str)
    return found.part


def noise(items: pd.DataFrame, layers: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(items), layers, D))


def emotional(items: pd.DataFrame) -> np.ndarray:
    return (items["role"] == "emotional").to_numpy(dtype=float)


# folds and targets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", ["pair", "domain"])
@pytest.mark.parametrize("target", ["affect", "category", "valence"])
def test_folds_never_split_a_group(rung: str, target: str) -> None:
    asked = select(battery_frame(64), target)
    grouping = keys(asked.items, rung)
    assert not isinstance(grouping, str)
    for most, seed in ((8, 0), (INNER, 3)):
        folds = split(grouping, asked.y, most, seed=seed)
        assert len(np.unique(folds)) > 1
        for key in np.unique(grouping):
            assert len(set(folds[grouping == key])) == 1


def test_a_rung_that_does_not_apply_is_reported_with_its_reason() -> None:
    items = battery_frame(40, n_domains=1)
    report = probe(activations(items, noise(items)), rungs=LADDER, progress=False)
    assert report.rungs == ("pair",)
    assert report.meta["skipped"] == {"domain": "there is only one domain"}
    assert "The domain rung does not apply: there is only one domain." in report.summary()


def test_targets_choose_the_items_they_say() -> None:
    items = battery_frame(40, n_quads=3)
    affect, category, valence = (select(items, t) for t in ("affect", "category", "valence"))
    assert affect.classes == ("neutral", "emotional")
    assert not affect.items["split"].str.startswith("crossed").any()
    assert (affect.items["role"] == np.array(affect.classes)[affect.y]).all()
    assert (category.items["emotion"] == np.array(category.classes)[category.y]).all()
    assert (category.items["role"] == "emotional").all()
    assert set(valence.items["valence"]) == {-1, 1}
    assert (valence.items["valence"] == 2 * valence.y - 1).all()
    with pytest.raises(BatteryError, match="at least two classes.*only neutral"):
        select(items[items["role"] == "neutral"], "affect")
    with pytest.raises(BatteryError, match="have no domain, emotion"):
        select(items.drop(columns=["emotion", "domain"]), "affect")


# estimators against scikit-learn -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize(("n", "d"), [(40, 90), (90, 12)])
def test_logistic_is_sklearns_optimum_in_the_full_space(n: int, d: int, n_classes: int) -> None:
    rng = np.random.default_rng(n + n_classes)
    x, y = rng.normal(size=(n, d)) * rng.uniform(0.5, 20, d) + rng.normal(size=d), np.arange(n) % n_classes
    mean, spread = x.mean(0), x.std(0)
    for c, ours in zip((1e-2, 1.0), logistic_path(x, y, n_classes, (1e-2, 1.0)), strict=True):
        theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit((x - mean) / spread, y)
        assert np.linalg.norm(ours.weights * spread - theirs.coef_) < 1e-3 * np.linalg.norm(theirs.coef_)
        np.testing.assert_allclose(ours(x), (x - mean) / spread @ theirs.coef_.T + theirs.intercept_, atol=1e-2)


def test_a_class_without_training_rows_is_never_chosen() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 6)), np.array([0, 2, 3] * 10)
    for linear in (*logistic_path(x, y, 4, (1e-2, 1e-1)), mean_difference(x, y, 4)):
        assert linear.weights.shape == (4, 6)
        assert 1 not in linear(x).argmax(1)
    two = logistic_path(x[y != 3], y[y != 3], 4, (1e-1,))[-1]
    assert set(two(x[y != 3]).argmax(1)) <= {0, 2}


def test_constant_features_are_no_error() -> None:
    for linear in logistic_path(np.ones((10, 40)), np.arange(10) % 2, 2, (1e-2,)):
        assert np.isfinite(linear(np.ones((10, 40)))).all()


def test_log_loss_equals_sklearn() -> None:
    rng = np.random.default_rng(1)
    y, one, many = np.arange(20) % 2, rng.normal(size=(20, 1)) * 5, rng.normal(size=(20, 4)) * 5
    assert log_loss(one, y) == pytest.approx(sk_log_loss(y, 1 / (1 + np.exp(-one[:, 0]))))
    shares = np.exp(many) / np.exp(many).sum(1, keepdims=True)
    assert log_loss(many, np.arange(20) % 4) == pytest.approx(sk_log_loss(np.arange(20) % 4, shares))


def test_mean_difference_is_the_unit_vector_between_the_means() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, D)), np.arange(60) % 2
    found, scaled = mean_difference(x, y, 2), mean_difference(1000 * x, y, 2)
    gap = x[y == 1].mean(0) - x[y == 0].mean(0)
    np.testing.assert_allclose(found.weights[0], gap / np.linalg.norm(gap))
    np.testing.assert_allclose(scaled.weights, found.weights)  # separation must not grow with the norm


# the sweep on planted truth ------------------------------------------------------------------------------------------


def test_a_planted_direction_is_recovered_and_its_layer_chosen() -> None:
    items = battery_frame(160)
    values, direction = noise(items, 3), np.random.default_rng(9).normal(size=D)
    direction /= np.linalg.norm(direction)
    values[:, 1] += 4 * emotional(items)[:, None] * direction
    report = probe(activations(items, values), rungs=LADDER, progress=False)
    assert report.headline.value > 0.97
    assert report.probes.layer == 1
    for method in ("logistic", "mean_difference"):
        weights = report.probes.at(1, method).weights[0]
        assert abs(weights @ direction / np.linalg.norm(weights)) > (0.99 if method == "mean_difference" else 0.9)
    assert verdict(report.estimate("difference", report.strongest_floor)) == "above its floor"


def test_label_noise_covers_one_half() -> None:
    inside = 0
    for seed in range(12):
        items = battery_frame(40)
        head = probe(activations(items, noise(items, seed=seed)), rungs=("pair",), progress=False).headline
        inside += head.low <= 0.5 <= head.high
    assert inside >= 10  # of 12; fewer has probability 0.02 if intervals cover 0.95


def test_a_topic_confound_shows_on_the_pair_rung_and_falls_on_the_domain_rung() -> None:
    """Each domain has its own direction of affect: known domains are read, unknown ones can't be."""
    items = battery_frame(160, n_domains=8)
    codes = items["domain"].str[1:].astype(int).to_numpy()
    values = noise(items, 1)
    values[np.arange(len(items)), 0, codes] += 60.0  # the domain itself
    values[np.arange(len(items)), 0, 8 + codes] += 8.0 * (2 * emotional(items) - 1)  # affect, its own way
    report = probe(activations(items, values), rungs=LADDER, progress=False)
    assert report.estimate("probe", "logistic", "pair").value > 0.9
    domain = report.estimate("probe", "logistic", "domain")
    assert domain.low < 0.5 < domain.high or domain.value < 0.65
    assert domain.value < report.estimate("probe", "logistic", "pair").value - 0.25


def test_a_lexical_leak_leaves_nothing_above_the_floor() -> None:
    items = battery_frame(120)
    leak = np.random.default_rng(3).random(len(items)) < 0.8
    told = np.where(leak, emotional(items) == 1, emotional(items) == 0)
    items["text"] = [f"{text} {'alas' if t else 'there'}" for text, t in zip(items["text"], told, strict=True)]
    values = noise(items, 1) * 0.3
    values[:, 0, 0] += 5.0 * told
    report = probe(activations(items, values), rungs=LADDER, progress=False)
    assert report.headline.value > 0.7
    assert report.strongest_floor in ("tfidf", "surface", "function_words")
    assert verdict(report.estimate("difference", report.strongest_floor)) == "not distinguishable from its floor"


def test_topic_in_the_category_is_caught_by_the_neutral_partners() -> None:
    items = battery_frame(128)
    values = noise(items, 1) * 0.3
    values[np.arange(len(items)), 0, pd.factorize(items["emotion"])[0]] += 4.0  # in both twins: topic, not emotion
    report = probe(activations(items, values), target="category", rungs=LADDER, progress=False)
    assert report.headline.value > 0.9
    assert report.estimate("control", "neutral_pseudo_label").value > 0.9
    assert "above its floor but not above its neutral partners, so topic could explain it" in report.summary()[0]
    assert any("topic alone could explain" in line for line in report.summary())
    values[emotional(items) == 0, 0] = noise(items, 1)[emotional(items) == 0, 0]
    report = probe(activations(items, values), target="category", rungs=LADDER, progress=False)
    assert ", above its floor.**" in report.summary()[0]
    assert any("more than topic is read" in line for line in report.summary())
    lone = items[(items["role"] == "emotional") | (items["group"] != "s0")]
    acts = activations(lone.reset_index(drop=True), values[lone.index])
    report = probe(acts, target="category", rungs=LADDER, progress=False)
    said = "There is no control on neutral partners: not every emotional item has one neutral partner."
    assert said in report.summary()


def test_floors_below_chance_are_no_help() -> None:
    """A floor that anti-learns must not make a probe at chance look good: then chance is what has to be beaten."""
    down = lambda weights: np.full(len(weights), 0.2)  # noqa: E731
    up = lambda weights: np.full(len(weights), 0.6)  # noqa: E731
    name, statistic = _strongest({"tfidf": down, "surface": down}, 0.5, 4)
    assert (name, statistic(np.ones((2, 4))).tolist()) == ("chance", [0.5, 0.5])
    assert _strongest({"tfidf": down, "surface": up}, 0.5, 4)[0] == "surface"


def test_test_items_choose_nothing() -> None:
    """Held-out values can be anything: choices and the other folds' scores stay the same."""
    items = battery_frame(40)
    asked = select(items, "affect")
    part = part_of(asked)
    folds, x = part.folds, noise(asked.items, 3)
    first = sweep(lambda _: x, part)[""]
    wild = np.where((folds == 0)[:, None, None], 1e3 * noise(asked.items, 3, seed=5), x)

    again = sweep(lambda _: wild, part)[""]
    assert not np.allclose(first.nested["logistic"][folds == 0], again.nested["logistic"][folds == 0])
    assert first.layers[0] == again.layers[0]


def test_a_layer_chosen_on_the_scored_items_would_be_better_than_the_nested_one() -> None:
    """On noise, the best of forty layers looks good; the nested score does not."""
    items = battery_frame(40)
    report = probe(activations(items, noise(items, 40, seed=4)), rungs=("pair",), progress=False)
    curve = report.scores[(report.scores["reader"] == "logistic") & (report.scores["layer"] >= 0)]
    assert curve["value"].max() > max(0.65, report.headline.value)
    assert report.headline.low < 0.5


# floors --------------------------------------------------------------------------------------------------------------


def test_floors_see_what_they_are_for() -> None:
    items = battery_frame(64)
    asked = select(items, "affect")
    base = [f"scene {i} stood by the wall" for i in range(len(asked.y))]
    part = part_of(asked)
    marks = {
        "tfidf": [f"{t} {'storm' if y else 'calm'}" for t, y in zip(base, asked.y, strict=True)],
        "function_words": [f"{t} {'never' if y else 'often'}" for t, y in zip(base, asked.y, strict=True)],
        "surface": [f"{t}{', , ,' if y else ''}" for t, y in zip(base, asked.y, strict=True)],
    }
    for name in FLOORS:
        scores = floor(name, marks[name], part)[""].headline[:, 0]
        assert ((scores > 0) == asked.y).mean() > 0.95, name
    blind = floor("function_words", marks["tfidf"], part)[""].headline[:, 0]
    assert abs(((blind > 0) == asked.y).mean() - 0.5) < 0.2


def test_tfidf_learns_its_words_from_the_training_rows() -> None:
    texts = ["red red blue", "blue green", "zebra"]
    features = tfidf(texts)(np.array([0, 1]))
    assert features.shape == (3, 1, 2)  # the span of the two training texts
    assert (features[2] == 0).all()
    np.testing.assert_allclose(features[:2, 0] @ features[:2, 0].T, np.array([[1, 0.13], [0.13, 1]]), atol=0.05)


def test_feature_values_by_hand() -> None:
    rates = function_word_rates(["She did not go, and he didn't."])
    assert rates.sum() == pytest.approx(6 / 7)  # all but "go"
    assert rates[0, 0, -1] == pytest.approx(1 / 7)  # didn't
    surface = surface_features(["One two. One, three!"])[0, 0]
    assert surface[:6].tolist() == [20, 4, 2, 2, pytest.approx(14 / 4), 3 / 4]


# crossed -------------------------------------------------------------------------------------------------------------


def planted_quadruples(weight: float, in_fact: float) -> ProbeReport:
    """Affect on dimension 0; binding adds to it in ax and by of ``crossed`` (and ``in_fact`` of the other)."""
    items = battery_frame(80, n_quads=12)
    values = noise(items, 2) * 0.5
    values[:, :, 0] += 4.0 * (emotional(items) * (items["split"] == "vignettes").to_numpy())[:, None]
    bound = items["cell"].isin(["ax", "by"]).to_numpy()
    for name, size in (("crossed", weight), ("crossed_fact", in_fact)):
        values[bound & (items["split"] == name).to_numpy(), :, 0] += size
    main_effect = items["cell"].isin(["ax", "bx"]).to_numpy()
    values[main_effect, :, 0] += 30.0  # one ending is loud; it must not matter
    return probe(activations(items, values), rungs=LADDER, progress=False)


def chosen(report: ProbeReport, name: str) -> pd.Series:
    rows = report.crossed[(report.crossed["split"] == name) & report.crossed["chosen"]]
    return rows[rows["method"] == "logistic"].iloc[0]


def test_planted_affect_wins_on_crossed_and_is_told_from_binding() -> None:
    report = planted_quadruples(4.0, 0.0)
    assert chosen(report, "crossed")["wins"] == 1.0
    assert chosen(report, "crossed")["p"] == 2 / 2**12
    assert "affect beyond binding is shown" in " ".join(report.summary())
    bound = planted_quadruples(4.0, 4.0)
    assert chosen(bound, "crossed_fact")["wins"] > 0.9
    assert "no affect beyond binding is shown" in " ".join(bound.summary())


def test_nothing_planted_wins_about_half() -> None:
    row = chosen(planted_quadruples(0.0, 0.0), "crossed")
    assert row["wins_low"] <= 0.5 <= row["wins_high"]
    assert row["p_adjusted"] > 0.05


def test_an_additive_reader_is_exactly_undecided() -> None:
    items = battery_frame(0, n_quads=6)
    parts = items["cell"].str[0].map({"a": 3.0, "b": -8.0}) + items["cell"].str[1].map({"x": 11.0, "y": 5.0})
    for name in ("crossed", "crossed_fact"):
        assert (differences(parts.to_numpy(), quadruples(items, name)) == 0).all()


def test_incomplete_quadruples_are_left_out() -> None:
    items = battery_frame(0, n_quads=3)
    kept = items.drop(index=items.index[items["id"] == "crossed1.by"]).reset_index(drop=True)
    assert len(quadruples(kept, "crossed")) == 2
    assert len(quadruples(items[items["split"] == "x"], "crossed")) == 0


def test_beyond_binding_is_welchs_test() -> None:
    from scipy import stats

    rng = np.random.default_rng(5)
    a, b = rng.normal(1, 1, 12), rng.normal(0, 2, 7)
    found = beyond_binding(a, b)
    welch: Any = stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(welch.pvalue)
    assert (found.low > 0) == (found.p is not None and found.p < 0.05 and found.value > 0)


def test_crossed_is_read_at_the_ending_when_it_was_captured() -> None:
    items = battery_frame(60, n_quads=4)
    mean, ending = noise(items), noise(items, seed=1)
    ending[:, :, 0] += 4.0 * emotional(items)[:, None]
    report = probe(activations(items, mean, ending=ending), rungs=LADDER, progress=False)
    assert report.meta["crossed_position"] == "ending"
    assert chosen(report, "crossed")["wins"] == 1.0
    assert report.headline.value < 0.8


# saved probes and reports --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> ProbeReport:
    items = battery_frame(40, n_quads=3)
    decoys = items.iloc[:6].assign(role="decoy", split="decoys", group=[f"x{i}" for i in range(6)])
    items = pd.concat([items, decoys], ignore_index=True)
    values = noise(items)
    values[:, 0, 0] += 3.0 * emotional(items)
    return probe(activations(items, values), progress=False, seed=3)


def test_probes_round_trip_and_score_raw_activations(report: ProbeReport, tmp_path: Path) -> None:
    items = battery_frame(40)
    acts = activations(items, noise(items, seed=8))
    path = report.probes.save(tmp_path / "deep" / "p.safetensors")
    loaded = Probes.load(path)
    np.testing.assert_array_equal(loaded.score(acts), report.probes.score(acts))
    probe_at = loaded.at(1, "mean_difference")
    np.testing.assert_allclose(
        loaded.score(acts, layer=1, method="mean_difference"), probe_at(acts.at()[:, 1].astype(float))
    )
    assert [p.name for p in path.parent.iterdir()] == ["p.safetensors"]


def test_probes_refuse_another_model_site_layer_and_a_damaged_file(report: ProbeReport, tmp_path: Path) -> None:
    from affectlens.testing import tiny_model

    path = report.probes.save(tmp_path / "p.safetensors")
    with pytest.raises(StoreError, match=r"fitted on planted \(ffffffffffff\) and cannot read .* affectlens probe"):
        Probes.load(path, tiny_model("llama", check=False))
    items = battery_frame(4)
    acts = activations(items, noise(items))
    with pytest.raises(StoreError, match="fitted on planted"):
        report.probes.score(dataclasses.replace(acts, fingerprint="0" * 32))
    with pytest.raises(StoreError, match="These probes read resid_post"):
        report.probes.score(dataclasses.replace(acts, values={"mlp_out": acts.values["resid_post"]}))
    with pytest.raises(StoreError, match="no logistic probe of layer 9: .* layers 0 to 1"):
        report.probes.at(9)
    for content in (path.read_bytes()[:50], b"", b"x" * 500):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="not a readable file of AffectLens probes"):
            Probes.load(path)


def test_a_report_writes_and_loads_itself(report: ProbeReport, tmp_path: Path) -> None:
    report.save(tmp_path)
    loaded = ProbeReport.load(tmp_path, "affect")
    assert loaded.summary() == report.summary()
    assert loaded.meta == report.meta
    for name in ("scores", "crossed", "false_alarms"):
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(report, name))


def test_a_report_draws_itself(report: ProbeReport) -> None:
    html = report._repr_html_()
    assert "<h3>affect</h3>" in html
    assert "<strong>" in html
    curve, quads = (cast(Any, fig).data for fig in (report.plot(), report.plot_crossed()))
    names = {trace.name for trace in curve}
    assert {"logistic probe", "mean-difference probe", "chance"} <= names
    assert any(str(name).startswith("TF-IDF words") for name in names)
    assert len(quads) > 3
    assert "**" not in repr(report)


def test_every_score_has_an_interval_and_the_same_seed_gives_the_same_report(report: ProbeReport) -> None:
    table = report.scores
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    kinds = {"probe", "floor", "difference", "control", "beyond_control", "beyond_linear", "conditional"}
    assert kinds == set(table["kind"])  # and no selectivity: these texts share no words over folds
    assert set(report.false_alarms["split"]) == {"decoys"}
    again = probe(_acts_of(report), progress=False, seed=3)
    pd.testing.assert_frame_equal(again.scores, table)


def _acts_of(report: ProbeReport):  # type: ignore[no-untyped-def]
    items = battery_frame(40, n_quads=3)
    decoys = items.iloc[:6].assign(role="decoy", split="decoys", group=[f"x{i}" for i in range(6)])
    items = pd.concat([items, decoys], ignore_index=True)
    values = noise(items)
    values[:, 0, 0] += 3.0 * emotional(items)
    return activations(items, values)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.3, "above its floor"),
        (-0.3, -0.01, "below its floor"),
        (-0.1, 0.1, "not distinguishable from its floor"),
    ],
)
def test_verdicts(low: float, high: float, said: str) -> None:
    assert verdict(Estimate((low + high) / 2, low, high, 30, "pair")) == said


def test_a_saturated_probe_keeps_an_interval_of_its_difference() -> None:
    items = battery_frame(80)
    values = noise(items, 1) * 0.1
    values[:, 0, 0] += 9.0 * emotional(items)
    report = probe(activations(items, values), rungs="pair", progress=False)
    assert report.headline.value == 1.0
    gap = report.estimate("difference", report.strongest_floor)
    assert gap.high - gap.low > 0.03
    assert gap.low < gap.value <= gap.high


def test_every_fold_of_a_binary_target_has_something_to_compare() -> None:
    items = battery_frame(20)
    asked = select(items, "valence")
    for rung in ("pair", "domain"):
        grouping = keys(asked.items, rung)
        if not isinstance(grouping, str):
            folds = split(grouping, asked.y, 8)
            assert all(set(asked.y[folds == f]) == {0, 1} for f in np.unique(folds))
    told = items.assign(valence=items["domain"].map(lambda d: 1 if d < "d4" else -1) * (items["role"] == "emotional"))
    report = probe(activations(told, noise(told)), target="valence", rungs=LADDER, progress=False)
    assert np.isfinite(report.scores[["value", "low", "high"]].to_numpy()).all()


def test_two_domains_leave_the_pair_rung_standing() -> None:
    items = battery_frame(24, n_domains=2)
    report = probe(activations(items, noise(items)), rungs=LADDER, progress=False)
    assert report.rungs == ("pair",)
    assert report.meta["skipped"] == {"domain": "there are only two domains"}


def test_partners_with_another_emotion_are_no_control() -> None:
    items = battery_frame(64)
    swapped = items.assign(emotion=np.where(items["role"] == "neutral", "joy", items["emotion"]))
    report = probe(activations(swapped, noise(swapped, 1)), target="category", rungs="pair", progress=False)
    assert report.meta["no_control"] == "some neutral items do not carry their partner's emotion"
    assert not report.has("control", "neutral_pseudo_label")


def test_two_items_in_one_cell_are_refused() -> None:
    items = battery_frame(0, n_quads=3)
    twice = pd.concat([items, items.iloc[:1]], ignore_index=True)
    with pytest.raises(BatteryError, match="Quadruple crossed0 has two items in cell ax"):
        quadruples(twice, "crossed")


def test_unknown_target_and_no_rung() -> None:
    items = battery_frame(20)
    with pytest.raises(BatteryError, match="no target 'mood'; choose from affect, category, valence"):
        probe(activations(items, noise(items)), target="mood")
    with pytest.raises(BatteryError, match="No rung applies to affect: domain: there is only one domain"):
        probe(activations(battery_frame(20, n_domains=1), noise(items)), rungs=("domain",))
    with pytest.raises(BatteryError, match="No rung applies"):
        lone = battery_frame(4, n_domains=2)
        lone = lone[(lone["role"] == "neutral") == (lone["domain"] == "d0")].reset_index(drop=True)
        probe(activations(lone, noise(lone)), rungs=("domain",))


def test_score_needs_three_quadruples() -> None:
    items = battery_frame(20, n_quads=2)
    acts = activations(items, noise(items))
    fitted = probe(activations(battery_frame(20), noise(battery_frame(20))), rungs=LADDER, progress=False).probes
    assert score(acts, fitted).empty
