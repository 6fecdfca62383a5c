"""Extraction: planted directions are found, oracles agree, folds are honest, what is taken out stays out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression, Ridge
from typer.testing import CliRunner

from affectlens.capturing import capture
from affectlens.errors import CaptureError, SteerError
from affectlens.hooks import watch
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering.applying import steer
from affectlens.steering.directions import Directions
from affectlens.steering.extracting import (
    cosine_heat,
    cosines,
    extract,
    from_decoder,
    placebos,
    score_curve,
    select_parts,
)
from affectlens.steering.extracting.asking import resolved
from affectlens.steering.extracting.contrasts import contrast
from affectlens.steering.extracting.methods import METHODS, PLACEBOS
from affectlens.steering.extracting.purifying import joined, without
from affectlens.steering.extracting.shuffling import shuffle
from affectlens.steering.gates import Gate
from affectlens.steering.norms import median_norms
from affectlens.stimuli.taxonomy import EMOTIONS
from affectlens.store import Activations
from affectlens.testing import tiny_hf, tiny_tokenizer
from tests.conftest import activations

D, LAYERS = 24, 2
VALENCE: dict[str, int] = {"joy": 1, "trust": 1, "fear": -1, "sadness": -1, "disgust": -1, "anger": -1}
RAW = np.linalg.qr(np.random.default_rng(9).standard_normal((D, D)))[0]
AXES, TOPICS, KEYWORD = RAW[:8], RAW[8:16], RAW[16]  # by emotion, by emotion, of keyword-rich items


def scenes(n: int = 128, keyword: bool = True) -> pd.DataFrame:
    """Triplets of every emotion in each of eight domains."""
    rows = []
    for scene in range(n):
        emotion, domain = EMOTIONS[(scene // 8) % 8], f"d{scene % 8}"
        for role in ("emotional", "neutral", *(["keyword"] if keyword else [])):
            rows.append({
                "id": f"s{scene}.{role}", "text": f"{emotion} one two {role} word{scene % 5}", "split": "vignettes",
                "role": role, "emotion": emotion, "valence": 0 if role == "neutral" else VALENCE.get(emotion, 0),
                "domain": domain, "group": f"s{scene}",
            })  # fmt: skip
    return pd.DataFrame(rows)


def planted(
    items: pd.DataFrame, *, strength: float = 6.0, topic: float = 0.0, word: float = 0.0, seed: int = 0
) -> Activations:
    """Noise, plus an emotion's axis where it is shown, its topic in both twins, and keywords in the keyword-rich."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((len(items), LAYERS, D))
    at = items["emotion"].map({e: i for i, e in enumerate(EMOTIONS)}).to_numpy()
    shown = (items["role"] != "neutral").to_numpy()[:, None, None]
    x += strength * shown * AXES[at][:, None] + topic * TOPICS[at][:, None]
    x += word * (items["role"] == "keyword").to_numpy()[:, None, None] * KEYWORD
    return activations(items, x)


def same(a: Directions, b: Directions, tolerance: float = 1e-5) -> bool:
    return all(
        x.emotion == y.emotion and x.site == y.site and np.abs(x.vector - y.vector).max() < tolerance
        for x, y in zip(a, b, strict=True)
    )


def mean_auroc(found: Directions, name: str = "auroc") -> float:
    return float(np.mean([d.facts[name]["value"] for d in found]))


@pytest.mark.parametrize(
    ("method", "against", "least"),
    [*((method, None, 0.95) for method in METHODS), ("centred", "neutral", 0.95), ("mean_difference", "others", 0.95),
     ("logistic", "neutral", 0.85), ("ridge", "neutral", 0.85), ("lda", "neutral", 0.85)],  # 64 items each: they tilt
)  # fmt: skip
def test_every_method_finds_the_planted_direction(method: str, against: str | None, least: float) -> None:
    asked = ["anger", "joy"] if least < 0.95 else None
    found = extract(planted(scenes(256, keyword=False), strength=8.0), emotions=asked, method=method, against=against)
    assert found.emotions == (EMOTIONS if asked is None else ("anger", "joy"))
    assert [d.site for d in found["joy"]] == ["L0.resid_post", "L1.resid_post"]
    neutral = against == "neutral" or (against is None and method in ("mean_difference", "pca"))
    for name in found.emotions:
        i = EMOTIONS.index(name)
        truth = AXES[i] if neutral and method != "centred" else AXES[i] - AXES.mean(0)
        for one in found[name]:
            assert one.vector @ truth / np.linalg.norm(truth) > least
            assert one.facts["auroc"]["value"] > 0.95
            assert np.linalg.norm(one.vector) == pytest.approx(1, abs=1e-5)


def test_facts_say_what_was_fitted_on() -> None:
    (one,) = extract(planted(scenes()), emotions=["ecstasy"], sites=1, method="mean_difference")
    assert one.emotion == "joy"
    assert (one.facts["n_items"], one.facts["n_groups"], one.facts["valence"]) == (32, 16, 1.0)
    assert (one.model, one.fingerprint, one.battery, one.battery_sha256) == ("planted", "f" * 32, "planted", "b" * 64)
    assert one.facts["held_out"] == "whole domains"
    assert one.facts["auroc"]["low"] <= one.facts["auroc"]["value"] <= one.facts["auroc"]["high"]
    assert one.facts["norm_over"] == "pooled items"


