"""Probes in new contexts: after the passage, under a system prompt, in another format. Planted truth, laws, oracles."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats as st
from sklearn.linear_model import LogisticRegression

from affectlens.capturing import capture
from affectlens.errors import BatteryError, CaptureError, StoreError
from affectlens.layouts import lay_out
from affectlens.model import LensModel
from affectlens.probing.contexts import instructing, persisting
from affectlens.probing.contexts.fading import exceeding, fade, halved, run_length, t_of
from affectlens.probing.contexts.formatting import CHAT, STYLES, alike, formats, transfer, written
from affectlens.probing.contexts.instructing import PROMPTS, malleability, own_prompt, within
from affectlens.probing.contexts.matching import (
    Matched,
    cross_fitted,
    matched,
    mean_difference,
    mean_of,
    random_directions,
    read,
    spread,
)
from affectlens.probing.contexts.persisting import BETWEEN, CONTINUATIONS, after, persistence
from affectlens.probing.contexts.results import Formats
from affectlens.probing.linear import Linear
from affectlens.stats import estimate, paired
from affectlens.stimuli import load_battery
from affectlens.testing import tiny_model
from tests.conftest import battery_frame

SYSTEM = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
OWN = "{% if messages[0].role != 'system' %}<system>Be good.\n{% endif %}" + SYSTEM
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}<{{ m.content }}>"
    "{% endfor %}"
)
DROPS = "{% for m in messages %}{% if m.role == 'user' %}<{{ m.content }}>{% endif %}{% endfor %}"
WORDS = "oak lamp road cup hill rain bell door sand leaf coat tin".split()


def told(n_scenes: int = 16, seed: int = 0, n_domains: int = 8) -> pd.DataFrame:
    """Scenes whose two sides are random words, so that nothing but chance tells them apart."""
    rng = np.random.default_rng(seed)
    frame = battery_frame(n_scenes, n_domains)
    return frame.assign(text=[" ".join(rng.choice(WORDS, rng.integers(4, 9))) + "." for _ in range(len(frame))])


def logistic(x: np.ndarray, y: np.ndarray, n_classes: int) -> Linear:
    fit = LogisticRegression(C=0.1).fit(x, y)
    return Linear(fit.coef_, fit.intercept_)


def noise(pairs: Matched, d: int = 24, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(pairs.items), d)) * np.exp(rng.normal(size=d))


def chatty(template: str) -> LensModel:
    model = tiny_model("llama", check=False)
    model.tokenizer.chat_template = template
    return model


# matched items and cross-fitting -------------------------------------------------------------------------------------


def test_only_scenes_told_both_ways_are_matched() -> None:
    frame = battery_frame(24)
    alone = frame.drop(index=frame.index[(frame["group"] == "s3") & (frame["role"] == "neutral")])
    pairs = matched(alone.assign(extra=1))
    assert pairs.n == 23
    assert "s3" not in set(pairs.items["group"])
    assert (alone.iloc[pairs.rows]["id"].to_numpy() == pairs.items["id"].to_numpy()).all()
    assert pairs.items.groupby("domain").apply(lambda t: len(set(pairs.folds[t.index]))).eq(1).all()
    values = np.arange(len(pairs.items), dtype=float)
    for row, scene in zip(pairs.contrasts @ values, pairs.items["group"].unique(), strict=True):
        own = pairs.items[pairs.items["group"] == scene]
        assert row == values[own.index[own["role"] == "emotional"]][0] - values[own.index[own["role"] == "neutral"]][0]


def test_valence_is_fitted_on_emotional_items_and_signs_their_scenes() -> None:
    pairs = matched(battery_frame(32), target="valence")
    unpleasant = pairs.items.loc[pairs.items["role"] == "emotional", "valence"].to_numpy() < 0
    assert (pairs.sign == np.where(unpleasant, -1.0, 1.0)).all()
    assert (pairs.fitted == pairs.emotional).all()
    x = np.zeros((64, 3))
    x[pairs.emotional, 0] = pairs.sign  # pleasant up, unpleasant down: every scene's signed difference is positive
    held = read(cross_fitted(x, pairs.labels, pairs.folds, fitted=pairs.fitted), x, pairs.folds)
    assert (pairs.contrasts @ held > 0.9).all()


@pytest.mark.parametrize(
    ("frame", "options", "said"),
    [
        (battery_frame(), {"target": "category"}, "choose affect or valence"),
        (battery_frame(), {"rung": "random"}, "can't be held out by 'random'"),
        (battery_frame(n_domains=1), {}, "there is only one domain: try rung='pair'"),
        (battery_frame().drop(columns="domain"), {}, "have no domain"),
        (battery_frame(2).iloc[:3], {}, "1 scenes have an emotional and a neutral item"),
    ],
)
def test_what_cannot_be_matched_is_said(frame: pd.DataFrame, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BatteryError, match=said):
        matched(frame, **options)


@pytest.mark.parametrize("method", [mean_difference, logistic])
def test_no_scene_is_read_by_a_direction_that_saw_its_domain(method: Callable[..., Linear]) -> None:
    """Each domain has an axis of its own: whoever has seen it tells the sides apart, whoever has not cannot."""
    pairs = matched(battery_frame(40))
    domain, _ = pd.factorize(pairs.items["domain"])
    x = np.zeros((80, 9))
    x[np.arange(80), domain] = np.where(pairs.emotional, 1.0, -1.0)
    readers = cross_fitted(x, pairs.labels, pairs.folds, method=method)
    assert np.abs(pairs.contrasts @ read(readers, x, pairs.folds)).max() < 1e-9
    halves = (pairs.scenes >= 24).astype(int)  # folds that split every domain
    seen = cross_fitted(x, pairs.labels, halves, method=method)
    assert (pairs.contrasts @ read(seen, x, halves) > 0.1).all()
    assert all(abs(np.linalg.norm(one.direction) - 1) < 1e-12 for one in readers)


def test_a_reader_is_its_probe_up_to_length() -> None:
    pairs = matched(battery_frame(24))
    x = noise(pairs)
    probe = logistic(x[pairs.folds != 2], pairs.labels[pairs.folds != 2], 2)
    reader = cross_fitted(x, pairs.labels, pairs.folds, method=logistic)[2]
    assert np.allclose(reader(x) * np.linalg.norm(probe.weights), probe(x)[:, 0])


def test_the_unit_is_the_neutral_items_deviation_within_folds() -> None:
    pairs = matched(battery_frame(40))
    rng = np.random.default_rng(0)
    scores = rng.normal(size=80) + 100 * pairs.folds + np.where(pairs.emotional, 30 * rng.normal(size=80), 0)
    neutral = pd.Series(scores[~pairs.emotional]).groupby(pairs.folds[~pairs.emotional])
    assert float(spread(scores, pairs.folds, ~pairs.emotional)) == pytest.approx(np.sqrt(neutral.var().mean()))


def test_sides_that_are_the_same_have_no_direction(llama: LensModel) -> None:
    with pytest.raises(BatteryError, match="same mean"):
        persistence(llama, battery_frame(16), layer=1, continuation="So.", draws=19, progress=False)


# the curve after a passage -------------------------------------------------------------------------------------------


def planted(curve: np.ndarray, n: int = 40, seed: int = 0, copies: int = 1, size: float = 0.2) -> Any:
    rng = np.random.default_rng(seed)
    values = curve + size * rng.normal(size=(copies, n, len(curve)))
    null = rng.normal(size=(2, 99, n, len(curve)))
    meta = {"seed": 0, "target": "affect", "layer": 3, "model": "planted", "rung": "domain", "draws": 99,
            "continuations": ["words"] * copies}  # fmt: skip
    return fade(values, null[0], null[1], passage=values[0, :, 0], meta=meta)


@pytest.mark.parametrize("k", [6, 25])
def test_a_difference_of_k_tokens_lasts_k_tokens(k: int) -> None:
    found = planted((np.arange(40) < k) * 1.0, copies=2)
    assert found.lasts.value == k
    assert found.lasts.low <= k <= found.lasts.high
    assert not found.open_ended
    assert found.half_life.value == pytest.approx(k - 2, abs=1)  # the middle of its window of five has left the plateau
    assert found.p == 0.01
    assert f"outlasts its passage by {k} [" in found.summary()[0]
    assert {"1", "2", "all"} == set(found.curve["continuation"])
    assert np.allclose(found.of()["value"], (found.of("1")["value"] + found.of("2")["value"]) / 2)


def test_an_exponential_has_its_half_life_and_more_scenes_do_not_lengthen_it() -> None:
    curve = 2.0 ** -(np.arange(60) / 9)
    few, many = planted(curve, n=30, size=0.3), planted(curve, n=150, size=0.3)
    for found in (few, many):
        assert found.half_life.value == pytest.approx(9, abs=1.5)
        assert found.half_life.low <= 9.5
        assert found.half_life.high >= 8.5
    assert many.lasts.value > few.lasts.value + 3
    assert halved(curve[None])[0] == 9


def test_what_never_fades_is_said_to_be_there_at_the_last_token() -> None:
    found = planted(np.ones(30))
    assert found.open_ended
    assert found.lasts.high == 30
    assert "still above at the last token, 30" in found.summary()[0]
    assert "not reached in 26 tokens" in found.summary()[2]


def test_what_is_not_there_is_not_said_to_last() -> None:
    found = planted(np.zeros(30), seed=3)
    assert found.lasts.value == 0
    assert found.half_life is None
    assert found.p > 0.05
    assert "No affect is shown to outlast" in found.summary()[0]


def test_a_difference_that_placebos_share_is_not_claimed() -> None:
    rng = np.random.default_rng(0)
    values = 1 + 0.2 * rng.normal(size=(1, 40, 20))
    random = 1 + 0.2 * rng.normal(size=(99, 40, 20))
    meta = planted(np.ones(20)).meta
    found = fade(values, random, random * rng.choice([-1, 1], size=(99, 40, 1)), passage=values[0, :, 0], meta=meta)
    assert found.lasts.value == 20
    assert found.p > 0.05
    assert "do not allow a claim" in found.summary()[0]


def test_each_placebo_has_its_own_p() -> None:
    rng = np.random.default_rng(0)
    values, wide = 1 + 0.2 * rng.normal(size=(1, 40, 20)), 1 + 0.2 * rng.normal(size=(99, 40, 20))
    none, meta = rng.normal(size=(99, 40, 20)), planted(np.ones(20)).meta
    for random, shuffled, least in ((wide, none, (0.05, 0)), (none, wide, (0, 0.05))):
        curve = fade(values, random, shuffled, passage=values[0, :, 0], meta=meta).of()
        assert (curve["p_random"].min() > 0.05, curve["p_shuffled"].min() > 0.05) == (least[0] > 0, least[1] > 0)


def test_curves_do_not_depend_on_the_unit_of_placebos() -> None:
    rng = np.random.default_rng(0)
    values, random, shuffled = (
        rng.normal(size=(1, 30, 12)),
        rng.normal(size=(59, 30, 12)),
        rng.normal(size=(59, 30, 12)),
    )
    meta = planted(np.ones(20)).meta
    one = fade(values, random, shuffled, passage=values[0, :, 0], meta=meta)
    other = fade(values, 1e3 * random, 1e-3 * shuffled, passage=values[0, :, 0], meta=meta)
    assert np.allclose(one.of().drop(columns="continuation"), other.of().drop(columns="continuation"))


def test_p_counts_draws_by_hand() -> None:
    rng = np.random.default_rng(0)
    seen, drawn = np.array([0.5, 2.0, 9.0]), np.abs(rng.normal(size=(199, 3)))
    alone, together = exceeding(seen, drawn)
    for column in range(3):
        assert alone[column] == (1 + sum(row[column] >= seen[column] for row in drawn)) / 200
        assert together[column] == (1 + sum(max(row) >= seen[column] for row in drawn)) / 200
    assert alone[2] == together[2] == 1 / 200
    assert np.allclose(t_of(drawn), cast(Any, st.ttest_1samp(drawn, 0)).statistic)
    assert run_length(np.array([[True, True, False, True], [False] * 4, [True] * 4])).tolist() == [2, 0, 4]


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_placebos_are_calibrated_where_nothing_is_planted(shared: float) -> None:
    """Tokens keep a part of their passage, but no direction is common: at most 5 in 100 may be called persistent."""
    pairs, hits, shuffled_hits, draws = matched(battery_frame(24)), 0, 0, 59
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = noise(pairs, seed=seed)
        tokens = shared * x[:, None] + np.sqrt(1 - shared**2) * rng.normal(size=(48, 8, 24)) * x.std(0)
        readers = cross_fitted(x, pairs.labels, pairs.folds)
        flips = rng.choice([-1.0, 1.0], size=(draws, pairs.n))
        ways = persisting._directions(x, pairs, readers, flips, mean_difference, seed)
        scores = np.einsum("gi,itd,ikd->ktg", pairs.contrasts, tokens, ways[pairs.folds]).transpose(0, 2, 1)
        found = fade(scores[None, 0], scores[1 : 1 + draws], scores[1 + draws :] * flips[:, :, None],
                     passage=scores[0, :, 0], meta={"seed": seed})  # fmt: skip
        hits += found.p < 0.05
        shuffled_hits += found.of()["p_shuffled_adjusted"].min() < 0.05
    most = int(st.binom.ppf(0.999, 30, 0.05))
    assert hits <= most
    assert shuffled_hits <= most


# the curve in a model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_neither_padding_nor_batches_move_a_score(family: str) -> None:
    model = tiny_model(family)
    frame = told()
    options: dict[str, Any] = {"layer": 1, "continuation": ("A plain line.", "Rain fell on it."), "draws": 19}
    one, other = (persistence(model, frame, token_budget=size, progress=False, **options) for size in (1, 100_000))
    assert np.allclose(one.of()[["value", "t"]], other.of()[["value", "t"]], atol=2e-4)
    assert one.n_tokens == len("A plain line.")


def test_a_tokens_difference_is_what_a_capture_of_it_gives(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, words = told(), "A plain line."
    given: Any = {}

    def keeping(differences: np.ndarray, random: np.ndarray, shuffled: np.ndarray, **rest: Any) -> Any:
        given.update(random=random, shuffled=shuffled, **rest)
        return fade(differences, random, shuffled, **rest)

    monkeypatch.setattr(persisting, "fade", keeping)
    found = persistence(llama, frame, layer=0, continuation=words, draws=19, progress=False)
    pairs = matched(frame)
    x = capture(llama, frame, positions="mean", progress=False)["L0.resid_post"].astype(np.float64)
    readers = cross_fitted(x, pairs.labels, pairs.folds)
    held = read(readers, x, pairs.folds)
    unit = spread(held, pairs.folds, ~pairs.emotional)
    assert np.allclose(given["passage"], pairs.contrasts @ held / unit)
    every = capture(llama, [text + BETWEEN + words for text in frame["text"]], positions="all", progress=False)
    ends = np.stack([every.item(row)[-len(words) :, 0] for row in range(len(frame))])  # a byte is a token
    for token in range(len(words)):
        by_hand = pairs.contrasts @ read(readers, ends[:, token], pairs.folds) / unit
        assert found.of()["value"][token] == pytest.approx(by_hand.mean(), abs=1e-4)
    flip, random = np.random.default_rng(0).choice([-1.0, 1.0], size=(19, pairs.n))[7], random_directions(19, 32, 1)
    refitted = cross_fitted(x, np.where(flip[pairs.scenes] < 0, 1 - pairs.labels, pairs.labels), pairs.folds)
    by_hand = flip * (pairs.contrasts @ read(refitted, ends[:, 4], pairs.folds))
    assert np.allclose(given["shuffled"][7, :, 4], by_hand, atol=1e-4)
    assert np.allclose(given["random"][7, :, 4], pairs.contrasts @ ends[:, 4] @ random[7], atol=1e-4)
    acts = capture(llama, frame, positions=["last", "mean"], progress=False)
    same = persistence(llama, acts, layer=0, continuation=words, draws=19, progress=False)
    assert np.allclose(same.of()["value"], found.of()["value"], atol=1e-6)


def test_a_random_model_with_sides_by_chance_is_not_called_persistent(llama: LensModel) -> None:
    hits = [
        persistence(llama, told(seed=s), layer=1, continuation="So it went.", draws=39, seed=s, progress=False).p < 0.05
        for s in range(8)
    ]
    assert sum(hits) <= 2


def test_what_persistence_refuses(llama: LensModel) -> None:
    acts = capture(llama, told(), positions="mean", progress=False)
    other = tiny_model("llama", seed=5)
    with pytest.raises(StoreError, match="not of"):
        persistence(other, acts, layer=1, progress=False)
    with pytest.raises(CaptureError, match="no continuation"):
        persistence(llama, told(), layer=1, continuation=(), progress=False)
    with pytest.raises(CaptureError, match="can't give a p below"):
        persistence(llama, told(), layer=1, draws=9, progress=False)
    with pytest.raises(CaptureError, match="was not captured"):
        persistence(llama, acts, layer=7, progress=False)


def test_a_continuation_that_is_cut_differently_is_refused(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = matched(told())

    def cut(model: LensModel, frame: pd.DataFrame) -> Any:
        out = lay_out(model, frame)
        out[3].ids[-1] += 1
        return out

    assert {len(kept) for _, kept in after(llama, pairs, "So.")} == {3}
    monkeypatch.setattr(persisting, "lay_out", cut)
    with pytest.raises(CaptureError, match="cuts the continuation differently after item 's1.neutral'"):
        after(llama, pairs, "So.")


def test_persistence_shows_itself() -> None:
    found = planted(2.0 ** -(np.arange(40) / 8), copies=2)
    names = [trace.name for trace in cast(Any, found.plot()).data]
    assert {"continuation 1", "continuation 2", "95% of random directions, all tokens"} <= set(names)
    assert "<h3>Persistence of affect</h3>" in found._repr_html_()
    assert "**" not in repr(found)


# system prompts ------------------------------------------------------------------------------------------------------


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Malleability of planted activations: one change a prompt."""

    def run(scale: float = 1.0, **changes: Callable[[np.ndarray, Matched], np.ndarray]) -> Any:
        frame = told(40)
        pairs = matched(frame)
        base = noise(pairs)
        base[:, 0] += 3 * base[:, 0].std() * pairs.emotional
        systems = {None: base} | {name: change(base.copy(), pairs) for name, change in changes.items()}

        def fake(model: LensModel, items: pd.DataFrame, **_: Any) -> np.ndarray:
            first = items["messages"].iloc[0][0]
            return scale * systems[first["content"] if first["role"] == "system" else None]

        monkeypatch.setattr(instructing, "activations_of", fake)
        return malleability(chatty(SYSTEM), frame, layer=1, prompts={name: name for name in changes}, progress=False)

    return run


