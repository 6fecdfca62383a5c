"""A run: a folder with its provenance, its tables and its report.

``run.json`` holds the command, configuration, versions, hashes, seed and timings; its ``status`` is ``running``,
``stopped`` or ``done``. Every file is written under a temporary name and renamed, so what is in the folder is
whole.
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from affectlens.errors import RunError
from affectlens.paths import write_text
from affectlens.types import Json

LIBRARIES = (
    "affectlens",
    "torch",
    "transformers",
    "transformer-lens",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "plotly",
)


class Run:
    """A run folder, open for adding to.

    >>> import tempfile
    >>> run = Run.create(tempfile.mkdtemp() + "/r", command="probe", config={"seed": 0})
    >>> Run.open(run.folder).info["status"]
    'running'
    """

    def __init__(self, folder: Path, info: Json) -> None:
        self.folder = folder
        self.info = info

    @classmethod
    def create(cls, folder: str | Path, *, command: str, config: Json) -> "Run":
        """Make the folder and write ``run.json``.

        Raises:
            RunError: if the folder exists.
        """
        home = Path(folder)
        cls.refuse_existing(home)
        home.mkdir(parents=True)
        run = cls(home, {
            "command": command, "config": config, "status": "running", "started": _now(), "timings": {},
            "versions": versions(), "machine": {"python": platform.python_version(), "system": platform.system(),
                                                "processor": platform.machine(), "cores": os.cpu_count()},
        })  # fmt: skip
        run.write()
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open an existing run.

        Raises:
            RunError: if the folder holds none.
        """
        path = Path(folder) / "run.json"
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            info = None
        if not isinstance(info, dict) or not {"command", "config", "status", "started", "timings"} <= set(info):
            raise RunError(f"{folder} is not a run folder: it has no readable run.json.")
        return cls(Path(folder), info)

    @classmethod
    def of(cls, folder: str | Path, command: str) -> "Run":
        """Open an existing run of one command.

        Raises:
            RunError: if the folder holds none, or another command's.
        """
        run = cls.open(folder)
        if run.info["command"] != command:
            raise RunError(f"{folder} is a {run.info['command']} run, not a {command} run.")
        return run

    @staticmethod
    def refuse_existing(folder: str | Path) -> None:
        """Raise a :class:`RunError` if something has that name already."""
        if Path(folder).exists():
            raise RunError(f"{folder} exists already: choose another --out, or continue it with --resume {folder}.")

    def write(self) -> None:
        """Write ``run.json``."""
        write_text(self.folder / "run.json", json.dumps(self.info, indent=1))

    def note(self, **facts: object) -> None:
        """Add facts to ``run.json``."""
        self.info.update(facts)
        self.write()

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Record how long a step took, in seconds."""
        start = time.perf_counter()
        yield
        self.info["timings"][step] = round(time.perf_counter() - start, 2)
        self.write()

    def expect(self, what: str, key: str, now: str) -> None:
        """Raise a :class:`RunError` if the run was begun with another model or battery, by its hash."""
        before = str(self.info.get(key, ""))
        if before and before != now:
            raise RunError(
                f"{self.folder} was begun with another {what} ({key} {before[:12]}, now {now[:12]}): start a new run."
            )

    def close(self, status: str) -> None:
        """Write the final status and when it was reached."""
        self.note(status=status, ended=_now())


def default_folder(model: str, about: str) -> Path:
    """Where a run goes if nothing else is said: ``runs/MODEL-ABOUT-TIME``.

    >>> [default_folder(model, "core").name[:-15] for model in ("HuggingFaceTB/SmolLM2-135M", "./")]
    ['HuggingFaceTB_SmolLM2-135M-core-', 'model-core-']
    """
    name = model.rstrip("/").replace("/", "_").lstrip(".") or "model"
    return Path("runs") / f"{name}-{about}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"


def versions() -> dict[str, str]:
    """The versions of the libraries that a number may depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
