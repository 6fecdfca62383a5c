"""Overlap of circuits beside random ones, and their tree against Plutchik's wheel."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform
from scipy.stats import pearsonr

from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.overlapping import jaccard, overlap_table
from affectlens.circuits.sampling import random_circuits
from affectlens.circuits.selecting import greedy
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.circuits.wheel import against, dendrogram
from affectlens.errors import CircuitError
from affectlens.probing.geometry.models import steps
from affectlens.stimuli.taxonomy import EMOTIONS, PEAK
from tests.test_circuit_graph import SPACE, Fake, graph

WIDE = EdgeSpace(4, 4, 2, (False,) * 4)


def of(mask: Edges, space: EdgeSpace = WIDE) -> CircuitGraph:
    values = np.where(mask, 1.0, 0.0)[None].repeat(3, 0).astype(np.float32)
    pairs = pd.DataFrame({"pair": list("abc"), "group": list("abc")})
    return CircuitGraph.of(Fake(space, values, pairs, {}), mask)


def some(seed: int, n: int = 60) -> Edges:
    return greedy(WIDE, np.random.default_rng(seed).normal(size=WIDE.allowed.shape), n, fill=True)


def test_a_circuit_shares_all_with_itself_and_random_ones_little() -> None:
    one = of(some(0))
    found = one.overlap(one, draws=39)
    assert found["edges"].value == found["nodes"].value == 1.0
    assert found["edges"].p == found["edges"].attainable == 1 / 40
    assert found["edges"].expected < 0.5
    assert "p 0.025" in str(found["edges"])


def test_the_index_and_its_null_are_those_of_sets() -> None:
    a, b = some(0), some(1)
    found = of(a).overlap(of(b), draws=19, seed=4)["edges"]
    assert (found.shared, found.either) == ((a & b).sum(), (a | b).sum())
    assert found.value == found.shared / found.either
    null = [(x & y).sum() / (x | y).sum() for x, y in
            zip(random_circuits(WIDE, a, 19, seed=4), random_circuits(WIDE, b, 19, seed=5), strict=True)]  # fmt: skip
    assert found.expected == pytest.approx(np.mean(null))
    assert found.p == (1 + sum(one >= found.value for one in null)) / 20


def test_random_circuits_do_not_overlap_beyond_chance() -> None:
    """Under its own null p is about uniform, so rarely small."""
    like = some(2)
    drawn = random_circuits(WIDE, like, 6, seed=9)
    p = [of(a).overlap(of(b), draws=9, seed=k)["edges"].p
         for k, (a, b) in enumerate(zip(drawn[::2], drawn[1::2], strict=True))]  # fmt: skip
    assert np.mean(p) > 0.2


def test_the_table_has_each_two_once() -> None:
    table = overlap_table({"joy": of(some(0)), "fear": of(some(0)), "anger": of(some(3))}, draws=19)
    assert len(table) == 2 * 3
    same = table[(table["a"] == "joy") & (table["b"] == "fear")]
    assert (same["value"] == 1).all()
    assert (table["p_adjusted"] >= table["p"]).all()


def test_edges_on_no_path_count_nowhere() -> None:
    """The table says of a circuit with loose edges what it says of the pruned one, and so does ``overlap``."""
    tight, other = some(0), some(3)
    each = np.arange(tight.size).reshape(tight.shape)
    more = (tight | (each == k) for k in np.flatnonzero(WIDE.allowed & ~tight))
    loose = next(mask for mask in more if (WIDE.connected(mask) == tight).all())
    ours, pruned = (overlap_table({"joy": of(mask), "fear": of(other)}, draws=19) for mask in (loose, tight))
    pd.testing.assert_frame_equal(ours, pruned)
    assert of(loose).overlap(of(other), draws=19) == of(tight).overlap(of(other), draws=19)


def test_two_circuits_of_nothing_are_alike() -> None:
    none = np.zeros((2, 3), dtype=bool)
    assert jaccard(none, none).tolist() == [1, 1]
    assert jaccard(none, ~none).tolist() == [0, 0]


def test_what_can_t_be_compared_is_said() -> None:
    one = of(some(0))
    with pytest.raises(CircuitError, match="two at least"):
        overlap_table({"joy": one})
    with pytest.raises(CircuitError, match="two spaces"):
        one.overlap(graph(space=SPACE), draws=19)
    with pytest.raises(CircuitError, match="random circuits can't"):
        one.overlap(one, draws=0)


def on_the_wheel() -> dict[str, CircuitGraph]:
    """Eight circuits, each of a window of edges that moves on around a ring: neighbours share most."""
    at = np.flatnonzero(WIDE.allowed)
    ring = np.random.default_rng(0).permutation(at)[: len(at) // 8 * 8].reshape(8, -1)
    out = {}
    for k, emotion in enumerate(EMOTIONS):
        mask = np.zeros(WIDE.allowed.shape, dtype=bool)
        mask.ravel()[ring[(k + np.arange(4)) % 8].ravel()] = True
        out[emotion] = of(mask)
    return out


def test_the_tree_of_circuits_that_lie_on_the_wheel_agrees_with_it() -> None:
    found = dendrogram(on_the_wheel())
    rows: Any = found.agreement.set_index(["of", "against"])
    pairs = squareform(found.distance, checks=False)
    wheel = squareform(45 * steps(EMOTIONS), checks=False)
    assert rows.loc[("overlap", "wheel"), "value"] == pytest.approx(pearsonr(pairs, wheel)[0])
    assert rows.loc[("overlap", "wheel"), "value"] > 0.95
    assert rows.loc[("overlap", "wheel"), "p"] == rows.loc[("overlap", "wheel"), "attainable"] == 16 / 40320
    heights = cophenet(linkage(pairs, "average"))
    assert rows.loc[("tree", "wheel"), "value"] == pytest.approx(pearsonr(heights, wheel)[0])
    assert found.fidelity == pytest.approx(pearsonr(heights, pairs)[0])
    assert rows.loc[("tree", "wheel"), "p"] >= rows.loc[("tree", "wheel"), "attainable"] >= 16 / 40320


def test_the_wheel_takes_peak_names_and_draws_itself() -> None:
    plain = on_the_wheel()
    found = dendrogram({PEAK[name]: one for name, one in plain.items()})
    pd.testing.assert_frame_equal(found.agreement, dendrogram(plain).agreement)
    fig: Any = found.plot()
    assert sorted(fig.layout.yaxis.ticktext) == sorted(PEAK.values())
    assert len(fig.data) == 7
    assert "the least possible is" in found.summary()[0]
    assert "can't tell a circle" in found.summary()[1]
    assert "<table" in found._repr_html_()


def test_an_order_that_is_not_the_wheel_s_does_not_agree() -> None:
    shuffled = dict(zip((EMOTIONS[k] for k in (0, 3, 6, 1, 4, 7, 2, 5)), on_the_wheel().values(), strict=True))
    rows: Any = dendrogram(shuffled).agreement.set_index(["of", "against"])
    assert rows.loc[("overlap", "wheel"), "p"] > 0.5


def test_circuits_that_share_nothing_agree_with_nothing() -> None:
    apart = 1 - np.eye(8)
    found = against(EMOTIONS, apart, {"wheel": steps(EMOTIONS)}).agreement
    assert (found["p"] == 1).all()


def test_the_wheel_says_what_it_needs() -> None:
    circuits = on_the_wheel()
    with pytest.raises(CircuitError, match="5 emotions at least"):
        dendrogram({name: circuits[name] for name in EMOTIONS[:4]})
    with pytest.raises(CircuitError, match="by emotion"):
        dendrogram(circuits | {"boredom": circuits["joy"]})
    with pytest.raises(CircuitError, match="each once"):
        dendrogram(circuits | {"grief": circuits["joy"]})
