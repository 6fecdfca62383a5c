"""The keyword-affect plane: planted features land in their classes, intervals cover, contrasts are what they say."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import affectlens as al
from affectlens.errors import BatteryError
from affectlens.probing.features.classing import CLASSES, classed
from affectlens.probing.features.figures import plane_figure
from affectlens.probing.features.plane import SHOWN, responses
from affectlens.probing.features.plane_parts import weights

ON, OFF = 0.9, 0.05  # how often a planted feature fires where it should, and elsewhere


@pytest.fixture(scope="module")
def items() -> pd.DataFrame:
    return al.load_battery("core").frame()


def cells(items: pd.DataFrame, emotion: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which items have the emotion's words, which evoke it, and which are vivid in one way or the other."""
    own = np.ones(len(items), dtype=bool) if emotion == "affect" else (items["emotion"] == emotion).to_numpy()
    words = own & ((items["role"] == "keyword") | (items["split"] == "decoys")).to_numpy()
    evokes = own & items["role"].isin(["emotional", "keyword"]).to_numpy()
    return words, evokes, evokes | (items["split"] == "vivid_neutral").to_numpy()


def fired(rng: np.random.Generator, p: np.ndarray, n: int, size: np.ndarray | float = 1.0) -> np.ndarray:
    """``n`` features that fire with probability ``p`` at each item, with a gamma-distributed strength of mean 1."""
    shape = len(p), n
    strength = rng.gamma(9, 1 / 9, shape) * np.broadcast_to(size, len(p))[:, None]
    return ((rng.random(shape) < p[:, None]) * strength).astype(np.float32)


def planted(
    items: pd.DataFrame, emotion: str, n: int, seed: int = 1, on: float = ON
) -> tuple[np.ndarray, pd.DataFrame]:
    """``n`` features of each kind."""
    rng = np.random.default_rng(seed)
    words, evokes, vivid = cells(items, emotion)
    chances = {
        "keyword": np.where(words, on, OFF), "affect": np.where(evokes, on, OFF),
        "both": np.where(words | evokes, on, OFF), "style": np.where(vivid, on, OFF),
        "noise": np.full(len(items), OFF),
    }  # fmt: skip
    doubled = 1.0 + (words & evokes)
    pooled = [fired(rng, p, n, doubled if name == "both" else 1.0) for name, p in chances.items()]
    truth = np.repeat(list(chances), n)
    return np.concatenate(pooled, 1), pd.DataFrame({"emotion": emotion, "feature": range(len(truth)), "truth": truth})


@pytest.mark.parametrize(("emotion", "found"), [("affect", 0.9), ("fear", 0.25)])
def test_planted_features_land_in_their_classes(items: pd.DataFrame, emotion: str, found: float) -> None:
    pooled, features = planted(items, emotion, 30)
    table = classed(responses(pooled, items, features)).table
    for name in ("keyword", "affect", "both", "style"):
        part = table[table["truth"] == name]
        assert (part["class"] == name).mean() >= found
        assert (part["nearest"] == name).mean() >= 0.9
        assert part.loc[part["class"] == name, "support"].min() > 0.8
    wrong = table["class"] != table["truth"].replace("noise", "unclear")
    wrong &= table["class"] != "unclear"
    assert stats.binomtest(int(wrong.sum()), len(table)).proportion_ci().low <= 0.025


def test_a_planted_affect_feature_answers_the_crossed_cells_and_a_keyword_feature_does_not(items: pd.DataFrame) -> None:
    pooled, features = planted(items, "affect", 10)
    table = responses(pooled, items, features).table
    affect, keyword = (table[table["truth"] == name] for name in ("affect", "keyword"))
    assert (affect["crossed_q"] < 0.01).all()
    assert (affect["crossed_low"] > 0).all()
    assert (keyword["crossed_p"] > 0.05).mean() >= 0.7
    assert (table["crossed_attainable"] == 1 / 10000).all()


