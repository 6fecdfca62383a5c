"""Moods that move: rules against closed forms, figures against planted replies, controls, the study and its command."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from scipy import stats

import affectlens.model
from affectlens.cli import main
from affectlens.errors import RunError, SteerError, StoreError
from affectlens.model import LensModel, load_model
from affectlens.probing.probes import Probes
from affectlens.quiet import quiet_transformers
from affectlens.run import Run
from affectlens.stats import sign_flips
from affectlens.steering import Direction, Directions, write
from affectlens.steering.dynamics import contrasting, inferring, measuring, noising
from affectlens.steering.dynamics.adding import gram_of, lengths
from affectlens.steering.dynamics.cli import dynamics
from affectlens.steering.dynamics.conversation import Conversation
from affectlens.steering.dynamics.dosing import STEP, Dosing
from affectlens.steering.dynamics.feeding import Readings, points
from affectlens.steering.dynamics.feeds import identity
from affectlens.steering.dynamics.launching import redraw
from affectlens.steering.dynamics.lexicons import LexiconFeed
from affectlens.steering.dynamics.policies import CLOSED, EQUAL, OPEN, PLAIN, SHUFFLED, equal_mean, open_loop, shuffled
from affectlens.steering.dynamics.reading import JudgeFeed, ProbeFeed
from affectlens.steering.dynamics.replying import Asked, Written, fitting, writing
from affectlens.steering.dynamics.result import DynamicsReport, report_on
from affectlens.steering.dynamics.scripts import Phases, Script, load_scripts
from affectlens.steering.dynamics.settings import Setup
from affectlens.steering.dynamics.state import FirstOrder, Mood, MoodState, SecondOrder, trajectory
from affectlens.steering.dynamics.study import reload
from affectlens.steering.dynamics.study import run as study
from affectlens.steering.judging.verdicts import Verdicts
from affectlens.steering.plan import plan_for
from affectlens.stimuli.auditing.wording import emotion_words
from affectlens.stimuli.norms import VAD
from affectlens.testing import tiny_hf, tiny_tokenizer

MESSAGES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
TEMPLATE = MESSAGES + "{% if add_generation_prompt %}<assistant>{% endif %}"


# ---------------------------------------------------------------------------------------------------------- the rules


def drawn(figure: Any) -> list[Any]:
    """A figure's traces."""
    return list(figure.data)


def step_of(rule: FirstOrder | SecondOrder, height: float = 0.4, turns: int = 60) -> np.ndarray:
    """The rule's valence under a constant reading from turn 0 on."""
    readings = np.zeros((turns, 3))
    readings[:, 0] = height
    return trajectory(rule, readings)[:, 0]


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9, 1.0])
def test_first_order_is_its_closed_form(rate: float) -> None:
    n = np.arange(1, 61)
    rule = FirstOrder(rate)
    np.testing.assert_allclose(step_of(rule), 0.4 * (1 - (1 - rate) ** n), atol=1e-12)
    back = np.zeros((60, 3))
    back[0, 0] = 0.4
    np.testing.assert_allclose(trajectory(rule, back)[:, 0], 0.4 * rate * (1 - rate) ** (n - 1), atol=1e-12)


@pytest.mark.parametrize(("rate", "momentum"), [(0.3, 0.6), (0.1, 0.8), (0.5, 0.0), (0.02, 0.3), (1.5, 0.5)])
def test_second_order_is_the_solution_of_its_recurrence(rate: float, momentum: float) -> None:
    """The error obeys e(n+1) = (1 + momentum - rate) e(n) - momentum e(n-1): it sums powers of the roots."""
    roots = np.roots([1, -(1 + momentum - rate), momentum]).astype(complex)
    height, n = 0.2, np.arange(1, 61)
    first = height * (1 - rate)  # the error after one turn; before it, height, and the velocity 0
    weights = np.linalg.solve(np.array([[1, 1], roots]), np.array([height, first], dtype=complex))
    expected = height - (weights[0] * roots[0] ** n + weights[1] * roots[1] ** n).real
    np.testing.assert_allclose(step_of(SecondOrder(rate, momentum), height), expected, atol=1e-9)


def test_settling_and_overshoot_of_the_rules_themselves_are_known() -> None:
    """Of first order: ceil(ln band / ln(1 - rate)) turns; of second order: overshoot where roots are complex."""
    first = np.abs(step_of(FirstOrder(0.3), 0.5) - 0.5) <= 0.5 * 0.05
    assert int(np.argmax(first)) + 1 == int(np.ceil(np.log(0.05) / np.log(0.7)))
    assert step_of(FirstOrder(0.3)).max() <= 0.4
    for rate, momentum in [(0.3, 0.6), (0.3, 0.1), (0.05, 0.5), (0.4, 0.2)]:
        passes = step_of(SecondOrder(rate, momentum), 0.2, 400).max() > 0.2 + 1e-9
        assert passes == (momentum > (1 - np.sqrt(rate)) ** 2), (rate, momentum)


def test_no_momentum_is_the_first_order_and_damping_is_its_rest() -> None:
    np.testing.assert_array_equal(step_of(SecondOrder(0.3, 0.0)), step_of(FirstOrder(0.3)))
    assert SecondOrder.damped(0.25, 0.4) == SecondOrder(0.25, 0.6)


