"""Runs side by side: no difference from itself, a planted one found, and no pairing where none belongs."""

import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from scipy import stats
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from affectlens.errors import RunError
from affectlens.metrics import metric
from affectlens.paths import write_parquet
from affectlens.probing import ProbeReport, probe
from affectlens.probing.compare_cli import compare as command
from affectlens.probing.compare_cli import differences, facts, page, stands, wide
from affectlens.probing.comparing import AGREEMENT, LESS, SAME, Comparison, compare, paired, unpaired
from affectlens.probing.parts import Stage, stage
from affectlens.probing.targets import select
from affectlens.run import Run
from affectlens.stats import Estimate
from tests.conftest import activations, battery_frame

STRONG, WEAK = 1.6, 0.4  # separations of the classes, in standard deviations


def planted(seed: int = 0) -> np.ndarray:
    frame = battery_frame()
    x = np.random.default_rng(seed).normal(size=(len(frame), 3, 12))
    x[:, 1, 0] += 1.5 * (frame["role"] == "emotional")
    return x


@pytest.fixture(scope="module")
def report() -> ProbeReport:
    return probe(activations(battery_frame(), planted()), rungs=("pair", "domain"), progress=False)


def chosen(report: ProbeReport) -> pd.Series:
    """Which rows of ``held_out`` carry the headline."""
    return (report.held_out["rung"] == report.meta["rung"]) & (report.held_out["reader"] == report.main)


def worth(rows: pd.DataFrame) -> float:
    logits = rows.filter(like="logit_").to_numpy()
    y = rows["y"].to_numpy().astype(int)
    statistic = metric(logits, y, rows["fold"].to_numpy(), rows["cluster"].to_numpy())
    return float(statistic(np.ones((1, rows["cluster"].max() + 1)))[0])


def reading(report: ProbeReport, logit: np.ndarray | None = None, **meta: object) -> ProbeReport:
    """The report with other held-out logits, the headline that they give, and another ``meta``."""
    held, scores = report.held_out.copy(), report.scores.copy()
    if logit is not None:
        held.loc[chosen(report), "logit_0"] = logit
        nested = (scores["kind"] == "probe") & (scores["reader"] == report.main) & (scores["layer"] == -1)
        at = nested & (scores["rung"] == report.meta["rung"])
        scores.loc[at, "value"] = worth(held[chosen(report)])
    return replace(report, meta=report.meta | meta, held_out=held, scores=scores)


def drawn(report: ProbeReport, separation: float, seed: int, shared: int = 99) -> np.ndarray:
    """Logits with a known separation; half of their noise is the items' own, the same for all draws."""
    y = report.held_out[chosen(report)]["y"].to_numpy()
    common = np.random.default_rng(shared).normal(size=len(y))
    own = np.random.default_rng(seed).normal(size=len(y))
    return separation * y + np.sqrt(0.5) * (common + own)


def write(folder: Path, *reports: ProbeReport, status: str = "done", name: str = "probe") -> Path:
    first = reports[0].meta
    config = {"model": first["model"], "battery": first["battery"], "targets": [r.target for r in reports],
              "seed": first["seed"], "revision": None, "dtype": "float32", "quick": True}  # fmt: skip
    run = Run.create(folder, command=name, config=config)
    run.note(fingerprint=first["fingerprint"], battery_sha256=first["battery_sha256"])
    for one in reports:
        one.save(folder)
    run.close(status)
    return folder


def row(found: Comparison, what: str = LESS, run: int = 1, **only: object) -> dict[str, Any]:
    """The one row of that kind."""
    wanted = {"what": what, "run": found.runs[run]["name"], **only}
    rows: Any = found.table.to_dict("records")
    (one,) = [r for r in rows if all(r[key] == value for key, value in wanted.items())]
    return dict(one)


@pytest.fixture(scope="module")
def base(report: ProbeReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "base", reading(report, drawn(report, WEAK, 0)))


