"""Effects, controls and intervals of a sweep, on tables whose truth is planted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from affectlens.errors import PatchError
from affectlens.patching.effects import CELL, baselines, beside, effects
from affectlens.patching.results import PatchSweep, agreement
from affectlens.stats import Statistic, estimate, sign_flips

SOURCES = ("matched", "random", "neutral", "wrong_position")


def planted(
    truth: Mapping[str, np.ndarray], *, groups: int = 40, per: int = 1, noise: float = 0.3, seed: int = 0,
    direction: str = "denoise", gap: float = 2.0, shared: float = 0.0, metric: str = "m",
) -> pd.DataFrame:  # fmt: skip
    """A table in which each source carries a share ``truth[source][cell]`` of the gap; a cell a layer."""
    rng = np.random.default_rng(seed)
    n, n_cells = groups * per, len(next(iter(truth.values())))
    group = np.arange(n) // per
    corrupt, gaps = rng.normal(size=n), gap + rng.normal(0, 0.5, n)
    pair, cell = np.repeat(np.arange(n), n_cells), np.tile(np.arange(n_cells), n)
    parts = []
    for source, share in truth.items():
        own = noise * rng.normal(size=(n, n_cells)) + shared * rng.normal(size=(groups, n_cells))[group]
        change = (gaps[:, None] * share + own).ravel()
        value = corrupt[pair] + (change if direction == "denoise" else gaps[pair] - change)
        parts.append(pd.DataFrame({
            "pair": [f"p{i}" for i in pair], "group": [f"g{i}" for i in group[pair]], "contrast": "emotional/neutral",
            "emotion": "fear", "metric": metric, "source": source, "kind": "resid_pre", "layer": cell, "index": -1,
            "segment": "last", "position": -1, "clean": (corrupt + gaps)[pair], "corrupt": corrupt[pair],
            "value": value,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def changed(rows: pd.DataFrame, **facts: Any) -> pd.DataFrame:
    """Rows with other facts: cells of another kind, segment, and so on."""
    return rows.assign(**facts)


def sweep_of(table: pd.DataFrame, **meta: object) -> PatchSweep:
    names = table["pair"].unique()
    groups = table.drop_duplicates("pair")["group"].to_numpy()
    tokens = [["The", " cat", " saw", " the", " cat"]] * len(names)
    pairs = pd.DataFrame({"pair": names, "group": groups, "tokens": tokens, "segments": json.dumps({"last": [4]})})
    metrics = {metric: {"unit": "nats"} for metric in table["metric"].unique()}
    facts = {"direction": "denoise", "model": "planted", "metrics": metrics, "seed": 0, "refused": [],
             "n_pairs": len(names)}  # fmt: skip
    return PatchSweep(table, pairs, facts | meta)


def drawn(fig: Any) -> Any:
    """A figure, whose traces plotly builds at run time."""
    return fig


def ratio(change: np.ndarray, gap: np.ndarray, group: np.ndarray) -> Statistic:
    """The effect as affectlens.stats.estimate takes it."""
    member = (group == np.unique(group)[:, None]).astype(float)
    return lambda weights: (weights @ (member @ change)) / (weights @ (member @ gap))


def hand() -> pd.DataFrame:
    """Three pairs in three groups, gaps 1, 2 and 3, changes 1, 0 and 2."""
    rows = [("a", 1.0, 0.0, 1.0), ("b", 3.0, 1.0, 1.0), ("c", 2.0, -1.0, 1.0)]
    table = pd.DataFrame(rows, columns=["pair", "clean", "corrupt", "value"])
    return table.assign(group=table["pair"], contrast="x", emotion=None, metric="m", source="matched", kind="mlp_out",
                        layer=0, index=-1, segment="last", position=-1)  # fmt: skip


def test_an_effect_is_a_ratio_of_means() -> None:
    found = effects(hand(), "denoise").iloc[0]
    assert found["change"] == pytest.approx(1.0)
    base = baselines(hand()).iloc[0]
    assert (base["clean"], base["corrupt"], base["gap"]) == pytest.approx((2.0, 0.0, 2.0))
    # jackknife of the mean gap: error 0.577, t 4.30, so its interval holds zero and nothing is divided
    assert (base["gap_low"], base["gap_high"]) == pytest.approx((2 - 4.3027 * 3**-0.5, 2 + 4.3027 * 3**-0.5), rel=1e-4)
    assert not base["tells"]
    assert not found["normalised"]
    wider = pd.concat([hand().assign(pair=hand()["pair"] + str(i), group=hand()["pair"] + str(i)) for i in range(3)])
    divided = effects(wider, "denoise").iloc[0]
    assert divided["normalised"]
    assert divided["value"] == pytest.approx(3 / 6)  # (1 + 0 + 2) / (1 + 2 + 3); the mean of ratios is 0.556
    assert effects(wider, "noise").iloc[0]["value"] == pytest.approx((0 + 2 + 1) / 6)


@pytest.mark.parametrize("groups", [12, 40])
def test_intervals_are_those_of_stats_estimate(groups: int) -> None:
    truth = {"matched": np.array([0.0, 0.4, 0.9]), "random": np.array([0.1, 0.1, 0.1])}
    table = planted(truth, groups=groups, per=2, noise=0.5, seed=2)
    gone = (table["layer"] == 1) & table["pair"].isin([f"p{i}" for i in (0, 3, 4, 5)])  # p4, p5 are a whole group
    table = table[~gone].sample(frac=1, random_state=3).reset_index(drop=True)
    found = effects(table, "denoise", seed=7)
    for row in found.to_dict("records"):
        cell = table[(table["source"] == row["source"]) & (table["layer"] == row["layer"])]
        cell = cell.set_index("pair").loc[[p for p in table["pair"].drop_duplicates() if p in set(cell["pair"])]]
        order = cell["group"].map({g: i for i, g in enumerate(table["group"].drop_duplicates())}).to_numpy()
        change, gap = ((cell[a] - cell["corrupt"]).to_numpy() for a in ("value", "clean"))
        want = estimate(ratio(change, gap, order), len(set(order)), "group", seed=7, bounds=None)
        assert (row["value"], row["low"], row["high"]) == pytest.approx((want.value, want.low, want.high), rel=1e-9)
        assert (row["n"], row["method"], row["unit"]) == (want.n, want.method, want.unit)
        assert row["pairs"] == len(cell)
    assert set(found.loc[found["layer"] == 1, "n"]) == {groups - 1}


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_planted_effects_are_recovered_in_both_directions(direction: str) -> None:
    truth = {"matched": np.array([0.0, 0.5, 1.0, -0.3])}
    found = effects(planted(truth, groups=60, direction=direction), direction)
    error = (found["high"] - found["low"]) / 4
    assert (((found["value"] - truth["matched"]) / error).abs() < 4).all()
    assert (error < 0.04).all()
    assert list(found["p_adjusted"] <= 0.05) == [False, True, True, True]
    wrong = effects(planted(truth, groups=60, direction=direction), "noise" if direction == "denoise" else "denoise")
    np.testing.assert_allclose(wrong["value"], 1 - found["value"])


def test_rows_may_come_in_any_order_and_a_metric_in_any_unit() -> None:
    table = planted({"matched": np.array([0.2, 0.6]), "random": np.array([0.1, 0.0])}, groups=20, per=2, seed=4)
    scaled = table.assign(**{name: -3 * table[name] + 5 for name in ("clean", "corrupt", "value")})
    numbers = ["value", "low", "high", "p", "p_adjusted", "detectable"]
    want = effects(table, "denoise")
    pd.testing.assert_frame_equal(effects(scaled, "denoise")[numbers], want[numbers], rtol=1e-6)
    for other in (table.iloc[::-1], scaled.sample(frac=1, random_state=0)):
        found = effects(other, "denoise").set_index(["source", *CELL]).loc[want.set_index(["source", *CELL]).index]
        np.testing.assert_allclose(found[["value", "low", "high"]], want[["value", "low", "high"]], rtol=1e-6)
        specific = beside(other, "denoise").sort_values([*CELL, "control"])["specific"]
        assert list(specific) == list(beside(table, "denoise").sort_values([*CELL, "control"])["specific"])


def test_p_is_that_of_sign_flips_of_group_sums() -> None:
    table = planted({"matched": np.array([0.0, 0.1, 0.3])}, groups=10, per=3, noise=0.8, seed=5)
    found = effects(table, "denoise")
    sums = (table["value"] - table["corrupt"]).groupby([table["group"], table["layer"]], sort=False).sum().unstack()
    want = sign_flips(sums.to_numpy())
    np.testing.assert_allclose(found["p"], want.p)
    np.testing.assert_allclose(found["p_adjusted"], want.p_adjusted)
    assert (found["attainable"] == 2 / 2**10).all()


def test_tokens_are_averaged_within_a_pair_before_pairs_are() -> None:
    """One pair has three tokens and one has one: pairs count alike, tokens don't."""
    base = pd.concat([hand().assign(pair=hand()["pair"] + str(i), group=hand()["pair"] + str(i)) for i in range(4)])
    long = [base.assign(position=at, value=base["value"] + at - 7) for at in (6, 7, 8)]
    rows = pd.concat([*(part[part["pair"].str.startswith("a")] for part in long),
                      base[~base["pair"].str.startswith("a")].assign(position=3), base])  # fmt: skip
    found = effects(rows, "denoise").set_index("extent")
    assert list(found.index) == ["segment", "token"]
    assert found.at["token", "value"] == pytest.approx(found.at["segment", "value"]) == pytest.approx(0.5)
    assert found.at["token", "pairs"] == 12


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_pair_with_equal_baselines_is_left_out_whatever_is_patched(scale: float) -> None:
    table = planted({"matched": np.array([0.5, 0.5])}, groups=20, seed=6)
    columns = ["clean", "corrupt", "value"]
    table[columns] *= scale
    want = effects(table[~table["pair"].isin(["p0", "p1"])], "denoise")
    flat = table["pair"].isin(["p0", "p1"])
    table.loc[flat, "clean"] = table.loc[flat, "corrupt"] + 1e-7 * scale
    table.loc[flat, "value"] = 1e9 * scale  # what was patched has no say
    found = effects(table, "denoise")
    np.testing.assert_allclose(found[["value", "low", "high"]], want[["value", "low", "high"]], rtol=1e-6)
    base = baselines(table).iloc[0]
    assert (base["pairs"], base["left_out"], base["share"]) == (18, 2, 0.1)
    assert "2 of 20 pairs (10%)" in " ".join(sweep_of(table).summary())


