"""Schemes of emotion, norms, agreement, rating sheets, and looking at a battery."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from affectlens.errors import BatteryError
from affectlens.stimuli import (
    EMOTIONS,
    alpha,
    balance_figure,
    load_battery,
    read_norms,
    read_ratings,
    relabel,
    vad,
    view,
)
from affectlens.stimuli.explorer import compared
from affectlens.stimuli.norms import norms
from affectlens.stimuli.rating import survey, write_survey
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


# agreement ------------------------------------------------------------------------------------------------------------

N = np.nan
KRIPPENDORFF = np.array([  # four observers, twelve units: the worked example of his text on computing alpha
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
])  # fmt: skip


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs_own_example(level: str, value: float) -> None:
    found = alpha(KRIPPENDORFF, level)
    assert round(found.value, 3) == value
    assert found.low < value < found.high
    assert found.n == 11


def test_alpha_of_noise_is_near_nought_and_of_copies_is_one() -> None:
    noise = np.random.default_rng(0).integers(0, 9, size=(3, 200)).astype(float)
    found = alpha(noise)
    assert found.low < 0 < found.high
    assert alpha(np.stack([noise[0], noise[0]])).value == 1.0
    permuted = noise.copy()
    permuted[:, :] = noise[::-1]
    assert alpha(permuted).value == pytest.approx(found.value)
    with pytest.raises(BatteryError, match="at least two items that two raters rated"):
        alpha(np.array([[1.0, N], [N, 1.0]]))
    with pytest.raises(BatteryError, match="The level is 'ratio'"):
        alpha(noise, "ratio")


# rating sheets --------------------------------------------------------------------------------------------------------


def test_a_rater_sees_one_item_of_a_group_and_nothing_that_tells() -> None:
    sheets = survey(STARTER, 3, seed=1)
    texts = {s.text: s for s in STARTER}
    for sheet in sheets:
        groups = [texts[text].group for text in sheet["text"]]
        assert len(groups) == len(set(groups)) == len(STARTER.groups())
        assert not set(sheet["item"]) & {s.id for s in STARTER}
        assert (sheet["emotion"] == "").all()
        assert list(sheet["number"]) == list(range(1, len(sheet) + 1))
    assert set(sheets[0]["text"]) != set(sheets[1]["text"])
    triplet = [{texts[t].id for t in sheet["text"] if texts[t].group == "v.joy.family.1"} for sheet in sheets]
    assert len(set().union(*triplet)) == 3
    assert survey(STARTER, 3, seed=1)[2].equals(sheets[2])
    assert len(survey(STARTER, 1, each=10)[0]) == 10


def test_a_survey_comes_back_with_its_agreement(tmp_path: Path) -> None:
    paths = write_survey(tmp_path / "s", STARTER, 2)
    assert [p.name for p in paths] == ["rater_1.csv", "rater_2.csv", "key.csv", "instructions.md"]
    key = dict(pd.read_csv(tmp_path / "s" / "key.csv").to_numpy().tolist())
    for path in paths[:2]:
        sheet = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert [STARTER[key[code]].text for code in sheet["item"]] == list(sheet["text"])
        for i, code in enumerate(sheet["item"]):
            s = STARTER[key[code]]
            sheet.loc[i, ["emotion", "intensity"]] = [(s.emotion or "none") if s.affect else "none", str(s.intensity)]
        sheet.to_csv(path, index=False)
    first, second = (pd.read_csv(p, dtype=str, keep_default_na=False) for p in paths[:2])
    second = second.iloc[:0]
    copy = first.copy()
    copy.to_csv(tmp_path / "s" / "rater_3.csv", index=False)
    found = read_ratings(STARTER, [paths[0], tmp_path / "s" / "rater_3.csv"])
    assert found.as_intended == 1.0
    assert found.emotion_alpha.value == found.intensity_alpha.value == 1.0
    assert "2 raters" in repr(found)
    with pytest.raises(BatteryError, match="holds rating sheets already"):
        write_survey(tmp_path / "s", STARTER, 2)
    first.loc[0, "emotion"] = "glee"
    first.to_csv(paths[0], index=False)
    with pytest.raises(BatteryError, match="rater_1.csv, line 2: the emotion is 'glee', expected one of joy"):
        read_ratings(STARTER, [paths[0]])
    first.loc[0, ["emotion", "intensity"]] = ["joy", "7"]
    first.to_csv(paths[0], index=False)
    with pytest.raises(BatteryError, match="the intensity is '7', expected 0, 1, 2 or 3"):
        read_ratings(STARTER, [paths[0]])
    first.loc[0, ["item", "intensity"]] = ["T1", "2"]
    first.to_csv(paths[0], index=False)
    with pytest.raises(BatteryError, match="has no item 'T1': is the key right"):
        read_ratings(STARTER, [paths[0]])
    with pytest.raises(BatteryError, match="at least one rater"):
        survey(STARTER, 0)


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
        context = s.text[: s.ending].strip()
        marked = " ".join(text for text, different in parts if different)
        assert marked
        assert not any(different for text, different in parts if text and context.startswith(text) and len(text) > 40)
    html = shown._repr_html_()
    assert html.count("<mark>") >= 4
    assert "check:" in html
    assert "[" in repr(shown)


def test_balance_is_drawn() -> None:
    bars: Any = balance_figure(STARTER).data
    assert {bar.name for bar in bars} == {s.split for s in STARTER}
    assert sum(sum(bar.y) for bar in bars) == 160
