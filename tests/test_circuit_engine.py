"""The engine that scores, patches and runs circuits against a plain reference written out by family, and laws.

The reference (:mod:`tests.edge_reference`) is itself proved first, against the models and against finite differences.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from affectlens.circuits.evaluating import circuit_values
from affectlens.circuits.pathing import path_patch
from affectlens.circuits.scoring import score_edges
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.model import LensModel
from affectlens.patching.metrics import Metric, Reading, kl, label_difference, logit_difference
from affectlens.patching.pairs import PatchPair, prepare
from affectlens.testing import FAMILIES
from affectlens.verbalisers import Labels
from tests.edge_reference import ARROW, Plain, Question, rough

TEXTS = (("He won a prize at dawn.", "He saw a fence at dusk."), ("Joy ran into town.", "Jim ran from Rome."))
LONG: Labels = {"good": [" yes", "!"], "bad": " no"}  # of several tokens and of one
CLOSE = 1e-5  # of logits and nats of order one, in float32


@cache
def model(family: str) -> LensModel:
    return rough(family)


def pairs_of(family: str, labels: Labels | None = None) -> list[PatchPair]:
    return prepare(model(family), TEXTS, labels=labels)


def projection(layer: int) -> Metric:
    """On a direction, at the last token and a third of the one before; and a square, so that it isn't linear."""
    direction = torch.randn(32, generator=torch.Generator().manual_seed(5)) / 4

    def value(reading: Reading) -> torch.Tensor:
        at = reading.streams[layer].float() @ direction
        return at[:, -1] + at[:, -2] / 3 + at[:, -1] ** 2 / 20

    return Metric("projection", value, unit="units", layers=frozenset({layer}))


METRICS: dict[str, tuple[Callable[[LensModel], Metric], Labels | None]] = {
    "logits": (lambda model: logit_difference(model, "a", "s"), None),
    "labels": (lambda _: label_difference(LONG, "good", "bad"), LONG),
    "stream": (lambda _: projection(0), None),
}

CASES = [*((family, "logits") for family in FAMILIES), ("gemma3", "labels"), ("gemma3", "stream"),
         ("gpt_neox", "labels"), ("llama", "stream")]  # fmt: skip


def asked(family: str, metric: str = "logits") -> tuple[LensModel, list[PatchPair], Metric, list[Question]]:
    make, labels = METRICS[metric]
    one, pairs = make(model(family)), pairs_of(family, labels)
    return model(family), pairs, one, [Question.of(model(family), pair, one) for pair in pairs]


def space_of(lens: LensModel, metric: Metric) -> EdgeSpace:
    return EdgeSpace.of(lens, layer=next(iter(metric.layers), None))


def names(space: EdgeSpace, edges: Edges) -> set[str]:
    return {space.name(int(row), int(column)) for row, column in zip(*np.nonzero(edges), strict=True)}


def some(space: EdgeSpace, share: float, seed: int = 0) -> Edges:
    return space.allowed & (np.random.default_rng(seed).random(space.allowed.shape) < share)


def matrix(space: EdgeSpace, scores: dict[str, float]) -> np.ndarray:
    out = np.zeros(space.allowed.shape)
    for edge, score in scores.items():
        out[space.index(edge)] = score
    return out


