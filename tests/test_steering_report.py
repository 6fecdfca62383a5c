"""From judged replies to a report, on frames whose truth is planted: shares, safe doses, placebos, words, page."""

import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.isotonic import isotonic_regression

from affectlens.errors import RunError, SteerError
from affectlens.run import Run
from affectlens.stats import estimate
from affectlens.steering.evaluating.figures import bars, dose_curves, frontier, leakage_heat
from affectlens.steering.evaluating.frames import LABELS, checked, classes_of, judges_of
from affectlens.steering.evaluating.placebo import ALONE, BH, MAX_T, Rank, corrected, rank
from affectlens.steering.evaluating.result import TABLES, SteeringReport, report_on
from affectlens.steering.evaluating.safety import choices
from affectlens.steering.evaluating.samples import samples
from affectlens.steering.evaluating.sections import render
from affectlens.steering.evaluating.shares import read
from affectlens.steering.evaluating.targets import target_shares
from affectlens.steering.evaluating.trends import off_isotonic, rise, spearman, trend
from affectlens.steering.evaluating.verdicts import Finding, Verdict, verdicts

DOSES = (0.1, 0.2, 0.4)
SENTENCES = (
    "We went down to the harbour and watched the boats come in before supper.",
    "My sister called about the garden, and we spoke of tomatoes for an hour.",
    "The train was late again, so I read the paper twice and bought a coffee.",
    "There is a small shop near the bridge where they mend old clocks by hand.",
)


class World:
    """Replies that are called the target with a planted probability.

    ``gain`` is by emotion what the highest dose adds to the plain share (less at lower doses, in proportion),
    ``placebo`` what every placebo draw adds at the highest dose, ``asked`` what prompting adds. A reply that is not
    called the target is neutral, or another emotion (plain share each). Perplexity grows as ``cost ** (dose / 0.4)``.
    """

    def __init__(
        self, gain: Mapping[str, float], *, placebo: float = 0.0, asked: float = 0.3, prompts: int = 40, seeds: int = 2,
        draws: int = 39, cost: float = 1.3, base: float = 0.1, methods: tuple[str, ...] = ("mean_difference",),
        lacks: tuple[str, ...] = (), judges: tuple[str, ...] = ("encoder", "likelihood"), seed: int = 0,
        kinds: tuple[str, ...] = ("random",), doses: tuple[float, ...] = DOSES, masked: bool = True,
    ) -> None:  # fmt: skip
        self.rng = np.random.default_rng(seed)
        self.gain, self.base, self.cost, self.lacks, self.judges = gain, base, cost, lacks, judges
        self.masked = masked
        self.cells = [(f"p{i:02d}", "choose" if i % 2 else "report", s) for i in range(2 * prompts)
                      for s in range(seeds)]  # fmt: skip
        parts = [self.block("plain", "", "", 0.0, 0, {})]
        for emotion, most in gain.items():
            for method in methods:
                for dose in doses:
                    parts.append(self.block("steer", method, emotion, dose, 0, {emotion: most * dose / 0.4}))
            parts += [self.block("prompted", "", emotion, 0.0, 0, {emotion: asked}),
                      self.block("fewshot", "", emotion, 0.0, 0, {emotion: asked})]  # fmt: skip
            for kind in kinds:
                parts.append(self.block(kind, "", emotion, 0.4, 0, {emotion: placebo}, draws))
        self.replies = pd.concat(parts, ignore_index=True)
        texts = [(emotion, method, "L1.resid_post", dose, f"t{i}", 3.0 + np.log(cost) * dose / 0.4, 3.0)
                 for emotion in gain for method in methods for dose in doses for i in range(12)]  # fmt: skip
        self.neutral = pd.DataFrame(texts, columns=["emotion", "method", "site", "dose", "text", "nll", "plain_nll"])

    def block(
        self, condition: str, method: str, emotion: str, dose: float, draw: int, added: Mapping[str, float],
        draws: int = 1,
    ) -> pd.DataFrame:  # fmt: skip
        """The replies of one condition to every prompt and seed, by one draw or several."""
        n = len(self.cells) * draws
        chance = {name: self.base + added.get(name, 0.0) for name in self.gain}
        table = pd.DataFrame(self.cells * draws, columns=["prompt", "half", "seed"])
        table = table.assign(
            condition=condition, method=method, site="L1.resid_post" if method else "", emotion=emotion, dose=dose,
            draw=draw + np.repeat(np.arange(draws), len(self.cells)), n_new=16,
            reply=np.array(SENTENCES, dtype=object)[self.rng.integers(0, 4, n)],
            ppl=8.0 * np.exp(self.rng.normal(0, 0.05, n)) * self.cost ** (dose / 0.4),
        )  # fmt: skip
        for judge in self.judges:
            own = [name for name in LABELS if name in chance and not (judge == "encoder" and name in self.lacks)]
            edge, drawn = np.cumsum([chance[name] for name in own]), self.rng.random(n)
            assert edge[-1] <= 1
            label = np.array([*own, "neutral"], dtype=object)[np.searchsorted(edge, drawn)]
            table[judge] = label
            table[f"{judge}.p"] = 0.5 if emotion in own else np.nan
            if self.masked:
                table[f"{judge}.masked"] = label
        return table

    def report(self, **given: Any) -> SteeringReport:
        facts = {"model": "planted", "seed": 0} | given.pop("facts", {})
        return report_on(self.replies, self.neutral, facts=facts, **given)


