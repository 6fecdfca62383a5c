"""``affectlens features directions``: what found features write, as directions to steer by."""

from pathlib import Path
from typing import Annotated

import typer

from affectlens.steering.typed import new_path


def feature_directions_command(
    run: Annotated[Path, typer.Argument(help="A run folder of features find.")],
    per_emotion: Annotated[int, typer.Option(min=1, help="How many features make an emotion's direction.")] = 1,
    kind: Annotated[
        list[str] | None, typer.Option("--class", help="Of these classes alone: keyword, affect, both, style; repeat.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File, which must not exist. Default: RUN/directions.safetensors."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="The file's path alone.")] = False,
) -> None:
    """Write a file of directions, one an emotion, for affectlens steer --directions FILE.

    Example: affectlens features directions runs/smollm2-135m-features --class affect
    """
    from affectlens.console import say
    from affectlens.errors import SteerError
    from affectlens.model import load_model
    from affectlens.probing.features.launching import reload
    from affectlens.probing.sae_files import load_sae
    from affectlens.steering.extracting.featuring import feature_directions

    target = new_path(out or run / "directions.safetensors")
    done, report = reload(run)
    config = done.info["config"]
    placed = report.placed
    part = placed if placed.empty else placed[
        (placed["emotion"] != "affect") & (placed["class"].isin(kind) if kind else True)
    ]  # fmt: skip
    if part.empty:
        raise SteerError(f"{run} placed no feature of a single emotion{' of that class' if kind else ''}.")
    model = load_model(config["model"], device=config["device"], dtype=config["dtype"], revision=config["revision"],
                       progress=False if quiet else None)  # fmt: skip
    sae = load_sae(config["sae"], config["sae_id"])
    done.expect("dictionary", "sae_sha256", sae.sha256)
    done.expect("model", "fingerprint", model.fingerprint)
    show = False if quiet else None
    found = feature_directions(model, sae, part, per_emotion=per_emotion, progress=show)
    found.save(target)
    if quiet:
        print(target)
        return
    say(repr(found))
    say(f'\nDirections: {target}\nTry: affectlens steer {config["model"]} "How was your day?" --directions {target}')
