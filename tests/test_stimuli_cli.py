"""``affectlens stimuli``: auditing, importing, exporting, showing, as a user types them."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from affectlens.stimuli import load_battery
from tests.test_cli import refused, run

HERE = Path(__file__).parent / "batteries"


@pytest.mark.parametrize("name", ["audit", "import", "export"])
def test_help(name: str) -> None:
    done = run("stimuli", name, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout


def test_an_audit_fails_with_code_one_a_table_a_page_and_a_list(tmp_path: Path) -> None:
    source, page, fixes = str(HERE / "affect_reception.jsonl"), tmp_path / "audit.html", tmp_path / "fixes.jsonl"
    bound = ("--reader", "affect-reception", "--bound", "overlap=0.99")
    done = run("stimuli", "audit", source, *bound, "--report", str(page), "--fix-list", str(fixes))
    assert done.returncode == 1, done.stderr
    assert "FAIL" in done.stdout
    assert "Some properties are out of bounds." in done.stdout
    html = page.read_text()
    assert "word overlap" in html
    assert "<script src" not in html
    wanted = [json.loads(line) for line in fixes.read_text().splitlines()]
    assert {"property", "item", "figure", "say"} == set(wanted[0])
    assert any(row["item"] == "N-rage-d1-c1" for row in wanted)
    assert "Not measured: bag-of-words floor" in done.stdout


def test_an_audit_passes_with_code_zero_and_bounds_can_be_moved(tmp_path: Path) -> None:
    items = [s for s in load_battery("starter") if s.split == "vivid_neutral"]
    path = tmp_path / "vivid.jsonl"
    path.write_text("".join(json.dumps({"id": s.id, "text": s.text, "split": s.split, "role": "vivid", "affect": False})
                            + "\n" for s in items))  # fmt: skip
    done = run("stimuli", "audit", str(path), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["passed"] is True
    assert {f["verdict"] for f in said["findings"]} <= {"pass", "reported", "not applicable"}
    done = run("stimuli", "audit", str(path), "--bound", "run=2", "--json")
    assert done.returncode == 1
    refused(run("stimuli", "audit", str(path), "--bound", "words"), "'words' is not NAME=VALUE")
    refused(run("stimuli", "audit", "nothing"), "There is no battery 'nothing'")


def test_importing_says_what_it_did_and_the_licence(tmp_path: Path) -> None:
    out = tmp_path / "theirs.jsonl"
    done = run("stimuli", "import", str(HERE / "affect_reception.jsonl"), "--as", "affect-reception", "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert "Licence: MIT." in done.stdout
    assert "1 texts had stray trailing marks: put right" in done.stdout
    assert len(load_battery(out)) == 4
    listed = run("stimuli", "import", "--list").stdout
    assert all(name in listed for name in ("aipsy-affect", "goemotions", "isear"))
    refused(run("stimuli", "import"), "Give a file to import, --ratings, or --list")
    refused(run("stimuli", "import", str(HERE / "survey.csv")), "--as READER .see --list., or at least --text-col")
    done = run("stimuli", "import", str(HERE / "survey.csv"), "--text-col", "story", "--label-col", "feeling")
    assert "2 items" in done.stdout


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_exporting(tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"starter.{kind}"
    done = run("stimuli", "export", "starter", "-o", str(out))
    assert done.returncode == 0, done.stderr
    readers: dict[str, Callable[[], int]] = {
        "jsonl": lambda: len(load_battery(out)),
        "csv": lambda: len(pd.read_csv(out)),
        "parquet": lambda: len(pd.read_parquet(out)),
    }
    assert readers[kind]() == 160
    refused(run("stimuli", "export", "starter", "-o", str(tmp_path / "x.docx")), "no ending that says its kind")


def test_a_survey_goes_out_and_comes_back(tmp_path: Path) -> None:
    done = run("stimuli", "export", "starter", "--survey", "--raters", "2", "--each", "20", "-o", str(tmp_path / "s"))
    assert done.returncode == 0, done.stderr
    sheet = tmp_path / "s" / "rater_1.csv"
    with sheet.open() as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row |= {"emotion": "joy", "intensity": "2"}
    for name in ("rater_1.csv", "rater_9.csv"):
        pd.DataFrame(rows).to_csv(tmp_path / "s" / name, index=False)
    done = run("stimuli", "import", "--ratings", str(sheet), "--ratings", str(tmp_path / "s" / "rater_9.csv"),
               "--battery", "starter")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "40 ratings of 20 items, 2 raters" in done.stdout
    assert "Krippendorff's alpha" in done.stdout


def test_showing_marks_differences_and_listing_draws(tmp_path: Path) -> None:
    done = run("stimuli", "show", "v.joy.family.2")
    assert done.returncode == 0
    assert re.search(r"\[[^\]]+\]", done.stdout)
    assert "v.joy.family.2.neutral" in done.stdout
    plot = tmp_path / "balance.html"
    done = run("stimuli", "list", "--battery", "core", "--plot", str(plot))
    assert "1472 items" in done.stdout
    assert "plotly" in plot.read_text()[:100_000].lower()
