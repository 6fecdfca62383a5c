"""Reading, using, features, steering and circuits joined: planted answers, honest doubt, errors under no effect."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from affectlens.circuits.agreeing import AgreementReport, ByLayer, agree, circuit_by_layer, find_runs, read_by_emotion
from affectlens.circuits.agreeing.carrying import circuit_marks
from affectlens.circuits.agreeing.marks import NO, NOT_MEASURED, QUESTIONS, UNDECIDED, YES, across, decided
from affectlens.circuits.agreeing.reading import max_t
from affectlens.circuits.agreeing.using import causal_marks, place
from affectlens.circuits.agreeing.words import UNREAD, UNUSED, headline, where
from affectlens.circuits.scoring import EdgeScores
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.errors import BatteryError, CircuitError, PatchError, RunError
from affectlens.patching.results import PatchSweep
from affectlens.probing.features.report import FeatureReport
from affectlens.report import write
from affectlens.stats import band, jackknife
from affectlens.steering.evaluating.result import SteeringReport, report_on
from tests.conftest import activations, battery_frame
from tests.test_steering_report import World

MODEL, BATTERY = "f" * 32, "b" * 64
META = {"model": "planted", "fingerprint": MODEL, "battery": "planted", "battery_sha256": BATTERY}
EMOTIONS = ("joy", "fear", "anger")
Levels = Mapping[tuple[int, str], float]


def reading(values: Levels, *, layers: int = 4, error: float = 0.02) -> ByLayer:
    """A reading whose differences are given; 0 elsewhere."""
    rows = []
    for layer in range(layers):
        for emotion in EMOTIONS:
            value = values.get((layer, emotion), 0.0)
            rows.append({"layer": layer, "emotion": emotion, "score": 0.6 + value, "value": value,
                         "low": value - 2 * error, "high": value + 2 * error, "control": "TF-IDF words",
                         "p_adjusted": 0.001 if value > 3 * error else 1.0, "n": 96, "undone": False,
                         "why": "planted"})  # fmt: skip
    return ByLayer("read", pd.DataFrame(rows), META | {"site": "resid_post", "position": "mean", "skipped": {}})


def sweep(
    values: Levels, *, layers: int = 4, pairs: int = 24, noise: float = 0.05, control: Levels | None = None,
    kind: str = "resid_pre", seed: int = 0, sources: tuple[str, ...] = ("matched", "random", "wrong_position"),
    emotions: tuple[str, ...] = EMOTIONS, gap: float = 2.0,
) -> PatchSweep:  # fmt: skip
    """A sweep in which a patch restores a planted share of the gap at a row of the report, and controls another."""
    rng, rows = np.random.default_rng(seed), []
    for emotion in emotions:
        for pair in range(pairs):
            name, corrupt = f"{emotion}{pair}", float(rng.normal())
            clean = corrupt + gap + float(rng.normal(0, 0.1))
            for row in range(layers):
                for source in sources:
                    planted = values if source == "matched" else (control or {})
                    share = planted.get((row, emotion), 0.0) + float(rng.normal(0, noise))
                    rows.append((name, name, "emotional/neutral", emotion, source, kind,
                                 row + (kind == "resid_pre"), -1, "ending", -1, "said_category", clean, corrupt,
                                 corrupt + share * (clean - corrupt)))  # fmt: skip
    columns = ["pair", "group", "contrast", "emotion", "source", "kind", "layer", "index", "segment", "position",
               "metric", "clean", "corrupt", "value"]  # fmt: skip
    meta: dict[str, Any] = META | {"direction": "denoise", "seed": 0, "n_pairs": pairs, "n_layers": layers,
                                   "refused": {}, "metrics": {"said_category": {"unit": "nats"}}}  # fmt: skip
    given = pd.DataFrame({"pair": sorted({row[0] for row in rows}), "tokens": [["a"]] * (pairs * len(emotions))})
    return PatchSweep(pd.DataFrame(rows, columns=columns), given, meta)


def features(
    survivors: Mapping[str, str], *, layer: int = 2, p: float = 0.005, detectable: float = 0.8, d: float = 1.0,
) -> FeatureReport:  # fmt: skip
    """A search in which one feature of some emotions survives, with its class."""
    rows, counts, placed = [], [], []
    for emotion in (*EMOTIONS, "affect"):
        found = emotion in survivors
        counts.append({"contrast": "emotional less neutral", "emotion": emotion, "texts": "keyword-free",
                       "p_adjusted": p if found else 1.0})  # fmt: skip
        if found:
            placed.append({"emotion": emotion, "feature": 7, "class": survivors[emotion]})
        for feature in range(5, 10):
            rows.append({"emotion": emotion, "feature": feature, "texts": "keyword-free", "n": 16, "mean": -0.5 * d,
                         "low": -0.7 * d, "high": -0.3 * d, "d": -d, "detectable": detectable,
                         "survives": found and feature == 7})  # fmt: skip
    return FeatureReport(META | {"site": f"L{layer}.resid_post", "sae": "planted"}, pd.DataFrame(rows),
                         pd.DataFrame(counts), placed=pd.DataFrame(placed))  # fmt: skip


SPACE = EdgeSpace(4, 3, 1, (False,) * 4)


def edges(*names: str) -> Edges:
    out = np.zeros_like(SPACE.allowed)
    for name in names:
        out[SPACE.index(name)] = True
    return out


class Graph:
    """A circuit, as far as it is asked."""

    def __init__(self, mask: Edges, emotion: str = "joy") -> None:
        self.space, self.mask = SPACE, mask
        self.meta: dict[str, Any] = META | {"emotion": emotion}


def scores(
    effects: Mapping[str, float], *, pairs: int = 24, name: str = "s", noise: float = 0.1, seed: int = 0
) -> EdgeScores:
    """Scores with planted means, a share of a gap of 2."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, noise, size=(pairs, *SPACE.allowed.shape)) * SPACE.allowed
    for edge, effect in effects.items():
        values[(slice(None), *SPACE.index(edge))] += effect
    table = pd.DataFrame({"pair": [f"{name}{i}" for i in range(pairs)], "group": [f"{name}{i}" for i in range(pairs)],
                          "emotion": "joy", "clean": rng.normal(2, 0.2, pairs), "corrupt": 0.0})  # fmt: skip
    return EdgeScores(SPACE, values.astype(np.float32), table, META)


