"""Others' batteries and tables of any kind, read as their authors lay them out, with what was put right said."""

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.errors import BatteryError
from affectlens.stimuli import load_battery, read_published, read_table, write_battery
from affectlens.stimuli.importing import clean, open_battery
from affectlens.stimuli.published import SOURCES
from affectlens.stimuli.tables import rows

HERE = Path(__file__).parent / "batteries"


def test_affect_reception_is_read_with_its_pairs_and_its_marks_are_put_right() -> None:
    found = read_published("affect-reception", HERE / "affect_reception.jsonl")
    peak, neutral, keyword, alone = found.battery
    assert (peak.role, peak.emotion, peak.intensity, peak.domain) == ("emotional", "anger", 3, "1")
    assert peak.text == "He signed for the parcel twice. The second time the box held bricks."
    assert (neutral.role, neutral.emotion, neutral.group) == ("neutral", "anger", peak.group)
    assert neutral.text.endswith("held books.")
    assert (keyword.role, keyword.emotion) == ("keyword", "sadness")
    assert (alone.role, alone.emotion) == ("neutral", None)
    assert found.battery.licence == "MIT"
    assert set(found.notes) == {
        "1 texts had stray trailing marks: put right",
        "1 texts had line breaks or doubled spaces: put right",
    }


def test_aipsy_affect_is_read_from_a_folder_of_parquet(tmp_path: Path) -> None:
    for name, chosen in (("clinical", slice(0, 1)), ("neutral", slice(1, 2))):
        pd.DataFrame(rows(HERE / "affect_reception.jsonl")[chosen]).drop(columns="stimulus_set").to_parquet(
            tmp_path / f"{name}.parquet"
        )
    found = read_published("aipsy-affect", tmp_path).battery
    assert [(s.split, s.role, s.emotion) for s in found] == [
        ("clinical", "emotional", "anger"), ("neutral", "neutral", "anger"),
    ]  # fmt: skip
    assert len(found.groups()) == 1


def test_sev_is_three_events_a_scenario() -> None:
    found = read_published("sev", HERE / "sev.jsonl").battery
    assert [(s.id, s.valence, s.affect) for s in found][:3] == [
        ("work_01.positive", 1, True), ("work_01.neutral", 0, False), ("work_01.negative", -1, True),
    ]  # fmt: skip
    assert found["home_02.negative"].text[found["home_02.negative"].ending :] == "One chair stays empty."
    assert len(found.groups()) == 2


def test_goemotions_is_read_without_and_with_a_heading() -> None:
    bare = read_published("goemotions", HERE / "goemotions_train.tsv")
    assert [s.emotion for s in bare.battery] == [None, None, None]
    assert [s.meta["labels"] for s in bare.battery] == [["gratitude"], ["annoyance", "disappointment"], ["neutral"]]
    assert [s.affect for s in bare.battery] == [True, True, False]
    assert bare.battery.items[1].text == '"They shut the library for 10" of snow'
    assert any("none of Plutchik's eight" in note and "gratitude 1" in note for note in bare.notes)
    raw = read_published("goemotions", HERE / "goemotions_raw.csv").battery
    assert [(s.emotion, s.affect) for s in raw] == [("anger", True), (None, False)]


def test_crowd_envent_keeps_its_appraisals() -> None:
    found = read_published("crowd-envent", HERE / "crowd-enVent_generation.tsv").battery
    angry, flat, guilty = found
    assert (angry.emotion, flat.affect, guilty.emotion, guilty.meta["label"]) == ("anger", False, None, "guilt")
    assert angry.meta["appraisals"] == {"suddenness": 4.0, "familiarity": 2.0, "pleasantness": 1.0}
    assert angry.meta["masked"].startswith("I felt ...")
    assert "own copy" in found.licence


def test_emobank_keeps_its_three_axes() -> None:
    found = read_published("emobank", HERE / "emobank.csv").battery
    assert [(s.valence, s.affect, s.split) for s in found] == [
        (1, True, "train"),
        (0, False, "test"),
        (-1, True, "dev"),
    ]
    assert found.items[0].meta == {"V": 4.2, "A": 3.8, "D": 3.1}


