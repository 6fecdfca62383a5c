"""A server under load: many requests at a time against one at a time, steered llama.cpp against plain, and a soak.

But for llama.cpp, everything goes over a socket to a server in a process of its own, started as a user starts it. The
first figure is the ratio of tokens a second of 16 concurrent requests with 16 doses to the same requests one after the
other; rounds take turns, both ways must write the very same texts, and the figure is the median of the rounds' own
ratios with quartiles. ``--llama FILE`` times the engine of llama.cpp with and without a dose, in this process and
without a socket. ``--soak MINUTES`` sends random clients, which leave early, say garbage, send too much or nothing, and
looks for what stays behind; the queue is short, so that it is often full.

    python benchmarks/serving.py --rounds 7
    python benchmarks/serving.py --soak 10 --tiny
"""

import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from soaking import soak

PROMPT = "Tell me about your day."
START = "import typer; from affectlens.steering.serving.cli import serve; typer.run(serve)"
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def main(
    model: Annotated[str, typer.Option(help="A model's name, as load_model takes it.")] = "smollm2-135m",
    tiny: Annotated[bool, typer.Option("--tiny", help="A tiny random model instead.")] = False,
    clients: Annotated[int, typer.Option(help="Requests at a time.")] = 16,
    tokens: Annotated[int, typer.Option(help="Of a reply, at most.")] = 48,
    rounds: Annotated[int, typer.Option(help="Each does both ways.")] = 7,
    minutes: Annotated[float, typer.Option("--soak", help="Soak for so long instead.")] = 0.0,
    json_to: Annotated[Path | None, typer.Option("--json", help="Write every number here.")] = None,
) -> None:
    """Measure, and print what was found."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = _tiny(Path(folder)) if tiny else [model]
        if minutes:
            with running([*arguments, "--timeout", "60", "--slots", "4", "--queue", "4"]) as server:
                facts = soak(server, minutes=minutes)
        else:
            with running([*arguments, "--slots", str(clients)]) as server:
                facts = _together(server.url, clients=clients, tokens=tokens, rounds=rounds)
            if find_spec("llama_cpp") and not tiny:
                from llama import compared

                facts["llama"] = compared(model)
    if json_to:
        json_to.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    if facts.get("wrong"):
        raise typer.Exit(1)


class Running:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, errors: Path) -> None:
        self.process, self.url, self.errors = process, url, errors

    @property
    def place(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def stop(self) -> int:
        """End it as a user does; its exit code."""
        self.process.terminate()
        return self.process.wait(60)


@contextlib.contextmanager
def running(arguments: list[str]) -> Iterator[Running]:
    """``affectlens serve ARGUMENTS`` on a free port."""
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        command = [sys.executable, "-W", "ignore", "-c", START, *arguments, "--quiet", "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            url = (process.stdout.readline() if process.stdout else "").strip()
            if not url:
                process.wait(30)
                raise SystemExit(f"The server did not start: {Path(log.name).read_text(encoding='utf-8')}")
            yield Running(process, url, Path(log.name))
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            if process.stdout:
                process.stdout.close()


def _together(url: str, *, clients: int, tokens: int, rounds: int) -> dict[str, Any]:
    name = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
    emotions = httpx.get(f"{url}/v1/models").json()["data"][0]["emotions"]
    asked = [
        {"model": name, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": tokens,
         "emotion": {emotions[i % len(emotions)]: round(0.1 + 0.9 * i / clients, 2)}}
        for i in range(clients)
    ]  # fmt: skip

    def ask(body: dict[str, Any]) -> tuple[str, int]:
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=600).json()
        return reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"]

    speeds: dict[str, list[float]] = {"together": [], "one at a time": []}
    same = True
    with ThreadPoolExecutor(clients) as pool:
        ways = {"together": lambda: list(pool.map(ask, asked)), "one at a time": lambda: [ask(body) for body in asked]}
        list(pool.map(ask, asked))  # warm, and each plan proved
        for turn in range(rounds):
            found = {}
            for way in list(ways) if turn % 2 == 0 else list(reversed(ways)):
                start = time.perf_counter()
                found[way] = ways[way]()
                speeds[way].append(sum(n for _, n in found[way]) / (time.perf_counter() - start))
            same &= found["together"] == found["one at a time"]
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    for way, speed in speeds.items():
        print(f"{way:<14} {statistics.median(speed):8.1f} tokens/s")
    print(f"{clients} requests together are {_spread(ratios)} times as fast as one at a time, and "
          f"{'write the very same texts' if same else 'WRITE OTHER TEXTS'}")  # fmt: skip
    return {"speeds": speeds, "ratios": ratios, "same": same, "wrong": not same}


def _spread(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _tiny(folder: Path) -> list[str]:
    """A tiny random model and directions of it, as files."""
    import numpy as np

    from affectlens.model import load_model
    from affectlens.quiet import quiet_transformers
    from affectlens.steering import Direction, Directions
    from affectlens.testing import tiny_hf, tiny_tokenizer

    tokenizer, home = tiny_tokenizer(), folder / "tiny"
    tokenizer.chat_template = TEMPLATE
    with quiet_transformers():
        tiny_hf("llama").save_pretrained(home)
    tokenizer.save_pretrained(home)
    model, rng, made = load_model(str(home)), np.random.default_rng(0), []
    for i, emotion in enumerate(("joy", "fear", "anger")):
        vector = rng.standard_normal(model.d_model)
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        made.append(Direction(emotion, f"L{i % 2}.resid_post", unit, 5.0, "random", model.name, model.fingerprint,
                              safe=0.5))  # fmt: skip
    return [str(home), "--directions", str(Directions(made).save(folder / "tiny.safetensors"))]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    typer.run(main)
