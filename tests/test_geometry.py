"""The geometry of emotion directions: laws, SciPy and scikit-learn, planted truth, and the level of each test."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial import procrustes
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

from affectlens.capturing import capture
from affectlens.errors import BatteryError, CaptureError, RunError
from affectlens.model import LensModel
from affectlens.probing.geometry import (
    Directions,
    GeometryReport,
    agreement,
    circumplex,
    cka,
    geometry,
    means,
    norm_contrast,
    rsa,
    silhouettes,
    terms,
    tree_agreement,
    word_means,
)
from affectlens.probing.geometry.circle import STATISTICS
from affectlens.probing.geometry.clusters import scores
from affectlens.probing.geometry.curves import curve
from affectlens.probing.geometry.grams import cosines, principal
from affectlens.probing.geometry.kernels import _moves
from affectlens.probing.geometry.models import coordinates, models, steps
from affectlens.probing.geometry.nulls import compare, orders, orders_within
from affectlens.probing.geometry.relating import null
from affectlens.probing.geometry.scenes import blocks
from affectlens.stimuli import load_battery
from affectlens.stimuli.norms import VAD, norms
from affectlens.stimuli.taxonomy import EMOTIONS
from affectlens.store import Activations
from tests.conftest import activations, battery_frame

D = 24
WORDS = tuple(norms())


def planted(seed: int = 0, strength: float = 0.0, scenes: int = 64, layers: int = 2) -> Activations:
    """A battery of noise, each emotion with a direction of its own of this strength; the scene's own part cancels."""
    items = battery_frame(scenes)
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(items), layers, D)) + 5 * rng.normal(size=(scenes, 1, D)).repeat(2, axis=0)
    own = rng.normal(size=(8, D))
    up = (items["role"] == "emotional").to_numpy()
    codes = np.array([EMOTIONS.index(e) for e in items["emotion"]])
    values[up] += strength * own[codes[up]][:, None]
    return activations(items, values)


def spoken(layout: np.ndarray, seed: int = 0, noise: float = 0.3, words: tuple[str, ...] = WORDS) -> Directions:
    """Words that lie in a plane of a space of noise, in carriers that each add something of their own."""
    table = terms(words).frame()
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(40, layout.shape[1])))[0].T
    codes = pd.factorize(table["word"])[0]
    values = (layout @ axes)[codes] + noise * rng.normal(size=(len(words), 40))[codes] / np.sqrt(40)
    values = values + 9 * rng.normal(size=(6, 40))[table["carrier"]] + 0.05 * rng.normal(size=(len(table), 40))
    return word_means(activations(table, values[:, None]), nouns_only=False)


def rated(words: tuple[str, ...] = WORDS) -> tuple[np.ndarray, np.ndarray]:
    """Standardised valence and arousal."""
    vad = coordinates(words)[:, :2]
    vad = (vad - vad.mean(0)) / vad.std(0)
    return vad[:, 0], vad[:, 1]


def cell(table: pd.DataFrame, name: str, column: str = "value") -> float:
    """One number of a table whose index is ``name``'s."""
    return float(table[column].to_dict()[name])


# directions ----------------------------------------------------------------------------------------------------------


def test_a_direction_is_the_mean_over_scenes_of_emotional_less_neutral() -> None:
    acts = planted(strength=1.0)
    found, items, x = means(acts), acts.items, acts.at("mean").astype(float)
    fear = items["emotion"] == "fear"
    up, down = (x[(fear & (items["role"] == role)).to_numpy()].mean(0) for role in ("emotional", "neutral"))
    np.testing.assert_allclose(found.raw[:, found.names.index("fear")], up - down, atol=1e-6)
    np.testing.assert_allclose(found.centred.sum(1), 0, atol=1e-10)
    np.testing.assert_allclose(found.gram, found.centred @ found.centred.swapaxes(-1, -2), atol=1e-9)


def test_a_scene_without_partner_is_left_out_and_counted() -> None:
    acts = planted()
    kept = np.flatnonzero(acts.items["id"] != "s3.neutral")
    fewer = activations(acts.items.iloc[kept].reset_index(drop=True), acts.at("mean")[kept])
    found = means(fewer)
    assert (len(found.table), found.about["dropped"]) == (63, 1)
    with pytest.raises(BatteryError, match="at least three emotions"):
        means(activations(acts.items.iloc[:4], acts.at("mean")[:4]))
    with pytest.raises(BatteryError, match="have no role"):
        means(activations(acts.items.drop(columns="role"), acts.at("mean")))