def axis(values: np.ndarray, pairs: Matched) -> np.ndarray:
    return values[pairs.emotional].mean(0) - values[~pairs.emotional].mean(0)


def test_a_planted_shift_is_found_and_nothing_else(moved: Callable[..., Any]) -> None:
    found = moved(
        same=lambda x, p: x,
        up=lambda x, p: x + 2 * axis(x, p),
        apart=lambda x, p: x + np.outer(np.where(p.emotional, 1.0, -1.0), axis(x, p)),
        mixed=lambda x, p: np.where(p.emotional[:, None], x[::-1], x[::-1]),
    )
    assert found.estimate("shift", "same").value == 0
    assert found.estimate("shift", "same").p == 1
    up, apart = found.estimate("shift", "up"), found.estimate("contrast", "apart")
    base = matched(told(40))
    x = noise(base)
    x[:, 0] += 3 * x[:, 0].std() * base.emotional
    readers = cross_fitted(x, base.labels, base.folds)
    unit = spread(read(readers, x, base.folds), base.folds, ~base.emotional)
    by_hand = np.mean([2 * axis(x, base) @ readers[f].direction for f in base.folds]) / unit
    assert up.value == pytest.approx(by_hand)
    assert abs(found.estimate("contrast", "up").value) < 1e-9  # both sides moved alike, so they stand apart as before
    assert found.estimate("auroc_change", "up").value == 0
    assert apart.value == pytest.approx(by_hand, rel=1e-6)
    assert abs(found.estimate("shift", "apart").value) < 1e-9
    for measure, prompt in (("shift", "up"), ("contrast", "apart")):
        rows = found.rows(measure).set_index("prompt")
        assert rows.loc[prompt, "p_adjusted"] < 0.001
        assert rows.loc[prompt, "p_random_adjusted"] < 0.05
        assert (rows.drop(index=[prompt, "mixed"])["p_adjusted"] > (0.05 if measure == "contrast" else 0.5)).all()
    assert found.estimate("auroc_change", "mixed").value < -0.3
    assert "beyond random directions" in found.summary()[0]