def test_a_metric_that_does_not_tell_is_not_divided() -> None:
    rng = np.random.default_rng(8)
    table = planted({"matched": np.array([0.0, 0.0]), "random": np.zeros(2)}, groups=40, seed=8)
    gap = dict(zip(table["pair"].unique(), rng.normal(0, 1, 40), strict=True))
    table["clean"] = table["corrupt"] + table["pair"].map(gap)
    table.loc[table["layer"] == 1, "value"] += 1.5
    found = effects(table, "denoise")
    assert not baselines(table)["tells"].iloc[0]
    assert not found["normalised"].any()
    np.testing.assert_allclose(found["value"], found["change"])
    assert sweep_of(table).at(layer=1).value == pytest.approx(1.5, abs=0.2)
    assert not beside(table, "denoise")["specific"].any()
    said = sweep_of(table).summary()
    assert said[0].startswith("**m does not tell clean from corrupt texts**")
    assert "nothing is claimed" in said[1]
    assert "nats" in sweep_of(table).at(layer=1).method


def test_cells_of_pairs_without_a_gap_are_not_divided() -> None:
    """The metric tells over all pairs, but three of them alone can't say so."""
    table = planted({"matched": np.array([0.5, 0.5])}, groups=40, gap=1.0, seed=9)
    few = table["pair"].isin(["p0", "p1", "p2"])
    table.loc[few, "clean"] = table.loc[few, "corrupt"] + table.loc[few, "pair"].map({"p0": 1.0, "p1": -1.0, "p2": 0.1})
    table = table[(table["layer"] == 0) | few]
    found = effects(table, "denoise").sort_values("layer")
    assert list(found["normalised"]) == [True, False]
    assert found["value"].iloc[1] == found["change"].iloc[1]
    heat = drawn(sweep_of(table).plot()).data[0]
    assert heat.z[0][0] == found["value"].iloc[0]
    assert np.isnan(heat.z[1][0])
    assert "not divided by the gap" in heat.customdata[1][0]


