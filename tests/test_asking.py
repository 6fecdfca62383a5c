"""Asking: calibrated log-probabilities against laws and planted answers, shared prefixes against whole prompts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as scipy_stats

from affectlens.errors import BatteryError, CaptureError
from affectlens.hooks import edit
from affectlens.metrics import metric
from affectlens.model import LensModel
from affectlens.probing.prompting import prefixes
from affectlens.probing.prompting.answers import CALIBRATIONS, Asked
from affectlens.probing.prompting.asking import ask
from affectlens.probing.prompting.checking import WORDINGS, comprehension, score_margins
from affectlens.probing.prompting.prefixes import score_lists, shared_length, tokens_read
from affectlens.probing.prompting.prompts import ASKABLE, compose, exchange, exemplars, wordings
from affectlens.probing.prompting.two_by_two import TwoByTwo, bound_or_not
from affectlens.probing.targets import select
from affectlens.stimuli import Battery, load_battery
from affectlens.stimuli.crossing import differences, quadruples
from affectlens.testing import FAMILIES, tiny_model
from affectlens.texts import TextList
from affectlens.verbalisers import Prompt, check_labels, encode_prompts
from tests.conftest import battery_frame

stats: Any = scipy_stats  # its results have attributes that its stubs lack
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<a>"


def scenes(n: int = 32) -> pd.DataFrame:
    frame = battery_frame(n_scenes=n, n_domains=4)
    words = ["The rain stopped", "A letter came", "The boat left", "Nobody was in"]
    return frame.assign(text=[f"{words[i % 4]} at {i}." for i in range(len(frame))])


@pytest.fixture(scope="module")
def sharp() -> LensModel:
    """A tiny model in which what was said matters: weights far from zero, so that no two prompts are alike."""
    return sharpened("llama")


def sharpened(family: str) -> LensModel:
    model = tiny_model(family, check=False)
    with torch.no_grad():
        for parameter in model.hf.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


# prefixes


def in_full(model: LensModel, prompts: list[Prompt]) -> np.ndarray:
    """One plain pass a prompt and verbaliser."""
    rows = []
    for prompt in prompts:
        row = []
        for tail in prompt.tails:
            ids = torch.tensor([[*prompt.ids, *tail]])
            with torch.no_grad():
                table = model.hf(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
            row.append(sum(float(table[len(prompt.ids) + i - 1, token]) for i, token in enumerate(tail)))
        rows.append(row)
    return np.array(rows)


@contextmanager
def widths(model: LensModel) -> Iterator[list[tuple[int, ...]]]:
    seen: list[tuple[int, ...]] = []
    embedding = model.hf.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(lambda _m, args: seen.append(tuple(args[0].shape)))
    try:
        yield seen
    finally:
        handle.remove()


BEFORE = "A mill stood by the lane and the rain had not stopped for a week, so "
AFTER = ["he", "us", "she went home at once", "nobody", "they sang all night and then slept until nine in the morning"]
VERBALISERS = [" joy", "!", " happiness and so on to the end of the day", "?"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_a_shared_prefix_changes_no_log_probability(family: str, budget: int) -> None:
    model = sharpened(family)
    shared = encode_prompts(model, TextList([BEFORE + text for text in AFTER]).frame(), VERBALISERS)
    apart = encode_prompts(model, TextList(AFTER).frame(), VERBALISERS[:2])
    with widths(model) as seen:
        first, second = score_lists(model, [shared, apart], token_budget=budget)
    own = {len(prompt.ids) - shared_length(shared) for prompt in shared}
    assert max(width for _, width in seen) == shared_length(shared) > 60  # Gemma's window is 16
    assert {width for _, width in seen} >= own
    np.testing.assert_allclose(first.numpy(), in_full(model, shared), atol=1e-4)
    np.testing.assert_allclose(second.numpy(), in_full(model, apart), atol=1e-4)
    assert np.ptp(first.numpy(), axis=0).min() > 0.1  # what was said matters here


def test_only_what_is_not_shared_is_read_again(llama: LensModel) -> None:
    prompts = encode_prompts(llama, TextList([BEFORE + "ab", BEFORE + "cd", BEFORE + "efg"]).frame(), ["!", "?"])
    with widths(llama) as seen:
        score_lists(llama, [prompts])
    assert seen == [(1, 2), (1, len(BEFORE)), (1, 3), (2, 2)]
    assert tokens_read(prompts) == len(BEFORE) + 7
    assert sum(rows * width for rows, width in seen[1:]) == tokens_read(prompts)


def test_under_an_edit_prompts_are_read_in_full(sharp: LensModel) -> None:
    prompts = encode_prompts(sharp, TextList([BEFORE + text for text in AFTER]).frame(), ["!", " joy"])
    with edit(sharp, {"L0.resid_post": lambda value, cursor: 0.5 * value}):
        with widths(sharp) as seen:
            (found,) = score_lists(sharp, [prompts])
        expected = in_full(sharp, prompts)
    assert (1, len(BEFORE)) not in seen
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_a_cache_of_another_kind_is_not_copied(sharp: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = encode_prompts(sharp, TextList([BEFORE + text for text in AFTER]).frame(), ["!"])
    monkeypatch.setattr(prefixes, "_copies", lambda model: False)
    with widths(sharp) as seen:
        (found,) = score_lists(sharp, [prompts])
    assert min(width for _, width in seen) > len(BEFORE)
    np.testing.assert_allclose(found.numpy(), in_full(sharp, prompts), atol=1e-4)


@pytest.mark.parametrize(
    ("ids", "shared"), [([(1, 2, 3), (1, 2)], 1), ([(1, 2), (3,)], 0), ([(5, 6)], 0), ([(1, 2, 3), (1, 2, 4)], 2)]
)
def test_shared_length_leaves_each_a_token(ids: list[tuple[int, ...]], shared: int) -> None:
    assert shared_length([Prompt(each, ((9,),)) for each in ids]) == shared


# prompts


@pytest.mark.parametrize("target", ASKABLE)
@pytest.mark.parametrize("chat", [False, True])
def test_wordings_name_every_class_in_order(target: str, chat: bool, llama: LensModel) -> None:
    asked = select(battery_frame(n_scenes=64), target)
    ways = wordings(target, asked.classes)
    assert len({way.name for way in ways}) == len({way.question for way in ways}) >= 2
    for way in ways:
        assert tuple(way.words) == asked.classes
        texts = [text for _, text in check_labels(way.verbalisers(chat))]
        table = compose(["t"], [[exchange(way, "It rained.", None, chat=False)]], chat=False)
        encode_prompts(llama, table, texts)  # refused unless disjoint


def test_prompts_as_they_are_sent() -> None:
    (way, _) = wordings("affect", ("neutral", "emotional"))
    talk = [exchange(way, "One.", "neutral", chat=False), exchange(way, "Two.", None, chat=False)]
    (text,) = compose(["a"], [talk], chat=False)["text"]
    assert text == f"{way.question}\n\nText: One.\nAnswer: no\n\n{way.question}\n\nText: Two.\nAnswer:"
    talk = [exchange(way, "One.", "emotional", chat=True), exchange(way, "Two.", None, chat=True)]
    (messages,) = compose(["a"], [talk], chat=True)["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    assert [m["content"] for m in messages] == [
        f"{way.question}\n\nText: One.", "Yes", f"{way.question}\n\nText: Two."
    ]  # fmt: skip


@pytest.mark.parametrize("target", ASKABLE)
def test_exemplars_come_from_other_folds_balanced_and_turned(target: str) -> None:
    asked = select(battery_frame(n_scenes=64), target)
    folds, groups = pd.factorize(asked.items["domain"])[0], asked.items["group"].to_numpy()
    k, last = len(asked.classes), []
    for fold in range(8):
        rows = exemplars(asked, folds, fold, 2, seed=3)
        assert not set(folds[rows]) & {fold}
        assert not set(groups[rows]) & set(groups[folds == fold])
        assert len(set(groups[rows])) == len(rows) == 2 * k
        assert np.bincount(asked.y[rows]).tolist() == [2] * k
        np.testing.assert_array_equal(rows, exemplars(asked, folds, fold, 2, seed=3))
        last.append(int(asked.y[rows[-1]]))
    assert set(np.bincount(last, minlength=k)) == {8 // k}
    assert any(exemplars(asked, folds, 0, 2, seed=s).tolist() != exemplars(asked, folds, 0, 2, seed=3).tolist()
               for s in range(3))  # fmt: skip


def test_too_few_scenes_for_exemplars() -> None:
    asked = select(battery_frame(n_scenes=8, n_domains=4), "affect")
    folds = pd.factorize(asked.items["domain"])[0]
    assert len(exemplars(asked, folds, 0, 3)) == 6
    with pytest.raises(BatteryError, match="not 4 exemplars of .*fewer shots"):
        exemplars(asked, folds, 0, 4)


# asking


def by_hand(model: LensModel, text: str, way: Any) -> list[float]:
    """log P of each class after a zero-shot plain prompt."""
    prompt = f"{way.question}\n\nText: {text}\n{way.cue}"
    out = []
    for given in way.verbalisers(False).values():
        (encoded,) = encode_prompts(model, TextList([prompt]).frame(), given)
        out.append(float(np.logaddexp.reduce(in_full(model, [encoded])[0])))
    return out


@pytest.mark.parametrize("target", ASKABLE)
def test_zero_shot_is_the_labels_log_probability(sharp: LensModel, target: str) -> None:
    found = ask(sharp, scenes(), target)
    ways = wordings(target, found.target.classes)
    assert found.logprobs.shape == (2, len(found.target.y), len(found.target.classes))
    for row in (len(found.target.y) - 1,):
        text = found.target.items["text"].iloc[row]
        for w, way in enumerate(ways):
            np.testing.assert_allclose(found.logprobs[w, row], by_hand(sharp, text, way), atol=1e-4)
    for w, way in enumerate(ways):
        free = np.mean([by_hand(sharp, text, way) for text in ("N/A", "[MASK]", "")], axis=0)
        np.testing.assert_allclose(found.free[w], np.tile(free, (len(found.target.y), 1)), atol=1e-4)
    assert found.wordings == tuple(way.name for way in ways)


def test_few_shot_puts_the_folds_exemplars_before_each_item(sharp: LensModel) -> None:
    found = ask(sharp, scenes(), shots=1, seed=5)
    way = wordings("affect", found.target.classes)[0]
    texts = found.target.items["text"].tolist()
    for row in (0, 17, 40):
        shown = exemplars(found.target, found.folds, int(found.folds[row]), 1, seed=5)
        words = ["no", "yes"]
        before = "".join(f"{way.question}\n\nText: {texts[i]}\nAnswer: {words[found.target.y[i]]}\n\n" for i in shown)
        for text, value in ((texts[row], found.logprobs[0, row]),):
            prompt = f"{before}{way.question}\n\nText: {text}\nAnswer:"
            for label, given in enumerate(way.verbalisers(False).values()):
                (encoded,) = encode_prompts(sharp, TextList([prompt]).frame(), given)
                expected = np.logaddexp.reduce(in_full(sharp, [encoded])[0])
                assert value[label] == pytest.approx(expected, abs=1e-4)
    assert len({tuple(row) for row in found.free[0].round(6)}) == len(set(found.folds.tolist()))


@pytest.mark.parametrize(("target", "shots"), [("affect", 0), ("affect", 1), ("category", 0)])
def test_a_bias_towards_a_label_changes_no_calibrated_score(sharp: LensModel, target: str, shots: int) -> None:
    found = ask(sharp, scenes(), target, shots=shots)
    push = np.array([[0.0, 3.0, -2.0, 5.0, 1.0, 0.5, -4.0, 2.0], [1.0, -7.0, 0.0, 2.0, 3.0, 1.0, 0.0, 9.0]])
    push = push[:, None, : len(found.target.classes)]
    pushed = replace(found, logprobs=found.logprobs + push, free=found.free + push)
    for wording in ("mean", *found.wordings):
        for calibration in ("batch", "contextual"):
            np.testing.assert_allclose(
                pushed.logits(calibration, wording), found.logits(calibration, wording), atol=1e-9
            )
            for sign in (False, True):
                assert pushed.estimate(calibration, wording, sign=sign) == found.estimate(
                    calibration, wording, sign=sign
                )
        assert np.abs(pushed.logits("raw", wording) - found.logits("raw", wording)).max() > 1
    if target == "category":
        assert len(set(pushed.logits("raw").argmax(1))) == 1  # raw, the push decides


def test_a_model_made_to_say_yes_is_fooled_raw_only() -> None:
    model = sharpened("llama")
    plain = ask(model, scenes())
    with unwilling(model, "nN"):
        eager = ask(model, scenes())
    assert (eager.logits("raw", "evokes") > 0).all()
    raw = eager.estimate("raw", "evokes", sign=True)
    assert raw.value == 0.5
    assert raw.low < 0.5 < raw.high
    for calibration in ("batch", "contextual"):
        np.testing.assert_allclose(
            eager.logits(calibration, "evokes"), plain.logits(calibration, "evokes"), atol=0.05
        )  # not exact: what the other tokens gain differs with the prompt
        assert np.ptp(plain.logits(calibration, "evokes")) > 0.5
    assert 0 < (eager.logits("batch", "evokes") > 0).mean() < 1


@contextmanager
def unwilling(model: LensModel, letters: str) -> Iterator[None]:
    """The model hardly ever writes these letters."""
    tokens = [model.tokenizer(letter).input_ids[0] for letter in letters]

    def lower(_module: Any, _args: Any, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[..., tokens] -= 30
        return out

    handle = model.hf.lm_head.register_forward_hook(lower)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("shots", [0, 1])
def test_the_order_of_items_is_irrelevant(sharp: LensModel, shots: int) -> None:
    items = scenes()
    turned = items.sample(frac=1, random_state=1).reset_index(drop=True)
    one, other = ask(sharp, items, shots=shots), ask(sharp, turned, shots=shots)
    place = pd.Series(range(len(one.target.items)), index=other.target.items["id"]).loc[one.target.items["id"]]
    for calibration in CALIBRATIONS:
        np.testing.assert_allclose(other.logits(calibration)[place], one.logits(calibration), atol=1e-4)
    assert other.estimate().value == pytest.approx(one.estimate().value, abs=1e-9)


def planted(target: str = "affect", *, noise: float = 0.0, seed: int = 0) -> Asked:
    """Answers of nobody: the right label 2 nats up under one wording, nothing under the other."""
    asked = select(battery_frame(n_scenes=64), target)
    rng = np.random.default_rng(seed)
    n, k = len(asked.y), len(asked.classes)
    values = np.log(np.full((2, n, k), 0.02)) + noise * rng.normal(size=(2, n, k))
    values[0] += 2 * np.eye(k)[asked.y]
    folds = pd.factorize(asked.items["domain"])[0]
    return Asked(asked, folds, values, np.full((2, n, k), -3.0), ("sees", "blind"), 0, False, 1, "nobody", 0)


def test_planted_answers_are_scored_and_wordings_averaged() -> None:
    found = planted(noise=0.5)
    assert found.estimate("raw", "sees").value > 0.98
    assert 0.35 < found.estimate("raw", "blind").value < 0.65
    mean = (found.logprobs[0] + found.logprobs[1]) / 2
    np.testing.assert_allclose(found.logits("raw")[:, 0], mean[:, 1] - mean[:, 0])
    same = metric(found.logits(), found.target.y, found.folds, pd.factorize(found.target.items["group"])[0])
    assert found.estimate().value == float(same(np.ones((1, 64)))[0])
    assert found.estimate().n == 64
    domains = found.estimate(unit="domain")
    assert (domains.n, domains.unit, domains.value) == (8, "domain", found.estimate().value)
    np.testing.assert_allclose(found.mass("sees"), np.exp(found.logprobs[0]).sum(1))


def test_the_frame_has_every_wording_and_calibration() -> None:
    two, eight = planted().frame(), planted("category").frame()
    assert list(two) == ["target", "shots", "wording", "calibration", "metric", "value", "low", "high", "n", "unit",
                         "method", "mass"]  # fmt: skip
    assert set(zip(two["wording"], two["calibration"], two["metric"], strict=True)) == {
        (w, c, m) for w in ("mean", "sees", "blind") for c in CALIBRATIONS for m in ("AUROC", "balanced accuracy")
    }
    assert len(eight) == 9
    assert set(eight["metric"]) == {"balanced accuracy"}
    assert ((two["low"] < two["high"]) & two["value"].between(two["low"], two["high"])).all()
    sees = eight[(eight["wording"] == "sees") & (eight["calibration"] == "batch")].iloc[0]
    assert sees["value"] == 1.0
    assert sees["low"] < 1.0


def test_no_calibration_moves_the_auroc() -> None:
    found = planted(noise=1.0)
    lean = np.array([0.0, 4.0])
    leaning = replace(found, logprobs=found.logprobs + lean)
    assert len({leaning.estimate(c).value for c in CALIBRATIONS}) == 1
    assert leaning.estimate("raw", sign=True).value == 0.5
    assert leaning.estimate("batch", sign=True).value > 0.7


def test_a_bias_that_a_folds_exemplars_bring_cancels() -> None:
    found = replace(planted("category", noise=1.0), shots=1)
    lean = np.random.default_rng(4).normal(size=(8, 8))[found.folds] * 3  # another one in each fold
    leaning = replace(found, logprobs=found.logprobs + lean, free=found.free + lean)
    for calibration in ("batch", "contextual"):
        np.testing.assert_allclose(leaning.logits(calibration), found.logits(calibration), atol=1e-9)
    assert leaning.estimate("raw").value < found.estimate("raw").value
    zero = replace(leaning, shots=0)  # one prompt for all: the mean over all items, not over a fold's
    np.testing.assert_allclose(zero.logits("batch"), zero.logits("raw") - zero.logits("raw").mean(0))


def test_a_constant_answer_has_an_interval() -> None:
    found = planted("category")
    one = replace(found, logprobs=found.logprobs[:, :1] * 0 + np.arange(8.0) + 0 * found.logprobs)
    score = one.estimate("raw")
    assert score.value == 1 / 8
    may = stats.binomtest(0, 8).proportion_ci(0.95).high
    assert (score.low, score.high) == pytest.approx(((1 - may) / 8, (1 + 7 * may) / 8))


def test_it_says_what_was_found() -> None:
    said = repr(planted(noise=0.5))
    assert "Asked for affect with no exemplars, nobody answers with AUROC 1.00 [0.98, 1.00]" in said
    assert "above chance (0.5)" in said
    assert "128 items in 64 scenes" in said
    assert "<table" in planted()._repr_html_()
    assert "at chance (0.5)" in repr(replace(planted(noise=0.5), logprobs=planted(noise=0.5).logprobs[[1, 1]]))


def test_a_chat_template_is_used_where_there_is_one() -> None:
    model = sharpened("llama")
    model.tokenizer.chat_template = TEMPLATE
    talk = ask(model, scenes(), shots=1)
    plain = ask(model, scenes(), shots=1, chat=False)
    assert talk.chat
    assert not plain.chat
    way = wordings("affect", talk.target.classes)[0]
    texts = talk.target.items["text"].tolist()
    shown = exemplars(talk.target, talk.folds, int(talk.folds[0]), 1)
    words = ["No", "Yes"]
    before = "".join(f"<user>{way.question}\n\nText: {texts[i]}\n<assistant>{words[talk.target.y[i]]}\n" for i in shown)
    prompt = f"{before}<user>{way.question}\n\nText: {texts[0]}\n<a>"
    (encoded,) = encode_prompts(model, TextList([prompt]).frame(), ["No", "no"])
    expected = np.logaddexp.reduce(in_full(model, [encoded])[0])
    assert talk.logprobs[0, 0, 0] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(CaptureError, match="no chat template"):
        ask(tiny_model("llama", check=False), scenes(), chat=True)


def test_folds_of_ones_own(sharp: LensModel) -> None:
    items = scenes()
    mine = np.array([int(group[1:]) % 2 for group in items["group"]])
    found = ask(sharp, items, folds=mine, shots=1)
    np.testing.assert_array_equal(found.folds, mine)
    with pytest.raises(BatteryError, match="split a scene"):
        ask(sharp, items, folds=np.arange(len(items)) % 2)
    with pytest.raises(BatteryError, match="3 folds for 64 items"):
        ask(sharp, items, folds=mine[:3])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"target": "arousal"}, "no wording for target 'arousal'; ask for one of affect, category, valence"),
        ({"shots": -1}, "0 or more"),
        ({"rung": "random"}, "no rung 'random' to ask under; choose from pair, domain"),
        ({"rung": "author"}, "author rung does not apply to affect: no item has a named author; give another rung"),
        ({"shots": 60}, "not 60 exemplars"),
    ],
)
def test_what_cannot_be_asked(llama: LensModel, how: dict[str, Any], said: str) -> None:
    with pytest.raises(BatteryError, match=said):
        ask(llama, scenes(), **how)


def test_what_cannot_be_read_from_answers(llama: LensModel) -> None:
    found = planted()
    for call, said in (
        (lambda: found.logits("prior"), "no calibration 'prior'"),
        (lambda: found.logits("raw", "third"), "no wording 'third'; choose from mean, sees, blind"),
        (lambda: found.estimate(unit="item"), "not 'item'"),
        (
            lambda: ask(llama, scenes().assign(meta=pd.Series([{"V": i / 9} for i in range(64)])), "valence"),
            "rates valence by",
        ),
        (lambda: ask(llama, scenes().assign(domain="one")), "domain rung does not apply to affect: there is only one"),
    ):
        with pytest.raises(BatteryError, match=said):
            call()


# comprehension


def crossed(n: int = 3, split: str = "crossed") -> Battery:
    battery = load_battery("core")
    groups = list(dict.fromkeys(item.group for item in battery if item.split == split))[:n]
    return Battery("few", tuple(item for item in battery if item.group in groups))


def test_margins_are_those_of_the_cells_own_question(sharp: LensModel) -> None:
    battery = Battery("both", (*crossed(2), *crossed(1, "crossed_fact")))
    found = comprehension(sharp, battery)
    assert found["split"].tolist() == ["crossed", "crossed", "crossed_fact"]
    row = found.iloc[1]
    margins = []
    for said, cue in WORDINGS.values():
        item = battery[row["group"] + ".bx"]
        text = (said + cue).format(text=item.text, question=item.meta["check"]["question"])
        values = []
        for given in ([" yes", " Yes"], [" no", " No"]):
            (prompt,) = encode_prompts(sharp, TextList([text]).frame(), given)
            values.append(np.logaddexp.reduce(in_full(sharp, [prompt])[0]))
        margins.append(values[0] - values[1])
    assert row["margin_bx"] == pytest.approx(np.mean(margins), abs=1e-4)
    for line in found.to_dict("records"):
        signs = [1 if battery[f"{line['group']}.{c}"].meta["check"]["answer"] == "yes" else -1
                 for c in ("ax", "ay", "bx", "by")]  # fmt: skip
        d = sum(s * line[f"margin_{c}"] for s, c in zip(signs, ("ax", "ay", "bx", "by"), strict=True))
        assert line["d_check"] == pytest.approx(d, abs=1e-6)
        assert line["d_check"] == pytest.approx((line["d_after"] + line["d_before"]) / 2, abs=1e-6)
        assert line["bound"] == (d > 0)
    assert (found["mass"] > 0).all()
    turned = comprehension(sharp, battery.frame().iloc[::-1])
    np.testing.assert_allclose(turned["d_check"], found["d_check"], atol=1e-4)


def test_a_model_that_always_says_yes_binds_as_before() -> None:
    battery, model = crossed(3), sharpened("llama")
    plain = comprehension(model, battery)
    with unwilling(model, "nN"):
        eager = comprehension(model, battery)
    assert (eager["right"] == 2).all()  # of two yes and two no
    assert (eager[["margin_ax", "margin_ay", "margin_bx", "margin_by"]] > 20).all(axis=None)
    np.testing.assert_allclose(eager["d_check"], plain["d_check"], atol=0.05)  # of 30 in each margin


def test_a_model_blind_to_the_text_binds_nothing() -> None:
    model = tiny_model("llama", check=False)
    handle = model.hf.lm_head.register_forward_hook(lambda _m, _a, out: torch.zeros_like(out))
    try:
        found = comprehension(model, crossed(3))
    finally:
        handle.remove()
    assert (found["d_check"] == 0).all()
    assert not found["bound"].any()
    assert not found["all_right"].any()
    table = bound_or_not(found, np.ones(3))
    assert table.bound["crossed"].value == 0.5  # ties are halves
    assert table.difference is None


def test_margins_planted() -> None:
    signs = np.array([[1.0, -1.0, -1.0, 1.0]] * 4)
    mean = np.stack([
        signs[0],  # right
        signs[0] + 9.0,  # right, under a bias to yes
        -signs[0],  # the wrong way round
        [3.0, -1.0, 1.0, -0.5],  # by the sum, though two cells are wrong
    ])  # fmt: skip
    found = score_margins(np.stack([mean + 0.5, mean - 0.5]), signs)
    assert found["d_check"].tolist() == [4.0, 4.0, -4.0, 2.5]
    assert found["bound"].tolist() == [True, True, False, True]
    assert found["all_right"].tolist() == [True, True, False, False]
    assert found["right"].tolist() == [4, 2, 0, 2]
    tied = score_margins(np.tile([1.0, 1.0, 1.0, 1.00001], (2, 1, 1)), signs[:1])
    assert tied["d_check"].tolist() == [0.0]  # within what a batch does to a log-probability
    assert not tied["bound"].any()


def broken(frame: pd.DataFrame, **check: Any) -> pd.DataFrame:
    metas = list(frame["meta"])
    metas[0] = metas[0] | {"check": metas[0]["check"] | check}
    return frame.assign(meta=pd.Series(metas, index=frame.index))


def test_checks_that_cannot_be_asked(llama: LensModel) -> None:
    frame = crossed(1).frame()
    flipped = "no" if frame["meta"][0]["check"]["answer"] == "yes" else "yes"
    for items, said in (
        (broken(frame, question=""), r"\.ax has no meta.check"),
        (broken(frame, answer="maybe"), "yes or no"),
        (broken(frame, answer=flipped), "yes in two cells and no in the other two"),
        (frame.iloc[:3], "no complete crossed"),
        (frame.drop(columns="cell"), "have no cell"),
    ):
        with pytest.raises(BatteryError, match=said):
            comprehension(llama, items)


# bound or not


def checks(d: np.ndarray, split: str = "crossed") -> pd.DataFrame:
    return pd.DataFrame(
        {"split": split, "group": [f"{split}{i:03d}" for i in range(len(d))], "d_check": d, "bound": d > 0}
    )


def filled(a: int, b: int, c: int, e: int) -> TwoByTwo:
    """Not bound: a not followed, b followed; bound: c not followed, e followed."""
    d = np.repeat([-1.0, -1.0, 1.0, 1.0], [a, b, c, e]) * np.linspace(1, 2, a + b + c + e)
    return bound_or_not(checks(d), np.repeat([-1.0, 1.0, -1.0, 1.0], [a, b, c, e]))


@pytest.mark.parametrize("corners", [(12, 0, 0, 0), (0, 12, 0, 0), (0, 0, 12, 0), (0, 0, 0, 12)])
def test_each_corner_by_itself(corners: tuple[int, int, int, int]) -> None:
    found = filled(*corners)
    np.testing.assert_array_equal(found.counts, np.array(corners, dtype=float).reshape(2, 2))
    filled_row = int(np.argmax(corners)) // 2
    share = found.followed[filled_row]
    assert share is not None
    assert share.value == float(np.argmax(corners) % 2)
    assert share.n == 12
    assert found.followed[1 - filled_row] is None
    assert found.difference is None
    assert found.bound["crossed"].value == filled_row
    assert "nothing to compare" in repr(found)


@pytest.mark.parametrize("corners", [(30, 14, 10, 42), (20, 20, 25, 31), (5, 1, 0, 6), (40, 8, 45, 3), (8, 40, 3, 45)])
def test_rows_are_compared_by_fishers_test(corners: tuple[int, int, int, int]) -> None:
    found, table = filled(*corners), np.array(corners).reshape(2, 2)
    gap = found.difference
    assert gap is not None
    assert gap.p == pytest.approx(stats.fisher_exact(table).pvalue)
    shares = table[:, 1] / table.sum(1)
    assert gap.value == pytest.approx(shares[1] - shares[0])
    for row in (0, 1):
        share = found.followed[row]
        assert share is not None
        exact = stats.binomtest(int(table[row, 1]), int(table[row].sum())).proportion_ci(0.95)
        assert (share.low, share.high) == pytest.approx((exact.low, exact.high))
    assert -1 <= gap.low < gap.value < gap.high <= 1
    said = repr(found)
    if gap.p is not None and gap.p < 0.05:
        assert "affect follows more often where facts are bound" in said
        assert gap.low > 0
    else:
        assert "no evidence that affect follows" in said


def test_the_differences_interval_covers() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(100):
        bound, d = rng.normal(size=96), rng.normal(size=96)
        d = np.where(bound > 0, d + 0.5, d)  # 0.69 against 0.50
        gap = bound_or_not(checks(bound), d).difference
        assert gap is not None
        inside.append(gap.low <= stats.norm.cdf(0.5) - 0.5 <= gap.high)
    assert np.mean(inside) >= 0.94


def test_ties_of_affect_are_halves_and_left_out_of_the_test() -> None:
    d = np.array([1.0, 1, 1, -1, -1, -1])
    found = bound_or_not(checks(d), np.array([1.0, 0, -1, 1, 0, 0]))
    np.testing.assert_array_equal(found.counts, [[1, 2], [1.5, 1.5]])
    assert found.ties == 3
    assert found.difference is not None
    assert found.difference.p == pytest.approx(stats.fisher_exact([[0, 1], [1, 1]]).pvalue)
    assert "3 tied" in repr(found)
    many = np.repeat([-1.0, 1.0], 19)
    d = np.concatenate([np.repeat([-1.0, 1, 0], [8, 1, 10]), np.repeat([-1.0, 1, 0], [1, 8, 10])])
    gap = bound_or_not(checks(many), d).difference
    assert gap is not None
    assert gap.p == pytest.approx(stats.fisher_exact([[8, 1], [1, 8]]).pvalue)


def test_shares_bound_have_exact_sign_flips() -> None:
    rng = np.random.default_rng(1)
    d, fact = rng.normal(size=12) + 0.4, rng.normal(size=10) + 3
    found = bound_or_not(pd.concat([checks(d), checks(fact, "crossed_fact")], ignore_index=True), np.ones(12))
    assert list(found.bound) == ["crossed", "crossed_fact"]
    exact = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.bound["crossed"].p == pytest.approx(exact.pvalue)
    assert found.bound["crossed_fact"].p == pytest.approx(2 / 2**10)
    low, high = stats.binomtest(int((d > 0).sum()), 12).proportion_ci(0.95)
    assert (found.bound["crossed"].low, found.bound["crossed"].high) == pytest.approx((low, high))
    said = repr(found)
    assert "crossed_fact: facts bound in 1.00 [0.69, 1.00] of 10 quadruples" in said
    assert "the model binds them" in said


def test_it_says_which_of_the_two_failed() -> None:
    known = repr(filled(8, 4, 20, 64))
    assert "crossed: facts bound in 0.88" in known
    assert "Affect did not follow in 28: in 20 of them although the facts were bound, in 8 they were not." in known
    assert "can't be told" in repr(filled(20, 28, 22, 26))
    assert "wrong way round" in repr(filled(30, 30, 2, 2))


def test_d_of_affect_by_group_or_in_order() -> None:
    table = checks(np.array([1.0, -1, 1, -1]))
    d = np.array([1.0, -1, -1, 1])
    series = pd.Series(d, index=table["group"]).sample(frac=1, random_state=2)
    np.testing.assert_array_equal(bound_or_not(table, series).counts, bound_or_not(table, d).counts)
    for given, said in (
        (series.iloc[1:], "no d of affect for quadruple"),
        (d[:3], r"shape \(3,\) for 4 crossed"),
        (np.array([1.0, np.nan, 1, 1]), "NaN"),
    ):
        with pytest.raises(BatteryError, match=said):
            bound_or_not(table, given)
    with pytest.raises(BatteryError, match="no crossed quadruple"):
        bound_or_not(checks(d, "crossed_fact"), d)


def test_the_table_and_the_figure() -> None:
    found = filled(30, 14, 10, 42)
    frame = found.frame()
    assert frame["what"].tolist() == ["facts bound", "affect followed, facts not bound",
                                      "affect followed, facts bound", "difference"]  # fmt: skip
    (points,) = found.plot().to_dict()["data"]
    assert list(points["x"]) == frame["value"].tolist()[:3]
    assert "<table" in found._repr_html_()


def test_a_planted_reader_of_affect_lines_up_with_the_checks(sharp: LensModel) -> None:
    battery = load_battery("starter")
    items = battery.frame()
    found = comprehension(sharp, battery)
    rows = quadruples(items, "crossed")
    assert found.loc[found["split"] == "crossed", "group"].tolist() == items["group"].to_numpy()[rows[:, 0]].tolist()
    seen = differences(items["affect"].to_numpy(dtype=float), rows)
    table = bound_or_not(found, seen)
    assert table.counts[:, 0].sum() == 0
    assert table.counts.sum() == len(rows)


@pytest.mark.real
def test_the_real_model_answers_with_the_labels(smol: LensModel) -> None:
    items = load_battery("starter").frame()
    vignettes = items[items["split"] == "vignettes"].groupby("domain").head(6).groupby("group").head(2)
    few = vignettes[vignettes["role"].isin(["emotional", "neutral"])].head(6)
    few = few.assign(text=few["text"].str.partition(". ")[0] + ".")  # the first sentence will do
    domains = few.assign(domain=[f"d{i // 2 % 3}" for i in range(len(few))])
    found = ask(smol, domains, shots=1)
    assert found.chat
    assert np.median(found.mass("evokes")) > 0.3
    (part,) = [np.flatnonzero(found.folds == 0)]
    way = wordings("affect", found.target.classes)[0]
    texts, words = found.target.items["text"].tolist(), found.target.classes
    shown = exemplars(found.target, found.folds, 0, 1)
    talk = [exchange(way, texts[i], words[found.target.y[i]], chat=True) for i in shown]
    talk.append(exchange(way, texts[part[0]], None, chat=True))
    strings = [text for _, text in check_labels(way.verbalisers(True))]
    full = in_full(smol, encode_prompts(smol, compose(["a"], [talk], chat=True), strings))[0]
    np.testing.assert_allclose(
        found.logprobs[0, part[0]], [np.logaddexp.reduce(full[:2]), np.logaddexp.reduce(full[2:])], atol=1e-3
    )
