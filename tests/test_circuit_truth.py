"""Circuits that are known because they were written by hand: found, minimal, complete or not, and told apart.

What is planted is proved first, by the plain reference of :mod:`tests.edge_reference`: every edge is patched exactly,
and the circuit is run alone.
"""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from affectlens.circuits.evaluating import circuit_values
from affectlens.circuits.finding import Found
from affectlens.circuits.pathing import path_patch
from affectlens.circuits.scoring import EdgeScores, score_edges
from affectlens.circuits.sections import facts
from affectlens.circuits.selecting import greedy, threshold
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.circuits.verifying import Amounts, Verification, verify
from tests import planted_circuits
from tests.edge_reference import Plain, Question
from tests.planted_circuits import Planted

PLANTS: dict[str, Callable[[], Planted]] = {
    "emotion": planted_circuits.emotion,
    "emotion, grouped queries": lambda: planted_circuits.emotion(n_kv=2),
    "joy": lambda: planted_circuits.two_emotions()["joy"],
    "fear": lambda: planted_circuits.two_emotions()["fear"],
}
LARGE, SMALL = 0.25, 0.05  # shares of the whole difference: every true edge does more than the one, all others less
CUT = 0.03  # an estimate of more than this share of it is an edge found; gradients are smaller at a saturated softmax


@cache
def plant(name: str) -> Planted:
    return planted_circuits.backup() if name == "backup" else PLANTS[name]()


@cache
def scored(name: str, method: str = "eap-ig") -> EdgeScores:
    one = plant(name)
    return score_edges(one.model, one.half(False), one.metric, method=method)


def gap(scores: EdgeScores) -> float:
    return float((scores.pairs["clean"] - scores.pairs["corrupt"]).mean())


def mask(space: EdgeSpace, names: frozenset[str]) -> Edges:
    out = np.zeros_like(space.allowed)
    for name in names:
        out[space.index(name)] = True
    return out


def names(space: EdgeSpace, edges: Edges) -> set[str]:
    return {space.name(int(row), int(column)) for row, column in zip(*np.nonzero(edges), strict=True)}


def precision_recall(found: set[str], true: frozenset[str]) -> tuple[float, float]:
    hits = len(found & true)
    return hits / max(len(found), 1), hits / len(true)


def faithfulness(one: Planted, circuits: list[Edges]) -> np.ndarray:
    """(m(circuit) - m(none)) / (m(model) - m(none)) of means over scenes that chose nothing."""
    space = EdgeSpace.of(one.model)
    table = circuit_values(one.model, one.half(True), one.metric, space, circuits)
    table = table.groupby("circuit")[["value", "full", "none"]].mean()
    return ((table["value"] - table["none"]) / (table["full"] - table["none"])).to_numpy()


# 1. What is planted is there, and nothing else


@pytest.mark.parametrize("name", PLANTS)
def test_every_true_edge_matters_and_no_other_does(name: str) -> None:
    """Exact path patches of every edge, by the reference, in both pairs of a scene: without event, without goal."""
    one = plant(name)
    questions = [Question.of(one.model, pair, one.metric) for pair in one.pairs[:2]]
    whole = float(np.mean([question.full - question.corrupt for question in questions]))
    edges = questions[0].plain.edges
    drops = {edge: np.mean([question.drop(edge) for question in questions]) / whole for edge in edges}
    assert one.edges <= set(drops)
    assert min(drops[edge] for edge in one.edges) > LARGE
    assert max(abs(drops[edge]) for edge in edges if edge not in one.edges) < SMALL
    assert max(abs(drops[edge]) for edge in edges if edge not in one.edges) > 1e-4  # of noise, but not nothing
    for question in questions:
        assert question.on(set(one.edges)) == pytest.approx(question.full, abs=0.1 * whole)
        assert question.on(set(edges) - one.edges) == pytest.approx(question.corrupt, abs=0.1 * whole)


