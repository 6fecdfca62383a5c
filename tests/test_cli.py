"""The command line as a user types it, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from affectlens.testing import tiny_hf, tiny_tokenizer


def run(*args: str, timeout: int = 300, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """``affectlens ARGS`` with its output."""
    command = [sys.executable, "-m", "affectlens.cli", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=os.environ | env, check=False
    )


def refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert done.returncode == 2, done.stderr
    assert re.search(sentence, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models") / "tiny"
    tiny_hf("llama").save_pretrained(home)
    tiny_tokenizer().save_pretrained(home)
    return home


@pytest.fixture
def battery(tmp_path: Path) -> Path:
    """Sixteen pairs over four domains."""
    path = tmp_path / "pairs.jsonl"
    rows = []
    for i in range(16):
        for role, end in (("emotional", "the bridge fell on him"), ("neutral", "the bridge fell to him")):
            rows.append({
                "id": f"{i}.{role}", "text": f"Number {i} came home on day {i * i}, and {end}.", "split": "vignettes",
                "role": role, "affect": role == "emotional", "emotion": ("grief", "joy")[i % 2],
                "valence": (-1, 1)[i % 2] if role == "emotional" else 0, "domain": f"d{i // 4}", "group": str(i),
            })  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize(
    "args",
    [(), ("probe",), ("models",), ("models", "list"), ("models", "pull"), ("doctor",), ("report",), ("stimuli",),
     ("stimuli", "list"), ("stimuli", "show")],
)  # fmt: skip
def test_help_everywhere(args: tuple[str, ...]) -> None:
    done = run(*args, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_version() -> None:
    import affectlens

    assert run("--version").stdout.strip() == affectlens.__version__


def test_lists_and_doctor_in_json() -> None:
    models = json.loads(run("models", "list", "--json").stdout)["models"]
    assert models[0]["name"] == "smollm2-135m"
    listed = json.loads(run("stimuli", "list", "--json").stdout)
    assert (listed["items"], listed["licence"]) == (160, "CC BY 4.0")
    shown = json.loads(run("stimuli", "show", "v.joy.family.1", "--json").stdout)["items"]
    assert [item["role"] for item in shown] == ["emotional", "neutral", "keyword", "mild", "moderate"]
    facts = json.loads(run("doctor", "--json").stdout)
    assert {"python", "torch", "CUDA", "cache", "smollm2-135m"} <= set(facts)


def test_probe_end_to_end_on_a_folder(tiny: Path, battery: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("probe", str(tiny), "--battery", str(battery), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said["results"]) == {"affect", "category", "valence"}
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "done"
    assert {"load", "capture", "probe affect"} <= set(info["timings"])
    for name in ("report.html", "results/affect.scores.parquet", "probes/affect.safetensors", "results/valence.json"):
        assert (out / name).is_file(), name
    refused(
        run("probe", str(tiny), "--battery", str(battery), "--out", str(out)), "exists already: choose another --out"
    )
    (out / "report.html").unlink()
    again = run("report", str(out), "--quiet")
    assert again.stdout.strip() == str(out / "report.html")
    assert (out / "report.html").is_file()


def test_quiet_prints_the_path_alone(tiny: Path, battery: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("probe", str(tiny), "--battery", str(battery), "--out", str(out), "--target", "affect", "-q")
    assert done.stdout.strip() == str(out / "report.html")
    assert done.stderr == ""


def test_targets_that_do_not_apply_are_named_and_the_rest_is_done(tiny: Path, battery: Path, tmp_path: Path) -> None:
    path = tmp_path / "flat.jsonl"
    rows = [json.loads(text) for text in battery.read_text().splitlines()]
    path.write_text("\n".join(json.dumps(row | {"valence": 0}) for row in rows))
    out = tmp_path / "run"
    done = run("probe", str(tiny), "--battery", str(path), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said["results"]) == {"affect", "category"}
    assert "Target valence needs items of at least two classes" in said["not probed"]["valence"]
    assert "Not probed: Target valence" in (out / "report.html").read_text()
    other = tmp_path / "other"
    named = run("probe", str(tiny), "--battery", str(path), "--out", str(other), "--target", "valence")
    refused(named, "Target valence needs")
    assert not other.exists()


def test_dry_run_writes_nothing(tiny: Path, battery: Path, tmp_path: Path) -> None:
    done = run("probe", str(tiny), "--battery", str(battery), "--dry-run", "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["items"] == 32
    assert facts["peak, float32 (GiB)"] > 0
    assert facts["capture (seconds)"] >= 0
    assert not (tmp_path / "runs").exists()


def line(**changes: object) -> str:
    base = {"id": "a", "text": "A text.", "split": "s", "role": "neutral", "affect": False}
    return json.dumps(base | changes)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has no items"),
        (line() + "\n{broken", r"bad\.jsonl, line 2: not JSON"),
        (line() + "\n" + line(id="b", role="sad"), r"line 2: role is 'sad', expected one of emotional"),
        (line(colour=1), r"line 1: unknown field colour"),
        (json.dumps({"id": "a"}), r"line 1: missing text, split, role, affect"),
        (line(valence="high"), r"line 1: valence is 'high', expected int"),
        (line(affect=1), r"line 1: affect is 1, expected bool"),
        (line() + "\n" + line(), "items with one id: a"),
        (line(affect=True), "affect is True, but role neutral says False"),
        (line(meta={"ending": 99}), "meta.ending is 99, expected an offset"),
        ("[" * 100_000, "line 1: nested too deeply"),
        ("\n".join(line(id=str(i), group=str(i), domain="d") for i in range(9)), "at least two classes.*only neutral"),
    ],
)
def test_bad_batteries_get_a_sentence(tiny: Path, tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    refused(run("probe", str(tiny), "--battery", str(path), "--out", str(tmp_path / "run")), sentence)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("probe",), "Name a model"),
        (("probe", "smolm2-135m"), "no model 'smolm2-135m' here. Did you mean smollm2-135m"),
        (("probe", "smollm2-135m", "--battery", "strater"), "no battery 'strater': give starter"),
        (("probe", "smollm2-135m", "--target", "mood"), "no target 'mood'; choose from affect"),
        (("probe", "--resume", "nowhere"), "nowhere is not a run folder"),
        (("report", "nowhere"), "nowhere is not a run folder"),
        (("probe", ""), "Name a model"),
        (("stimuli", "show", "v.none"), "has no item 'v.none'"),
    ],
)
def test_bad_arguments_get_a_sentence(args: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    refused(run(*args, cwd=tmp_path), sentence)


def test_a_text_longer_than_the_context(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    rows = [line(id="ok", role="emotional", affect=True, domain="d"), line(id="long", text="word " * 300, domain="e")]
    path.write_text("\n".join(rows))
    sentence = "Item 'long' has 1500 tokens and the context of .* holds 1024: shorten"
    refused(run("probe", str(tiny), "--battery", str(path), "--out", str(tmp_path / "run")), sentence)


def test_ctrl_c_keeps_what_was_computed_and_resume_goes_on(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "affectlens.cli", "probe", str(tiny), "--out", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )  # fmt: skip
    first = out / "results" / "affect.json"
    until = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"Stopped. What was computed is kept; continue with: affectlens probe --resume {out}" in told
    assert "Traceback" not in told
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    when = first.stat().st_mtime_ns
    assert not (out / "results" / "valence.json").exists()
    done = run("probe", "--resume", str(out), "-q")
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == when
    assert (out / "report.html").is_file()
    assert json.loads((out / "run.json").read_text())["status"] == "done"


def test_resume_refuses_another_model(tiny: Path, battery: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run("probe", str(tiny), "--battery", str(battery), "--out", str(out), "--target", "affect", "-q")
    info = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(info | {"fingerprint": "0" * 32}))
    refused(run("probe", "--resume", str(out)), "was begun with another model")
    (out / "run.json").write_text(json.dumps(info | {"battery_sha256": "0" * 64}))
    refused(run("probe", "--resume", str(out)), "was begun with another battery")
    refused(run("probe", "x", "--resume", str(out)), "leave out MODEL")
    (out / "run.json").write_text("{}")
    refused(run("report", str(out)), "is not a run folder")
