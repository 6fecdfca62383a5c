"""What scoring and running circuits promise beside the reference: any texts, any precision, nothing mixed."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from affectlens.circuits.asking import halve
from affectlens.circuits.evaluating import circuit_values
from affectlens.circuits.pathing import path_patch
from affectlens.circuits.scoring import METHODS, EdgeScores, score_edges
from affectlens.circuits.standing import stands
from affectlens.circuits.wiring import wire
from affectlens.errors import CircuitError, PatchError
from affectlens.model import LensModel, load_model
from affectlens.patching import Metric, PatchPair, kl, label_difference, prepare, written
from affectlens.testing import FAMILIES, tiny_hf, tiny_model, tiny_tokenizer

LABELS = {"good": [" good", " gx"], "bad": " bad"}
METRIC = label_difference(LABELS, "good", "bad")
EQUAL = ("She won the race. Then", "She wep thy race. Then")
UNEQUAL = ("She won the long race at last. Then", "She lost a race. Then")


def pairs_of(model: LensModel, *texts: tuple[str, str]) -> list[PatchPair]:
    return prepare(model, list(texts), labels=LABELS)


@pytest.mark.parametrize("texts", [
    EQUAL, UNEQUAL, UNEQUAL[::-1], ("I went home. Then", "Bob went home. Then"), ("Bob went home. Then",
    "I went home. Then"), ("She ran. Then", "She ran far. Then"), ("She ran far. Then", "She ran. Then"),
])  # fmt: skip
def test_every_token_has_one_that_stands_for_it(llama: LensModel, texts: tuple[str, str]) -> None:
    """From the first difference to the end, verbalisers' tokens included, in order; the sink for itself alone."""
    (pair,) = pairs_of(llama, texts)
    here, there = stands(pair)
    tails = sum(len(tail) - 1 for tail in pair.clean.prompt.tails)
    assert here == list(range(here[0], len(pair.clean.prompt.ids) + tails))
    assert len(there) == len(here)
    assert all(a <= b for a, b in pairwise(there))
    assert {(a == 0) == (b == 0) for a, b in zip(here, there, strict=True)} == {True}
    if pair.equal_length:
        assert here == there


@pytest.mark.parametrize("family", FAMILIES)
def test_all_edges_are_the_model_and_none_are_the_other_text(family: str) -> None:
    """Of texts of unequal length too, as the end reads the other's stream."""
    model = tiny_model(family)
    pairs = pairs_of(model, EQUAL, UNEQUAL)
    space = score_edges(model, pairs[:1], METRIC, method="eap", progress=False).space
    half = space.allowed & (np.random.default_rng(0).random(space.allowed.shape) < 0.5)
    table = circuit_values(model, pairs, METRIC, space, [space.allowed, half], memory=1e-3, progress=False)
    whole = table[table["circuit"] == 0]
    assert np.allclose(whole["value"], whole["full"], atol=1e-5)
    assert np.allclose(table["none"], table["corrupt"], atol=1e-5)
    assert not np.allclose(table[table["circuit"] == 1]["value"], whole["full"], atol=1e-4)
    again = circuit_values(model, pairs, METRIC, space, [half], progress=False)
    assert np.allclose(again["value"], table[table["circuit"] == 1]["value"], atol=1e-5), "batches change nothing"


def test_hooks_are_gone_and_the_users_stay(llama: LensModel) -> None:
    def hooks() -> list[tuple[int, ...]]:
        return [(*module._forward_hooks, *module._forward_pre_hooks) for module in llama.hf.modules()]

    seen: list[int] = []
    score_edges(llama, pairs_of(llama, EQUAL), METRIC, method="eap", progress=False)
    before = hooks()
    handle = llama.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    try:
        with pytest.warns(UserWarning, match="Hooks"), pytest.raises(CircuitError, match="walked through"):
            score_edges(llama, pairs_of(llama, EQUAL), METRIC, progress=False)
        assert sum(map(len, hooks())) == 1 + sum(map(len, before))
    finally:
        handle.remove()
    score_edges(llama, pairs_of(llama, EQUAL), METRIC, method="eap", progress=False)
    assert hooks() == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_half_precision_is_near(family: str, method: str) -> None:
    """bfloat16 runs, and its scores agree with float32's."""
    exact = tiny_model(family)
    half = load_model(model=tiny_hf(family).to(torch.bfloat16), tokenizer=exact.tokenizer, check=False)
    found = []
    for model in (exact, half):
        pairs = pairs_of(model, EQUAL)
        scores = score_edges(model, pairs, METRIC, method=method, steps=2, progress=False)
        edge = scores.space.name(*map(int, np.argwhere(scores.space.allowed)[-1]))
        path_patch(model, pairs, METRIC, scores.space, [edge], progress=False)
        circuit_values(model, pairs, METRIC, scores.space, [scores.space.allowed], progress=False)
        found.append(scores.values[0][scores.space.allowed])
    assert np.corrcoef(*found)[0, 1] > 0.8


