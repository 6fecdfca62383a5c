"""``affectlens geometry``."""

from pathlib import Path
from typing import Annotated

import typer

from affectlens.console import emit, say
from affectlens.errors import AffectLensError


def geometry(
    model: Annotated[str, typer.Argument(help="Catalogue name, Hugging Face id, or folder.")],
    battery: Annotated[str, typer.Option(help="A battery of ours, or a JSONL file.")] = "starter",
    against: Annotated[str | None, typer.Option(help="A second model, compared by CKA on the same items.")] = None,
    terms: Annotated[
        bool, typer.Option("--terms/--no-terms", help="Also the 115 emotion words that people have rated.")
    ] = True,
    layer: Annotated[
        int | None, typer.Option(help="The layer to speak of. Default: the one at two thirds of the depth.")
    ] = None,
    position: Annotated[str, typer.Option(help="Which tokens a text stands for: mean, ending, last.")] = "mean",
    out: Annotated[
        Path | None, typer.Option(help="Run folder, which must not exist. Default: runs/MODEL-geometry-TIME.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of random orders.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bars, no text: the report's path alone.")] = False,
) -> None:
    """How emotions lie to one another inside MODEL: cosines, models of distance, circumplex, clusters, layers.

    Example: affectlens geometry smollm2-135m --battery starter
    """
    from affectlens.probing.geometry.study import study
    from affectlens.probing.names import plain
    from affectlens.run import default_folder

    home = out or default_folder(model, "geometry")
    try:
        run, report = study(
            model, battery=battery, against=against, words=terms, layer=layer, position=position, out=home, seed=seed,
            device=device, dtype=dtype, revision=revision, progress=False if quiet or as_json else None,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise AffectLensError("Stopped. What was captured is kept: the same command goes on from there.") from None
    path = run.folder / "report.html"
    if quiet:
        print(path)
    elif as_json:
        at = {name: table[table["layer"].isin([report.layer, -1])].to_dict("records")
              for name, table in report.tables.items() if "layer" in table}  # fmt: skip
        emit({"report": str(path), "layer": report.layer, "summary": report.summary(), "tables": at}, as_json=True)
    else:
        for line in report.summary():
            say(plain(line) + "\n")
        say(f"Report: {path}")