def test_pca_states_the_share_of_variance() -> None:
    (one,) = extract(planted(scenes(), strength=100.0), emotions=["joy"], sites=0, method="pca")
    assert one.facts["variance_share"] > 0.99
    assert one.vector @ AXES[0] > 0


def test_levels_are_percentiles_of_the_neutral_items() -> None:
    acts = planted(scenes())
    (one,) = extract(acts, emotions=["joy"], sites=1)
    calm = acts["L1.resid_post"][(acts.items["role"] == "neutral").to_numpy()] @ one.vector
    assert len(one.levels) == 101
    assert one.levels[[0, 50, 100]] == pytest.approx(np.percentile(calm, [0, 50, 100]), abs=1e-5)


WORDS = "rain mill door bell night paper lamp train field stone cup river glass road smoke".split()


def small_battery(n: int = 48) -> pd.DataFrame:
    """Pairs of texts of eight to sixteen words."""
    rng = np.random.default_rng(4)
    rows = []
    for scene in range(n):
        text = " ".join(rng.choice(WORDS, rng.integers(8, 17)))
        emotion = ("joy", "fear")[(scene // 4) % 2]
        for role, said in (("neutral", text), ("emotional", f"{text}, {'glad' if emotion == 'joy' else 'afraid'}!")):
            rows.append({"id": f"s{scene}.{role}", "text": said, "split": "vignettes", "role": role, "valence": 0,
                         "emotion": emotion, "domain": f"d{scene % 4}", "group": f"s{scene}"})  # fmt: skip
    return pd.DataFrame(rows)


def share_open(model: LensModel, items: pd.DataFrame, gate: Gate) -> float:
    """Of the neutral texts' tokens without each first one, the share at which a gate is open."""
    is_open: list[np.ndarray] = []

    def see(_site: Site, value: torch.Tensor) -> None:
        is_open.append(gate.open(value.reshape(*value.shape[:2], -1))[0, 1:].numpy())

    for text in items[items["role"] == "neutral"]["text"]:
        with watch(model, [gate.site], see):
            model.hf(**model.tokenizer(text, return_tensors="pt"))
    return float(np.concatenate(is_open).mean())


@pytest.mark.parametrize("site", ["L1.resid_post", "L0.H2", "L1.N5"])
def test_of_neutral_tokens_one_in_twenty_is_above_percentile_95(llama: LensModel, site: str) -> None:
    items = small_battery()
    for one in extract(llama, items, sites=[site], purify=["neutral(1)"] if site == "L1.resid_post" else ()):
        assert (one.facts["levels_over"], one.facts["norm_over"]) == ("tokens", "tokens of 48 texts")
        for percentile, expected in ((95.0, 0.05), (50.0, 0.5)):
            share = share_open(llama, items, Gate.of_direction(one, percentile))
            assert share == pytest.approx(expected, abs=0.01), (one.emotion, percentile)
    (pooled, _) = extract(capture(llama, items, sites=[site.replace("H2", "z").replace("N5", "neurons")]),
                          sites=[site.replace("N5", "neurons")])  # fmt: skip
    assert pooled.facts["levels_over"] == "items"


def test_a_norm_that_is_given_stays_and_levels_are_of_tokens_all_the_same(llama: LensModel) -> None:
    items = small_battery(32)
    plain, given = (extract(llama, items, sites=[1], norms=n) for n in (None, {"L1.resid_post": 7.0}))
    assert {(d.norm, d.facts["norm_over"], d.facts["levels_over"]) for d in given} == {(7.0, "given", "tokens")}
    for one, other in zip(plain, given, strict=True):
        assert one.levels == pytest.approx(other.levels)


def test_selected_parts_can_gate_too(llama: LensModel) -> None:
    items = small_battery(64)
    for kind in ("heads", "neurons"):
        for one in select_parts(llama, items, "joy", kind=kind, k=2).directions:
            assert one.facts["levels_over"] == "tokens"
            assert share_open(llama, items, Gate.of_direction(one, 95.0)) == pytest.approx(0.05, abs=0.01)


def emotional(acts: Activations) -> tuple[np.ndarray, np.ndarray]:
    mine = (acts.items["role"] == "emotional").to_numpy()
    y = acts.items["emotion"][mine].map({e: i for i, e in enumerate(EMOTIONS)}).to_numpy()
    return acts["L1.resid_post"][mine].astype(np.float64), y


def aligned(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_logistic_ridge_and_lda_agree_with_scikit_learn() -> None:
    acts = planted(scenes(), strength=1.5)
    x, y = emotional(acts)
    spread = x.std(0)
    z = (x - x.mean(0)) / spread
    for one in extract(acts, method="logistic", sites=1):
        k = EMOTIONS.index(one.emotion)
        oracle = LogisticRegression(C=one.facts["C"], tol=1e-10, max_iter=5000).fit(z, y == k)
        assert aligned(one.vector, oracle.coef_[0] / spread) > 1 - 1e-5
    penalty = float((z**2).sum() / len(z))
    for one in extract(acts, method="ridge", sites=1):
        oracle = Ridge(alpha=penalty).fit(z, (y == EMOTIONS.index(one.emotion)).astype(float))
        assert aligned(one.vector, oracle.coef_ / spread) > 1 - 1e-6
    means = np.stack([z[y == k].mean(0) for k in range(8)])
    within = LedoitWolf(assume_centered=True).fit(z - means[y]).covariance_
    for one in extract(acts, method="lda", sites=1):
        aim = means[EMOTIONS.index(one.emotion)] - means.mean(0)
        assert aligned(one.vector, np.linalg.solve(within, aim) / spread) > 1 - 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_scale_order_and_repetition_change_nothing(method: str) -> None:
    items = scenes()
    acts = planted(items, strength=2.0)
    some = ["joy", "fear"]
    first = extract(acts, method=method, emotions=some, sites=0)
    assert same(first, extract(acts, method=method, emotions=some, sites=0), 1e-12)
    values = acts.at("mean")
    large = extract(activations(items, 1000 * values), method=method, emotions=some, sites=0)
    assert same(first, large, 1e-3)
    assert mean_auroc(large) == pytest.approx(mean_auroc(first), abs=0.01)
    assert [d.norm for d in large] == pytest.approx([1000 * d.norm for d in first], rel=1e-5)
    if method != "logistic":  # C is chosen by folds, which are dealt by order
        turned = np.random.default_rng(1).permutation(len(items))
        mixed = activations(items.iloc[turned].reset_index(drop=True), values[turned])
        assert same(first, extract(mixed, method=method, emotions=some, sites=0))


@pytest.mark.parametrize("method", ["centred", "mean_difference", "lda", "logistic"])
def test_what_noise_gives_is_chance_though_it_fits_itself(method: str) -> None:
    items = scenes(keyword=False)
    scored = []
    for seed in range(3):
        acts = activations(items, np.random.default_rng(seed).standard_normal((len(items), 1, 200)))
        found = extract(acts, method=method)
        rows, y = emotional_rows(acts)
        for one in found:
            score = rows @ one.vector
            assert score[y == one.emotion].mean() > np.quantile(score[y != one.emotion], 0.9)  # on its own items
        scored.append(mean_auroc(found))
    assert np.mean(scored) == pytest.approx(0.5, abs=0.06)


def emotional_rows(acts: Activations) -> tuple[np.ndarray, np.ndarray]:
    mine = (acts.items["role"] == "emotional").to_numpy()
    return acts["L0.resid_post"][mine], acts.items["emotion"][mine].to_numpy()


def test_shuffled_labels_read_nothing_held_out() -> None:
    items = scenes(keyword=False)
    acts = planted(items)
    scored = []
    for seed in range(3):
        asked = shuffle(contrast(items), np.random.default_rng(seed))
        label = items["emotion"].copy()
        for side in (asked.code, asked.baseline):
            label.iloc[asked.rows[side >= 0]] = np.array(asked.classes)[side[side >= 0]]
        assert items.assign(new=label).groupby("group")["new"].nunique().max() == 1
        mixed = items.assign(new=label)
        assert (mixed.groupby(["domain", "new"]).size() == items.groupby(["domain", "emotion"]).size().to_numpy()).all()
        shuffled = activations(items.assign(emotion=label), acts.at("mean"))
        scored.append(mean_auroc(extract(shuffled, sites=0)))
    assert np.mean(scored) == pytest.approx(0.5, abs=0.06)


def test_topic_is_told_from_emotion_by_the_partners() -> None:
    acts = planted(scenes(), strength=2.0, topic=6.0)
    naive, paired = extract(acts, sites=1), extract(acts, sites=1, against="neutral")
    assert mean_auroc(naive, "auroc_topic") > 0.95  # the direction is mostly the topic's
    assert mean_auroc(paired, "auroc_topic") < 0.75
    assert mean_auroc(paired, "auroc_paired") > mean_auroc(naive, "auroc_paired")
    for i, name in enumerate(EMOTIONS):
        assert abs(paired[name][0].vector @ TOPICS[i]) < 0.6 * abs(naive[name][0].vector @ TOPICS[i])


def test_twins_stay_together_in_folds_and_in_what_is_left_out() -> None:
    items = scenes()
    asked = contrast(items)
    for domain, unit in ((items, "domain"), (items.assign(domain=None), "scene")):
        one = contrast(domain)
        fold = one.folds()
        assert one.unit == unit
        assert fold.min() == 0
        assert all(len(set(fold[one.group == g])) == 1 for g in np.unique(one.group))
    kept = contrast(items, leave_out={"id": ["s0.neutral"], "domain": ["d3"]})
    there = set(items.iloc[kept.rows]["group"])
    assert "s0" not in there
    assert not any(int(g[1:]) % 8 == 3 for g in there)
    assert len(asked.rows) - len(kept.rows) == 3 * (16 + 1)


def test_groups_left_out_have_no_part() -> None:
    items = scenes()
    acts = planted(items)
    values = acts.at("mean").copy()
    out = (items["domain"] == "d2").to_numpy()
    values[out] = 1e6
    held = {"leave_out": {"domain": ["d2"]}, "purify": ["neutral", "keyword"]}
    assert same(extract(acts, **held), extract(activations(items, values), **held))  # type: ignore[arg-type]
    assert extract(acts, **held).all[0].facts["leave_out"] == {"domain": ["d2"]}  # type: ignore[arg-type]


STEPS = ("neutral(3)", "others", "keyword", "text(2)", "valence")


def test_a_purified_direction_has_nothing_of_what_was_taken_out() -> None:
    acts = planted(scenes(), word=4.0, topic=2.0)
    given = np.random.default_rng(5).standard_normal((1, D))
    for one in extract(acts, purify=[*STEPS, given], method="mean_difference", emotions=["joy", "fear"]):
        assert np.abs(one.fixed @ one.vector).max() < 1e-6
        assert one.fixed @ one.fixed.T == pytest.approx(np.eye(len(one.fixed)), abs=1e-5)
        assert one.purified == ("neutral(3)", "others(7)", "keyword(1)", "text(2)", "valence(1)", "given(1)")
        assert abs(given[0] @ one.vector) < 1e-5
        assert 0.01 < one.facts["left"] < 1


def test_to_purify_twice_is_to_purify_once() -> None:
    acts = planted(scenes(), word=4.0)
    (once,) = extract(acts, purify=["neutral(3)", "keyword"], emotions=["joy"], sites=0)
    (twice,) = extract(acts, purify=["neutral(3)", "keyword", once.fixed], emotions=["joy"], sites=0)
    assert twice.purified == (*once.purified, "given(0)")
    assert twice.vector == pytest.approx(once.vector, abs=1e-6)
    (other,) = extract(acts, purify=["keyword", "neutral(3)"], emotions=["joy"], sites=0)
    assert other.purified == ("keyword(1)", "neutral(3)")
    assert other.vector == pytest.approx(once.vector, abs=1e-6)  # the span is the same in whatever order


def test_each_step_takes_out_what_it_says() -> None:
    acts = planted(scenes(), word=4.0, topic=2.0)
    items, x = acts.items, acts["L0.resid_post"].astype(np.float64)
    mean = {role: x[(items["role"] == role).to_numpy()].mean(0) for role in ("emotional", "neutral", "keyword")}
    one = {
        step: extract(acts, purify=[step], method="mean_difference", emotions=["joy"], sites=0).all[0] for step in STEPS
    }
    plain = extract(acts, method="mean_difference", sites=0)
    word = mean["keyword"] - mean["emotional"]
    assert abs(aligned(one["keyword"].vector, word)) < 1e-6 < abs(aligned(plain.all[0].vector, word))
    for name in EMOTIONS[1:]:
        assert abs(one["others"].vector @ plain[name][0].vector) < 1e-6
    calm = x[(items["role"] == "neutral").to_numpy()]
    axes = np.linalg.svd(calm - calm.mean(0))[2][:3]
    assert np.abs(axes @ one["neutral(3)"].vector).max() < 1e-6
    by = {e: x[((items["emotion"] == e) & (items["role"] == "emotional")).to_numpy()].mean(0) for e in EMOTIONS}
    sides = [np.mean([by[e] for e in EMOTIONS if VALENCE.get(e, 0) == sign], axis=0) for sign in (1, -1)]
    assert abs(aligned(one["valence"].vector, sides[0] - sides[1])) < 1e-6
    half = extract(acts, purify=["neutral"], emotions=["joy"], sites=0).all[0]
    sizes = np.linalg.svd(calm - calm.mean(0))[1] ** 2
    assert sizes[: len(half.fixed)].sum() >= 0.5 * sizes.sum() > sizes[: len(half.fixed) - 1].sum()


def test_words_own_part_is_taken_out_by_text() -> None:
    items = scenes()
    x = np.random.default_rng(0).standard_normal((len(items), 1, D))
    said = items["emotion"].map({e: i for i, e in enumerate(EMOTIONS)}).to_numpy()  # the text names it, in every role
    acts = activations(items, x + 8 * TOPICS[said][:, None])
    before, after = (extract(acts, purify=p, emotions=["joy"]).all[0] for p in ((), ("text(7)",)))
    truth = TOPICS[0] - TOPICS.mean(0)
    assert aligned(before.vector, truth) > 0.9
    assert abs(aligned(after.vector, truth)) < 0.5 * aligned(before.vector, truth)
    assert after.facts["auroc"]["value"] < before.facts["auroc"]["value"] - 0.2


def test_nothing_left_is_an_error_that_says_how_much() -> None:
    acts = planted(scenes())
    (one,) = extract(acts, emotions=["joy"], sites=0)
    with pytest.raises(SteerError, match=r"direction of joy, 0\.\d% of its length is left .* less than 1% is nothing"):
        extract(acts, emotions=["joy"], sites=0, purify=[one.vector])


def test_a_basis_stays_orthonormal_and_passes_over_what_it_has() -> None:
    rng = np.random.default_rng(0)
    first = joined(np.zeros((0, 5)), rng.standard_normal((2, 5)))
    again = joined(first, np.vstack([first.sum(0), rng.standard_normal(5) * 1e-8]))
    assert len(again) == 3
    assert again[:2] == pytest.approx(first)
    assert again @ again.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.abs(again @ without(rng.standard_normal(5), again)).max() < 1e-14


def test_steering_moves_the_direction_and_nothing_of_what_is_fixed(llama: LensModel) -> None:
    items = pd.DataFrame([
        {"id": f"{g}{role}", "text": f"{word} {g} {role}", "role": role, "emotion": emotion, "group": str(g),
         "domain": f"d{g % 4}", "split": "vignettes"}
        for g in range(24) for word, emotion in [[("abc", "joy"), ("xyz", "fear")][(g // 4) % 2]]
        for role in ("emotional", "neutral")
    ])  # fmt: skip
    found = extract(llama, items, sites=["L0.resid_post"], purify=["neutral(4)"], method="mean_difference")
    (one,) = found["joy"]
    tokens = llama.tokenizer("hello there", return_tensors="pt")
    seen: list[np.ndarray] = []
    after = Site("resid_pre", 1)  # where the next block reads what was steered

    def see(_site: Site, value: torch.Tensor) -> None:
        seen.append(value.detach().numpy()[0].copy())

    with watch(llama, [after], see):
        llama.hf(**tokens)
        with steer(llama, {"joy": 0.5}, directions=found, raw=True):
            llama.hf(**tokens)
    gap = seen[-1] - seen[0]
    assert gap @ one.vector == pytest.approx(0.5 * one.norm, rel=1e-3)
    assert np.abs(gap @ one.fixed.T).max() < 1e-5 * one.norm
    assert len(one.fixed) == 4
    assert one.facts["norm_over"] == "tokens of 24 texts"
    calm = items[items["role"] == "neutral"].reset_index(drop=True)
    assert one.norm == pytest.approx(median_norms(llama, "L0.resid_post", calm)[one.at], rel=1e-6)
    found.expect(llama)


def test_heads_and_neurons_have_directions_of_their_own(llama: LensModel) -> None:
    items = scenes(32, keyword=False)
    found = extract(llama, items, sites=["L1.H3", "L0.N7", "L1.N5", "L0.N2"], emotions=["joy"])
    assert [(d.site, d.vector.shape) for d in found] == [
        ("L1.H3", (8,)), ("L0.neurons", (64,)), ("L1.neurons", (64,))
    ]  # fmt: skip
    acts = capture(llama, items, sites=["z", "neurons"], positions="mean")
    (whole,) = extract(acts, sites="L0.neurons", emotions=["joy"])
    sparse = found.all[1]
    assert set(np.flatnonzero(sparse.vector)) <= {2, 7}
    assert aligned(sparse.vector, np.where(np.isin(np.arange(64), (2, 7)), whole.vector, 0)) == pytest.approx(
        1, abs=1e-5
    )
    (head,) = extract(acts, sites="L1.H3", emotions=["joy"])
    assert head.vector == pytest.approx(found.all[0].vector, abs=1e-5)
    assert extract(acts, sites="L1.z", emotions=["joy"]).all[0].vector.shape == (32,)


def planted_heads(loud: dict[tuple[int, int], float], seed: int = 0) -> Activations:
    items = scenes(keyword=False)
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((len(items), 3, 5, 6))
    joy = ((items["emotion"] == "joy") & (items["role"] == "emotional")).to_numpy()
    for (layer, head), strength in loud.items():
        z[joy, layer, head] += strength * np.eye(6)[head]
    return Activations.from_arrays({"mean": z}, items, site="z", model="planted", fingerprint="f" * 32)


def test_planted_heads_are_selected_and_confirmed() -> None:
    found = select_parts(planted_heads({(1, 2): 5.0, (2, 4): 4.0}), emotion="ecstasy", k=2)
    assert {p.text for p in found.parts} == {"L1.H2", "L2.H4"}
    assert found.considered == 15
    assert found.table["confirmed"].min() > 0.9
    assert found.table["p_adjusted"].max() < 0.01
    assert (found.table["low"] <= found.table["confirmed"]).all()
    for part, axis in (("L1.H2", 2), ("L2.H4", 4)):
        (one,) = (d for d in found.directions if d.site == part)
        assert one.vector[axis] > 0.85
        assert (
            one.facts["confirmed"][part]["value"]
            == dict(zip(found.table["part"], found.table["confirmed"], strict=True))[part]
        )
    assert "confirmed" in repr(found)


def test_heads_of_noise_are_chosen_high_and_confirmed_at_chance() -> None:
    tables = pd.concat(
        [select_parts(planted_heads({}, seed), emotion="joy", k=3, seed=seed).table for seed in range(6)]
    )
    assert tables["chosen"].mean() > 0.6
    assert tables["confirmed"].mean() == pytest.approx(0.5, abs=0.07)
    assert tables["p_adjusted"].min() > 0.01
    assert (tables["p_adjusted"] >= tables["p"]).all()


def test_parts_that_read_topic_alone_are_not_selected_against_partners() -> None:
    acts = planted_heads({(1, 2): 3.0})
    z = acts.at("mean").copy()
    z[(acts.items["emotion"] == "joy").to_numpy(), 0, 0, 1] += 6  # in both twins
    topical = Activations.from_arrays({"mean": z}, acts.items, site="z", fingerprint="f" * 32)
    assert select_parts(topical, emotion="joy", k=1).parts[0].text == "L0.H0"
    found = select_parts(topical, emotion="joy", k=15, against="neutral")
    assert found.parts[0].text == "L1.H2"
    assert found.table["confirmed"][0] > 0.85
    assert found.table["p_adjusted"][list(found.table["part"]).index("L0.H0")] > 0.05
    with pytest.raises(SteerError, match="against others or neutral, not 'all'"):
        select_parts(topical, emotion="joy", against="all")
    with pytest.raises(SteerError, match="select from 1 to as many, not 16"):
        select_parts(topical, emotion="joy", k=16)
    with pytest.raises(SteerError, match="no kind of parts 'layers'"):
        select_parts(topical, emotion="joy", kind="layers")
    with pytest.raises(SteerError, match="have no neurons, only z"):
        select_parts(topical, emotion="joy", kind="neurons")


def test_the_vector_comes_from_the_choosing_half_alone() -> None:
    acts = planted_heads({(1, 2): 5.0})
    first = select_parts(acts, emotion="joy", k=1)
    from affectlens.steering.extracting.selecting import _halves

    asked = contrast(acts.items, emotions=["joy"])
    half = _halves(asked, 0)
    assert all(len(set(half[asked.group == g])) == 1 for g in np.unique(asked.group))
    spoilt = acts.at("mean").copy()
    spoilt[asked.rows[half == 1]] *= -3
    again = select_parts(Activations.from_arrays({"mean": spoilt}, acts.items, site="z", fingerprint="f" * 32),
                         emotion="joy", k=1)  # fmt: skip
    assert again.parts == first.parts
    assert again.directions.all[0].vector == pytest.approx(first.directions.all[0].vector)
    assert again.table["confirmed"][0] < 0.1 < 0.9 < first.table["confirmed"][0]


def test_neurons_make_one_sparse_vector_a_layer() -> None:
    items = scenes(keyword=False)
    values = np.random.default_rng(0).standard_normal((len(items), 2, 30))
    fear = ((items["emotion"] == "fear") & (items["role"] == "emotional")).to_numpy()
    values[fear, 0, 3] += 5
    values[fear, 0, 9] -= 5
    values[fear, 1, 20] += 5
    acts = Activations.from_arrays({"mean": values}, items, site="neurons", fingerprint="f" * 32)
    found = select_parts(acts, emotion="terror", kind="neurons", k=3)
    assert {p.text for p in found.parts} == {"L0.N3", "L0.N9", "L1.N20"}
    assert [d.site for d in found.directions] == ["L0.neurons", "L1.neurons"]
    first = found.directions.all[0]
    assert set(np.flatnonzero(first.vector)) == {3, 9}
    assert first.vector[3] > 0.5
    assert first.vector[9] < -0.5
    assert set(first.facts["confirmed"]) == {"L0.N3", "L0.N9"}
    assert set(np.flatnonzero(placebos(Directions([first]), draws=4).any(0))) == {3, 9}


def test_an_axis_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = pd.DataFrame({
        "id": [f"i{i}" for i in range(320)], "text": ["t"] * 320, "group": [f"g{i // 4}" for i in range(320)],
        "register": ["formal", "casual", "slang", "casual"] * 80,
    })  # fmt: skip
    x = rng.standard_normal((320, 1, D))
    for name, axis in (("formal", 0), ("slang", 1)):
        x[(items["register"] == name).to_numpy()] += 6 * RAW[axis]
    acts = activations(items, x)
    for method in METHODS:
        two = extract(acts, label="register", positive="formal", negative="casual", method=method)
        assert two.emotions == ("formal",)
        assert two.all[0].vector @ RAW[0] > 0.95
        assert two.all[0].facts["auroc"]["value"] > 0.95
        drawn = placebos(two, acts, kind="shuffled", draws=8)
        if method != "pca":  # whose component doesn't see which way round a pair is
            assert np.abs(drawn @ two.all[0].vector).mean() < 0.7
    rest = extract(acts, label="register", positive="formal").all[0]
    assert aligned(rest.vector, RAW[0] - RAW[1] / 3) > 0.9
    assert extract(acts, label="register").emotions == ("formal", "casual", "slang")
    one = extract(acts, label="register", positive="formal", negative="casual")
    assert same(Directions.load(one.save(tmp_path / "own.safetensors")), one)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "guess"}, "no method 'guess'; choose from mean_difference"),
        ({"method": "shuffled"}, r"A placebo is made by placebos\(\)"),
        ({"method": "sae"}, r"from_decoder\(\)"),
        ({"method": "pca", "against": "others"}, "pca contrasts a class with neutral, not with 'others'"),
        ({"label": "mood"}, "no column 'mood'"),
        ({"emotions": ["boredom"]}, "'boredom'; there are joy, trust"),
        ({"purify": ["topics"]}, "purify has no 'topics'"),
        ({"purify": ["valence(3)"]}, r"purify has no 'valence\(3\)'"),
        ({"purify": ["neutral(0)"]}, r"purify has no 'neutral\(0\)'"),
        ({"purify": [np.ones(3)]}, "has 3 columns, and the site 24"),
        ({"purify": [np.full(D, np.nan)]}, "purify takes finite arrays"),
        ({"leave_out": {"town": ["x"]}}, "leave_out names 'town'"),
        ({"leave_out": {"domain": ["x"]}}, "no item has domain 'x'"),
        ({"negative": "joy"}, "negative= names what stands against"),
        ({"positive": "joy", "negative": "ecstasy"}, "name two values"),
        ({"label": "domain", "positive": "d1", "negative": "d99"}, "No item has domain 'd99'"),
        ({"sites": ["L0.N3"]}, "one of how many"),
        ({"sites": []}, "No site is named"),
        ({"sites": ["L0.pattern"]}, "attention weights"),
    ],
)
def test_what_cannot_be_done_is_said(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SteerError, match=said):
        extract(planted(scenes(64)), **settings)  # type: ignore[arg-type]


def test_what_was_not_captured_or_is_no_model_is_refused() -> None:
    acts = planted(scenes(64))
    with pytest.raises(CaptureError, match=r"L9\.resid_post was not captured"):
        extract(acts, sites=9)
    with pytest.raises(CaptureError, match="'last' was not captured"):
        extract(acts, position="last")
    broken = acts.at("mean").copy()
    broken[0, 0, 0] = np.inf
    with pytest.raises(SteerError, match="not all finite"):
        extract(activations(acts.items, broken))
    calm = activations(acts.items.assign(role="emotional"), acts.at("mean"))
    with pytest.raises(SteerError, match="needs neutral partners"):
        extract(calm, method="mean_difference")


def test_too_few_groups_for_folds_say_why() -> None:
    items = scenes(64).query("domain == 'd0' and emotion in ('joy', 'fear')").reset_index(drop=True)
    (one, _) = extract(planted_part(items), sites=0)
    assert one.facts["auroc"] is None
    assert one.facts["auroc_why"]


def planted_part(items: pd.DataFrame) -> Activations:
    return activations(items, np.random.default_rng(0).standard_normal((len(items), 1, D)))


def test_placebos_are_what_they_say() -> None:
    acts = planted(scenes())
    found = extract(acts, sites=1)
    vectors = np.stack([d.vector for d in found])
    drawn = {kind: placebos(found, acts, kind=kind, draws=64, seed=3) for kind in PLACEBOS}
    for kind, rows in drawn.items():
        assert rows.shape == ((1 if kind == "mean_of_all" else 64), D)
        assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(rows, placebos(found, acts, kind=kind, draws=64, seed=3))
    assert np.abs(drawn["orthogonal"] @ vectors.T).max() < 1e-5
    assert aligned(drawn["mean_of_all"][0], vectors.mean(0)) == pytest.approx(1, abs=1e-5)
    assert np.abs(drawn["random"].mean(0)).max() < 0.15
    axis = AXES[0] - AXES.mean(0)
    spread = {kind: float(((drawn[kind] @ axis) ** 2).mean()) for kind in ("random", "matched")}
    assert spread["matched"] > 1.5 * spread["random"]  # activations vary along what was planted
    own = np.array([abs(drawn["shuffled"][i] @ vectors[i % 8]) for i in range(64)])
    assert own.mean() < 0.5
    assert not np.array_equal(drawn["random"], placebos(found, draws=64, seed=4))


def test_placebos_keep_what_was_taken_out_and_refuse_what_is_not_theirs() -> None:
    acts = planted(scenes())
    found = extract(acts, purify=["neutral(3)"])
    rows = placebos(found, acts, kind="shuffled", draws=16, site="L1.resid_post")
    fixed = [d.fixed for d in found if d.site == "L1.resid_post"]
    assert max(np.abs(fixed[i % 8] @ rows[i]).max() for i in range(16)) < 1e-5
    other = Activations.from_arrays({"mean": acts.at("mean")}, acts.items, model="other", fingerprint="a" * 32)
    with pytest.raises(SteerError, match="are of other, the directions of planted"):
        placebos(found, other, kind="matched", site="L1.resid_post")
    with pytest.raises(SteerError, match="needs the activations"):
        placebos(found, kind="shuffled", site="L1.resid_post")
    with pytest.raises(SteerError, match=r"name one, site='L0\.resid_post'"):
        placebos(found)
    with pytest.raises(SteerError, match="no placebo 'sugar'"):
        placebos(found, kind="sugar")


def test_cosines_before_and_after_the_shared_valence() -> None:
    items = scenes()
    acts = planted(items)
    shared = np.array([VALENCE.get(e, 0) for e in items["emotion"]]) * (items["role"] != "neutral").to_numpy()
    found = extract(activations(items, acts.at("mean") + 20 * shared[:, None, None] * KEYWORD), sites=0)
    table = cosines(found)
    assert len(table) == 28
    by = {(a, b): (before, after) for _, a, b, before, after in table.itertuples(index=False)}
    assert by["fear", "anger"][0] > 0.8
    assert by["joy", "fear"][0] < -0.8
    assert abs(by["fear", "anger"][1]) < 0.5
    vectors = {d.emotion: d.vector for d in found}
    assert by["joy", "fear"][0] == pytest.approx(float(vectors["joy"] @ vectors["fear"]), abs=1e-5)
    assert cosines(found.only("joy", "trust"))["without_valence"].isna().all()
    heat: Any = cosine_heat(found, without_valence=True).data[0]
    assert heat.z[2][6] == heat.z[6][2] == pytest.approx(by["fear", "anger"][1])
    curve: Any = score_curve(extract(acts))
    assert len(curve.data) == 8 * 2 + 1


def test_a_decoder_row_is_a_direction(llama: LensModel) -> None:
    row = np.random.default_rng(0).standard_normal(32)
    one = from_decoder(row, "L1.resid_post", model=llama, emotion="rage", texts=["a text of words"], facts={"sae": "x"})
    assert (one.emotion, one.method, one.fingerprint, one.facts) == ("anger", "sae", llama.fingerprint, {"sae": "x"})
    assert aligned(one.vector, row) == pytest.approx(1)
    assert one.norm == pytest.approx(median_norms(llama, "L1.resid_post", ["a text of words"])[one.at])
    with pytest.raises(SteerError, match="has 3 numbers, and L1.resid_post of .* has 32"):
        from_decoder(row[:3], "L1.resid_post", model=llama, emotion="joy")


def test_the_command_writes_a_set_and_shows_it(
    llama: LensModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens.steering.directions_cli import app

    battery = tmp_path / "mine.jsonl"
    rows = scenes(64, keyword=False).assign(affect=lambda f: f["role"] == "emotional").to_dict("records")
    battery.write_text("\n".join(json.dumps(row) for row in rows))
    monkeypatch.setattr("affectlens.model.load_model", lambda *a, **k: llama)
    out = tmp_path / "set.safetensors"
    asked = ["extract", "tiny", "--battery", str(battery), "--layers", "0,1", "--purify", "neutral(2)", "--purify",
             "valence", "-e", "grief", "--emotion", "joy", "--leave-out", "domain=d1", "-o", str(out)]  # fmt: skip
    quiet = CliRunner().invoke(app, [*asked, "--quiet"])
    assert quiet.exit_code == 0, quiet.output
    assert quiet.stdout.split() == [str(out)]
    found = Directions.load(out, llama)
    assert found.emotions == ("sadness", "joy")
    assert {d.site for d in found} == {"L0.resid_post", "L1.resid_post"}
    assert found.all[0].purified == ("neutral(2)", "valence(1)")
    assert found.all[0].facts["leave_out"] == {"domain": ["d1"]}
    again = CliRunner().invoke(app, asked)
    assert isinstance(again.exception, SteerError)
    assert "exists already" in str(again.exception)
    shown = CliRunner().invoke(app, ["show", str(out)])
    assert "centred, less neutral(2), less" in shown.stdout
    assert "against others" in shown.stdout
    told = json.loads(CliRunner().invoke(app, ["show", str(out), "--json"]).stdout)
    assert [d["emotion"] for d in told["directions"]] == ["sadness", "sadness", "joy", "joy"]
    assert told["directions"][0]["facts"]["auroc"]["n"] > 1
    assert len(told["cosines"]) == 2


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [("x", "--layers x is not known: write 14, or 12,14, or 12-16, or all."), ("²", "--layers ² is not known"),
     ("0-5", "There is no layer 2, 3, 4, 5: the model has 2, 0 to 1."), ("0-1", ""), ("all", ""), ("0,1", "")],
)  # fmt: skip
def test_layers_are_checked_before_a_model_is_loaded(
    layers: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens.steering.directions_cli import app

    home = tmp_path / "tiny"
    tiny_hf("llama").save_pretrained(home)
    tiny_tokenizer().save_pretrained(home)
    monkeypatch.setattr("affectlens.model.load_model", None)
    asked = ["extract", str(home), "--battery", "starter", "--layers", layers, "-o", str(tmp_path / "b"), "--dry-run"]
    done = CliRunner().invoke(app, [*asked, "-e", "joy", "--json"])
    assert (str(done.exception) if done.exception else "").startswith(sentence)
    assert (done.exit_code == 0) == (not sentence)
    if not sentence:
        assert json.loads(done.stdout)["layers"] == 2
        gone = CliRunner().invoke(app, [*asked, "--site", "L9.H0"])
        assert str(gone.exception) == "There is no layer 9: the model has 2, 0 to 1."


def test_layers_are_those_that_are_named() -> None:
    assert resolved(["resid_post"], "1-2", 4) == ["L1.resid_post", "L2.resid_post"]
    assert resolved(["z", "L0.H1"], "all", 2) == ["L0.z", "L1.z", "L0.H1"]
    assert resolved(["z"], None, 1) == ["L0.z"]


@pytest.mark.real
def test_smollm2_shows_the_emotions_of_the_starter(smol: LensModel) -> None:
    found = extract(smol, "starter", sites=[14], method="mean_difference")
    assert found.emotions == EMOTIONS
    assert mean_auroc(found, "auroc_neutral") > 0.65
    assert 100 < found.all[0].norm < 250
    again = extract(smol, "starter", sites=[14], method="mean_difference", norms={"L14.resid_post": found.all[0].norm})
    assert same(found, again, 1e-7)
