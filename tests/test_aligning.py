"""Span alignment: laws on every family and on real tokens, traps, the pairs of a battery, and what is shown."""

import re
from html.parser import HTMLParser
from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest

from affectlens.aligning import Alignment, align
from affectlens.errors import BatteryError, CaptureError, ModelError
from affectlens.layouts import lay_out
from affectlens.model import LensModel
from affectlens.pairing import align_pairs, matched_pairs
from affectlens.stimuli import Battery, Stimulus, load_battery
from affectlens.testing import FAMILIES, tiny_model, tiny_tokenizer
from affectlens.texts import TextList

TEXTS = [
    "It rained. Nobody came.",
    "It snowed all day. Nobody came.",
    "a a",
    "a a a",
    "a a a b",
    "b a a",
    "Zoé — naïve 🙂 end",
    "Zoë — naïve 🙃 end",
    "x",
    "Nobody came.",
]


def laws(model: LensModel, a: str, b: str) -> Alignment:
    """What holds of any two texts."""
    found = align(model, a, b)
    for side, text in ((found.a, a), (found.b, b)):
        assert list(side.ids) == model.tokenizer(text).input_ids
        assert [*side.prefix, *side.changed, *side.suffix] == list(range(len(side.ids)))
        assert "".join(t for t in side.tokens if t != "<bos>") == text
        (layout,) = lay_out(model, TextList([text]).frame())
        assert list(side.ending) == np.flatnonzero(layout.content & layout.covers(layout.ending, len(text))).tolist()
    assert all(found.a.ids[i] == found.b.ids[j] for i, j in found.pairs)
    for ours in (found.pairs, found.changed_pairs):  # one to one, and in order on both sides
        assert all(i < k and j < m for (i, j), (k, m) in pairwise(ours))
    assert len(found.pairs) == len(found.a.prefix) + len(found.a.suffix)
    assert {i for i, _ in found.changed_pairs} <= set(found.a.changed)
    assert {j for _, j in found.changed_pairs} <= set(found.b.changed)
    if found.a.changed and found.b.changed:  # neither run could be longer
        first, last = (found.a.ids[found.a.changed[k]] != found.b.ids[found.b.changed[k]] for k in (0, -1))
        assert first
        assert last
        assert found.changed_pairs[-1] == (found.a.changed[-1], found.b.changed[-1])
    assert align(model, b, a).pairs == tuple((j, i) for i, j in found.pairs)
    assert align(model, b, a).changed_pairs == tuple((j, i) for i, j in found.changed_pairs)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_laws_on_every_family(family: str) -> None:
    model = tiny_model(family, check=False)
    for a, b in product(TEXTS, TEXTS):
        found = laws(model, a, b)
        assert (a == b) == (not found.a.changed and not found.b.changed)
        if a == b:
            assert list(found.a.prefix) == list(range(len(found.a.ids)))
            assert found.ending_shared


@pytest.mark.real
def test_laws_on_real_tokens(smol: LensModel) -> None:
    battery = load_battery("starter")
    for items in list(battery.groups().values())[::5]:
        for a, b in product(items, items):
            laws(smol, a.text, b.text)


def spans(found: Alignment) -> list[tuple[int, ...]]:
    return [tuple(map(len, (side.prefix, side.changed, side.suffix))) for side in (found.a, found.b)]


def test_repeats_are_not_counted_twice() -> None:
    tokenizer = tiny_tokenizer()
    assert spans(align(tokenizer, "aa", "aaa")) == [(2, 0, 0), (2, 1, 0)]
    assert spans(align(tokenizer, "aaa", "aa")) == [(2, 1, 0), (2, 0, 0)]
    assert spans(align(tokenizer, "aba", "aba aba")) == [(3, 0, 0), (3, 4, 0)]
    assert spans(align(tokenizer, "abcb", "ab")) == [(2, 2, 0), (2, 0, 0)]