def test_groups_are_resampled_together() -> None:
    table = planted({"matched": np.array([0.5])}, groups=40, per=4, noise=0.2, shared=0.8, seed=10)
    together = effects(table, "denoise").iloc[0]
    apart = effects(table.assign(group=table["pair"]), "denoise").iloc[0]
    assert together["n"] == 40
    assert apart["n"] == 160
    assert together["high"] - together["low"] > 1.6 * (apart["high"] - apart["low"])


@pytest.mark.parametrize("groups", [10, 40])
def test_intervals_cover_as_often_as_they_say(groups: int) -> None:
    truth, hits = np.full(8, 0.6), 0
    for seed in range(60):
        table = planted({"matched": truth}, groups=groups, per=2, noise=0.3, shared=0.3, seed=seed)
        found = effects(table, "denoise", seed=seed)
        hits += int((found["low"] <= 0.6).sum() - (found["high"] < 0.6).sum())
    assert 0.91 <= hits / 480 <= 0.985


def test_no_cell_is_found_in_noise_more_often_than_said() -> None:
    runs, any_found = 200, 0
    for seed in range(runs):
        found = effects(planted({"matched": np.zeros(8)}, groups=10, noise=1.0, seed=seed), "denoise")
        any_found += bool((found["p_adjusted"] <= 0.05).any())
    assert stats.binomtest(any_found, runs, 0.05).pvalue > 0.001


