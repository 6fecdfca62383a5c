"""Verification of circuits, on fake models whose answers are known by hand: sums of edges, ways around each other."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pytest

from affectlens.circuits.linking import on
from affectlens.circuits.scoring import EdgeScores, score_edges
from affectlens.circuits.selecting import at_sizes
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.circuits.verifying import (
    Amounts,
    Tools,
    Verification,
    cost,
    predicting,
    removing,
    sizing,
    verify,
)
from affectlens.circuits.verifying.needing import costs, dropped, flipped, superfluous
from affectlens.circuits.verifying.ratios import Sums, cmd, cpr
from affectlens.circuits.verifying.running import BLOCK
from affectlens.circuits.verifying.stability import stability
from affectlens.circuits.verifying.words import percent
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.patching.metrics import Metric, logit_difference
from affectlens.patching.pairs import PatchPair, prepare
from affectlens.stats import Band, band, multinomial

SPACE = EdgeSpace(3, 4, 2, (False,) * 3)
LEAST = 5 / 190  # the chain's
METRIC = Metric("planted", lambda reading: reading.label("never read"), unit="nats")
SMALL = Amounts((LEAST, 0.05, 0.2, 0.5, 1.0), randoms=39, sets=4, drops=8, references=30, patches=0, resamples=6)
FULL = replace(SMALL, patches=12)
EVERY = np.ones((1, 1))
CHAIN = (
    "embedding -> L0.H0.v",
    "L0.H1 -> L1.mlp_in",
    "L1.mlp_out -> L2.H2.q",
    "L2.H2 -> end",
    "embedding -> L1.mlp_in",
)


def edges(*names: str) -> Edges:
    out = np.zeros(SPACE.allowed.shape, dtype=bool)
    for name in names:
        out[SPACE.index(name)] = True
    return out


def planted(strength: float = 1.0, rest: float = 0.0) -> np.ndarray:
    """What each edge adds to the metric: a chain of strong ones, and little or nothing by all others."""
    out = np.where(SPACE.allowed, rest, 0.0)
    for at, name in enumerate(CHAIN):
        out[SPACE.index(name)] = strength * (1 + at / 10)
    return out


@pytest.fixture(scope="module")
def held_out(llama: LensModel) -> list[PatchPair]:
    """16 scenes of two pairs."""
    texts = [(f"She wept {at} times at the grave.", f"She walked {at} times at the shop.") for at in range(32)]
    return [replace(pair, name=f"p{at}", group=f"held{at // 2}", emotion="grief")
            for at, pair in enumerate(prepare(llama, texts))]  # fmt: skip


def scored(values: np.ndarray, *, noise: float = 0.05, scenes: int = 12) -> EdgeScores:
    """Scores of discovery scenes: the truth and noise."""
    rng = np.random.default_rng(1)
    each = values[None] * rng.uniform(0.5, 1.5, size=(scenes, 1, 1)) + rng.normal(
        0, noise, size=(scenes, *values.shape)
    )
    pairs = pd.DataFrame({"pair": [f"d{i}" for i in range(scenes)], "group": [f"found{i}" for i in range(scenes)],
                          "domain": [f"domain{i % 3}" for i in range(scenes)], "emotion": "grief",
                          "clean": 0.0, "corrupt": 0.0})  # fmt: skip
    meta = {"model": "planted", "metric": "planted", "unit": "nats", "method": "eap-ig", "fingerprint": "f"}
    return EdgeScores(SPACE, (each * SPACE.allowed).astype(np.float32), pairs, meta)


class Fake:
    """A model of which the metric on a set of edges is known; it counts its passes."""

    def __init__(self, metric: Callable[[Edges], float], *, spread: float = 0.3, noise: float = 0.0) -> None:
        self.metric, self.spread, self.noise, self.passes, self.calls = metric, spread, noise, 0, 0
        self.stop_after: int | None = None

    def _scale(self, pair: PatchPair) -> float:
        return 1 + self.spread * math.sin(7 * int(pair.name[1:]))

    def _value(self, pair: PatchPair, kept: Edges) -> float:
        noise = np.random.default_rng([int(pair.name[1:]), crc32(np.packbits(kept).tobytes())]).normal()
        return 5 + self._scale(pair) * self.metric(kept) + self.noise * float(noise)

    def values(
        self, model: object, pairs: Sequence[PatchPair], metric: Metric, space: EdgeSpace, circuits: Sequence[Edges],
        **options: object,
    ) -> pd.DataFrame:  # fmt: skip
        self.calls += 1
        if self.stop_after is not None and self.calls > self.stop_after:
            raise KeyboardInterrupt
        self.passes += len(pairs) * len(circuits)
        none = np.zeros_like(space.allowed)
        rows = [
            (pair.name, pair.group, "d", pair.emotion, at, self._value(pair, kept), self._value(pair, space.allowed),
             self._value(pair, none), 0.0)
            for pair in pairs for at, kept in enumerate(circuits)
        ]  # fmt: skip
        columns = ["pair", "group", "domain", "emotion", "circuit", "value", "full", "none", "corrupt"]
        return pd.DataFrame(rows, columns=columns)

    def patch(
        self, model: object, pairs: Sequence[PatchPair], metric: Metric, space: EdgeSpace, names: Sequence[str],
        **options: object,
    ) -> pd.DataFrame:  # fmt: skip
        self.passes += len(pairs) * len(names)
        rows = []
        for pair in pairs:
            full = self._value(pair, space.allowed)
            for name in names:
                less = space.allowed.copy()
                less[space.index(name)] = False
                value = self._value(pair, less)
                rows.append((pair.name, pair.group, "d", pair.emotion, name, full, value, full - value))
        columns = ["pair", "group", "domain", "emotion", "edge", "full", "value", "effect"]
        return pd.DataFrame(rows, columns=columns)


def tools(fake: Fake) -> Tools:
    def select(space: EdgeSpace, scores: np.ndarray, fractions: Sequence[float]) -> dict[float, Edges]:
        return at_sizes(space, scores, fractions, "greedy")

    def randomise(space: EdgeSpace, like: Edges, n: int, *, seed: int) -> list[Edges]:
        rng, at = np.random.default_rng(seed), np.argwhere(space.allowed)
        out = []
        for _ in range(n):
            one = np.zeros_like(space.allowed)
            one[tuple(at[rng.permutation(len(at))[: int(like.sum())]].T)] = True
            out.append(one)
        return out

    return Tools(fake.values, fake.patch, select, randomise)


def additive(values: np.ndarray) -> Callable[[Edges], float]:
    return lambda kept: float(values[kept].sum())


def run(llama: LensModel, pairs: Sequence[PatchPair], fake: Fake, values: np.ndarray, **options: Any) -> Verification:
    given: dict[str, Any] = {"amounts": SMALL, "tools": tools(fake)}
    return verify(llama, scored(values), pairs, METRIC, **(given | options))


@pytest.fixture(scope="module")
def sound(llama: LensModel, held_out: list[PatchPair]) -> Verification:
    """A circuit that is the whole truth."""
    return run(llama, held_out, Fake(additive(planted(rest=0.0005)), noise=0.02), planted(rest=0.0005), amounts=FULL)


def cell(table: pd.DataFrame, row: str, column: str) -> float:
    return float(table[column].to_numpy()[list(table.index).index(row)])


def sums_of(f: Mapping[str, np.ndarray]) -> Sums:
    """Scenes of one pair whose gap is 1."""
    return Sums(
        tuple(f), np.array(list(f.values())).T.copy(), *(np.ones(len(next(iter(f.values())))) for _ in range(2))
    )


# ---- faithfulness, areas, size


def test_keeping_every_edge_is_one_and_none_is_zero(llama: LensModel, held_out: list[PatchPair]) -> None:
    fake = Fake(additive(planted()))
    circuits = {"all": SPACE.allowed, "none": np.zeros_like(SPACE.allowed), "chain": edges(*CHAIN[:2])}
    table = fake.values(llama, held_out, METRIC, SPACE, list(circuits.values()))
    sums = Sums.of(table.assign(circuit=[list(circuits)[at] for at in table["circuit"]]))
    f = sums.f(list(circuits), np.ones((1, len(sums.n))))[0]
    assert f[:2] == pytest.approx([1, 0], abs=1e-12)
    assert f[2] == pytest.approx((1 + 1.1) / (1 + 1.1 + 1.2 + 1.3 + 1.4))  # by hand
    found = sums.estimate(sums.one("all"))
    assert (found.low, found.high) == pytest.approx((1, 1))


def test_faithfulness_is_a_ratio_of_means_not_a_mean_of_ratios() -> None:
    rows = [("a", "s0", "C", 1.0, 1.0, 0.0), ("b", "s1", "C", 0.0, 3.0, 0.0)]
    sums = Sums.of(pd.DataFrame(rows, columns=["pair", "group", "circuit", "value", "full", "none"]))
    assert sums.f(["C"], np.ones((1, 2)))[0, 0] == pytest.approx(0.25)  # the mean of ratios is 0.5


def test_the_area_under_the_identity_begins_at_the_smallest_size() -> None:
    fractions = np.array([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
    f = fractions[None]
    assert cpr(fractions.tolist(), f)[0] == pytest.approx((1 - 0.001**2) / 2)
    assert cmd(fractions.tolist(), f)[0] == pytest.approx((1 - 0.001) ** 2 / 2)
    assert cpr(fractions.tolist(), np.ones((1, 10)))[0] == pytest.approx(0.999)
    assert cmd(fractions.tolist(), np.ones((1, 10)))[0] == 0


def test_f_beyond_one_adds_to_cpr_and_to_cmd() -> None:
    over = np.array([[1.0, 1.4, 1.0]])
    assert cpr([0.0, 0.5, 1.0], over)[0] == pytest.approx(1.2)
    assert cmd([0.0, 0.5, 1.0], over)[0] == pytest.approx(0.2)


def banded(value: Sequence[float], half: float = 0.0) -> Band:
    middle = np.array(value, dtype=float)
    return Band(middle, middle - half, middle + half, 2.0)


def test_a_size_that_leaves_the_band_again_does_not_count() -> None:
    fractions = (0.01, 0.1, 0.2, 0.5, 1.0)
    left_again = banded([0.9, 1.3, 0.95, 1.1, 1.0])
    assert sizing.size_at(fractions, left_again, 16).value == 0.2
    assert sizing.size_at(fractions, banded([0.9, 1.1, 0.95, 1.1, 1.0]), 16).value == 0.01
    none = sizing.size_at(fractions[:4], banded([0.9, 1.1, 0.95, 0.5]), 16)
    assert math.isinf(none.value)
    assert percent(none.value) == "none"


def test_the_interval_of_the_size_inverts_the_band() -> None:
    found = sizing.size_at((0.01, 0.1, 0.2, 0.5, 1.0), banded([0.3, 0.75, 0.85, 0.95, 1.0], half=0.1), 16)
    assert (found.low, found.value, found.high) == (0.1, 0.2, 0.5)
    nearest = sizing.to_test((0.01, 0.1, 1.0), banded([0.1, 0.7, 1.0]), 16, (0.01, 0.1))  # only the whole model stays
    assert nearest == 0.1


def of_draws(
    area: Callable[[Sequence[float], np.ndarray], np.ndarray], sums: Sums, sizes: Sequence[float], weights: np.ndarray
) -> np.ndarray:
    return area(sizes, sums.f(sums.names, weights))


@pytest.mark.parametrize("n", [16, 32])
def test_intervals_of_areas_cover_and_percentiles_do_not(n: int) -> None:
    """Close to 1, the bootstrap's |1 - f| lies above what it resamples: its interval of CMD hardly ever covers."""
    fractions, truth = [at / 10 for at in range(1, 11)], np.array([0.97] * 9 + [1.0])
    rng, runs, right = np.random.default_rng(0), 100, {"cpr": 0, "cmd": 0, "percentile": 0}
    wanted = {"cpr": float(cpr(fractions, truth[None])[0]), "cmd": float(cmd(fractions, truth[None])[0])}
    for _ in range(runs):
        gap = rng.lognormal(0, 0.6, n)
        own = rng.normal(0, 0.8, (n, 10)) * (truth < 1)  # what is a scene's own
        sums = Sums(tuple("abcdefghij"), gap[:, None] * (truth + own), gap, np.ones(n))
        whole = band([sums.one(name) for name in sums.names], n, draws=400)
        shipped = {"cpr": sums.by_jackknife(partial(of_draws, cpr, sums, fractions)),
                   "cmd": sizing.cmd_of(fractions, whole, n)}  # fmt: skip
        for name, found in shipped.items():
            right[name] += bool(found.low <= wanted[name] <= found.high)
        low, high = np.percentile(of_draws(cmd, sums, fractions, multinomial(n)), [2.5, 97.5])
        right["percentile"] += bool(low <= wanted["cmd"] <= high)
    assert right["cpr"] / runs > 0.9
    assert right["cmd"] / runs > 0.9
    assert right["percentile"] / runs < 0.7


