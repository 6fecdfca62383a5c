"""``affectlens circuit`` as a user types it, on a tiny model in a folder."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from affectlens.circuits import finding
from affectlens.circuits.finding import Found
from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.selecting import at_sizes
from affectlens.circuits.settings import Asked
from affectlens.circuits.sharing import again, of_one_size
from affectlens.circuits.study import reload, study
from affectlens.errors import RunError
from affectlens.testing import tiny_hf, tiny_tokenizer
from tests.conftest import Typed

EMOTIONS = ("sadness", "joy")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models") / "tiny"
    tiny_hf("llama").save_pretrained(home)
    tiny_tokenizer().save_pretrained(home)
    return home


@pytest.fixture(scope="module")
def battery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batteries") / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in items()))
    return path


def items() -> Iterator[dict[str, object]]:
    """Eight pairs of each of two emotions."""
    for i in range(16):
        for role, end in (("emotional", "fell on him"), ("neutral", "led to him")):
            yield {
                "id": f"{i}.{role}", "text": f"Day {i * i}. The bridge {end}.", "split": "vignettes", "role": role,
                "affect": role == "emotional", "emotion": EMOTIONS[i % 2], "domain": f"d{i // 2 % 4}", "group": str(i),
                "valence": (-1, 1)[i % 2] if role == "emotional" else 0,
            }  # fmt: skip


def asked(tiny: Path, battery: Path, tmp_path: Path, *more: str) -> list[object]:
    return ["circuit", tiny, "-e", "grief", "--battery", battery, "--quick", "--runs", tmp_path / "runs", *more]


def stopped(*_args: object) -> None:
    raise KeyboardInterrupt


def test_a_run_as_a_user_types_it(tiny: Path, battery: Path, tmp_path: Path, typed: Typed) -> None:
    """Two emotions, the peak word for one; report, picture, graph; drawn again from the folder alone."""
    out = tmp_path / "run"
    code, said, err = typed(*asked(tiny, battery, tmp_path, "-e", "joy", "--out", str(out), "--metric", "said_valence"))
    assert (code, err) == (0, "")
    assert "sadness" in said
    assert str(out / "report.html") in said
    page, picture = ((out / name).read_text() for name in ("report.html", "picture.html"))
    assert "Do reading, using and steering agree?" in page
    assert "What the circuits share" in page
    assert "L0.H0" in picture
    info = json.loads((out / "run.json").read_text())
    assert (info["status"], info["emotions"]) == ("done", list(EMOTIONS))
    graph = CircuitGraph.load(out / "sadness" / finding.GRAPH)
    assert graph.meta["emotion"] == "sadness"
    assert not (out / "sadness" / finding.KEPT).exists()
    assert_compared_at_one_size(reload(out).found, page)
    for name in ("report.html", "picture.html"):
        (out / name).unlink()
    assert typed("report", out, "--quiet")[:2] == (0, f"{out / 'report.html'}\n")
    assert (out / "picture.html").read_text() == picture
    assert '"patterns": {"L' in picture or '"patterns":{"L' in picture
    assert reload(out).found["joy"].graph.edges.equals(CircuitGraph.load(out / "joy" / finding.GRAPH).edges)


def assert_compared_at_one_size(found: dict[str, Found], page: str) -> None:
    """The circuits that are compared are the first edges of each by score, at the same share."""
    small, large = (replace(one, graph=replace(one.graph, meta=one.graph.meta | {"size": size}))
                    for one, size in zip(found.values(), (0.1, 0.5), strict=True))  # fmt: skip
    graphs = of_one_size({"small": small, "large": large})
    for name, one in (("small", small), ("large", large)):
        want = at_sizes(one.scores.space, one.scores.mean(), (0.1,))[0.1]
        assert (graphs[name].mask == want).all()
        assert graphs[name].meta["size"] == 0.1
    assert "of the edges, as unequal circuits" in page
    assert "on its other scenes, one emotion's circuit shares" in page
    same = replace(large, held=large.scores)
    ours, theirs = (set(zip(*np.nonzero(at_sizes(one.space, one.mean(), (0.5,))[0.5]), strict=True))
                    for one in (small.scores, small.held))  # fmt: skip
    assert again({"small": small, "same": same}, 0.5) == {
        "small": pytest.approx(len(ours & theirs) / len(ours | theirs)), "same": 1.0,
    }  # fmt: skip
    assert ours != theirs


def test_a_stopped_run_goes_on(
    tiny: Path, battery: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the verification: its passes are not made again, and the outcome is that of a whole run."""
    out, whole = tmp_path / "run", tmp_path / "whole"
    monkeypatch.setattr(finding, "_exact", stopped)
    code, _, err = typed(*asked(tiny, battery, tmp_path, "--out", str(out)))
    assert code == 2
    assert f"--resume {out}" in err
    monkeypatch.undo()
    tables = (out / "sadness" / finding.KEPT).rglob("*.parquet")
    kept = {path: path.stat().st_mtime_ns for path in tables if path.name[:5] != "edge-"}  # to those more is added
    assert kept
    monkeypatch.setattr("affectlens.circuits.finding.shutil.rmtree", lambda *_args, **_how: None)
    assert typed("circuit", "--resume", out)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    monkeypatch.undo()
    assert typed(*asked(tiny, battery, tmp_path, "--out", str(whole)))[0] == 0
    graphs = [CircuitGraph.load(home / "sadness" / finding.GRAPH) for home in (out, whole)]
    assert graphs[0].edges.equals(graphs[1].edges)