@pytest.fixture(scope="module")
def better(report: ProbeReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    other = reading(report, drawn(report, STRONG, 1), model="instruct", fingerprint="e" * 32)
    return write(tmp_path_factory.mktemp("runs") / "better", other)


def test_a_run_differs_from_itself_by_exactly_nothing(base: Path) -> None:
    found = compare(base, base)
    gap = row(found)
    assert (gap["value"], gap["low"], gap["high"], gap["p"], gap["p_adjusted"]) == (0, 0, 0, 1, 1)
    assert gap["method"] == SAME
    assert [r["name"] for r in found.runs] == ["planted (base, 1)", "planted (base, 2)"]
    assert row(found, AGREEMENT, case="all items")["value"] == pytest.approx(1)
    assert "They have the same weights and settings." in repr(found)
    assert "just as" in repr(found)


def test_a_planted_difference_is_found_and_covered(base: Path, better: Path) -> None:
    found = compare(base, better)
    gap = row(found)
    strong, weak = (stats.norm.cdf(one / np.sqrt(2)) for one in (STRONG, WEAK))
    assert gap["low"] <= strong - weak <= gap["high"]
    assert gap["low"] > 0
    assert gap["p_adjusted"] == gap["p"] <= 0.05
    assert gap["note"] == "paired"
    assert differences(found, "affect")[0].startswith("**`instruct` reads affect better than `planted` by +0.")
    assert "this survives" in repr(found)
    assert "They differ in model, weights." in repr(found)
    back = row(compare(better, base))
    assert (back["value"], back["low"], back["high"], back["p"]) == pytest.approx(
        (-gap["value"], -gap["high"], -gap["low"], gap["p"])
    )
    assert "reads affect worse than `instruct`" in differences(compare(better, base), "affect")[0]


def test_no_difference_is_found_where_there_is_none(report: ProbeReport, base: Path, tmp_path: Path) -> None:
    same = [write(tmp_path / str(i), reading(report, drawn(report, WEAK, 20 + i), model=f"m{i}")) for i in range(6)]
    found = compare(base, *same)
    gaps = [row(found, run=1 + i) for i in range(6)]
    assert sum(gap["low"] < 0 < gap["high"] for gap in gaps) >= 4
    assert min(gap["p_adjusted"] for gap in gaps) > 0.05
    assert not any("this survives" in line for line in differences(found, "affect"))


def test_the_difference_is_that_of_scikit_learn_fold_by_fold(base: Path, better: Path) -> None:
    pieces = []
    for folder in (base, better):
        held = pd.read_parquet(folder / "results" / "affect.held_out.parquet")
        held = held[(held["rung"] == "domain") & (held["reader"] == "logistic")]
        pieces.append(np.mean([roc_auc_score(f["y"], f["logit_0"]) for _, f in held.groupby("fold")]))
    assert row(compare(base, better))["value"] == pytest.approx(pieces[1] - pieces[0])


def table_of(logits: np.ndarray, y: np.ndarray, fold: np.ndarray, cluster: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"y": y, "fold": fold, "cluster": cluster, "logit_0": logits})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_p_is_that_of_exchanging_two_runs_in_whole_domains(seed: int) -> None:
    """Folds are domains of one size here, so the flips are exact: do them, and count."""
    domain, y = np.repeat(np.arange(7), 8), np.tile([0, 1], 28)
    rng = np.random.default_rng(seed)
    ours, theirs = (table_of(y * s + rng.normal(size=56), y, domain, domain) for s in (1.0, 0.6))
    gaps = []
    for swap in product((False, True), repeat=7):
        at = np.array(swap)[domain]
        a, b = (x.assign(logit_0=np.where(at, z["logit_0"], x["logit_0"])) for x, z in ((ours, theirs), (theirs, ours)))
        gaps.append(worth(a) - worth(b))
    found = paired(ours, theirs, "domain")
    assert found.value == pytest.approx(gaps[0])
    assert found.p == pytest.approx(np.mean(np.abs(gaps) >= abs(gaps[0]) - 1e-9))
    assert found.p is not None
    assert 2 / 2**7 < found.p < 1