# 1. The reference is the model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_is_the_model(family: str) -> None:
    lens = model(family)
    ids = lens.tokenizer("He won a prize at dawn, and more.").input_ids
    with torch.no_grad():
        found, expected = Plain(lens).run(ids).logits, lens.hf(torch.tensor([ids])).logits
    assert found is not None
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_reads_what_its_writers_write(family: str) -> None:
    """Heads' parts, the MLPs' and the constants add up to the stream that leaves each layer."""
    lens, plain = model(family), Plain(model(family), 0)
    ids = lens.tokenizer(TEXTS[0][0]).input_ids
    with torch.no_grad():
        trace = plain.run(ids)
        states = lens.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(trace.stream, states[1], atol=1e-5, rtol=1e-5)
    whole = sum(trace.wrote.values(), start=torch.zeros(())) + plain.constant(0)
    torch.testing.assert_close(whole, states[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_edge_space_is_what_the_reference_reads(family: str) -> None:
    space = EdgeSpace.of(model(family))
    assert names(space, space.allowed) == set(Plain(model(family)).edges)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_the_references_gradients_are_slopes(family: str, metric: str) -> None:
    """An edge's estimate is the slope at the clean text of the metric along what the edge would carry."""
    _, _, _, (question, _) = asked(family, metric)
    scores, plain = question.eap(), question.plain
    edges = sorted(scores, key=lambda edge: -abs(scores[edge]))[:20:4]
    for edge in edges:
        sender, receiver = edge.split(ARROW)
        ends = []
        for step in (-1e-2, 1e-2):
            runs = []
            for a, b in question.texts:
                change = step * (plain.own(b).wrote[sender] - plain.own(a).wrote[sender])
                with torch.no_grad():
                    runs.append(
                        plain.run(a, lambda s, r, x: x + change if (s, r) == (sender, receiver) else x)  # noqa: B023
                    )
            ends.append(float(question.judge(runs)))
        assert scores[edge] == pytest.approx(-(ends[1] - ends[0]) / 2e-2, rel=0.05, abs=1e-4), edge


# 2. Scores


@pytest.mark.parametrize("method", ["eap", "eap-ig"])
@pytest.mark.parametrize(("family", "metric"), CASES)
def test_scores_are_the_references(family: str, metric: str, method: str) -> None:
    lens, pairs, one, questions = asked(family, metric)
    steps = 3
    found = score_edges(lens, pairs, one, method=method, steps=steps)
    assert found.space == space_of(lens, one)
    for row, question in enumerate(questions):
        expected = matrix(found.space, question.eap(0 if method == "eap" else steps))
        np.testing.assert_allclose(found.values[row], expected, atol=CLOSE)
        assert np.abs(expected).max() > 100 * CLOSE  # there is something to find
        assert found.pairs["clean"][row] == pytest.approx(question.full, abs=CLOSE)
        assert found.pairs["corrupt"][row] == pytest.approx(question.corrupt, abs=CLOSE)


@pytest.mark.parametrize(("family", "metric"), CASES)
def test_integrated_gradients_converge_to_the_whole_difference(family: str, metric: str) -> None:
    """All that leaves the embedding is all that differs: its edges' estimates sum to it as steps grow."""
    lens, pairs, one, questions = asked(family, metric)
    whole = np.array([question.full - question.corrupt for question in questions])
    off = []
    for steps in (1, 6, 24):
        sums = score_edges(lens, pairs, one, steps=steps).values[:, 0].sum(1)
        off.append(np.abs(sums - whole).max())
    assert off[2] < 5e-4
    assert off[2] < off[1] / 2 or off[1] < 5e-4
    assert off[0] > 1e-3  # one step isn't enough


def test_scores_do_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    lens, pairs, one, _ = asked("gemma3")
    large, small = (score_edges(lens, pairs, one, steps=5, memory=memory).values for memory in (1.0, 1e-6))
    np.testing.assert_allclose(large, small, atol=1e-6)


# 3. Circuits


@pytest.mark.parametrize(("family", "metric"), CASES)
def test_circuits_are_the_references(family: str, metric: str) -> None:
    lens, pairs, one, questions = asked(family, metric)
    space = space_of(lens, one)
    circuits = [some(space, share, seed) for seed, share in enumerate((0.1, 0.5, 0.8, 0.95))]
    found = circuit_values(lens, pairs, one, space, circuits).pivot(index="pair", columns="circuit", values="value")
    for question in questions:
        expected = [question.on(names(space, kept)) for kept in circuits]
        np.testing.assert_allclose(found.loc[question.pair.name], expected, atol=CLOSE)


@pytest.mark.parametrize(("family", "metric"), CASES)
def test_every_edge_is_the_clean_text_and_none_the_other(family: str, metric: str) -> None:
    lens, pairs, one, questions = asked(family, metric)
    space = space_of(lens, one)
    found = circuit_values(lens, pairs, one, space, [space.allowed, np.zeros_like(space.allowed)])
    for question in questions:
        mine = found[found["pair"] == question.pair.name].set_index("circuit")
        for name, expected in (("full", question.full), ("none", question.corrupt), ("corrupt", question.corrupt)):
            np.testing.assert_allclose(mine[name], expected, atol=CLOSE)
        np.testing.assert_allclose(mine["value"], [question.full, question.corrupt], atol=CLOSE)


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_edges_that_reach_nothing_change_nothing(family: str) -> None:
    lens, pairs, one, _ = asked(family)
    space = space_of(lens, one)
    circuits = [some(space, 0.25, seed) for seed in range(4)]
    pruned = [space.connected(kept) for kept in circuits]
    assert any((a != b).any() for a, b in zip(circuits, pruned, strict=True))
    table = circuit_values(lens, pairs, one, space, [*circuits, *pruned])
    values = table.pivot(index="pair", columns="circuit", values="value").to_numpy()
    np.testing.assert_allclose(values[:, :4], values[:, 4:], atol=CLOSE)


# 4. Paths


def chosen(space: EdgeSpace, n: int = 20) -> list[str]:
    return sorted(names(space, space.allowed), key=hash_of)[:n]


def hash_of(name: str) -> int:
    return int(np.random.default_rng(list(name.encode())).integers(1 << 30))


@pytest.mark.parametrize(("family", "metric"), CASES)
def test_patched_edges_are_the_references(family: str, metric: str) -> None:
    lens, pairs, one, questions = asked(family, metric)
    space = space_of(lens, one)
    edges = chosen(space)
    found = path_patch(lens, pairs, one, space, edges).set_index(["pair", "edge"])
    for question in questions:
        expected = np.array([question.drop(edge) for edge in edges])
        rows = found.loc[question.pair.name].loc[edges]
        np.testing.assert_allclose(rows["effect"], expected, atol=CLOSE)
        np.testing.assert_allclose(rows["full"], question.full, atol=CLOSE)
        np.testing.assert_allclose(rows["full"] - rows["value"], rows["effect"], atol=1e-6)
        assert np.abs(expected).max() > 20 * CLOSE


@pytest.mark.parametrize("family", ["llama", "qwen", "gpt2", "gpt_neox"])
def test_a_patched_edge_is_the_circuit_without_it(family: str) -> None:
    """Where no norm follows attention: an exact path patch is the circuit of all other edges."""
    lens, pairs, one, _ = asked(family)
    space = space_of(lens, one)
    edges = chosen(space, 12)
    circuits = []
    for edge in edges:
        circuits.append(space.allowed.copy())
        circuits[-1][space.index(edge)] = False
    patched = path_patch(lens, pairs, one, space, edges).set_index(["pair", "edge"])["value"]
    run = circuit_values(lens, pairs, one, space, circuits).set_index(["pair", "circuit"])["value"]
    for pair in pairs:
        for at, edge in enumerate(edges):
            assert patched[pair.name, edge] == pytest.approx(run[pair.name, at], abs=CLOSE)


def test_a_metric_beside_the_unpatched_runs() -> None:
    """-KL(clean, run): 0 for the clean text, and the clean text is the emotional one."""
    lens, pairs, _, _ = asked("llama")
    space = space_of(lens, kl())
    found = circuit_values(lens, pairs, kl(), space, [space.allowed])
    np.testing.assert_allclose(found["full"], 0, atol=1e-6)
    assert (found["corrupt"] < -1e-3).all()
    np.testing.assert_allclose(found["none"], found["corrupt"], atol=CLOSE)
