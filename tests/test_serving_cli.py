"""``affectlens serve`` as a user types it, and a short soak by the benchmark's own crowd."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from affectlens.errors import SteerError
from affectlens.quiet import quiet_transformers
from affectlens.steering.serving.cli import serve
from affectlens.steering.serving.running import served_name
from affectlens.steering.serving.settings import Settings, find_token, loopback, parse_size
from affectlens.testing import tiny_hf
from tests.conftest import Typed
from tests.serving_parts import HI, moods_of, talking_model

SOAK = Path(__file__).parent.parent / "benchmarks" / "serving.py"
START = "import typer; from affectlens.steering.serving.cli import serve; typer.run(serve)"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model as a folder, and directions of it as a file."""
    from affectlens.model import load_model

    folder, model = tmp_path_factory.mktemp("models") / "tiny", talking_model()
    with quiet_transformers():
        tiny_hf("llama").save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder, moods_of(load_model(str(folder))).save(folder.parent / "tiny.safetensors")


@pytest.fixture
def serving(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> Typed:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(serve)
    app.callback()(lambda: None)
    monkeypatch.setattr("affectlens.cli.app", app)
    return lambda *args: typed("serve", *args)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_server_says_where_it_is_and_stops_when_told(home: tuple[Path, Path], stop: signal.Signals) -> None:
    command = [sys.executable, "-c", START, str(home[0]), "--directions", str(home[1]), "--port", "0",
               "--default-emotion", "joy=1.5", "--token-env", "MINE"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"MINE": "t0k"}
    )
    try:
        assert process.stdout is not None
        first, curl, python = (process.stdout.readline() for _ in range(3))
        url = first.split(" is served at ")[1].split("/v1 ")[0]
        assert first.startswith("tiny is served at http://127.0.0.1:")
        assert "directions of joy, fear, anger, trust. Ctrl-C stops." in first
        assert f"curl {url}/v1/chat/completions" in curl
        assert f"OpenAI(base_url='{url}/v1'" in python
        body = json.loads(curl.split("-d '")[1].rstrip().removesuffix("'"))
        headers = {"authorization": "Bearer t0k"}
        assert httpx.get(f"{url}/v1/models").status_code == 401
        reply = httpx.post(f"{url}/v1/chat/completions", json=body | {"max_tokens": 3}, headers=headers).json()
        assert reply["emotion"]["doses"] == {"joy": 0.6}
        plain = {"model": "tiny", "messages": HI, "max_tokens": 3}
        reply = httpx.post(f"{url}/v1/chat/completions", json=plain, headers=headers).json()
        assert reply["emotion"]["doses"] == {"joy": 1.5}
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "Stopped.\n", "")
    finally:
        process.kill()
        process.communicate()


def test_what_cannot_be_served(serving: Typed, home: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AFFECTLENS_TOKEN", raising=False)
    given = (home[0], "--directions", home[1])
    for more, sentence in (
        (("--host", "0.0.0.0"), "Others can reach 0.0.0.0, and there is no token"),
        (("--token-env", "NOWHERE_SET"), "The environment variable NOWHERE_SET is empty"),
        (("--token-env", "HOME", "--no-token"), "say the opposite"),
        (("--max-body", "5 apples"), "write 1MB, 512KB"),
        (("--engine", "tensorrt"), "choose torch or llama.cpp"),
        (("--engine", "llama.cpp"), "is not a GGUF file"),
        (("--gguf", "x.gguf"), "--gguf belongs to --engine llama.cpp"),
        (("--engine", "llama.cpp", "--gguf", "nowhere.gguf"), "There is no file nowhere.gguf"),
        (("--default-emotion", "joy"), "has no dose"),
        (("--default-emotion", "hope=1"), "There is no direction of 'hope'"),
        (("--host", "no.such.host.invalid", "--no-token"), "is no address of this machine"),
        (("--host", "203.0.113.7", "--no-token"), "choose another --port"),
    ):  # fmt: skip
        code, out, err = serving(*given, *more)
        assert (code, out, sentence in err) == (2, "", True), err
        assert err.startswith("affectlens: ")
        assert err.count("\n") == 1
    code, _, err = serving("no-such-model")
    assert (code, "No directions are bundled for no-such-model" in err) == (2, True)


def test_tokens_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTLENS_TOKEN", " abc\n")
    assert find_token("0.0.0.0", None, False) == "abc"
    assert find_token("0.0.0.0", None, True) is None
    monkeypatch.setenv("AFFECTLENS_TOKEN", "")
    assert find_token("127.0.0.1", None, False) is None
    monkeypatch.setenv("OTHER", "a b")
    with pytest.raises(SteerError, match="The token in OTHER can't be sent"):
        find_token("127.0.0.1", "OTHER", False)


@pytest.mark.parametrize(
    ("text", "size"), [("1MB", 10**6), ("512 kb", 512_000), ("4096", 4096), ("0.5MiB", 2**19), ("7B", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_addresses_and_limits() -> None:
    assert [loopback(host) for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9")] == [True] * 5
    assert [loopback(host) for host in ("0.0.0.0", "::", "example.org", "10.0.0.1", "")] == [False] * 5
    assert (served_name("smollm2-135m"), served_name("a/b")) == ("smollm2-135m", "a/b")
    wrong: list[dict[str, Any]] = [{"timeout": 0.0}, {"max_tokens": 0}, {"max_body": 0}, {"drain": -1.0}]
    for one in wrong:
        with pytest.raises(SteerError, match="raise --"):
            Settings("x", **one)


def test_the_command_is_light() -> None:
    heavy = ("torch", "transformers", "fastapi", "uvicorn", "pydantic", "numpy", "pandas", "prometheus_client")
    code = f"import affectlens.steering.serving.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_crowd_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    command = [sys.executable, "-W", "ignore", str(SOAK), "--tiny", "--soak", "0.17", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(out.read_text())
    assert facts["wrong"] == []
    assert facts["done"]["whole"] >= 1
    assert sum(facts["done"].values()) >= 10
    assert len(facts["samples"]) >= 5