def test_a_shift_of_every_direction_is_no_shift_of_affect(moved: Callable[..., Any]) -> None:
    """All units move far, in a direction that has nothing to do with affect: flips are sure, the placebo is not."""
    away = np.random.default_rng(9).normal(size=24)
    found = moved(far=lambda x, p: x + 3 * away * x.std(0))
    row = found.rows("shift").iloc[0]
    assert row["p"] < 0.001
    assert row["p_random"] > 0.05
    assert "no prompt shifts the affect score by more" in found.summary()[0]


def test_malleability_does_not_depend_on_the_norm(moved: Callable[..., Any]) -> None:
    changes: dict[str, Any] = {"neutral": lambda x, p: x + axis(x, p), "other": lambda x, p: x[::-1].copy()}
    one, other = moved(**changes).table, moved(scale=250.0, **changes).table
    numbers = one.select_dtypes("number").columns
    assert np.allclose(one[numbers], other[numbers], equal_nan=True)
    assert set(one["against"]) == {"", "none", "neutral"}


def test_auroc_within_scenes_by_hand() -> None:
    pairs = matched(told(12))
    scores = np.random.default_rng(0).normal(size=24)
    wins = scores[pairs.emotional] > scores[~pairs.emotional]
    assert (within(pairs, scores) == wins).all()
    assert (within(pairs, np.zeros(24)) == 0.5).all()


