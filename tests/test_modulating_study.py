"""Modulation beside steering and prompting, on tiny models with judges whose rule is known."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from affectlens.circuits.modulating import Comparison, Extent, Modulation, compare, comparing, modulation_of, section
from affectlens.circuits.modulating.outcomes import curves, difference, outcomes
from affectlens.circuits.modulating.trial import Trial, choices
from affectlens.circuits.modulating.words import above
from affectlens.errors import CircuitError, RunError
from affectlens.model import LensModel
from affectlens.run import Run
from affectlens.steering import Directions
from affectlens.steering.evaluating.placebo import BH, MAX_T, corrected, rank
from affectlens.steering.evaluating.quality import quality
from affectlens.steering.evaluating.safety import Choice
from affectlens.steering.judging.verdicts import Verdicts
from affectlens.stimuli.battery import load_battery
from affectlens.stimuli.taxonomy import EMOTIONS
from affectlens.testing import tiny_model

SMALL = Extent((2.0, 30.0), (1.0, 60.0), (0.2, 0.8), 2, 6, 3, 40, (1.5, 1000.0))
PARTS = ["L0.H1", "L1.H2", "L0.N7"]


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
def made(llama: LensModel) -> Modulation:
    items = load_battery("starter").frame()
    scenes = items[(items["emotion"] == "joy") & (items["role"] == "emotional")]["group"].unique()[:4].tolist()
    return modulation_of(llama, PARTS, emotion="joy", battery="starter", groups=scenes, progress=False)


@pytest.fixture(scope="module")
def done(
    llama: LensModel, made: Modulation, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Comparison, list[Counting]]:
    folder, readers = tmp_path_factory.mktemp("modulate") / "run", judges()
    _, found = compare(llama, made, out=folder, battery="starter", judges=readers, scale=SMALL, progress=False)
    return folder, found, readers


def test_the_run_holds_everything(done: tuple[Path, Comparison, list[Counting]], made: Modulation) -> None:
    folder, found, readers = done
    assert Run.open(folder).info["status"] == "done"
    assert (folder / "report.html").stat().st_size > 10_000
    again = Comparison.load(folder)
    pd.testing.assert_frame_equal(again.replies, found.replies)
    pd.testing.assert_frame_equal(again.outcomes, found.outcomes)
    assert again.summary() == found.summary()
    assert Modulation.load(folder / "modulation.joy.safetensors").parts == made.parts
    directions = Directions.load(folder / "directions.safetensors")
    assert directions.emotions == ("joy",)
    assert directions.all[0].facts["against"] == "neutral"
    rows = found.replies
    assert set(rows["condition"]) == {"plain", "scale", "replace", "steer", "prompted", "random scale",
                                      "random replace", "random steer"}  # fmt: skip
    random = rows[rows["condition"] == "random scale"]
    assert set(random["half"]) == {"report"}
    assert random["draw"].nunique() == 3
    assert set(rows.loc[rows["condition"] == "scale", "dose"]) == {1.0, 29.0}
    assert not any("joy" in text for reader in readers for text in reader.read)
    calm = load_battery("starter").frame().set_index("id").loc[list(found.neutral["text"].unique())]
    assert not set(calm["group"]) & set(made.groups), "neutral texts are of other scenes than the means"
    assert set(found.neutral["condition"]) == {"scale", "replace", "steer", "prompted"}


def test_it_says_draws_and_tabulates(done: tuple[Path, Comparison, list[Counting]]) -> None:
    found = done[1]
    said = " ".join(found.summary())
    assert "Replies called joy by encoder" in said
    assert "Nothing could have been shown of residual steering for joy" in said, "2 prompts, 3 draws"
    assert "surely above" not in said
    facts = found.facts["modulations"][0]
    assert facts["placebos"] == 3
    assert 0 <= facts["placebo_overlap"] < 1
    assert {"scale", "replace", "steer", "prompted"} >= set(found.table(budget=1000.0)["way"])
    every = section(found)
    assert len(every.figures) == 2
    drawn: Any = found.plot().data
    assert {trace.name for trace in drawn} >= {"scaling the circuit", "residual steering", "prompting"}
    assert "Benjamini" in every.methods
    with pytest.raises(CircuitError, match="judged by"):
        found.plot("nobody")


def scaled(one: Modulation, by: float) -> Modulation:
    """With all means a little otherwise."""
    means: dict[str, Any] = {
        of: {site: (mean * by).astype(np.float32) for site, mean in getattr(one, of).items()}
        for of in ("neutral", "target")
    }
    return replace(one, **means)


def test_a_stopped_run_goes_on_behind_what_it_has(
    llama: LensModel,
    made: Modulation,
    done: tuple[Path, Comparison, list[Counting]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> pd.DataFrame:
        raise KeyboardInterrupt

    folder = tmp_path / "run"
    how: dict[str, Any] = {"out": folder, "battery": "starter", "scale": SMALL, "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(Trial, "_asked", stop)
        with pytest.raises(KeyboardInterrupt):
            compare(llama, made, judges=judges(), **how)
    assert Run.open(folder).info["status"] == "stopped"
    with pytest.raises(RunError, match="no finished comparison"):
        Comparison.load(folder)
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    assert "step.scale.joy.parquet" in before
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "extract", stop)
        _, found = compare(llama, made, judges=judges(), resume=True, **how)
    assert {name: (folder / "results" / name).stat().st_mtime_ns for name in before} == before
    pd.testing.assert_frame_equal(found.replies, done[1].replies)
    with pytest.raises(RunError, match="begun with another plan"):
        compare(llama, made, judges=judges(), resume=True, seed=5, **how)
    with pytest.raises(RunError, match="begun with another plan"):
        other = modulation_of(llama, ["L0.H2"], emotion="joy", battery="starter", progress=False)
        compare(llama, other, judges=judges(), resume=True, **how)
    rounded = scaled(made, 1 + 1e-6)
    assert not np.array_equal(rounded.neutral["L0.z"], made.neutral["L0.z"])
    _, again = compare(llama, rounded, judges=judges(), resume=True, **how)
    pd.testing.assert_frame_equal(again.replies, found.replies)
    with pytest.raises(RunError, match="other weights, means or directions"):
        compare(llama, scaled(made, 1.01), judges=judges(), resume=True, **how)
    with pytest.raises(RunError, match="exists already"):
        compare(llama, made, judges=judges(), **how)


def test_mistakes_are_said_before_anything_is_written(llama: LensModel, made: Modulation, tmp_path: Path) -> None:
    how: dict[str, Any] = {"out": tmp_path / "run", "judges": judges(), "scale": SMALL, "progress": False}
    with pytest.raises(CircuitError, match="not of"):
        compare(tiny_model("llama", seed=4), made, battery="starter", **how)
    with pytest.raises(CircuitError, match="of one emotion"):
        compare(llama, [made, made], battery="starter", **how)
    with pytest.raises(CircuitError, match="are of starter, not of core"):
        compare(llama, made, battery="core", **how)
    with pytest.raises(CircuitError, match="nothing to compare"):
        compare(llama, [], battery="starter", **how)
    with pytest.raises(CircuitError, match="Gains are above 1"):
        Extent((1.0, 2.0), (1.0,), (0.1,), 2, 4, 3, 4)
    assert not (tmp_path / "run").exists()


def planted(
    shares: dict[str, float], costs: dict[str, list[float]], *, n: int = 12, draws: int = 39
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Replies whose rate of `joy` and whose perplexity by dose are known, and neutral texts that cost nothing."""
    rng, rows, texts = np.random.default_rng(0), [], []
    fine = "We went to the shore and found a small blue boat there."

    def reply(condition: str, dose: float, prompt: int, half: str, rate: float, ppl: float, draw: int = 0) -> None:
        label = "joy" if (prompt % 100 + 0.5) / n < rate or rng.random() < 0 else "neutral"
        rows.append({
            "condition": condition, "method": "m" if condition != "plain" else "", "site": "s",
            "emotion": "" if condition == "plain" else "joy", "dose": dose, "draw": draw, "prompt": f"{half}{prompt}",
            "half": half, "seed": 0, "reply": fine, "n_new": 9, "ppl": 10 * ppl,
            "judge": label, "judge.p": 0.5, "judge.masked": label,
        })  # fmt: skip

    for half in ("choose", "report"):
        for prompt in range(n):
            reply("plain", 0.0, prompt, half, shares["plain"], 1.0)
            for way, each in costs.items():
                for dose, cost in enumerate(each, start=1):
                    reply(way, float(dose), prompt, half, shares[way] * dose / len(each), cost)
                    if half == "report" and way != "prompted":
                        for draw in range(draws):
                            reply(f"random {way}", float(dose), prompt, half, shares["random"], cost, draw)
    for way, each in costs.items():
        for dose in range(1, 1 + len(each)):
            texts += [{"condition": way, "emotion": "joy", "method": "m", "site": "s", "dose": float(dose),
                       "text": f"t{i}", "nll": 2.0, "plain_nll": 2.0} for i in range(6)]  # fmt: skip
    frame = pd.DataFrame(rows)
    wrong = quality(frame["reply"].tolist())
    return frame.assign(**{str(name): wrong[name] for name in wrong}), pd.DataFrame(texts)