def test_repe_and_isear() -> None:
    found = read_published("repe", HERE / "repe").battery
    assert [s.emotion for s in found] == ["fear", "fear", "joy", "joy"]
    found = read_published("isear", HERE / "isear.csv").battery
    assert [(s.emotion, s.meta["label"]) for s in found] == [("joy", "joy"), (None, "guilt"), ("fear", "fear")]


def test_every_source_has_a_licence_a_citation_and_says_what_to_give() -> None:
    for source in SOURCES.values():
        assert source.licence
        assert source.citation
        assert source.files


def test_any_table_by_naming_its_columns(tmp_path: Path) -> None:
    columns = {"text": "story", "label": "feeling", "group": "pair", "domain": "where"}
    found = read_table(HERE / "survey.csv", columns).battery
    assert [(s.role, s.emotion, s.group, s.domain) for s in found] == [
        ("emotional", "anger", "p1", "home"), ("neutral", None, "p1", "home"),
    ]  # fmt: skip
    frame = pd.read_csv(HERE / "survey.csv")
    frame.to_parquet(tmp_path / "survey.parquet")
    frame.to_json(tmp_path / "survey.json", orient="records")
    frame.to_csv(tmp_path / "survey.tsv", sep="\t", index=False)
    for kind in ("parquet", "json", "tsv"):
        assert read_table(tmp_path / f"survey.{kind}", columns).battery.sha256 == found.sha256


def test_what_is_written_reads_back_with_the_same_hash(tmp_path: Path) -> None:
    found = read_published("sev", HERE / "sev.jsonl").battery
    assert load_battery(write_battery(tmp_path / "mine.jsonl", found)).sha256 == found.sha256
    assert open_battery(str(HERE / "sev.jsonl"), "sev").sha256 == found.sha256
    assert len(open_battery("starter", None)) == 160


def test_cleaning_says_what_it_did_and_leaves_clean_texts_alone() -> None:
    assert clean("It rained. It stopped.") == ("It rained. It stopped.", [])
    assert clean(" It rained.\r\n\r\nIt stopped.  \n---\n") == (
        "It rained. It stopped.", ["stray trailing marks", "line breaks or doubled spaces"],
    )  # fmt: skip
    assert clean("A dash - here.")[1] == []


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("What the f***", "What the f***"),
        ("It is in /tmp\\", "It is in /tmp\\"),
        ("She left.---", "She left."),
        ("She left ***", "She left"),
        ("She left. \\", "She left."),
        ("---", ""),
    ],
)
def test_only_marks_after_space_or_punctuation_are_stray(text: str, bare: str) -> None:
    assert clean(text)[0] == bare


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("sev", '{"scenario": "x"}', "does not read as SEV .*; give sev.jsonl"),
        ("emobank", "id,V,A,D,text\na,high,2,3,x", "does not read as EmoBank"),
        ("goemotions", "hello\t99\tid", "does not read as GoEmotions"),
        ("isear", "a,b\n1,2", "the columns a, b hold no emotion"),
        ("sev", "{", "can't be read as jsonl"),
        ("sev", "", "has no rows"),
    ],
)
def test_a_file_that_is_something_else_gets_a_sentence(tmp_path: Path, kind: str, text: str, said: str) -> None:
    path = tmp_path / ("x.jsonl" if kind == "sev" else "x.tsv" if kind == "goemotions" else "x.csv")
    path.write_text(text)
    with pytest.raises(BatteryError, match=said):
        read_published(kind, path)