def test_no_cell_is_called_specific_more_often_than_said() -> None:
    """Matched carries the gap everywhere, and in every cell one control does as much: which one differs."""
    even = np.tile([0.6, 0.0], 6)
    truth = {"matched": np.full(12, 0.6), "random": even, "neutral": 0.6 - even}
    runs, wrong = 200, 0
    for seed in range(runs):
        found = beside(planted(truth, groups=10, noise=0.15, seed=seed), "denoise")
        wrong += bool(found["specific"].any())
        assert (found.groupby(CELL)["specific"].nunique() == 1).all()
    assert stats.binomtest(wrong, runs, 0.05, alternative="greater").pvalue > 0.001


def test_what_beats_every_null_control_is_specific_and_nothing_else() -> None:
    truth = {
        "matched": np.array([0.6, 0.6, 0.6, 0.6, 0.0, 0.6, 0.3, -0.6]),
        "random": np.array([0.0, 0.6, 0.0, 0.0, -0.6, 0.0, 0.9, -0.2]),
        "neutral": np.array([0.0, 0.0, 0.6, 0.0, -0.6, 0.0, 0.9, -0.2]),
        "wrong_position": np.array([0.0, 0.0, 0.0, 0.6, -0.6, 0.0, 0.9, -0.2]),
        "same_emotion": np.array([0.6, 0.0, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0]),  # no null: it may do as much, or more
    }
    found = beside(planted(truth, groups=40, noise=0.2), "denoise")
    cells = found[found["control"] == "nothing"].sort_values("layer")
    assert list(cells["specific"]) == [True, False, False, False, False, True, False, False]
    for control, share in truth.items():
        less = found[found["control"] == control].sort_values("layer")
        if control != "matched":
            np.testing.assert_allclose(less["value"], truth["matched"] - share, atol=0.08)
            assert (less["null"] == (control != "same_emotion")).all()


def test_differences_are_paired() -> None:
    """What a pair's own text and a control share cancels: the interval is narrower than either effect's."""
    table = planted({"matched": np.array([0.6]), "random": np.array([0.3])}, groups=40, noise=0.01, seed=11)
    shift = dict(zip(table["pair"].unique(), np.random.default_rng(11).normal(0, 2, 40), strict=True))
    table["value"] += table["pair"].map(shift)
    less = beside(table, "denoise").query("control == 'random'").to_dict("records")[0]
    alone = effects(table, "denoise").query("source == 'matched'").to_dict("records")[0]
    assert less["high"] - less["low"] < 0.1 * (alone["high"] - alone["low"])
    assert less["value"] == pytest.approx(0.3, abs=0.02)


