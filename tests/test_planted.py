"""Probing on planted data: intervals that cover, p that is uniform, and the truth found where it was put."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from affectlens.metrics import auroc, average
from affectlens.probing import controls, fits, permuting, probe
from affectlens.probing.floors import floor
from affectlens.probing.folds import split
from affectlens.probing.linear import Linear
from affectlens.probing.parts import Stage, stage
from affectlens.probing.sweep import Part, Sweep, sweep
from affectlens.probing.targets import select
from affectlens.stats import Estimate, Statistic, band, detectable, estimate, less, shared
from tests.conftest import activations, battery_frame

EMOTIONAL = np.array([1, 0])  # of each scene of battery_frame


def staged(items: pd.DataFrame, rung: str, target: str = "affect") -> Stage:
    found = stage(items, select(items, target), rung)
    assert isinstance(found, Stage), found
    return found


def value(statistic: Statistic, n: int) -> float:
    return float(statistic(np.ones((1, n)))[0])


def gap(found: Stage, a: np.ndarray, b: np.ndarray) -> Estimate:
    """The paired difference of two readers' held-out scores."""
    return estimate(less(found.worth(a), found.worth(b)), found.n, found.unit, bounds=None)


def held_out(x: np.ndarray, part: Part, fit: Callable[..., Linear] = fits.mean_difference) -> np.ndarray:
    """Cross-validated logits of one layer; no choice of anything."""
    out = np.full((len(part.y), part.width), np.nan)
    for fold in np.unique(part.folds):
        test = part.folds == fold
        out[test] = fit(x[~test, None], part.y[~test], part.n_classes)(x[test, None])[:, 0]
    return out


def ridge(x: np.ndarray, y: np.ndarray, n_classes: int) -> Linear:
    return fits.ridge(x, y, n_classes)[0]


def inside(blocks: np.ndarray) -> permuting.Exchange:
    """Items exchanged one by one inside blocks."""
    return permuting.Exchange(np.arange(len(blocks)), blocks)


def reader(x: np.ndarray, part: Part) -> Sweep:
    """The sweep of a ridge on one layer, as a cheap floor."""
    inner = {}
    for fold in np.unique(part.folds):
        train = part.folds != fold
        y, keys = part.y[train], part.keys[train]
        inside = Part(np.arange(len(y)), y, part.n_classes, keys, split(keys, y, 3))
        inner[int(fold)] = held_out(x[train], inside, ridge)
    logits = held_out(x, part, ridge)
    return Sweep({part.main: logits[:, None]}, {part.main: logits}, (0,) * len(inner), inner, part.main)


# label noise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", ["pair", "domain"])
def test_the_interval_of_a_cross_validated_score_covers_one_half_on_noise(rung: str) -> None:
    items, runs = battery_frame(40), 200
    found, rng = staged(items, rung), np.random.default_rng(0)
    covered = 0
    for seed in range(runs):
        logits = held_out(rng.normal(size=(len(items), 20)), found.part)
        one = estimate(found.worth(logits), found.n, found.unit, seed=seed, folds=found.n_folds)
        covered += one.low <= 0.5 <= one.high
    assert stats.binomtest(covered, runs, 0.95).pvalue > 0.001


@pytest.mark.parametrize("n", [8, 60])
def test_the_interval_of_a_probe_trained_elsewhere_covers_one_half_on_noise(n: int) -> None:
    rng, runs, covered = np.random.default_rng(n), 200, 0
    for seed in range(runs):
        y, groups, scores = cluster_scores(rng, n, 0.0)
        one = estimate(auroc(scores, y, groups if n == 8 else groups % 8, groups), n, "cluster", seed=seed)
        covered += one.low <= 0.5 <= one.high
    assert stats.binomtest(covered, runs, 0.95).pvalue > 0.001


def null_labels(kind: str, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, int]:
    """32 items of 8 domains: their scenes and domains, labels that nothing carries, the number of classes."""
    scenes = np.repeat(np.arange(16), 2) if kind in ("binary", "intensity") else np.arange(32)
    items = pd.DataFrame({"group": scenes, "domain": scenes % 8})
    if kind == "binary":
        return items, np.tile([0, 1], 16), 2
    if kind == "classes":
        return items, rng.permuted(np.tile(np.arange(4)[:, None], (1, 8)), axis=0).ravel(), 4
    return items, (np.tile([0.0, 3.0], 16) if kind == "intensity" else rng.normal(size=32)), 0