# ---- the whole verification


def test_a_circuit_that_is_the_truth_passes_every_test(sound: Verification) -> None:
    assert sound.size.value == sound.meta["size"] == LEAST
    assert sound.estimate("f").low > 0.8
    assert sound.estimate("complement").high < 0.2
    assert sound.estimate("above_random").p == pytest.approx(1 / 40)
    assert sound.estimate("above_random").low > 0.5
    assert sound.estimate("incompleteness").value < 0.1
    chain = sound.drops[sound.drops["removed"].isin(list(CHAIN))]
    assert len(chain) == 5
    assert chain["needed"].all()
    assert not chain["superfluous"].any()
    assert not sound.summary()[0].startswith("**")


def test_predictions_are_borne_out(sound: Verification) -> None:
    assert sound.estimate("spearman").value > 0.5
    assert sound.estimate("slope").low < 1.1
    assert 0.9 < sound.estimate("slope").value < 1.1
    top = sound.edges[sound.edges["edge"].isin(list(CHAIN))]
    assert (top["p_adjusted"] < 0.01).all()
    assert not top["is_nothing"].any()
    assert (top["low"] <= top["effect"]).all()
    rest = sound.edges["weight"] * (sound.edges["chosen"] == removing.DRAWN)
    assert rest.sum() + (sound.edges["chosen"] == removing.FIRST).sum() == pytest.approx(SPACE.n_edges)