def test_null_controls_follow_the_direction() -> None:
    """A neutral text removes the emotion as the corrupt one does: in noise it is no null, the same emotion is."""
    truth = {"matched": np.full(2, 0.6), "neutral": np.full(2, 0.6), "same_emotion": np.array([0.0, 0.6])}
    noise = beside(planted(truth, direction="noise", noise=0.1), "noise")
    assert list(noise[noise["control"] == "nothing"]["specific"]) == [True, False]
    assert not beside(planted(truth, noise=0.1), "denoise")["specific"].any()
    asked = beside(planted(truth, noise=0.1), "denoise", nulls=("same_emotion",))
    assert list(asked[asked["control"] == "nothing"]["specific"]) == [True, False]


def test_without_a_null_control_nothing_is_specific() -> None:
    alone = planted({"matched": np.full(2, 0.6), "same_emotion": np.zeros(2)}, noise=0.1)
    assert not beside(alone, "denoise")["specific"].any()
    assert any("no null control was run" in line for line in sweep_of(alone).summary())
    table = planted({"matched": np.full(2, 0.6), "random": np.zeros(2), "neutral": np.zeros(2)}, noise=0.1)
    lacking = table[(table["source"] != "neutral") | (table["layer"] == 0)]
    found = beside(lacking, "denoise")
    assert list(found[found["control"] == "nothing"]["specific"]) == [True, False]
    with pytest.raises(PatchError, match="own texts were not patched in"):
        beside(table[table["source"] != "matched"], "denoise")


def test_changes_within_rounding_are_none() -> None:
    """The arithmetic's bias has one sign in all groups; a test of it would find everything."""
    table = planted({"matched": np.array([0.0, 0.5])}, groups=20, noise=0.0, seed=12)
    table.loc[table["layer"] == 0, "value"] += 1e-7
    found = effects(table, "denoise").sort_values("layer")
    assert list(found["value"]) == pytest.approx([0.0, 0.5])
    assert found["p"].iloc[0] == 1.0
    assert found["p_adjusted"].iloc[1] < 0.05


def test_a_value_that_is_not_finite_is_refused() -> None:
    table = planted({"matched": np.array([0.5])}, groups=20)
    table.loc[3, "value"] = np.nan
    with pytest.raises(PatchError, match="m is not finite with L0.resid_pre of p3 patched"):
        effects(table, "denoise")
    with pytest.raises(PatchError, match="no direction 'both'"):
        effects(table, "both")
    with pytest.raises(PatchError, match="No pair's baselines differ"):
        effects(table.assign(clean=table["corrupt"]), "denoise")


def test_effects_of_the_detectable_size_are_mostly_found() -> None:
    """With 80% power or more, as the correction that is counted on is stricter than max-T."""
    size = effects(planted({"matched": np.zeros(5)}, groups=24, noise=1.0, seed=13), "denoise")["detectable"].median()
    found = [effects(planted({"matched": np.array([size, 0, 0, 0, 0])}, groups=24, noise=1.0, seed=seed), "denoise")
             for seed in range(60)]  # fmt: skip
    share = np.mean([one["p_adjusted"].iloc[0] <= 0.05 for one in found])
    assert 0.68 <= share <= 0.97
    few = sweep_of(planted({"matched": np.array([0.5])}, groups=5, noise=0.1))
    assert np.isinf(few.effects()["detectable"]).all()
    assert any("5 groups can't give an adjusted p" in line for line in few.summary())