def test_a_mood_returns_to_its_baseline_and_stays_in_the_cube() -> None:
    home = Mood(0.2, -0.1, 0.3)
    push = np.zeros((400, 3))
    push[:20] = -1.0
    for rule in (FirstOrder(0.3, home), SecondOrder(0.6, 0.9, home)):
        path = trajectory(rule, push)
        assert np.abs(path).max() <= 1.0
        assert path[:20].min() < -0.7
        np.testing.assert_allclose(path[-1], home, atol=1e-6)
    state = MoodState(SecondOrder(1.0, 0.9))
    for _ in range(5):
        state.feel(np.array([1.0, np.nan, 0.0]))
    assert state.mood == (1.0, 0.0, 0.0)
    assert state.feel(np.array([0.9, 0.0, 0.0])).valence == pytest.approx(0.9), "no velocity is wound up at the bound"
    assert len(state.history) == 6


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FirstOrder(0.0), "rate is 0.0"), (lambda: FirstOrder(1.1), "up to 1"),
        (lambda: SecondOrder(0.3, 1.0), "momentum is 1.0"), (lambda: SecondOrder(3.2, 0.5), "below 3"),
        (lambda: FirstOrder(0.3, Mood(2.0, 0.0, 0.0)), "three numbers from -1 to 1"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_are_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(SteerError, match=sentence):
        make()


# ---------------------------------------------------------------------------------------------------------- the feeds


class Judged:
    """A judge that knows two classes, by a text's first letter."""

    labels = ("joy", "sadness", "neutral")
    name = "letters"

    def judge(self, texts: Sequence[str], *, progress: bool | None = None) -> Verdicts:
        rows = {"j": (1.0, 0.0, 0.0), "s": (0.0, 1.0, 0.0), "h": (0.5, 0.0, 0.5)}
        p = np.array([rows.get(text[:1], (np.nan,) * 3) for text in texts]).reshape(-1, 3)
        return Verdicts(self.name, self.labels, p, np.array([bool(np.isnan(row[0])) for row in p]))

    def trust(self) -> pd.DataFrame:
        return pd.DataFrame()


def test_a_judges_feed_is_probabilities_times_coordinates() -> None:
    found = JudgeFeed(Judged()).read(["j", "s", "h", ""])
    np.testing.assert_allclose(found.values[:3], [*points(["joy", "sadness"]), points(["joy"])[0] / 2])
    assert np.isnan(found.values[3]).all()
    assert found.coverage.tolist() == [1, 1, 1, 0]
    assert points(["neutral"]).tolist() == [[0, 0, 0]]
    assert points(["joy"])[0, 0] == pytest.approx((8.061 - 5) / 4), "the Glasgow norms, moved to -1 to 1"
    with pytest.raises(SteerError, match="no valence, arousal and dominance of 'zorbing'"):
        points(["joy", "zorbing"])


def test_vader_reads_valence_alone() -> None:
    feed = LexiconFeed()
    found = feed.read(["This is wonderful, I love it!", "A terrible, horrible day.", "The table has four legs.", ""])
    assert feed.axes == ("valence",)
    assert found.values[0, 0] > 0.5
    assert found.values[1, 0] < -0.5
    assert found.values[2, 0] == 0.0
    assert np.isnan(found.values[3]).all()
    assert np.isnan(found.values[:, 1:]).all()
    assert found.coverage[1] == pytest.approx(0.5)


def test_a_users_table_is_rescaled_and_says_what_it_covers(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text("word,valence,arousal,dominance\ngood,1,0.5,0.75\nbad,0,1,0.25\n")
    found = LexiconFeed(path, bounds=(0.0, 1.0)).read(["Good good bad thing", "nothing of it"])
    np.testing.assert_allclose(found.values[0], [1 / 3, 1 / 3, 1 / 6])
    assert found.coverage.tolist() == [0.75, 0.0]
    assert np.isnan(found.values[1]).all()
    np.testing.assert_allclose(LexiconFeed({"good": VAD(9.0, 5.0, 1.0)}).read(["good"]).values, [[1, 0, -1]])
    with pytest.raises(SteerError, match="beyond 0 to 0.5"):
        LexiconFeed(path, bounds=(0.0, 0.5))
    with pytest.raises(SteerError, match="can't be read"):
        LexiconFeed(tmp_path / "none.csv")


def probes_of(model: LensModel, classes: tuple[str, ...], target: str, weights: np.ndarray) -> Probes:
    k, d = weights.shape
    full = np.zeros((model.n_layers, k, d), np.float32)
    full[1] = weights
    return Probes(target, classes, 1, "resid_post", "mean", model.name, model.fingerprint, "planted", "b" * 64,
                  {"logistic": full}, {"logistic": np.zeros((model.n_layers, k), np.float32)})  # fmt: skip


def test_a_probes_feed_reads_the_plain_model(llama: LensModel, tmp_path: Path) -> None:
    import affectlens as al

    texts = ["the cat sat", "a dog ran far away", "of many houses"]
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, llama.d_model)).astype(np.float32)
    probes = probes_of(llama, ("joy", "fear", "neutral"), "category", weights)
    acts = al.capture(llama, texts, sites="resid_post", positions="mean", cache=False).at("mean")[:, 1]
    logits = acts.astype(np.float64) @ weights.T.astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    feed = ProbeFeed(llama, probes.save(tmp_path / "p.safetensors"))
    found = feed.read([*texts, " "])
    np.testing.assert_allclose(found.values[:3], p @ points(["joy", "fear", "neutral"]), atol=1e-5)
    assert np.isnan(found.values[3]).all()
    polar = ProbeFeed(llama, probes_of(llama, ("unpleasant", "pleasant"), "valence", weights[:1]))
    expected = 2 / (1 + np.exp(-logits[:, 0])) - 1
    np.testing.assert_allclose(polar.read(texts).values[:, 0], expected, atol=1e-5)
    assert polar.axes == ("valence",)
    with pytest.raises(SteerError, match="fed by probes of category or of valence"):
        ProbeFeed(llama, probes_of(llama, ("neutral", "affect"), "affect", weights[:1]))
    with pytest.raises(StoreError, match="cannot read"):
        ProbeFeed(llama, replace(probes, fingerprint="0" * 32))


# ---------------------------------------------------------------------------------------------------------- the doses


def test_doses_go_where_the_mood_went_and_are_capped() -> None:
    dosing = Dosing(("joy", "sadness", "fear"), full=0.5, ceiling=0.8)
    place = points(["joy", "sadness", "fear"])
    for k, name in enumerate(dosing.emotions):
        toward = place[k] / np.linalg.norm(place[k])
        assert dosing.doses(0.25 * toward) == {name: pytest.approx(0.4)}
        assert dosing.doses(5 * toward) == {name: pytest.approx(0.8)}, "capped"
    assert dosing.doses(Mood()) == {}
    moods = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    for nearest in (1, 2, 3):
        rows = replace(dosing, nearest=nearest).schedule(moods)
        assert rows.min() >= 0
        assert rows.sum(1).max() <= 0.8 + nearest * STEP / 2 + 1e-9
        assert ((rows > 0).sum(1) <= nearest).all()
        np.testing.assert_allclose(rows / STEP, np.round(rows / STEP), atol=1e-9)


