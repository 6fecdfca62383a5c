"""Differential features: valid p, held-out topics, planted truth, counts under random labels, mates over seeds."""

from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import affectlens as al
from affectlens.errors import BatteryError, StoreError
from affectlens.probing.features import flipping
from affectlens.probing.features.differing import differential, reachable
from affectlens.probing.features.effecting import effects, equivalence_bound, equivalence_p, shares, specific
from affectlens.probing.features.enriching import OWN, PAIRED, _survive, enrichment
from affectlens.probing.features.flipping import attainable, flip_p, two_stage_p
from affectlens.probing.features.halving import pair
from affectlens.probing.features.mating import mates, stable
from affectlens.probing.features.relabelling import deals, dealt, swapped
from affectlens.probing.sae import sae_lens
from affectlens.stimuli.taxonomy import EMOTIONS
from tests.conftest import battery_frame

# Planted codes: [item, feature], on the structure of the real battery


@lru_cache(maxsize=1)
def core() -> pd.DataFrame:
    return al.load_battery("core").frame()


def noise(items: pd.DataFrame, k: int, seed: int, block: int = 10) -> np.ndarray:
    """Sparse features that know nothing of the labels: some of the scene, some of the item, in blocks that co-fire."""
    rng = np.random.default_rng(seed)
    scene = pd.factorize(items["group"])[0]
    shared = rng.normal(size=(len(items), k // block)).repeat(block, axis=1)
    of_scene = rng.normal(size=(scene.max() + 1, k))[scene]
    latent = (shared + of_scene + rng.normal(size=(len(items), k))) / np.sqrt(3)
    return np.maximum(latent - rng.uniform(-1.0, 0.7, size=k), 0).astype(np.float32)


def add(x: np.ndarray, items: pd.DataFrame, columns: range, size: float, seed: int, **where: object) -> None:
    """Emotional items of an emotion or domain (all by default) get more of these features."""
    rng = np.random.default_rng((seed, columns.start))
    rows = items["role"].eq("emotional") & items["split"].eq("vignettes")
    for name, value in where.items():
        rows &= items[name].isin(value if isinstance(value, list) else [value])
    some = np.flatnonzero(rows)
    x[np.ix_(some, np.array(columns))] += np.maximum(rng.normal(size, 0.5, size=(len(some), len(columns))), 0)


def planted(seed: int, k: int = 200) -> np.ndarray:
    """0 to 19 affect, 20 to 29 joy alone, 30 to 39 what emotional texts of one domain say, the rest noise."""
    items = core()
    x = noise(items, k, seed)
    add(x, items, range(20), 1.6, seed)
    add(x, items, range(20, 30), 2.2, seed, emotion="joy")
    add(x, items, range(30, 40), 4.0, seed, domain="health")
    return x


@pytest.fixture(scope="module")
def example() -> tuple[np.ndarray, pd.DataFrame]:
    x = planted(0)
    return x, differential(x, core())


# The sign flips


def columns_of(n: int, seed: int) -> np.ndarray:
    """Columns in eighths, exact in float32: dense, sparse with ties, shifted, all zero."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=(n, 6)) * 8) / 8
    values[:, 2] *= rng.random(n) < 0.5
    values[:, 3] += 1
    values[:, 4] -= 1
    values[:, 5] = 0
    return values


@pytest.mark.parametrize(("sided", "alternative"), [(2, "two-sided"), (1, "greater")])
def test_exact_flips_of_a_studentised_mean_agree_with_scipy(sided: int, alternative: str) -> None:
    values = columns_of(8, 0)

    def t(x: np.ndarray, axis: int) -> np.ndarray:
        error = np.sqrt(((x**2).sum(axis) - x.shape[axis] * x.mean(axis) ** 2) / (x.shape[axis] - 1) + 1e-9)
        return np.round(x.mean(axis) / error, 9)

    found = flip_p(values, sided=sided)
    for i in range(values.shape[1]):
        oracle = stats.permutation_test(
            (values[:, i],), t, permutation_type="samples", n_resamples=10**6, alternative=alternative, vectorized=True
        )
        assert found[i] == pytest.approx(min(oracle.pvalue, 1.0), abs=1e-12), i


def test_ties_that_rounding_breaks_are_still_ties() -> None:
    whole = np.random.default_rng(4).integers(-9, 10, size=(16, 60)).astype(float)  # exact in float32; tenths are not
    assert np.array_equal(flip_p(0.1 * whole), flip_p(whole))
    assert np.array_equal(flip_p(0.1 * whole, sided=1), flip_p(whole, sided=1))
    signs = np.where(np.arange(16)[:, None] < np.arange(17), -1.0, 1.0)  # 0 to 16 negative differences
    assert flip_p(0.1 * signs) == pytest.approx([stats.binomtest(k, 16).pvalue for k in range(17)], abs=1e-12)


@pytest.mark.parametrize("sided", [1, 2])
def test_random_flips_agree_with_all_of_them(sided: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(0.3, 1, size=(12, 40))
    exact = flip_p(values, sided=sided)
    monkeypatch.setattr(flipping, "EXACT", 4)
    drawn = flip_p(values, sided=sided, draws=20_000, seed=3)
    assert np.abs(drawn - exact).max() < 4.5 * np.sqrt(0.25 / 20_000)
    assert not np.array_equal(drawn, exact)


def test_two_stages_report_fresh_draws_where_the_first_are_extreme() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(20, 60))
    values[:, :30] += np.linspace(0, 2, 30)
    first = flip_p(values, seed=(5, 1))
    second = flip_p(values, draws=flipping.SECOND, seed=(5, 2))
    found = two_stage_p(values, seed=(5,))
    left = first <= flipping.BOUND
    assert left.any()
    assert not left.all()
    assert found[left] == pytest.approx(second[left])
    assert found[~left] == pytest.approx(first[~left])
    assert found.min() == pytest.approx(1 / (1 + flipping.SECOND))
    assert (found >= attainable(values)).all()


@pytest.mark.parametrize(("n", "sided"), [(16, 2), (20, 2), (16, 1), (20, 1)])
def test_p_is_valid_at_every_level_on_sparse_skewed_columns(n: int, sided: int) -> None:
    rng = np.random.default_rng(3)
    size = rng.exponential(size=(n, 3000)) * (rng.random((n, 3000)) < rng.uniform(0.4, 1, size=3000))
    p = two_stage_p(size * rng.choice([-1, 1], size=size.shape), sided=sided, seed=(7,))
    for level in (0.1, 0.05, flipping.BOUND, 0.01, 0.001):
        assert (p <= level).sum() <= stats.binom.ppf(0.999, 3000, level), level
    assert (p <= 0.1).mean() > 0.07  # valid, and not for want of power


def test_attainable_counts_the_differences_that_can_flip() -> None:
    values = np.ones((16, 3))
    values[4:, 1] = 0
    values[:, 2] = 0
    assert attainable(values) == pytest.approx([2.0**-15, 2.0**-3, 1.0])
    assert flip_p(values) == pytest.approx(attainable(values))


# Halves


def test_no_domain_is_on_both_sides_and_emotions_are_even() -> None:
    items = core()
    deals = set()
    for seed in range(12):
        pairs = pair(np.zeros((len(items), 2), np.float32), items, seed=seed)
        by_domain = pairs.scenes.assign(found_in=pairs.found_in).groupby("domain")["found_in"]
        assert by_domain.nunique().eq(1).all()
        assert by_domain.first().sum() == 4
        assert pd.crosstab(pairs.scenes["emotion"], pairs.found_in).eq(16).all(axis=None)
        assert pairs.dealt == "domain"
        assert pairs.scenes["group"].is_unique
        assert len(pairs.scenes) == 256
        deals.add(tuple(pairs.found_in))
    assert len(deals) > 6


def test_few_domains_fall_back_to_scenes_and_say_so() -> None:
    items = battery_frame(n_scenes=240, n_domains=3)
    x = noise(items, 20, 0)
    pairs = pair(x, items)
    assert pairs.dealt == "scene"
    assert abs(int(pairs.found_in.sum()) * 2 - 240) <= 8
    gap = pd.crosstab(pairs.scenes["emotion"], pairs.found_in)
    assert (gap[True] - gap[False]).abs().max() <= 1
    assert differential(x, items, fewest=2)["dealt"].eq("scene").all()
    assert pair(x, items.assign(domain=None)).dealt == "scene"
    assert pair(x, battery_frame(n_scenes=240, n_domains=4)).dealt == "domain"


def test_differences_are_emotional_less_neutral_of_the_same_scene() -> None:
    items = core().sample(frac=1, random_state=0)
    value = items["role"].map({"emotional": 3.0}).fillna(1.0) + pd.factorize(items["group"])[0]
    pairs = pair(value.to_numpy(dtype=np.float32)[:, None], items)
    assert pairs.differences == pytest.approx(2.0)
    wrong = items.assign(role="neutral")
    with pytest.raises(BatteryError, match="No scene has an emotional and a neutral text"):
        pair(value.to_numpy()[:, None], wrong)
    with pytest.raises(BatteryError, match="have no group"):
        pair(value.to_numpy()[:, None], items.drop(columns="group"))
    with pytest.raises(BatteryError, match="3 rows of features for 1472 items"):
        pair(np.zeros((3, 1)), items)
    with pytest.raises(BatteryError, match="NaN"):
        pair(np.full((len(items), 1), np.nan), items)


# The table


def test_planted_features_survive_and_topic_and_noise_do_not(example: tuple[np.ndarray, pd.DataFrame]) -> None:
    _, table = example
    kept = {name: set(part.loc[part["survives"], "feature"]) for name, part in table.groupby("emotion")}
    assert kept["affect"] >= set(range(20))
    assert len(kept["affect"] & set(range(20, 30))) >= 8  # an eighth of all scenes have them
    for emotion in EMOTIONS:
        assert len(kept[emotion] & set(range(20))) >= 16, emotion
        assert (
            len(kept[emotion] & set(range(20, 30))) >= 9 if emotion == "joy" else not kept[emotion] & set(range(20, 30))
        )
    for name, features in kept.items():
        assert len(features - set(range(30))) <= 2, name


def test_what_one_domain_says_is_found_and_not_confirmed() -> None:
    for seed in range(4):
        x = planted(seed)
        table = differential(x, core(), emotions=["affect"], seed=seed).set_index("feature").loc[30:39]
        assert not table["survives"].any()
        halves = pair(x, core(), seed=seed)
        topics = halves.scenes.loc[halves.found_in, "domain"]
        if topics.eq("health").any():
            assert (table["q"] <= 0.05).all()


def test_q_is_benjamini_hochberg_over_what_could_pass_of_each_emotion(example: tuple[np.ndarray, pd.DataFrame]) -> None:
    _, table = example

    def textbook(p: np.ndarray) -> np.ndarray:
        order = np.argsort(p)[::-1]
        out = np.empty(len(p))
        out[order] = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
        return np.minimum(out, 1)

    for _, family in table.groupby("emotion"):
        could = reachable(family["attainable"].to_numpy(), 0.05)
        assert family["q"].to_numpy()[could] == pytest.approx(textbook(family["p"].to_numpy()[could]))
        assert (family["q"].to_numpy()[~could] == 1).all()
        found = family[family["q"] <= 0.05]
        assert found["q_confirm"].to_numpy() == pytest.approx(textbook(found["p_confirm"].to_numpy()))
        assert family.loc[family["q"] > 0.05, ["p_confirm", "q_confirm"]].isna().all(axis=None)
        same = np.sign(found["mean"]) == np.sign(found["mean_found"])
        assert (found["survives"] == ((found["q_confirm"] <= 0.05) & same)).all()
        assert not family.loc[family["q"] > 0.05, "survives"].any()


@pytest.mark.parametrize(
    ("least", "could"),
    [
        ([0.01, 0.01, 0.01, 0.5], [True, True, True, False]),
        ([0.04, 0.04, 0.5, 0.5], [False, False, False, False]),  # two could reach 0.05, none 0.05 / 2
        ([0.05, 0.5, 0.5], [True, False, False]),
        ([1e-5] * 5, [True] * 5),
        ([], []),
    ],
)
def test_what_could_pass_hangs_on_the_least_p(least: list[float], could: list[bool]) -> None:
    assert reachable(np.array(least, dtype=float), 0.05).tolist() == could


def test_without_a_difference_few_scenes_find_nothing_for_any_emotion() -> None:
    items = core()
    hits = [differential(noise(items, 150, 900 + seed), items, seed=seed)["survives"].any() for seed in range(12)]
    assert sum(hits) <= 2


def test_false_discoveries_are_as_rare_as_stated() -> None:
    items = core()
    found: list[float] = []
    kept: list[float] = []
    power: list[float] = []
    for seed in range(8):
        x = noise(items, 200, 100 + seed)
        add(x, items, range(20), 1.6, seed)
        table = differential(x, items, seed=seed)
        for family in (table[table["emotion"] == "affect"], table[table["emotion"] != "affect"]):
            true = family["feature"] < 20
            for column, where in ((found, family["q"] <= 0.05), (kept, family["survives"])):
                column.append((where & ~true).sum() / max(where.sum(), 1))
            power.append(family.loc[true, "survives"].mean())
    for shares_ in (found, kept):
        assert np.mean(shares_) - 2.5 * np.std(shares_) / np.sqrt(len(shares_)) <= 0.05
        assert np.mean(shares_) < 0.08
    assert np.mean(kept) < 0.02  # two halves
    assert np.mean(power) > 0.9


def test_noise_alone_rarely_survives_anywhere() -> None:
    items = core()
    assert sum(differential(noise(items, 150, s), items, seed=s)["survives"].any() for s in range(6)) <= 2


def test_confirmation_owes_nothing_to_discovery() -> None:
    """With everything let through, noise is confirmed at the rate of the test, and no oftener if found clearly."""
    items = core()
    table = differential(noise(items, 600, 11, block=1), items, emotions=["fear", "affect"], q=1.0)
    assert table["p_confirm"].notna().all()
    for some in (table, table[table["p"] <= 0.1]):
        for level in (0.05, 0.2):
            assert (some["p_confirm"] <= level).sum() <= stats.binom.ppf(0.999, len(some), level)
    assert abs(np.corrcoef(table["mean_found"], table["mean"])[0, 1]) < 0.15


def test_swapping_all_twins_changes_signs_alone(example: tuple[np.ndarray, pd.DataFrame]) -> None:
    x, table = example
    items = core()
    twins = items["split"].eq("vignettes")
    role = items["role"].where(~twins, items["role"].map({"emotional": "neutral", "neutral": "emotional"}))
    other = differential(x, items.assign(role=role.fillna(items["role"])))
    assert (other[["emotion", "feature", "active"]] == table[["emotion", "feature", "active"]]).all(axis=None)
    assert other["p"].to_numpy() == pytest.approx(table["p"].to_numpy())
    for name in ("mean", "mean_found", "d"):
        assert other[name].to_numpy() == pytest.approx(-table[name].to_numpy(), abs=1e-6)
    assert other["auroc"].to_numpy() == pytest.approx(1 - table["auroc"].to_numpy())
    assert (other["survives"] == table["survives"]).all()


def test_effects_are_of_the_confirmation_half_alone(example: tuple[np.ndarray, pd.DataFrame]) -> None:
    x, table = example
    pairs = pair(x, core())
    row = table[(table["emotion"] == "joy") & (table["feature"] == 20)].iloc[0]
    held, found = (pairs.differences[pairs.rows("joy", half), 20] for half in (False, True))
    assert row["mean"] == pytest.approx(held.mean(), rel=1e-5)
    assert row["mean_found"] == pytest.approx(found.mean(), rel=1e-5)
    assert (row["n"], row["n_found"]) == (16, 16)
    assert row["active"] == pairs.active[pairs.rows("joy", True), 20].sum()
    assert table["active"].min() >= 8


def test_only_what_is_active_in_enough_discovery_pairs_is_tested() -> None:
    items = core()
    x = np.zeros((len(items), 3), np.float32)
    halves = pair(x, items)
    scenes = halves.scenes.loc[halves.rows("joy", True), "group"].tolist()
    held = halves.scenes.loc[halves.rows("joy", False), "group"].tolist()
    role, group = items["role"], items["group"]
    x[role.eq("neutral") & group.isin(scenes[:8]), 0] = 1
    x[role.eq("emotional") & group.isin(scenes[:7] + held), 1] = 1
    table = differential(x, items)
    assert set(zip(table["emotion"], table["feature"], strict=True)) == {("joy", 0), ("affect", 0)}
    assert table["attainable"].to_numpy() == pytest.approx(2.0**-7)
    assert table["p"].to_numpy()[0] == pytest.approx(2.0**-7)
    assert differential(np.zeros_like(x), items).empty


def test_chosen_emotions_are_searched_and_unknown_ones_an_error() -> None:
    items = core()
    x = planted(1, k=60)
    both = differential(x, items, emotions=["fear", "joy"])
    assert set(both["emotion"]) == {"fear", "joy"}
    assert differential(x, items, emotions=["affect"])["emotion"].eq("affect").all()
    with pytest.raises(BatteryError, match="No scene is of envy"):
        differential(x, items, emotions=["envy"])
    with pytest.raises(BatteryError, match="No emotion was named"):
        differential(x, items, emotions=[])


# Effects


def test_effects_agree_with_scipy() -> None:
    values = np.random.default_rng(5).normal(0.2, 1, size=(16, 7)).round(1)
    values[:, 6] = 0
    found = effects(values)
    for i in range(6):
        test: Any = stats.ttest_1samp(values[:, i], 0)
        low, high = test.confidence_interval(0.95)
        assert (found["low"][i], found["high"][i]) == pytest.approx((low, high))
        assert found["d"][i] == pytest.approx(test.statistic / 4)
        wins = (values[:, i] > 0).sum() + (values[:, i] == 0).sum() / 2
        assert found["auroc"][i] == pytest.approx(wins / 16)
        if wins == int(wins):
            exact = stats.binomtest(int(wins), 16).proportion_ci()
            assert (found["auroc_low"][i], found["auroc_high"][i]) == pytest.approx((exact.low, exact.high))
    assert found["auroc"][6] == 0.5
    assert np.isnan(found["low"][6])


def test_shares_at_their_bounds_and_out_of_none() -> None:
    value, low, high = shares(np.array([0.0, 8.0, 0.0]), np.array([8, 8, 0]))
    assert (low[0], high[1], value[1]) == (0, 1, 1)
    assert high[0] == pytest.approx(stats.binomtest(0, 8).proportion_ci().high)
    assert np.isnan([value[2], low[2], high[2]]).all()


def test_specific_is_own_less_others_and_its_jackknife_is_the_long_one() -> None:
    rng = np.random.default_rng(6)
    parts = {name: rng.normal(i / 2, 1 + i / 4, size=(6 + i, 2)) for i, name in enumerate(("joy", "fear", "anger"))}

    def value(of: dict[str, np.ndarray]) -> np.ndarray:
        within = sum(((x - x.mean(0)) ** 2).sum(0) for x in of.values()) / (sum(map(len, of.values())) - 3)
        return (of["fear"].mean(0) - (of["joy"].mean(0) + of["anger"].mean(0)) / 2) / np.sqrt(within)

    found = specific(parts, "fear")
    assert found["specific"] == pytest.approx(value(parts))
    variances = []
    for name, x in parts.items():
        left = np.stack([value(parts | {name: np.delete(x, i, 0)}) for i in range(len(x))])
        variances.append(((len(x) - 1) / len(x) * ((left - left.mean(0)) ** 2).sum(0), len(x) - 1))
    total = sum(v for v, _ in variances)
    df = total**2 / sum(v**2 / n for v, n in variances)
    half = np.sqrt(total) * stats.t.ppf(0.975, df)
    assert found["specific_high"] - found["specific"] == pytest.approx(half)
    assert np.isnan(specific(parts, "affect")["specific"]).all()


def test_a_difference_at_the_bound_is_rarely_called_absent() -> None:
    rng = np.random.default_rng(7)
    at, none = (rng.normal(shift, 1, size=(32, 4000)) for shift in (0.5, 0.0))
    assert 0.04 < (equivalence_p(at, 0.5) <= 0.05).mean() < 0.06
    assert (equivalence_p(none, 0.5) <= 0.05).mean() > 0.7
    assert (equivalence_p(none, float("nan")) == 1).all()
    assert np.isnan(equivalence_bound(22))
    assert [equivalence_bound(n) for n in (23, 32, 135, 136, 256)] == [0.5, 0.5, 0.5, 0.2, 0.2]


def test_noise_is_absent_and_planted_features_are_not(example: tuple[np.ndarray, pd.DataFrame]) -> None:
    _, table = example
    affect = table[table["emotion"] == "affect"].set_index("feature")
    assert not affect.loc[:19, "absent"].any()
    assert affect.loc[40:, "absent"].mean() > 0.5
    assert not (table["absent"] & table["survives"]).any()
    joy = table[table["emotion"] == "joy"].set_index("feature")
    assert (joy.loc[20:29, "specific_low"] > 0).all()
    assert (joy.loc[:19, "specific_low"] > 0).mean() < 0.3
    assert set(affect["bound"]) == {0.2}
    assert set(joy["bound"]) == {0.5}


# Counts under random labels


def by_hand(groups: dict[str, tuple[np.ndarray, ...]]) -> dict[str, int]:
    """Counts by SciPy's t tests and its Benjamini-Hochberg, for true labels."""
    parts = []
    one: Any
    other: Any
    for found, held, *rest in groups.values():
        if rest:
            one, other = stats.ttest_ind(found, rest[0]), stats.ttest_ind(held, rest[1])
        else:
            one, other = stats.ttest_1samp(found, 0), stats.ttest_1samp(held, 0)
        p = np.where(np.sign(one.statistic) == np.sign(other.statistic), other.pvalue / 2, 1 - other.pvalue / 2)
        parts.append(np.stack([one.pvalue, p]))
    out = {}
    for name, part in zip(groups, parts, strict=True):
        p, confirm = np.nan_to_num(part, nan=1.0)
        kept = stats.false_discovery_control(p) <= 0.05
        if kept.any():
            kept[kept] = stats.false_discovery_control(confirm[kept]) <= 0.05
        out[name] = int(kept.sum())
    return out


def test_counts_of_true_labels_are_those_of_textbook_tests(example: tuple[np.ndarray, pd.DataFrame]) -> None:
    x, table = example
    pairs = pair(x, core())
    found = enrichment(x, core(), table, draws=19).set_index(["contrast", "emotion"])["count"]
    features = {str(name): part["feature"].to_numpy() for name, part in table.groupby("emotion")}
    halves = {
        name: tuple(pairs.differences[np.ix_(pairs.rows(name, half), of)].astype(float) for half in (True, False))
        for name, of in features.items()
    }
    expected = by_hand({name: halves[name] for name in pairs.emotions})
    assert {name: found[PAIRED, name] for name in pairs.emotions} == expected
    assert found[PAIRED, "affect"] == by_hand({"affect": halves["affect"]})["affect"]
    own = {}
    for name in pairs.emotions:
        parts = []
        for mine in (True, False):
            for half in (True, False):
                every, some = pairs.rows("affect", half), pairs.rows(name, half)
                rows = some if mine else np.setdiff1d(every, some)
                parts.append(pairs.differences[np.ix_(rows, features["affect"])].astype(float))
        own[name] = tuple(parts)
    assert {name: found[OWN, name] for name in pairs.emotions} == by_hand(own)


def test_t_of_true_labels_is_scipys(example: tuple[np.ndarray, pd.DataFrame]) -> None:
    x, _ = example
    pairs = pair(x, core())
    features = np.arange(40)
    for half in (True, False):
        own = [pairs.differences[np.ix_(pairs.rows(e, half), features)].astype(float) for e in pairs.emotions]
        paired, df = swapped(pairs, {"fear": features}, 1, 0)(half, slice(0, 1))
        oracle: Any = stats.ttest_1samp(own[pairs.emotions.index("fear")], 0)
        assert paired[0] == pytest.approx(oracle.statistic)
        assert set(df) == {15}
        among, df = dealt(pairs, features, 1, 0)(half, slice(0, 1))
        for i, part in enumerate(own):
            oracle = stats.ttest_ind(part, np.concatenate(own[:i] + own[i + 1 :]))
            assert among[0, 40 * i : 40 * i + 40] == pytest.approx(oracle.statistic)
        assert set(df) == {126}


def test_a_count_takes_the_same_sign_and_what_was_found_alone() -> None:
    found, held = np.array([[9.0, 9.0, -9.0, 0.1, 9.0]]), np.array([[9.0, -9.0, -9.0, 9.0, 0.1]])
    df = np.full(5, 15.0)
    assert _survive(found, held, df, df, 0.05).tolist() == [[True, False, True, False, False]]


def test_planted_features_beat_random_labels_and_joy_alone_has_its_own(
    example: tuple[np.ndarray, pd.DataFrame],
) -> None:
    x, table = example
    found = enrichment(x, core(), table, draws=39)
    paired, own = (found[found["contrast"] == name].set_index("emotion") for name in (PAIRED, OWN))
    assert (paired["p"] == 1 / 40).all()
    assert (paired["null_high"] <= 3).all()
    assert own["count"]["joy"] >= 9
    assert own["p_adjusted"]["joy"] == 1 / 40
    assert (own["count"].drop("joy") <= 1).all()  # what all emotions share is nobody's own
    assert paired["survived"].to_dict() == table.groupby("emotion")["survives"].sum().to_dict()
    assert ((paired["count"] - paired["survived"]).abs() <= 4).all()


def test_many_copies_of_one_feature_are_no_enrichment() -> None:
    """By Benjamini-Hochberg's own assumptions 40 survivors would be a sensation; random labels know better."""
    items = battery_frame(n_scenes=64)
    small = []
    for seed in range(40):
        x = np.repeat(noise(items, 1, seed, block=1), 40, axis=1) + 0.1
        table = differential(x, items, emotions=["affect"], seed=seed)
        found = enrichment(x, items, table, draws=19, seed=seed)
        small.append(found.loc[found["contrast"] == PAIRED, "p"].le(0.05).all())
    assert sum(small) <= stats.binom.ppf(0.999, 40, 0.05)


def test_random_deals_keep_the_size_and_the_domains_of_each_emotion() -> None:
    items = core()
    pairs = pair(np.ones((len(items), 2), np.float32), items)
    labels = deals(pairs, 30, 0)
    assert labels.shape == (31, 256)
    assert (labels[0] == [pairs.emotions.index(name) for name in pairs.scenes["emotion"]]).all()
    for row in labels[1:]:
        assert (pd.crosstab(row, pairs.scenes["domain"]) == 4).all(axis=None)
        assert (pd.crosstab(row, pairs.found_in) == 16).all(axis=None)
        assert 8 < (row == labels[0]).sum() < 64


def test_a_table_of_another_seed_or_dictionary_is_refused(example: tuple[np.ndarray, pd.DataFrame]) -> None:
    x, table = example
    with pytest.raises(BatteryError, match="not of these activations"):
        enrichment(x, core(), table, draws=1, seed=1)
    with pytest.raises(BatteryError, match="not of these activations"):
        enrichment(x[:, :100], core(), table, draws=1)


# Other seeds


def test_mates_undo_a_permutation_one_to_one() -> None:
    rng = np.random.default_rng(8)
    a = rng.normal(size=(50, 12))
    order = rng.permutation(50)
    scaled = a[order] * rng.uniform(0.1, 9, size=(50, 1)) + 1e-3 * rng.normal(size=a.shape)
    found = mates(a, scaled)
    assert (order[found["mate"]] == found["feature"]).all()
    assert (found["cosine"] > 0.99).all()
    assert found["mutual"].all()
    flipped = mates(a, -a)
    assert (flipped["feature"] != flipped["mate"]).all()
    assert mates(a, a[:20])["feature"].tolist() == list(range(20))
    with pytest.raises(StoreError, match="12 and 11 long"):
        mates(a, a[:, :11])


def test_mates_have_the_largest_sum_of_cosines() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    b[2] = 0
    norm = np.linalg.norm(b, axis=1, keepdims=True)
    cosine = a / np.linalg.norm(a, axis=1, keepdims=True) @ np.divide(b, norm, out=np.zeros_like(b), where=norm > 0).T
    found = mates(a, b)
    best = max(cosine[range(6), list(order)].sum() for order in permutations(range(6)))
    assert found["cosine"].sum() == pytest.approx(best)
    assert found["mate"].is_unique
    nearest = (cosine.argmax(1)[found["feature"]] == found["mate"]) & (
        cosine.argmax(0)[found["mate"]] == found["feature"]
    )
    assert (found["mutual"] == nearest).all()


def seeds(survives: np.ndarray, active: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"emotion": "joy", "feature": np.arange(len(active)), "active": active, "survives": survives})


def test_stable_counts_survivors_whose_near_mate_survives() -> None:
    survives = np.arange(40) < 10
    table = seeds(survives, np.full(40, 9))
    links = pd.DataFrame(
        {"feature": np.arange(40), "mate": np.arange(40)[::-1], "cosine": np.where(np.arange(40) < 8, 0.7, 0.6)}
    )
    other = seeds(np.isin(np.arange(40), [39, 38, 37, 36, 30]), np.full(40, 9))
    row = stable(table, links, other).iloc[0]
    assert (row["surviving"], row["stable"], row["share"], row["mated"]) == (10, 4, 0.4, 0.8)
    exact = stats.binomtest(4, 10).proportion_ci()
    assert (row["low"], row["high"]) == pytest.approx((exact.low, exact.high))
    assert (row["controls"], row["control_share"], row["control_mated"]) == (10, 0, 0)
    assert row["p"] == pytest.approx(stats.binomtest(4, 4).pvalue)
    assert stable(table, links, other, cosine=0.5).iloc[0]["stable"] == 5
    elsewhere = stable(table, links, other.assign(emotion="fear")).iloc[0]
    assert elsewhere["stable"] == 0


def test_controls_are_as_dense_as_the_features_that_they_stand_beside() -> None:
    """Dense features come back, whatever they mean: then survivors are no more stable than their controls."""
    rng = np.random.default_rng(10)
    active = np.r_[np.full(60, 16), np.full(200, 8)]
    dense = active == 16
    survives = np.r_[np.arange(60) < 30, np.zeros(200, bool)]
    links = pd.DataFrame({"feature": np.arange(260), "mate": np.arange(260), "cosine": np.where(dense, 0.9, 0.1)})
    other = seeds(rng.random(260) < 0.5, active)
    row = stable(seeds(survives, active), links, other).iloc[0]
    assert row["gap"] == 0
    assert row["control_mated"] == row["mated"] == 1
    assert row["p"] > 0.05
    none = stable(seeds(np.zeros(260, bool), active), links, other).iloc[0]
    assert none["surviving"] == none["controls"] == 0
    assert np.isnan(none["share"])
    every = stable(seeds(np.ones(260, bool), active), links, other).iloc[0]
    assert every["controls"] == 0
    assert np.isnan(every["control_share"])


def test_known_features_of_saelens_synthetic_data_are_told_apart() -> None:
    """Its generator: correlated firing, known firing rates; emotional items fire 12 of 120 features more often."""
    items, rate, true = core(), torch.full((120,), 0.25), np.arange(12)
    more = torch.where(torch.arange(120) < 12, 0.85, rate)
    emotional = items["role"].eq("emotional").to_numpy()
    with sae_lens():
        from sae_lens.synthetic import ActivationGenerator, generate_random_correlation_matrix

        related = generate_random_correlation_matrix(num_features=120, uncorrelated_ratio=0.3, seed=0)
        torch.manual_seed(0)
        calm, moved = (
            ActivationGenerator(120, p, std_firing_magnitudes=0.3, correlation_matrix=related)
            .sample(len(items))
            .numpy()
            for p in (rate, more)
        )
    table = differential(np.where(emotional[:, None], moved, calm), items)
    affect = table[table["emotion"] == "affect"].set_index("feature")
    assert affect.loc[true, "survives"].all()
    assert affect.drop(true)["survives"].sum() <= 2
    assert table.loc[~table["feature"].isin(true), "survives"].sum() <= 3