CIRCUIT = ("embedding -> L1.H0.q", "L1.H0 -> L2.mlp_in", "L1.mlp_out -> L3.H1.q", "L2.mlp_out -> end")


def randoms(n: int, like: Edges, seed: int = 0) -> list[Edges]:
    """As many edges out of each sender's layer as the circuit has."""
    rng, out = np.random.default_rng(seed), []
    layer = np.array([-1 if one == "embedding" else int(one[1:].split(".")[0]) for one in SPACE.senders])
    for _ in range(n):
        mask = np.zeros_like(like)
        for at in range(-1, 4):
            rows, columns = np.nonzero(SPACE.allowed & (layer == at)[:, None])
            some = rng.choice(len(rows), int(like[layer == at].sum()), replace=False)
            mask[rows[some], columns[some]] = True
        out.append(mask)
    return out


def verdict(report: AgreementReport, layer: int, emotion: str, question: str) -> str:
    cell = report.at(layer, emotion).set_index("question")
    return str(cell["verdict"][question])


def test_what_is_planted_is_what_is_said() -> None:
    """Joy is read and used, fear read alone, anger used alone; the rest neither."""
    report = agree(
        "planted",
        probe=reading({(1, "joy"): 0.3, (1, "fear"): 0.3, (3, "fear"): 0.3}),
        patch=sweep({(1, "joy"): 0.6, (2, "anger"): 0.6}),
    )
    assert report.layers == (0, 1, 2, 3)
    assert report.emotions == ("joy", "fear", "anger")
    assert [verdict(report, 1, "joy", name) for name in QUESTIONS] == [YES, YES, *[NOT_MEASURED] * 3]
    assert (verdict(report, 1, "fear", "read"), verdict(report, 1, "fear", "causal")) == (YES, NO)
    assert (verdict(report, 2, "anger", "read"), verdict(report, 2, "anger", "causal")) == (NO, YES)
    flags = report.flags()
    assert set(zip(flags["layer"], flags["emotion"], flags["flag"], strict=True)) == {
        (1, "fear", UNUSED), (3, "fear", UNUSED), (2, "anger", UNREAD),
    }  # fmt: skip
    counts: Any = report.counts()
    assert counts.loc["read"].tolist() == [3, 9, 0, 0]
    assert counts.loc["causal"].tolist() == [2, 10, 0, 0]
    said = " ".join(report.summary())
    assert "Read but not used: fear layers 1 and 3" in said
    assert "Used but not read: anger layer 2" in said
    assert "Not measured at all, which is no answer: a feature" in said
    found: Any = report.at(1, "joy").set_index("question").loc["causal"]
    assert found["value"] == pytest.approx(0.6, abs=0.05)
    assert found["n"] == 24
    assert found["source"] == "in memory"


