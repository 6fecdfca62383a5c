"""The benchmark runs, its peers compute the same thing, and it prints ratios; no speed is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "capture.py"


@pytest.mark.real
@pytest.mark.parametrize("texts", ["equal", "mixed"])
def test_capture_against_peers(texts: str, tmp_path: Path) -> None:
    """Each peer's array is checked against ours before a clock starts; ``equal`` is one batch for all."""
    out = tmp_path / "figures.json"
    peers = ["body", "hidden-states", "tl-filtered", "tl-filtered-no-head"]
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--texts", texts, "--items", "3", "--rounds", "1",
               "--peers", ",".join(peers), "--no-memory", "--json", str(out)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["results"]
    assert [line["peer"] for line in lines] == ["affectlens", *peers]
    assert all(len(line["ratios"]) == 1 for line in lines[1:])


def test_probes_against_scikit_learn(tmp_path: Path) -> None:
    """Both are at the optimum, to what each promises."""
    script, out = SCRIPT.parent / "probes.py", tmp_path / "figures.json"
    command = [sys.executable, str(script), "--shrink", "4", "--rounds", "1", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["results"]
    assert len(lines) >= 5
    assert all(line["off"] < 1e-3 for line in lines)


@pytest.mark.real
def test_steering_against_peers(tmp_path: Path) -> None:
    """Every way of steering that is timed writes the very same text."""
    script, out = SCRIPT.parent / "steering.py", tmp_path / "figures.json"
    command = [sys.executable, "-W", "ignore", str(script), "--tokens", "6", "--rounds", "1", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"plain", "affectlens", "baked", "bridge"} <= set(json.loads(out.read_text())["ratios"])
    assert done.stdout.count("writes the same text") >= 3
    assert "WRITES ANOTHER TEXT" not in done.stdout
