"""Which runs below a folder can be used: the newest finished one of each stage, of one model and battery."""

import json
from pathlib import Path

from affectlens.circuits.agreeing.opening import FILES
from affectlens.types import Json

DEPTHS = ("", "*/", "*/*/", "*/*/*/")  # how far below the folder runs are looked for


def find_runs(folder: str | Path, fingerprint: str, *, battery_sha256: str | None = None) -> dict[str, Path]:
    """The run folders that :func:`affectlens.circuits.agreeing.agree` can read, by the name of its argument.

    Args:
        folder: under which runs lie, such as ``runs``; it may not be there.
        fingerprint: of the model.
        battery_sha256: of the battery; any if None.
    """
    newest: dict[str, tuple[str, Path]] = {}
    for depth in DEPTHS:
        for path in sorted(Path(folder).glob(f"{depth}run.json")):
            info = _info(path)
            if info.get("status") != "done" or info.get("fingerprint") != fingerprint:
                continue
            if battery_sha256 and info.get("battery_sha256") != battery_sha256:
                continue
            ended = str(info.get("ended", info.get("started", "")))
            for stage, file in FILES.items():
                if (path.parent / file).is_file() and (ended, path.parent) > newest.get(stage, ("", Path())):
                    newest[stage] = ended, path.parent
    return {stage: newest[stage][1] for stage in FILES if stage in newest}


def _info(path: Path) -> Json:
    """What ``run.json`` holds; nothing if it can't be read, which is then no run."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