def test_everything_and_nothing() -> None:
    every = {(layer, emotion): 0.5 for layer in range(4) for emotion in EMOTIONS}
    report = agree(MODEL, probe=reading(every), patch=sweep(every))
    assert report.counts().loc[["read", "causal"], YES].tolist() == [12, 12]
    assert report.flags().empty
    report = agree(MODEL, probe=reading({}), patch=sweep({}))
    assert report.counts().loc[["read", "causal"], NO].tolist() == [12, 12]
    assert report.flags().empty
    assert "read 0 of 12, causal 0 of 12" in headline(report)


def test_a_wide_interval_is_undecided_and_flags_nothing() -> None:
    """Four pairs an emotion, or noise as large as the gap: neither a yes nor a no."""
    report = agree(MODEL, probe=reading({(1, "fear"): 0.3}), patch=sweep({}, noise=1.0))
    counts: Any = report.counts()
    assert counts.at["causal", UNDECIDED] >= 9
    assert report.counts().loc["causal", YES] == 0
    assert agree(MODEL, probe=reading({}, error=0.2)).counts().loc["read", UNDECIDED] == 12
    few = agree(MODEL, patch=sweep({(1, "joy"): 0.8}, pairs=4, emotions=("joy", "fear")))
    assert verdict(few, 1, "joy", "causal") == UNDECIDED
    assert "can't give a p" in few.at(1, "joy").set_index("question")["why"]["causal"]
    assert "No yes was within reach" in " ".join(few.summary())


def test_the_smallest_difference_worth_having_decides_a_no() -> None:
    patch = sweep({(1, "joy"): 0.08}, noise=0.2)
    assert verdict(agree(MODEL, patch=patch, worth={"causal": 0.5}), 1, "joy", "causal") in (NO, YES)
    assert verdict(agree(MODEL, patch=patch, worth={"causal": 0.01}), 1, "fear", "causal") == UNDECIDED
    with pytest.raises(CircuitError, match="no question 'reading'"):
        agree(MODEL, patch=patch, worth={"reading": 0.5})


def test_a_control_that_does_as_much_undoes_the_finding_and_is_said_first() -> None:
    same = {(1, "joy"): 0.6}
    report = agree(MODEL, patch=sweep(same | {(2, "joy"): 0.6}, control=same))
    assert verdict(report, 1, "joy", "causal") == NO
    assert verdict(report, 2, "joy", "causal") == YES
    assert report.summary()[0].startswith("**Not told from a control: causal in 1 cell** (joy layer 1)")
    alone = agree(MODEL, patch=sweep(same, sources=("matched",)))
    assert verdict(alone, 1, "joy", "causal") == UNDECIDED
    assert "no null control was run" in alone.at(1, "joy").set_index("question")["why"]["causal"]


def test_where_a_patch_could_not_have_come_out_otherwise_nothing_is_measured() -> None:
    """All of the gap by construction, or a read-out before the patch."""
    table = sweep({}).table
    own, last = table["source"] == "matched", table["layer"] == 4
    changed = table.assign(value=table["value"].where(~(own & last), table["clean"]))
    before = changed.assign(value=changed["value"].where(changed["layer"] != 3, changed["corrupt"]))
    report = agree(MODEL, patch=PatchSweep(before, sweep({}).pairs, sweep({}).meta))
    assert [verdict(report, layer, "joy", "causal") for layer in range(4)] == [NO, NO, NOT_MEASURED, NOT_MEASURED]
    why = [report.at(layer, "joy").set_index("question")["why"]["causal"] for layer in (2, 3)]
    assert "nothing that the metric reads" in why[0]
    assert "carries the whole difference" in why[1]


def test_a_metric_that_does_not_tell_the_texts_decides_nothing() -> None:
    report = agree(MODEL, patch=sweep({(1, "joy"): 0.5}, gap=0.0))
    assert set(report.table.loc[report.table["question"] == "causal", "verdict"]) == {UNDECIDED}