def test_reliability_is_what_all_split_halves_give_with_spearman_brown() -> None:
    found = means(planted(strength=0.5, layers=1))
    rng, shared, square = np.random.default_rng(0), 0.0, 0.0
    for _ in range(1500):
        sides = np.zeros((2, 8, 64))
        for k in range(8):
            order = rng.permutation(np.flatnonzero(found.labels == k))
            sides[0, k, order[:4]] = sides[1, k, order[4:]] = 0.25
        a, b = (side @ found.values[0] for side in sides)
        a, b = a - a.mean(0), b - b.mean(0)
        shared, square = shared + (a * b).sum(), square + ((a**2).sum() + (b**2).sum()) / 2
    half = shared / square
    table = found.reliability().query("name == 'all'")
    assert table["value"].iloc[0] == pytest.approx(2 * half / (1 + half), abs=0.01)
    assert table["low"].iloc[0] < table["value"].iloc[0] < table["high"].iloc[0]


def test_reliability_of_noise_is_around_zero_and_of_repetition_one() -> None:
    noise = [means(planted(seed, scenes=32, layers=1)).reliability()["value"].iloc[0] for seed in range(30)]
    assert abs(np.mean(noise)) < 3 * np.std(noise) / np.sqrt(30)
    valence, arousal = rated()
    assert spoken(np.stack([valence, arousal], 1)).reliability()["value"].iloc[0] > 0.99


def test_what_a_carrier_adds_is_removed() -> None:
    valence, arousal = rated()
    found = spoken(np.stack([valence, arousal], 1), noise=0.0)
    np.testing.assert_allclose(found.raw.mean(1), 0, atol=1e-6)
    lengths = np.sqrt(np.diagonal(found.gram[0]))
    np.testing.assert_allclose(lengths, np.hypot(valence, arousal), atol=0.3)  # a carrier's share has length 57


def test_agreement_is_found_where_it_is_and_is_uniform_where_it_is_not() -> None:
    assert (agreement(means(planted(strength=0.6)), draws=199)["p_adjusted"] <= 0.01).all()
    p = [agreement(means(planted(seed, scenes=32, layers=1)), seed=seed, draws=99)["p"].iloc[0] for seed in range(40)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


# cosines and the valence axis ----------------------------------------------------------------------------------------


def test_cosines_are_those_of_centred_directions_and_blind_to_scale_rotation_and_shift() -> None:
    found = means(planted(strength=1.0))
    unit = found.centred / np.linalg.norm(found.centred, axis=-1, keepdims=True)
    np.testing.assert_allclose(cosines(found.gram), unit @ unit.swapaxes(-1, -2), atol=1e-9)
    acts = planted(strength=1.0)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))[0]
    moved = means(activations(acts.items, 300 * acts.at("mean") @ turn + 7))
    np.testing.assert_allclose(cosines(moved.gram), cosines(found.gram), atol=1e-4)


def test_nothing_of_the_valence_axis_is_left() -> None:
    items = battery_frame(64)
    items["valence"] = np.where(items["role"] == "neutral", 0, np.where(items["emotion"].isin(["joy", "trust"]), 1, -1))
    acts = planted(strength=1.0)
    found = means(activations(items, acts.at("mean")))
    for contrast in (None, norm_contrast(found.names)):
        axis, bare = found.valence_axis(contrast), found.without_valence(contrast)
        along = np.einsum("lnd,ld->ln", bare.raw, axis / np.linalg.norm(axis, axis=-1, keepdims=True))
        assert np.abs(along).max() < 1e-13 * np.abs(found.raw).max()
        assert np.abs(np.einsum("lrd,ld->lr", bare.values, axis)).max() < 1e-11
        assert np.linalg.matrix_rank(bare.gram[0], tol=1e-6) == np.linalg.matrix_rank(found.gram[0], tol=1e-6) - 1
        assert bare.valence_removed
        np.testing.assert_allclose(
            np.einsum("lnd,lnd->l", bare.centred, bare.centred), np.trace(bare.gram.T), rtol=1e-9
        )
    up = (items["role"] == "emotional").to_numpy()
    x = acts.at("mean").astype(float)[up] - acts.at("mean").astype(float)[~up]
    signs = items["valence"].to_numpy()[up]
    np.testing.assert_allclose(found.valence_axis(), x[signs > 0].mean(0) - x[signs < 0].mean(0), atol=1e-5)


