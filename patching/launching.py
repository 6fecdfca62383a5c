"""What ``affectlens patch`` and ``affectlens ablate`` do once their options are read: run, forecast, or continue."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from affectlens.console import emit, say
from affectlens.errors import AffectLensError

if TYPE_CHECKING:
    from affectlens.patching.settings import AblatePlan, PatchPlan, Settings
    from affectlens.patching.study import Finished

FREE = {"resume", "dry_run", "as_json", "quiet", "memory"}  # they change no number, so a continued run takes them anew


def launch(
    ctx: typer.Context, settings: "Settings", plan: "PatchPlan | AblatePlan", *, out: Path | None, resume: Path | None,
    dry_run: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Run a command.

    Args:
        ctx: the command with what was typed.
        settings: what both commands are told; of a continued run only the memory counts.
        plan: what is patched or ablated.
        out: the run folder.
        resume: a run folder to continue.
        dry_run: only say what it would take.
        as_json: print the result as JSON.
        quiet: print the report's path alone.

    Raises:
        AffectLensError: whatever the run raises; and if it was interrupted, with how to continue.
    """
    command = str(ctx.info_name)
    show = False if quiet or as_json else None
    if resume is not None:
        from affectlens.patching.study import asked_of

        _refuse_others(ctx)
        before, plan = asked_of(resume, command)
        memory = settings.memory if "memory" in _typed(ctx) else before.memory
        settings, home = replace(before, memory=memory), resume
    else:
        if not settings.model:
            raise AffectLensError(
                f"Name a model, for example: affectlens {command} smollm2-135m (or --resume a stopped run)."
            )
        name = settings.model.rstrip("/").replace("/", "_").lstrip(".") or "model"
        home = out or Path("runs") / f"{name}-{command}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    if dry_run:
        from affectlens.patching.estimate import forecast

        emit(forecast(settings, plan, progress=show), as_json=as_json, title="This run will take about")
        return
    from affectlens.patching.study import study

    try:
        done = study(settings, plan, out=home, resume=resume is not None, progress=show)
    except KeyboardInterrupt:
        kept = f" What was computed is kept; continue with: affectlens {command} --resume {home}"
        raise AffectLensError(f"Stopped.{kept if (home / 'run.json').exists() else ''}") from None
    tell(done, as_json=as_json, quiet=quiet)


def tell(done: "Finished", *, as_json: bool = False, quiet: bool = False) -> None:
    """Print what a run has found: sentences, JSON, or the report's path alone.

    Args:
        done: the run.
        as_json: as JSON.
        quiet: the path alone.
    """
    path, unfit = done.run.folder / "report.html", done.run.info.get("unfit", {})
    if quiet:
        print(path)
        return
    if as_json:
        results = {name: finite(one.facts()) for name, one in done.said.items()}
        emit({"report": str(path), "results": results, "not measured": unfit}, as_json=True)
        return
    from affectlens.probing.names import plain

    for name, one in done.said.items():
        say(f"{name.replace('/', ', ')}:")
        for line in one.summary():
            say(f"  {plain(line)}")
        say("")
    for why in unfit.values():
        say(f"Not measured: {why}")
    say(f"Report: {path}")


def finite(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {str(name): finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value.item() if hasattr(value, "item") else value


def _typed(ctx: typer.Context) -> list[str]:
    """The names of the options that were given on the command line."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _refuse_others(ctx: typer.Context) -> None:
    if others := [name for name in _typed(ctx) if name not in FREE]:
        said = ", ".join("MODEL" if name == "model" else f"--{name.replace('_', '-')}" for name in others)
        raise AffectLensError(f"--resume goes on with the run's own settings: leave out {said}.")