def test_on_one_axis_the_emotion_that_lies_further_out_is_taken() -> None:
    dosing = Dosing(("trust", "joy", "anger", "sadness"), axes=(0,), full=1.0)
    assert dosing.doses(Mood(0.5, 0.9, -0.9)) == {"joy": 0.5}
    assert dosing.doses(Mood(-0.5, 0.9, -0.9)) == {"sadness": 0.5}


def test_a_mood_near_its_baseline_gives_no_dose() -> None:
    dosing = Dosing(("joy", "sadness"), axes=(0,), full=0.25, still=0.1)
    far = np.linspace(-0.6, 0.6, 121)
    rows = dosing.schedule(np.stack([far, 0 * far, 0 * far], axis=1))
    expected = np.clip((np.abs(far) - 0.1) / 0.25, 0, 1)
    np.testing.assert_allclose(rows.sum(1), expected, atol=STEP / 2 + 1e-9)
    assert (rows[np.abs(far) <= 0.1 + 1e-9] == 0).all()
    with pytest.raises(SteerError, match="still 0 or more"):
        Dosing(("joy",), still=-0.1)


def test_what_is_added_is_the_length_of_the_plans_vectors(tiny: LensModel, vectors: Directions) -> None:
    rng = np.random.default_rng(0)
    doses = rng.uniform(0, 1, (5, 3))
    for row, length in zip(doses, lengths(doses, gram_of(vectors, vectors.emotions)), strict=True):
        terms = plan_for(tiny, dict(zip(vectors.emotions, row.tolist(), strict=True)), directions=vectors).terms
        assert np.linalg.norm(np.sum([term.vector for term in terms], axis=0)) / 5.0 == pytest.approx(length)


def test_the_controls_have_the_doses_without_the_loop() -> None:
    rng = np.random.default_rng(0)
    doses = np.eye(3)[rng.integers(0, 3, 25)] * rng.uniform(0, 1, (25, 1))
    for gram in (np.eye(3), np.array([[1.0, -0.9, 0.0], [-0.9, 1.0, 0.0], [0.0, 0.0, 2.0]])):
        same = equal_mean(doses, gram)
        np.testing.assert_allclose(lengths(same, gram), lengths(doses, gram).mean())
        assert lengths(doses.mean(0)[None], gram)[0] < 0.9 * lengths(doses, gram).mean(), "emotions at once cancel"
        np.testing.assert_allclose(
            same / same.sum(1, keepdims=True), (doses.mean(0) / doses.mean(0).sum())[None].repeat(25, 0)
        )
        assert (same == same[0]).all()
    assert (equal_mean(np.zeros((4, 3)), np.eye(3)) == 0).all()
    other = shuffled(doses, 3)
    assert sorted(map(tuple, other)) == sorted(map(tuple, doses))
    assert not np.array_equal(other, doses)
    rule, dosing = FirstOrder(0.3), Dosing(("joy", "sadness"), full=0.3)
    readings = rng.uniform(-0.5, 0.5, (4, 10, 3))
    mean = np.mean([trajectory(rule, one) for one in readings], axis=0)
    np.testing.assert_array_equal(open_loop(rule, dosing, readings), dosing.schedule(mean))


# -------------------------------------------------------------------------------------------------------- the scripts


@pytest.mark.parametrize("protocol", ["push", "ramp"])
@pytest.mark.parametrize("turns", [11, 16, 20, 21, 25])
def test_scripts_are_whole(protocol: str, turns: int) -> None:
    scripts = load_scripts(protocol=protocol, turns=turns)
    assert len(scripts) == 6
    for one in scripts:
        assert len(one) == len(set(one.texts)) == turns
        assert one.levels == scripts[0].levels, "levels are matched over scripts"
        phases = Phases.of(one.levels)
        assert phases.calm.sum() >= 1
        assert phases.after.sum() >= 2
        if protocol == "ramp":
            up, down = (sorted(phases.levels[phases.pushed & side]) for side in (phases.rising, ~phases.rising))
            assert up == down, "the way up has the levels of the way down"
    if turns == 25:
        assert scripts[0].levels == ((0,) * 5 + (3, 4) * 4 + (0,) * 12 if protocol == "push" else
                                     (0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 3, 3, 2, 2, 1, 1) + (0,) * 6)  # fmt: skip


def test_scripts_name_no_emotion_and_alternate_their_ways() -> None:
    every = [text for p in ("push", "ramp") for one in load_scripts(protocol=p) for text in one.texts]
    assert not [text for text in every if emotion_words(text)]
    first, second = load_scripts(protocol="ramp", n=2)
    raw = json.loads((Path(measuring.__file__).parent / "data" / "scripts.json").read_text())["domains"]
    assert first.texts[3] == raw[0]["levels"][0][0]
    assert second.texts[3] == raw[1]["levels"][0][2]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [({"turns": 26}, "from 11 to 25"), ({"n": 7}, "there are 6"), ({"protocol": "fall"}, "push or ramp")],
)
def test_scripts_that_are_not_there_are_refused(how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SteerError, match=sentence):
        load_scripts(**how)


# -------------------------------------------------------------------------------------------------- planted replies

PUSH = Phases.of(load_scripts(protocol="push", n=1)[0].levels)
RAMP = Phases.of(load_scripts(protocol="ramp", n=1)[0].levels)


def test_planted_response_settling_and_overshoot_are_given_back() -> None:
    values = np.full(25, 0.1)
    values[PUSH.pushed] = -0.5
    values[13:25] = 0.1 + np.array([-0.5, -0.3, -0.2, 0.3, 0.25, -0.05, 0.15, 0.04, 0.0, 0.0, 0.05, 0.0])
    assert measuring.response(values, PUSH) == pytest.approx(0.6)
    assert measuring.settling(values, PUSH, window=1) == 7, "the last turn outside of the band is the seventh"
    assert measuring.overshoot(values, PUSH, window=1) == pytest.approx(0.3)
    assert measuring.censored(values, PUSH, window=1) == 0
    values[24] = -1.0
    assert measuring.settling(values, PUSH, window=1) == 12
    assert measuring.censored(values, PUSH, window=1) == 1
    up = Phases.of([int(x) for x in PUSH.levels], sign=1)
    assert measuring.response(-values, up) == pytest.approx(measuring.response(values, PUSH))


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_planted_lag_and_hysteresis_are_given_back(lag: int) -> None:
    """Replies that follow the level ``lag`` turns late enclose the area that shifted levels enclose."""
    rng = np.random.default_rng(lag)
    states = rng.standard_normal((4, 25))
    late = np.roll(states, lag, axis=1)
    by_lag = [measuring.tracking(late, states, lag=k).mean() for k in range(6)]
    assert int(np.argmax(by_lag)) == lag
    assert by_lag[lag] == pytest.approx(1.0)
    levels = RAMP.levels.astype(float)
    values = -np.concatenate([np.zeros(lag), levels[: 25 - lag]])
    area = measuring.hysteresis(values, RAMP)
    if lag == 0:
        assert area == pytest.approx(0.0)
    if lag == 1:  # by hand: up the means are 0, .5, 1.5, 2.5, 3.5; down, with 4 4 at the top, 1/6, 1.5, 2.5, 3.5, 4
        gaps = np.array([1 / 6 - 0.0, 1.5 - 0.5, 2.5 - 1.5, 3.5 - 2.5, 4 - 3.5])
        assert area == pytest.approx(np.trapezoid(gaps, np.arange(5) / 4))
    if lag == 3:
        assert area > 1.0
    assert np.isnan(measuring.tracking(np.ones((2, 25)), states[:2])).all()