def test_both_directions_are_compared_cell_by_cell() -> None:
    share = np.array([0.0, 0.2, 0.5, 0.8, 0.9])
    denoise = planted({"matched": share}, groups=40, noise=0.2, seed=14)
    noise = planted({"matched": share - np.array([0, 0, 0, 0, 0.5])}, groups=40, noise=0.2, seed=14, direction="noise")
    alone = changed(denoise[denoise["layer"] == 0], kind="mlp_out")
    found = agreement(pd.concat([denoise, alone]), noise.sample(frac=1, random_state=0))
    cells = found.cells.sort_values("layer")
    assert len(cells) == 5
    np.testing.assert_allclose(cells["denoise"], share, atol=0.06)
    np.testing.assert_allclose(cells["difference"], [0, 0, 0, 0, 0.5], atol=0.1)
    assert cells["p_adjusted"].iloc[4] <= 0.05
    want: Any = stats.spearmanr(cells["denoise"], cells["noise"])
    rho = found.rho["m"]
    assert rho.value == pytest.approx(want.statistic)
    assert -1 <= rho.low <= rho.value <= rho.high <= 1
    for name, table, way in (("denoise", denoise, "denoise"), ("noise", noise, "noise")):
        by_itself = effects(table, way).sort_values("layer")
        np.testing.assert_allclose(cells[[f"{name}_low", f"{name}_high"]], by_itself[["low", "high"]])


def test_both_directions_are_of_the_same_pairs() -> None:
    """A pair that has a cell in one direction alone has no part in the comparison."""
    share = np.array([0.2, 0.5, 0.8])
    denoise = planted({"matched": share}, groups=40, noise=0.5, seed=15)
    noise = planted({"matched": share / 2}, groups=40, noise=0.5, seed=15, direction="noise")
    few = [f"p{i}" for i in range(12)]
    cells = agreement(denoise, noise[~noise["pair"].isin(few) | (noise["layer"] > 0)]).cells
    want = effects(denoise[~denoise["pair"].isin(few)], "denoise")
    assert list(cells["pairs"]) == [28, 40, 40]
    assert cells["denoise"].iloc[0] == pytest.approx(want["value"].iloc[0])
    np.testing.assert_allclose(cells["denoise"] - cells["noise"], cells["difference"])
    assert (cells["difference"] > 0.05).all()


def test_sweeps_of_other_baselines_or_cells_are_not_compared() -> None:
    one = planted({"matched": np.array([0.1, 0.5])}, groups=40)
    with pytest.raises(PatchError, match="other baselines"):
        agreement(one, planted({"matched": np.array([0.1, 0.5])}, groups=40, seed=1, direction="noise"))
    with pytest.raises(PatchError, match="share no cell"):
        agreement(one, changed(planted({"matched": np.array([0.1, 0.5])}, groups=40, direction="noise"), kind="z"))


def heads(seed: int = 0) -> pd.DataFrame:
    """Two layers of three heads at two segments; head L1.H1 carries the gap, and of L0.H0 a control does the same."""
    parts = []
    for segment in ("all", "changed"):
        for head in range(3):
            own = np.array([0.5 * (head == 0), 0.6 * (head == 1)])
            random = np.array([0.5 * (head == 0), 0.0])
            part = planted({"matched": own, "random": random}, groups=40, noise=0.15, seed=seed)
            parts.append(changed(part, kind="z", index=head, segment=segment))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(value=table["value"] + 0.15 * np.random.default_rng(seed).normal(size=len(table)))


def stream(**facts: Any) -> pd.DataFrame:
    """Three layers at two segments, every control run."""
    rising, flat = np.array([0.1, 0.5, 0.9]), np.zeros(3)
    parts = []
    for number, (segment, share) in enumerate((("last", rising), ("changed", rising[::-1]))):
        truth = {"matched": share} | dict.fromkeys(SOURCES[1:], flat + 0.1 * number)
        parts.append(changed(planted(truth, groups=40, noise=0.1, seed=21, **facts), segment=segment))
    return pd.concat(parts, ignore_index=True)


def test_one_effect_is_asked_for_by_what_tells_it_apart() -> None:
    sweep = sweep_of(stream())
    found = sweep.at(layer=2, segment="last")
    row = sweep.effects(source="matched").query("layer == 2 and segment == 'last'").iloc[0]
    assert (found.value, found.low, found.high, found.n, found.unit) == (
        row["value"],
        row["low"],
        row["high"],
        40,
        "group",
    )
    assert (found.p, found.p_adjusted) == (row["p"], row["p_adjusted"])
    control = sweep.at(layer=2, segment="last", source="random")
    assert control.p is None
    assert control.value == pytest.approx(0.0, abs=0.05)
    with pytest.raises(PatchError, match=r"names 6 cells: say which layer \(0, 1, 2\), segment \(changed, last\)"):
        sweep.at()
    with pytest.raises(PatchError, match="no kind 'z' there; there is resid_pre"):
        sweep.at(kind="z", layer=0)
    with pytest.raises(PatchError, match="no layer 9 there; there is 0, 1, 2"):
        sweep.at(layer=9)