def test_machines_and_forecasts(tiny: Path, battery: Path, tmp_path: Path, typed: Typed) -> None:
    """JSON names the report and each circuit; --dry-run writes nothing."""
    code, said, _ = typed(*asked(tiny, battery, tmp_path, "--out", str(tmp_path / "run"), "--json"))
    assert code == 0
    told = json.loads(said)
    assert Path(told["report"]).is_file()
    assert told["circuits"][0]["emotion"] == "sadness"
    code, said, _ = typed(*asked(tiny, battery, tmp_path, "--dry-run", "--json", "--out", str(tmp_path / "other")))
    assert json.loads(said)["runs of a circuit"] > 0
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("more", "sentence"), [
    (["-e", "glee"], "glee"), (["--metric", "mood"], "mood"), (["-e", "fear"], "a circuit needs eight scenes"),
    (["--metric", "kl", "--method", "gradient"], "gradient"), (["--rule", "best"], "best"),
])  # fmt: skip
def test_mistakes_are_sentences(
    more: list[str], sentence: str, tiny: Path, battery: Path, tmp_path: Path, typed: Typed
) -> None:
    """Exit code 2, one sentence."""
    code, _, err = typed(*asked(tiny, battery, tmp_path, *more, "--out", str(tmp_path / "run")))
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_mistakes_are_found_before_anything_is_computed(
    tiny: Path, battery: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for more in (["--rule", "best"], ["--method", "acdc"]):
        assert typed(*asked(tiny, battery, tmp_path, "--dry-run", *more))[0] == 2
        assert typed(*asked(tiny, battery, tmp_path, *more, "--out", str(tmp_path / "run")))[0] == 2
    assert not (tmp_path / "run").exists()


def test_another_question_is_not_a_continued_run(tiny: Path, battery: Path, tmp_path: Path) -> None:
    """And an earlier run that can't be joined is left out with its reason."""
    first = Asked(str(tiny), ("grief",), str(battery), quick=True, runs=str(tmp_path / "runs"))
    patched = tmp_path / "runs" / "patch"
    done = study(first, out=tmp_path / "run", progress=False)
    (patched / "denoise" / "results").mkdir(parents=True)
    (patched / "denoise" / "results" / "sweep.json").write_text("no sweep")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    (patched / "run.json").write_text(json.dumps(info | {"command": "patch"}))
    with pytest.raises(RunError, match="other settings"):
        study(replace(first, steps=2), out=tmp_path / "run", resume=True, progress=False)
    again = study(first, out=tmp_path / "run", resume=True, progress=False)
    assert again.found["sadness"].graph.edges.equals(done.found["sadness"].graph.edges)
    assert "damaged" in again.agreement.meta["unfit"]["patch"]
    assert "Not joined: the patch run" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_is_continued_with_its_own_settings(tmp_path: Path, typed: Typed) -> None:
    code, _, err = typed("circuit", "--resume", tmp_path, "--steps", "7")
    assert code == 2
    assert "--steps" in err


def test_settings_survive_the_folder() -> None:
    one = Asked("m", ("joy", "fear"), randoms=7)
    assert Asked.from_config(json.loads(json.dumps(one.to_config()))) == one
    assert one.amounts.randoms == 7