COSTS = {"scale": [1.05, 1.2, 1.4, 3.0], "replace": [1.2, 1.6, 1.3, 1.3], "steer": [1.05, 1.08, 1.45, 1.48],
         "prompted": [1.3]}  # fmt: skip
SHARES = {"plain": 0.1, "random": 0.1, "scale": 0.2, "replace": 0.9, "steer": 1.0, "prompted": 0.8}


def test_doses_are_the_largest_within_the_budget_there_and_below() -> None:
    replies, neutral = planted(SHARES, COSTS)
    chosen = choices(replies, neutral, (1.1, 1.5))
    safe = {key: one.safe for key, one in chosen.items()}
    assert safe == {
        (1.1, "joy", "scale"): 1.0, (1.5, "joy", "scale"): 3.0, (1.1, "joy", "replace"): None,
        (1.5, "joy", "replace"): 1.0, (1.1, "joy", "steer"): 2.0, (1.5, "joy", "steer"): 4.0,
        (1.1, "joy", "prompted"): None, (1.5, "joy", "prompted"): 1.0,
    }  # fmt: skip
    worse = neutral.assign(nll=neutral["nll"].where(neutral["dose"] < 3, 3.0))
    assert choices(replies, worse, (1.5,))[1.5, "joy", "steer"].by == "neutral"
    report = replies.assign(ppl=replies["ppl"].where(replies["half"] == "choose", 1000.0))
    assert {key: one.safe for key, one in choices(report, neutral, (1.1, 1.5)).items()} == safe, "one half chooses"


