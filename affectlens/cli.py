"""The command line. Heavy imports wait until a command runs, so that help is instant.

Errors that are the user's to mend end with one sentence on standard error and exit code 2.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from affectlens import __version__
from affectlens.cache_cli import app as cache
from affectlens.circuits.cli import circuit
from affectlens.errors import AffectLensError
from affectlens.models_cli import app as models
from affectlens.patching.cli import ablate, patch
from affectlens.patching.features.cli import effects_command
from affectlens.probing.cli import probe
from affectlens.probing.compare_cli import compare
from affectlens.probing.features.cli import app as features
from affectlens.probing.geometry.cli import geometry
from affectlens.probing.tokens.cli import score
from affectlens.steering.cli import steer
from affectlens.steering.directions_cli import app as directions
from affectlens.steering.dynamics.cli import dynamics
from affectlens.steering.extracting.features_cli import feature_directions_command
from affectlens.steering.serving.cli import serve
from affectlens.stimuli.cli import app as stimuli

app = typer.Typer(
    help="What emotion is inside a language model, where it is computed, whether it is used, and how to turn it.",
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
app.add_typer(models, name="models")
app.add_typer(stimuli, name="stimuli")
app.add_typer(cache, name="cache")
app.add_typer(directions, name="directions")
app.add_typer(features, name="features")
features.command("effects")(effects_command)
features.command("directions")(feature_directions_command)
app.command()(probe)
app.command()(score)
app.command()(compare)
app.command()(geometry)
app.command()(patch)
app.command()(ablate)
app.command()(steer)
app.command()(serve)
app.command()(dynamics)
app.command()(circuit)

_REDRAWN = {
    "steer": "steering.measuring", "dynamics": "steering.dynamics.launching",
    "features find": "probing.features.find_cli", "circuit": "circuits.launching",
}  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Argument(help="Say what this model will need too: a name, id, folder or .gguf file.")
    ] = None,
    battery: Annotated[str, typer.Option(help="For which battery: one of ours, or a JSONL file.")] = "starter",
    as_json: AsJson = False,
) -> None:
    """Say what is installed here, what is missing and how to get it, and what a model will need in memory.

    Example: affectlens doctor smollm2-135m --battery starter
    """
    from affectlens.console import emit
    from affectlens.doctor import examine

    facts = examine()
    if model is not None:
        from affectlens.needs import needs
        from affectlens.stimuli import load_battery

        facts["needs"] = needs(model, load_battery(battery))
    if as_json:
        emit(facts, as_json=True)
        return
    wanted = facts.pop("needs", None)
    emit(facts, as_json=False, title="AffectLens on this machine")
    if wanted:
        emit(wanted, as_json=False, title=f"\n{model} on battery {battery}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the report's path alone.")] = False,
) -> None:
    """Write the report of a run folder anew, from its tables."""
    from affectlens.run import Run

    command = Run.open(run).info["command"]
    if command in _REDRAWN:
        import_module(f"affectlens.{_REDRAWN[command]}").redraw(run, quiet=quiet)
        return
    if command in ("patch", "ablate"):
        from affectlens.patching import launching, study

        found = study.reload(run)
        study.redraw(found)
        launching.tell(found, quiet=quiet)
        return
    from affectlens.console import say
    from affectlens.probing.names import plain
    from affectlens.probing.sections import render
    from affectlens.probing.study import reload

    opened, reports = reload(run)
    path = render(opened, reports)
    if quiet:
        print(path)
        return
    for one in reports:
        say(plain(one.summary()[0]))
    say(f"\nReport: {path}")


def main() -> None:
    """The entry point of the ``affectlens`` command."""
    try:
        app()
    except AffectLensError as error:
        print(f"affectlens: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"affectlens: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("affectlens: Stopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
