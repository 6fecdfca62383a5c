"""Krippendorff's alpha, and rating sheets that go out and come back."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from affectlens.errors import BatteryError
from affectlens.stimuli import alpha, load_battery, read_ratings
from affectlens.stimuli.rating import survey, write_survey

STARTER = load_battery("starter")

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


def test_alpha_without_variation_is_undefined() -> None:
    with pytest.raises(BatteryError, match="All ratings are equal: alpha is undefined"):
        alpha(np.ones((2, 40)))
    once = np.ones((2, 40))
    once[0, 0] = once[1, 1] = 2  # one draw in eight holds neither item
    found = alpha(once)
    assert found.value == pytest.approx(1 - 4 * 79 / (2 * 2 * 78))
    assert found.low <= found.value <= found.high < 0.1


def test_the_interval_ends_at_one() -> None:
    ratings = np.tile(np.arange(4.0), (2, 3))
    ratings[0, 0] = 3
    found = alpha(ratings)
    assert "jackknife" in found.method
    assert found.value < found.high == 1.0


# rating sheets --------------------------------------------------------------------------------------------------------


def test_a_rater_sees_one_item_of_a_group_and_nothing_that_tells() -> None:
    sheets = survey(STARTER, 3, seed=1, together=1)
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
    assert survey(STARTER, 3, seed=1, together=1)[2].equals(sheets[2])
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
    assert found.emotion_alpha
    assert found.intensity_alpha
    assert found.twice == len(first)
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


def test_raters_in_a_row_read_the_same_twins() -> None:
    for each in (None, 10):
        sheets = survey(STARTER, 5, seed=1, together=2, each=each)
        read = [set(sheet["item"]) for sheet in sheets]
        assert read[0] == read[1] != read[2] == read[3] != read[4]
        assert list(sheets[0]["item"]) != list(sheets[1]["item"])
    first, second = survey(STARTER, 2, seed=1)
    assert set(first["item"]) == set(second["item"])
    with pytest.raises(BatteryError, match="0 raters can't read together: give at least 1"):
        survey(STARTER, 3, together=0)


def answer(path: Path, target: Path, **said: str) -> None:
    """Fill in the sheet ``path`` as intended, except for the columns in ``said``, and write it to ``target``."""
    sheet = pd.read_csv(path, dtype=str, keep_default_na=False)
    key = dict(pd.read_csv(path.parent / "key.csv").to_numpy().tolist())
    items = [STARTER[key[code]] for code in sheet["item"]]
    intended = [(s.emotion or "none") if s.affect else "none" for s in items]
    target.parent.mkdir(exist_ok=True)
    sheet.assign(emotion=intended, intensity=[str(s.intensity) for s in items]).assign(**said).to_csv(
        target, index=False
    )


def test_the_raters_of_one_survey_have_an_alpha(tmp_path: Path) -> None:
    paths = write_survey(tmp_path, STARTER, 3)[:3]
    for path in paths:
        answer(path, path)
    found = read_ratings(STARTER, paths)
    assert found.twice == len(STARTER.groups())
    assert found.emotion_alpha
    assert found.emotion_alpha.value == 1.0


def test_each_alpha_is_none_where_undefined(tmp_path: Path) -> None:
    one, two = write_survey(tmp_path, STARTER, 2)[:2]
    answer(one, one)
    answer(two, two)
    alone = read_ratings(STARTER, [one])
    assert (alone.emotion_alpha, alone.intensity_alpha, alone.twice, alone.as_intended) == (None, None, 0, 1.0)
    assert "Krippendorff's alpha not defined (0 items rated twice)" in repr(alone)
    answer(two, two, intensity="")
    blank = read_ratings(STARTER, [one, two])
    assert blank.emotion_alpha
    assert blank.intensity_alpha is None
    assert "alpha not defined (60 items rated twice) (intensity, ordinal)" in repr(blank)
    answer(one, one, emotion="joy")
    answer(two, two, emotion="joy")
    equal = read_ratings(STARTER, [one, two])
    assert equal.emotion_alpha is None
    assert equal.intensity_alpha


def test_two_files_of_one_stem_are_two_raters(tmp_path: Path) -> None:
    sheet = write_survey(tmp_path / "s", STARTER, 1)[0]
    answer(sheet, tmp_path / "s" / "rater_2.csv")
    files = [tmp_path / "ann" / "sheet.csv", tmp_path / "ben" / "sheet.csv", tmp_path / "ben" / "sheet.txt"]
    for file in files:
        answer(sheet, file)
    key = tmp_path / "s" / "key.csv"
    found = read_ratings(STARTER, [tmp_path / "s" / "rater_2.csv", *files[:2]], key)
    assert set(found.table["rater"]) == {"rater_2", "ann/sheet", "ben/sheet"}
    assert found.twice == found.table["id"].nunique()
    assert read_ratings(STARTER, files, key).table["rater"].nunique() == 3
    with pytest.raises(BatteryError, match="sheet.csv is given twice, expected one sheet a rater"):
        read_ratings(STARTER, [files[0], files[0]], key)


def test_an_item_rated_twice_in_a_sheet_is_refused(tmp_path: Path) -> None:
    sheet = write_survey(tmp_path, STARTER, 1)[0]
    answer(sheet, sheet)
    filled = pd.read_csv(sheet, dtype=str, keep_default_na=False)
    pd.concat([filled, filled.iloc[[0]].assign(emotion="fear")]).to_csv(sheet, index=False)
    with pytest.raises(BatteryError, match="rater_1.csv, line 62: the item 'T.*' is rated twice, expected one row"):
        read_ratings(STARTER, [sheet])
