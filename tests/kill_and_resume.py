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
from affectlens.testing import tiny_model

TEXTS = [f"{'The lamp swung in the hall, and nobody came. ' * (1 + n % 4)}{n}" for n in range(60)]


def run(cache: Path) -> None:
    os.environ["AFFECTLENS_CACHE"] = str(cache)
    capture(
        MODEL, TEXTS, sites=("resid_post", "z"), positions=("mean", "last", "all"), token_budget=300, progress=False
    )


def child(cache: Path) -> int:
    pid = os.fork()
    if pid == 0:
        run(cache)
        os._exit(0)
    return pid


def content(cache: Path) -> dict[str, bytes]:
    """The bytes of every file that holds values; the log's lines are in the order in which batches were written."""
    (folder,) = (cache / "activations").iterdir()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


torch.set_num_threads(1)
MODEL = tiny_model("llama", check=False)
MODEL.fingerprint  # noqa: B018 - computed once, here
root, rounds = Path(sys.argv[1]), int(sys.argv[2])
took = time.perf_counter()
os.waitpid(child(root / "reference"), 0)
took = time.perf_counter() - took
expected = content(root / "reference")
random.seed(0)
stopped, wrong = [], []
for number in range(rounds):
    cache = root / str(number)
    pid = child(cache)
    time.sleep(random.uniform(0, took))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.environ["AFFECTLENS_CACHE"] = str(cache)
    stopped.append([one.state for one in kept() if not one.path.name.startswith(".")])
    _, status = os.waitpid(child(cache), 0)
    folders = [p for p in (cache / "activations").iterdir() if not p.name.startswith(".")]
    found = {path.name: path.read_bytes() for path in folders[0].iterdir()}
    if status or found != expected:
        wrong.append([number, status, sorted(name for name in expected if found.get(name) != expected[name])])
print(json.dumps({"stopped": stopped, "wrong": wrong, "took": took}))