def test_words_have_no_valence_but_the_norms() -> None:
    found = spoken(np.stack(rated(), 1))
    with pytest.raises(BatteryError, match="give norm_contrast"):
        found.without_valence()


# RSA -----------------------------------------------------------------------------------------------------------------


def test_rsa_is_spearmans_correlation_and_its_exact_null_that_of_all_orders() -> None:
    found = means(planted(strength=0.7, layers=1))
    table = rsa(found).set_index("model")
    i, j = np.triu_indices(8, 1)
    neural = (1 - cosines(found.gram))[0][i, j]
    valence = coordinates(EMOTIONS)[:, 0]
    wanted = np.abs(valence[:, None] - valence)
    assert cell(table, "valence", "value") == pytest.approx(stats.spearmanr(neural, wanted[i, j])[0])
    moved, exact = orders(8)
    assert exact
    some = [stats.spearmanr(neural, wanted[np.ix_(o, o)][i, j])[0] for o in moved[::500]]
    assert np.mean(np.array(some) >= cell(table, "valence", "value")) == pytest.approx(
        cell(table, "valence", "p"), abs=0.15
    )
    ranks = [stats.rankdata(v) for v in (neural, np.abs(np.subtract.outer(*[coordinates(EMOTIONS)[:, 1]] * 2))[i, j])]
    basis = np.stack([np.ones(28), stats.rankdata(wanted[i, j])], 1)
    left = [r - basis @ np.linalg.lstsq(basis, r, rcond=None)[0] for r in ranks]
    assert cell(table, "arousal given valence", "value") == pytest.approx(np.corrcoef(*left)[0, 1])
    assert cell(table, "wheel", "attainable") == pytest.approx(16 / 40320)  # the wheel's own turns and reflections


def test_rsa_finds_a_planted_wheel_and_not_valence_in_it() -> None:
    angle = np.arange(8) * np.pi / 4
    items = battery_frame(64)
    codes = np.array([EMOTIONS.index(e) for e in items["emotion"]])
    values = np.random.default_rng(0).normal(size=(len(items), 1, D)) * 0.2
    values[:, 0, :2] += (
        np.stack([np.cos(angle), np.sin(angle)], 1)[codes] * (items["role"] == "emotional").to_numpy()[:, None]
    )
    table = rsa(means(activations(items, values))).set_index("model")
    assert cell(table, "wheel", "value") > 0.9
    assert cell(table, "wheel", "low") > 0.7
    assert cell(table, "wheel", "p") <= 0.001
    assert cell(table, "wheel given valence", "p") <= 0.001


def test_rsa_of_words_is_blind_to_scale_and_order_of_items() -> None:
    valence, arousal = rated()
    found = spoken(np.stack([valence, arousal], 1))
    values = rsa(found, draws=99).set_index("model")["value"]
    assert values["valence"] > 0.4
    mixed = np.random.default_rng(3).permutation(len(WORDS))
    other = spoken(50 * np.stack([valence, arousal], 1)[mixed], noise=15.0, words=tuple(WORDS[k] for k in mixed))
    assert cell(rsa(other, draws=99).set_index("model"), "valence") == pytest.approx(values["valence"], abs=0.05)


def test_p_of_rsa_is_uniform_on_noise() -> None:
    asked = {model.name: model for model in models(EMOTIONS)[0]}
    noise = [means(planted(seed, layers=1)) for seed in range(40)]
    for name in ("valence", "arousal given valence", "wheel given valence"):
        p = [null(found, asked[name]).p[0] for found in noise]
        assert stats.kstest(p, "uniform").pvalue > 0.01, name