def test_the_same_words_are_pooled_under_every_prompt() -> None:
    """A model that can't look back reads the user's words alike whatever stands before: here, the embedding."""
    model, frame = chatty(SYSTEM), told(8)
    bare, long = (instructing.spoken(matched(frame).items, system) for system in (None, "Stay calm, please."))
    one, other = (capture(model, t, sites="L0.resid_pre", positions="turn(-1)", progress=False) for t in (bare, long))
    assert np.allclose(one["L0.resid_pre"], other["L0.resid_pre"], atol=1e-6)
    found = malleability(model, frame, layer=1, prompts={"calm": "Stay calm, please."}, draws=19, progress=False)
    pairs, x = matched(frame), [
        capture(model, t, sites="L1.resid_post", positions="turn(-1)", progress=False)["L1.resid_post"].astype(float)
        for t in (bare, long)
    ]  # fmt: skip
    readers = cross_fitted(x[0], pairs.labels, pairs.folds)
    before, under = (read(readers, values, pairs.folds) for values in x)
    by_hand = (under - before).mean() / spread(before, pairs.folds, ~pairs.emotional)
    assert found.estimate("shift", "calm").value == pytest.approx(float(by_hand), rel=1e-4)
    assert [trace.name for trace in cast(Any, found.plot()).data] == [
        "shift of all scores",
        "change of emotional less neutral",
    ]
    assert "<h3>Malleability</h3>" in found._repr_html_()
    assert found.meta["own_prompt"] == ""
    with pytest.raises(KeyError, match="no shift of 'warm'"):
        found.estimate("shift", "warm")


