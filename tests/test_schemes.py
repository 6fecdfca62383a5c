"""Schemes of emotion, norms, agreement, rating sheets, and looking at a battery."""

from pathlib import Path
from typing import Any

import pytest

from affectlens.errors import BatteryError
from affectlens.stimuli import (
    EMOTIONS,
    balance_figure,
    load_battery,
    read_norms,
    relabel,
    vad,
    view,
)
from affectlens.stimuli.explorer import compared
from affectlens.stimuli.norms import norms
from affectlens.stimuli.schemes import (
    DYADS,
    EKMAN,
    EKMAN_OF_GOEMOTIONS,
    GOEMOTIONS,
    OPPOSITE,
    PARROTT,
    PLUTCHIK,
    plutchik,
    tiers,
)  # fmt: skip

STARTER = load_battery("starter")
WHEEL = ("joy", "trust", "fear", "surprise", "sadness", "disgust", "anger", "anticipation")


def test_the_wheel_is_a_wheel() -> None:
    assert WHEEL == EMOTIONS
    for i, emotion in enumerate(WHEEL):
        assert OPPOSITE[emotion] == WHEEL[(i + 4) % 8]
    gaps = sorted(
        min((WHEEL.index(a) - WHEEL.index(b)) % 8, (WHEEL.index(b) - WHEEL.index(a)) % 8) for a, b in DYADS.values()
    )
    assert gaps == [1] * 8 + [2] * 8 + [3] * 8
    assert len({frozenset(pair) for pair in DYADS.values()}) == 24
    assert len({word for petal in PLUTCHIK.values() for word in petal}) == 24


def test_goemotions_has_28_labels_in_six_groups() -> None:
    assert len(GOEMOTIONS) == 28
    assert set(EKMAN_OF_GOEMOTIONS) == set(EKMAN)
    assert sum(len(v.split()) for v in EKMAN_OF_GOEMOTIONS.values()) == 27


def test_parrotts_tree_has_six_branches_and_no_word_on_two() -> None:
    assert set(PARROTT) == {"love", "joy", "surprise", "anger", "sadness", "fear"}
    words = [w for tree in PARROTT.values() for line in tree.values() for w in line.split()]
    assert len(words) == len(set(words))
    assert tiers("disgust") == ("anger", "disgust")
    assert tiers("table") is None


def test_relabelling_gives_none_where_a_scheme_has_no_place() -> None:
    assert relabel([*EMOTIONS], "ekman") == ["joy", None, "fear", "surprise", "sadness", "disgust", "anger", None]
    assert relabel(["disgust", "trust", "rage", None], "parrott") == ["anger", None, "anger", None]
    assert relabel(["admiration", "annoyance", "curiosity", "neutral"], "ekman", source="goemotions") == [
        "joy", "anger", "surprise", None,
    ]  # fmt: skip
    assert relabel(["love", "remorse"], "parrott", source="goemotions") == ["love", "sadness"]
    assert relabel(["loathing", "longing"], "plutchik", source="parrott") == ["disgust", None]
    assert relabel(["ecstasy"], "plutchik") == ["joy"]
    assert relabel(["trust", "joy"], "goemotions") == [None, "joy"]
    for scheme in ("ekman", "goemotions"):
        assert relabel(relabel([*EMOTIONS], scheme), "plutchik", source=scheme) == [
            e if e in EKMAN else None for e in EMOTIONS
        ]
    with pytest.raises(BatteryError, match="There is no scheme 'izard'; there are plutchik"):
        relabel(["joy"], "izard")
    with pytest.raises(BatteryError, match="'schadenfreude' is no label of goemotions"):
        relabel(["schadenfreude"], "ekman", source="goemotions")
    assert plutchik("Happiness") == "joy"