def test_models_that_do_not_apply_are_named_with_the_reason() -> None:
    found, skipped = models(("joy", "fear", "anger", "qualm"))
    assert found == []
    assert skipped["norms"] == "3 of the names have norms, and 5 are needed"
    assert set(skipped) == {"norms", "wheel", "category"}
    np.testing.assert_array_equal(steps(["joy", "sadness", "anticipation"])[0], [0, 4, 1])


# nulls ---------------------------------------------------------------------------------------------------------------


def test_max_t_is_the_family_wise_p() -> None:
    rng = np.random.default_rng(0)
    hits = [compare(rng.normal(size=6), rng.normal(size=(99, 6))).p_adjusted.min() <= 0.05 for _ in range(300)]
    assert stats.binomtest(sum(hits), 300, 0.05, alternative="greater").pvalue > 0.001
    found = compare(np.array([3.0, np.nan]), rng.normal(size=(99, 2)))
    assert (found.p[1], found.p_adjusted[1]) == (1, 1)


def test_orders_within_blocks_never_leave_them() -> None:
    among = np.array([0, 1, 0, 2, 1, 0])
    for order in orders_within(among, draws=50):
        np.testing.assert_array_equal(among[order], among)
        assert sorted(order) == list(range(6))


# CKA -----------------------------------------------------------------------------------------------------------------


def test_cka_of_itself_is_one_and_blind_to_rotation_scale_and_order() -> None:
    acts = planted(strength=1.0)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))[0]
    table = cka(acts, activations(acts.items, 3 * acts.at("mean") @ turn + 2), draws=19)
    same = table[table["a"] == table["b"]]
    np.testing.assert_allclose(same[["value", "biased"]], 1, atol=1e-5)
    order = np.random.default_rng(2).permutation(len(acts))
    mixed = activations(acts.items.iloc[order].reset_index(drop=True), acts.at("mean")[order])
    np.testing.assert_allclose(cka(mixed, draws=19)["value"], cka(acts, draws=19)["value"], atol=1e-6)


def test_cka_is_kornbliths_formula_and_debiased_is_songs() -> None:
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"id": [f"i{k}" for k in range(12)], "text": "x"})
    x, y = rng.normal(size=(12, 5)), rng.normal(size=(12, 7))
    found = cka(activations(items, x[:, None]), activations(items, y[:, None]), draws=19).iloc[0]
    x, y = x - x.mean(0), y - y.mean(0)
    plain = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert found["biased"] == pytest.approx(plain, rel=1e-5)

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n, one = len(k), np.ones(len(k))
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        last = 2 / (n - 2) * one @ k @ m @ one
        return float((np.trace(k @ m) + one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - last) / (n * (n - 3)))

    k, m = x @ x.T, y @ y.T
    assert found["value"] == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)), rel=1e-4)


def test_debiased_cka_of_independent_noise_is_near_zero_and_the_biased_one_is_not() -> None:
    items = pd.DataFrame({"id": [f"i{k}" for k in range(40)], "text": "x"})
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = (activations(items, rng.normal(size=(40, 1, 200))) for _ in range(2))
        found.append(cka(a, b, seed=seed, draws=39).iloc[0])
    table = pd.DataFrame(found).astype({"value": float, "p": float, "biased": float})
    assert abs(table["value"].mean()) < 4 * table["value"].std() / np.sqrt(40)
    assert table["biased"].min() > 0.7
    assert stats.kstest(table["p"], "uniform").pvalue > 0.01


def test_cka_leaves_out_and_moves_whole_groups() -> None:
    """Each scene's twins are alike in both models, the scenes are not: that is no agreement of the models."""
    rng = np.random.default_rng(0)
    items = battery_frame(32)
    pair = [activations(items, rng.normal(size=(32, 1, 50)).repeat(2, axis=0)) for _ in range(2)]
    found = cka(*pair, draws=99).iloc[0]
    assert found["n"] == 32
    assert found["null"] > 0.1
    assert found["p"] > 0.05
    assert cka(*pair, rows="scenes", draws=19)["value"].abs().max() < 0.5
    with pytest.raises(CaptureError, match="compares the same items"):
        cka(pair[0], planted(scenes=40))


