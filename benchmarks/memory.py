"""The memory that a benchmark's task takes: the peak resident size of a fresh process (Linux)."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil


def resident() -> int:
    """Resident bytes of this process."""
    return psutil.Process().memory_info().rss


def peak(task: Callable[[], object]) -> int:
    """Resident bytes at the peak of a task."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak of what came before
    task()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def in_child(script: str, arguments: list[str]) -> dict[str, int]:
    """What a benchmark prints as JSON on its last line, run anew with these arguments."""
    command = [sys.executable, "-W", "ignore", script, *arguments]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])