def test_the_templates_own_system_prompt_is_said(moved: Callable[..., Any]) -> None:
    assert own_prompt(chatty(SYSTEM)) == ""
    assert own_prompt(chatty(OWN)) == "Be good."


@pytest.mark.parametrize(
    ("template", "said"), [(NO_SYSTEM, "takes no system message"), (DROPS, "takes no system message")]
)
def test_a_template_without_system_messages_is_one_sentence(template: str, said: str) -> None:
    with pytest.raises(CaptureError, match=said):
        malleability(chatty(template), told(8), layer=1, progress=False)


def test_what_malleability_refuses(llama: LensModel) -> None:
    with pytest.raises(CaptureError, match="has no chat template"):
        malleability(llama, told(8), layer=1, progress=False)
    for prompts in ({}, {"none": "words"}):
        with pytest.raises(CaptureError, match="at least one system prompt"):
            malleability(chatty(SYSTEM), told(8), layer=1, prompts=prompts, progress=False)


# formats -------------------------------------------------------------------------------------------------------------


def test_a_format_that_hides_the_axis_is_the_worst() -> None:
    pairs = matched(battery_frame(40))
    x = np.random.default_rng(0).normal(size=(80, 24))
    x[:, 0] += 3 * pairs.emotional
    turned = x.copy()
    turned[:, [0, 1]] = x[:, [1, 0]]
    cells: Any = transfer({"plain": x, "copy": x + 5, "turned": turned}, pairs).set_index(["fitted", "read"])
    assert cells.loc[("plain", "copy"), "auroc"] == cells.loc[("plain", "plain"), "auroc"] > 0.85
    assert cells.loc[("plain", "copy"), "correlation"] == pytest.approx(1)
    assert cells.loc[("plain", "copy"), "drop"] == 0
    assert cells.loc[("plain", "turned"), "auroc"] < 0.7
    assert cells.loc[("plain", "turned"), "drop_high"] < 0  # shown, over all six cells
    assert cells.loc[("turned", "turned"), "auroc"] > 0.85
    found = Formats({"formats": ["plain", "copy", "turned"], "left_out": {}, "n_scenes": 40, "layer": 1,
                                "model": "planted", "rung": "domain"}, cells.reset_index())  # fmt: skip
    assert "turned" in found.worst[:2]
    assert found.worst[2].value == pytest.approx(cells["drop"].min())
    assert "a drop is shown" in found.summary()[0]
    assert cast(Any, found.plot()).data[0].type == "heatmap"
    assert cast(Any, found.matrix()).loc["copy", "turned"] == cells.loc[("copy", "turned"), "auroc"]