def test_nothing_shared_with_and_without_bos() -> None:
    assert spans(align(tiny_tokenizer(), "abc", "xy")) == [(0, 3, 0), (0, 2, 0)]
    found = align(tiny_tokenizer(bos=True), "abc", "xy")
    assert spans(found) == [(1, 3, 0), (1, 2, 0)]
    assert found.pairs == ((0, 0),)
    assert found.changed_pairs == ((2, 1), (3, 2))  # counted from the right: a's first token has no partner
    assert found.a.tokens[0] == "<bos>"
    assert found.a.ending == range(1, 4)


def stimulus(name: str, text: str, ending: int | None = None, **fields: object) -> Stimulus:
    meta = {} if ending is None else {"ending": ending}
    given = {"split": "s", "role": "emotional", "affect": True, "group": "g"} | fields
    return Stimulus(id=name, text=text, meta=meta, **given)  # type: ignore[arg-type]


def test_a_stimulus_brings_its_name_and_its_ending() -> None:
    text = "One. Two, and three."
    found = align(tiny_tokenizer(bos=True), stimulus("s1", text), stimulus("s2", text, ending=10))
    assert (found.a.name, found.b.name) == ("s1", "s2")
    assert found.a.text(found.a.ending) == "Two, and three."
    assert found.b.text(found.b.ending) == "and three."
    assert found.b.ending == range(11, 21)
    assert not found.ending_shared
    assert found.swapped().a.ending == found.b.ending


def test_a_shared_ending_is_known_at_any_offset() -> None:
    tokenizer = tiny_tokenizer()
    assert align(tokenizer, "He won. So it was.", "She lost it. So it was.").ending_shared
    assert not align(tokenizer, "He won. So it was.", "He won. So it is.").ending_shared
    assert not align(tokenizer, "He won. So it was.", "He won. So it got.").ending_shared
    # the clause reaches into the ending of one side only
    assert not align(tokenizer, "He won. So it was.", "He won, so it was.").ending_shared


def test_a_conversation_is_aligned_as_it_is_captured() -> None:
    model = tiny_model("llama", check=False)
    model.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}>"
    found = align(model, "It rained.", "It thawed.", chat=True)
    assert found.a.text(range(len(found.a.ids))) == "<user>It rained.\n>"
    assert found.a.text(found.a.ending) == "It rained."
    assert found.a.text(found.a.changed) == "rain"
    assert found.a.text(found.a.suffix) == "ed.\n>"


def test_refusals() -> None:
    with pytest.raises(ModelError, match="fast tokenizer"):
        align("gpt2", "a", "b")
    with pytest.raises(CaptureError, match="no tokens"):
        align(tiny_tokenizer(), "a", "")


def test_text_says_what_is_shared_and_fits_a_screen(llama: LensModel) -> None:
    long = "The bell in the tower rang. " * 30
    found = align(llama, "He sang. " + long, "Nobody sang at all. " + long)
    lines = str(found).splitlines()
    assert len(lines) <= 16
    assert max(map(len, lines)) <= 120
    assert lines[0].split()[:4] == ["tokens", str(len(found.a.ids)), "|", str(len(found.b.ids))]
    assert "(paired from the right: the first 11 of b have no partner)" in str(found)
    assert "shared, token for token" in lines[-1]
    assert "changed 7 and 18" in repr(found)
    assert "nothing" in str(align(llama, "a", "a"))