def test_the_order_of_rows_and_the_numbers_of_folds_mean_nothing(better: Path, base: Path, tmp_path: Path) -> None:
    loaded = ProbeReport.load(better, "affect")
    held = loaded.held_out.sample(frac=1, random_state=3, ignore_index=True)
    held["fold"], held["cluster"] = 7 - held["fold"], held["cluster"].max() - held["cluster"]
    shuffled = write(tmp_path / "better", replace(loaded, held_out=held))
    pd.testing.assert_frame_equal(compare(base, better).table, compare(base, shuffled).table)


def test_runs_with_other_folds_are_unpaired_and_it_is_said(base: Path, better: Path, tmp_path: Path) -> None:
    loaded = ProbeReport.load(better, "affect")
    held = loaded.held_out.copy()
    held.loc[held["fold"] == 1, "fold"] = 0
    moved = replace(loaded, held_out=held)
    found = compare(base, write(tmp_path / "other", moved))
    gap, ours, theirs = row(found), row(found, "score"), row(found, "score", 0)
    assert gap["note"] == "unpaired: other folds"
    assert "Unpaired: other folds; p = " in repr(found)
    assert gap["value"] == pytest.approx(ours["value"] - theirs["value"])
    assert gap["high"] - gap["low"] > max(one["high"] - one["low"] for one in (ours, theirs))
    assert AGREEMENT not in set(found.table["what"])


def test_what_else_keeps_runs_apart(base: Path, better: Path, tmp_path: Path) -> None:
    loaded = ProbeReport.load(better, "affect")
    fewer = replace(loaded, held_out=loaded.held_out[loaded.held_out["id"] != "s3.neutral"])
    lying = replace(loaded, held_out=loaded.held_out.assign(logit_0=-loaded.held_out["logit_0"]))
    flipped = replace(loaded, held_out=loaded.held_out.assign(y=1 - loaded.held_out["y"]))
    notes = {"other items": fewer, "held-out logits that do not give the score": lying, "other labels": flipped}
    for place, (why, one) in enumerate(notes.items()):
        assert row(compare(base, write(tmp_path / str(place), one)))["note"] == f"unpaired: {why}"


def test_another_battery_is_compared_over_the_floors(base: Path, report: ProbeReport, tmp_path: Path) -> None:
    other = reading(report, drawn(report, STRONG, 1), battery_sha256="c" * 64, battery="mine")
    found = compare(base, write(tmp_path / "o", other))
    gap, over = row(found), [row(found, "over its floor", run)["value"] for run in (1, 0)]
    assert gap["note"] == "unpaired: another battery"
    assert gap["value"] == pytest.approx(over[0] - over[1])
    assert "each less its floor" in differences(found, "affect")[0]
    assert "battery" in found.summary()[0]


def test_other_classes_are_not_compared(base: Path, report: ProbeReport, tmp_path: Path) -> None:
    found = compare(base, write(tmp_path / "o", reading(report, classes=["calm", "not"])))
    assert np.isnan(row(found)["value"])
    assert "are not compared on affect" in repr(found)
    assert json.loads(json.dumps(facts(found), allow_nan=False))["table"]
    assert not found.table["p_adjusted"].notna().any()


def test_differences_are_corrected_over_targets_and_runs(base: Path, report: ProbeReport, tmp_path: Path) -> None:
    runs = [write(tmp_path / str(i), reading(report, drawn(report, s, 10 + i), model=f"m{i}"))
            for i, s in enumerate((0.5, 1.0, 1.6))]  # fmt: skip
    found = compare(base, *runs)
    table = found.table[found.table["what"] == LESS]
    p = table["p"].to_numpy()
    order = np.argsort(p)
    by_hand = np.minimum.accumulate((p[order] * 3 / np.arange(1, 4))[::-1])[::-1]
    np.testing.assert_allclose(table["p_adjusted"].to_numpy()[order], np.minimum(by_hand, 1))
    assert "over 3 comparisons" in repr(found)


def test_what_may_be_said_of_a_difference() -> None:
    sure = Estimate(0.2, 0.1, 0.3, 30, "scene", 0.01, 0.02)
    assert stands(sure) == "this survives"
    assert stands(replace(sure, low=-0.1)) == "not distinguishable"
    assert "corrected test does not" in stands(replace(sure, p_adjusted=0.06))