def test_a_class_depends_neither_on_scale_nor_on_sign(items: pd.DataFrame) -> None:
    pooled, features = planted(items, "fear", 4)
    one = classed(responses(pooled, items, features)).table
    scaled = classed(responses(pooled * np.float32(64), items, features)).table
    turned = classed(responses(-pooled, items, features)).table
    assert one["class"].nunique() > 2
    for other in (scaled, turned):
        assert list(other["nearest"]) == list(one["nearest"])
        np.testing.assert_allclose(other["support"], one["support"], atol=0.04)
    assert list(scaled["class"]) == list(one["class"])
    np.testing.assert_allclose(scaled[list(SHOWN)], one[list(SHOWN)], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(turned["words_low"], -one["words_high"], atol=0.15)  # the mirrored draws are others


@pytest.mark.parametrize("name", ["core", "starter"])
def test_contrasts_are_those_that_pandas_computes(name: str) -> None:
    items = al.load_battery(name).frame()
    if name == "starter":  # a domain without neutral items is compared with all of them
        items.loc[items["split"] == "vivid_neutral", "domain"] = ["moon"] + ["work"] * 7
    x = np.random.default_rng(0).gamma(2, 1, (len(items), 1)).astype(np.float32)
    row = responses(x, items, pd.DataFrame({"emotion": ["fear"], "feature": [0]})).table.iloc[0]
    frame = items.assign(x=x[:, 0].astype(float))
    told = frame[frame["split"] == "vignettes"]
    unit = told["x"].std(ddof=0)
    own = told[told["emotion"] == "fear"].pivot(index="group", columns="role", values="x")
    neutral = told[told["role"] == "neutral"].groupby("domain")["x"].mean()
    overall = told.loc[told["role"] == "neutral", "x"].mean()

    def beside(part: pd.DataFrame) -> float:
        return float((part["x"] - part["domain"].map(neutral).fillna(overall)).mean())

    def crossed(part: pd.DataFrame) -> float:
        wide = part.pivot(index="group", columns="cell", values="x")
        return float(((wide["ax"] + wide["by"] - wide["ay"] - wide["bx"]) / 2).mean())

    of = frame["emotion"] == "fear"
    expected = {
        "affect": (own["emotional"] - own["neutral"]).mean(), "rich": (own["keyword"] - own["neutral"]).mean(),
        "added": (own["keyword"] - own["emotional"]).mean(),
        "emotional": ((own["keyword"] + own["emotional"]) / 2 - own["neutral"]).mean(),
        "vivid": beside(frame[frame["split"] == "vivid_neutral"]),
        "crossed": crossed(frame[(frame["split"] == "crossed") & of]),
        "crossed_fact": crossed(frame[frame["split"] == "crossed_fact"]),
    }  # fmt: skip
    decoys = frame[(frame["split"] == "decoys") & of]
    expected["words"] = expected["added"]
    if len(decoys) > 1:
        expected["decoy"] = beside(decoys)
        expected["words"] = (expected["added"] + expected["decoy"]) / 2
        expected["interaction"] = expected["added"] - expected["decoy"]
    if len(frame[(frame["split"] == "crossed") & of]) < 8:  # one quadruple has no interval
        del expected["crossed"]
    for key, value in expected.items():
        assert row[key] == pytest.approx(value / unit, abs=1e-5), key
        assert row[f"{key}_low"] < row[key] < row[f"{key}_high"], key


def test_weights_below_thirty_clusters_give_students_t() -> None:
    values = np.random.default_rng(3).normal(size=8)
    drawn = values.mean() + weights(8, seed=0) @ values / 8
    exact = stats.ttest_1samp(values, 0).confidence_interval()
    half = (exact.high - exact.low) / 2
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([exact.low, exact.high], abs=0.08 * half)


def test_bootstrap_weights_have_the_unbiased_variance() -> None:
    values = np.random.default_rng(3).normal(size=32)
    drawn = weights(32, seed=0) @ values / 32
    assert drawn.std() == pytest.approx(values.std(ddof=1) / 32**0.5, rel=0.04)
    np.testing.assert_allclose(weights(32, seed=0).sum(1), 0, atol=1e-9)


def test_intervals_cover(items: pd.DataFrame) -> None:
    """Each feature is one replicate, with 1,000 of them: a share of 0.95 is known to within 0.014."""
    words, evokes, _ = cells(items, "fear")
    p = 0.05 + 0.4 * words + 0.3 * evokes
    pooled = fired(np.random.default_rng(3), p, 1000)
    table = responses(pooled, items, pd.DataFrame({"emotion": "fear", "feature": range(1000)})).table
    truth = {"affect": 0.3, "rich": 0.7, "added": 0.4, "decoy": 0.4, "words": 0.4, "interaction": 0.0, "vivid": 0.0,
             "emotional": 0.5}  # fmt: skip
    for name, value in truth.items():
        low, high = (table[f"{name}_{end}"] * table["unit"] for end in ("low", "high"))
        covered = int(((low <= value) & (value <= high)).sum())
        ci = stats.binomtest(covered, 1000).proportion_ci()
        assert ci.high >= 0.93, f"{name}: {covered / 1000} [{ci.low:.3f}, {ci.high:.3f}]"
        assert covered <= 995 or name in ("vivid", "decoy"), name


def test_silent_decoys_are_no_proof_of_absence(items: pd.DataFrame) -> None:
    """Eight silent decoys leave room for a feature that fires on a third of them: 1 - 0.025 ** (1 / 8)."""
    _, evokes, _ = cells(items, "fear")
    pooled = fired(np.random.default_rng(0), np.where(evokes, ON, 0.0), 20)
    table = responses(pooled, items, pd.DataFrame({"emotion": "fear", "feature": range(20)})).table
    strength = table["affect"] / ON  # where it fires, in SD
    assert (table["decoy"] == 0).all()
    assert (table["decoy_high"] > 0.2 * strength).all()
    assert (table["decoy_high"] < 0.6 * strength).all()


@pytest.mark.parametrize("emotion", ["affect", "fear"])
def test_at_the_border_a_class_is_seldom_given(items: pd.DataFrame, emotion: str) -> None:
    """The words do just a third of what affect does, so neither ``affect`` nor ``both`` is true."""
    words, evokes, _ = cells(items, emotion)
    pooled = fired(np.random.default_rng(5), 0.02 + 0.24 * words + 0.72 * evokes, 400)
    table = classed(responses(pooled, items, pd.DataFrame({"emotion": emotion, "feature": range(400)}))).table
    given = int((table["class"] != "unclear").sum())
    assert stats.binomtest(given, 400).proportion_ci().low <= 0.05
    assert given < 40


def test_words_that_only_decoys_hear_make_no_affect_feature(items: pd.DataFrame) -> None:
    """It fires on decoys as on emotion, seldom where both are: the mean of the words' two parts would hide that."""
    words, evokes, _ = cells(items, "affect")
    p = np.select([words & evokes, evokes, words], [0.2, 0.8, 0.85], 0.0)
    pooled = fired(np.random.default_rng(5), p, 20)
    table = classed(responses(pooled, items, pd.DataFrame({"emotion": "affect", "feature": range(20)}))).table
    assert (table["words"].abs() < table["affect"] / 3).mean() > 0.5
    assert not (table["class"] == "affect").any()


def test_counts_and_support_agree_with_the_table(items: pd.DataFrame) -> None:
    fear, features = planted(items, "fear", 6)
    both = pd.concat([features, features.assign(emotion="affect")], ignore_index=True)
    found = classed(responses(fear, items, both))
    assert list(found.counts["emotion"].unique()) == ["fear", "affect"]
    for row in found.counts.to_dict("records"):
        part, name = found.table[found.table["emotion"] == row["emotion"]], row["class"]
        assert row["given"] == (part["class"] == name).sum()
        assert row["nearest"] == (part["nearest"] == name).sum()
        assert 0 <= row["low"] <= row["nearest"] <= row["high"] <= row["of"] == len(part)
    np.testing.assert_allclose(found.counts.groupby("emotion")["expected"].sum(), 30, rtol=1e-9)
    assert found.table["support"].between(0, 1).all()
    unclear = found.table["class"] == "unclear"
    assert (found.table.loc[unclear, "why"] != "").all()
    assert (found.table.loc[~unclear, "why"] == "").all()
    assert (found.table.loc[~unclear, "class"] == found.table.loc[~unclear, "nearest"]).all()


def test_count_intervals_hold_the_true_count(items: pd.DataFrame) -> None:
    held = 0
    for seed in range(5):
        pooled, features = planted(items, "affect", 12, seed, on=0.6)
        kept = features[features["truth"] != "noise"]
        counts = classed(responses(pooled, items, kept)).counts.set_index("class")
        held += int(
            (counts.loc[list(CLASSES[:4]), "low"] <= 12).all() and (counts.loc[list(CLASSES[:4]), "high"] >= 12).all()
        )
    assert held >= 4


def test_the_crossed_p_is_that_of_scipy(items: pd.DataFrame) -> None:
    x = np.random.default_rng(2).gamma(2, 1, (len(items), 3)).astype(np.float32)
    table = responses(x, items, pd.DataFrame({"emotion": "joy", "feature": range(3)})).table
    part = items.assign(row=range(len(items)))[(items["split"] == "crossed") & (items["emotion"] == "joy")]
    wide = part.pivot(index="group", columns="cell", values="row")
    for feature in range(3):
        d = sum(
            sign * x[wide[cell], feature].astype(float) for cell, sign in (("ax", 1), ("by", 1), ("ay", -1), ("bx", -1))
        )
        exact = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=2**12)
        assert table["crossed_p"][feature] == pytest.approx(exact.pvalue)
    assert table["crossed_attainable"][0] == 2 / 2**12
    np.testing.assert_allclose(table["crossed_q"], stats.false_discovery_control(table["crossed_p"]))