def test_bad_input_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BatteryError, match="There is no reader 'sve'; there are affect-reception, aipsy-affect"):
        read_published("sve", HERE / "sev.jsonl")
    with pytest.raises(BatteryError, match="There is no file or folder nowhere"):
        read_published("sev", "nowhere")
    with pytest.raises(BatteryError, match="holds no .csv"):
        read_published("sev", tmp_path)
    with pytest.raises(BatteryError, match="has no column 'tale'; it has story, feeling"):
        read_table(HERE / "survey.csv", {"text": "tale"})
    with pytest.raises(BatteryError, match="Name the text column"):
        read_table(HERE / "survey.csv", {"label": "feeling"})
    with pytest.raises(BatteryError, match="Name the text column"):
        read_table(HERE / "survey.csv", {"text": "story", "mood": "feeling"})
    (tmp_path / "x.docx").write_text("x")
    with pytest.raises(BatteryError, match=r"x.docx is no .csv, .tsv"):
        rows(tmp_path / "x.docx")
    (tmp_path / "latin.csv").write_bytes("text\ncaf\xe9".encode("latin-1"))
    with pytest.raises(BatteryError, match="is not UTF-8"):
        rows(tmp_path / "latin.csv")
    (tmp_path / "twice.csv").write_text("id,text\na,x y.\na,z w.")
    with pytest.raises(BatteryError, match="items with one id: a"):
        read_table(tmp_path / "twice.csv", {"text": "text", "id": "id"})


# rows -----------------------------------------------------------------------------------------------------------------


def _file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.csv", 'text,label\n"a\nb",joy\nIt rained, again.,sadness\n', "line 4 has 3 fields, expected 2 .*a comma"),
        ("x.tsv", "text\tlabel\nIt rained.\n", "line 2 has 1 fields, expected 2 .*a tab"),
        ("x.csv", 'label,text\njoy,"It rained.\nfear,It stopped.\n', r"line 2 \(unexpected end of data\): close each"),
    ],
)
def test_a_row_is_neither_cut_nor_merged(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(BatteryError, match=said):
        rows(_file(tmp_path, name, text))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("story\nHello, world; again.\n", [["Hello, world; again."]]),
        ('a\tb\n"It ""rained""."\tx\n', [['It "rained".', "x"]]),
        ('a\tb\n"one\n\ntwo"\tx\n', [["one\n\ntwo", "x"]]),
        ('a\tb\n"Rain\tx\nSun"\ty\n', [['"Rain', "x"], ['Sun"', "y"]]),
        ('a\tb\n"10" of snow\tx\n"Rain\ty\n', [['"10" of snow', "x"], ['"Rain', "y"]]),
    ],
)
def test_quotation_marks_in_tab_files(tmp_path: Path, text: str, found: list[list[str]]) -> None:
    assert [list(row.values()) for row in rows(_file(tmp_path, "x.tsv", text))] == found


def test_missing_cells_of_parquet_are_none_and_whole_numbers_stay_whole(tmp_path: Path) -> None:
    frame = pd.DataFrame({"story": ["a b.", "c d.", None], "pair": [0, None, 1], "n": [0, 1, 2], "feeling": "joy"})
    frame.to_parquet(tmp_path / "x.parquet")
    assert [row["pair"] for row in rows(tmp_path / "x.parquet")] == [0, None, 1]
    columns = {"text": "story", "group": "pair", "id": "n", "label": "feeling"}
    found = read_table(tmp_path / "x.parquet", columns)
    assert [(s.id, s.group) for s in found.battery] == [("0", "0"), ("1", "1")]
    assert "1 rows without text were left out" in found.notes


# tables ---------------------------------------------------------------------------------------------------------------


def test_a_missing_label_is_refused_unless_it_is_said_to_be_neutral(tmp_path: Path) -> None:
    path = _file(tmp_path, "x.csv", "t,l,r\nIt rained.,joy,\nIt stopped.,calm,\nIt froze., ,\n")
    with pytest.raises(BatteryError, match=r"x.csv, row 3 has no label: write neutral there, or pass neutral=\(''"):
        read_table(path, {"text": "t", "label": "l"})
    found = read_table(path, {"text": "t", "label": "l", "role": "r"}, neutral=("", "Calm")).battery
    assert [(s.affect, s.emotion) for s in found] == [(True, "joy"), (False, None), (False, None)]
    out = tmp_path / "out.jsonl"
    columns = ["--text-col", "t", "--label-col", "l"]
    result = CliRunner().invoke(app, ["stimuli", "import", str(path), *columns, "--neutral", "", "--neutral", "calm",
                                      "-o", str(out)])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert [s.affect for s in load_battery(out)] == [True, False, False]