def test_two_perfect_runs_may_still_differ() -> None:
    y, scene = np.tile([0, 1], 6), np.repeat(np.arange(6), 2)
    one, two = (table_of(y * s + 0.0, y, scene * 0, scene) for s in (1.0, 2.0))
    found = paired(one, two, "scene")
    assert found.value == 0
    assert found.low < -0.3
    assert found.high > 0.3
    assert (found.p, found.unit) == (1.0, "scene")


def test_the_test_keeps_its_level_and_the_interval_covers() -> None:
    """No difference in 150 draws of 24 scenes in 4 folds."""
    y, scene = np.tile([0, 1], 24), np.repeat(np.arange(24), 2)
    hits = covered = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        shared = y + rng.normal(size=48) + rng.normal(size=24)[scene]
        one, two = (table_of(shared + rng.normal(size=48), y, scene % 4, scene) for _ in range(2))
        found = paired(one, two, "scene")
        hits += found.p is not None and found.p <= 0.05
        covered += found.low <= 0 <= found.high
    assert stats.binomtest(hits, 150, 0.05, alternative="greater").pvalue > 0.01
    assert stats.binomtest(covered, 150, 0.95, alternative="less").pvalue > 0.01


def test_an_unpaired_difference_takes_each_side_from_the_sides_that_make_it() -> None:
    one, two = Estimate(0.8, 0.7, 0.95, 30, "scene"), Estimate(0.6, 0.4, 0.75, 25, "scene")
    found = unpaired(one, two)
    below, above = np.hypot(0.8 - 0.7, 0.75 - 0.6), np.hypot(0.95 - 0.8, 0.6 - 0.4)
    np.testing.assert_allclose((found.value, found.low, found.high, found.n), (0.2, 0.2 - below, 0.2 + above, 55))
    assert found.p == pytest.approx(2 * stats.norm.sf(0.2 / (below / stats.norm.ppf(0.975))))
    back = unpaired(two, one)
    np.testing.assert_allclose((back.value, back.low, back.high), (-0.2, -found.high, -found.low))
    assert back.p == pytest.approx(found.p)
    assert unpaired(one, one).p == 1


def test_agreement_is_spearmans_and_sees_no_scale(base: Path, better: Path, tmp_path: Path) -> None:
    found = compare(base, better)
    kept = [ProbeReport.load(folder, "affect") for folder in (base, better)]
    one, two = (r.held_out[chosen(r)].sort_values("id") for r in kept)
    oracle: Any = stats.spearmanr
    folds = [oracle(a["logit_0"], b["logit_0"]).statistic
             for (_, a), (_, b) in zip(one.groupby("fold"), two.groupby("fold"), strict=True)]  # fmt: skip
    every, inside = (row(found, AGREEMENT, case=case) for case in ("all items", "items of one label"))
    assert every["value"] == pytest.approx(np.mean(folds))
    assert every["low"] < every["value"] < every["high"] <= 1
    assert inside["low"] < inside["value"] < inside["high"]
    bent = kept[1].held_out.copy()
    bent.loc[chosen(kept[1]), "logit_0"] = np.exp(bent["logit_0"]) * 9 + 50 * bent["fold"]
    other = compare(base, write(tmp_path / "bent", replace(kept[1], held_out=bent)))
    assert row(other, AGREEMENT, case="all items")["value"] == pytest.approx(every["value"])