def test_simultaneous_intervals_hold_the_pointwise_ones_and_scale_does_not_matter() -> None:
    pairs = matched(battery_frame(40))
    x = {name: noise(pairs, seed=seed) + (0.3 + seed) * pairs.emotional[:, None] for seed, name in enumerate("abc")}
    cells = transfer(x, pairs)
    scaled = transfer({name: 70 * values + 3 for name, values in x.items()}, pairs)
    numbers = cells.select_dtypes("number").columns
    assert np.allclose(cells[numbers], scaled[numbers], equal_nan=True, atol=1e-9)
    worth = cells.set_index(["fitted", "read"])["auroc"].to_dict()
    across = cells[cells["fitted"] != cells["read"]]
    for row in across.to_dict("records"):
        here = worth[row["fitted"], row["read"]]
        assert row["drop"] == pytest.approx(here - worth[row["fitted"], row["fitted"]])
        assert row["behind"] == pytest.approx(here - worth[row["read"], row["read"]])
        assert (row["drop_low"] + row["drop_high"]) / 2 == pytest.approx(row["drop"], abs=0.03)
    assert worth["c", "c"] - worth["a", "a"] > 0.15
    pointwise = across["behind_high"] - across["behind_low"]
    assert (across["drop_high"] - across["drop_low"]).median() > pointwise.median()  # but for cells at a bound


