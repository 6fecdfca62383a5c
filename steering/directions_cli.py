"""``affectlens directions``: find them, look at them, take them elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affectlens.steering.exchange_cli import export_command, import_command
from affectlens.steering.typed import new_path, parse_layers

if TYPE_CHECKING:
    from affectlens.steering.directions import Direction, Directions
    from affectlens.types import Json

app = typer.Typer(help="Directions of emotion: vectors that a model can be steered by.", no_args_is_help=True)
app.command("export")(export_command)
app.command("import")(import_command)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No bars, no tables: the file's path alone.")]


@app.command("extract")
def extract_command(
    model: Annotated[str, typer.Argument(help="Catalogue name, Hugging Face id, or folder.")],
    battery: Annotated[str, typer.Option(help="A battery of ours, or a JSONL file.")] = "core",
    method: Annotated[str, typer.Option(help="mean_difference, centred, pca, logistic, ridge or lda.")] = "centred",
    against: Annotated[
        str | None, typer.Option(help="others or neutral (matched partners). Default: the method's own.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="10,14 or 12-16 or all. Default: the middle one.")] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="resid_post, L12.H3, L9.N17; repeat. --layers is for those without one.")
    ] = None,
    position: Annotated[str, typer.Option(help="mean, ending, last: how a text's tokens are pooled.")] = "mean",
    purify: Annotated[
        list[str] | None,
        typer.Option(help="neutral, others, keyword, text, valence, neutral(5): taken out in this order; repeat."),
    ] = None,
    emotion: Annotated[
        list[str] | None, typer.Option("--emotion", "-e", help="Of which, basic or peak word; repeat. Default: all.")
    ] = None,
    label: Annotated[str, typer.Option(help="The column of the classes, for an axis of your own.")] = "emotion",
    positive: Annotated[str | None, typer.Option(help="The value of it that gets a direction.")] = None,
    negative: Annotated[str | None, typer.Option(help="The value that stands against it. Default: all others.")] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE, such as domain=health: not fitted on; repeat.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File, which must not exist. Default: MODEL-METHOD.safetensors.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of folds and bootstraps.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take in time and memory, and stop.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find a direction of every emotion in MODEL and score each on scenes that had no part in it.

    Example: affectlens directions extract smollm2-135m --layers 14 --purify neutral
    """
    from affectlens.steering.extracting.asking import forecast, left_out, resolved

    excluded = left_out(leave_out or [])
    name = Path(model.rstrip("/")).name.replace(".", "-") or "model"
    target = new_path(out or Path(f"{name}-{method}.safetensors"))
    parse_layers(layers)  # refused before a model is loaded
    if dry_run:
        from affectlens.console import emit

        emit(forecast(model, battery, site or ["resid_post"], layers), as_json=as_json, title="This will take about")
        return
    from affectlens.model import load_model
    from affectlens.steering.extracting.making import extract

    show = False if quiet or as_json else None
    lens = load_model(model, device=device, dtype=dtype, revision=revision)
    found = extract(
        lens, battery, emotions=emotion, method=method, sites=resolved(site or ["resid_post"], layers, lens.n_layers),
        position=position, against=against, purify=tuple(purify or ()), label=label, positive=positive,
        negative=negative, leave_out=excluded, seed=seed, progress=show,
    )  # fmt: skip
    found.save(target)
    if quiet:
        print(target)
        return
    _tell(found, target, as_json)


@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(metavar="FILE|MODEL", help="A file, or a model with a bundled set.")],
    as_json: AsJson = False,
) -> None:
    """Show a set's directions with their scores and their cosines, before and after removing the shared valence.

    Example: affectlens directions show smollm2-135m
    """
    from affectlens.steering.shipped import load_directions

    _tell(load_directions(name), None, as_json)


def _tell(found: "Directions", path: Path | None, as_json: bool) -> None:
    import numpy as np

    from affectlens.console import emit, say, table
    from affectlens.steering.extracting.overlap import cosines

    pairs = cosines(found)
    if as_json:
        table_rows = found.table().to_dict("records")
        rows = [{**row, "facts": one.facts} for row, one in zip(table_rows, found, strict=True)]
        said: Json = {"file": str(path)} if path else {}
        clean = pairs.astype(object).where(pairs.notna(), None).to_dict("records")
        emit(said | {"model": found.model, "fingerprint": found.fingerprint, "directions": rows, "cosines": clean},
             as_json=True)  # fmt: skip
        return
    heads = ["emotion", "site", "method", "norm", "against others", "partners", "topic", "paired"]
    table(f"Directions of {found.model}: AUROC on held-out scenes, 95% intervals", heads, [_row(one) for one in found])
    say(
        "\nagainst others: items of the emotion against the other emotions'; partners: against their own neutral "
        "partners; topic: the same direction on the partners alone, where no emotion is; paired: items less their "
        "partners, against the others' less theirs."
    )
    if not pairs.empty:
        shown = [[*row[:3], *("" if np.isnan(v) else f"{v:.2f}" for v in row[3:])] for row in pairs.to_numpy().tolist()]
        table("\nCosines", ["site", "emotion", "other", "cosine", "without shared valence"], shown[:56])
        if len(shown) > 56:
            say(f"... and {len(shown) - 56} more: --json has them all.")
    if path is not None:
        say(f"\nFile: {path}")


def _row(one: "Direction") -> list[object]:
    from affectlens.steering.extracting.scoring import known

    scores = [known(one.facts.get(name)) for name in ("auroc", "auroc_neutral", "auroc_topic", "auroc_paired")]
    how = ", less ".join([one.method, *one.purified])
    return [one.emotion, one.site, how, f"{one.norm:.4g}", *scores]