def test_outcomes_say_what_was_planted() -> None:
    replies, neutral = planted(SHARES, COSTS)
    chosen = choices(replies, neutral, (1.1, 1.5))
    facts = {"emotions": ["joy"], "budgets": [1.1, 1.5], "judges": ["judge"]}
    found = Comparison(replies, neutral, outcomes(replies, neutral, chosen), curves(replies, neutral), pd.DataFrame(),
                       facts)  # fmt: skip
    at: dict[str, Any] = {"emotion": "joy", "judge": "judge"}

    def value(quantity: str, way: str, budget: float = 1.5) -> float:
        one = found.get(quantity, way=way, budget=budget, **at)
        assert one is not None
        assert one.low <= one.value <= one.high
        return one.value

    assert value("share", "steer") == pytest.approx(1.0)
    assert value("less plain", "steer") == pytest.approx(1 - 1 / 12)
    assert value("less steer", "scale") == pytest.approx(2 / 12 - 1.0)
    assert value("less prompted", "steer") == pytest.approx(1 - 10 / 12)
    assert value("less random", "scale") == pytest.approx(1 / 12)
    assert found.get("share", way="replace", budget=1.1, **at) is None, "no dose within the budget"
    assert found.get("share", way="prompted", budget=1.1, **at) is not None, "asking is always there"
    asking = found.outcomes[found.outcomes["way"] == "prompted"]
    assert set(asking.groupby("budget")["within"].first()) == {False, True}
    cost = found.get("cost", way="steer", emotion="joy")
    assert cost is not None
    assert cost.value == pytest.approx(1.48)
    assert above(found, "steer", "joy", "judge", 1.5)
    assert not above(found, "scale", "joy", "judge", 1.5), "one prompt of twelve is not sure"
    random = found.get("less random", way="steer", **at)
    assert random is not None
    assert random.p == pytest.approx(1 / 40)
    tested = found.outcomes[(found.outcomes["quantity"] == "less plain") & (found.outcomes["budget"] == 1.5)]
    assert set(tested["family"]) == {4.0}
    assert (tested["p_adjusted"] >= tested["p"]).all()
    assert "Scaling the circuit is not surely above" in " ".join(found.summary())
    assert "Residual steering is above plain replies and its placebo for joy" in " ".join(found.summary())


