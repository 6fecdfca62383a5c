"""The evaluation as a whole, on a tiny model with judges whose rule is known."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from affectlens.errors import RunError, SteerError
from affectlens.run import Run
from affectlens.steering import Directions
from affectlens.steering.evaluating import study as module
from affectlens.steering.evaluating.asking import asked, conversations
from affectlens.steering.evaluating.bundling import bundle
from affectlens.steering.evaluating.parts import methods_beside
from affectlens.steering.evaluating.prompts import PROMPTS
from affectlens.steering.evaluating.study import evaluate, reload
from affectlens.steering.evaluating.work import Scale, Work
from affectlens.steering.judging.verdicts import Verdicts
from affectlens.stimuli.auditing.wording import emotion_words
from affectlens.stimuli.battery import load_battery
from affectlens.stimuli.taxonomy import EMOTIONS
from affectlens.testing import tiny_model

SMALL = Scale((0.3, 0.6), 2, 6, 9, 8, 4, (("joy", "fear"),), ("others", "keyword"), (1.0,), (), 1)


class Counting:
    """A judge that goes by a text's length, and has seen nothing else."""

    labels = (*EMOTIONS, "neutral")

    def __init__(self, name: str) -> None:
        self.name = name
        self.read: list[str] = []

    def judge(self, texts: Sequence[str], *, progress: bool | None = None) -> Verdicts:
        self.read += texts
        p = np.eye(9)[[len(text) % 9 for text in texts]] * 0.9 + 0.01
        return Verdicts(self.name, self.labels, p, np.zeros(len(texts), dtype=bool))

    def trust(self) -> pd.DataFrame:
        return pd.DataFrame({
            "source": ["planted"], "class": ["joy"], "n": [10], "recall": [0.5], "recall.low": [0.4],
            "recall.high": [0.6], "false_alarm": [0.1], "false_alarm.low": [0.0], "false_alarm.high": [0.2],
        })  # fmt: skip


def judges() -> list[Counting]:
    return [Counting("encoder"), Counting("likelihood")]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Counting]]:
    folder, readers = tmp_path_factory.mktemp("steer") / "run", judges()
    evaluate(tiny_model("llama"), battery="starter", out=folder, judges=readers, scale=SMALL, emotions=["joy", "grief"],
          progress=False)  # fmt: skip
    return folder, readers


def test_the_run_holds_everything(done: tuple[Path, list[Counting]]) -> None:
    folder, readers = done
    run, report = reload(folder)
    assert run.info["status"] == "done"
    assert (folder / "report.html").stat().st_size > 10_000
    kept = Directions.load(folder / "directions.safetensors")
    assert kept.emotions == ("joy", "sadness")
    assert {e: kept[e][0].safe for e in kept.emotions} == report.safe
    rows = report.replies
    placebos = {"random", "shuffled", "orthogonal", "mean"}
    assert set(rows["condition"]) - placebos == {"plain", "steer", "prompted", "fewshot"}  # fmt: skip
    assert "heads" in run.info["left_out"], "two halves of whole domains don't hold both emotions"
    plain = rows[rows["condition"] == "plain"]
    assert sorted(plain["half"]) == ["choose", "choose", "report", "report"]
    random = rows[rows["condition"] == "random"]
    assert random["draw"].nunique() == 9
    assert set(random["half"]) == {"report"}
    steered = rows[(rows["condition"] == "steer") & (rows["method"] == "centred, against neutral")]
    assert set(steered.loc[steered["emotion"] == "joy", "dose"]) == {0.3, 0.6}
    assert set(rows["method"]) >= {
        "centred, against neutral",
        "centred, against others",
        "centred, keyword-rich, against others",
    }
    every = [text for reader in readers for text in reader.read]
    assert not any("joy" in text or "plain" in text for text in every), "a judge sees replies and nothing else"
    assert np.isfinite(rows["ppl"].to_numpy()).all()


def test_a_stopped_run_goes_on_behind_what_it_has(
    done: tuple[Path, list[Counting]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_work: Work, _condition: str) -> pd.DataFrame:
        raise KeyboardInterrupt

    folder, model = tmp_path / "run", tiny_model("llama")
    how = {"battery": "starter", "scale": SMALL, "emotions": ["joy", "grief"], "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(Work, "_asked", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, out=folder, judges=judges(), **how)  # type: ignore[arg-type]
    assert Run.open(folder).info["status"] == "stopped"
    with pytest.raises(RunError, match="no finished evaluation"):
        reload(folder)
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    again = judges()
    _, report = evaluate(model, out=folder, resume=True, judges=again, **how)  # type: ignore[arg-type]
    assert {name: (folder / "results" / name).stat().st_mtime_ns for name in before} == before
    _, whole = reload(done[0])
    pd.testing.assert_frame_equal(report.replies, whole.replies)
    with pytest.raises(RunError, match="begun with another model"):
        evaluate(tiny_model("llama", seed=2), out=folder, resume=True, judges=judges(), **how)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="begun with another plan"):
        evaluate(model, out=folder, resume=True, judges=judges(), seed=7, **how)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="exists already"):
        evaluate(model, out=folder, judges=judges(), **how)  # type: ignore[arg-type]


