"""``affectlens steer MODEL --evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.console import emit, say
from affectlens.errors import AffectLensError, SteerError
from affectlens.run import Run, default_folder

if TYPE_CHECKING:
    from affectlens.steering.evaluating.result import SteeringReport

_DEFAULTS = {
    "directions": None,
    "quick": False,
    "seed": 0,
    "device": None,
    "dtype": "float32",
    "revision": None,
    "endpoint": None,
}


def run_evaluation(
    model: str | None, emotions: list[str], settings: dict[str, Any], *, out: Path | None, resume: Path | None,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Evaluate steering, or go on with a stopped evaluation, whose settings are its own.

    Args:
        model: its name.
        emotions: which; all that there are by default.
        settings: directions, quick, seed, device, dtype, revision, endpoint.
        out: the run folder.
        resume: a run folder to continue.
        as_json: print the result as JSON.
        quiet: print the report's path alone.

    Raises:
        SteerError: no model, emotions with doses, or a folder of another command.
        AffectLensError: if it was interrupted, with how to continue.
    """
    if resume is not None:
        kept = Run.open(resume).info
        if kept["command"] != "steer":
            raise SteerError(f"{resume} is a run of affectlens {kept['command']}: give one of steer --evaluate.")
        config = kept["config"]
        model, emotions = config["model"], list(config.get("emotions") or [])
        settings = {name: config.get(name, value) for name, value in _DEFAULTS.items()}
    if not model:
        raise SteerError("Name a model, for example: affectlens steer smollm2-135m --evaluate")
    if dosed := [name for name in emotions if "=" in name]:
        raise SteerError(f"--evaluate goes through doses by itself: write --emotion {dosed[0].partition('=')[0]}.")
    home = resume or out or default_folder(model, "steer")
    from affectlens.steering.evaluating.study import evaluate

    try:
        run, report = evaluate(
            model, out=home, resume=resume is not None, emotions=emotions or None,
            progress=False if quiet or as_json else None, **settings,
        )  # fmt: skip
    except KeyboardInterrupt:
        goes_on = f" What was written is kept; continue with: affectlens steer --resume {home}"
        raise AffectLensError(f"Stopped.{goes_on if (home / 'run.json').exists() else ''}") from None
    tell_evaluation(run.folder / "report.html", report, as_json=as_json, quiet=quiet)


def redraw(folder: Path, *, quiet: bool) -> None:
    """Write the report of a finished evaluation anew, and say what it found.

    Args:
        folder: of the run.
        quiet: print the report's path alone.
    """
    from affectlens.steering.evaluating.sections import render
    from affectlens.steering.evaluating.study import reload

    run, report = reload(folder)
    tell_evaluation(render(run, report), report, as_json=False, quiet=quiet)


def tell_evaluation(path: Path, report: "SteeringReport", *, as_json: bool, quiet: bool) -> None:
    """Print what an evaluation has found: sentences, JSON, or the report's path alone.

    Args:
        path: of the report.
        report: what was found.
        as_json: as JSON.
        quiet: the path alone.
    """
    from affectlens.probing.names import plain

    if quiet:
        print(path)
    elif as_json:
        rows = report.table().astype(object).where(report.table().notna(), None).to_dict("records")
        emit({"report": str(path), "summary": report.summary(), "safe": report.safe, "results": rows}, as_json=True)
    else:
        for line in report.summary():
            say(plain(line))
        say(f"\nReport: {path}")
