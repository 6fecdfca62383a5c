"""Random clients of a server: most ask properly, others leave early, send garbage, too much, or half of something.

What must hold: each proper request is answered, and with the text that it gets alone; afterwards no request is active
or waiting; memory, threads and open files do not grow; the server's standard error says nothing. Bounds: the median
memory of the last quarter is less than 60 MB above the first quarter's; in a soak of five minutes or more, memory grows
by less than 3 MB a minute in the second half (a shorter one is still warming up); once everybody has gone there are no
more threads and open files than before the crowd came.
"""

import statistics
import threading
import time
from typing import Any

import httpx
import numpy as np
import psutil
from crowd import Crowd

_CLIENTS = 12
_GROWN, _SLOPE, _STEADY = 60.0, 3.0, 5.0  # MB, MB a minute, minutes from which the slope counts


def soak(server: Any, *, minutes: float) -> dict[str, Any]:
    """Let a crowd at a server, and say what it left behind."""
    crowd = Crowd(server.url, server.place)
    process = psutil.Process(server.process.pid)
    threads = [threading.Thread(target=crowd.work, args=(seed,)) for seed in range(_CLIENTS)]
    before = _held(process)
    start, samples = time.monotonic(), []
    for thread in threads:
        thread.start()
    while (now := time.monotonic() - start) < minutes * 60:
        samples.append((now, process.memory_info().rss / 2**20, process.num_fds(), process.num_threads()))
        time.sleep(min(1.0, minutes * 6))
    crowd.over.set()
    for thread in threads:
        thread.join()
    left, after = _left(server.url), _settled(process, before)
    code = server.stop()
    said = server.errors.read_text(encoding="utf-8")
    memory = _memory(samples)
    wrong = list(crowd.wrong)
    wrong += [f"{left} requests are still active or waiting"] if left else []
    wrong += [f"the server said: {said[-2000:]}"] if said.strip() else []
    wrong += [f"the server's exit code is {code}"] if code else []
    wrong += _grown(memory, minutes, before, after)
    facts = {"minutes": minutes, "done": dict(crowd.done), "wrong": wrong, "samples": samples, **memory,
             "before": before, "after": after}  # fmt: skip
    _tell(facts)
    return facts


def _held(process: psutil.Process) -> dict[str, int]:
    return {"threads": process.num_threads(), "open files": process.num_fds()}


def _settled(process: psutil.Process, before: dict[str, int]) -> dict[str, int]:
    """What it holds once everybody has gone; connections that say nothing are closed within some seconds."""
    for _ in range(150):
        if all(n <= before[name] for name, n in _held(process).items()):
            break
        time.sleep(0.1)
    return _held(process)


def _grown(memory: dict[str, float], minutes: float, before: dict[str, int], after: dict[str, int]) -> list[str]:
    """What is beyond the bounds."""
    more, slope = memory["last_mb"] - memory["first_mb"], memory["slope_mb_a_minute"]
    found = [f"memory grew by {more:.0f} MB, and {_GROWN:g} are allowed"] if more >= _GROWN else []
    if minutes >= _STEADY and slope >= _SLOPE:
        found.append(f"memory grows by {slope:.2f} MB a minute, and {_SLOPE:g} are allowed")
    return found + [f"{after[name]} {name}, and {n} before" for name, n in before.items() if after[name] > n]


def _left(url: str) -> float:
    """How many requests have not ended some seconds after everybody has gone."""
    found = 0.0
    for _ in range(100):
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        names = ("affectlens_active_requests ", "affectlens_waiting_requests ")
        found = sum(float(line.split()[1]) for line in lines if line.startswith(names))
        if not found:
            return 0.0
        time.sleep(0.1)
    return found


def _memory(samples: list[tuple[float, float, int, int]]) -> dict[str, float]:
    """Megabytes at the first and the last quarter, and the slope of the second half in MB a minute."""
    quarter = max(len(samples) // 4, 1)
    later = samples[len(samples) // 2 :]
    slope = float(np.polyfit([t for t, *_ in later], [mb for _, mb, *_ in later], 1)[0]) * 60 if len(later) > 2 else 0.0
    first, last = samples[:quarter], samples[-quarter:]
    return {
        "first_mb": statistics.median(s[1] for s in first), "last_mb": statistics.median(s[1] for s in last),
        "slope_mb_a_minute": slope, "first_files": statistics.median(s[2] for s in first),
        "last_files": statistics.median(s[2] for s in last), "most_threads": max(s[3] for s in samples),
    }  # fmt: skip


def _tell(facts: dict[str, Any]) -> None:
    done = ", ".join(f"{n} {name}" for name, n in sorted(facts["done"].items()))
    print(f"{facts['minutes']:g} minutes: {done}")
    print(
        f"memory {facts['first_mb']:.0f} MB in the first quarter, {facts['last_mb']:.0f} MB in the last; in the second "
        f"half {facts['slope_mb_a_minute']:+.2f} MB a minute; open files {facts['first_files']:.0f} and "
        f"{facts['last_files']:.0f}; at most {facts['most_threads']} threads; before {facts['before']}, "
        f"afterwards {facts['after']}"
    )
    print("\n".join(["WRONG:", *facts["wrong"][:20]]) if facts["wrong"] else "Nothing was wrong, and nothing is left.")
