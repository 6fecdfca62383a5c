"""Circuits as graphs: choosing edges, random circuits, tables, files; networkx and plain loops as oracles."""

import json
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from affectlens.circuits import sampling
from affectlens.circuits.assembling import assemble, node_effects
from affectlens.circuits.graph import EDGES, NODES, CircuitGraph
from affectlens.circuits.sampling import by_layer, random_circuit, random_circuits
from affectlens.circuits.selecting import RULES, at_sizes, first, greedy, threshold
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.errors import CircuitError
from affectlens.stats import estimate, sign_flips
from tests.test_patch_effects import planted, sweep_of

SPACE = EdgeSpace(4, 4, 2, (False, True, False, False))


@dataclass(frozen=True)
class Fake:
    """Scores as the engine gives them."""

    space: EdgeSpace
    values: Any
    pairs: pd.DataFrame
    meta: dict[str, Any]


def scored(space: EdgeSpace = SPACE, *, groups: int = 6, per: int = 2, seed: int = 0) -> Fake:
    rng = np.random.default_rng(seed)
    n = groups * per
    drop = rng.normal(size=space.allowed.shape) * space.allowed
    values = (drop + 0.3 * rng.normal(size=(n, *drop.shape)) * space.allowed).astype(np.float32)
    group = [f"g{i // per}" for i in range(n)]
    pairs = pd.DataFrame({"pair": [f"p{i}" for i in range(n)], "group": group, "domain": "work", "emotion": "grief"})
    return Fake(space, values, pairs, {"model": "tiny", "metric": "m", "unit": "nats", "emotion": "grief"})


def patched(scores: Fake, mask: Edges) -> pd.DataFrame:
    """Exact effects of some edges, twice the estimates; and nothing of one edge that is not in the mask."""
    rows = []
    for row, column in np.argwhere(mask).tolist():
        effect = 2 * scores.values[:, row, column].astype(float)
        rows.append(scores.pairs.assign(edge=scores.space.name(row, column), full=1.0, value=1 - effect, effect=effect))
    return pd.concat(rows, ignore_index=True)


def reference(space: EdgeSpace, mask: Edges) -> set[tuple[int, int]]:
    """Edges on a path from the embedding to the end, by networkx over senders and readers."""
    net = nx.DiGraph()
    net.add_nodes_from(["embedding", "end"])
    for row, column in np.argwhere(mask):
        net.add_edge(space.senders[row], space.receivers[column])
    for column, row in np.argwhere(space.feeds):
        net.add_edge(space.receivers[column], space.senders[row])
    down, up = nx.descendants(net, "embedding") | {"embedding"}, nx.ancestors(net, "end") | {"end"}
    return {(row, column) for row, column in np.argwhere(mask).tolist()
            if space.senders[row] in down and space.receivers[column] in up}  # fmt: skip


@pytest.mark.parametrize("rule", [threshold, greedy])
@pytest.mark.parametrize("n", [3, 12, 40, 120])
def test_what_is_pruned_is_what_networkx_finds_on_a_path(rule: Any, n: int) -> None:
    scores = scored().values.mean(0, dtype=float)
    raw = rule(SPACE, scores, n, prune=False)
    assert raw.sum() == n
    assert {tuple(edge) for edge in np.argwhere(rule(SPACE, scores, n)).tolist()} == reference(SPACE, raw)


def test_greedy_takes_the_largest_edge_into_what_is_in() -> None:
    scores = scored().values.mean(0, dtype=float)
    taken = np.zeros(SPACE.allowed.shape, dtype=bool)
    inside = np.zeros(len(SPACE.receivers), dtype=bool)
    inside[-1] = True
    for n in range(1, 80):
        row, column = np.unravel_index(
            np.where(SPACE.allowed & inside & ~taken, np.abs(scores), -1).argmax(), scores.shape
        )
        taken[row, column] = True
        inside |= SPACE.feeds[:, row]
        assert (greedy(SPACE, scores, n, prune=False) == taken).all()