@pytest.mark.parametrize("rung", ["group", "domain"])
@pytest.mark.parametrize("kind", ["binary", "classes", "order", "intensity"])
def test_permutation_p_is_uniform_on_noise(kind: str, rung: str) -> None:
    """Of one layer and of the best of four correlated ones, against chance and against a floor."""
    p: dict[str, list[float]] = {}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        items, y, n_classes = null_labels(kind, rng)
        groups = items["group"].to_numpy()
        part = Part(np.arange(32), y, n_classes, items[rung].to_numpy(), split(items[rung].to_numpy(), y, 4))
        x = rng.normal(size=(32, 1, 8)) + rng.normal(size=(32, 4, 8)) / 2 + rng.normal(size=(32, 1, 8))[groups]
        truth, within = fits.coded(y, n_classes), permuting.Exchange.of(items, y)
        left = permuting.beyond(reader(rng.normal(size=(32, 4)), part), part)
        for null, aim in (("chance", lambda _, truth=truth: truth), ("floor", left)):
            found = permuting.permute(x, part, aim, groups, within, draws=99, seed=seed)
            p.setdefault(null, []).append(float(found.p[0]))
            p.setdefault(null + ", best layer", []).append(found.best)
    for name, drawn in p.items():
        assert stats.kstest(drawn, "uniform").pvalue > 0.001, name
        assert stats.binomtest(int((np.array(drawn) <= 0.2).sum()), 60, 0.2, alternative="greater").pvalue > 0.001, name


def test_the_best_layer_pays_for_the_search() -> None:
    """Of forty layers of noise the least p alone is small; the best layer's own p is not."""
    rng = np.random.default_rng(0)
    items, y, _ = null_labels("binary", rng)
    groups = items["group"].to_numpy()
    part, truth = Part(np.arange(32), y, 2, groups, split(groups, y, 8)), fits.coded(y, 2)
    found = permuting.permute(rng.normal(size=(32, 40, 8)), part, lambda _: truth, groups, inside(groups), draws=199)
    assert found.p.min() < 0.05 < found.best
    assert (found.p_adjusted >= found.p).all()


def test_labels_are_exchanged_inside_their_blocks() -> None:
    blocks = np.array([0, 0, 1, 1, 1, 2])
    order = inside(blocks).draw(400, 0)
    assert (order[:, 0] == np.arange(6)).all()
    assert (blocks[order] == blocks[:, None]).all()
    assert (np.sort(order, axis=0) == np.arange(6)[:, None]).all()
    assert len(np.unique(order[:, 1:], axis=1).T) == 2 * 6