def said_of(replies: pd.DataFrame, neutral: pd.DataFrame, **facts: Any) -> tuple[Comparison, str]:
    table = outcomes(replies, neutral, choices(replies, neutral, (1.5,)))
    known = {"emotions": ["joy"], "budgets": [1.5], "judges": ["judge"]} | facts
    found = Comparison(replies, neutral, table, curves(replies, neutral), pd.DataFrame(), known)
    return found, " ".join(found.summary())


def test_ranks_are_corrected_by_the_largest_of_each_draw() -> None:
    """Three ways, all above 39 of 39 placebos, and an emotion that is not: max-T leaves the least p what it is."""
    found, said = said_of(*planted(SHARES | {"scale": 1.0}, COSTS))
    rows = found.outcomes[(found.outcomes["quantity"] == "less random") & ~found.outcomes["masked"]]
    assert set(rows["way"]) == {"scale", "replace", "steer"}
    assert set(rows["correction"]) == {MAX_T}
    assert set(rows["draws"]) == {39}
    np.testing.assert_allclose(rows[["attainable", "least"]], 1 / 40)
    steer = rows[rows["way"] == "steer"].iloc[0]
    assert steer["p_adjusted"] == pytest.approx(1 / 40)
    assert "Nothing could have been shown" not in said
    plain = found.outcomes[found.outcomes["quantity"] == "less plain"]
    assert set(plain["correction"]) == {BH}
    np.testing.assert_allclose(plain["least"], 4 * 2 / 2**12)
    assert (found.outcomes.loc[found.outcomes["p"].isna(), "correction"] == "").all()


def test_one_way_with_a_chance_finding_is_corrected_for_the_others() -> None:
    """Among draws that vary, max-T asks that a share stand above every way's draws, so its p is no smaller."""
    replies, neutral = planted(SHARES, COSTS)
    random = replies["condition"].str.startswith("random")
    hit = np.random.default_rng(3).random(int(random.sum())) < 0.3
    for column in ("judge", "judge.masked"):
        replies.loc[random, column] = np.where(hit, "joy", "neutral")
    found, _ = said_of(replies, neutral)
    rows = found.outcomes[(found.outcomes["quantity"] == "less random") & ~found.outcomes["masked"]]
    assert (rows["p_adjusted"] >= rows["p"]).all()
    assert (rows["p_adjusted"] > rows["p"]).any()
    places = {}
    for i, (_, row) in enumerate(rows.iterrows()):
        mine = replies[(replies["half"] == "report") & (replies["dose"] == row["dose"])]
        place = rank(mine[mine["condition"] == row["way"]], mine[mine["condition"] == f"random {row['way']}"], "judge",
                     "joy")  # fmt: skip
        assert place is not None
        places[i] = place
    assert rows["p_adjusted"].tolist() == [one.p_adjusted for one in corrected(places).values()]