@pytest.mark.parametrize("rule", list(RULES))
def test_sizes_are_nested_and_the_last_is_every_edge(rule: str) -> None:
    scores = scored().values.mean(0, dtype=float)
    for options in ({"prune": False}, {"fill": True}, {"fill": False}):
        found = list(at_sizes(SPACE, scores, (0.02, 0.1, 0.3, 0.7, 1.0), rule, **options).values())
        assert all((small <= large).all() for small, large in pairwise(found))
        assert (found[-1] == SPACE.allowed).all()


def test_filling_comes_as_near_as_any_start_of_the_order() -> None:
    scores = scored().values.mean(0, dtype=float)
    order = RULES["threshold"](SPACE, scores)
    left = [int(first(SPACE, order, n).sum()) for n in range(1, SPACE.n_edges + 1)]
    for n in (5, 20, 60, 100):
        assert threshold(SPACE, scores, n, fill=True).sum() == max(one for one in left if one <= n)


def test_the_sign_counts_if_asked() -> None:
    scores = np.where(SPACE.allowed, -1.0, 0.0)
    scores[0, -1] = 0.5
    assert np.argwhere(threshold(SPACE, scores, 1, absolute=False)).tolist() == [[0, len(SPACE.receivers) - 1]]
    assert not threshold(SPACE, scores, 1, prune=False)[0, -1]


def test_what_can_t_be_chosen_is_said() -> None:
    scores = scored().values.mean(0, dtype=float)
    with pytest.raises(CircuitError, match="another model's"):
        threshold(SPACE, scores[:, 1:], 5)
    with pytest.raises(CircuitError, match="this space has 1 to"):
        greedy(SPACE, scores, 0)
    with pytest.raises(CircuitError, match="no rule 'best'"):
        at_sizes(SPACE, scores, rule="best")
    with pytest.raises(CircuitError, match="not finite"):
        threshold(SPACE, np.where(SPACE.allowed, np.nan, 0.0), 5)
    with pytest.raises(CircuitError, match="no share"):
        at_sizes(SPACE, scores, (1.5,))


@pytest.mark.parametrize("n", [4, 10, 40, 120, 180])
def test_random_circuits_are_connected_and_match_by_layer_exactly(n: int) -> None:
    like = greedy(SPACE, scored().values.mean(0, dtype=float), n, fill=True)
    assert like.any()
    for one in random_circuits(SPACE, like, 12, seed=3):
        assert (by_layer(SPACE, one) == by_layer(SPACE, like)).all()
        assert reference(SPACE, one) == {tuple(edge) for edge in np.argwhere(one).tolist()}