def test_smoothing_stays_inside_the_phase() -> None:
    values = np.zeros(25)
    values[PUSH.pushed] = -1.0
    assert measuring.settling(values, PUSH, window=5) == 0, "what was said under the push is no part of the recovery"


def test_the_band_is_of_the_noise_of_calm_plain_replies() -> None:
    rng = np.random.default_rng(0)
    scripts = [f"s{i}" for i in range(300)]
    rows = pd.DataFrame({"protocol": "push", "script": np.repeat(scripts, 25), "turn": list(range(25)) * 300})
    rows = rows.assign(policy=PLAIN, level=np.tile(PUSH.levels, 300), measured=0.4 * rng.standard_normal(7500))
    rows["measured"] += np.repeat(rng.standard_normal(300), 25)
    loud = rows.assign(policy=CLOSED, measured=99.0)
    for window in (1, 3):
        band = noising.calm_band(pd.concat([rows, loud]), window)
        fresh = 0.4 * rng.standard_normal((4000, 25))
        never = measuring.settling(fresh, PUSH, band=band, window=window) > 0
        assert never.mean() == pytest.approx(0.05, abs=0.02), "noise that nothing moved is settled from the first turn"
        alone = noising.by_noise(rows, band=band, window=window)
        for name in ("settling", "overshoot"):
            mean = measuring.figure_of(name, band=band, window=window)(fresh, fresh, PUSH, None).mean()
            assert alone[name] == pytest.approx(float(mean), abs=0.05)
        assert alone["overshoot"] > 0.2, "the furthest of twelve noisy turns lies beyond rest"
    assert noising.calm_band(rows.assign(measured=1.0), 3) == measuring.BAND


def test_the_null_by_turn_order_is_calibrated() -> None:
    """On replies without any order p is about uniform, whatever the figure."""
    levels = load_scripts(protocol="push", n=1)[0].levels
    ps: dict[str, list[float]] = {}
    adjusted = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        noise = {("r", policy): rng.standard_normal((6, 25)) for policy in (PLAIN, CLOSED)}
        one = inferring.Measured("push", noise, {"r": rng.standard_normal((6, 25))}, Phases.of(levels))
        table = inferring.figures([one], band=1.0, window=3, seed=seed, draws=99)
        mine = table[table["policy"] == CLOSED]
        for row in mine.to_dict("records"):
            ps.setdefault(str(row["figure"]), []).append(row["p"])
        adjusted.append(mine["p_adjusted"].min())
    for name in ("response", "overshoot", "tracking"):
        for level in (0.1, 0.5, 0.9):
            share = float(np.mean(np.array(ps[name]) <= level))
            assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 120), (name, level, share)
    assert np.mean(np.array(ps["settling"]) <= 0.1) < 0.2, "many ties: never more often than it should be"
    assert 0.0 < np.mean(np.array(adjusted) <= 0.2) < 0.4, "the least of the family is held too"


def test_a_loop_that_works_is_told_from_its_controls_and_one_that_does_not_is_not() -> None:
    rng = np.random.default_rng(1)
    levels = load_scripts(protocol="push", n=1)[0].levels
    moved = -0.5 * (np.array(levels) > 0)
    state = np.repeat(moved[None], 12, axis=0) + 0.01 * rng.standard_normal((12, 25))

    def made(effect: float) -> pd.DataFrame:
        values = {("r", policy): 0.1 * rng.standard_normal((12, 25)) for policy in (PLAIN, CLOSED, OPEN, EQUAL)}
        values["r", CLOSED] = values["r", CLOSED] + effect * moved
        one = inferring.Measured("push", values, {"r": state}, Phases.of(levels))
        return contrasting.differences([one], band=0.1, window=3)

    works, idle = made(1.0), made(0.0)
    mine = works[works["figure"] == "response"]
    assert (mine["p_adjusted"] <= 0.05).all()
    assert mine["value"].between(0.4, 0.6).all()
    assert (idle.loc[idle["primary"], "p_adjusted"] > 0.05).all()
    assert set(works.loc[works["primary"], "figure"]) == {"response"}
    assert works.loc[~works["primary"], ["p", "p_adjusted"]].isna().all(axis=None), "the others are described"
    assert (works["low"] <= works["value"]).all()


@pytest.mark.parametrize(("n", "columns"), [(6, 1), (8, 16), (20, 4)])
def test_the_threshold_of_what_is_detectable_is_the_tests_own(n: int, columns: int) -> None:
    """The threshold is max-T's own: with few scripts and many contrasts far above that of one t test."""
    rng = np.random.default_rng(n)
    thresholds = [contrasting.critical_t(rng.standard_normal((n, columns)), draws=999) for _ in range(20)]
    alone = float(stats.t.ppf(0.975, n - 1))
    assert np.mean(thresholds) > (1.0 if columns == 1 else 1.2) * alone - 0.3
    table = rng.standard_normal((n, columns))
    critical = contrasting.critical_t(table, draws=4999)
    centred = table - table.mean(0)
    t = centred.mean(0) * 0 + critical  # what a mean of this t adds to centred rows
    moved = centred + 1.02 * t * centred.std(0, ddof=1) / np.sqrt(n)
    assert sign_flips(moved).p_adjusted.max() <= 0.05 + 1 / 2**n * 4
    assert contrasting.critical_t(rng.standard_normal((5, 3))) == np.inf, "five scripts can't give a p of 0.05"