@pytest.mark.parametrize(
    ("scheme", "word", "same"),
    [
        ("plutchik", "terror", "fear"),
        ("ekman", " Anger", "anger"),
        ("goemotions", "gratitude", "gratitude"),
        ("parrott", "grief", "sadness"),
        ("parrott", "longing", "love"),
    ],
)
def test_relabelling_to_the_same_scheme_knows_its_words(scheme: str, word: str, same: str) -> None:
    assert relabel([word, None, " Neutral "], scheme, source=scheme) == [same, None, None]


def test_relabelling_uses_parrotts_second_tier_where_plutchik_has_it() -> None:
    words = ["revulsion", "contempt", "terror", "envy", "horror", "love"]
    assert relabel(words, "plutchik", source="parrott") == ["disgust", "disgust", "fear", "anger", "fear", None]
    assert relabel(["revulsion"], "parrott", source="parrott") == ["anger"]


@pytest.mark.parametrize("source", ["plutchik", "ekman", "parrott", "goemotions"])
@pytest.mark.parametrize("to", ["plutchik", "ekman", "parrott", "goemotions"])
def test_relabelling_refuses_unknown_words_everywhere(source: str, to: str) -> None:
    with pytest.raises(BatteryError, match="'table' is n"):
        relabel(["table"], to, source=source)


def test_norms_are_on_their_scale_and_order_the_plain_cases(tmp_path: Path) -> None:
    assert all(1 <= x <= 9 for coordinates in norms().values() for x in coordinates)
    assert len(norms()) >= 100
    assert all(vad(emotion) is not None for emotion in EMOTIONS)
    joy, sadness, calm, rage = (vad(w) for w in ("joy", "sadness", "calm", "rage"))
    assert joy
    assert sadness
    assert calm
    assert rage
    assert joy.valence > 7 > 3 > sadness.valence
    assert rage.arousal > calm.arousal
    assert vad("table") is None
    (tmp_path / "mine.txt").write_text("Word\tValence\tArousal\tDominance\nTable\t0.5\t0.2\t0.4\n")
    assert read_norms(tmp_path / "mine.txt")["table"] == (0.5, 0.2, 0.4)
    (tmp_path / "w.csv").write_text("Word,V.Mean.Sum,A.Mean.Sum,D.Mean.Sum\nlamp,5.1,3.2,5.0\n")
    assert read_norms(tmp_path / "w.csv")["lamp"].arousal == 3.2
    (tmp_path / "b.csv").write_text("word,valence\nlamp,5\n")
    with pytest.raises(BatteryError, match="no column for arousal, dominance; it has word, valence"):
        read_norms(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("word,valence,arousal,dominance\nlamp,high,1,2\n")
    with pytest.raises(BatteryError, match="holds a value that is no number"):
        read_norms(tmp_path / "c.csv")


# looking --------------------------------------------------------------------------------------------------------------


def test_differences_are_marked_and_the_text_is_whole() -> None:
    pieces = compared("He lit the lamp and left.", "He lit the fuse and left.")
    assert pieces == [("He lit the", False), ("lamp", True), ("and left.", False)]
    for group in ("v.joy.family.1", "x.fear.01", "n.01"):
        for s, parts in view(STARTER, group).rows:
            assert " ".join(text for text, _ in parts) == s.text


def test_a_quadruple_is_shown_with_its_endings_marked() -> None:
    shown = view(STARTER, "x.fear.01")
    assert [s.cell for s, _ in shown.rows] == ["ax", "ay", "bx", "by"]
    for s, parts in shown.rows:
        text, marked = parts[0]
        assert not marked
        assert text.startswith(s.text[: s.ending].strip())  # the context is shared, whole
        assert any(different for _, different in parts)
    html = shown._repr_html_()
    assert html.count("<mark>") >= 4
    assert "check:" in html
    assert "[" in repr(shown)


def test_balance_is_drawn() -> None:
    bars: Any = balance_figure(STARTER).data
    assert {bar.name for bar in bars} == {s.split for s in STARTER}
    assert sum(sum(bar.y) for bar in bars) == 160
