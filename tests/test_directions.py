"""Sets of directions: names, validity, files, and whose they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from affectlens.errors import SiteError, SteerError
from affectlens.model import LensModel
from affectlens.steering.directions import Direction, Directions, spelled, unit

RNG = np.random.default_rng(0)


def direction(emotion: str = "joy", site: str = "L1.resid_post", **more: object) -> Direction:
    none = np.zeros((0, 6), np.float32)
    facts = {"norm": 2.0, "method": "centred", "model": "m", "fingerprint": "f" * 32, "fixed": none} | more
    vector = facts.pop("vector", unit(RNG.standard_normal(6)))
    return Direction(emotion, site, vector, **facts)  # type: ignore[arg-type]


def full(**more: Any) -> Direction:
    fixed = np.linalg.qr(RNG.standard_normal((6, 2)))[0].T.astype(np.float32)
    kept: dict[str, Any] = {
            "battery": "core", "battery_sha256": "b" * 64, "position": "ending", "purified": ("neutral(2)", "x(1)"),
            "fixed": fixed, "safe": 0.4, "levels": np.linspace(-1, 1, 101, dtype=np.float32),
            "facts": {"auroc": {"value": 0.8}, "why": None},
    }  # fmt: skip
    return direction(**(kept | more))


def same(a: Direction, b: Direction) -> bool:
    arrays = ("vector", "fixed", "levels")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays) and all(
        getattr(a, n) == getattr(b, n) for n in Direction.__dataclass_fields__ if n not in arrays
    )


def test_a_file_gives_back_every_field(tmp_path: Path) -> None:
    before = Directions([full(), full(site="L2.H1"), direction("anger", "L1.neurons")])
    after = Directions.load(before.save(tmp_path / "new" / "set.safetensors"))
    assert len(after) == 3
    assert all(same(a, b) for a, b in zip(before, after, strict=True))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["set.safetensors"]


def test_a_direction_of_the_least_facts_comes_back_too(tmp_path: Path) -> None:
    least = Direction("joy", "L1.resid_post", unit(np.ones(6)), 2.0, "given", "m", "f" * 32)
    assert same(least, Directions.load(Directions([least]).save(tmp_path / "a.safetensors")).all[0])


def test_basic_and_peak_words_are_one() -> None:
    found = Directions([direction("sadness"), direction("formality")])
    assert found["grief"] == found["sadness"] == (found.all[0],)
    assert "Grief" in found
    assert "rage" not in found
    assert found.only("formality", "grief").emotions == ("formality", "sadness")
    with pytest.raises(SteerError, match=r"no direction of 'rage'; there are sadness, formality"):
        found["rage"]


def test_a_vector_is_of_length_one_and_its_norm_above_zero() -> None:
    for wrong in (np.zeros(6), np.ones(6), np.full(6, np.nan)):
        with pytest.raises(SteerError, match="has length"):
            direction(vector=wrong.astype(np.float32))
    for norm in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SteerError, match="must be above zero"):
            direction(norm=norm)
    with pytest.raises(SiteError):
        direction(site="layer 3")


def test_unit_keeps_the_line_and_refuses_nothing() -> None:
    vector = np.array([3e-7, -4e-7])
    assert np.allclose(unit(vector), [0.6, -0.8])
    assert np.allclose(unit(1e20 * vector), unit(vector))
    with pytest.raises(SteerError, match="no length"):
        unit(np.zeros(4))


def test_a_set_is_of_one_model_and_one_safe_dose_an_emotion() -> None:
    with pytest.raises(SteerError, match="belongs to one model; these are of 2"):
        Directions([direction(), direction(fingerprint="a" * 32)])
    with pytest.raises(SteerError, match="different safe doses"):
        Directions([direction(safe=0.1), direction(site="L2.resid_post", safe=0.2)])
    with pytest.raises(SteerError, match="at least one"):
        Directions([])


def test_safe_doses_are_set_by_either_word() -> None:
    found = Directions([direction("sadness", safe=0.1), direction("joy", safe=0.2)]).with_safe({"grief": 0.5})
    assert [d.safe for d in found] == [0.5, 0.2]
    assert [d.safe for d in found.with_safe({"joy": None})] == [0.5, None]


def test_directions_of_another_model_are_refused(llama: LensModel, tmp_path: Path) -> None:
    path = Directions([direction()]).save(tmp_path / "a.safetensors")
    with pytest.raises(SteerError, match=r"can't steer .* Extract them anew: affectlens directions extract"):
        Directions.load(path, llama)
    mine = Directions([direction(fingerprint=llama.fingerprint)])
    mine.save(path)
    assert len(Directions.load(path, llama)) == 1


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = Directions([full(), full(site="L2.resid_post")]).save(tmp_path / "a.safetensors")
    whole = path.read_bytes()
    files = {"cut": whole[:-7], "text": b"hello", "empty": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    save_file({"0.vector": np.ones(2, np.float32)}, tmp_path / "foreign")
    header = json.dumps([{"emotion": "joy"}])
    save_file({"0.vector": np.ones(2, np.float32)}, tmp_path / "less", metadata={"affectlens.directions": header})
    for name in (*files, "foreign", "less", "absent"):
        with pytest.raises(SteerError, match="not a readable file of AffectLens directions"):
            Directions.load(tmp_path / name)


def test_what_is_shown_says_what_is_not_yet_validated() -> None:
    found = Directions([direction("joy", safe=0.25), direction("fear")])
    assert "dose 1.0 is 0.25 of the norm" in repr(found)
    assert "no safe dose yet" in repr(found)
    assert list(found.table()["emotion"]) == ["joy", "fear"]
    assert "vector" not in found.table()
    assert "<table" in found._repr_html_()


def test_own_names_stay_as_they_are() -> None:
    assert [spelled(name) for name in ("Terror", " joy ", "Formality")] == ["fear", "joy", "Formality"]
