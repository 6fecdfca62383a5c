"""Run by test_store: captures that are killed at random moments, each then resumed, in children of one warm process."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from affectlens.capturing import capture
from affectlens.keeping import kept
from affectlens.model import LensModel
from affectlens.testing import tiny_model

TEXTS = [f"{'The lamp swung in the hall, and nobody came. ' * (1 + n % 4)}{n}" for n in range(60)]


def run(model: LensModel, cache: Path) -> None:
    os.environ["AFFECTLENS_CACHE"] = str(cache)
    capture(
        model, TEXTS, sites=("resid_post", "z"), positions=("mean", "last", "all"), token_budget=300, progress=False
    )


def child(model: LensModel, cache: Path) -> int:
    pid = os.fork()
    if pid == 0:
        run(model, cache)
        os._exit(0)
    return pid


def content(cache: Path) -> dict[str, bytes]:
    """The bytes of every file of the capture, but not of what a killed process left beside it."""
    (folder,) = (path for path in (cache / "activations").iterdir() if not path.name.startswith("."))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def main(root: Path, rounds: int) -> None:
    torch.set_num_threads(1)
    random.seed(0)
    model = tiny_model("llama", check=False)
    run(model, root / "warm")
    began = time.perf_counter()
    os.waitpid(child(model, root / "reference"), 0)
    took = time.perf_counter() - began
    expected = content(root / "reference")
    stopped, wrong = [], []
    for number in range(rounds):
        cache = root / str(number)
        pid = child(model, cache)
        time.sleep(random.uniform(0, took))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.environ["AFFECTLENS_CACHE"] = str(cache)
        stopped.append([one.state for one in kept() if not one.path.name.startswith(".")])
        _, status = os.waitpid(child(model, cache), 0)
        found = content(cache)
        if status or found != expected:
            wrong.append([number, status, sorted(name for name in expected if found.get(name) != expected[name])])
    print(json.dumps({"stopped": stopped, "wrong": wrong, "took": took}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