def test_the_first_cells_are_specific_and_not_those_that_must_carry_all() -> None:
    table = stream()
    whole = changed(table[(table["layer"] == 2) & (table["segment"] == "last")], layer=3)
    whole = whole.assign(value=np.where(whole["source"] == "matched", whole["clean"], whole["value"]))
    sweep = sweep_of(pd.concat([table, whole], ignore_index=True))
    complete = sweep.effects(source="matched").query("complete")
    assert list(complete["layer"]) == [3]
    assert complete["value"].iloc[0] == pytest.approx(1.0)
    top = sweep.top(2)
    assert set(zip(top["layer"], top["segment"], strict=True)) == {(2, "last"), (0, "changed")}
    assert top["specific"].all()
    assert any(line.startswith("1 more cells carry the whole gap") for line in sweep.summary())


def test_a_summary_starts_with_the_baselines_and_names_the_controls() -> None:
    sweep = sweep_of(stream(), refused=["p9 has no cue after the first difference"])
    said = sweep.summary()
    assert said[0].startswith("Unpatched, m is ")
    assert "nats over 40 pairs in 40 groups. No pair left out" in said[0]
    assert said[1].startswith(
        "**6 of 6 cells restore some of the gap** (p at most 0.05 by sign flips, max-T over 6 cells"
    )
    best = sweep.top(1).iloc[0]
    assert f"`L{best['layer']}.resid_pre` at `{best['segment']}` restores {best['value']:.2f} [" in said[2]
    for control in ("a random text", "a neutral text", "another position"):
        at = sweep.at(layer=int(best["layer"]), segment=best["segment"], source="random")
        assert control in said[2]
        assert f"a random text {at}" in said[2]
    assert "With 80% power, corrected over 6 cells" in said[3]
    assert said[4] == "Not patched: p9 has no cue after the first difference."
    assert "remove some of the gap" in sweep_of(stream(direction="noise"), direction="noise").summary()[1]


def test_what_controls_undo_is_said_first() -> None:
    truth = {"matched": np.array([0.5, 0.6]), "random": np.zeros(2), "neutral": np.array([0.5, 0.6])}
    table = planted(truth, noise=0.2)
    other = planted({"matched": np.array([0.5, 0.6]), "random": np.zeros(2)}, noise=0.2, metric="second")
    said = sweep_of(pd.concat([other, table], ignore_index=True)).summary()
    assert said[0].startswith("**Controls undo the finding in m**: 2 of 2 cells restore some of the gap, but none")
    assert not any("finding in second" in line for line in said)
    assert said[1].startswith("Unpatched, second is ")


def test_a_sweep_survives_its_folder(tmp_path: Path) -> None:
    sweep = sweep_of(stream().assign(emotion=None))
    sweep.save(tmp_path)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "pairs.parquet",
        "sweep.json",
        "sweep.parquet",
    ]
    back = PatchSweep.load(tmp_path)
    pd.testing.assert_frame_equal(back.table, sweep.table, check_dtype=False)
    pd.testing.assert_frame_equal(back.pairs, sweep.pairs)
    assert isinstance(back.pairs["tokens"].iloc[0], list)
    assert back.meta == sweep.meta
    assert back.summary() == sweep.summary()
    (tmp_path / "results" / "sweep.parquet").write_bytes(b"no parquet")
    with pytest.raises(PatchError, match="is damaged"):
        PatchSweep.load(tmp_path)
    with pytest.raises(PatchError, match="no finished sweep"):
        PatchSweep.load(tmp_path / "elsewhere")


