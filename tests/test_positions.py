"""Rules print and parse, and pick the tokens that a reader would pick, in plain texts and in conversations."""

from typing import Any

import numpy as np
import pytest

from affectlens.capturing import capture
from affectlens.errors import CaptureError
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.positions import Position, parse_positions
from affectlens.testing import tiny_model
from affectlens.texts import TextList

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [
    {"role": "system", "content": "user"},
    {"role": "user", "content": "The gate. It stood open."},
    {"role": "assistant", "content": "Open?"},
    {"role": "user", "content": "assistant"},
]


@pytest.fixture(scope="module")
def chatty() -> LensModel:
    model = tiny_model("llama", check=False)
    model.tokenizer.chat_template = TEMPLATE
    return model


def layout(model: LensModel, text: Any, **options: Any) -> Layout:
    return lay_out(model, TextList([text]).frame(), **options)[0]


def picked(model: LensModel, text: Any, rule: str, **options: Any) -> str:
    """The characters that a rule picks; the tiny tokenizer has a token a byte."""
    one = layout(model, text, **options)
    return "".join(one.text[a:b] for (a, b), yes in zip(one.spans, Position.parse(rule).mask(one), strict=True) if yes)


@pytest.mark.parametrize(
    "text", ["mean", "last", "ending", "all", "template_end", "mean_from(0)", "mean_from(12)", "turn(-1)", "turn(3)",
             "role(user)", 'span("went home")', 'span("a \\"quoted\\" word")', 'span("mean")']
)  # fmt: skip
def test_print_and_parse_round_trip(text: str) -> None:
    assert str(Position.parse(text)) == text
    assert Position.parse(str(Position.parse(text))) == Position.parse(text)


def test_a_span_may_be_quoted_in_any_way() -> None:
    assert {Position.parse(f"span({q}it's on{q})").argument for q in ('"', "'", "")} == {"it's on"}


@pytest.mark.parametrize(
    "text", ["middle", "mean_from", "mean_from(-1)", "mean_from(x)", "span()", "last(3)", "turn(x)", ""]
)
def test_what_is_not_a_rule_says_what_is(text: str) -> None:
    with pytest.raises(CaptureError, match=r"is not known; choose from mean, last, ending, mean_from\(5\)"):
        Position.parse(text)


def test_repeats_are_dropped_and_order_is_kept() -> None:
    assert [str(p) for p in parse_positions(["last", "mean", Position("last")])] == ["last", "mean"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", "n sank. He saw, and went home."),
        ("mean_from(5)", "nk. He saw, and went home."),
        ("mean_from(0)", "n sank. He saw, and went home."),
        ("last", "."),
        ("ending", "He saw, and went home."),
        ("span('went home')", "went home"),
        ("span('s')", "s"),
        ("span('In')", "n"),
        ("all", "In sank. He saw, and went home."),
    ],
)
def test_the_tokens_that_a_rule_picks(llama: LensModel, rule: str, expected: str) -> None:
    assert picked(llama, "In sank. He saw, and went home.", rule) == expected


def test_with_a_bos_the_first_word_counts_and_the_bos_does_not() -> None:
    model = tiny_model("gemma3", check=False)
    assert picked(model, "In sank.", "mean") == "In sank."
    assert picked(model, "In sank.", "span('In')") == "In"
    assert len(layout(model, "In sank.")) == 9
    assert Position("all").mask(layout(model, "In sank.")).all()


def test_weights_sum_to_one_and_are_equal(llama: LensModel) -> None:
    weights = Position("mean").weights(layout(llama, "abcd"))
    np.testing.assert_allclose(weights, [0, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_an_items_own_ending_is_used(llama: LensModel) -> None:
    frame = TextList(["One. Two and three."]).frame()
    default, own = (lay_out(llama, f)[0] for f in (frame, frame.assign(ending=[9])))
    assert np.flatnonzero(Position("ending").mask(default)).tolist() == list(range(5, 19))
    assert np.flatnonzero(Position("ending").mask(own)).tolist() == list(range(9, 19))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("turn(0)", "user"),
        ("turn(1)", "The gate. It stood open."),
        ("turn(-1)", "assistant"),
        ("role(user)", "The gate. It stood open.assistant"),
        ("role(assistant)", "Open?"),
        ("mean", "userThe gate. It stood open.Open?assistant"),
        ("last", "t"),
        ("ending", "assistant"),
        ("template_end", ">"),
        ("span(stood open)", "stood open"),
    ],
)
def test_conversations(chatty: LensModel, rule: str, expected: str) -> None:
    """Messages whose words are the template's own are told apart from it."""
    assert layout(chatty, TALK).text.endswith("<user>assistant</user><assistant>")
    assert picked(chatty, TALK, rule) == expected


def test_a_plain_text_becomes_the_users_message(chatty: LensModel) -> None:
    assert layout(chatty, "It rained. We left.", chat=True).text == "<user>It rained. We left.</user><assistant>"
    assert picked(chatty, "It rained. We left.", "ending", chat=True) == "We left."
    assert picked(chatty, "It rained. We left.", "role(user)", chat=True) == "It rained. We left."


def test_texts_and_conversations_keep_their_order(chatty: LensModel) -> None:
    mixed: list[Any] = [TALK, "plain one", TALK[:2], "plain two"]
    layouts = lay_out(chatty, TextList(mixed).frame())
    assert [one.name for one in layouts] == ["t0", "t1", "t2", "t3"]
    assert [bool(one.turns) for one in layouts] == [True, False, True, False]
    acts = capture(chatty, mixed, positions=("last", "mean"))
    np.testing.assert_allclose(
        acts.at("last")[1], capture(chatty, ["plain one"], positions="last", cache=False).at()[0], atol=1e-5
    )
    assert not np.allclose(capture(chatty, ["plain one"], chat=True).at(), capture(chatty, ["plain one"]).at())


@pytest.mark.parametrize(
    ("text", "rule", "sentence"),
    [
        ("plain", "turn(0)", "needs a conversation, and item 't0' is a plain text: capture with chat=True"),
        ("plain", "span('absent')", r"Position span\(\"absent\"\) picks no token of item 't0'"),
        ("plain", "mean_from(9)", "picks no token"),
        (TALK, "turn(4)", "picks no token"),
        (TALK, "role(tool)", "picks no token"),
    ],
)
def test_what_picks_nothing_says_so(chatty: LensModel, text: Any, rule: str, sentence: str) -> None:
    with pytest.raises(CaptureError, match=sentence):
        Position.parse(rule).mask(layout(chatty, text))


def test_templates_that_cannot_be_used_say_why(llama: LensModel) -> None:
    with pytest.raises(CaptureError, match="has no chat template: capture plain texts"):
        layout(llama, "plain", chat=True)
    for template, sentence in (
        ("{{ raise_exception('roles must alternate') }}", "refuses these messages .*roles must alternate"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "rewrites the messages"),
    ):
        model = tiny_model("llama", check=False)
        model.tokenizer.chat_template = template
        with pytest.raises(CaptureError, match=sentence):
            layout(model, TALK)


def test_a_template_that_strips_messages_is_understood() -> None:
    model = tiny_model("llama", check=False)
    model.tokenizer.chat_template = TEMPLATE.replace("m.content", "m.content | trim")
    assert picked(model, [{"role": "user", "content": "  so it was \n"}], "turn(0)") == "so it was"
    assert picked(model, "    It rained. We left.", "ending", chat=True) == "We left."