def test_what_a_battery_lacks_is_left_open(items: pd.DataFrame) -> None:
    pooled, features = planted(items, "fear", 4)
    told = (items["split"] == "vignettes").to_numpy()
    found = classed(responses(pooled[told], items[told], features))
    assert found.table[["decoy", "vivid", "crossed", "crossed_p", "interaction"]].isna().all(axis=None)
    np.testing.assert_allclose(found.table["words"], found.table["added"])
    assert "affect" in set(found.table["class"])
    assert "style" not in set(found.table["nearest"])
    assert "decoy < affect" in found.table["untested"].iloc[0]
    assert "The battery has no items to test" in found.rule
    assert "no items" not in classed(responses(pooled, items, features)).rule
    with pytest.raises(BatteryError, match="No feature is given"):
        responses(pooled, items, features.iloc[:0])


def test_a_feature_that_is_never_active_is_said_to_be(items: pd.DataFrame) -> None:
    pooled = np.zeros((len(items), 2), dtype=np.float32)
    pooled[(items["split"] == "decoys").to_numpy(), 1] = 1.0
    table = classed(responses(pooled, items, pd.DataFrame({"emotion": "fear", "feature": [0, 1]}))).table
    assert (table["class"] == "unclear").all()
    assert (table["why"] == "never active on the vignettes").all()
    assert (table["unit"] == 0).all()