def test_a_sweep_shows_itself() -> None:
    sweep = sweep_of(stream())
    assert repr(sweep) == (
        "PatchSweep(denoise on planted: 40 pairs, 6 cells; from matched, random, neutral, wrong_position)"
    )
    shown = sweep._repr_html_()
    assert shown.startswith("<p>Unpatched, m is ")
    assert "<table" in shown
    assert sweep.effects() is not sweep.effects()
    assert sweep._effects is sweep._effects


def test_the_map_of_segments_holds_the_tables_numbers() -> None:
    sweep = sweep_of(stream())
    heat = drawn(sweep.plot()).data[0]
    assert (list(heat.x), list(heat.y)) == (["changed", "last"], [0, 1, 2])
    for row, layer in enumerate(heat.y):
        for column, segment in enumerate(heat.x):
            at = sweep.at(layer=layer, segment=segment)
            assert heat.z[row][column] == at.value
            assert str(at) in heat.customdata[row][column]
            assert (
                f"a random text: {sweep.at(layer=layer, segment=segment, source='random')}"
                in heat.customdata[row][column]
            )
    assert (heat.zmid, heat.zmin) == (0, -heat.zmax)
    assert heat.zmax >= 1
    control = drawn(sweep.plot(source="neutral")).data[0]
    assert control.z[0][1] == sweep.at(layer=0, segment="last", source="neutral").value
    assert "p < 0.001" in heat.customdata[2][1]


def test_heads_that_survive_are_outlined() -> None:
    sweep = sweep_of(heads())
    fig = drawn(sweep.plot_heads())
    heat = fig.data[0]
    assert (list(heat.x), list(heat.y)) == ([0, 1, 2], [0, 1])
    assert heat.z[1][1] == sweep.at(layer=1, index=1, segment="all").value
    outlined = {((s.y0 + s.y1) / 2, (s.x0 + s.x1) / 2): s.line.dash for s in fig.layout.shapes}
    assert outlined == {(0, 0): "dot", (1, 1): "solid"}  # head 0 of layer 0 does no more than its control
    assert "at changed" in drawn(sweep.plot_heads(segment="changed")).layout.title.text
    with pytest.raises(PatchError, match="No head was patched by itself"):
        sweep_of(stream()).plot_heads()


def test_depth_has_a_line_a_source() -> None:
    sweep = sweep_of(stream())
    fig = drawn(sweep.plot_depth(segment="changed"))
    assert {line.mode for line in fig.data} == {"lines"}  # else plotly marks the corners of bands over few layers
    lines = {line.name: line for line in fig.data if line.name}
    assert set(lines) == {"the pair's other text", "a random text", "a neutral text", "another position", "nothing",
                          "the whole gap"}  # fmt: skip
    for name, source in (("the pair's other text", "matched"), ("a neutral text", "neutral")):
        want = [sweep.at(layer=layer, segment="changed", source=source).value for layer in range(3)]
        np.testing.assert_allclose(lines[name].y, want)
    assert "pointwise 95% intervals" in fig.layout.title.text
    with pytest.raises(PatchError, match="Nothing was patched at 'cue'; there is changed, last"):
        sweep.plot_depth(segment="cue")


def test_the_map_of_tokens_shows_one_pair_where_words_recur() -> None:
    base = planted({"matched": np.array([0.2, 0.8])}, groups=40, noise=0.1, seed=31)
    table = pd.concat([base, *(changed(base, position=at, value=base["corrupt"] + 0.1 * at) for at in (1, 3, 4))])
    sweep = sweep_of(table)
    fig = drawn(sweep.plot_tokens("p3"))
    heat, gap = fig.data[0], (base["clean"] - base["corrupt"])[base["pair"] == "p3"].iloc[0]
    assert list(heat.x) == [1, 3, 4]
    assert list(fig.layout.xaxis.ticktext) == ["cat", "the", "cat"]
    np.testing.assert_allclose(heat.z, np.tile([0.1, 0.3, 0.4], (2, 1)) / gap)
    with pytest.raises(PatchError, match="tokens of p3 were not patched one by one"):
        sweep_of(base).plot_tokens("p3")
    with pytest.raises(PatchError, match="no pair 'p99'"):
        sweep.plot_tokens("p99")