def test_passes_are_known_before(llama: LensModel, held_out: list[PatchPair]) -> None:
    fake = Fake(additive(planted(rest=0.0005)))
    amounts = replace(SMALL, patches=2, sets=1)
    found = run(llama, held_out, fake, planted(rest=0.0005), amounts=amounts)
    said = cost(len(held_out), amounts)
    less = {name: int((found.drops["kind"] == name).sum()) for name in (removing.EDGE, removing.NODE, removing.PAIR)}
    not_run = (SMALL.drops + 2 * (SMALL.drops // 2) - sum(less.values())) * len(held_out)
    each = found.values["circuit"].nunique() + amounts.patches
    assert int(said["passes"].iloc[-1]) - not_run == each * len(held_out)
    assert fake.passes < each * len(held_out)  # of so few edges some circuits are equal, and run once
    assert fake.calls == 2 * math.ceil(len(held_out) / BLOCK)  # each call runs the texts themselves anew
    assert said["passes"].iloc[:-1].sum() == said["passes"].iloc[-1]


def test_random_circuits_that_do_as_well_come_first(llama: LensModel, held_out: list[PatchPair]) -> None:
    """The metric only counts edges: any circuit of the size is as good."""
    flat = np.where(SPACE.allowed, 1.0, 0.0)
    found = run(llama, held_out, Fake(additive(flat)), flat, size=0.2)
    assert found.estimate("above_random").p == found.estimate("near_random").p == 1.0
    assert found.estimate("f").value == pytest.approx(0.2, abs=0.01)
    assert "Not told from random circuits" in found.summary()[0]


def test_a_complement_that_does_it_too_comes_first(llama: LensModel, held_out: list[PatchPair]) -> None:
    """A second way outside of the circuit, as good as the first."""
    first, second = edges(*CHAIN), edges("embedding -> L0.H3.q", "L0.H3 -> end")

    def either(kept: Edges) -> float:
        return float((kept >= first).all() or (kept >= second).all())

    found = run(llama, held_out, Fake(either), planted(rest=0.0005))
    assert found.estimate("complement").value == pytest.approx(1)
    assert "All other edges do it without the circuit" in found.summary()[0]


def test_a_gap_that_is_not_told_from_zero_is_the_finding(llama: LensModel, held_out: list[PatchPair]) -> None:
    fake = Fake(lambda kept: 0.0, noise=1.0)
    found = run(llama, held_out, fake, planted())
    assert not found.divided
    assert found.gap.low < 0 < found.gap.high
    assert math.isnan(found.cpr.value)
    assert math.isnan(found.size.value)
    assert len(found.summary()) == 1
    assert "nothing for a circuit to carry" in found.summary()[0]
    assert fake.passes == len(held_out) * 9  # the curve alone
    assert found.sections()[0].figures == []
    with pytest.raises(CircuitError, match="no faithfulness to draw"):
        found.plot()


def test_scenes_must_not_meet(llama: LensModel, held_out: list[PatchPair]) -> None:
    meeting = [replace(held_out[0], group="found3"), *held_out[1:]]
    with pytest.raises(CircuitError, match=r"1 scenes are among .* \(found3\)"):
        run(llama, meeting, Fake(additive(planted())), planted())
    with pytest.raises(CircuitError, match="no discovery scene"):
        run(llama, held_out, Fake(additive(planted())), planted(), choosing=held_out[:2])
    with pytest.raises(CircuitError, match=r"0\.3 is no size"):
        run(llama, held_out, Fake(additive(planted())), planted(), size=0.3)
    with pytest.raises(CircuitError, match="No held-out pairs"):
        run(llama, [], Fake(additive(planted())), planted())
    with pytest.raises(CircuitError, match="must rise"):
        Amounts(fractions=(0.1, 0.05))


def test_the_size_may_be_chosen_on_discovery_scenes(llama: LensModel, held_out: list[PatchPair]) -> None:
    mine = [replace(pair, group=f"found{at // 2}") for at, pair in enumerate(held_out[:20])]
    fake = Fake(additive(planted(rest=0.0005)))
    found = run(llama, held_out, fake, planted(rest=0.0005), choosing=mine)
    assert found.meta["chosen_on"] == "discovery pairs"
    assert not any("same held-out pairs" in line for line in found.summary())


def test_a_stopped_verification_goes_on(llama: LensModel, held_out: list[PatchPair], tmp_path: Path) -> None:
    truth, fresh = planted(rest=0.0005), Fake(additive(planted(rest=0.0005)))
    whole = run(llama, held_out, fresh, truth, keep=tmp_path / "whole")
    first, second, third, more = (Fake(additive(truth)) for _ in range(4))
    first.stop_after = 21  # 16 tables of the curve, then of the tests
    with pytest.raises(KeyboardInterrupt):
        run(llama, held_out, first, truth, keep=tmp_path / "kept")
    again = run(llama, held_out, second, truth, keep=tmp_path / "kept")
    assert first.passes + second.passes == fresh.passes
    pd.testing.assert_frame_equal(again.figures, whole.figures)
    damaged = next((tmp_path / "kept").glob("circuit-*.parquet"))
    damaged.write_bytes(b"no table")
    mended = run(llama, held_out, third, truth, keep=tmp_path / "kept")
    assert third.calls == 2  # the curve of these pairs, and the tests
    pd.testing.assert_frame_equal(mended.figures, whole.figures)
    run(llama, held_out, more, truth, keep=tmp_path / "kept", amounts=replace(SMALL, randoms=SMALL.randoms + 1))
    assert more.passes == 4 * len(held_out)  # a new one at the size that is tested, and at each of three others
    other = Fake(additive(truth))
    run(llama, [replace(pair, emotion="joy") for pair in held_out], other, truth, keep=tmp_path / "kept")
    assert other.passes == fresh.passes  # another question is computed anew


def test_what_is_saved_loads_equal(sound: Verification, tmp_path: Path) -> None:
    sound.save(tmp_path)
    back = Verification.load(tmp_path)
    assert back.meta == sound.meta
    assert back.summary() == sound.summary()
    pd.testing.assert_frame_equal(back.curve(), sound.curve())
    pd.testing.assert_frame_equal(back.drops, sound.drops)


def test_it_draws_and_writes_its_sections(sound: Verification) -> None:
    names = [trace["name"] for trace in sound.plot().to_dict()["data"] if "name" in trace]
    assert names[:3] == ["random circuits, 95%", "all edges but the circuit's", "circuit"]
    assert sound.plot().to_dict()["layout"]["xaxis"]["type"] == "log"
    parts = {section.title: section for section in sound.sections()}
    assert len(parts) == 7
    assert "from the smallest size on" in parts["How the circuit was verified"].methods
    assert "CPR" in sound._repr_html_()


def test_our_own_passes_and_choices_agree_with_it(llama: LensModel) -> None:
    """The engine itself on a tiny model: full is 1, a small set of edges is predicted, random circuits are drawn."""
    texts = [(f"She wept {a} {b} graves.", f"She went {a} {b} stores.") for a in "abcdefgh" for b in "xy"]
    pairs = [replace(pair, name=f"p{at}", group=f"g{at // 2}") for at, pair in enumerate(prepare(llama, texts))]
    metric = logit_difference(llama, "a", "b")
    scores = score_edges(llama, pairs[:8], metric, steps=2)
    amounts = Amounts((0.2, 1.0), randoms=4, sets=2, drops=2, references=2, patches=4, resamples=2)
    found = verify(llama, scores, pairs[8:], metric, amounts=amounts, progress=False)
    curve = found.curve().set_index("fraction")
    assert curve["f"].to_dict()[1.0] == pytest.approx(1, abs=1e-4)
    assert len(found.randoms) == 4
    assert found.estimate("spearman").value > 0
    assert any("With 4 scenes the least p" in line for line in found.summary())


# ---- minimality, completeness


def test_two_edges_that_stand_in_for_each_other_cost_nothing_alone() -> None:
    """Full 1 with either of a and b, and c besides: drops of a and of b cost 0, of both 0.6; of c 0.4."""
    plan = [removing.Drop(removing.EDGE, name, removing.ALL, EVERY > 0) for name in "abc"]
    plan += [removing.Drop(removing.PAIR, f"{a} and {b}", removing.DRAWN, EVERY > 0, (a, b)) for a, b in ("ab", "ac")]
    rng = np.random.default_rng(0)
    left = {"C": 1.0, dropped(0): 1.0, dropped(1): 1.0, dropped(2): 0.6, dropped(3): 0.4, dropped(4): 0.6}
    sums = sums_of({name: value + rng.normal(0, 0.01, 16) for name, value in left.items()})
    table = costs(sums, "C", plan).set_index("removed")
    assert table["cost"].round(1).to_dict() == {"a": 0, "b": 0, "c": 0.4, "a and b": 0.6, "a and c": 0.4}
    apart = table["interaction"].isna().to_dict()
    assert apart == {"a": True, "b": True, "c": True, "a and b": False, "a and c": False}
    assert cell(table, "a and b", "interaction_low") > 0.5
    assert cell(table, "a and c", "interaction_low") < 0 < cell(table, "a and c", "interaction_high")
    assert table["needed"].to_dict() == {"a": False, "b": False, "c": True, "a and b": True, "a and c": True}


def test_edges_that_cost_less_than_random_ones_are_superfluous() -> None:
    table = pd.DataFrame({"kind": removing.EDGE, "removed": list("ab"), "chosen": removing.ALL, "cost": [0.5, 0.01]})
    table = table.assign(p_superfluous=np.nan, p_superfluous_adjusted=np.nan, beats=np.nan)
    found = superfluous(table, np.linspace(-0.02, 0.02, 50))
    assert found["superfluous"].tolist() == [False, True]
    assert found["beats"].tolist() == pytest.approx([1, 0.5], abs=0.05)


def test_minimality_holds_its_family_wise_error() -> None:
    """Where no drop changes anything, one in twenty families has an edge called needed, at most."""
    rng, wrong, runs = np.random.default_rng(0), 0, 120
    for _ in range(runs):
        shared = rng.normal(size=16)
        f = {dropped(at): 1 + 0.1 * (rng.normal(size=16) + shared) for at in range(12)}
        wrong += bool(flipped(sums_of({"C": np.ones(16)} | f), "C", list(f), seed=1).p_adjusted.min() <= 0.05)
    assert wrong <= 12  # 5% of 120 is 6; more than 12 has probability 0.006


def test_nodes_leave_with_what_they_send() -> None:
    circuit = edges(*CHAIN)
    assert {SPACE.senders[row] for row in np.flatnonzero(on(SPACE, circuit))} == {"L0.H1", "L1.mlp_out", "L2.H2"}
    left = removing.without_nodes(circuit, [SPACE.sender["L1.mlp_out"]])
    assert (circuit & ~left == edges("L1.mlp_out -> L2.H2.q")).all()
    sets = removing.node_sets(SPACE, SPACE.allowed, 6, seed=0)
    assert [len(one) for one in sets] == sorted(len(one) for one in sets)
    assert 0 not in np.concatenate(sets)
    assert len(sets[0]) == 1


def test_inflated_circuits_hold_a_whole_path_more_and_less_one_edge_of_it() -> None:
    circuit = edges(*CHAIN)
    assert (SPACE.connected(circuit) == circuit).all()
    for more, less in removing.inflated(SPACE, circuit, 20):
        assert (more >= circuit).all()
        assert (SPACE.connected(more) == more).all()
        assert (more & ~less).sum() == 1
        assert not (more & ~less & circuit).any()


# ---- stability, prediction


def test_selections_are_stable_where_scores_are_and_not_where_they_are_noise() -> None:
    def select(scores: np.ndarray) -> Edges:
        return at_sizes(SPACE, scores, (0.05,))[0.05]

    tables = {}
    for name, scores in (("true", scored(planted(), noise=0.01)), ("noise", scored(planted(0.0), noise=1.0))):
        circuit = select(scores.mean())
        randoms = [select(np.random.default_rng(at).normal(size=SPACE.allowed.shape)) for at in range(10)]
        tables[name] = stability(scores, select, circuit, randoms, resamples=10).set_index("kind")
    assert cell(tables["true"], "halves", "nodes") > 0.3
    assert cell(tables["true"], "halves", "edges_low") > cell(tables["true"], "random circuits", "edges_high")
    assert cell(tables["noise"], "halves", "edges") < 0.2
    assert cell(tables["noise"], "bootstrap", "edges") > cell(tables["noise"], "halves", "edges")
    alone = scored(planted())
    alone = EdgeScores(alone.space, alone.values, alone.pairs.assign(domain="one"), alone.meta)
    table = stability(alone, select, select(alone.mean()), [], resamples=0).set_index("kind")
    assert table["note"].to_dict()["one domain"] == "not applicable: one domain alone"


def test_an_estimate_that_predicts_nothing_is_seen_as_such() -> None:
    rng = np.random.default_rng(0)
    names = [f"e{at}" for at in range(20)]
    table = pd.DataFrame({"edge": names, "chosen": [removing.FIRST] * 10 + [removing.DRAWN] * 10,
                          "weight": [1.0] * 10 + [50.0] * 10,
                          "estimate": [1.0 + at / 10 for at in range(10)] + [0.0] * 10})  # fmt: skip
    effects = pd.DataFrame([(f"p{s}", f"s{s}", name, -0.5 * (1 + at / 10) * (at < 10) + 0.001 * rng.normal())
                            for s in range(16) for at, name in enumerate(names)],
                           columns=["pair", "group", "edge", "effect"])  # fmt: skip
    found = predicting.compared(table, effects, gap=5.0)
    figures = predicting.agreement(found, effects)
    assert figures["spearman"].high < -0.9
    assert figures["sign"].value == 0
    assert figures["slope"].value == pytest.approx(-0.5, abs=0.01)
    assert figures["nothing"].value == 1
    assert figures["nothing"].n == 10
    assert (found["p_adjusted"][:10] < 0.01).all()