def test_mistakes_are_said(items: pd.DataFrame) -> None:
    x = np.ones((len(items), 2), dtype=np.float32)

    def features(emotion: str = "fear", feature: int = 0) -> pd.DataFrame:
        return pd.DataFrame({"emotion": [emotion], "feature": [feature]})

    with pytest.raises(BatteryError, match="no emotion 'boredom'"):
        responses(x, items, features("boredom"))
    with pytest.raises(BatteryError, match="not among the 2"):
        responses(x, items, features(feature=2))
    with pytest.raises(BatteryError, match="one row an item"):
        responses(x[:5], items, features())
    with pytest.raises(BatteryError, match="lacks feature"):
        responses(x, items, features().drop(columns="feature"))
    pairs = items[items["role"] != "keyword"]
    with pytest.raises(BatteryError, match="told three ways"):
        responses(x[: len(pairs)], pairs, features())
    with pytest.raises(BatteryError, match="between 0 and 1"):
        classed(responses(x, items, features()), bound=1.0)


def test_the_rule_says_its_bounds(items: pd.DataFrame) -> None:
    pooled, features = planted(items, "affect", 2)
    found = classed(responses(pooled, items, features), bound=0.25, style=0.4)
    assert "below 0.25 of it" in found.rule
    assert "more than 0.40" in found.rule
    assert repr(found).startswith("Classes(keyword ")


def test_the_figure_shows_every_point_once(items: pd.DataFrame) -> None:
    pooled, features = planted(items, "fear", 3)
    table = classed(responses(pooled, items, features)).table
    table.loc[0, "emotion"] = "<b>fear</b>"
    fig: Any = plane_figure(table, intervals=True)
    plain: Any = plane_figure(table)
    points = [(row, x, y, said) for trace in fig.data if trace.customdata is not None
              for (row, said), x, y in zip(trace.customdata, trace.x, trace.y, strict=True)]  # fmt: skip
    assert sorted(row for row, *_ in points) == list(range(len(table)))
    for row, x, y, _ in points:
        assert (x, y) == (table["words"][row], table["affect"][row])
    assert "&lt;b&gt;fear" in next(said for row, _, _, said in points if row == 0)
    assert all(trace.error_x.visible for trace in fig.data if trace.customdata is not None)
    assert not any(trace.error_x.visible for trace in plain.data if trace.customdata is not None)