def test_random_circuits_repeat_by_seed_and_differ_otherwise() -> None:
    like = greedy(SPACE, scored().values.mean(0, dtype=float), 40)
    a, b, c = (np.stack(random_circuits(SPACE, like, 4, seed=seed)) for seed in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()
    one = random_circuit(SPACE, like, np.random.default_rng(0))
    assert (by_layer(SPACE, one) == by_layer(SPACE, like)).all()


def test_random_circuits_are_spread_over_all_that_there_are() -> None:
    """Two paths through two heads of one layer: every circuit with these counts comes about equally often."""
    space = EdgeSpace(1, 3, 3, (True,))
    like = np.zeros(space.allowed.shape, dtype=bool)
    for edge in ("embedding -> L0.H0.q", "embedding -> L0.H1.v", "L0.H0 -> end", "L0.H1 -> end"):
        like[space.index(edge)] = True
    options = np.argwhere(space.allowed)
    count: dict[bytes, int] = {}
    for inward in np.argwhere(np.triu(np.ones((10, 10)), 1)):
        for outward in np.argwhere(np.triu(np.ones((4, 4)), 1)):
            one = np.zeros_like(like)
            one[0, inward] = True
            one[1 + outward, -1] = True
            if not (one & ~space.allowed).any() and (space.connected(one) == one).all():
                count[one.tobytes()] = 0
    assert len(options) == 10 + 4 + 1
    draws = 40 * len(count)
    for one in random_circuits(space, like, draws, seed=0):
        count[one.tobytes()] += 1
    share = np.array(list(count.values())) / 40
    assert share.min() > 0.2
    assert share.std() < 0.5


def test_a_circuit_with_loose_ends_is_not_imitated() -> None:
    like = np.zeros(SPACE.allowed.shape, dtype=bool)
    like[SPACE.index("L0.H1 -> end")] = True
    with pytest.raises(CircuitError, match="prune it first"):
        random_circuits(SPACE, like, 2)


def test_where_repair_fails_the_circuit_itself_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MOST", 0)
    monkeypatch.setattr(sampling, "_aim", lambda *_: None)
    like = greedy(SPACE, scored().values.mean(0, dtype=float), 12, fill=True)
    found = random_circuits(SPACE, like, 8, seed=0)
    assert all((by_layer(SPACE, one) == by_layer(SPACE, like)).all() for one in found)
    assert all((SPACE.connected(one) == one).all() for one in found)
    assert any((one != like).any() for one in found)


def graph(n: int = 80, seed: int = 0, space: EdgeSpace = SPACE) -> CircuitGraph:
    scores = scored(space, seed=seed)
    mask = greedy(space, scores.values.mean(0, dtype=float), n)
    part = first(space, RULES["threshold"](space, np.abs(scores.values.mean(0, dtype=float)) * mask), 5, prune=False)
    nodes = pd.DataFrame([("L1.H2", 1, "head", 0.4, 0.1, np.inf, 0.01), ("L3.N7", 3, "neuron", 0.2, 0.1, 0.3, np.nan)],
                         columns=NODES)  # fmt: skip
    return CircuitGraph.of(scores, mask, effects=patched(scores, part), nodes=nodes, meta={"selection": "greedy"})


def test_numbers_of_edges_are_those_of_one_edge_at_a_time() -> None:
    scores, found = scored(), graph()
    codes = pd.factorize(scores.pairs["group"])[0]
    assert len(found.edges) == found.mask.sum()
    for _, edge in found.edges.head(8).iterrows():
        at = scores.space.index(f"{edge['sender']} -> {edge['receiver']}")
        values = scores.values[:, at[0], at[1]].astype(float)
        total, size = np.bincount(codes, values), np.bincount(codes).astype(float)
        one = estimate(partial(ratio, total, size), len(size), "group", bounds=None)
        np.testing.assert_allclose(
            [edge["score"], edge["score_low"], edge["score_high"]], [one.value, one.low, one.high]
        )
        if np.isfinite(edge["effect"]):
            np.testing.assert_allclose([edge["effect"], edge["effect_low"]], [2 * one.value, 2 * one.low])
            assert edge["p"] == sign_flips(2 * total[:, None]).p[0]
    exact = found.edges.dropna(subset="effect")
    assert len(exact) == 5
    assert (exact["p_adjusted"] >= exact["p"]).all()
    assert found.meta["patched"] == 5
    assert found.meta["attainable"] == 2 / 2**6
    assert found.edges["score"].abs().is_monotonic_decreasing


def ratio(total: np.ndarray, size: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray((weights @ total) / (weights @ size))


def test_the_family_of_tests_is_all_that_was_patched() -> None:
    scores, mask = scored(), SPACE.allowed
    outside = scored(seed=1).values[0] > 1.5
    mean = np.where(mask, np.abs(scores.values.mean(0, dtype=float)), np.inf)
    inside = abs(mean - 0.15) == abs(mean - 0.15).min()
    alone = CircuitGraph.of(scores, mask, effects=patched(scores, inside)).edges["p_adjusted"].dropna()
    wide = CircuitGraph.of(scores, mask, effects=patched(scores, inside | outside)).edges
    assert len(alone) == 1
    sender, receiver = SPACE.name(*np.argwhere(inside)[0].tolist()).split(" -> ")
    edge = wide[(wide["sender"] == sender) & (wide["receiver"] == receiver)].iloc[0]
    assert edge["p_adjusted"] > alone.iloc[0] == edge["p"]
    assert wide["p"].notna().sum() == (inside | outside).sum()


@pytest.mark.parametrize("suffix", [".json", ".graphml"])
def test_it_loads_back_equal(tmp_path: Path, suffix: str) -> None:
    one = graph()
    again = CircuitGraph.load(one.save(tmp_path / f"circuit{suffix}"))
    assert again.space == one.space
    assert again.meta == one.meta
    pd.testing.assert_frame_equal(again.edges, one.edges, check_exact=True)
    pd.testing.assert_frame_equal(again.nodes, one.nodes, check_exact=True)
    assert again.edges["effect"].isna().any()
    assert [path.name for path in tmp_path.iterdir()] == [f"circuit{suffix}"]


def test_other_programs_read_the_graphml(tmp_path: Path) -> None:
    one = graph()
    net = nx.read_graphml(one.save(tmp_path / "c.graphml"))
    assert set(net.nodes) == set(one.nx.nodes)
    assert net.number_of_edges() == one.nx.number_of_edges()
    facts = {(a, b, data["port"]): data["score"] for a, b, data in net.edges(data=True)}
    assert facts == {(a, b, port): data["score"] for a, b, port, data in one.nx.edges(keys=True, data=True)}


def test_a_file_that_is_damaged_or_changed_is_refused(tmp_path: Path) -> None:
    one = graph()
    path = one.save(tmp_path / "c.json")
    whole = path.read_text()
    for text in (whole[: len(whole) // 2], whole.replace('"sender"', '"sandler"', 1), "[]"):
        path.write_text(text)
        with pytest.raises(CircuitError, match=r"damaged|lacks|no circuit"):
            CircuitGraph.load(path)
    drawn = one.save(tmp_path / "c.graphml")
    net = nx.read_graphml(drawn)
    net.remove_edge(*next(iter(net.edges)))
    nx.write_graphml(net, drawn)
    with pytest.raises(CircuitError, match="changed by another program"):
        CircuitGraph.load(drawn)
    with pytest.raises(CircuitError, match="no circuit at"):
        CircuitGraph.load(tmp_path / "none.json")
    with pytest.raises(CircuitError, match="ends in neither"):
        one.save(tmp_path / "c.txt")
    with pytest.raises(CircuitError, match="as JSON"):
        CircuitGraph(one.space, one.edges, one.nodes, {"x": object()}).save(path)


def test_tables_are_checked() -> None:
    one = graph()
    with pytest.raises(CircuitError, match="lacks p, p_adjusted"):
        CircuitGraph(SPACE, one.edges.drop(columns=["p", "p_adjusted"]), one.nodes, {})
    with pytest.raises(CircuitError, match="There is no edge"):
        CircuitGraph(EdgeSpace(1, 4, 2, (False,)), one.edges, one.nodes, {})
    with pytest.raises(CircuitError, match="is there twice"):
        CircuitGraph(SPACE, pd.concat([one.edges, one.edges.head(1)]), one.nodes, {})
    with pytest.raises(CircuitError, match="that the space lacks"):
        CircuitGraph.of(scored(), ~SPACE.allowed)


def test_a_key_value_reader_is_one_edge_drawn_to_each_head_of_its_group() -> None:
    scores = scored()
    mask = np.zeros(SPACE.allowed.shape, dtype=bool)
    for edge in (
        "embedding -> L1.H1.k",
        "embedding -> L1.H2.q",
        "L1.H2 -> end",
        "L1.H2 -> L2.mlp_in",
        "L2.mlp_out -> end",
    ):
        mask[SPACE.index(edge)] = True
    one = CircuitGraph.of(scores, mask)
    drawn = {(a, b, port): data["shared"] for a, b, port, data in one.nx.edges(keys=True, data=True)}
    assert drawn == {
        ("embedding", "L1.H2", "k"): "L1.H1.k", ("embedding", "L1.H3", "k"): "L1.H1.k",
        ("embedding", "L1.H2", "q"): "", ("L1.H2", "end", "in"): "", ("L1.H2", "L2.mlp", "in"): "",
        ("L2.mlp", "end", "in"): "",
    }  # fmt: skip
    on: Any = one.nodes_on.set_index("node")
    assert list(on.index) == ["L1.H2", "L2.mlp"]
    assert on.loc["L1.H2", ["edges_in", "edges_out"]].tolist() == [2, 2]
    mean = scores.values.mean(0, dtype=float)
    assert on.at["L1.H2", "score_out"] == pytest.approx(mean[SPACE.sender["L1.H2"]][mask[SPACE.sender["L1.H2"]]].sum())
    assert nx.is_directed_acyclic_graph(one.nx)


def test_union_intersection_and_difference_are_those_of_sets() -> None:
    a, b = graph(60), graph(80, seed=5)
    assert (a.union(b).mask == (a.mask | b.mask)).all()
    both = a.intersection(b)
    assert (both.mask == (a.mask & b.mask)).all()
    assert both.edges["score"].isin(a.edges["score"]).all()
    where = a.diff(b)["where"].value_counts().to_dict()
    assert where == {
        "both": (a.mask & b.mask).sum(),
        "left": (a.mask & ~b.mask).sum(),
        "right": (b.mask & ~a.mask).sum(),
    }
    assert a.union(b).meta["metric"] == "m"
    other = graph(space=EdgeSpace(3, 4, 2, (False,) * 3), n=20)
    for act in (a.union, a.intersection, a.diff):
        with pytest.raises(CircuitError, match="two spaces"):
            act(other)


def test_numbers_of_two_metrics_are_not_joined() -> None:
    a, b = graph(60), graph(80, seed=5)
    for key, other in (("metric", "another"), ("unit", "logits")):
        changed = CircuitGraph(SPACE, b.edges, b.nodes, b.meta | {key: other})
        for act in (a.union, a.intersection):
            with pytest.raises(CircuitError, match=f"two {key}s .*{other}"):
                act(changed)
        assert len(a.diff(changed))
    unsaid = CircuitGraph(SPACE, b.edges, b.nodes, {})
    assert (a.union(unsaid).mask == (a.mask | b.mask)).all()


def test_pairs_of_the_exact_effect_are_counted_apart() -> None:
    scores, mask = scored(), SPACE.allowed
    few = patched(scores, np.arange(mask.size).reshape(mask.shape) == np.flatnonzero(mask)[0])
    edges = CircuitGraph.of(scores, mask, effects=few[few["group"].isin(["g0", "g1", "g2"])]).edges
    assert set(edges["n"]) == {12}
    assert edges["effect_n"].dropna().tolist() == [6]
    assert (edges["effect_n"].isna() == edges["effect"].isna()).all()
    with pytest.raises(CircuitError, match="lacks effect_n"):
        CircuitGraph(SPACE, edges.drop(columns="effect_n"), pd.DataFrame(columns=NODES), {})


def test_overlap_leaves_out_what_lies_on_no_path() -> None:
    one = graph(100)
    loose = next(part for n in range(3, 100) if (part := one.largest(n)).mask.any()
                 and 2 < SPACE.connected(part.mask).sum() < part.mask.sum())  # fmt: skip
    pruned = one.largest(len(loose.edges), prune=True)
    assert loose.overlap(one, draws=19) == pruned.overlap(one, draws=19)
    assert one.overlap(loose, draws=19)["edges"].shared == len(pruned.edges)


def test_parts_of_a_circuit() -> None:
    one = graph(100)
    assert one.largest(7).edges["score"].tolist() == one.edges["score"].head(7).tolist()
    level = float(one.edges["score"].abs().median())
    kept = one.threshold(level, prune=False)
    assert (kept.edges["score"].abs() >= level).all()
    assert (one.threshold(level).mask == SPACE.connected(kept.mask)).all()
    assert len(one.threshold(0.0, by="effect", prune=False).edges) == one.edges["effect"].notna().sum()
    with pytest.raises(CircuitError, match="score or effect"):
        one.threshold(1.0, by="p")


def test_it_says_what_it_is() -> None:
    one = graph()
    assert repr(one).startswith(f"CircuitGraph({len(one.edges)} of {SPACE.n_edges} edges")
    assert "grief" in repr(one)
    said = " ".join(one.summary())
    assert f"{len(one.edges)} of {SPACE.n_edges} edges" in said
    assert "5 of its edges were patched exactly" in said
    assert "lie on no path" in " ".join(one.largest(3).summary()) or one.largest(3, prune=True).mask.sum() == 3
    assert "<table" in one._repr_html_()
    empty = CircuitGraph(SPACE, one.edges.head(0), one.nodes, {})
    assert not empty.mask.any()
    assert json.dumps(empty.summary())


def nodes_table() -> pd.DataFrame:
    """Two heads of layer 1 and an MLP: the first head and the MLP carry something, the other head nothing."""
    truth = {"matched": np.array([0.5]), "random": np.array([0.0]), "neutral": np.array([0.0]),
             "wrong_position": np.array([0.0])}  # fmt: skip
    none = {name: np.array([0.0]) for name in truth}
    parts = [planted(truth).assign(kind="z", layer=1, index=0),
             planted(none).assign(kind="z", layer=1, index=3),
             planted(truth).assign(kind="mlp_out", layer=2),
             planted(truth).assign(kind="resid_pre", layer=2)]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_nodes_are_assembled_from_a_sweep() -> None:
    sweep = sweep_of(nodes_table())
    nodes = node_effects(sweep)
    assert dict(zip(nodes["node"], nodes["specific"], strict=True)) == {"L1.H0": True, "L2.mlp": True, "L1.H3": False}
    head = sweep.at(kind="z", index=0, layer=1)
    row = nodes.set_index("node").loc["L1.H0"]
    assert (row["effect"], row["low"], row["high"]) == (head.value, head.low, head.high)
    bare = assemble(SPACE, sweep)
    assert set(bare.nodes["node"]) == {"L1.H0", "L2.mlp"}
    assert bare.summary()[0].startswith("**1 head and 1 MLP, and no edges**")
    assert "2 nodes" in repr(bare)
    assert list(bare.edges) == EDGES
    whole = assemble(SPACE, sweep, scores=scored())
    assert set(whole.nx.nodes) - {"L1.H1"} == {"embedding", "L1.H0", "L2.mlp", "end"}
    assert whole.mask[SPACE.index("L1.H0 -> L2.mlp_in")]
    assert len(whole.edges) == 8
    assert len(assemble(SPACE, nodes, scores=scored(), n=4).edges) <= 4


def test_a_segment_patched_whole_and_by_token_is_told_apart() -> None:
    table = nodes_table()
    nothing = table.assign(position=4, value=table["corrupt"])
    sweep = sweep_of(pd.concat([table, nothing], ignore_index=True))
    with pytest.raises(CircuitError, match=r"extents segment, token: say which with extent=\.$"):
        node_effects(sweep)
    for extent in ("segment", "token"):
        nodes = node_effects(sweep, extent=extent).set_index("node")
        expected = sweep.at(kind="z", index=0, layer=1, extent=extent).value
        assert nodes.loc["L1.H0", "effect"] == expected
    assert set(assemble(SPACE, sweep, extent="segment").nodes["node"]) == {"L1.H0", "L2.mlp"}
    with pytest.raises(CircuitError, match="No node is specific"):
        assemble(SPACE, sweep, extent="token")
    with pytest.raises(CircuitError, match="no nodes there"):
        node_effects(sweep, extent="word")


def test_assembling_says_what_is_missing() -> None:
    table = nodes_table()
    with pytest.raises(CircuitError, match="no nodes there"):
        node_effects(sweep_of(table[table["kind"] == "resid_pre"]))
    with pytest.raises(CircuitError, match="segments ending, last: say which with segment="):
        node_effects(sweep_of(pd.concat([table, table.assign(segment="ending")])))
    with pytest.raises(CircuitError, match="No node is specific"):
        assemble(SPACE, sweep_of(table[table["index"] == 3]))
    with pytest.raises(CircuitError, match="no node of this space"):
        assemble(EdgeSpace(2, 4, 2, (False, False)), sweep_of(table))