def test_the_stream_before_a_block_is_the_one_that_left_the_block_before() -> None:
    for kind in ("resid_pre", "resid_post"):
        report = agree(MODEL, patch=sweep({(1, "joy"): 0.6}, kind=kind))
        assert verdict(report, 1, "joy", "causal") == YES
        assert verdict(report, 2, "joy", "causal") == NO


def test_a_metric_or_segment_that_was_not_patched_is_refused() -> None:
    for options in ({"metric": "affect"}, {"segment": "last"}):
        with pytest.raises(PatchError, match="its metrics are said_category, its segments ending"):
            agree(MODEL, patch=sweep({}), metric=options.get("metric"), segment=options.get("segment"))
    with pytest.raises(PatchError, match="no whole residual stream"):
        place(sweep({}, kind="mlp_out"), None, None)


def test_features_are_of_the_emotion_where_they_are_its_own() -> None:
    report = agree(MODEL, features=features({"joy": "affect", "fear": "style"}), n_layers=4)
    assert [verdict(report, 2, emotion, "feature") for emotion in EMOTIONS] == [YES, UNDECIDED, NO]
    assert verdict(report, 1, "joy", "feature") == NOT_MEASURED, "no dictionary reads that layer"
    assert report.summary()[0].startswith("**Not told from a control: a feature in 1 cell** (fear layer 2)")
    row = report.at(2, "joy").set_index("question").loc["feature"]
    assert (row["value"], row["low"], row["high"]) == pytest.approx((1.0, 0.6, 1.4))
    weak = agree(MODEL, features=features({}, detectable=1.6))
    assert verdict(weak, 2, "joy", "feature") == UNDECIDED, "an effect of one SD would have been missed"
    lucky = agree(MODEL, features=features({"joy": "affect"}, p=0.3))
    assert verdict(lucky, 2, "joy", "feature") == UNDECIDED, "random labels give as many"


def test_several_dictionaries_share_the_error_and_one_layer_has_one() -> None:
    two = agree(MODEL, features=[features({"joy": "affect"}, p=0.03), features({}, layer=3)])
    assert verdict(two, 2, "joy", "feature") == UNDECIDED, "0.03 for each of two"
    assert verdict(two, 3, "joy", "feature") == NO
    with pytest.raises(CircuitError, match="one dictionary a layer"):
        agree(MODEL, features=[features({}), features({})])


@pytest.fixture(scope="module")
def steered() -> SteeringReport:
    world = World({"joy": 0.7, "fear": 0.0}, draws=79)
    return report_on(world.replies, world.neutral, facts=META | {"method": "mean_difference"})


def test_steering_marks_the_layer_of_its_directions(steered: SteeringReport) -> None:
    report = agree(MODEL, steering=steered, n_layers=3)
    assert [verdict(report, 1, emotion, "steerable") for emotion in ("joy", "fear")] == [YES, NO]
    assert verdict(report, 0, "joy", "steerable") == NOT_MEASURED
    row: Any = report.at(1, "joy").set_index("question").loc["steerable"]
    assert row["p_adjusted"] <= 0.05
    assert row["low"] > 0
    assert "random direction" in row["control"]
    report = agree(MODEL, steering=steered, worth={"steerable": 0.001})
    assert verdict(report, 1, "fear", "steerable") == UNDECIDED


def test_a_placebo_that_steers_as_much_is_no_steering() -> None:
    world = World({"joy": 0.5, "fear": 0.0}, placebo=0.5, draws=79)
    report = agree(MODEL, steering=report_on(world.replies, world.neutral, facts=META))
    assert verdict(report, 1, "joy", "steerable") in (NO, UNDECIDED)
    assert report.summary()[0].startswith("**Not told from a control: steerable in 1 cell** (joy layer 1)")