def test_the_null_of_cka_puts_whole_groups_in_each_others_place_role_on_role() -> None:
    codes = np.array([0, 0, 1, 2, 1, 2, 3])
    roles = ["emotional", "neutral", "neutral", "emotional", "emotional", "neutral", "emotional"]
    moved = _moves(codes, roles, 0, 60)
    for order in moved:
        assert [roles[k] for k in order] == roles
        assert sorted(order) == list(range(7))
        for group in range(4):
            assert len(set(codes[order][codes == group])) == 1
        assert order[6] == 6  # of a make-up of its own
    assert len({tuple(order) for order in moved}) == 6


# circumplex ----------------------------------------------------------------------------------------------------------


def test_the_fit_is_scipys_procrustes() -> None:
    valence, arousal = rated()
    found = spoken(np.stack([valence, arousal], 1), noise=2.0)
    table = circumplex(found, draws=19).table.set_index("statistic")
    points, share = principal(found.gram)
    target = np.stack([valence, arousal], 1)
    assert cell(table, "fit", "value") == pytest.approx(1 - procrustes(target, points[0])[2], abs=1e-9)
    size = np.linalg.svd(found.centred[0], compute_uv=False) ** 2
    assert cell(table, "variance in the plane", "value") == pytest.approx(size[:2].sum() / size.sum()) == share[0]


def test_a_planted_circumplex_is_found_whatever_the_scale_rotation_and_shift() -> None:
    valence, arousal = rated()
    first, second = (spoken(k * np.stack([valence, arousal], 1), seed, noise=k) for k, seed in ((1.0, 0), (400.0, 1)))
    for found in (first, second):
        result = circumplex(found, draws=499)
        at = result.table.set_index("statistic")
        assert result.claim(0) == "circumplex"
        assert cell(at, "fit", "value") > 0.8
        assert cell(at, "arousal given valence", "low") > 0
    where = result.coordinates
    assert np.corrcoef(where["x"], where["valence"])[0, 1] > 0.9
    assert np.corrcoef(where["y"], where["arousal"])[0, 1] > 0.9
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(40, 40)))[0]
    acts = activations(terms().frame(), 7 * np.repeat(first.raw[0], 6, axis=0)[:, None] @ turn + 3)
    again = circumplex(word_means(acts, nouns_only=False), draws=19).table
    np.testing.assert_allclose(again["value"], circumplex(first, draws=19).table["value"], atol=1e-5)


@pytest.mark.parametrize("bend", [0.0, 0.6])
def test_a_valence_axis_straight_or_bent_is_not_called_a_circumplex(bend: float) -> None:
    valence, _ = rated()
    layout = np.stack([valence, bend * (valence**2 - 1)], 1)
    claims = [circumplex(spoken(layout, seed, noise=0.8), seed=seed, draws=199).claim(0) for seed in range(10)]
    assert claims.count("valence axis") >= 8


def test_a_horseshoe_is_not_arousal_where_people_find_both_ends_of_valence_arousing() -> None:
    rng = np.random.default_rng(0)
    valence, _ = rated()
    arousal = 5 + valence**2 + 0.4 * rng.normal(size=len(valence))
    people = {w: VAD(5 + 2 * v, a, 5.0) for w, v, a in zip(WORDS, valence, arousal, strict=True)}
    found = spoken(np.stack([valence, valence**2 - 1], 1), noise=0.5)
    result = circumplex(found, norms=people, draws=199)
    assert cell(result.table.set_index("statistic"), "arousal") > 0.7
    assert result.claim(0) == "valence axis"


def test_noise_is_called_nothing_and_its_p_is_uniform() -> None:
    words = WORDS[:30]
    p: dict[str, list[float]] = {name: [] for name in STATISTICS[:4]}
    for seed in range(40):
        table = circumplex(spoken(np.zeros((30, 2)), seed, 1.0, words), seed=seed, draws=99).table
        for name, found in p.items():
            found.append(cell(table.set_index("statistic"), name, "p"))
    for name, found in p.items():
        assert stats.kstest(found, "uniform").pvalue > 0.01, name


def test_fewer_than_24_points_are_given_numbers_and_refused_the_claim() -> None:
    found = circumplex(means(planted(strength=1.0, layers=1)))
    assert found.claim(0) == "refused"
    assert found.refusal == "Eight points cannot tell a circle from one valence axis: a claim needs 24 terms."
    assert found.table["value"].notna().all()
    valence, arousal = rated()
    some = spoken(np.stack([valence, arousal], 1)[:23], words=WORDS[:23])
    assert circumplex(some, draws=99).claim(0) == "refused"
    with pytest.raises(BatteryError, match="2 of the names have norms"):
        circumplex(spoken(np.eye(4)[:, :2], words=("joy", "fear", "qualm", "zorn")))