@pytest.fixture(scope="module")
def world() -> World:
    return World({"joy": 0.5, "fear": 0.0, "trust": 0.4}, lacks=("trust",), methods=("mean_difference", "pca"),
                 draws=59, seed=1)  # fmt: skip


@pytest.fixture(scope="module")
def report(world: World) -> SteeringReport:
    rates = pd.DataFrame([
        {"judge": judge, "source": "human", "class": emotion, "n": 400, "recall": 0.8, "recall.low": 0.75,
         "recall.high": 0.85, "false_alarm": 0.05, "false_alarm.low": 0.03, "false_alarm.high": 0.07}
        for judge in ("encoder", "likelihood") for emotion in ("joy", "fear")
    ])  # fmt: skip
    cosines = [{"emotion": "joy", "a": "mean_difference", "b": "pca", "cosine": 0.9}]
    return world.report(judges=rates, facts={"cosines": cosines})


def row(table: pd.DataFrame, **asked: object) -> dict[str, Any]:
    """The one row with these facts."""
    for name, value in asked.items():
        table = table[table[name] == value]
    assert len(table) == 1, f"{len(table)} rows of {asked}"
    return {str(name): value for name, value in table.iloc[0].items()}


def found(one: SteeringReport, emotion: str, judge: str = "likelihood") -> Finding:
    return next(v for v in one.verdicts if (v.emotion, v.judge) == (emotion, judge)).finding


def drawn(fig: Any) -> Any:
    """A figure, whose traces plotly builds at run time."""
    return fig