class Reader(HTMLParser):
    """Tags must close, and the text that a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.seen += data


def test_html_is_escaped_and_colours_leave_the_pages_own_text() -> None:
    a, b = stimulus("<i>1", "<b>5 & 6</b> rose."), stimulus("2", "<b>5 & 7</b> fell. </p>")
    html = align(tiny_tokenizer(bos=True), a, b)._repr_html_()
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert a.text in reader.seen
    assert b.text in reader.seen
    assert "<b>5" not in html
    assert "<i>" not in html
    assert not re.search(r"[;' ]color:|#[0-9a-f]{3}", html)
    assert set(re.findall(r"rgba\([\d,]+,([\d.]+)\)", html)) <= {"0.28", "0.12"}
    assert "title='1, paired with 1'" in html
    assert "no partner" in html


def battery(*items: Stimulus) -> Battery:
    return Battery("mine", items)


def test_pairs_of_a_quadruple_differ_in_one_letter_and_in_affect() -> None:
    starter = load_battery("starter")
    pairs = matched_pairs(starter)
    assert len(pairs) == 32 * 2 + 8 * 4 + 4 * 4
    crossed = pairs[pairs["contrast"].str.fullmatch("../..")]
    assert set(crossed["contrast"]) == {"ax/ay", "ax/bx", "by/bx", "by/ay"}
    for a, b in zip(pairs["a"], pairs["b"], strict=True):
        one, other = starter[a], starter[b]
        assert one.group == other.group
        if one.split == "crossed":
            assert one.affect
            assert not other.affect
        if one.cell and other.cell:
            assert sum(x != y for x, y in zip(one.cell, other.cell, strict=True)) == 1
        if one.split == "crossed_fact":
            assert {one.meta["check"]["answer"], other.meta["check"]["answer"]} == {"yes", "no"}


def test_an_incomplete_group_gives_the_pairs_that_it_has() -> None:
    pairs = matched_pairs(
        battery(
            stimulus("1", "One."),
            stimulus("2", "Two.", role="neutral", affect=False),
            stimulus("3", "Three.", role="mild"),
            stimulus("4", "Another.", group="h"),
            stimulus("4b", "And another.", group="h"),
            stimulus("5", "Five.", group="q", cell="ax"),
            stimulus("6", "Six.", group="q", cell="by"),
            stimulus("7", "Seven.", group="q", cell="bx", role="neutral", affect=False),
        )
    )
    assert pairs.to_numpy().tolist() == [
        ["g", "emotional/neutral", "1", "2"],
        ["g", "emotional/mild", "1", "3"],
        ["q", "ax/bx", "5", "7"],
        ["q", "by/bx", "6", "7"],
    ]


@pytest.mark.parametrize("table", [TextList(["a", "b"]), battery(stimulus("1", "One."))])
def test_no_pairs_is_said(table: TextList | Battery) -> None:
    with pytest.raises(BatteryError, match="no matched pairs"):
        align_pairs(tiny_tokenizer(), table)


def test_the_frame_is_what_align_says_and_facts_pairs_end_alike(llama: LensModel) -> None:
    starter = load_battery("starter")
    frame = align_pairs(llama, starter)
    pd.testing.assert_frame_equal(frame[["group", "contrast", "a", "b"]], matched_pairs(starter))
    for row in frame.iloc[::9].to_dict("records"):
        found = align(llama, starter[str(row["a"])], starter[str(row["b"])])
        assert (row["tokens_a"], row["tokens_b"]) == (len(found.a.ids), len(found.b.ids))
        assert [(row["prefix"], row[f"changed_{s}"], row["suffix"]) for s in "ab"] == spans(found)
        assert (row["ending_a"], row["ending_b"]) == (len(found.a.ending), len(found.b.ending))
        assert row["ending_shared"] is found.ending_shared
        assert row["shared"] == pytest.approx(2 * len(found.pairs) / (len(found.a.ids) + len(found.b.ids)))
    by = frame.groupby("contrast")["ending_shared"].mean()
    assert by["ax/bx"] == by["by/ay"] == 1  # the facts differ, the ending does not
    assert by["ax/ay"] == by["by/bx"] == 0


@pytest.mark.real
def test_the_starter_is_as_matched_as_we_say_in_real_tokens(smol: LensModel) -> None:
    frame = align_pairs(smol, load_battery("starter"))
    facts = frame["contrast"].isin(["ax/bx", "by/ay"])
    assert frame.loc[facts, "ending_shared"].all()
    assert (frame["tokens_a"] - frame["tokens_b"]).abs().max() <= 25
    assert frame.loc[frame["contrast"] == "emotional/neutral", "shared"].median() < 0.5  # vignettes: much is rewritten
