"""Others' batteries and tables of any kind, read as their authors lay them out, with what was put right said."""

from pathlib import Path

import pandas as pd
import pytest

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