def test_what_is_kept_is_of_one_question(llama: LensModel, tmp_path: Path) -> None:
    """Another label, method or text is refused; the same goes on without a pass."""
    pairs = pairs_of(llama, EQUAL, UNEQUAL)
    first = score_edges(llama, pairs, METRIC, method="eap", folder=tmp_path, progress=False)
    other = {"good": " yes", "bad": " no"}
    asked = [
        (prepare(llama, [EQUAL, UNEQUAL], labels=other), label_difference(other, "good", "bad"), "eap"),
        (pairs, METRIC, "eap-ig"), (pairs[::-1], METRIC, "eap"),
    ]  # fmt: skip
    for these, metric, method in asked:
        with pytest.raises(PatchError, match="other settings"):
            score_edges(llama, these, metric, method=method, folder=tmp_path, progress=False)
    again = score_edges(llama, pairs, METRIC, method="eap", folder=tmp_path, progress=False)
    np.testing.assert_array_equal(first.values, again.values)


def test_scores_are_saved_and_load_equal(llama: LensModel, tmp_path: Path) -> None:
    scores = score_edges(llama, pairs_of(llama, EQUAL), METRIC, method="eap", progress=False)
    scores.save(tmp_path)
    back = EdgeScores.load(tmp_path)
    np.testing.assert_array_equal(scores.values, back.values)
    assert (back.space, back.meta) == (scores.space, scores.meta)
    assert (
        back.pairs.astype(object)
        .where(back.pairs.notna(), None)
        .equals(scores.pairs.astype(object).where(scores.pairs.notna(), None))
    )
    (tmp_path / "scores.safetensors").write_bytes(b"half")
    with pytest.raises(CircuitError, match="damaged"):
        EdgeScores.load(tmp_path)
    with pytest.raises(CircuitError, match="no edge scores"):
        EdgeScores.load(tmp_path / "none")


def test_metrics_that_can_not_tell_edges_apart_are_refused(llama: LensModel) -> None:
    pairs = pairs_of(llama, EQUAL)
    with pytest.raises(CircuitError, match="hardly moves"):
        score_edges(llama, pairs, kl(), method="eap", progress=False)
    with pytest.raises(CircuitError, match="generated"):
        score_edges(llama, pairs, written("length", len), progress=False)
    with pytest.raises(CircuitError, match="several places"):
        score_edges(llama, pairs, METRIC.named("x") + of_a_layer(), progress=False)
    with pytest.raises(CircuitError, match="at least one"):
        score_edges(llama, [], METRIC, progress=False)
    with pytest.raises(CircuitError, match="choose eap"):
        score_edges(llama, pairs, METRIC, method="acdc", progress=False)


def of_a_layer() -> Metric:
    return replace(METRIC, labels={}, layers=frozenset({0}), value=lambda reading: reading.streams[0].sum((1, 2)))


def test_edges_of_another_metric_are_refused(llama: LensModel) -> None:
    pairs = pairs_of(llama, EQUAL)
    space = score_edges(llama, pairs, of_a_layer(), method="eap", progress=False).space
    assert (space.n_layers, space.end) == (1, "L0.resid_post")
    with pytest.raises(CircuitError, match="These edges end at L0"):
        circuit_values(llama, pairs, METRIC, space, [space.allowed], progress=False)
    with pytest.raises(CircuitError, match="no edge"):
        path_patch(llama, pairs, METRIC, wider(llama, pairs).space, ["L9.H0 -> end"], progress=False)


def wider(model: LensModel, pairs: list[PatchPair]) -> EdgeScores:
    return score_edges(model, pairs, METRIC, method="eap", progress=False)


def test_a_model_that_can_not_be_followed_is_refused() -> None:
    """Queries and keys that read different things."""
    hf = tiny_hf("llama")
    for layer in hf.model.layers:
        layer.self_attn.q_proj = torch.nn.Sequential(torch.nn.Tanh(), layer.self_attn.q_proj)
    model = load_model(model=hf, tokenizer=tiny_tokenizer(), check=False)
    with pytest.raises(CircuitError):
        wire(model, 2)


@pytest.mark.parametrize("sizes", [{"a": 3, "b": 2, "c": 3}, {c: 4 + (c in "aceg") for c in "abcdefg"}, {"a": 8}])
def test_halves_are_even_and_share_each_domain(llama: LensModel, sizes: dict[str, int]) -> None:
    """Within one scene in all, within one a domain; several pairs of a scene stay together."""
    (one,) = pairs_of(llama, EQUAL)
    pairs = [replace(one, name=f"{d}{i}{k}", group=f"{d}{i}", domain=d)
             for d, n in sizes.items() for i in range(n) for k in range(2)]  # fmt: skip
    first, second = halve(pairs)
    scenes = [{pair.group for pair in half} for half in (first, second)]
    assert not scenes[0] & scenes[1]
    assert abs(len(scenes[0]) - len(scenes[1])) <= 1
    for domain in sizes:
        counts = [sum(name.startswith(domain) for name in half) for half in scenes]
        assert abs(counts[0] - counts[1]) <= 1
    assert len(halve(pairs, 4)[0]) + len(halve(pairs, 4)[1]) == 8