# clusters and trees --------------------------------------------------------------------------------------------------


def test_silhouettes_are_sklearns_and_leaving_out_is_deleting() -> None:
    found = means(planted(strength=0.5, layers=1))
    x = found.values[0] - found.values[0].mean(0)
    table = silhouettes(found, draws=19)
    assert table["value"].iloc[0] == pytest.approx(silhouette_score(x, found.labels, metric="cosine"))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance, weight = 1 - unit @ unit.T, np.ones((1, 64))
    weight[0, 5] = 0
    kept = np.arange(64) != 5
    theirs = silhouette_score(
        distance.clip(0)[np.ix_(kept, kept)] * (1 - np.eye(63)), found.labels[kept], metric="precomputed"
    )
    assert scores(distance[None], found.labels, weight)[0, 0, 0] == pytest.approx(theirs)


def test_silhouettes_see_emotions_and_beyond_valence_only_what_is_beyond_it() -> None:
    items = battery_frame(64)
    good = items["emotion"].isin(["joy", "trust", "surprise", "anticipation"]).to_numpy()
    up = (items["role"] == "emotional").to_numpy()
    items["valence"] = np.where(up, np.where(good, 1, -1), 0)
    values = 0.5 * np.random.default_rng(0).normal(size=(len(items), 1, D))
    values[up, 0, 0] += np.where(good, 2.0, -2.0)[up]
    found = means(activations(items, values))
    assert silhouettes(found, draws=199)["p"].iloc[0] <= 0.01
    assert silhouettes(found.without_valence(), draws=199)["p"].iloc[0] > 0.05
    assert set(blocks(found, valence=True)) != set(blocks(found))
    p = [silhouettes(means(planted(seed, scenes=32, layers=1)), seed=seed, draws=99)["p"].iloc[0] for seed in range(40)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_trees_are_found_in_words_laid_out_by_them() -> None:
    from affectlens.stimuli.schemes import tiers

    tiered = [tiers(w) or (w, w) for w in WORDS]
    first, second = (pd.factorize(np.array([t[k] for t in tiered]))[0] for k in (0, 1))
    layout = np.concatenate([2 * np.eye(first.max() + 1)[first], np.eye(second.max() + 1)[second]], 1)
    table = np.random.default_rng(0).normal(size=(len(WORDS), 120)) * 0.05
    table[:, : layout.shape[1]] += layout
    found = word_means(activations(terms().frame(), table.repeat(6, axis=0)[:, None]), nouns_only=False)
    row = tree_agreement(found, draws=199).query("tree == 'Parrott'").to_dict("records")[0]
    assert row["value"] > 0.8
    assert row["p"] == 1 / 200
    kept = np.array([k for k, w in enumerate(WORDS) if tiers(w)])
    distance = (1 - cosines(found.gram[0]))[np.ix_(kept, kept)]
    joined = cophenet(linkage(squareform(distance, checks=False), "average"))
    shared = np.array([[0 if a == b else 3 - (tiered[a][0] == tiered[b][0]) - (tiered[a] == tiered[b]) for b in kept]
                       for a in kept])  # fmt: skip
    assert row["value"] == pytest.approx(np.corrcoef(joined, squareform(shared))[0, 1])


# intervals -----------------------------------------------------------------------------------------------------------


def test_intervals_of_emotions_resample_scenes_and_those_of_words_leave_words_out() -> None:
    found = means(planted(strength=1.0, layers=1))
    made = curve(found, lambda gram, kept: np.trace(gram, axis1=-2, axis2=-1)[:, None])
    assert made.resampled.shape == (2000, 1, 1)
    words = spoken(np.stack(rated(), 1))
    sizes = []
    curve(words, lambda gram, kept: sizes.append(len(kept)) or gram[:, :1, 0])  # type: ignore[func-returns-value]
    assert sizes[0] == 115
    assert sum(115 - n for n in sizes[1:]) == 115


# report, terms, command ----------------------------------------------------------------------------------------------


def test_terms_are_words_at_the_end_of_carriers(llama: LensModel) -> None:
    table = terms().frame()
    assert len(table) == 115 * 6
    assert all(row["text"][row["ending"] :] == row["word"] for row in table.to_dict("records"))
    small = terms(["joy", "grief", "calm"])
    acts = capture(llama, small, positions=["ending", "last"], progress=False)
    assert word_means(acts, nouns_only=False).names == ("joy", "grief", "calm")
    with pytest.raises(CaptureError, match="at least three words"):
        word_means(acts)
    with pytest.raises(BatteryError, match="end in a space"):
        terms(carriers=("a {} b", "c {}"))
    with pytest.raises(BatteryError, match="each word once"):
        terms(["joy", "joy"])
    with pytest.raises(CaptureError, match="not activations of terms"):
        word_means(planted())


def test_a_report_says_draws_writes_and_loads_itself(tmp_path: Path) -> None:
    acts = planted(strength=0.3, scenes=64)
    table = terms().frame()
    words = activations(table, np.random.default_rng(0).normal(size=(115, 2, D)).repeat(6, axis=0))
    report = geometry(acts, terms=words, against=planted(1, strength=0.3), draws=199)
    said = repr(report)
    assert "Eight points cannot tell a circle from one valence axis" in said
    assert "No circumplex" in said
    assert "planted and planted, scenes: debiased CKA" in said
    assert "Directions of emotion words" in report._repr_html_()
    for table in report.tables.values():
        assert {"value", "low", "high"} <= set(table) or "value" not in table or "null" in table
    assert len(report.figures()) == 9
    found = report.find("rsa", set="words", model="valence", kind="model")
    assert found is not None
    assert found.low < found.value < found.high
    report.save(tmp_path)
    assert repr(GeometryReport.load(tmp_path)) == said
    with pytest.raises(RunError, match="no finished geometry"):
        GeometryReport.load(tmp_path / "none")
    with pytest.raises(CaptureError, match="Layer 7 was not captured"):
        geometry(acts, layer=7)


def test_planted_emotions_are_said_to_agree_and_noise_is_not() -> None:
    loud, quiet = (geometry(planted(3, strength=s), draws=199) for s in (1.5, 0.0))
    assert loud.summary()[0].startswith("**Scenes of one emotion agree beyond chance at layer 1**")
    assert "hardly be told from noise" not in loud.summary()[0]
    assert "do not agree beyond chance" in quiet.summary()[0]
    assert "hardly be told from noise" in quiet.summary()[0]


def test_the_command_writes_a_report(
    llama: LensModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from affectlens.probing.geometry import cli, study

    def small(acts: Activations, **given: Any) -> GeometryReport:
        return geometry(acts, **given, draws=99)

    monkeypatch.setattr(study, "load_model", lambda *_, **__: llama)
    monkeypatch.setattr(study, "geometry", small)
    cli.geometry("tiny", terms=False, out=tmp_path / "run", quiet=True)
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / "run" / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "Scenes of one emotion" in text
    assert "Plotly.newPlot" in text or "plotly" in text
    assert repr(GeometryReport.load(tmp_path / "run")).startswith("Scenes of one emotion")
    with pytest.raises(RunError, match="exists already"):
        cli.geometry("tiny", out=tmp_path / "run")
    with pytest.raises(CaptureError, match="has no layer 9"):
        cli.geometry("tiny", layer=9, out=tmp_path / "other")


@pytest.mark.real
def test_words_of_one_valence_lie_together_in_a_real_model(smol: LensModel) -> None:
    chosen = [w for w in WORDS if abs(norms()[w].valence - 5) > 2][:40]
    acts = capture(smol, terms(chosen), sites=["L0.resid_post", "L15.resid_post"], positions="ending", progress=False)
    found = word_means(acts)
    row = rsa(found, draws=999).query("model == 'valence' and layer == 15").iloc[0]
    assert row["low"] > 0.05
    assert row["p_adjusted"] <= 0.01
    assert found.reliability()["value"].min() > 0.9
    battery = load_battery("starter")
    assert len(means(capture(smol, battery, positions=["mean", "ending"], progress=False)).table) == 32