@pytest.mark.parametrize(
    ("valence", "sign"), [("positive", 1), ("Negative", -1), ("neutral", 0), ("-0.4", -1), ("7", 1), ("", 0)]
)
def test_valence_is_a_word_or_a_number(tmp_path: Path, valence: str, sign: int) -> None:
    path = _file(tmp_path, "x.csv", f"t,v\nIt rained.,{valence}\n")
    assert read_table(path, {"text": "t", "valence": "v"}).battery.items[0].valence == sign


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("valence", "good", "row 1 has the valence 'good', expected positive, negative"),
        ("valence", "nan", "row 1 has the valence 'nan'"),
        ("intensity", "high", "row 1 has the intensity 'high', expected 0, 1, 2 or 3"),
        ("intensity", "4", "row 1 has the intensity '4'"),
        ("intensity", "1.5", "row 1 has the intensity '1.5'"),
    ],
)
def test_values_that_do_not_fit_get_their_row(tmp_path: Path, column: str, value: str, said: str) -> None:
    path = _file(tmp_path, "x.csv", f"t,v\nIt rained.,{value}\n")
    with pytest.raises(BatteryError, match=said):
        read_table(path, {"text": "t", column: "v"})


# published ------------------------------------------------------------------------------------------------------------


def test_repe_reads_its_six_files_and_names_the_others(tmp_path: Path) -> None:
    for name in ("anger", "all_truncated_outputs"):
        _file(tmp_path, f"{name}.json", '["The lift stopped."]')
    found = read_published("repe", tmp_path)
    assert [s.emotion for s in found.battery] == ["anger"]
    assert "left out: all_truncated_outputs.json" in found.notes
    with pytest.raises(BatteryError, match=r"all_truncated_outputs.json: none of the files of RepE emotions; give the"):
        read_published("repe", tmp_path / "all_truncated_outputs.json")


def test_goemotions_raters_are_gathered_over_files(tmp_path: Path) -> None:
    heading = "text,id,admiration,anger,joy,neutral\n"
    _file(tmp_path, "goemotions_1.csv", heading + "One.,a,0,1,0,0\nOne.,a,0,0,1,0\nTwo.,b,0,1,0,0\nFour.,d,0,0,0,0\n")
    _file(tmp_path, "goemotions_2.csv", heading + "One.,a,0,1,0,0\nTwo.,b,0,0,1,0\nThree.,c,1,0,0,0\n")
    found = read_published("goemotions", tmp_path)
    assert [(s.text, s.emotion, s.meta["labels"], s.meta["raters"]) for s in found.battery] == [
        ("One.", "anger", ["anger"], 3), ("Two.", None, ["anger", "joy"], 2), ("Three.", None, ["admiration"], 1),
    ]  # fmt: skip
    assert found.battery.items[0].meta["votes"] == {"anger": 2, "joy": 1}
    assert found.battery.items[2].meta["label"] == "admiration"
    assert found.notes[0].startswith("7 ratings of 4 comments were gathered by comment")
    assert found.notes[0].endswith("1 without a label left out")


@pytest.mark.parametrize("code", ["0", "8", "-1", "1.5"])
def test_isear_refuses_codes_that_it_lacks(tmp_path: Path, code: str) -> None:
    good = read_published("isear", _file(tmp_path, "good.csv", "EMOT,SIT\n4,It rained.\n7.0,It froze.\n")).battery
    assert [s.meta["label"] for s in good] == ["sadness", "guilt"]
    with pytest.raises(BatteryError, match=f"ISEAR: row 2 has the emotion code {code}, expected 1 to 7"):
        read_published("isear", _file(tmp_path, "bad.csv", f"EMOT,SIT\n1,It rained.\n{code},It froze.\n"))