def test_correlation_is_pearsons_within_folds() -> None:
    pairs = matched(battery_frame(40))
    rng = np.random.default_rng(0)
    a = rng.normal(size=80)
    b = 0.6 * a + rng.normal(size=80)
    centre = [values - pd.Series(values).groupby(pairs.folds).transform("mean").to_numpy() for values in (a, b)]
    found = alike(a + 50 * pairs.folds, b - 9 * pairs.folds, pairs, 0)
    assert found["correlation"] == pytest.approx(cast(Any, st.pearsonr(*centre)).statistic)
    assert found["correlation_low"] < found["correlation"] < found["correlation_high"] < 1


def test_formats_of_a_model_and_what_is_left_out(llama: LensModel) -> None:
    found = formats(llama, told(), layer=1, progress=False)
    assert CHAT not in found.names
    assert found.meta["left_out"] == {CHAT: f"{llama.name} has no chat template"}
    assert "is left out" in found.summary()[-1]
    assert len(found.cells) == len(found.names) ** 2 == 36
    plain = capture(llama, told(), positions="mean", progress=False)["L1.resid_post"].astype(np.float64)
    pairs = matched(told())
    own = read(cross_fitted(plain, pairs.labels, pairs.folds), plain, pairs.folds)
    cell = found.cells[(found.cells["fitted"] == "plain") & (found.cells["read"] == "plain")].iloc[0]
    same_fold = pairs.folds[pairs.emotional][:, None] == pairs.folds[~pairs.emotional][None]
    won = own[pairs.emotional][:, None] > own[~pairs.emotional][None]
    assert cell["auroc"] == pytest.approx(won[same_fold].mean(), abs=1e-9)
    assert CHAT in formats(chatty(SYSTEM), told(), layer=0, progress=False).names