def test_a_scene_with_one_label_keeps_its_items_together() -> None:
    items = pd.DataFrame({"group": np.repeat(np.arange(12), 3), "domain": np.repeat(np.arange(12) % 3, 3)})
    y = np.repeat(np.arange(12) // 3 % 2, 3)
    moved = y[permuting.Exchange.of(items, y).draw(50, 0)]
    assert (moved.reshape(12, 3, 51) == moved.reshape(12, 3, 51)[:, :1]).all()


# what is planted is found --------------------------------------------------------------------------------------------


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One floor, and no network: what these reports are asked does not depend on them."""
    monkeypatch.setattr("affectlens.probing.rung.FLOORS", ("surface",))
    monkeypatch.setattr(controls, "network", lambda x, part, layers, **_: np.zeros((len(x), part.width)))


@pytest.mark.usefixtures("_quick")
def test_a_topic_confound_is_said_in_words() -> None:
    """Each domain has a direction of affect of its own: random and pair folds read it, held-out domains do not."""
    items, rng = battery_frame(64), np.random.default_rng(3)
    emotional = np.tile(EMOTIONAL, 64)
    domain = items["domain"].str[1:].astype(int).to_numpy()
    values = rng.normal(size=(len(items), 1, 24))
    values[np.arange(len(items)), 0, domain] += 8.0
    values[np.arange(len(items)), 0, 8 + domain] += 4.0 * (2 * emotional - 1)
    report = probe(activations(items, values), rungs=("random", "pair", "domain"), progress=False)
    near = [report.estimate("probe", "logistic", rung) for rung in ("random", "pair")]
    assert min(one.value for one in near) > 0.9
    assert min(one.low for one in near) > 0.7
    assert report.headline.low <= 0.5 <= report.headline.high
    said = [line for line in report.summary() if "With whole domains held out the score falls" in line]
    assert len(said) == 1
    assert "topic" in said[0]
    assert str(near[1]) in said[0]


@pytest.mark.usefixtures("_quick")
def test_no_fall_is_said_where_the_score_carries_over() -> None:
    items, rng = battery_frame(48), np.random.default_rng(1)
    values = rng.normal(size=(len(items), 1, 8))
    values[:, 0, 0] += 3.0 * np.tile(EMOTIONAL, 48)
    report = probe(activations(items, values), rungs=("pair", "domain"), progress=False)
    assert not any("falls from" in line for line in report.summary())


@pytest.mark.parametrize(("method", "most"), [("mean_difference", 4000), ("lda", 4000), ("logistic", 4000)])
def test_a_planted_direction_is_recovered(method: str, most: int) -> None:
    """Under unequal and correlated noise too, where covariance is taken into account."""
    rng, d = np.random.default_rng(2), 20
    direction, y = rng.normal(size=d), np.arange(most) % 2
    direction /= np.linalg.norm(direction)
    mix = (
        np.eye(d) if method == "mean_difference" else np.diag(rng.uniform(0.7, 1.4, d)) + 0.1 * rng.normal(size=(d, d))
    )
    x = (rng.normal(size=(most, d)) @ mix + np.outer(2 * y - 1, direction) * 0.8)[:, None]
    aim = direction if method == "mean_difference" else np.linalg.solve(mix.T @ mix, direction)
    fitted = {
        "mean_difference": lambda: fits.mean_difference(x, y, 2),
        "lda": lambda: fits.lda(x, y, 2),
        "logistic": lambda: fits.logistic(x, y, 2, np.array([[1e-1]]))[0],
    }[method]()
    found = fitted.weights[0, 0]
    assert found @ aim / np.linalg.norm(found) / np.linalg.norm(aim) > 0.99


def test_the_planted_layers_are_chosen_small_in_p_and_above_in_the_band() -> None:
    items, rng = battery_frame(64), np.random.default_rng(3)
    found = staged(items, "domain")
    emotional = np.tile(EMOTIONAL, 64)
    values = rng.normal(size=(128, 5, 12))
    values[:, 2, 0] += 2.5 * emotional
    values[:, 3, 1] += 4.0 * emotional
    scored = sweep(lambda _: values, found.part, methods=("logistic",))[""]
    assert scored.layers == (3,) * 8
    chance = [less(found.worth(scored.logits["logistic"][:, k]), lambda w: np.full(len(w), 0.5)) for k in range(5)]
    assert (band(chance, found.n).low > 0).tolist() == [False, False, True, True, False]
    groups, truth = np.arange(128) // 2, fits.coded(found.part.y, 2)
    test = permuting.permute(values, found.part, lambda _: truth, groups, inside(groups), draws=199)
    assert (test.p_adjusted <= 0.05).tolist() == [False, False, True, True, False]
    assert test.best == test.p.min() == 1 / 200
    assert test.t.argmax() == 3


FILL = "table window street paper garden river letter bottle corner morning kitchen station".split()


@pytest.mark.parametrize("more", [False, True])
def test_a_lexical_leak_is_told_from_what_words_do_not_hold(more: bool) -> None:
    """The activations hold one word's presence, and what no word tells only if ``more``: three ways to see which."""
    items, rng = battery_frame(80), np.random.default_rng(4)
    found = staged(items, "domain")
    emotional = found.part.y
    told = np.where(rng.random(160) < 0.8, emotional, 1 - emotional)
    texts = [" ".join(["never" if t else "there", *rng.choice(FILL, 5)]) for t in told]
    values = rng.normal(size=(160, 3, 10))
    values[:, 1:, 0] += 4.0 * told[:, None]
    values[:, 1:, 1] += 3.0 * more * emotional[:, None]
    scored = sweep(lambda _: values, found.part, methods=("logistic",))[""]
    words = floor("function_words", texts, found.part)[""]
    groups, truth = np.arange(160) // 2, fits.coded(emotional, 2)
    p = [permuting.permute(values, found.part, aim, groups, inside(groups), draws=199).best
         for aim in (lambda _: truth, permuting.beyond(words, found.part))]  # fmt: skip
    less_floor = gap(found, scored.headline, words.headline)
    gain = estimate(average(controls.gains(words, scored, found.part), found.clusters), found.n, "domain", bounds=None)
    assert value(found.worth(words.headline), found.n) > 0.7
    assert value(found.worth(scored.headline), found.n) > 0.7
    assert p[0] == 1 / 200
    assert (less_floor.low > 0, gain.low > 0, p[1] <= 0.05) == (more, more, more)


# widths --------------------------------------------------------------------------------------------------------------


def cluster_scores(
    rng: np.random.Generator, n: int, effect: float, readers: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, clusters and scores of n clusters (domains of 8 items, or pairs) that differ in level and in effect."""
    per = 8 if n < 30 else 2
    groups, y = np.repeat(np.arange(n), per), np.tile([0, 1], n * per // 2)
    shared = rng.normal(size=(n, 2))[groups]
    scores = rng.normal(size=(n * per, readers)) + rng.normal(size=(n * per, 1)) + shared[:, :1] / 2
    scores += (y[:, None]) * (effect + shared[:, 1:] / 2)
    return y, groups, scores[:, 0] if readers == 1 else scores


SIMULATED = {8: 800, 60: 800}


def simulated(n: int, folds: int, kind: str, seed: int, member: int = 0) -> Statistic:
    """AUROC of one reader, or the paired difference of two, on a fresh set."""
    y, groups, scores = cluster_scores(np.random.default_rng(seed), n, 1.2, 3)
    inside = groups % folds
    first = auroc(scores[:, member], y, inside, groups)
    return first if kind == "auroc" else less(first, auroc(scores[:, 2], y, inside, groups))


@pytest.mark.parametrize("kind", ["auroc", "difference"])
@pytest.mark.parametrize(("n", "folds"), [(8, 8), (60, 1), (60, 8)])
def test_widths_are_those_of_fresh_data(n: int, folds: int, kind: str) -> None:
    spread = np.std([value(simulated(n, folds, kind, seed), n) for seed in range(SIMULATED[n])])
    fresh = (simulated(n, folds, kind, 5000 + seed) for seed in range(80))
    crossed = folds if n > folds > 1 else 0  # the jackknife, which leaves the sizes of folds nearly alone
    found = [estimate(one, n, "cluster", seed=seed, bounds=None, folds=crossed) for seed, one in enumerate(fresh)]
    wide = (stats.t.ppf(0.975, n - 1) if n < 30 or crossed else stats.norm.ppf(0.975)) * shared(crossed)
    errors = [(one.high - one.low) / 2 / wide for one in found]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize(("n", "folds"), [(8, 8), (60, 1)])
def test_the_bands_widths_are_those_of_fresh_data(n: int, folds: int) -> None:
    def family(seed: int) -> list[Statistic]:
        return [simulated(n, folds, "difference", seed, member) for member in (0, 1)]

    spread = np.std([[value(one, n) for one in family(seed)] for seed in range(500)], axis=0)
    bands = [band(family(5000 + seed), n, seed=seed, draws=400) for seed in range(60)]
    errors = np.array([(one.high - one.low) / 2 / one.critical for one in bands])
    assert np.sqrt((errors**2).mean(0)) == pytest.approx(spread, rel=0.1)


def mean_of(values: np.ndarray) -> Statistic:
    return lambda weights: weights @ values / weights.sum(1)


def layers(rng: np.random.Generator, n: int, members: int = 20) -> np.ndarray:
    """Neighbouring members correlate 0.9."""
    steps = rng.normal(size=(n, members))
    for k in range(1, members):
        steps[:, k] = 0.9 * steps[:, k - 1] + np.sqrt(1 - 0.81) * steps[:, k]
    return steps


@pytest.mark.parametrize("n", [8, 60])
def test_the_band_covers_all_members_at_once(n: int) -> None:
    rng, runs = np.random.default_rng(11), 400 if n == 8 else 150
    every, each = 0, 0.0
    for seed in range(runs):
        found = band([mean_of(column) for column in layers(rng, n).T], n, seed=seed, draws=400)
        inside = (found.low <= 0) & (found.high >= 0)
        every, each = every + bool(inside.all()), each + float(inside.mean()) / runs
    assert each > 0.97
    assert stats.binomtest(every, runs, 0.95).pvalue > 0.001


@pytest.mark.parametrize("n", [8, 60])
def test_the_detectable_effect_is_found_four_times_in_five(n: int) -> None:
    rng, runs = np.random.default_rng(n), 500 if n == 8 else 250
    drawn = rng.normal(size=(runs, n))
    found = [estimate(mean_of(row), n, "cluster", seed=seed, bounds=None) for seed, row in enumerate(drawn)]
    least = np.sqrt(np.mean([detectable(one) ** 2 for one in found]))
    share = np.mean([one.low + least > 0 for one in found])
    assert share == pytest.approx(0.8, abs=0.06)


# scale ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["affect", "category"])
def test_no_score_grows_with_the_norm_or_moves_with_the_mean(target: str) -> None:
    items, rng = battery_frame(40, n_domains=5), np.random.default_rng(5)
    found = staged(items, "pair", target)
    part = found.part
    values = rng.normal(size=(80, 2, 12))
    values[:, 1, 0] += np.tile(EMOTIONAL, 40)
    truth = fits.coded(part.y, part.n_classes)

    def scores(x: np.ndarray) -> dict[str, np.ndarray]:
        scored = sweep(lambda _: x, part)[""]
        here = x[part.rows]
        drawn = controls.random_directions(here, part, scored.layers, draws=9)
        groups = np.arange(len(part.y))
        out = {method: worth(logits) for method, logits in scored.nested.items()}
        return out | {
            "layers": np.array(scored.layers),
            "random": np.array([worth(one) for one in drawn]),
            "network": worth(controls.network(here, part, scored.layers)),
            "t": permuting.permute(here, part, lambda _: truth, groups, inside(groups), draws=1).t,
        }

    def worth(logits: np.ndarray) -> np.ndarray:
        return np.array(value(found.worth(logits), found.n))

    first = scores(values)
    for other in (1000 * values, values + 7.0):
        for name, score in scores(other).items():
            np.testing.assert_allclose(score, first[name], atol=1e-6, err_msg=name)