# ------------------------------------------------------------------------------------------------------------ the study


class Numbers:
    """A feed that reads the number that a text ends with."""

    axes = ("valence",)

    def __init__(self, name: str = "numbers") -> None:
        self.name = name

    def read(self, texts: Sequence[str], *, progress: bool | None = None) -> Readings:
        def number(text: str) -> float:
            try:
                return float(text.split()[-1])
            except (ValueError, IndexError):
                return 0.0

        values = np.full((len(texts), 3), np.nan)
        values[:, 0] = [number(text) for text in texts]
        return Readings(values, np.ones(len(texts)))


class Fake:
    """Replies that say 0.8 times the dose of joy less that of sadness, ``lag`` turns late, and what the user said."""

    def __init__(self, lag: int = 0, follows: float = 0.0, stop: int | None = None) -> None:
        self.lag, self.follows, self.stop = lag, follows, stop
        self.calls = 0
        self.seen: dict[tuple[str, ...], float] = {}
        self.asked: list[Asked] = []

    def __call__(self, asked: Sequence[Asked]) -> list[Written]:
        self.calls += 1
        if self.stop is not None and self.calls > self.stop:
            raise KeyboardInterrupt
        self.asked += asked
        return [Written(f"it is {self._value(one):.6f}") for one in asked]

    def _value(self, one: Asked) -> float:
        said = float(one.messages[-1][0].split()[-1])
        return 0.8 * (one.doses.get("joy", 0.0) - one.doses.get("sadness", 0.0)) + self.follows * said


def spoken(protocol: str, n: int = 8) -> tuple[Script, ...]:
    """Scripts whose lines end with minus their level, a quarter of it."""
    levels = load_scripts(protocol=protocol, n=1)[0].levels
    return tuple(
        Script(f"s{i}", protocol, tuple(f"{i} {t} {-0.25 * k:.4f}" for t, k in enumerate(levels)), levels)
        for i in range(n)
    )