def test_a_share_is_what_counting_gives(world: World, report: SteeringReport) -> None:
    mine = world.replies[(world.replies["half"] == "report") & (world.replies["emotion"] == "joy")]
    mine = mine[(mine["condition"] == "steer") & (mine["method"] == "pca") & (mine["dose"] == 0.4)]
    by_prompt = mine.assign(hit=mine["encoder"] == "joy").groupby("prompt")["hit"].mean().to_numpy()
    asked = {"emotion": "joy", "condition": "steer", "method": "pca", "judge": "encoder", "masked": False}
    one = row(report.targets, **asked, quantity="share")
    expected = estimate(lambda w: w @ by_prompt / w.sum(1), len(by_prompt), "prompt")
    assert (one["value"], one["low"], one["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    assert (one["n"], one["unit"]) == (40, "prompt")
    plain = world.replies[(world.replies["condition"] == "plain") & (world.replies["half"] == "report")]
    less = row(report.targets, **asked, quantity="less plain")
    assert less["value"] == pytest.approx(one["value"] - (plain["encoder"] == "joy").mean())


def test_a_planted_effect_is_found_and_a_planted_null_is_not(report: SteeringReport) -> None:
    assert found(report, "joy") is found(report, "joy", "encoder") is Finding.STEERED
    assert found(report, "trust") is Finding.STEERED
    assert found(report, "trust", "encoder") is Finding.LACKING
    assert found(report, "fear") is found(report, "fear", "encoder") is Finding.NOTHING
    first = report.summary()[0]
    assert "Steering reaches 2 of 3 emotions" in first
    assert "joy and trust" in first
    (fear,) = [line for line in report.summary() if line.startswith("**fear")]
    assert "nothing detectable" in fear
    assert "would have been found with 80% power" in fear


def test_a_sentence_states_the_share_with_its_controls(report: SteeringReport) -> None:
    (joy,) = [line for line in report.summary() if line.startswith("**joy")]
    v = next(v for v in report.verdicts if (v.emotion, v.judge) == ("joy", "encoder"))
    for said in (f"{v.share} of replies are called joy by encoder at dose 0.40", f"plain {v.of('plain')}",
                 f"a random direction of the same norm {v.of('random')} (p 0.017 of 59 draws",
                 f"prompting {v.of('prompted')}", f"few-shot prompting {v.of('fewshot')}", "max-T"):  # fmt: skip
        assert said in joy
    assert any("encoder has no such class and abstained" in line for line in report.summary())
    assert any("draws can give, for one emotion: random 0.017." in line for line in report.summary())
    assert any("Of human-written texts (human) encoder finds: joy 0.80 [0.75, 0.85]" in x for x in report.summary())


def test_a_placebo_as_strong_as_the_steer_undoes_the_claim() -> None:
    strong = World({"joy": 0.5, "fear": 0.4}, placebo=0.5, draws=39, prompts=30).report()
    assert {found(strong, one) for one in ("joy", "fear")} == {Finding.PLACEBO}
    first, second = strong.summary()[:2]
    assert first.startswith("**Not told apart from a placebo: joy and fear.**")
    assert second.startswith("**No emotion of 2 is steered**")
    assert strong.table()["finding"].eq("placebo").all()


def test_a_single_strong_placebo_kind_is_enough_to_undo() -> None:
    world = World({"joy": 0.5, "fear": 0.5}, draws=39, prompts=30)
    mean = world.block("mean", "", "", 0.4, 0, {"joy": 0.5})
    report = report_on(pd.concat([world.replies, mean], ignore_index=True), world.neutral)
    assert (found(report, "joy"), found(report, "fear")) == (Finding.PLACEBO, Finding.STEERED)
    assert any("Too few for a rank over the emotions: mean (over 2);" in line for line in report.summary())


def test_without_placebo_nothing_is_claimed() -> None:
    report = World({"joy": 0.6, "fear": 0.2}, draws=0, prompts=30).report()
    assert found(report, "joy") is Finding.UNCHECKED
    assert "**No emotion of 2 is steered**" in report.summary()[0]
    assert any("no placebo was run at this dose" in line for line in report.summary())


def test_too_few_draws_cannot_carry_a_claim() -> None:
    report = World({"joy": 0.6, "fear": 0.2}, draws=5, prompts=30).report()
    assert found(report, "joy") is Finding.UNCHECKED


def placebo_of(attainable: float, family: int) -> Verdict:
    """Surely above plain and above one placebo kind, by the difference but not by the rank."""
    facts = {"emotion": "joy", "judge": "j", "dose": 0.4, "low": 0.2, "high": 0.6, "value": 0.4, "n": 8,
             "unit": "prompt", "interval": "", "p": np.nan, "p_adjusted": np.nan, "attainable": np.nan,
             "family": np.nan}  # fmt: skip
    ranked = {"quantity": "less random", "p": 0.02, "p_adjusted": 0.2, "attainable": attainable, "family": family}
    rows = pd.DataFrame([facts | {"quantity": "less plain"}, facts | ranked])
    return Verdict("joy", "j", rows, rows, rows.iloc[:0], pd.DataFrame())


@pytest.mark.parametrize(("draws", "family", "finding"), [
    (159, 8, Finding.PLACEBO),  # 8/160 = 0.05: the rank counts, and its adjusted p fails
    (158, 8, Finding.UNCHECKED),  # the difference counts, and carries no claim by itself
    (59, 3, Finding.PLACEBO),
    (19, 1, Finding.PLACEBO),
    (24, 8, Finding.UNCHECKED),
    (24, 2, Finding.UNCHECKED),
])  # fmt: skip
def test_a_rank_counts_if_its_draws_suffice_for_all_emotions(draws: int, family: int, finding: Finding) -> None:
    assert placebo_of(1 / (1 + draws), family).finding is finding


def test_the_family_is_the_emotions_that_are_corrected_together(report: SteeringReport) -> None:
    rows = report.targets[(report.targets["quantity"] == "less random") & ~report.targets["masked"]]
    families = {str(judge): set(part["family"]) for judge, part in rows.groupby("judge")}
    assert families == {"encoder": {2}, "likelihood": {3}}
    few = World({"joy": 0.5, "fear": 0.5, "anger": 0.5}, base=0.05, draws=39, prompts=12, judges=("likelihood",))
    assert {one.finding for one in few.report().verdicts} == {Finding.UNCHECKED}  # 3/40 > 0.05


def rates(judge: str, emotion: str, recall: tuple[float, float, float], alarm: tuple[float, float, float],
          source: str = "human") -> dict[str, object]:  # fmt: skip
    out: dict[str, object] = {"judge": judge, "source": source, "class": emotion, "n": 60}
    for name, said in (("recall", recall), ("false_alarm", alarm)):
        out |= dict(zip((name, f"{name}.low", f"{name}.high"), said, strict=True))
    return out


POOR: dict[str, Any] = {"recall": (0.13, 0.05, 0.22), "alarm": (0.09, 0.06, 0.12)}
GOOD: dict[str, Any] = {"recall": (0.80, 0.70, 0.90), "alarm": (0.05, 0.03, 0.07)}


def test_a_judge_that_cannot_tell_a_class_has_no_vote() -> None:
    world = World({"joy": 0.5, "fear": 0.0}, draws=39, prompts=30, asked=0.6)
    deaf = (world.replies["emotion"] == "joy") & world.replies["condition"].isin(["steer", "prompted", "fewshot"])
    world.replies.loc[deaf, "likelihood"] = "neutral"
    before = world.report()
    assert found(before, "joy") in (Finding.NOTHING, Finding.LOWER)
    assert any(line.startswith("**joy: the judges differ") for line in before.summary())
    table = pd.DataFrame([rates("likelihood", "joy", **POOR), rates("likelihood", "joy", **POOR, source="other"),
                          rates("likelihood", "fear", **GOOD), rates("encoder", "joy", **GOOD)])  # fmt: skip
    after = world.report(judges=table)
    assert (found(after, "joy"), found(after, "joy", "encoder")) == (Finding.UNABLE, Finding.STEERED)
    assert found(after, "fear", "encoder") is Finding.NOTHING  # no record is nothing against a judge
    lines = after.summary()
    assert "by every judge that can tell the class: joy." in lines[0]
    (joy,) = [line for line in lines if line.startswith("**joy")]
    assert "likelihood" not in joy
    (said,) = [line for line in lines if "can't tell" in line]
    assert said.startswith("**likelihood can't tell joy**")
    assert "joy: recall and false alarms 0.13 [0.05, 0.22] and 0.09 [0.06, 0.12] of 60 (human); 0.13" in said
    for line in lines:
        if "beats" in line or "rises" in line or "Leakage" in line:
            assert "likelihood" not in line or "joy" not in line
    one = row(after.table(), emotion="joy", judge="likelihood")
    assert one["finding"] == "judge can't tell"
    bar = next(one for one in drawn(bars(after, "likelihood")).data if one.name == "steering")
    assert list(bar.x) == ["joy (can't tell)", "fear"]


def test_one_source_on_which_a_judge_tells_the_class_is_enough() -> None:
    world = World({"joy": 0.5, "fear": 0.0}, draws=39, prompts=30)
    both = pd.DataFrame([rates("likelihood", "joy", **POOR), rates("likelihood", "joy", **GOOD, source="other")])
    assert found(world.report(judges=both), "joy") is Finding.STEERED
    none = rates("likelihood", "joy", (np.nan, 0.0, 1.0), (0.0, 0.0, 0.1))  # no text of the class: not measured
    assert found(world.report(judges=pd.DataFrame([none])), "joy") is Finding.STEERED


def test_an_emotion_that_no_judge_can_tell_is_not_claimed() -> None:
    world = World({"joy": 0.5, "fear": 0.5}, draws=39, prompts=30)
    report = world.report(judges=pd.DataFrame([rates(judge, "joy", **POOR) for judge in world.judges]))
    assert "Steering reaches 1 of 2 emotions" in report.summary()[0]
    assert any(line.startswith("**joy: no judge can tell it.**") for line in report.summary())


def test_what_was_left_out_and_who_judges_itself_is_said() -> None:
    world = World({"joy": 0.5}, draws=19, prompts=6)
    why = {"heads": "The battery has 3 scenes; 8 are needed.", "shuffled": "Too few pairs."}
    lines = world.report(facts={"left_out": why, "self_judged": ["likelihood"]}).summary()
    assert "Not run: steering by heads. The battery has 3 scenes; 8 are needed." in lines
    assert "Not run: directions of shuffled labels. Too few pairs." in lines
    assert [line for line in lines if line.startswith("likelihood reads with the model that was steered")]
    assert not any("Not run" in line or "reads with" in line for line in world.report().summary())


def test_the_safe_dose_comes_with_its_cost_on_the_other_half(tmp_path: Path) -> None:
    world = World({"joy": 0.5}, draws=19, prompts=20, methods=("pca", "mean_difference"))
    usual = world.report()
    asked = {"condition": "steer", "method": "pca", "emotion": "joy", "dose": 0.4, "quantity": "reply ppl ratio"}
    ratio = read(row(usual.doses, **asked))
    assert usual.ppl_ratio("joy") == ratio
    assert set(usual.table()["ppl_ratio"]) == {str(ratio)}
    (joy,) = [line for line in usual.summary() if line.startswith("**joy")]
    assert f"on the other half of the prompts that of the replies was {ratio} times the plain replies'." in joy
    dear = (world.replies["half"] == "report") & (world.replies["condition"] == "steer")
    world.replies.loc[dear & (world.replies["method"] == "pca"), "ppl"] *= 1.4
    over = world.report()
    assert over.safe == usual.safe
    (joy,) = [line for line in over.summary() if line.startswith("**joy")]
    assert f"{over.ppl_ratio('joy')} times the plain replies', above the bound of 1.5." in joy
    run = Run.create(tmp_path / "run", command="evaluate", config={"model": "planted", "seed": 0})
    page = render(run, over).read_text(encoding="utf-8")
    assert page.count(str(over.ppl_ratio("joy"))) > 3  # the sentence, a row a judge, and the table of safe doses
    world.replies.loc[world.replies["condition"] == "steer", "ppl"] *= 9
    unsafe = world.report()
    assert unsafe.ppl_ratio("joy") is None
    assert "ppl_ratio" not in unsafe.table()


def test_a_perplexity_that_was_not_measured_is_above_nothing() -> None:
    world = World({"joy": 0.3}, draws=0, prompts=6, judges=("encoder",))
    world.neutral = world.neutral[world.neutral["dose"] > 0.1]
    (said,) = [line for line in world.report().summary() if line.startswith("**joy")]
    assert said.endswith("At the first dose, 0.10 of the norm, a perplexity was not measured.")
    world.replies.loc[world.replies["condition"] == "steer", "ppl"] *= 2
    (said,) = [line for line in world.report().summary() if line.startswith("**joy")]
    assert said.endswith("times the plain replies', above 1.5.")


def test_a_planted_null_is_called_none() -> None:
    """A direction that is one more random draw: at most 5% of worlds may have any claim, over all emotions."""
    claims = 0
    for seed in range(20):
        none = World({"joy": 0.0, "fear": 0.0, "anger": 0.0}, prompts=10, seeds=1, draws=59, seed=seed,
                     judges=("likelihood",), doses=(0.4,), masked=False)  # fmt: skip
        replies = none.replies.assign(degenerate=False)
        targets = target_shares(replies, choices(replies, none.neutral))
        said = verdicts(targets, tuple(none.gain), none.judges, "mean_difference")
        assert not {one.finding for one in said} & {Finding.UNSAFE, Finding.UNCHECKED, Finding.LACKING}
        claims += any(one.finding is Finding.STEERED for one in said)
    assert stats.binomtest(claims, 20, 0.05, alternative="greater").pvalue > 0.01


def test_ranks_are_exact_under_the_null() -> None:
    """Of exchangeable draws p is at most k / 20 with probability at most k / 20, and over a family of eight."""
    rng = np.random.default_rng(0)
    alone, family = [], []
    for _ in range(600):
        shared = rng.normal(size=20)  # emotions are judged on the same draws: they vary together
        table = rng.binomial(30, 1 / (1 + np.exp(1 - 0.5 * (shared + rng.normal(size=(8, 20)))))) / 30
        ranks = {i: ranked(one[0], one[1:]) for i, one in enumerate(table)}
        alone.append(ranks[0].p)
        family.append(min(one.p_adjusted or 1.0 for one in corrected(ranks).values()))
    for p in (alone, family):
        for level in (0.05, 0.1, 0.25):
            assert np.mean(np.array(p) <= level) <= level + 3 * np.sqrt(level * (1 - level) / 600)


def ranked(seen: float, values: np.ndarray) -> Rank:
    p = (1 + int((values >= seen - 1e-9).sum())) / (1 + len(values))
    return Rank(float(seen), values, tuple(range(len(values))), 30, p)


def test_a_rank_counts_ties_and_only_common_cells() -> None:
    cells = [("a", 0), ("a", 1), ("b", 0), ("c", 0)]
    steered = pd.DataFrame(cells, columns=["prompt", "seed"]).assign(judge=["joy", "joy", "", "joy"])
    draws = [(0, "a", 0, "joy"), (0, "a", 1, "joy"), (0, "b", 0, ""), (1, "a", 0, ""), (1, "a", 1, "joy"),
             (1, "b", 0, "fear"), (1, "z", 0, "joy"), (0, "z", 0, "joy")]  # fmt: skip
    placebo = pd.DataFrame(draws, columns=["draw", "prompt", "seed", "judge"])
    one = rank(steered, placebo, "judge", "joy")
    assert one is not None
    assert one.seen == pytest.approx(2 / 3)
    assert one.cells == 3  # neither c nor z, which only one side has
    assert one.drawn == pytest.approx([2 / 3, 1 / 3])
    assert one.p == pytest.approx(2 / 3)  # a tie is a hit
    assert one.attainable == pytest.approx(1 / 3)
    assert rank(steered, placebo[placebo["prompt"] == "z"], "judge", "joy") is None


def test_the_correction_is_max_t_where_draws_are_shared_and_else_benjamini_hochberg() -> None:
    rng = np.random.default_rng(1)
    values = rng.random((3, 39))
    ranks = {i: ranked(2.0 if i == 0 else 0.5, values[i]) for i in range(3)}
    shared = corrected(ranks)
    assert {one.correction for one in shared.values()} == {MAX_T}
    assert shared[0].p_adjusted == pytest.approx(1 / 40)
    assert all((one.p_adjusted or 0) >= one.p for one in shared.values())
    apart = corrected({**ranks, 2: ranked(0.5, values[2, :20])})
    assert {one.correction for one in apart.values()} == {BH}
    assert apart[0].p_adjusted == pytest.approx(3 / 40)
    assert corrected({0: ranks[0]})[0].correction == ALONE


def test_the_safe_dose_stops_at_the_first_that_is_not() -> None:
    world = World({"joy": 0.3}, draws=0, prompts=10, cost=1.2, judges=("encoder",))
    choose = world.replies["half"] == "choose"
    middle = choose & (world.replies["condition"] == "steer") & (world.replies["dose"] == 0.2)
    assert world.report().safe == {"joy": 0.4}
    world.replies.loc[~choose & (world.replies["condition"] == "steer"), "ppl"] *= 9  # the other half has no say
    assert world.report().safe == {"joy": 0.4}
    world.replies.loc[middle, "ppl"] *= 2  # the dose above is safe again, which does not count
    stopped = world.report()
    assert stopped.safe == {"joy": 0.1}
    assert (stopped.choice("joy")["stopped"], stopped.choice("joy")["by"]) == (0.2, "reply")
    world.neutral.loc[world.neutral["dose"] == 0.1, "nll"] += np.log(2)
    none = world.report()
    assert none.safe == {"joy": None}
    assert none.choice("joy")["by"] == "neutral"
    assert none.targets[none.targets["condition"] == "steer"].empty
    assert any("no safe dose, so nothing is reported" in line and "0.10 of the norm" in line for line in none.summary())
    assert not none.doses.empty
    world.neutral = world.neutral[world.neutral["dose"] != 0.1]  # not measured is not safe
    assert world.report().choice("joy")["by"] == "unmeasured"


def test_replies_without_a_perplexity_are_not_safe() -> None:
    world = World({"joy": 0.3}, draws=0, prompts=10, judges=("encoder",))
    world.replies = world.replies.assign(
        ppl=world.replies["ppl"].where(world.replies["dose"] < 0.4),
        reply=world.replies["reply"].where(world.replies["dose"] < 0.4, ""),
    )
    report = world.report()
    assert report.safe == {"joy": 0.2}
    empty = row(report.doses, quantity="degenerate", dose=0.4)
    assert (empty["value"], empty["high"]) == (1.0, 1.0)


def test_a_ratio_is_of_geometric_means(report: SteeringReport) -> None:
    one = row(report.doses, emotion="joy", method="pca", dose=0.4, quantity="reply ppl ratio")
    assert one["value"] == pytest.approx(1.3, rel=0.02)
    assert one["low"] < 1.3 < one["high"]
    text = row(report.doses, emotion="joy", method="pca", dose=0.4, quantity="neutral ppl ratio")
    assert text["value"] == pytest.approx(1.3)
    assert (text["unit"], text["n"]) == ("text", 6)  # every second text chooses


def reported(one: SteeringReport) -> dict[str, pd.DataFrame]:
    return {name: getattr(one, name) for name in ("doses", "targets", "leakage", "stability", "agreement")}


def test_the_half_that_chooses_is_in_no_figure() -> None:
    world = World({"joy": 0.4, "fear": 0.1, "anger": 0.2}, draws=3, prompts=6, judges=("likelihood",))
    before = world.report()
    choose = world.replies["half"] == "choose"
    world.replies.loc[choose, ["likelihood", "likelihood.masked"]] = "anger"
    after = world.report()
    for name, table in reported(before).items():
        pd.testing.assert_frame_equal(table, getattr(after, name))
    assert before.summary() == after.summary()
    world.replies.loc[choose & (world.replies["dose"] == 0.4) & (world.replies["emotion"] == "joy"), "ppl"] *= 3
    third = world.report()
    assert before.safe == {"joy": 0.4, "fear": 0.4, "anger": 0.4}
    assert third.safe == before.safe | {"joy": 0.2}
    pd.testing.assert_frame_equal(before.doses, third.doses)
    one, two = (
        table[table["emotion"] != "joy"].drop(columns=["p_adjusted", "family"]).reset_index(drop=True)
        for table in (before.targets, third.targets)
    )
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize("label", ["", "disgust"])
def test_judgments_of_the_half_that_chooses_are_not_read(label: str) -> None:
    """They are not made, either; a class that appears there alone is none that the judge has."""
    world = World({"joy": 0.4, "fear": 0.1, "anger": 0.2}, draws=3, prompts=6, lacks=("fear",))
    before = world.report()
    choose = world.replies["half"] == "choose"
    for judge in world.judges:
        world.replies.loc[choose, [judge, f"{judge}.masked"]] = label
        world.replies.loc[choose, f"{judge}.p"] = 0.5 if label else np.nan
    assert checked(world.replies, world.neutral) is world.replies
    assert judges_of(world.replies) == world.judges
    assert classes_of(world.replies, "encoder") == ("joy", "anger", "neutral")
    after = world.report()
    for name, table in reported(before).items():
        pd.testing.assert_frame_equal(table, getattr(after, name))
    assert before.summary() == after.summary()
    assert drawn(dose_curves(after, "joy")).to_json() == drawn(dose_curves(before, "joy")).to_json()


def test_misses_are_told_apart_and_sum_to_one() -> None:
    world = World({"joy": 0.4}, draws=0, prompts=20, judges=("encoder",), cost=1.0)
    mine = (
        (world.replies["condition"] == "steer") & (world.replies["dose"] == 0.4) & (world.replies["half"] == "report")
    )
    rows = np.flatnonzero(mine)
    world.replies["encoder"] = world.replies["encoder"].astype(object)
    world.replies.loc[rows, "encoder"] = ["joy"] * 20 + ["neutral"] * 20
    world.replies.loc[rows[20:24], "encoder"] = ""
    world.replies.loc[rows[[0, 22, 24, 25]], "reply"] = "so so so so so so"
    report = world.report()
    part = {one: row(report.targets, condition="steer", masked=False, quantity=one)["value"]
            for one in ("share", "coherent", "violation", "incoherence", "abstention")}  # fmt: skip
    assert part == pytest.approx({"share": 20 / 40, "coherent": 19 / 40, "violation": 14 / 40, "incoherence": 3 / 40,
                                  "abstention": 3 / 40})  # fmt: skip


def test_shares_are_corrected_for_the_judges_errors(report: SteeringReport) -> None:
    asked = {"emotion": "joy", "condition": "steer", "method": "pca", "judge": "encoder", "masked": False}
    share = row(report.targets, **asked, quantity="share")["value"]
    one = row(report.targets, **asked, quantity="corrected")
    assert one["value"] == pytest.approx(min(1.0, (share - 0.05) / 0.75))
    assert one["correction"] == "human"
    assert one["low"] < one["value"] < one["high"]


def test_leakage_rows_sum_to_nothing_and_the_diagonal_is_the_effect(report: SteeringReport) -> None:
    rows = report.leakage[(report.leakage["quantity"] == "less plain") & (report.leakage["judge"] == "likelihood")]
    rows = rows[rows["method"] == "pca"]
    for target in ("joy", "fear"):
        mine = rows[rows["target"] == target].set_index("judged")
        assert mine.drop(index="others")["value"].sum() == pytest.approx(0, abs=1e-9)
        effect = row(report.targets, emotion=target, condition="steer", method="pca", judge="likelihood", masked=False,
                     quantity="less plain")  # fmt: skip
        assert mine.loc[target, "value"] == pytest.approx(effect["value"])
        other = mine.loc[[one for one in ("joy", "fear", "trust") if one != target], "value"].sum()
        assert mine.loc["others", "value"] == pytest.approx(other)
    assert "trust" not in set(report.leakage.loc[report.leakage["judge"] == "encoder", "judged"])


def test_a_trend_knows_a_rise_from_none() -> None:
    rng = np.random.default_rng(0)
    rising = (rng.random((30, 5)) < np.linspace(0.1, 0.7, 5)).astype(float)
    up = trend(rising)
    assert up["rise"].p is not None
    assert up["rise"].p <= 0.001
    assert up["rise"].low < 0.6 < up["rise"].high
    down = trend(rising[:, ::-1].copy())
    assert (down["rise"].value, down["spearman"].value) == pytest.approx((-up["rise"].value, -up["spearman"].value))
    assert down["isotonic"].value > 0.2
    flat = trend(np.zeros((30, 5)))
    assert (flat["rise"].p, flat["spearman"].value, flat["isotonic"].value) == (1.0, 0.0, 0.0)
    p = [trend((rng.random((12, 4)) < 0.4).astype(float))["rise"].p or 0.0 for _ in range(200)]
    assert 0.01 < np.mean(np.array(p) <= 0.1) < 0.17


def test_curves_agree_with_outside_oracles() -> None:
    rng = np.random.default_rng(2)
    curves = rng.random((50, 6)).round(1)
    expected = [stats.spearmanr(np.arange(6), one)[0] for one in curves]
    assert spearman(curves) == pytest.approx(np.nan_to_num(expected))
    fitted = np.array([isotonic_regression(one) for one in curves])
    assert off_isotonic(curves) == pytest.approx(np.abs(curves - fitted).max(1))
    slope = [5 * np.polyfit(np.arange(6), one, 1)[0] for one in curves]
    assert rise(curves) == pytest.approx(slope)


def test_a_placebo_on_few_prompts_is_ranked_on_those(world: World) -> None:
    """Placebos without a target, on four of the prompts: the rank and the difference are of these alone."""
    random = world.replies["condition"] == "random"
    few = sorted(world.replies.loc[world.replies["half"] == "report", "prompt"].unique())[:4]
    shared = world.replies[random & world.replies["prompt"].isin(few) & (world.replies["emotion"] == "fear")]
    replies = pd.concat([world.replies[~random], shared.assign(emotion="", method="random")])
    targets = target_shares(replies.assign(degenerate=False), choices(replies, world.neutral))
    asked = {"emotion": "joy", "method": "pca", "condition": "steer", "judge": "likelihood", "masked": False}
    less, plain = (row(targets, **asked, quantity=f"less {name}") for name in ("random", "plain"))
    mine = replies[(replies["emotion"] == "joy") & (replies["method"] == "pca") & (replies["dose"] == 0.4)]
    steered = mine[mine["prompt"].isin(few)]
    expected = (steered["likelihood"] == "joy").mean() - (shared["likelihood"] == "joy").mean()
    assert less["value"] == pytest.approx(expected)
    assert (less["n"], plain["n"], less["draws"], less["correction"]) == (4, 40, 59, MAX_T)


@pytest.mark.parametrize("rates", [pd.DataFrame({"judge": ["encoder"]}), pd.DataFrame()])
def test_judges_without_figures_correct_nothing(rates: pd.DataFrame) -> None:
    report = World({"joy": 0.4}, draws=0, prompts=6, judges=("encoder",)).report(judges=rates)
    assert "corrected" not in set(report.targets["quantity"])
    assert report.summary()


def test_leakage_rises_and_damage_are_said(report: SteeringReport) -> None:
    lines = report.summary()
    (rising,) = [line for line in lines if line.startswith("By likelihood the share rises")]
    assert "joy +0." in rising
    assert "trust +0." in rising
    assert "fear" not in rising
    assert not any(line.startswith("Leakage") for line in lines)
    world = World({"joy": 0.3, "fear": 0.0}, draws=0, prompts=30, base=0.3, judges=("encoder",))
    mine = (world.replies["condition"] == "steer") & (world.replies["emotion"] == "fear")
    third = np.arange(len(world.replies)) % 3 == 0
    world.replies.loc[mine, "encoder"] = "joy"
    world.replies.loc[mine & third, "reply"] = "fear fear fear fear fear fear"
    lines = world.report().summary()
    assert any(line.startswith("Leakage: by encoder") and "steered to fear +0." in line for line in lines)
    assert any(line.startswith("Degenerate replies at the safe dose") and "fear 0.3" in line for line in lines)
    assert any(line.startswith("**fear: fewer than of plain replies") for line in lines)


def test_doses_rise_where_that_was_planted(report: SteeringReport) -> None:
    asked = {"method": "pca", "judge": "likelihood", "quantity": "rise"}
    joy, fear = (row(report.doses, emotion=emotion, **asked) for emotion in ("joy", "fear"))
    assert joy["p"] <= 0.001
    assert joy["low"] < 0.5 < joy["high"]
    assert fear["p"] > 0.01


def test_stability_over_methods_emotions_and_combinations() -> None:
    world = World({"joy": 0.5, "fear": 0.0, "anger": 0.3}, draws=0, methods=("mean_difference", "pca"),
                  judges=("likelihood",))  # fmt: skip
    both = world.block("steer", "pca", "joy+fear", 0.4, 0, {"joy": 0.25})
    report = report_on(pd.concat([world.replies, both], ignore_index=True), world.neutral)
    assert report.emotions == ("joy", "fear", "anger")  # a combination is no emotion
    rows = report.stability[report.stability["judge"] == "likelihood"]
    same = row(rows, over="methods")
    assert same["value"] > 0.85
    assert same["low"] <= same["value"] <= same["high"]
    spread = row(rows, over="emotions", a="pca")
    assert spread["low"] < np.std([0.5, 0.0, 0.3], ddof=1) < spread["high"]
    alone = row(rows, over="combinations", emotion="joy", b="alone")
    assert alone["low"] < -0.25 < alone["high"] < 0
    plain = row(rows, over="combinations", emotion="joy", b="plain")
    assert plain["low"] < 0.25 < plain["high"]


def test_cosines_and_kappa_stand_in_the_tables(report: SteeringReport) -> None:
    assert row(report.stability, quantity="cosine")["value"] == 0.9
    assert set(report.agreement["replies"]) == {"plain", "asked", "steered", "all"}
    one = read(row(report.agreement, replies="plain"))
    assert one.low < 0 < one.high  # the planted judges draw independently


def test_prompting_that_wins_is_said_so() -> None:
    report = World({"joy": 0.2, "fear": 0.2}, asked=0.7, prompts=30, judges=("encoder",)).report()
    assert any(line.startswith("**Prompting beats steering** for joy and fear") for line in report.summary())


def test_judges_that_differ_are_not_one_claim() -> None:
    world = World({"joy": 0.5, "fear": 0.0}, draws=39, prompts=30)
    deaf = (world.replies["emotion"] == "joy") & (world.replies["condition"] == "steer")
    rng = np.random.default_rng(5)
    world.replies.loc[deaf, "likelihood"] = np.where(rng.random(int(deaf.sum())) < 0.1, "joy", "neutral")
    report = world.report()
    assert "**No emotion of 2 is steered**" in report.summary()[0]
    assert any(line.startswith("**joy: the judges differ.**") for line in report.summary())


def test_a_report_is_the_same_after_saving(report: SteeringReport, tmp_path: Path) -> None:
    report.save(tmp_path)
    again = SteeringReport.load(tmp_path)
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(report, name), check_dtype=False)
    told = json.loads((tmp_path / "results" / "steering.json").read_text())
    assert again.facts | {"tables": told["tables"]} == report.facts | {"tables": told["tables"]} == told
    assert again.summary() == report.summary()
    assert not [path for path in (tmp_path / "results").iterdir() if path.name.startswith(".")]
    (tmp_path / "results" / told["tables"][0]).unlink()
    with pytest.raises(RunError, match="are damaged"):
        SteeringReport.load(tmp_path)
    (tmp_path / "results" / "steering.json").unlink()
    with pytest.raises(RunError, match="no finished evaluation"):
        SteeringReport.load(tmp_path)


def test_the_page_has_every_part_and_escapes_replies(tmp_path: Path) -> None:
    world = World({"joy": 0.4, "fear": 0.0, "anger": 0.2}, draws=19, prompts=8)
    world.replies["reply"] = np.where(world.replies["condition"] == "steer", "<script>alert(1)</script> & joy", "plain")
    report = world.report()
    run = Run.create(tmp_path / "run", command="evaluate", config={"model": "planted", "seed": 0})
    page = render(run, report).read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    for said in ("What was found", "Dose and response", "Leakage", "Stability", "Replies to read", "Methods paragraph",
                 "@software{affectlens", "the highest perplexity of all", "max-T over draws"):  # fmt: skip
        assert said in page


def test_samples_are_two_by_seed_and_the_worst(report: SteeringReport) -> None:
    table = samples(report)
    assert table.groupby("emotion").size().eq(3).all()
    assert table.equals(samples(report))
    for emotion, rows in table.groupby("emotion"):
        mine = report.replies[(report.replies["emotion"] == emotion) & (report.replies["condition"] == "steer")]
        mine = mine[(mine["half"] == "report") & (mine["method"] == report.method) & (mine["dose"] == 0.4)]
        assert rows.loc[rows["worst"], "ppl"].tolist() == [mine["ppl"].max()]
    prompts = report.replies.loc[report.replies["half"] == "report", "prompt"]
    assert set(table["prompt"]) <= set(prompts)


def test_figures_show_what_the_tables_hold(report: SteeringReport) -> None:
    curve = drawn(dose_curves(report, "joy"))
    assert any(one.yaxis == "y2" for one in curve.data)
    shapes = [shape for shape in curve.layout.shapes if shape.x0 == report.safe["joy"]]
    assert shapes
    named = {one.name: one for one in curve.data if one.mode == "lines"}
    asked = {"emotion": "joy", "method": report.method, "judge": "encoder", "quantity": "share"}
    assert list(named["encoder"].y) == [row(report.doses, **asked, dose=dose)["value"] for dose in (0.0, *DOSES)]
    heat = drawn(leakage_heat(report, "likelihood")).data[0]
    assert heat.z[0][list(heat.x).index("joy")] > 0.3
    sides = {one.name: dict(zip(one.x, one.y, strict=True)) for one in drawn(bars(report)).data}
    assert sides["steering"]["joy"] == report.verdicts[0].share.value  # type: ignore[union-attr]
    assert "trust" not in sides["steering"]  # the encoder has no trust
    assert {one.name for one in drawn(frontier(report, "likelihood")).data} == {"joy", "fear", "trust"}
    with pytest.raises(SteerError, match="no judge 'me'"):
        bars(report, "me")
    with pytest.raises(SteerError, match="was not steered"):
        dose_curves(report, "disgust")


def test_the_page_in_a_notebook(report: SteeringReport) -> None:
    assert "<strong>Steering reaches" in report._repr_html_()
    assert repr(report).startswith("SteeringReport(")


@pytest.mark.parametrize(("change", "said"), [
    (lambda r: r.drop(columns="ppl"), "has no ppl"),
    (lambda r: r.drop(columns=["encoder.p", "likelihood.p"]), "No judge"),
    (lambda r: r.assign(condition="odd"), "column condition has odd"),
    (lambda r: r[r["condition"] != "plain"], "half choose has no plain"),
    (lambda r: pd.concat([r, r.iloc[:1]]), "there twice"),
    (lambda r: pd.concat([r, r[r["seed"] == 0].assign(half="report", seed=9)]), "is in both halves"),
    (lambda r: r[r["condition"] == "plain"], "Nothing was steered"),
])  # fmt: skip
def test_tables_that_will_not_do_are_explained(world: World, change: Any, said: str) -> None:
    with pytest.raises(SteerError, match=said):
        report_on(change(world.replies), world.neutral)
    with pytest.raises(SteerError, match="no replies by the method 'odd'"):
        report_on(world.replies, world.neutral, facts={"method": "odd"})


def test_few_prompts_take_the_cluster_t_and_a_report_can_be_made_again() -> None:
    few = World({"joy": 0.4}, draws=0, prompts=6, judges=("encoder",)).report()
    one = row(few.targets, condition="steer", masked=False, quantity="share")
    assert "Student" in one["interval"]
    again = report_on(few.replies, few.neutral, facts=few.facts)
    pd.testing.assert_frame_equal(again.targets, few.targets)
    assert again.facts == few.facts
