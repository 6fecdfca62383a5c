"""What ``affectlens dynamics`` does once its options are read."""

from pathlib import Path
from typing import Any

from affectlens.console import emit, say, table
from affectlens.errors import AffectLensError, SteerError
from affectlens.probing.names import plain
from affectlens.run import Run, default_folder
from affectlens.steering.dynamics.feeds import FEEDS, NO_PROBES, feed_of
from affectlens.steering.dynamics.policies import POLICIES
from affectlens.steering.dynamics.result import DynamicsReport
from affectlens.steering.dynamics.scripts import PROTOCOLS
from affectlens.steering.dynamics.sections import render
from affectlens.steering.dynamics.settings import Setup
from affectlens.steering.dynamics.state import rule_of
from affectlens.steering.dynamics.study import COMMAND, reload, run
from affectlens.types import Json

_PATHS = ("probes", "lexicon", "directions")


def launch(
    typed: dict[str, Any], *, out: Path | None, resume: Path | None, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Run a study, or go on with a stopped one, and say what it found.

    Args:
        typed: the options, by name.
        out: the run folder.
        resume: a run folder to continue, with its own options.
        dry_run: only say how much would be written.
        as_json: print the result as JSON.
        quiet: print the report's path alone.

    Raises:
        SteerError: options that can't be.
        AffectLensError: if it was interrupted, with how to continue.
    """
    if resume is not None:
        typed = Run.of(resume, COMMAND).info["config"]
        if "rule" not in typed:
            raise SteerError(f"{resume} was begun from Python: continue it there, with run(..., resume=True).")
    setup = setup_of(typed)
    _check(typed)
    if dry_run:
        emit(forecast(typed["model"], setup), as_json=as_json, title="This run would write")
        return
    home = resume or out or default_folder(typed["model"], COMMAND)
    show = False if quiet or as_json else None
    if resume is None:
        Run.refuse_existing(home)
    from affectlens.model import load_model

    lens = load_model(typed["model"], device=typed["device"], dtype=typed["dtype"], revision=typed["revision"],
                      progress=show)  # fmt: skip
    feed = feed_of(typed["feed"], lens, probes=typed["probes"], lexicon=typed["lexicon"],
                   bounds=_bounds(typed["bounds"]), progress=show)  # fmt: skip
    config = {name: str(value) if name in _PATHS and value is not None else value for name, value in typed.items()}
    try:
        opened, report = run(lens, out=home, setup=setup, feed=feed, instrument=typed["instrument"],
                             directions=typed["directions"], config=config, resume=resume is not None,
                             progress=show)  # fmt: skip
    except KeyboardInterrupt:
        goes_on = f" What was written is kept; continue with: affectlens dynamics --resume {home}"
        raise AffectLensError(f"Stopped.{goes_on if (home / 'run.json').exists() else ''}") from None
    tell(opened.folder / "report.html", report, as_json=as_json, quiet=quiet)


def redraw(folder: Path, *, quiet: bool) -> None:
    """Write the report of a finished study anew, and say what it found.

    Args:
        folder: of the run.
        quiet: print the report's path alone.
    """
    opened, report = reload(folder)
    tell(render(opened, report), report, as_json=False, quiet=quiet)


def setup_of(typed: Json) -> Setup:
    """The numbers of a study from options.

    Args:
        typed: by name.

    Raises:
        SteerError: numbers or names that can't be.
    """
    orders = ("first", "second") if typed["rule"] == "both" else (typed["rule"],)
    if typed["protocol"] not in (*PROTOCOLS, "both"):
        raise SteerError(f"--protocol {typed['protocol']} is not known: choose push, ramp or both.")
    _bounds(typed["bounds"])
    setup = Setup(
        rules=tuple(rule_of(order, typed["rate"], typed["momentum"]) for order in orders),
        protocols=PROTOCOLS if typed["protocol"] == "both" else (typed["protocol"],),
        band=typed.get("band"),
        still=typed.get("still"),
        emotions=tuple(typed["emotion"]) if typed["emotion"] else None,
        **{name: typed[name] for name in ("scripts", "turns", "repeats", "own", "full", "ceiling", "history",
                                          "max_new_tokens", "temperature", "seed")},
    )  # fmt: skip
    return setup.quick if typed["quick"] else setup


def forecast(model: str, setup: Setup) -> Json:
    """How much a study writes.

    Args:
        model: its name.
        setup: of the study.
    """
    scripts = setup.spoken()
    talks = len(scripts) * setup.repeats * (1 + (len(POLICIES) - 1) * len(setup.rules))
    replies = talks * len(scripts[0])
    return {
        "model": model, "rules": "; ".join(rule.says for rule in setup.rules), "scripts": len(scripts),
        "conversations": talks, "replies": replies, "tokens of replies, at most": replies * setup.max_new_tokens,
    }  # fmt: skip


def tell(path: Path, report: DynamicsReport, *, as_json: bool, quiet: bool) -> None:
    """Print what a study has found: a table and sentences, JSON, or the report's path alone.

    Args:
        path: of the report.
        report: what was found.
        as_json: as JSON.
        quiet: the path alone.
    """
    found = report.table()
    if quiet:
        print(path)
    elif as_json:
        rows = found.astype(object).where(found.notna(), None).to_dict("records")
        emit({"report": str(path), "summary": report.summary(), "results": rows}, as_json=True)
    else:
        shown = found.drop(columns="rule").map(lambda x: f"{x:.3f}" if isinstance(x, float) else x)
        for rule in report.rules:
            mine = shown[found["rule"] == rule]
            table(f"\nThe closed loop, {rule}", list(mine.columns), mine.to_numpy().tolist())
        for line in report.summary():
            say(plain(line))
        say(f"\nReport: {path}")


def _check(typed: Json) -> None:
    """Refuse what a feed has no use for, or lacks, before a model is loaded."""
    if typed["feed"] not in FEEDS:
        raise SteerError(f"--feed {typed['feed']} is not known: choose {', '.join(FEEDS)}.")
    for name, feed in (("probes", "probe"), ("lexicon", "lexicon")):
        if typed[name] is not None and typed["feed"] != feed:
            raise SteerError(f"--{name} belongs to --feed {feed}: add it, or leave the file out.")
    if typed["feed"] == "probe" and typed["probes"] is None:
        raise SteerError(NO_PROBES)


def _bounds(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise SteerError(f"--bounds {text} is not known: write the two ends of the scale, such as 1,9.") from None
    return low, high