@pytest.mark.parametrize(("draws", "n"), [(9, 12), (39, 4)])
def test_what_could_not_have_been_shown_is_not_said_to_be_absent(draws: int, n: int) -> None:
    found, said = said_of(*planted(SHARES, COSTS, draws=draws, n=n))
    assert "Nothing could have been shown of scaling the circuit for joy" in said
    assert "unchecked" in said
    assert "surely above" not in said
    assert found.outcomes["least"].max() > 0.05


def test_ways_with_fewer_placebos_are_corrected_one_by_one() -> None:
    replies, neutral = planted(SHARES | {"scale": 1.0}, COSTS)
    few = replies["condition"].isin(["random scale", "random replace"]) & (replies["draw"] >= 8)
    found, said = said_of(replies[~few], neutral)
    rows = found.outcomes[(found.outcomes["quantity"] == "less random") & ~found.outcomes["masked"]].set_index("way")
    assert rows["draws"].to_dict() == {"scale": 8, "replace": 8, "steer": 39}
    assert set(rows["correction"]) == {BH}
    assert rows["least"].to_dict() == pytest.approx({"scale": 3 / 9, "replace": 3 / 9, "steer": 3 / 40})
    assert "Nothing could have been shown of scaling" in said
    assert "least adjusted p of one way alone is 0.33" in said


def test_without_other_parts_there_is_no_placebo(llama: LensModel, tmp_path: Path) -> None:
    """The circuit is all of its layer: no placebo is written, and that is what is said."""
    heads = modulation_of(llama, [f"L0.H{i}" for i in range(4)], emotion="joy", battery="starter", progress=False)
    _, found = compare(llama, heads, out=tmp_path / "run", battery="starter", judges=judges(), scale=SMALL,
                       progress=False)  # fmt: skip
    assert not {"random scale", "random replace"} & set(found.replies["condition"])
    assert "random steer" in set(found.replies["condition"])
    assert "is above a placebo is unchecked for joy" in " ".join(found.summary())
    assert found.facts["modulations"][0]["placebos"] == 0


def test_a_placebo_that_is_mostly_the_circuit_says_little() -> None:
    one = {"emotion": "joy", "parts": ["L0.H0"], "placebos": 3, "placebo_overlap": 2 / 3, "crowded": True}
    _, said = said_of(*planted(SHARES, COSTS), modulations=[one], draws=39)
    assert "A placebo of parts says little for joy" in said
    assert "holds 67% of the circuit" in said
    assert "only 3 other sets" in said
    _, said = said_of(*planted(SHARES, COSTS), modulations=[one | {"crowded": False, "placebos": 39}], draws=39)
    assert "says little" not in said
    assert "other sets" not in said


def test_p_of_a_difference_flips_prompts() -> None:
    rows = pd.DataFrame({"prompt": [f"p{i}" for i in range(8)]})
    one, none = np.ones(8), np.zeros(8)
    found = difference(rows, one, rows, none, 0)
    assert found is not None
    assert found.p == pytest.approx(2 / 2**8)
    mixed = difference(rows, np.array([1.0, 0] * 4), rows, np.array([0, 1.0] * 4), 0)
    assert mixed is not None
    assert mixed.p == pytest.approx(1.0)


def test_a_judge_that_cannot_tell_has_no_say() -> None:
    replies, neutral = planted(SHARES, COSTS)
    chosen: dict[tuple[float, str, str], Choice] = choices(replies, neutral, (1.5,))
    rates = Counting("judge").trust().assign(judge="judge", **{"recall.low": 0.1})
    facts = {"emotions": ["joy"], "budgets": [1.5], "judges": ["judge"]}
    found = Comparison(replies, neutral, outcomes(replies, neutral, chosen), curves(replies, neutral), rates, facts)
    assert not found.able("judge", "joy")
    assert found.summary()[0].startswith("**judge can't tell joy**")
    assert not any("is above plain" in line for line in found.summary())