def test_the_backup_acts_only_while_the_main_head_is_off() -> None:
    one = plant("backup")
    question, unwanted = (Question.of(one.model, pair, one.metric) for pair in one.pairs[:2])
    whole, every = question.full - question.corrupt, set(question.plain.edges)
    drops = {edge: question.drop(edge) / whole for edge in every}
    repaired, goal = "L0.mlp_out -> L2.H1.v", "embedding -> L0.mlp_in"
    assert min(drops[edge] for edge in one.edges - {repaired, goal}) > 0.9
    assert unwanted.drop(goal) / whole > 0.9
    assert max(abs(drops[edge]) for edge in every - one.edges) < SMALL  # the hidden ones too
    assert abs(drops[repaired]) < SMALL  # without its values the main head is off, and the backup steps in
    assert question.on(set(one.edges)) == pytest.approx(question.full, abs=0.1 * whole)
    off = every - {repaired}
    assert question.on(off) == pytest.approx(question.full, abs=0.1 * whole)
    for edge in one.hidden - {"L2.H1 -> L3.H2.q"}:  # with the main head off, each of the backup's is needed
        assert question.on(off - {edge}) == pytest.approx(question.corrupt, abs=0.1 * whole)


# 2. A linear model: gradients are exact


def test_in_a_linear_model_estimates_are_exact_for_every_edge() -> None:
    one = planted_circuits.linear()
    space, edges = EdgeSpace.of(one.model), Plain(one.model).edges
    pairs = one.pairs[:3]
    exact = path_patch(one.model, pairs, one.metric, space, edges).pivot(index="pair", columns="edge", values="effect")
    places = tuple(np.array([space.index(edge) for edge in edges]).T)
    size = exact.abs().to_numpy().max()
    for method in ("eap", "eap-ig", "eap-ig-activations"):
        found = score_edges(one.model, pairs, one.metric, method=method, steps=3)
        for row, pair in enumerate(pairs):
            np.testing.assert_allclose(
                found.values[row][places], exact.loc[pair.name, edges], atol=1e-5 * max(1.0, size), err_msg=method
            )
        differ = (found.pairs["clean"] - found.pairs["corrupt"]).to_numpy()
        np.testing.assert_allclose(found.values[:, 0].sum(1), differ, atol=1e-4)
    able = {edge for edge in edges if exact[edge].abs().max() > 1e-6 * size}
    assert able <= one.edges  # no query or key carries anything
    assert len(able) > 0.9 * len(one.edges)


# 3. Found


@pytest.mark.parametrize(
    ("name", "method"), [*((name, "eap-ig") for name in PLANTS), ("emotion, grouped queries", "eap-ig-activations")]
)
def test_planted_edges_are_found(name: str, method: str) -> None:
    """By a cut of the estimates, without being told how many there are."""
    one, scores = plant(name), scored(name, method)
    space, mean = scores.space, np.abs(scores.mean())
    found = space.connected(space.allowed & (mean > CUT * gap(scores)))
    precision, recall = precision_recall(names(space, found), one.edges)
    assert precision >= 0.95
    assert recall >= 0.95


@pytest.mark.parametrize("rule", [greedy, threshold])
@pytest.mark.parametrize("name", PLANTS)
def test_planted_edges_are_the_first(name: str, rule: Callable[..., Edges]) -> None:
    one, scores = plant(name), scored(name)
    found = rule(scores.space, scores.mean(), len(one.edges))
    assert min(precision_recall(names(scores.space, found), one.edges)) >= 0.95


@pytest.mark.parametrize("name", PLANTS)
def test_exact_patches_of_the_first_edges_leave_the_planted_ones(name: str) -> None:
    one, scores = plant(name), scored(name)
    space = scores.space
    first = sorted(names(space, threshold(space, scores.mean(), 40, prune=False)))
    table = path_patch(one.model, one.half(False), one.metric, space, first)
    effect = table.groupby("edge")["effect"].mean().abs()
    found = set(effect.index[effect > 2 * SMALL * gap(scores)])
    assert min(precision_recall(found, one.edges)) >= 0.95


