"""``affectlens directions export`` and ``import``."""

from pathlib import Path
from typing import Annotated

import typer

from affectlens.steering.typed import new_path, parse_doses


def export_command(
    file: Annotated[str, typer.Argument(help="A file of directions, or a model that has them bundled: smollm2-135m.")],
    to: Annotated[str, typer.Option("--to", help="gguf (llama.cpp), repeng, easysteer or checkpoint.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .gguf file, or the checkpoint's new folder.")],
    emotion: Annotated[
        list[str], typer.Option("--emotion", "-e", metavar="NAME=DOSE", help="Such as joy=0.6; repeat for several.")
    ],
    raw: Annotated[bool, typer.Option("--raw", help="Doses are shares of the norm, not of the safe dose.")] = False,
    model: Annotated[
        str | None, typer.Option(help="The model that the directions belong to, if they were found under another name.")
    ] = None,
) -> None:
    """Write steering for another engine: a control vector, or a checkpoint that is steered at no cost.

    Examples: affectlens directions export smollm2-135m --to gguf -e joy=0.6 -o joy.gguf;
    affectlens directions export smollm2-135m --to checkpoint -e joy=0.6 -e fear=-0.3 -o smollm2-joyful
    """
    from affectlens.console import say
    from affectlens.model import load_model
    from affectlens.steering.exporting import export
    from affectlens.steering.shipped import load_directions

    doses, target = parse_doses(emotion), new_path(out)
    directions = load_directions(file)
    # the model itself is needed for a checkpoint only; a vector is checked against it where the user names one
    loaded = load_model(model or directions.model) if model or to == "checkpoint" else None
    written = export(directions, target, to=to, doses=doses, raw=raw, model=loaded)
    say(f"Written: {written} ({', '.join(f'{name} {dose:g}' for name, dose in doses.items())}; {to}).")
    say(_USE[to].format(written=written))


def import_command(
    file: Annotated[Path, typer.Argument(help="A GGUF control vector: llama.cpp's, repeng's, EasySteer's or ours.")],
    model: Annotated[str, typer.Argument(help="The model to steer with it.")],
    emotion: Annotated[str, typer.Option("--emotion", "-e", help="What it stands for: joy, or a name of yours.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the directions (.safetensors).")],
) -> None:
    """Read a control vector of another engine as directions.

    Example: affectlens directions import happy.gguf smollm2-135m -e joy -o happy.safetensors
    """
    from affectlens.console import say, table
    from affectlens.model import load_model
    from affectlens.steering.exporting import import_directions

    target = new_path(out)
    found = import_directions(file, load_model(model), emotion=emotion)
    rows = [[d.site, f"{d.facts['length']:.4g}", f"{d.facts['norm_measured']:.4g}", f"{d.norm:.4g}"] for d in found]
    table(f"{file.name} as {found.emotions[0]}", ["site", "length", "median norm", "doses count in"], rows)
    said = f"At raw dose {found.all[0].facts['raw']:.3g} it does what the file does"
    say(f"Written: {found.save(target)}. {said}. Nothing has validated a dose of it yet: steer with --raw.")


_USE = {
    "gguf": "For llama.cpp: llama-cli -m MODEL.gguf --control-vector {written}",
    "repeng": 'For repeng: model.set_control(ControlVector.import_gguf("{written}"), 1.0)',
    "easysteer": 'For EasySteer: VectorSpec(source="{written}", apply=ApplySpec(prompt="all", generation="all"))',
    "checkpoint": 'Load it like any other: from_pretrained("{written}"). Its README.md says what it is.',
}