@pytest.mark.parametrize("target", ["category", "intensity"])
def test_classes_and_steps_are_paired_as_they_were_scored(target: str, report: ProbeReport, tmp_path: Path) -> None:
    """The score that is rebuilt from the logits is the rung's own, or the runs would be unpaired."""
    frame = battery_frame(24, 8)
    neutral = frame[frame["role"] == "neutral"]
    more = [neutral.assign(role=role, id=neutral["group"] + role) for role in ("mild", "moderate")]
    frame = pd.concat([frame, *more], ignore_index=True)
    asked = select(frame, target)
    readings = []
    for seed in (0, 1):
        rng, tables = np.random.default_rng(seed), []
        for rung in ("pair", "domain"):
            part = stage(frame, asked, rung)
            assert isinstance(part, Stage)
            signal = np.eye(3)[asked.y] if asked.classes else asked.y[:, None]
            logits = signal + rng.normal(size=signal.shape)
            columns = {f"logit_{k}": one for k, one in enumerate(logits.T)}
            reader = "logistic" if asked.classes else "ridge"
            tables.append(pd.DataFrame({
                "rung": rung, "reader": reader, "id": asked.items["id"].to_numpy(), "y": asked.y.astype(float),
                "fold": part.part.folds, "cluster": part.clusters, **columns,
            }))  # fmt: skip
            value = float(part.worth(logits)(np.ones((1, part.n)))[0])
        scores = report.scores.replace({"reader": {"logistic": reader}}).copy()
        scores.loc[(scores["kind"] == "probe") & (scores["layer"] == -1), "value"] = value
        meta = report.meta | {"target": target, "classes": list(asked.classes), "model": f"m{seed}"}
        probes = replace(report.probes, target=target, weights={reader: report.probes.weights[reader]},
                         bias={reader: report.probes.bias[reader]})  # fmt: skip
        whole = replace(report, meta=meta, scores=scores, probes=probes, held_out=pd.concat(tables, ignore_index=True))
        readings.append(write(tmp_path / str(seed), whole))
    found = compare(*readings)
    assert row(found)["note"] == "paired"
    assert row(found)["value"] == pytest.approx(row(found, "score")["value"] - row(found, "score", 0)["value"])
    assert row(found)["value"] != 0
    assert row(found, AGREEMENT, case="all items")["low"] > 0


def test_what_stands_beside_is_shown_for_each_run(base: Path, report: ProbeReport, tmp_path: Path) -> None:
    told = {"value": 0.6, "low": 0.5, "high": 0.7, "n": 8}
    asked = pd.DataFrame([
        {"shots": shots, "wording": "mean", "calibration": c, "metric": "AUROC", "unit": "scene", **told}
        for shots in (0, 2) for c in ("batch", "raw")
    ])  # fmt: skip
    moved = pd.DataFrame([
        {"trained": "keyword-rich", "tested": "keyword-free", "reader": reader, "unit": "domain", **told}
        for reader in ("logistic", "tfidf")
    ])  # fmt: skip
    won = pd.DataFrame([
        {"split": "crossed", "method": "logistic", "layer": layer, "chosen": layer == 1, "n": 8,
         "wins": 0.25 * layer, "wins_low": 0.1, "wins_high": 0.9}
        for layer in range(3)
    ])  # fmt: skip
    alarms = pd.DataFrame([{"split": "decoys", "method": m, "share": 0.5, "low": 0.2, "high": 0.8, "n": 8}
                           for m in ("logistic", "lda")])  # fmt: skip
    full = report.with_tables(report.meta, asked=asked, transfer=moved, crossed=won, false_alarms=alarms)
    found = compare(base, write(tmp_path / "full", full))
    assert row(found, "asked", case="2 exemplars of each class")["high"] == 0.7
    assert row(found, "transfer", case="keyword-rich to keyword-free")["unit"] == "domain"
    assert row(found, "called emotional", case="decoys")["value"] == 0.5
    wins = row(found, "quadruples won", case="crossed")
    assert (wins["value"], wins["low"], wins["high"], wins["unit"]) == (0.25, 0.1, 0.9, "quadruple")
    assert (
        "Quadruples won, side by side and not tested: crossed, `planted (full)` 0.25 [0.10, 0.90]." in found.summary()
    )
    shown: Any = wide(found).set_index("quantity")
    assert shown.loc["asked: 0 exemplars of each class", ["planted (base)", "planted (full)"]].tolist() == [
        "", "0.60 [0.50, 0.70]",
    ]  # fmt: skip


