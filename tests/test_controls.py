"""Controls, targets and the concordance, each against an answer that is known."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import log_loss

from affectlens.errors import BatteryError
from affectlens.metrics import auroc, average, metric
from affectlens.probing import controls
from affectlens.probing.parts import Stage, stage
from affectlens.probing.sweep import Part, Sweep, sweep
from affectlens.probing.targets import select
from affectlens.stats import estimate
from affectlens.stimuli.norms import vad
from tests.conftest import battery_frame

WORDS = "table window street paper garden river letter bottle corner morning kitchen station".split()


def part_of(y: np.ndarray, n_classes: int, folds: int = 6) -> Part:
    """Items by themselves, in folds by turns of twelve, so that labels by turns are even."""
    every = np.arange(len(y))
    return Part(every, y, n_classes, every, every // 12 % folds)


def worth(logits: np.ndarray, part: Part) -> float:
    every = np.arange(len(part.y))
    return float(metric(logits, part.y, part.folds, every)(np.ones((1, len(every))))[0])


def read(x: np.ndarray, part: Part) -> float:
    """What the main probe of one layer is worth."""
    return worth(sweep(lambda _: x[:, None], part, methods=(part.main,))[""].headline, part)


# the control task ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_classes", "chance"), [(2, 0.5), (4, 0.25), (0, 0.5)])
def test_the_control_task_is_learnt_from_words_and_not_from_noise(n_classes: int, chance: float) -> None:
    rng = np.random.default_rng(0)
    said = rng.permutation(np.arange(144) % 12)
    texts = [f"There was the {WORDS[word]} for us." for word in said]
    y = np.arange(144) % max(n_classes, 2)
    part = part_of(y if n_classes else y.astype(float), n_classes)
    kept, labels = controls.control_labels(texts, part, 1)
    assert len(kept) >= 0.8 * 144
    assert kept.tolist() == np.flatnonzero(np.isin(said, said[kept])).tolist()  # a word is a key everywhere or nowhere
    assert labels.dtype.kind == ("i" if n_classes else "f")
    assert set(labels) == set(range(n_classes or 4))
    assert all(len(set(labels[said[kept] == word])) == 1 for word in said[kept])
    counts = list(Counter(labels).values())
    assert max(counts) - min(counts) <= 12
    task = Part(kept, labels, n_classes, part.keys[kept], part.folds[kept])
    meaning = rng.normal(size=(12, 30))[said] + 0.1 * rng.normal(size=(144, 30))
    for x, low, high in ((meaning, 0.9, 1.0), (rng.normal(size=(144, 30)), chance - 0.2, chance + 0.2)):
        assert low <= read(x, task) <= high


def test_control_labels_differ_between_seeds_and_not_within() -> None:
    texts = [f"the {WORDS[i % 12]}" for i in range(72)]
    part = part_of(np.arange(72) % 2, 2)
    first, again, other = (controls.control_labels(texts, part, seed)[1] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_items_without_a_recurring_word_are_left_out() -> None:
    texts = [f"the {WORDS[i % 12]}" if i % 5 else f"once{i} and again" for i in range(144)]
    kept, _ = controls.control_labels(texts, part_of(np.arange(144) % 2, 2))
    assert len(kept) > 100
    assert (kept % 5 != 0).all()


@pytest.mark.parametrize("texts", [[f"once{i}" for i in range(72)], ["window"] * 72, ["table window"] * 72])
def test_texts_that_share_too_few_words_have_no_control_task(texts: list[str]) -> None:
    with pytest.raises(BatteryError, match="too few items share a content word over folds"):
        controls.control_labels(texts, part_of(np.arange(72) % 2, 2))


# untrained directions, and a read-out that bends ---------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 0])
def test_random_directions_read_nothing_in_noise(n_classes: int) -> None:
    rng = np.random.default_rng(1)
    y = np.arange(144) % n_classes if n_classes else rng.normal(size=144)
    part = part_of(y, n_classes)
    drawn = controls.random_directions(rng.normal(size=(144, 1, 16)), part, [0] * 6)
    assert drawn.shape == (controls.DIRECTIONS, 144, part.width)
    scores = [worth(one, part) for one in drawn]
    assert np.mean(scores) == pytest.approx(1 / 3 if n_classes == 3 else 0.5, abs=0.04)


def test_random_directions_stay_below_a_trained_probe() -> None:
    rng = np.random.default_rng(2)
    part = part_of(np.arange(144) % 2, 2)
    x = rng.normal(size=(144, 2, 64))
    x[:, 1, 0] += 4.0 * part.y
    trained = worth(sweep(lambda _: x, part, methods=("logistic",))[""].headline, part)
    drawn = [worth(one, part) for one in controls.random_directions(x, part, [1] * 6)]
    assert trained > 0.95
    assert np.quantile(drawn, 0.975) < trained - 0.1
    assert 0.5 < np.mean(drawn) < 0.7


def test_random_directions_hold_out_what_they_score() -> None:
    """One loud fold has the opposite sign: it is read backwards by the others' sign, and they by its own."""
    part = part_of(np.arange(72) % 2, 2)
    x = (2.0 * part.y - 1)[:, None, None] * np.where(part.folds == 0, -20, 1)[:, None, None]
    drawn = controls.random_directions(x, part, [0] * 6, draws=5)
    right = (drawn[:, :, 0] > 0) == part.y
    assert not right.any()