def test_formats_are_what_they_say() -> None:
    items = pd.DataFrame({"id": ["a"], "text": ["It rained. He left."]})
    said = {name: written(items, way) for name, way in STYLES.items()}
    assert said["quoted"]["text"][0] == '"It rained. He left."'
    assert said["bullets"]["text"][0] == "- It rained.\n- He left."
    assert said["lower case"]["text"][0] == "it rained. he left."
    assert said[CHAT]["messages"][0] == [{"role": "user", "content": "It rained. He left."}]


def test_what_formats_refuses(llama: LensModel) -> None:
    with pytest.raises(CaptureError, match="fewer than two formats"):
        formats(llama, told(), layer=1, styles={"plain": str}, progress=False)
    with pytest.raises(CaptureError, match="no chat template"):
        formats(llama, told(), layer=1, styles={"plain": str, "chat": STYLES[CHAT]}, progress=False)


def test_a_difference_at_its_bound_takes_the_worst_of_both_intervals() -> None:
    ones, most = np.ones(40), np.r_[np.zeros(4), np.ones(36)]
    gap = paired(mean_of(ones), mean_of(most), 40, "scene")
    sides = [estimate(mean_of(values), 40, "scene") for values in (ones, most)]
    assert (gap.low, gap.high) == (sides[0].low - sides[1].high, 1 - sides[1].low)
    free = paired(mean_of(most), mean_of(most[::-1].copy()), 40, "scene")
    assert free.low < 0 == free.value < free.high
    assert free.method.startswith("cluster bootstrap")


def test_random_directions_are_of_unit_length_and_seeded() -> None:
    drawn = random_directions(50, 30, 1)
    assert np.allclose(np.linalg.norm(drawn, axis=1), 1)
    assert (drawn == random_directions(50, 30, 1)).all()
    assert abs(drawn.mean()) < 0.02


def test_our_words_name_no_emotion() -> None:
    from affectlens.stimuli.lexical import sentences

    for text in CONTINUATIONS:
        assert 60 <= len(text.split()) <= 80
        assert len(sentences(text)) >= 4
    assert set(PROMPTS) >= {"neutral"}
    assert estimate(mean_of(np.ones(9)), 9, "scene").value == 1


# real weights --------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_on_real_weights(smol: LensModel) -> None:
    frame = load_battery("starter").frame()
    some = frame[(frame["split"] == "vignettes") & frame["role"].isin(["emotional", "neutral"])]
    some = some[some["group"].isin(some["group"].unique()[:8])].reset_index(drop=True)
    pairs = matched(some)
    laid = after(smol, pairs, CONTINUATIONS[0])
    read_on = {smol.tokenizer.decode([layout.ids[at] for at in kept]) for layout, kept in laid}
    assert read_on == {CONTINUATIONS[0]}
    assert 60 <= len(laid[0][1]) <= 100
    found = persistence(smol, some, layer=6, continuation="The shop sells nails.", draws=19, progress=False)
    assert found.n_tokens == 5
    assert np.isfinite(found.of()["value"]).all()
    moved = malleability(smol, some, layer=6, prompts={"calm": PROMPTS["detached 1"]}, draws=19, progress=False)
    assert "SmolLM" in moved.meta["own_prompt"]
    turned: Any = formats(
        smol, some, layer=6, styles={n: STYLES[n] for n in ("plain", "newline", CHAT)}, progress=False
    )
    assert turned.matrix("correlation").loc["plain", "newline"] > 0.9