def test_layers_whose_edges_carry_more_than_random_ones_are_on_the_circuit() -> None:
    planted = {CIRCUIT[1]: 0.6, CIRCUIT[2]: -0.6}
    chosen, held = scores(planted, name="found"), scores(planted, seed=1)
    one = circuit_by_layer(Graph(edges(*CIRCUIT)), held, randoms(20, edges(*CIRCUIT)), found=chosen)
    report = agree(MODEL, circuits={"joy": one})
    found = [verdict(report, layer, "joy", "circuit") for layer in range(4)]
    assert (found[0], found[1], found[3]) == (NO, YES, NO)
    assert found[2] != YES, "random circuits carry as much there"
    row: Any = one.table.set_index("layer").loc[1]
    assert row["value"] == pytest.approx(0.6, abs=0.1), "1.2 of a gap of 2: an edge that holds the metric down counts"
    assert one.table["edges"].tolist() == [0, 2, 1, 0]
    turned = scores({CIRCUIT[1]: -0.6, CIRCUIT[2]: 0.6}, name="found")
    wrong = circuit_by_layer(Graph(edges(*CIRCUIT)), held, randoms(20, edges(*CIRCUIT)), found=turned)
    assert wrong.table["value"][1] == pytest.approx(-0.6, abs=0.1), "a sign that other pairs contradict counts against"


def test_a_circuit_is_not_scored_by_what_chose_it() -> None:
    found = scores({})
    mask = edges(*CIRCUIT)
    with pytest.raises(CircuitError, match="24 groups of pairs"):
        circuit_by_layer(Graph(mask), found, [mask], found=found)
    with pytest.raises(CircuitError, match="No random circuit"):
        circuit_by_layer(Graph(mask), scores({}, name="other"), [], found=found)
    with pytest.raises(CircuitError, match="different spaces"):
        circuit_by_layer(Graph(mask), scores({}, name="other"), [mask[:-1]], found=found)


def test_results_of_another_model_or_battery_are_refused(steered: SteeringReport) -> None:
    other = reading({})
    with pytest.raises(CircuitError, match=r"The probe result \(in memory\) is of planted"):
        agree("gpt2", probe=other)
    with pytest.raises(CircuitError, match="patch result .* give results of one model"):
        agree(MODEL, probe=other, patch=PatchSweep(*_changed(sweep({}), fingerprint="a" * 32)))
    with pytest.raises(CircuitError, match="another battery"):
        agree(MODEL, probe=other, patch=PatchSweep(*_changed(sweep({}), battery_sha256="a" * 64)))
    with pytest.raises(CircuitError, match="another battery"):
        agree(MODEL, probe=other, battery_sha256="a" * 64)
    nameless = report_on(steered.replies, steered.neutral, facts={"model": "gpt2"})
    with pytest.raises(CircuitError, match="steering result"):
        agree(MODEL, probe=other, steering=nameless)
    with pytest.raises(CircuitError, match="Nothing was given"):
        agree(MODEL)


def _changed(one: PatchSweep, **facts: str) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    return one.table, one.pairs, one.meta | facts


def test_cells_are_there_once_with_their_five_rows(tmp_path: Path) -> None:
    report = agree(MODEL, probe=reading({(1, "joy"): 0.3}), features=features({"joy": "affect"}))
    assert len(report.table) == 4 * 3 * 5
    assert not report.table.duplicated(["layer", "emotion", "question"]).any()
    assert report.at(2, "fear")["question"].tolist() == list(QUESTIONS)
    with pytest.raises(CircuitError, match="no grief at layer 2: layers are 0 to 3"):
        report.at(2, "grief")
    report.save(tmp_path)
    again = AgreementReport.load(tmp_path)
    pd.testing.assert_frame_equal(again.table, report.table)
    assert again.meta == json.loads(json.dumps(report.meta))
    assert again.summary() == report.summary()
    with pytest.raises(RunError, match="no agreement report"):
        AgreementReport.load(tmp_path / "nowhere")


def test_the_picture_has_every_cell_and_frames_the_flagged(tmp_path: Path) -> None:
    report = agree(MODEL, probe=reading({(1, "fear"): 0.3, (3, "joy"): 0.3}), patch=sweep({(3, "joy"): 0.5}))
    fig: Any = report.plot()
    drawn = [(x, y) for trace in fig.data if trace.mode == "markers" for x, y in zip(trace.x, trace.y, strict=True)
             if x is not None]  # fmt: skip
    assert len(drawn) == len(set(drawn)) == 4 * 3 * 5
    frames = {trace.name: sum(value is None for value in trace.x) for trace in fig.data if trace.mode == "lines"}
    assert frames == {UNUSED: 1, UNREAD: 1}, "one frame; the other flag has its place in the legend alone"
    named = [trace.name for trace in fig.data if trace.showlegend is not False]
    assert {"read", "causal", "a feature", "steerable", "on the circuit", YES, NO, UNDECIDED, NOT_MEASURED} <= set(
        named
    )
    html = write(tmp_path / "a.html", "planted", report.summary()[:1], report.sections(), {}, "").read_text()
    assert "flagged cells" in html
    assert "every answer" in html
    assert "<strong>planted" in report._repr_html_()
    assert "**" not in repr(report)