def test_the_network_reads_an_exclusive_or_that_a_line_does_not() -> None:
    rng = np.random.default_rng(3)
    sides = np.stack([np.arange(288) % 2, np.arange(288) // 2 % 2], axis=1)
    part = part_of(sides[:, 0] ^ sides[:, 1], 2, folds=4)
    x = ((2.0 * sides - 1) + 0.3 * rng.normal(size=(288, 2)))[:, None]
    linear = sweep(lambda _: x, part, methods=("logistic",))[""]
    assert worth(linear.headline, part) < 0.65
    assert worth(controls.network(x, part, linear.layers), part) > 0.95


@pytest.mark.parametrize("n_classes", [3, 0])
def test_the_network_reads_classes_and_orders(n_classes: int) -> None:
    y = np.arange(144) % 3
    x = 3.0 * np.eye(3)[y][:, None] + 0.1 * np.random.default_rng(4).normal(size=(144, 1, 3))
    part = part_of(y if n_classes else y.astype(float), n_classes, folds=3)
    found = controls.network(x, part, [0] * 3)
    assert found.shape == (144, part.width)
    assert worth(found, part) > 0.95


# conditional probing -------------------------------------------------------------------------------------------------


def said(logits: np.ndarray, part: Part) -> Sweep:
    """A reader with these held-out logits, in inner folds too."""
    inner = {int(fold): logits[part.folds != fold] for fold in np.unique(part.folds)}
    return Sweep({part.main: logits[:, None]}, {part.main: logits}, (0,) * len(inner), inner, part.main)


def guesses(n_classes: int, n: int = 720) -> tuple[Part, np.ndarray, np.ndarray]:
    """Labels, the true logits of a reader that knows a part of them, and logits that know all."""
    rng = np.random.default_rng(5)
    if not n_classes:
        known = rng.normal(size=(n, 1))
        y = known[:, 0] + rng.normal(size=n)
        return part_of(y, 0), known, y[:, None]
    known = 1.5 * rng.normal(size=(n, 1 if n_classes == 2 else n_classes))
    both = np.hstack([np.zeros((n, 1)), known]) if n_classes == 2 else known
    y = (both + rng.gumbel(size=both.shape)).argmax(1)
    truth = 20.0 * (2.0 * y - 1)[:, None] if n_classes == 2 else 20.0 * np.eye(n_classes)[y]
    return part_of(y, n_classes), known, truth


@pytest.mark.parametrize("n_classes", [2, 3, 0])
def test_a_copy_of_the_floor_gains_nothing_and_the_truth_gains_its_loss(n_classes: int) -> None:
    part, known, truth = guesses(n_classes)
    base = said(known, part)
    copied = controls.gains(base, said(known, part), part)
    assert abs(copied.mean()) < 1e-3
    if n_classes:
        both = np.hstack([np.zeros_like(known), known]) if n_classes == 2 else known
        shares = np.exp(both) / np.exp(both).sum(1, keepdims=True)
        lost = float(log_loss(part.y, shares))
    else:
        lost = float(((part.y - known[:, 0]) ** 2).mean() / part.y.var())
    assert controls.gains(base, said(truth, part), part).mean() == pytest.approx(lost, abs=0.03)


@pytest.mark.parametrize("n_classes", [2, 3, 0])
def test_noise_gains_nothing_beside_a_floor(n_classes: int) -> None:
    part, known, _ = guesses(n_classes)
    base, rng, above = said(known, part), np.random.default_rng(6), 0
    for _ in range(12):
        gained = controls.gains(base, said(rng.normal(size=known.shape), part), part)
        above += estimate(average(gained, np.arange(len(gained))), len(gained), "item", bounds=None).low > 0
    assert above <= 1


def with_meta(items: pd.DataFrame, meta: Any) -> pd.DataFrame:
    return items.assign(meta=meta)


# targets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["arousal", "dominance"])
def test_without_ratings_the_norm_of_the_emotions_word_is_the_label(name: str) -> None:
    asked = select(battery_frame(64), name)
    assert asked.ordered
    assert asked.ordered
    assert set(asked.items["role"]) == {"emotional"}
    expected = [getattr(vad(str(emotion)), name) for emotion in asked.items["emotion"]]
    np.testing.assert_allclose(asked.y, expected)


@pytest.mark.parametrize(
    ("name", "key"), [("valence", "V"), ("arousal", "A"), ("dominance", "D"), ("valence", "valence")]
)
def test_ratings_in_meta_are_the_label(name: str, key: str) -> None:
    items = battery_frame(20)
    rated = np.random.default_rng(7).normal(size=40).round(2)
    asked = select(with_meta(items, [{key: float(v), "x": 1} for v in rated]), name)
    np.testing.assert_allclose(asked.y, rated)
    assert asked.rows.tolist() == list(range(40))
    few = select(with_meta(items, [{key: float(v)} if i < 10 else {} for i, v in enumerate(rated)]), name)
    assert set(few.items["role"]) == {"emotional"}  # too few are rated: the battery's own labels


def test_valence_without_ratings_is_pleasant_against_unpleasant() -> None:
    assert select(battery_frame(20), "valence").classes == ("unpleasant", "pleasant")


def test_a_rated_target_has_the_items_that_other_targets_have() -> None:
    items = battery_frame(20, n_quads=2)
    twins = items[(items["role"] == "emotional") & (items["split"] == "vignettes")].assign(role="keyword")
    items = pd.concat([items, twins], ignore_index=True)
    asked = select(with_meta(items, [{"V": float(i)} for i in range(len(items))]), "valence")
    assert set(asked.items["split"]) == {"vignettes"}
    assert set(asked.items["role"]) <= {"emotional", "neutral"}


def steps(scenes: int) -> pd.DataFrame:
    """Scenes told at four intensities; every second lacks the first, every other the last."""
    roles = ["neutral", "mild", "moderate", "emotional"]
    rows = [
        {"id": f"{s}.{role}", "text": "", "split": "vignettes", "role": role, "emotion": "joy", "valence": 1,
         "domain": f"d{s % 4}", "group": f"s{s}"}
        for s in range(scenes) for role in (roles[1:] if s % 2 else roles[:3])
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_intensity_is_compared_within_scenes_only() -> None:
    """What tells intense scenes from mild ones says nothing of the order inside a scene."""
    items = steps(16)
    asked = select(items, "intensity")
    found = stage(items, asked, "pair")
    assert isinstance(found, Stage)
    loud = items["group"].str[1:].astype(int).to_numpy() % 2
    one = np.ones((1, found.n))
    assert np.corrcoef(loud, asked.y)[0, 1] > 0.5
    pooled = auroc(loud.astype(float), asked.y, found.part.folds, found.clusters)
    assert float(pooled(one)[0]) > 0.65
    assert float(found.worth(loud[:, None].astype(float))(one)[0]) == 0.5
    assert float(found.worth(asked.y[:, None] - 9 * loud[:, None])(one)[0]) == 1.0


def test_intensity_takes_scenes_with_three_steps_or_more() -> None:
    items = steps(6)
    kept = items[~((items["group"] == "s1") & (items["role"] == "mild"))].reset_index(drop=True)
    asked = select(kept, "intensity")
    assert set(asked.items["group"]) == {"s0", "s2", "s3", "s4", "s5"}
    assert set(asked.y) == {0.0, 1.0, 2.0, 3.0}
    with pytest.raises(BatteryError, match="needs scenes told at 3 or more intensities"):
        select(battery_frame(8), "intensity")


def test_any_column_is_a_target() -> None:
    items = battery_frame(12, n_quads=2)
    years = np.arange(len(items)) % 7
    ordered = select(items.assign(year=years), "year")
    assert ordered.ordered
    assert not ordered.items["split"].str.startswith("crossed").any()
    np.testing.assert_array_equal(ordered.y, years[ordered.rows])
    for values, classes in (([0.5, 2.5], ("0.5", "2.5")), ([True, False], ("False", "True")), (["b", "a"], ("a", "b"))):
        asked = select(items.assign(mood=[values[i % 2] for i in range(len(items))]), "mood")
        assert asked.classes == classes
        assert (np.array(asked.classes)[asked.y] == asked.items["mood"].astype(str)).all()
    some: Any = [None if i % 3 == 0 else "ab"[i % 2] for i in range(len(items))]
    gaps = items.assign(mood=some)
    assert (select(gaps, "mood").rows % 3 != 0).all()


@pytest.mark.parametrize(
    ("name", "column", "said"),
    [
        ("mood", None, "There is no target 'mood'; choose from affect, .* or a column of the battery: "),
        ("text", None, "There is no target 'text'"),
        ("mood", "a", "Target mood needs items of at least two classes, and this battery has only a: "),
        ("id", None, "There is no target 'id'"),
    ],
)
def test_a_column_that_is_no_target_is_refused_in_one_sentence(name: str, column: str | None, said: str) -> None:
    items = battery_frame(4)
    with pytest.raises(BatteryError, match=said) as error:
        select(items if column is None else items.assign(mood=column), name)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_an_order_needs_three_values() -> None:
    items = battery_frame(8)
    with pytest.raises(BatteryError, match="arousal needs at least three different values, and this battery has 1"):
        select(items[items["emotion"] == "joy"].reset_index(drop=True), "arousal")


def test_plain_texts_are_their_own_scenes() -> None:
    from affectlens.probing import probe
    from tests.conftest import activations

    n = 24
    plain = pd.DataFrame({"id": [str(i) for i in range(n)], "text": ["t"] * n, "mood": ["x", "y"] * (n // 2)})
    values = np.random.default_rng(0).normal(size=(n, 1, 3)) + 3 * (plain["mood"] == "y").to_numpy()[:, None, None]
    report = probe(activations(plain, values), target="mood", rungs="pair", progress=False)
    assert report.headline.n == n
    assert report.headline.value > 0.8


def test_ctrl_c_stops_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.neural_network import MLPClassifier

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MLPClassifier, "_backprop", stopped)
    x, y = np.random.default_rng(0).normal(size=(24, 1, 4)), np.arange(24) % 2
    part = Part(np.arange(24), y, 2, np.arange(24) // 2, np.arange(24) // 2 % 4)
    with pytest.raises(KeyboardInterrupt):
        controls.network(x, part, (0, 0, 0, 0))


# concordance ---------------------------------------------------------------------------------------------------------


def brute(scores: np.ndarray, y: np.ndarray, folds: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> float:
    """One comparison after the other."""
    won = total = 0.0
    for i in range(len(y)):
        for j in range(len(y)):
            if y[i] > y[j] and folds[i] == folds[j]:
                both = weights[groups[i]] * (1.0 if groups[i] == groups[j] else weights[groups[j]])
                total += both
                won += both * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return float(won / total)


@pytest.mark.parametrize("values", [2, 4, 30])
def test_concordance_is_the_share_of_comparisons_counted_one_by_one(values: int) -> None:
    rng = np.random.default_rng(8)
    y = rng.integers(0, values, 30)
    y = y if values == 2 else y.astype(float)
    scores, groups = rng.normal(size=30).round(1), np.arange(30) // 3
    weights = np.stack([np.ones(10), rng.integers(0, 4, 10), 1.0 - np.eye(10)[2]])
    found = auroc(scores, y, groups % 3, groups)(weights)
    np.testing.assert_allclose(found, [brute(scores, y, groups % 3, groups, w) for w in weights])


def test_concordance_is_somers_d_in_one_fold() -> None:
    rng = np.random.default_rng(9)
    y, scores = rng.integers(0, 5, 60).astype(float), rng.normal(size=60).round(1)
    found = auroc(scores, y, np.zeros(60, dtype=int), np.arange(60))(np.ones((1, 60)))[0]
    assert found == pytest.approx((stats.somersd(y, scores).statistic + 1) / 2)