def test_curves_share_a_depth_from_nothing_to_one(base: Path, report: ProbeReport, tmp_path: Path) -> None:
    twice = report.scores.assign(layer=report.scores["layer"].map(lambda layer: max(2 * layer, -1)))
    deep = replace(reading(report, n_layers=5), scores=twice)
    found = compare(base, write(tmp_path / "deep", deep))
    layers: Any = found.layers.set_index("run")
    assert layers.loc["planted (base)", "depth"].tolist() == [0, 0.5, 1]
    assert layers.loc["planted (deep)", "depth"].tolist() == [0, 0.5, 1]
    assert layers.loc["planted (deep)", "layer"].tolist() == [0, 2, 4]
    traces: Any = found.plot().data
    assert {"planted (base)", "planted (deep)"} <= {trace.name for trace in traces}
    assert any("floor" in (trace.name or "") for trace in traces)


def test_the_page_stands_alone(base: Path, better: Path, tmp_path: Path) -> None:
    found = compare(base, better)
    text = page(found, tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "planted against instruct" in text
    assert "reads affect better than" in text
    assert 'src="http' not in text
    assert text.count("plotly.js v") == 1
    assert "affect side by side" in found._repr_html_() or "<table" in found._repr_html_()


def test_runs_that_cannot_be_compared_are_refused(base: Path, report: ProbeReport, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="two finished probe runs or more, not 1"):
        compare(base)
    with pytest.raises(RunError, match="is not a run folder"):
        compare(base, tmp_path)
    with pytest.raises(RunError, match="is a geometry run, not a probe run"):
        compare(base, write(tmp_path / "g", report, name="geometry"))
    with pytest.raises(RunError, match="is unfinished .stopped.: finish it with affectlens probe --resume"):
        compare(base, write(tmp_path / "s", report, status="stopped"))
    with pytest.raises(RunError, match="has no target 'valence'; it has affect"):
        compare(base, base, target="valence")
    column = replace(reading(report, target="mood"), probes=replace(report.probes, target="mood"))
    with pytest.raises(RunError, match="no target in common: .*base has affect; .*m has mood"):
        compare(base, write(tmp_path / "m", column))
    both = write(tmp_path / "both", report, column)
    assert compare(both, both).targets == ("affect", "mood")
    assert compare(both, both, target=["mood"]).targets == ("mood",)
    assert compare(both, base).targets == ("affect",)


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(command)
    made.command("other")(lambda: None)
    return made


def test_the_command_shows_writes_and_speaks_json(app: typer.Typer, base: Path, better: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["compare", str(base), str(better), "--out", str(tmp_path / "o")])
    assert told.exit_code == 0, told.output
    assert "instruct reads affect better than planted by" in " ".join(told.output.split())
    assert "less the first" in told.output
    assert (tmp_path / "o" / "comparison.html").is_file()
    spoken = CliRunner().invoke(app, ["compare", str(base), str(better), "--json", "--out", str(tmp_path / "x.html")])
    found = json.loads(spoken.output)
    assert found["report"] == str(tmp_path / "x.html")
    assert [run["name"] for run in found["runs"]] == ["planted", "instruct"]
    (gap,) = [r for r in found["table"] if r["what"] == LESS]
    assert gap["low"] < gap["value"] < gap["high"]
    assert (tmp_path / "x.html").is_file()


def test_mistakes_end_with_one_sentence_and_exit_code_2(
    app: typer.Typer, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from affectlens import cli

    monkeypatch.setattr(cli, "app", app)
    (tmp_path / "note.txt").write_text("mine")
    mistakes: dict[str, list[object]] = {
        "not 1": [base], "not a run folder": [base, tmp_path], "has no target": [base, base, "--target", "joy"],
        "is a file and no .html": [base, base, "--out", tmp_path / "note.txt"],
    }  # fmt: skip
    for said, given in mistakes.items():
        monkeypatch.setattr(sys, "argv", ["affectlens", "compare", *map(str, given)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert said in err
        assert len(err.strip().splitlines()) == 1
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_a_damaged_parquet_is_the_users_to_mend(base: Path, better: Path, report: ProbeReport, tmp_path: Path) -> None:
    broken = write(tmp_path / "b", report)
    write_parquet(broken / "results" / "affect.scores.parquet", report.scores)
    (broken / "results" / "affect.held_out.parquet").write_text("no parquet")
    with pytest.raises(RunError, match="are damaged"):
        compare(base, broken)