def test_runs_are_found_by_model_and_the_newest_finished_is_taken(tmp_path: Path) -> None:
    def run(name: str, ended: str, **facts: str) -> Path:
        home = tmp_path / name
        info = {"command": "probe", "config": {}, "status": "done", "started": "", "timings": {}, "ended": ended,
                "fingerprint": MODEL, "battery_sha256": BATTERY} | facts  # fmt: skip
        home.mkdir(parents=True)
        (home / "run.json").write_text(json.dumps(info))
        return home

    for name, ended, facts in (("old", "2026-01-01", {}), ("a/new", "2026-01-02", {}),
                               ("stopped", "2026-01-03", {"status": "stopped"}),
                               ("other", "2026-01-04", {"fingerprint": "a" * 32})):  # fmt: skip
        reading({(1, "joy"): 0.3}).save(run(name, ended, **facts))
    sweep({(1, "joy"): 0.5}).save(run("patched", "2026-01-01") / "denoise")
    run("empty", "2026-01-09")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    found = find_runs(tmp_path, MODEL)
    assert found == {"probe": tmp_path / "a/new", "patch": tmp_path / "patched"}
    assert find_runs(tmp_path, MODEL, battery_sha256="c" * 64) == {} == find_runs(tmp_path / "nowhere", MODEL)
    report = agree(MODEL, probe=found["probe"], patch=found["patch"])
    assert verdict(report, 1, "joy", "causal") == YES
    assert report.meta["sources"]["probe"] == str(tmp_path / "a/new")
    with pytest.raises(RunError, match="has no read by layer and emotion"):
        agree(MODEL, probe=tmp_path / "empty")


