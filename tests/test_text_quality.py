"""What is wrong with a reply as text, on texts whose fault is planted."""

import numpy as np
import pytest

from affectlens.steering.evaluating.quality import LOOPED, distinct, longest_repeat, looped, quality

PROSE = (
    "The harbour was quiet when we arrived, and my brother had already found a place to sit near the old crane. We "
    "ate what was left of the bread and talked about nothing in particular until the lamps came on along the quay."
)


def one(text: str, **more: float) -> dict[str, object]:
    found = quality([text], perplexity=np.array([more.get("ppl", 5.0)]), typical=5.0)
    return {str(name): value for name, value in found.iloc[0].items()}


def test_prose_is_in_order() -> None:
    found = one(PROSE)
    assert (found["degenerate"], found["why"], found["refusal"]) == (False, "", "")
    assert found["repetition"] == 0
    assert found["longest_repeat"] == 0
    assert 0.95 < float(str(found["distinct2"])) <= 1


@pytest.mark.parametrize(("text", "why"), [
    ("", "empty"), (" \n", "empty"), ("yes yes yes yes yes", "loop"), (PROSE + " and on" * 60, "loop"),
    ("I am happy. I am happy. I am happy. I am happy.", "loop"),
    ("a b c d. a b c e. a b d c. a b c d. a b c e. a b d c. b a c d. a b c d. a b e c.", "poor"),
])  # fmt: skip
def test_broken_text_is_degenerate(text: str, why: str) -> None:
    found = one(text)
    assert (found["degenerate"], found["why"]) == (True, why)


def test_perplexity_breaks_only_beside_ordinary_replies() -> None:
    assert one(PROSE, ppl=49.0)["why"] == ""
    assert one(PROSE, ppl=51.0)["why"] == "strange"
    assert one(PROSE, ppl=np.inf)["why"] == "strange"
    assert one(PROSE, ppl=np.nan)["why"] == ""
    assert quality([PROSE], perplexity=np.array([1e6]))["why"].tolist() == [""]


@pytest.mark.parametrize("text", [
    "We were so so so glad", "no, no, no", "ha ha ha, she said, and we laughed with her till the bus came",
    "He said yes. She said yes. I left early and went to the market for eggs.",
])  # fmt: skip
def test_emphasis_is_no_loop(text: str) -> None:
    assert not one(text)["degenerate"]


def test_a_loop_is_the_same_wherever_it_stands_and_grows_with_its_length() -> None:
    words = PROSE.lower().replace(",", "").replace(".", "").split()
    unit = "oh what a day".split()
    shares = [looped(words + unit * k) for k in range(1, 8)]
    assert shares[0] == shares[1] == 0
    assert shares[2:] == pytest.approx([4 * k / (len(words) + 4 * k) for k in range(3, 8)])
    assert looped(unit * 5 + words) == pytest.approx(looped(words + unit * 5))
    assert looped(unit * 3) == 1.0
    assert looped(words + unit * 6) > LOOPED


def test_longest_repeat_is_measured_in_tokens() -> None:
    assert longest_repeat("a b c d x a b c d".split()) == 4
    assert longest_repeat("a b c d e f x a b c d e f".split()) == 6
    assert longest_repeat("a b c d".split()) == 0
    assert longest_repeat([]) == 0


def test_distinct_is_the_share_of_different_grams() -> None:
    assert distinct("a b a b".split(), 1) == 0.5
    assert distinct("a b a b".split(), 2) == pytest.approx(2 / 3)
    assert np.isnan(distinct(["a"], 2))


@pytest.mark.parametrize(("text", "rule"), [
    ("I'm sorry, but I can't talk about that.", "apology"), ("I\u2019m sorry, but I\u2019m unable to say.", "apology"),
    ("I cannot assist with this request.", "inability"), ("I am not able to help you there.", "inability"),
    ("As an AI language model, I have no feelings.", "machine"), ("I must decline.", "unwilling"),
    ("That is against my guidelines.", "policy"),
])  # fmt: skip
def test_refusals_are_known_by_their_rule(text: str, rule: str) -> None:
    assert one(text)["refusal"] == rule


@pytest.mark.parametrize("text", [
    "I can't believe it, what a morning!", "I cannot help but smile.", "I'm sorry to hear about your dog.",
    "I am sorry, I was late.", "I won't forget this day.", "She said she could not help you.",
])  # fmt: skip
def test_feeling_is_no_refusal(text: str) -> None:
    assert one(text)["refusal"] == ""


def test_rows_keep_their_order() -> None:
    found = quality([PROSE, "", PROSE])
    assert found["tokens"].tolist()[1] == 0
    assert found["degenerate"].tolist() == [False, True, False]
    assert quality([]).empty
