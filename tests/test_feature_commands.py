"""``affectlens features effects`` and ``directions`` behind a search, as a user types them, on a tiny model."""

import json
from pathlib import Path

import pytest

import affectlens as al
from affectlens.steering.directions import Directions
from affectlens.testing import tiny_hf, tiny_model, tiny_sae, tiny_tokenizer
from tests.conftest import Typed
from tests.test_feature_study import items


@pytest.fixture
def run(typed: Typed, tmp_path: Path) -> Path:
    """A finished search."""
    tiny_hf("llama").save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    sae = tiny_sae(tiny_model("llama"), n_features=96, k=8).save(tmp_path / "sae")
    (tmp_path / "bytes.jsonl").write_text("\n".join(json.dumps(row) for row in items()))
    args = ("--sae", sae, "--battery", tmp_path / "bytes.jsonl", "--draws", 19, "--out", tmp_path / "run", "-q")
    assert typed("features", "find", tmp_path / "tiny", *args)[0] == 0
    return tmp_path / "run"


def test_effects_join_the_report_one_plan_beside_another(typed: Typed, run: Path) -> None:
    args = ("features", "effects", run, "--top", 1, "--metric", "affect", "--pairs", 4, "--placebos", 2)
    code, out, err = typed(*args)
    assert code == 0, err
    assert "the reconstruction error kept" in out
    code, out, err = typed(*args, "--clamp", "2.5", "--json")
    assert code == 0, err
    assert "set to 2.5" in json.loads(out)["summary"][0]
    page = (run / "report.html").read_text()
    assert "Are they used? Features ablated" in page
    assert "Are they used? Features set to 2.5" in page
    code, _, err = typed("features", "effects", run, "--class", "nosuch")
    assert (code, "placed no feature of that class and emotion" in err) == (2, True)


def test_directions_of_a_search_steer(typed: Typed, run: Path) -> None:
    code, out, err = typed("features", "directions", run, "--per-emotion", 2, "-q")
    assert code == 0, err
    found = Directions.load(Path(out.strip()))
    assert {one.emotion for one in found} <= {"joy", "fear"}
    assert {one.method for one in found} == {"sae"}
    code, _, err = typed("features", "directions", run, "-q")
    assert (code, "exists" in err) == (2, True)


@pytest.mark.parametrize("command", ["effects", "directions"])
def test_another_dictionary_in_its_place_is_refused(typed: Typed, run: Path, command: str) -> None:
    tiny_sae(tiny_model("llama"), n_features=96, k=8, seed=5).save(run.parent / "sae")
    code, _, err = typed("features", command, run)
    assert (code, "was begun with another dictionary" in err) == (2, True)


def test_a_folder_that_is_no_search_is_refused(typed: Typed, tmp_path: Path) -> None:
    al.Run.create(tmp_path / "other", command="probe", config={})
    for command in ("effects", "directions"):
        code, _, err = typed("features", command, tmp_path / "other")
        assert (code, "is a probe run, not a features find run" in err) == (2, True)