def planted_acts(strength: float, *, domains: int = 5, words: bool = False, seed: int = 0) -> Any:
    """Two layers; the second holds which emotion an emotional item has, the first nothing."""
    items = battery_frame(n_scenes=12 * domains, n_domains=domains)
    items["emotion"] = [EMOTIONS[(int(group[1:]) // domains) % 3] for group in items["group"]]
    if words:
        items["text"] = [f"text of {emotion}" for emotion in items["emotion"]]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(items), 2, 6))
    code = np.array([EMOTIONS.index(str(emotion)) for emotion in items["emotion"]])
    emotional = (items["role"] == "emotional").to_numpy()
    x[emotional, 1, code[emotional]] += strength
    return activations(items, x)


def test_what_a_layer_holds_beyond_words_and_topic_is_read() -> None:
    found = read_by_emotion(planted_acts(4.0), progress=False)
    report = agree("planted", probe=found)
    assert [verdict(report, layer, emotion, "read") for layer in (0, 1) for emotion in EMOTIONS].count(YES) == 3
    assert all(verdict(report, 1, emotion, "read") == YES for emotion in EMOTIONS)
    row = found.table[(found.table["layer"] == 1) & (found.table["emotion"] == "joy")].iloc[0]
    assert row["score"] > 0.95
    assert row["low"] < row["value"] < row["high"]
    assert row["n"] == 60
    assert found.meta["rung"] == "domain"
    assert found.meta["partners"]


def test_what_words_or_the_neutral_partners_tell_as_well_is_not_read() -> None:
    told = read_by_emotion(planted_acts(4.0, words=True), progress=False)
    assert (told.table["floor_score"] == 1.0).all()
    assert (told.table["low"] <= 0).all()
    assert told.table.loc[told.table["layer"] == 1, "undone"].all()
    acts = planted_acts(4.0)
    x = acts.at("mean").copy()
    x[1::2] = x[::2]
    topic = read_by_emotion(activations(acts.items, x), progress=False)
    deep = topic.table[topic.table["layer"] == 1]
    assert (deep["score"] > 0.9).all()
    assert (deep["low"] <= 0).all()
    assert set(deep["control"]) == {"neutral partners, same labels"}


def test_reading_needs_pooled_vectors_and_emotions() -> None:
    acts = planted_acts(1.0)
    with pytest.raises(BatteryError, match="at least two classes"):
        read_by_emotion(activations(acts.items.assign(emotion="joy"), acts.at("mean")))


def test_p_over_layers_agrees_with_the_band_that_holds_for_all() -> None:
    """A value just outside of the simultaneous band has p just below 0.05."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 12)) @ np.diag(np.linspace(0.5, 2, 12)) + 0.4 * rng.normal(size=(60, 1))

    def mean(column: int) -> Any:
        return lambda weights: weights @ values[:, column] / weights.sum(1)

    family = [mean(column) for column in range(12)]
    around = band(family, 60)
    part = jackknife(family, 60)
    half = around.high - around.value
    assert (max_t(1.08 * half, part) < 0.05).all()
    assert (max_t(0.90 * half, part) > 0.05).all()
    assert max_t(np.zeros(12), part).min() > 0.99
    assert (max_t(np.ones(12), 0 * part) == 1).all()


def test_p_over_emotions_is_at_most_the_level_where_the_cell_passes() -> None:
    """Against the definition: R of m emotions by Benjamini-Hochberg, then level R / m inside each."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = pd.Series(rng.beta(0.3, 2, size=40))
        emotion = pd.Series([str(one) for one in rng.choice(list("abcdefgh"), size=40)])
        found = across(p, emotion)
        for level in (0.01, 0.05, 0.2):
            best = p.groupby(emotion).min().sort_values().to_numpy()
            m = len(best)
            passed = np.flatnonzero(best <= level * np.arange(1, m + 1) / m)
            selected = passed.max() + 1 if len(passed) else 0
            assert ((found <= level) == (p.to_numpy() <= level * selected / m)).all()
    assert np.isnan(across(pd.Series([np.nan]), pd.Series(["joy"]))).all()


def test_answers_follow_interval_and_p() -> None:
    assert decided(0.1, 0.3, 0.2, 0.05) == UNDECIDED
    assert decided(0.01, 0.04, 0.2, 0.05) == NO
    assert decided(float("nan"), float("nan"), float("nan"), 0.05) == UNDECIDED
    assert decided(-0.5, -0.1, 0.001, 0.05) == NO, "surely below a control is not above it"
    assert (
        where(pd.DataFrame({"layer": [3, 1, 2], "emotion": ["joy", "joy", "fear"]}))
        == "joy layers 1 and 3; fear layer 2"
    )


def rare(hits: int, worlds: int) -> bool:
    """At most 5%, within three standard errors of as many worlds."""
    return hits <= worlds * 0.05 + 3 * np.sqrt(worlds * 0.05 * 0.95)


def test_without_any_effect_a_circuit_has_a_yes_in_few_worlds() -> None:
    """Family-wise, over 12 cells: signs, selection and random circuits included."""
    hits, some = 0, {str(emotion): "in memory" for emotion in EMOTIONS}
    mask = edges(*CIRCUIT, "L0.H0 -> L2.H1.q", "L0.mlp_out -> L1.mlp_in", "L3.H0 -> end")
    null = randoms(10, mask)
    for world in range(200):
        parts = {
            emotion: circuit_by_layer(Graph(mask), scores({}, pairs=9, name="held", seed=3 * world + i), null,
                                      found=scores({}, pairs=9, name="found", seed=10_000 + 3 * world + i))
            for i, emotion in enumerate(EMOTIONS)
        }  # fmt: skip
        found = circuit_marks(parts, 0.05, some)
        hits += any(mark.p_adjusted <= 0.05 for mark in found)
        assert all(mark.p_adjusted <= 0.05 for mark in found if mark.verdict == YES)
    assert rare(hits, 200), hits


def test_without_any_effect_patching_has_a_yes_in_few_worlds() -> None:
    """Family-wise, over the 9 cells of three emotions."""
    hits = 0
    for world in range(40):
        patch = sweep({}, layers=3, pairs=9, noise=0.3, seed=world)
        hits += any(m.verdict == YES for m in causal_marks(patch, 0.1, place(patch, None, None), "in memory"))
    assert rare(hits, 40), hits


def test_without_any_effect_max_t_holds_its_level() -> None:
    """The p of reading, on means: 24 correlated cells, 40 clusters."""
    rng, hits = np.random.default_rng(0), 0
    for world in range(300):
        values = rng.normal(size=(40, 24)) + rng.normal(size=(40, 1))
        part = (values - values.mean(0)) / np.sqrt(40 * 39)
        hits += bool((max_t(values.mean(0), part, seed=world) <= 0.05).any())
    assert rare(hits, 300), hits
