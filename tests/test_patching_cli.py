"""``affectlens patch`` and ``affectlens ablate`` as a user types them, on a tiny model in a folder."""

import html
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from affectlens.model import LensModel, load_model
from affectlens.patching import counting, parts, plans, study
from affectlens.patching.ablation import AblationSweep
from affectlens.patching.choosing import runner_for
from affectlens.patching.engine import Engine
from affectlens.patching.job import Job
from affectlens.patching.named import CUE, named_metrics
from affectlens.patching.results import PatchSweep
from affectlens.patching.settings import AblatePlan, PatchPlan, Settings, to_config
from affectlens.patching.walking import Blocks
from affectlens.run import Run
from affectlens.stimuli import load_battery
from affectlens.testing import tiny_hf, tiny_tokenizer
from tests.conftest import Typed

EMOTIONS = ("joy", "sadness", "surprise")
VALENCE = {"joy": 1, "sadness": -1, "surprise": 0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models") / "tiny"
    tiny_hf("llama").save_pretrained(home)
    tiny_tokenizer().save_pretrained(home)
    return home


def items() -> Iterator[dict[str, object]]:
    """Twelve pairs, three quadruples of emotion and two of fact."""
    for i in range(12):
        emotion = EMOTIONS[i % 3]
        for role, end in (("emotional", "fell on him"), ("neutral", "led to him")):
            yield {
                "id": f"{i}.{role}", "text": f"Day {i * i}. The bridge {end}.", "split": "vignettes", "role": role,
                "affect": role == "emotional", "emotion": emotion, "domain": f"d{i % 4}", "group": str(i),
                "valence": VALENCE[emotion] if role == "emotional" else 0,
            }  # fmt: skip
    for i, split in ((0, "crossed"), (1, "crossed"), (2, "crossed"), (3, "crossed_fact"), (4, "crossed_fact")):
        for fact, end in ("ax", "ay", "bx", "by"):
            felt = split == "crossed" and fact + end in ("ax", "by")
            yield {
                "id": f"x{i}.{fact}{end}", "text": f"{i}: {'Ann' if fact == 'a' else 'Bob'} has it. It went to {end}.",
                "split": split, "role": "emotional" if felt else "neutral", "affect": felt, "domain": "d",
                "emotion": EMOTIONS[i] if split == "crossed" else None, "group": f"x{i}", "cell": fact + end,
                "valence": VALENCE[EMOTIONS[i]] if felt else 0,
            }  # fmt: skip


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def battery(tmp_path: Path) -> Path:
    return written(tmp_path / "pairs.jsonl", [row for row in items() if row["split"] == "vignettes"])


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return written(tmp_path / "whole.jsonl", list(items()))


def refused(done: tuple[int, str, str], sentence: str) -> None:
    code, out, err = done
    assert code == 2, err
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def strict(text: str) -> Any:
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def spied(monkeypatch: pytest.MonkeyPatch, name: str) -> list[dict[str, Any]]:
    """What a library function that the parts call is given; it still does its work."""
    calls: list[dict[str, Any]] = []
    real = getattr(parts, name)

    def spy(model: LensModel, pairs: Any, **given: Any) -> Any:
        calls.append(given | {"pairs": pairs})
        return real(model, pairs, **given)

    monkeypatch.setattr(parts, name, spy)
    return calls


def test_a_patch_run_both_ways(typed: Typed, tiny: Path, battery: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, said, err = typed(
        "patch", tiny, "--battery", battery, "--direction", "both", "--site", "L0.resid_post", "--site",
        "L1.resid_post", "--site", "L1.z.each", "--metric", "affect", "--metric", "said_category",
        "--position", "changed", "--position", "-1", "--position",
        "each", "--control", "random", "--pairs", "2", "--out", out, "-q",
    )  # fmt: skip
    assert (code, said.strip(), err) == (0, str(out / "report.html"), "")
    info = json.loads((out / "run.json").read_text())
    assert (info["command"], info["status"], info["parts"]) == ("patch", "done", ["denoise", "noise"])
    assert {"load", "read-outs", "denoise", "noise"} <= set(info["timings"])
    for way in ("denoise", "noise"):
        sweep = PatchSweep.load(out / way)
        assert (sweep.meta["direction"], sweep.meta["battery"]) == (way, "pairs")
        assert sweep.meta["battery_sha256"] == load_battery(battery).sha256
        assert set(sweep.table["segment"]) >= {"changed", "-1"}
        assert (sweep.table["position"] >= 0).any()
        assert not (out / way / "kept").exists()
    page = (out / "report.html").read_text()
    titles = ("What was found", "Affect", "Said category", "Denoise and noise", "Methods", "by layer and segment",
              "by depth", "by head", "token of the text that was run", "each cell both ways", "@misc{heimersheim",
              "baselines", "effects less each control&#39;s", "fitted on other groups", "max-T", "1e-4")  # fmt: skip
    assert [title for title in titles if title not in page] == []


def test_what_is_typed_reaches_the_sweep(
    typed: Typed, tiny: Path, battery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spied(monkeypatch, "patch")
    named: list[dict[str, Any]] = []
    real = named_metrics

    def naming(*args: Any, **given: Any) -> Any:
        named.append(given)
        return real(*args, **given)

    monkeypatch.setattr(study, "named_metrics", naming)
    out = tmp_path / "run"
    typed(
        "patch", tiny, "--battery", battery, "--contrast", "emotional/neutral", "--site", "L1.mlp_out", "--position",
        "span:bridge", "--direction", "noise", "--metric", "affect", "--control", "random", "--control",
        "wrong_position", "--pairs", "5", "--cue", " Now", "--layer", "0", "--seed", "3", "--memory", "0.5",
        "--device", "cpu", "--dtype", "float32", "--out", out, "-q",
    )  # fmt: skip
    (call,) = calls
    assert call["sites"] == ["L1.mlp_out"]
    assert (call["positions"], call["direction"]) == (("span:bridge",), "noise")
    assert call["controls"] == ("random", "wrong_position")
    assert (call["seed"], call["memory"], call["progress"]) == (3, 0.5, False)
    assert {pair.cue for pair in call["pairs"]} == {" Now"}
    assert len({pair.group for pair in call["pairs"]}) == 5
    assert call["metric"][0].layers == {0}
    assert [(one["layer"], one["cue"], one["seed"]) for one in named] == [(0, " Now", 3)]
    config = json.loads((out / "run.json").read_text())["config"]
    assert (config["device"], config["dtype"], config["contrast"]) == ("cpu", "float32", "emotional/neutral")


def test_defaults_and_quick_and_no_controls(
    typed: Typed, tiny: Path, battery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spied(monkeypatch, "patch")
    rest = ("--battery", battery, "--metric", "said_category", "-q", "--out")
    typed("patch", tiny, "--pairs", "3", *rest, tmp_path / "a")
    typed("patch", tiny, "--quick", "--pairs", "2", *rest, tmp_path / "b")
    typed("patch", tiny, "--no-controls", "--cue", "", "--pairs", "2", *rest, tmp_path / "c")
    assert [call["sites"] for call in calls] == [["L0.resid_post", "L1.resid_post"], ["L0.resid_post"], [
        "L0.resid_post", "L1.resid_post"]]  # fmt: skip
    assert [len(call["controls"]) for call in calls] == [4, 2, 0]
    assert [call["positions"][-2] for call in calls] == ["cue", "cue", "ending"]
    assert calls[0]["pairs"][0].cue == CUE
    assert Settings("m").groups == 32
    assert Settings("m", quick=True).groups == 12


def test_conversations(
    typed: Typed, tiny: Path, battery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spied(monkeypatch, "patch")
    home = tmp_path / "talking"
    shutil.copytree(tiny, home)
    (home / "chat_template.jinja").write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<a>")
    rest = ("--battery", battery, "--chat", "--metric", "affect", "--metric", "said_category", "--pairs", "2", "-q")
    assert typed("patch", home, "--cue", "", *rest, "--out", tmp_path / "run")[0] == 0
    assert all(metric.chat for metric in calls[0]["metric"] if metric.cue is not None)
    assert all(pair.chat for pair in calls[0]["pairs"])
    assert "as the user's message" in page_of(tmp_path / "run")
    refused(typed("patch", tiny, *rest, "--out", tmp_path / "other"), "chat template")


def page_of(out: Path) -> str:
    return html.unescape((out / "report.html").read_text())


def test_many_layers_are_thinned(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "LAYERS", 1)
    assert plans.sites_of(llama, Settings("m"), PatchPlan()) == ["L0.resid_post"]
    assert plans.sites_of(llama, Settings("m"), AblatePlan()) == ["L0.attn_out", "L0.mlp_out"]
    assert plans.sites_of(llama, Settings("m"), PatchPlan(("resid_post",))) == ["resid_post"]
    assert plans.sites_of(llama, Settings("m", quick=True), PatchPlan(("heads", "L1.z"))) == ["L0.z.each", "L1.z"]


def test_a_killed_run_goes_on_pair_by_pair(
    typed: Typed, tiny: Path, battery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = ("patch", tiny, "--battery", battery, "--metric", "affect", "--metric", "valence", "--pairs", "4")
    typed(*rest, "--out", tmp_path / "plain", "-q")
    out, real = tmp_path / "run", Job.rows
    done: list[str] = []

    def stopping(self: Job, pair: Any, *more: Any) -> pd.DataFrame:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(pair.name)
        return real(self, pair, *more)

    monkeypatch.setattr(Job, "rows", stopping)
    stopped = typed(*rest, "--out", out)
    refused(stopped, f"Stopped. What was computed is kept; continue with: affectlens patch --resume {out}")
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    refused(typed("report", out), "holds nothing finished yet: continue it with affectlens patch --resume")
    first = list(done)

    def noting(self: Job, pair: Any, *more: Any) -> pd.DataFrame:
        done.append(pair.name)
        return real(self, pair, *more)

    monkeypatch.setattr(Job, "rows", noting)
    code, said, err = typed("patch", "--resume", out, "-q")
    assert (code, said.strip(), err) == (0, str(out / "report.html"), "")
    assert len(done) == len(set(done)) == 4
    assert done[:2] == first
    one, two = (PatchSweep.load(home / "denoise") for home in (tmp_path / "plain", out))
    pd.testing.assert_frame_equal(one.table, two.table)
    assert one.meta == two.meta
    typed("patch", "--resume", out, "-q")
    assert len(done) == 4


def test_resume_takes_no_other_settings(typed: Typed, tiny: Path, battery: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    rest = ("--battery", battery, "--metric", "said_category", "--pairs", "2", "-q")
    typed("patch", tiny, *rest, "--out", out)
    for other in (("--seed", "1"), ("--no-controls",), ("--out", "x"), (tiny,), ("--metric", "kl"), ("--quick",)):
        refused(typed("patch", *other, "--resume", out), "leave out MODEL and all options but --memory")
    refused(typed("ablate", "--resume", out), "is a run of patch, not of ablate")
    assert typed("patch", "--resume", out, "--memory", "0.1", "-q")[0] == 0
    info = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(info | {"fingerprint": "0" * 32}))
    refused(typed("patch", "--resume", out), "was begun with another model")
    (out / "run.json").write_text(json.dumps(info | {"battery_sha256": "0" * 64}))
    refused(typed("patch", "--resume", out), "was begun with another battery")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("patch",), "Name a model, for example: affectlens patch smollm2-135m"),
        (("ablate",), "Name a model, for example: affectlens ablate smollm2-135m"),
        (("patch", "--resume", "nowhere"), "nowhere is not a run folder"),
        (("patch", "TINY", "--metric", "mood"), "There is no metric 'mood'; choose from affect"),
        (("patch", "TINY", "--site", "L9.resid_post"), "L9"),
        (("patch", "TINY", "--site", "brain"), "brain"),
        (("patch", "TINY", "--position", "middle"), "There is no position 'middle'"),
        (("patch", "TINY", "--position", "3"), "Position 3 is counted from the start"),
        (("patch", "TINY", "--direction", "up"), "direction is 'up'; choose denoise, noise or both."),
        (("patch", "TINY", "--control", "placebo"), "There is no control 'placebo'"),
        (("patch", "TINY", "--control", "random", "--no-controls"), "exclude one another"),
        (("patch", "TINY", "--contrast", "ax/bx"), "pairs has no pairs 'ax/bx'; it has emotional/neutral."),
        (("patch", "TINY", "--crossed"), "pairs has no crossed quadruples"),
        (("patch", "TINY", "--crossed", "--direction", "noise"), "leave out --direction"),
        (("patch", "TINY", "--crossed", "--position", "each"), "leave out --position each"),
        (("patch", "TINY", "--layer", "2"), "layer is 2; "),
        (("patch", "TINY", "--memory", "0"), "memory is 0.0 GB"),
        (("patch", "tinyy"), "There is no model 'tinyy'"),
        (("ablate", "TINY", "--kind", "direction"), "kind is 'direction'; choose zero, mean or resample."),
        (("ablate", "TINY", "--position", "each"), "There is no span 'each'"),
        (("ablate", "TINY", "--knockout", "changed"), "--knockout is 'changed': name two spans"),
        (("ablate", "TINY", "--knockout", "changed:first"), "There is no span 'first'"),
        (("ablate", "TINY", "--window", "2"), "--window is how many layers a knockout cuts"),
        (("ablate", "TINY", "--knockout", "changed:last", "--window", "3"), "window is 3"),
        (("ablate", "TINY", "--knockout", "changed:last", "--cumulative"), "name some, --site attn_out"),
        (("ablate", "TINY", "--site", "pattern"), "Patterns are not ablated"),
    ],
)  # fmt: skip
def test_bad_arguments_get_a_sentence(
    typed: Typed, tiny: Path, battery: Path, tmp_path: Path, args: tuple[str, ...], sentence: str
) -> None:
    said = [str(tiny) if one == "TINY" else one for one in args]
    more = ["--battery", str(battery), "--metric", "said_category"] if "TINY" in args and "mood" not in args else []
    named = ["--battery", str(battery)] if "mood" in args else more
    out = [] if "--resume" in args else ["--out", str(tmp_path / "run")]
    refused(typed(*said, *named, *out), sentence)


def test_metrics_that_the_battery_lacks_are_named_and_the_rest_is_done(
    typed: Typed, tiny: Path, tmp_path: Path
) -> None:
    rows = [row | {"valence": 0} for row in items() if row["split"] == "vignettes"]
    path, out = written(tmp_path / "flat.jsonl", rows), tmp_path / "run"
    rest = ("--battery", path, "--pairs", "3", "--site", "L0.resid_post", "--no-controls", "--out")
    code, said, err = typed("patch", tiny, *rest, out, "--json")
    assert code == 0, err
    found = strict(said)
    assert set(found["not measured"]) == {"valence"}
    assert "Target valence needs items of at least two classes" in found["not measured"]["valence"]
    assert {row["metric"] for row in found["results"]["denoise"]["baselines"]} == {"affect", "said_category"}
    assert "Not measured: Target valence needs" in (out / "report.html").read_text()
    other = tmp_path / "other"
    refused(typed("patch", tiny, *rest, other, "--metric", "said_valence"), "said_valence needs 2 groups of pairs whose"
            " clean text is pleasant or unpleasant, and 0 of 12 have one.")  # fmt: skip
    assert not other.exists()


def test_a_battery_too_small_for_read_outs(typed: Typed, tiny: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "few.jsonl", [row for row in items() if row["group"] in list("01234")])
    out = tmp_path / "run"
    rest = ("--battery", path, "--site", "L0.resid_post", "--no-controls", "-q", "--out")
    refused(typed("patch", tiny, "--metric", "affect", *rest, out), "in 8 folds, and this battery has 5 groups for it")
    assert not out.exists()
    typed("patch", tiny, *rest, out)
    assert PatchSweep.load(out / "denoise").metrics == ["said_category"]


def test_pairs_that_a_metric_can_not_be_read_on_are_left_out_of_it(
    typed: Typed, tiny: Path, battery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    typed("patch", tiny, "--battery", battery, "--site", "L0.resid_post", "--no-controls", "-q", "--out", out)
    sweep = PatchSweep.load(out / "denoise")
    read = {name: set(part["emotion"]) for name, part in sweep.table.groupby("metric")}
    assert read == {"affect": set(EMOTIONS), "valence": {"joy", "sadness"}, "said_category": set(EMOTIONS)}
    assert sweep.table[["clean", "corrupt", "value"]].notna().all(axis=None)
    said = "4 of 12 pairs are left out of valence: their clean text is not pleasant or unpleasant."
    assert json.loads((out / "run.json").read_text())["left_out"] == [said]
    assert said in (out / "report.html").read_text()


def test_crossed_quadruples_beside_facts(typed: Typed, tiny: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, said, err = typed("patch", tiny, "--battery", whole, "--crossed", "--metric", "affect", "--metric",
                            "said_category", "--out", out, "--json")  # fmt: skip
    assert code == 0, err
    found = strict(said)
    assert set(found["results"]) == {"crossed", "crossed_fact"}
    assert set(found["not measured"]) == {"said_category in crossed_fact"}
    info = json.loads((out / "run.json").read_text())
    assert info["parts"] == ["crossed/denoise", "crossed/noise", "crossed_fact/denoise", "crossed_fact/noise"]
    done = study.reload(out)
    assert done.flip is not None
    assert {name: sweep.metrics for name, sweep in done.flip.sweeps.items()} == {
        "crossed": ["affect", "said_category"], "crossed_fact": ["affect"],
    }  # fmt: skip
    assert set(done.said["crossed/noise"].sweep.pairs["contrast"]) == {"ax/bx", "by/ay"}
    page = (out / "report.html").read_text()
    assert "Does patching the facts turn d?" in page
    assert "d turned, by split and emotion" in page
    assert "Denoise and noise" not in page


def test_quadruples_that_lack_a_cell_are_left_out(typed: Typed, tiny: Path, tmp_path: Path) -> None:
    some = written(tmp_path / "some.jsonl", [row for row in items() if row["id"] != "x2.by"])
    rest = ("--crossed", "--metric", "affect", "-q", "--out", tmp_path / "run")
    assert typed("patch", tiny, "--battery", some, *rest)[0] == 0
    sweep = study.reload(tmp_path / "run").said["crossed/denoise"].sweep
    assert sorted(sweep.pairs["group"]) == ["x0", "x0", "x1", "x1"]
    none = written(tmp_path / "none.jsonl", [row for row in items() if row["id"] not in ("x3.ax", "x4.by")])
    refused(typed("patch", tiny, "--battery", none, *rest), "crossed_fact of none has no quadruple with all four")


def test_report_redraws(typed: Typed, tiny: Path, battery: Path, tmp_path: Path) -> None:
    rest = ("--battery", battery, "--metric", "said_category", "--pairs", "3", "-q", "--out")
    for command in ("patch", "ablate"):
        out = tmp_path / command
        typed(command, tiny, *rest, out)
        page = (out / "report.html").read_text()
        (out / "report.html").unlink()
        assert typed("report", out, "-q")[1].strip() == str(out / "report.html")
        assert (out / "report.html").read_text() == page
        assert "said_category" in typed("report", out)[1]


def test_ablations_reach_the_library_and_are_told(
    typed: Typed, tiny: Path, battery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swaps, cuts = spied(monkeypatch, "ablate"), spied(monkeypatch, "knockout")
    out = tmp_path / "run"
    code, said, err = typed(
        "ablate", tiny, "--battery", battery, "--site", "attn_out", "--site", "L1.mlp_out", "--kind", "resample",
        "--position", "ending", "--position", "span:bridge", "--cumulative", "--knockout", "changed:last",
        "--knockout", "span:bridge:ending", "--window", "2", "--heads", "--metric", "said_category", "--pairs", "3",
        "--seed", "2", "--memory", "0.5", "--out", out, "--json",
    )  # fmt: skip
    assert code == 0, err
    (swap,), (cut,) = swaps, cuts
    assert (swap["sites"], swap["kind"], swap["cumulative"]) == (["attn_out", "L1.mlp_out"], "resample", True)
    assert (swap["positions"], swap["control"]) == (("ending", "span:bridge"), True)
    assert (cut["edges"], cut["window"], cut["heads"]) == ([("changed", "last"), ("span:bridge", "ending")], 2, True)
    assert [(one["seed"], one["memory"], len(one["pairs"])) for one in (swap, cut)] == [(2, 0.5, 3)] * 2
    found = strict(said)["results"]
    assert set(found) == {"ablation", "knockout"}
    assert found["ablation"]["rates"]
    assert AblationSweep.load(out / "knockout").meta["ablation"] == "knockout"
    page = (out / "report.html").read_text()
    titles = ("Ablating emotion in", "accuracy and changed tokens", "values of a text of another group",
              "@inproceedings{geva2023", "random change")  # fmt: skip
    assert [title for title in titles if title not in page] == []


def test_what_is_ablated_if_little_is_typed(
    typed: Typed, tiny: Path, battery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swaps, cuts = spied(monkeypatch, "ablate"), spied(monkeypatch, "knockout")
    rest = ("--battery", battery, "--metric", "said_category", "--pairs", "2", "-q", "--out")
    typed("ablate", tiny, *rest, tmp_path / "a")
    typed("ablate", tiny, "--heads", "--no-controls", *rest, tmp_path / "b")
    typed("ablate", tiny, "--knockout", "changed:last", *rest, tmp_path / "c")
    assert [call["sites"] for call in swaps] == [
        ["L0.attn_out", "L1.attn_out", "L0.mlp_out", "L1.mlp_out"], ["heads"]]  # fmt: skip
    assert [call["control"] for call in swaps] == [True, False]
    assert [call["heads"] for call in cuts] == [False]
    assert not (tmp_path / "c" / "ablation").exists()


def test_a_dry_run_writes_nothing(
    typed: Typed, tiny: Path, battery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    for command in ("patch", "ablate"):
        code, said, err = typed(command, tiny, "--battery", battery, "--dry-run", "--json")
        assert code == 0, err
        facts = strict(said)
        assert facts["token-layers (millions)"] > 0
        assert facts["sweep (seconds)"] > 0
        assert facts["metrics"] == "affect, valence, said_category"
    assert set(tmp_path.rglob("*")) == before
    refused(typed("patch", tiny, "--battery", battery, "--dry-run", "--metric", "mood"), "There is no metric")


@pytest.mark.parametrize(
    "plan",
    [PatchPlan(("resid_post", "L1.z.each", "pattern"), ("changed", "last"), ("denoise", "noise")),
     PatchPlan(crossed=True), AblatePlan(positions=("text", "ending")),
     AblatePlan(kind="zero", cumulative=True, control=False),
     AblatePlan((), edges=("changed:last",), heads=True)],
)  # fmt: skip
def test_the_forecast_counts_what_is_computed(
    plan: PatchPlan | AblatePlan, tiny: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(str(tiny), str(whole), "emotional/neutral", ("affect", "said_category"), pairs=3)
    table = load_battery(whole)
    model = load_model(str(tiny), progress=False)
    runner = runner_for(model)
    asked = parts.question(table, settings, plan)
    made = parts.parts_of(model, asked, settings, plan)
    metrics = named_metrics(model, table, ["affect", "said_category"], progress=False)
    done = 0
    real = Blocks.step

    def counted(self: Blocks, layer: int, x: torch.Tensor, *more: Any) -> torch.Tensor:
        nonlocal done
        done += x.shape[0] * x.shape[1]
        return real(self, layer, x, *more)

    monkeypatch.setattr(Blocks, "step", counted)
    for number, part in enumerate(made):
        done = 0
        part.work(metric=[one for one in metrics if one.name in part.rules], progress=False)
        needs = counting.needs_of(model, part, settings, plan)
        assert isinstance(runner, Engine)
        sizes = [counting.size(model, runner, load, needs)[0] for load in counting.loads(model, part, settings, plan)]
        assert sum(sizes) == done, (number, part.name)


def test_settings_survive_run_json(tmp_path: Path) -> None:
    settings = Settings("m", metrics=("kl",), pairs=3, cue="", layer=0, quick=True, memory=0.5)
    for plan in (
        PatchPlan(("heads",), ("last", -1), ("noise",), (), True),
        AblatePlan(("z",), edges=("a:b",), window=2),
    ):
        command = "patch" if isinstance(plan, PatchPlan) else "ablate"
        run = Run.create(tmp_path / command, command=command, config=to_config(settings, plan))
        assert study.asked_of(run.folder, command) == (settings, plan)


@pytest.mark.real
def test_the_real_model(typed: Typed, smol: LensModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "load_model", lambda *_, **__: smol)
    out = tmp_path / "run"
    code, said, err = typed("patch", "smollm2-135m", "--quick", "--pairs", "2", "--metric", "said_category",
                            "--position", "last", "--control", "random", "--out", out, "--json")  # fmt: skip
    assert code == 0, err
    (row,) = strict(said)["results"]["denoise"]["baselines"]
    assert row["pairs"] == 2
    assert row["gap"] > 0
    sweep = PatchSweep.load(out / "denoise")
    assert sweep.meta["n_layers"] == 30
    assert set(sweep.table["layer"]) == set(range(0, 30, 3))
