"""``affectlens features``: train a dictionary, look at one, find the features of an emotion."""

from pathlib import Path
from typing import Annotated, Any

import typer

from affectlens.errors import AffectLensError
from affectlens.probing.features.find_cli import find_command, only_resumed

app = typer.Typer(
    help="Features of sparse autoencoders: of an emotion's words, or of the emotion?", no_args_is_help=True
)
app.command("find")(find_command)


@app.command("train")
def train_command(
    model: Annotated[str | None, typer.Argument(help="Catalogue name, Hugging Face id, or folder.")] = None,
    site: Annotated[str | None, typer.Option(help="What is taken apart, for example L15.resid_post.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A file, a folder, or hf:NAME for a data set of the hub; repeat.")
    ] = None,
    self_text: Annotated[bool, typer.Option("--self-text", help="Text sampled from the model itself.")] = False,
    column: Annotated[str, typer.Option(help="The column of texts in tables.")] = "text",
    tokens: Annotated[int, typer.Option(min=1000, help="How many activations to harvest.")] = 2_000_000,
    passes: Annotated[float, typer.Option(min=0.01, help="How often each is trained on, on average.")] = 2.0,
    features: Annotated[int, typer.Option(min=0, help="How many features; 0: 8 times the site's width.")] = 0,
    k: Annotated[int, typer.Option(min=1, help="Active features a token.")] = 32,
    architecture: Annotated[str, typer.Option(help="topk or jumprelu.")] = "topk",
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 2e-3,
    batch: Annotated[int, typer.Option(min=1, help="Activations a step.")] = 2048,
    frozen_decoder: Annotated[
        bool, typer.Option("--frozen-decoder", help="A baseline: the decoder stays random.")
    ] = False,
    autocast: Annotated[bool, typer.Option("--autocast", help="Train with matrix products in bfloat16.")] = False,
    battery: Annotated[str, typer.Option(help="What it is measured on, besides held-out text.")] = "core",
    name: Annotated[str | None, typer.Option(help="What to call it. Default: MODEL-SITE.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder, which must not exist; the dictionary is in its sae/."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="A stopped run to continue, with its own settings.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of texts, weights and batches.")] = 0,
    dtype: Annotated[str, typer.Option(help="In which the model runs while activations are harvested.")] = "bfloat16",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the harvested activations in the folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take in time and memory, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bars, no table: the folder's path alone.")] = False,
) -> None:
    """Train a sparse autoencoder on a site of MODEL, with SAELens, and measure it.

    Example: affectlens features train smollm2-135m --site L15.resid_post --text corpus/ --tokens 2000000
    """
    if resume is None and (not model or not site or bool(text) == self_text):
        raise AffectLensError(
            "Name a model, a site and text (--text FOLDER, or --self-text), for example: affectlens features train "
            "smollm2-135m --site L15.resid_post --text corpus/ (or --resume a stopped run)."
        )
    if resume is not None:
        only_resumed(train_command, locals(), {"resume", "as_json", "quiet", "dry_run", "keep", "device"})
    from affectlens.probing.features import making
    from affectlens.probing.features.recipes import Recipe
    from affectlens.run import Run, default_folder

    if resume is not None:
        kept = Run.of(resume, making.COMMAND).info["config"]
        given = kept["source"] | {"text": tuple(kept["source"]["text"])}
        source, recipe = making.Source(**given), Recipe(**kept["recipe"])
        model, site, battery, dtype, name = (kept[key] for key in ("model", "site", "battery", "dtype", "name"))
    else:
        assert model
        assert site
        source = making.Source(tuple(text or ()), self_text, column, tokens, seed=seed)
        recipe = Recipe(features, k, architecture, max(batch, int(passes * tokens)),
                        batch, lr, frozen_decoder=frozen_decoder, autocast=autocast, seed=seed)  # fmt: skip
    if dry_run:
        from affectlens.console import emit

        emit(making.forecast(model, site, source, recipe), as_json=as_json, title="This training will take about")
        return
    home = resume or out or default_folder(model, f"sae-{site}")
    try:
        _, sae = making.make_sae(
            model, site, source, recipe, out=home, resume=resume is not None, name=name, battery=battery, dtype=dtype,
            device=device, keep=keep, progress=False if quiet or as_json else None,
        )  # fmt: skip
    except KeyboardInterrupt:
        kept_in = f" Go on with: affectlens features train --resume {home}" if home.exists() else ""
        raise AffectLensError(f"Stopped.{kept_in}") from None
    _tell(sae, home / "sae", as_json, quiet)


@app.command("show")
def show_command(
    sae: Annotated[str, typer.Argument(help="A bundled one (smollm2-135m), a folder, or a release of SAELens.")],
    sae_id: Annotated[str | None, typer.Option("--id", help="Which one of a release.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Say what a dictionary reads, how it was trained and how good it is.

    Example: affectlens features show smollm2-135m
    """
    from affectlens.probing.sae_files import load_sae

    _tell(load_sae(sae, sae_id), None, as_json, False)


def _tell(sae: Any, path: Path | None, as_json: bool, quiet: bool) -> None:
    from affectlens.console import emit, say, table

    if quiet:
        print(path)
        return
    about = {"name": sae.name, "site": str(sae.site), "model": sae.model, "features": sae.n_features,
             "architecture": sae.architecture, "sha256": sae.sha256}  # fmt: skip
    if as_json:
        emit(about | sae.facts | ({"path": str(path)} if path else {}), as_json=True)
        return
    emit(about | sae.facts.get("recipe", {}), as_json=False, title=f"The dictionary {sae.name}")
    rows = sae.facts.get("evaluation", [])
    if rows:
        from affectlens.probing.features.evaluating import spoken

        table("\nHow good it is (95% intervals over texts)", ["on", "dictionary", "measure", ""], spoken(rows))
    if path:
        say(f"\nThe dictionary: {path}")