# 4. Faithful, minimal, complete


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_circuit_is_faithful_and_minimal_and_what_is_left_is_not(name: str) -> None:
    one = plant(name)
    space = EdgeSpace.of(one.model)
    circuit = mask(space, one.edges)
    less = [circuit & ~mask(space, frozenset({edge})) for edge in sorted(one.edges)]
    alone, rest, *without = faithfulness(one, [circuit, space.allowed & ~circuit, *less])
    assert alone == pytest.approx(1, abs=0.1)
    assert abs(rest) < SMALL
    assert max(without) < alone - LARGE


def verified(name: str, *, drops: int, others: int) -> Verification:
    one, scores = plant(name), scored(name)
    size = len(one.edges) / scores.space.n_edges
    amounts = Amounts((size, 1.0), randoms=others, sets=8, drops=drops, references=others, patches=8, resamples=2)
    return verify(one.model, scores, one.half(True), one.metric, amounts=amounts, size=size, progress=False)


@pytest.mark.parametrize("name", ["emotion, grouped queries"])
def test_a_verification_reports_the_planted_circuit_minimal_and_complete(name: str) -> None:
    one, found = plant(name), verified(name, drops=10, others=12)
    assert set(found.circuit["edge"]) == one.edges
    edges = found.drops[found.drops["kind"] == "edge"]
    assert set(edges["removed"]) == one.edges
    assert edges["needed"].all()
    assert not edges["superfluous"].any()
    assert found.estimate("f").value == pytest.approx(1, abs=0.1)
    assert abs(found.estimate("complement").value) < SMALL
    assert found.estimate("incompleteness").value < 0.1


def test_a_backup_shows_as_incompleteness() -> None:
    """The circuit of the main head is faithful, and without the main head it is nothing, which the model is not."""
    one, found = plant("backup"), verified("backup", drops=2, others=2)
    assert set(found.circuit["edge"]) == one.edges
    assert found.estimate("f").value == pytest.approx(1, abs=0.15)
    assert found.estimate("incompleteness").value > 0.1
    assert found.estimate("incompleteness").value < 0.4  # most sets hold no node that is backed up
    assert found.estimate("incompleteness, worst").low > 0.8
    assert found.worst == ("L2.H1",)
    assert any("in the worst, without L2.H1;" in line for line in found.summary())
    circuit = Found.__new__(Found)  # what is told of it needs no scores
    vars(circuit).update(verification=found, graph=SimpleNamespace(edges=one.edges, meta={"size": 0.1}))
    told = {row["name"]: row["nodes"] for row in facts({"joy": circuit}).to_dict("records")}
    assert {name for name, nodes in told.items() if nodes} == {"incompleteness, worst"}
    assert told["incompleteness, worst"] == "L2.H1"
    apart = found.sets[found.sets["difference"] < -0.8]
    assert set(apart["names"]) == {"L2.H1"}
    assert apart["differs"].all()
    assert found.sets[~found.sets.index.isin(apart.index)]["difference"].abs().max() < 0.1


# 5. Told apart


def test_two_emotions_share_what_they_were_given_to_share() -> None:
    joy, fear = plant("joy"), plant("fear")
    space = EdgeSpace.of(joy.model)
    circuits = []
    for name, one in (("joy", joy), ("fear", fear)):
        scores = scored(name)
        circuits.append(space.connected(space.allowed & (np.abs(scores.mean()) > CUT * gap(scores))))
        assert names(space, circuits[-1]) == one.edges
    both = names(space, circuits[0] & circuits[1])
    assert both == joy.edges & fear.edges == {"embedding -> L0.H0.v", "L0.H0 -> L0.mlp_in", "embedding -> L0.mlp_in"}
    own = faithfulness(joy, circuits)
    assert own[0] == pytest.approx(1, abs=0.1)
    assert abs(own[1]) < SMALL  # the other emotion's circuit does not say this one