@pytest.fixture(scope="module")
def vectors(tiny: LensModel) -> Directions:
    rng = np.random.default_rng(0)

    def one(emotion: str) -> Direction:
        v, nothing = rng.standard_normal(tiny.d_model), np.zeros((0, tiny.d_model), np.float32)
        return Direction(emotion, "L1.resid_post", (v / np.linalg.norm(v)).astype(np.float32), 5.0, "random",
                         tiny.name, tiny.fingerprint, fixed=nothing, safe=0.5)  # fmt: skip

    return Directions([one("joy"), one("sadness"), one("fear")])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    with quiet_transformers():
        tiny_hf("llama", seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(home: Path) -> LensModel:
    return load_model(str(home))


def conducted(tiny: LensModel, vectors: Directions, out: Path, writer: Fake, **how: Any) -> tuple[Run, DynamicsReport]:
    given: dict[str, Any] = {"scripts": (*spoken("push"), *spoken("ramp")), "window": 1, "own": 0.0, "band": 0.1}
    setup = Setup(**given | how)
    return study(tiny, out=out, setup=setup, feed=Numbers(), instrument=Numbers("other"), directions=vectors,
                 writer=writer, progress=False)  # fmt: skip


@pytest.fixture(scope="module")
def done(tiny: LensModel, vectors: Directions, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DynamicsReport]:
    out = tmp_path_factory.mktemp("dynamics") / "run"
    return out, conducted(tiny, vectors, out, Fake())[1]


def test_a_model_that_obeys_its_doses_has_the_rules_own_figures(done: tuple[Path, DynamicsReport]) -> None:
    """Replies that are the dose settle, overshoot and lag as the rule does, which the closed forms say."""
    _, report = done
    levels = np.array(report.turns[report.turns["protocol"] == "push"].drop_duplicates("turn")["level"])
    rules: tuple[FirstOrder | SecondOrder, ...] = (FirstOrder(), SecondOrder())
    for rule, made in zip(report.rules, rules, strict=True):
        readings = np.zeros((25, 3))
        readings[:, 0] = -0.25 * levels
        mood = trajectory(made, readings)
        rows = report.turns[(report.turns["rule"] == rule) & (report.turns["policy"] == CLOSED)]
        mine = rows[(rows["protocol"] == "push") & (rows["script"] == "s3")].sort_values("turn")
        np.testing.assert_allclose(mine["valence"], mood[:, 0], atol=1e-12)
        dosing = Dosing(("joy", "sadness", "fear"), axes=(0,))
        doses = dosing.schedule(mood)
        expected = 0.8 * (doses[:, 0] - doses[:, 1])
        np.testing.assert_allclose(mine["measured"], expected, atol=1e-5)
        for name in ("response", "settling", "overshoot"):
            of = measuring.figure_of(name, window=1)
            assert report.row(name, rule)["value"] == pytest.approx(
                float(of(expected, mood[:, 0], PUSH, None)), abs=1e-5
            )
    first, second = report.rules
    assert report.row("overshoot", first)["value"] == pytest.approx(0.0, abs=1e-6)
    assert report.row("overshoot", second)["value"] > 0.3
    assert report.row("hysteresis", first)["value"] > 0.05, "a mood that is smoothed stays behind on the way down"
    assert report.row("tracking", first)["value"] > 0.8
    assert report.row("response", first, PLAIN)["value"] == 0.0
    assert report.row("settling", first, PLAIN)["value"] == 0.0


def test_policies_dose_as_they_say(done: tuple[Path, DynamicsReport]) -> None:
    _, report = done
    doses = [column for column in report.turns if str(column).startswith("dose.")]
    rows = report.turns.sort_values("turn")
    plain = rows[rows["policy"] == PLAIN]
    assert (plain[doses] == 0).all(axis=None)
    for _, talk in rows[rows["policy"] != PLAIN].groupby(["protocol", "script", "repeat", "rule"]):
        by = {policy: part[doses].to_numpy() for policy, part in talk.groupby("policy")}
        added = {policy: part["added"].to_numpy() for policy, part in talk.groupby("policy")}
        np.testing.assert_allclose(added[EQUAL], added[CLOSED].mean(), atol=1e-12)
        assert sorted(map(tuple, by[SHUFFLED])) == sorted(map(tuple, by[CLOSED]))
        np.testing.assert_array_equal(by[OPEN], by[CLOSED])  # without feedback and with one script for all


def test_the_open_loop_knows_only_other_scripts(tiny: LensModel, vectors: Directions, tmp_path: Path) -> None:
    """One script pushes the other way: its own schedule must not know of it, and the others' must."""
    scripts = spoken("push", 3)
    odd = replace(scripts[2], texts=tuple(f"2 {t} {0.25 * k:.4f}" for t, k in enumerate(scripts[2].levels)))
    _, report = conducted(tiny, vectors, tmp_path / "run", Fake(), scripts=(*scripts[:2], odd), protocols=("push",))
    rows = report.turns[(report.turns["rule"] == report.rules[0]) & (report.turns["turn"] == 12)]
    rows = rows.set_index(["policy", "script"])
    assert rows.at[(CLOSED, "s2"), "dose.joy"] == 1.0
    assert rows.at[(OPEN, "s2"), "dose.sadness"] == 1.0
    neither = rows.at[(OPEN, "s0"), "dose.joy"], rows.at[(OPEN, "s0"), "dose.sadness"]
    assert neither == (0.0, 0.0), "two that cancel"


def test_calm_lines_that_differ_leave_the_loop_at_rest(tiny: LensModel, vectors: Directions, tmp_path: Path) -> None:
    """The band is how far moods stray over calm turns; only so few of those are steered."""
    rng = np.random.default_rng(0)
    scripts = tuple(
        replace(
            one, texts=tuple(f"{i} {t} {-0.25 * k + 0.2 * rng.standard_normal():.4f}" for t, k in enumerate(one.levels))
        )
        for i, one in enumerate(spoken("push"))
    )
    how: dict[str, Any] = {"scripts": scripts, "protocols": ("push",), "own": 0.5, "rules": (FirstOrder(),)}
    _, report = conducted(tiny, vectors, tmp_path / "run", Fake(follows=0.5), **how)

    def steered(found: DynamicsReport, phase: str, column: str = "steered") -> float:
        rows = found.doses
        return float(rows.loc[(rows["policy"] == CLOSED) & (rows["phase"] == phase), column].iloc[0])

    assert 0.05 < report.facts["still"] < 0.4
    assert steered(report, "before", "steered") < 0.1
    assert steered(report, "push", "steered") > 0.8
    assert steered(report, "push", "dose") > 0.5
    _, none = conducted(tiny, vectors, tmp_path / "none", Fake(follows=0.5), **how, still=0.0)
    assert steered(none, "before") > 0.5
    rows = report.turns[report.turns["policy"] == CLOSED]
    one = rows[rows["script"] == "s3"].sort_values("turn")
    user = np.zeros((25, 3))
    user[:, 0] = np.clip(one["said.valence"] - report.facts["zeros"]["user"][0], -1, 1)
    np.testing.assert_allclose(one["alone"], trajectory(FirstOrder(), user)[:, 0], atol=1e-12)
    assert np.abs(one["alone"] - one["valence"]).max() > 0.05, "tracking does not know the loop's own replies"


def test_scripts_are_paired_by_name_whatever_their_order(done: tuple[Path, DynamicsReport]) -> None:
    _, report = done
    rng = np.random.default_rng(0)
    rows = report.turns.assign(measured=rng.standard_normal(len(report.turns)))
    ramp = rows[rows["protocol"] == "ramp"].sort_values(["script", "turn"], ascending=[False, True])
    other = pd.concat([rows[rows["protocol"] == "push"], ramp], ignore_index=True)
    pd.testing.assert_frame_equal(report_on(other, report.facts).differences, report_on(rows, report.facts).differences)


def test_a_feed_is_what_it_holds_and_not_its_name(llama: LensModel, tmp_path: Path) -> None:
    feeds = []
    for folder, valence in (("a", 0.9), ("b", 0.1)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "words.csv"
        path.write_text(f"word,valence,arousal,dominance\ngood,{valence},0.5,0.75\n")
        feeds += [LexiconFeed(path, bounds=(0.0, 1.0)), LexiconFeed(path, bounds=(0.0, 1.0))]
    assert len({feed.name for feed in feeds}) == 1
    assert identity(feeds[0]) == identity(feeds[1]) != identity(feeds[2])
    weights = np.random.default_rng(0).standard_normal((3, llama.d_model)).astype(np.float32)
    classes = ("joy", "fear", "neutral")
    one, same, other = (
        identity(ProbeFeed(llama, probes_of(llama, classes, "category", w))) for w in (weights, weights, weights + 1)
    )
    assert one == same != other
    assert identity(Numbers()) == "numbers"


def test_the_summary_says_what_the_controls_undo(done: tuple[Path, DynamicsReport]) -> None:
    """The open loop does all that this loop does, so nothing may be called the loop's own."""
    _, report = done
    assert not list(report.own())
    said = report.summary()
    assert "against plain replies, but is not surely other than each control" in said[0]
    assert "`response`" in said[0]
    assert "numbers" in said[-1]


def test_a_model_that_does_not_obey_gives_no_finding(tiny: LensModel, vectors: Directions, tmp_path: Path) -> None:
    class Deaf(Fake):
        def _value(self, one: Asked) -> float:
            return float(np.random.default_rng(abs(hash((one.messages, one.seed))) % 2**32).uniform(-0.5, 0.5))

    _, report = conducted(tiny, vectors, tmp_path / "run", Deaf())
    assert "No figure of the closed loop is surely other" in report.summary()[0]
    assert (report.differences["value"] == 0).all(), "the same luck under every policy"
    assert "overshoot is not to be had" in " ".join(report.summary()).lower()


def test_feedback_of_the_own_reply_moves_the_mood(tiny: LensModel, vectors: Directions, tmp_path: Path) -> None:
    _, report = conducted(tiny, vectors, tmp_path / "run", Fake(), own=0.5)
    rows = report.turns[(report.turns["policy"] == CLOSED) & (report.turns["protocol"] == "push")]
    mine = rows[(rows["rule"] == report.rules[0]) & (rows["script"] == "s0")].sort_values("turn")
    fed = mine["said.valence"].to_numpy() + 0.5 * np.r_[0.0, mine["heard.valence"].to_numpy()[:-1]]
    readings = np.zeros((25, 3))
    readings[:, 0] = np.clip(fed, -1, 1)
    np.testing.assert_allclose(mine["valence"], trajectory(FirstOrder(), readings)[:, 0], atol=1e-9)
    assert mine["valence"].min() < report.facts["zeros"]["user"][0] - 0.5


def test_a_stopped_run_goes_on_behind_its_last_turn(
    done: tuple[Path, DynamicsReport], tiny: LensModel, vectors: Directions, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        conducted(tiny, vectors, out, Fake(stop=33))  # 25 turns of plain replies, 8 of the loops
    assert Run.open(out).info["status"] == "stopped"
    with pytest.raises(RunError, match="holds no finished dynamics"):
        reload(out)
    again = Fake()
    how: dict[str, Any] = {"feed": Numbers(), "instrument": Numbers("other"), "directions": vectors, "progress": False}
    setup = Setup(scripts=(*spoken("push"), *spoken("ramp")), window=1, own=0.0, band=0.1)
    _, report = study(tiny, out=out, setup=setup, writer=again, resume=True, **how)
    assert again.calls == 75 - 33
    pd.testing.assert_frame_equal(report.turns, done[1].turns)
    pd.testing.assert_frame_equal(report.figures, done[1].figures)
    pd.testing.assert_frame_equal(report.differences, done[1].differences)
    with pytest.raises(RunError, match="begun with another plan"):
        study(tiny, out=out, setup=replace(setup, seed=7), writer=again, resume=True, **how)
    with pytest.raises(RunError, match="exists already"):
        study(tiny, out=out, setup=setup, writer=again, **how)


def test_the_run_holds_its_report(done: tuple[Path, DynamicsReport], capsys: pytest.CaptureFixture[str]) -> None:
    folder, report = done
    page = (folder / "report.html").read_text()
    for said in ("Moods that move", "subaharan2026dynamics", "closed loop less controls", "Turn by turn: ramp"):
        assert said in page
    _, back = reload(folder)
    pd.testing.assert_frame_equal(back.figures, report.figures)
    (folder / "report.html").unlink()
    redraw(folder, quiet=True)
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_text() == page
    assert report.table().shape[0] == 10
    assert "<table" in report._repr_html_()
    assert len(drawn(report.plot("ramp"))) >= 10
    assert report_on(report.turns, report.facts).facts == report.facts


def test_what_cannot_be_studied_is_refused(tiny: LensModel, vectors: Directions, tmp_path: Path) -> None:
    how: dict[str, Any] = {"out": tmp_path / "x", "writer": Fake(), "progress": False}
    with pytest.raises(SteerError, match="judged by its own reading"):
        study(tiny, feed=Numbers(), instrument=Numbers(), directions=vectors, **how)
    unsafe = Directions([*vectors, replace(vectors["fear"][0], emotion="anger", safe=None)])
    with pytest.raises(SteerError, match="No safe dose of anger is known"):
        study(tiny, feed=Numbers(), instrument=Numbers("other"), directions=unsafe, **how)
    with pytest.raises(SteerError, match="different baselines"):
        Setup(rules=(FirstOrder(), SecondOrder(baseline=Mood(0.1, 0.0, 0.0))))
    with pytest.raises(SteerError, match="the same"):
        Setup(scripts=(*spoken("push", 3), *spoken("ramp", 2))).spoken()
    with pytest.raises(SteerError, match="calm turns"):
        Script("x", "push", ("a", "b"), (1, 0))
    assert not (tmp_path / "x").exists()


# -------------------------------------------------------------------------------------------------- on a tiny model


def test_replies_are_what_each_alone_would_be(tiny: LensModel, vectors: Directions) -> None:
    """Plain and steered together, written once if asked twice; dose 0 is plain to the letter."""
    from affectlens.generating import Decoding

    said = (("a cat sat", "it did so"), ("and the dog", ""))
    talk = [{"role": "user", "content": "a cat sat"}, {"role": "assistant", "content": "it did so"},
            {"role": "user", "content": "and the dog"}]  # fmt: skip
    doses: list[dict[str, float]] = [{}, {"joy": 8.0}, {"sadness": 8.0, "joy": 1.0}, {"joy": -8.0}, {}]
    decoding = Decoding(12, 0.2, 0.95, 0)
    plans = []
    with writing(tiny, vectors, decoding) as writer:
        submit = writer.engine.submit
        writer.engine.submit = lambda request, tell: plans.append(request.plan) or submit(request, tell)  # type: ignore
        found = writer([Asked(said, dose, 5) for dose in doses])
    given = [{} if plan is None else {term.direction.emotion: term.dose for term in plan.terms} for plan in plans]
    assert given == doses[:4]
    assert len({one.text for one in found}) == 4, "the doses tell"
    for dose, one in zip(doses, found, strict=True):
        how: dict[str, Any] = {"doses": dose, "directions": vectors} if dose else {}
        (alone,) = write(tiny, [talk], max_new_tokens=12, temperature=0.2, top_p=0.95, seed=5, progress=False, **how)
        assert one.text == alone.strip()
    assert found[0] is found[4]


def test_the_oldest_exchanges_give_way(tiny: LensModel) -> None:
    line, reply = "the cat sat on the mat " * 6, "and so did the dog " * 6
    said = [(line, reply)] * 40 + [("and then", "")]
    ids, dropped = fitting(tiny, said, 8)
    assert len(ids) + 8 <= tiny.n_ctx
    assert 0 < dropped < 40
    longer, _ = fitting(tiny, said[dropped:], 8)
    assert ids == longer
    assert fitting(tiny, [("hello", "")], 8)[1] == 0
    with pytest.raises(Exception, match="context"):
        fitting(tiny, [(line * 400, "")], 8)


def test_a_live_conversation_moves_and_doses(tiny: LensModel, vectors: Directions) -> None:
    talk = Conversation(tiny, rule=FirstOrder(0.5), feed=LexiconFeed(), directions=vectors, max_new_tokens=4, own=0.0)
    assert talk.doses == {}
    with pytest.raises(SteerError, match="Nothing was said yet"):
        talk.plot()
    first = talk.say("The table has four legs.")
    (alone,) = write(tiny, ["The table has four legs."], max_new_tokens=4, temperature=0.7, top_p=0.95, seed=0,
                     progress=False)  # fmt: skip
    assert first == alone.strip()
    talk.say("This is terrible, horrible, the worst day.")
    assert talk.state.valence < -0.3
    assert talk.doses == {"sadness": 1.0}
    turns = talk.turns
    assert turns["dose.sadness"].tolist() == [0.0, 1.0]
    assert turns["valence"].tolist() == [0.0, talk.state.valence]
    assert len(drawn(talk.plot())) == 4
    assert "sadness 1.00" in repr(talk)
    before = talk.state
    with pytest.raises(SteerError, match="say something"):
        talk.say("  ")
    assert talk.state == before
    talk.reset()
    assert talk.state == (0, 0, 0)
    assert talk.turns.empty


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: LensModel) -> Callable[..., Any]:
    """``affectlens dynamics ARGS``: the exit code, standard output and standard error."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(dynamics)
    app.callback()(lambda: None)
    monkeypatch.setattr("affectlens.cli.app", app)
    monkeypatch.setattr(
        affectlens.model, "load_model", lambda name, **_: tiny if name == tiny.name else load_model(name)
    )

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["affectlens", "dynamics", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return run


def test_the_command(typed: Callable[..., Any], tiny: LensModel, vectors: Directions, tmp_path: Path) -> None:
    """A quick run on a tiny model, fed by probes and measured by VADER, which needs nothing."""
    rng = np.random.default_rng(0)
    weights = 0.1 * rng.standard_normal((3, tiny.d_model)).astype(np.float32)
    probes = probes_of(tiny, ("joy", "sadness", "neutral"), "category", weights).save(tmp_path / "p.safetensors")
    kept = vectors.save(tmp_path / "d.safetensors")
    args = (tiny.name, "--feed", "probe", "--probes", probes, "--directions", kept, "--quick", "--turns", 11,
            "--max-new-tokens", 4, "--full", 0.01, "--still", 0, "--out", tmp_path / "run")  # fmt: skip
    code, out, err = typed(*args, "--dry-run", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["replies"] == 3 * 9 * 11
    code, out, err = typed(*args)
    assert code == 0, err
    assert "The closed loop, first order, rate 0.3" in out
    assert f"Report: {tmp_path / 'run' / 'report.html'}" in out
    rows = reload(tmp_path / "run")[1].turns
    assert len(rows) == 3 * 9 * 11
    assert rows[rows["policy"] == CLOSED].filter(like="dose.").sum(axis=1).max() > 0
    code, out, err = typed("--resume", tmp_path / "run", "--json")
    assert code == 0, err
    assert len(json.loads(out)["results"]) == 8
    code, _, err = typed(*args)
    assert code == 2
    assert "exists already" in err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "Name a model"), (("x", "--rule", "third"), "choose first or second"),
        (("x", "--protocol", "fall"), "choose push, ramp or both"), (("x", "--bounds", "a"), "two ends"),
        (("x", "--turns", "9", "--dry-run"), "from 11 to 25"), (("x", "--resume", "y"), "leave out MODEL"),
        (("--resume", "no-such-run"), "not a run folder"), (("x", "--feed", "probe"), "needs their file"),
        (("x", "--probes", "p"), "--probes belongs to --feed probe"),
        (("x", "--lexicon", "p"), "--lexicon belongs to --feed lexicon"),
        (("x", "--feed", "ear"), "choose encoder, lexicon, probe, likelihood"),
    ],
)  # fmt: skip
def test_what_was_mistyped_is_said_in_a_sentence(
    typed: Callable[..., Any], args: tuple[str, ...], sentence: str
) -> None:
    code, out, err = typed(*args)
    assert code == 2
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_a_killed_run_resumes_to_equal_tables(home: Path, vectors: Directions, tmp_path: Path) -> None:
    """Killed in the middle, by SIGKILL; then gone on with; and beside one that ran through."""
    kept = vectors.save(tmp_path / "d.safetensors")
    code = (
        "import sys; from pathlib import Path\n"
        "from affectlens.steering.dynamics import LexiconFeed, Setup, run\n"
        "from affectlens.stimuli.norms import VAD\n"
        "feed = LexiconFeed({'the': VAD(1, 9, 2), 'my': VAD(9, 2, 8)})\n"
        f"setup = Setup(scripts=2, turns=11, protocols=('push',), max_new_tokens=6, history=1)\n"
        f"out = Path(sys.argv[1])\n"
        f"run({str(home)!r}, out=out, setup=setup, feed=feed, instrument='lexicon', directions={str(kept)!r},\n"
        "    resume=out.exists(), progress=False)\n"
    )
    tables = []
    for name, killed in (("through", False), ("killed", True)):
        out = tmp_path / name
        if killed:
            child = subprocess.Popen([sys.executable, "-c", code, str(out)])
            deadline = time.monotonic() + 120
            while not (out / "turns" / "loops.parquet").is_file():
                assert time.monotonic() < deadline
                assert child.poll() is None
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert not (out / "results" / "dynamics.json").exists()
        subprocess.run([sys.executable, "-c", code, str(out)], check=True)
        tables.append(reload(out)[1])
    for name in ("turns", "figures", "differences", "lags"):
        pd.testing.assert_frame_equal(getattr(tables[0], name), getattr(tables[1], name))
    assert (tables[0].turns["valence"].abs() > 0.01).any()


@pytest.mark.real
def test_on_the_real_model(smol: LensModel, tmp_path: Path) -> None:
    """The bundled directions and the encoder: the mood falls with what is told, and doses follow."""
    setup = Setup(rules=(FirstOrder(0.5),), scripts=1, turns=11, protocols=("push",), max_new_tokens=6, history=0)
    _, report = study(smol, out=tmp_path / "run", setup=setup, progress=False)
    rows = report.turns[report.turns["policy"] == CLOSED].sort_values("turn")
    assert rows.loc[rows["level"] > 0, "valence"].mean() < rows.loc[rows["level"] == 0, "valence"].mean() - 0.05
    doses = [column for column in rows if str(column).startswith("dose.")]
    assert rows[doses].sum(axis=1).max() >= 0.5
    calm = report.turns[(report.turns["policy"] == PLAIN) & (report.turns["turn"] == 0)].iloc[0]
    luck = report.turns[(report.turns["turn"] == 0) & (report.turns[doses].sum(axis=1) == 0)]
    assert (luck["reply"] == calm["reply"]).all(), "the same words, the same luck, no dose: the plain reply"
    assert report.facts["instrument"] == "lexicon"
