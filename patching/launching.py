"""What ``affectlens patch`` and ``affectlens ablate`` do once their options are read: run, forecast, or continue."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.console import emit, say
from affectlens.errors import AffectLensError

if TYPE_CHECKING:
    from affectlens.patching.settings import AblatePlan, PatchPlan, Settings
    from affectlens.patching.study import Finished


def launch(
    command: str, settings: "Settings", plan: "PatchPlan | AblatePlan", *, out: Path | None, resume: Path | None,
    dry_run: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Run a command.

    Args:
        command: ``patch`` or ``ablate``.
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
    show = False if quiet or as_json else None
    if resume is not None:
        from affectlens.patching.settings import Settings
        from affectlens.patching.study import asked_of

        own = Settings("", memory=settings.memory)  # memory changes no number, so that it may be another
        if out is not None or settings != own or plan != type(plan)():
            raise AffectLensError(
                "--resume goes on with the run's own settings: leave out MODEL and all options but --memory, "
                "--dry-run, --json and --quiet."
            )
        before, plan = asked_of(resume, command)
        memory = before.memory if settings.memory == Settings.memory else settings.memory
        settings, home = replace(before, memory=memory), resume
    else:
        if not settings.model:
            raise AffectLensError(
                f"Name a model, for example: affectlens {command} smollm2-135m (or --resume a stopped run)."
            )
        from affectlens.run import default_folder

        home = out or default_folder(settings.model, command)
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
        results = {name: finite(one.facts()) for name, one in done.views.items()}
        emit({"report": str(path), "results": results, "not measured": unfit}, as_json=True)
        return
    from affectlens.probing.names import plain

    for name, one in done.views.items():
        say(f"{name}:")
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
