"""Batteries and their reader."""

from pathlib import Path

import pytest

from affectlens.errors import BatteryError
from affectlens.stimuli import Battery, Stimulus, canonical, load_battery
from affectlens.stimuli.battery import read_jsonl
from affectlens.stimuli.taxonomy import EMOTIONS, PEAK


def item(name: str = "a", **changes: object) -> Stimulus:
    fields = {"id": name, "text": "It rained. It stopped.", "split": "s", "role": "neutral", "affect": False} | changes
    return Stimulus(**fields)  # type: ignore[arg-type]


def test_basic_and_peak_names_are_one() -> None:
    assert [canonical(peak.upper()) for peak in PEAK.values()] == list(EMOTIONS)
    assert item(emotion="Grief").emotion == "sadness"
    with pytest.raises(BatteryError, match="'gloom' is not one of Plutchik's emotions: use joy"):
        item(emotion="gloom")


def test_defaults_and_ending() -> None:
    assert item().group == "a"
    assert item().text[item().ending :] == "It stopped."
    assert item(meta={"ending": 3}).ending == 3


@pytest.mark.parametrize(
    ("field", "value"), [("role", "sad"), ("cell", "cx"), ("valence", 2), ("intensity", 4), ("id", ""), ("text", " ")]
)
def test_values_are_checked(field: str, value: object) -> None:
    with pytest.raises(BatteryError, match=field):
        item(**({"name": value} if field == "id" else {field: value}))  # type: ignore[arg-type]


def test_hash_covers_every_field_and_the_order() -> None:
    a, b = item("a"), item("b")
    base = Battery("x", (a, b)).sha256
    assert Battery("another name", (a, b)).sha256 == base
    others = [(b, a), (a,), (a, item("b", intensity=1)), (a, item("b", meta={"k": 1})), (a, item("b", author="w"))]
    assert base not in {Battery("x", items).sha256 for items in others}


def test_groups_where_counts_and_lookup() -> None:
    battery = load_battery("starter")
    triplet = battery.groups()["v.joy.family.1"]
    assert [s.role for s in triplet] == ["emotional", "neutral", "keyword"]
    assert len(battery.where(split="crossed", emotion="fear")) == 4
    assert len(battery.where(split="crossed", emotion="terror")) == 4
    with pytest.raises(BatteryError, match="'happy' is not one of Plutchik's emotions"):
        battery.where(emotion="happy")
    with pytest.raises(BatteryError, match="Stimuli have no 'mood'; they have id, text"):
        battery.where(mood="x")
    assert battery.counts()["items"].sum() == len(battery) == 160
    assert battery["n.01"].role == "vivid"
    assert "160 items" in repr(battery)
    assert "<table" in battery._repr_html_()
    with pytest.raises(BatteryError, match="has no item 'nobody'"):
        _ = battery["nobody"]
    with pytest.raises(BatteryError, match="has no items"):
        battery.where(split="nothing")


def test_a_jsonl_file_round_trips(tmp_path: Path) -> None:
    import json
    from dataclasses import asdict

    battery = load_battery("starter")
    path = tmp_path / "mine.jsonl"
    path.write_text("\n\n".join(json.dumps(asdict(s)) for s in battery), encoding="utf-8")
    assert load_battery(path).sha256 == battery.sha256


def test_the_readmes_example_is_a_battery() -> None:
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    lines = [line for line in readme.splitlines() if line.startswith('{"id"')]
    first, second = read_jsonl(lines, "README.md")
    assert first.group == second.group == "7"
    assert (first.emotion, second.valence) == ("sadness", 0)