def test_parts_that_cannot_be_selected_are_left_out_and_named(tmp_path: Path) -> None:
    """Fear has too few scenes in the starter battery for two halves of whole domains."""
    small = Scale((0.3,), 2, 4, 3, 0, 4, heads=(1.0,), shots=1)
    run, report = evaluate(tiny_model("llama"), battery="starter", out=tmp_path / "run", judges=judges(), scale=small,
                        emotions=["fear"], progress=False)  # fmt: skip
    assert "heads" in run.info["left_out"]
    assert "heads" not in set(report.replies["condition"])
    assert report.facts["left_out"] == run.info["left_out"]


def test_prompts_name_no_emotion_and_halves_share_none() -> None:
    assert len(set(PROMPTS)) == 32
    assert not [prompt for prompt in PROMPTS if emotion_words(prompt)]
    prompts = asked(16)
    assert {half for _, half, _ in prompts} == {"choose", "report"}
    assert len({name for name, _, _ in prompts}) == 32
    with pytest.raises(SteerError, match="ask for 2 or more"):
        asked(17)


def test_examples_are_of_the_emotion_and_keyword_free() -> None:
    battery = load_battery("starter")
    said = conversations(["Hello."] * 2, "fewshot", "joy", battery, shots=2, seed=1)
    assert said == conversations(["Hello."] * 2, "fewshot", "joy", battery, shots=2, seed=1)
    items = battery.frame().set_index("text")
    for turns in said:
        shown = [turn["content"] for turn in turns if turn["role"] == "assistant"]
        assert len(set(shown)) == 2
        assert all(items.loc[text, "emotion"] == "joy" and items.loc[text, "role"] == "emotional" for text in shown)
        assert turns[-1] == {"role": "user", "content": "Hello."}
    assert "in a joyful mood" in conversations(["Hello."], "prompted", "joy", battery)[0][0]["content"]


def test_a_model_without_bundled_directions_gets_its_own() -> None:
    model = tiny_model("llama")
    found = module._directions(model, None, load_battery("starter"), 0, False)
    assert {d.site for d in found} == {f"L{module.layer_of(model)}.resid_post"}


def test_a_bundle_carries_its_figures(done: tuple[Path, list[Counting]], tmp_path: Path) -> None:
    _, report = reload(done[0])
    if not any(report.safe.values()):
        with pytest.raises(SteerError, match="no safe dose"):
            bundle(done[0], tmp_path)
        return
    path = bundle(done[0], tmp_path)
    for one in Directions.load(path):
        assert one.safe == report.safe[one.emotion]
        rows = one.facts["evaluation"]["table"]
        assert all(row["emotion"] == one.emotion for row in rows)
        assert bool(rows) == (one.safe is not None)


def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = tiny_model("llama")
    one = module._directions(model, None, load_battery("starter"), 0, False).only("joy").all[0]
    for strange, message in (
        (replace(one, emotion="formality"), "formality is none"),
        (replace(one, method="imported"), "can't be evaluated"),
        (replace(one, position=""), "can't be evaluated"),
    ):
        with pytest.raises(SteerError, match=message):
            evaluate(model, directions=Directions([strange]), battery="starter", out=tmp_path / "run", judges=judges(),
                     scale=SMALL, progress=False)  # fmt: skip
        assert not (tmp_path / "run").exists()
    fear = replace(one, emotion="fear", facts=one.facts | {"against": "others"})
    with pytest.raises(SteerError, match="one method at a time"):
        evaluate(model, directions=Directions([one, fear]), battery="starter", out=tmp_path / "run", judges=judges(),
                 scale=SMALL, progress=False)  # fmt: skip
    assert methods_beside(Directions([fear]), ("others", "keyword")) == ["keyword"]


def test_the_choosing_half_is_not_judged(done: tuple[Path, list[Counting]]) -> None:
    _, report = reload(done[0])
    chosen = report.replies[report.replies["half"] == "choose"]
    assert len(chosen)
    assert set(chosen["encoder"]) == {""}
    assert chosen["encoder.p"].isna().all()
    read = report.replies[report.replies["half"] == "report"]
    assert list(read["encoder"]) == Counting("encoder").judge(read["reply"].tolist()).best
