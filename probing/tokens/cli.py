"""``affectlens score``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affectlens.errors import AffectLensError, RunError

if TYPE_CHECKING:
    from affectlens.probing.tokens.scores import TokenScores
    from affectlens.types import Json


def score(
    probes: Annotated[Path, typer.Argument(help="A file of probes, or the folder of a run.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; - reads standard input, one a line.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read texts from a file, one a line; empty lines are none.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Which probes of a run. Default: affect, or with --emotion those that tell it apart."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model. Default: the one that the probes name.")] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Default: the one that folds chose.")] = None,
    method: Annotated[str | None, typer.Option(help="logistic or mean_difference. Default: logistic.")] = None,
    emotion: Annotated[
        str | None, typer.Option(help="Which class, peak names too (grief). Default: of several the winning one.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Standard deviations from the neutral items of a battery (starter), not logits.")
    ] = None,
    by_layer: Annotated[bool, typer.Option("--by-layer", help="Read every layer; a figure in --html.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Each text is the user's message of a conversation.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: the run's.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub. Default: the run's.")] = None,
) -> None:
    """Colour texts by a probe's score of each token.

    Example: affectlens score runs/smollm2-135m-starter "The line went dead in her hand."
    """
    given = gather(texts or [], file)
    path, config = find_probes(probes, target, emotion)
    from affectlens.model import load_model
    from affectlens.probing.probes import Probes
    from affectlens.probing.tokens.reading import find_class, read_tokens
    from affectlens.stimuli import load_battery

    loaded = Probes.load(path)
    find_class(loaded, emotion)  # what can be refused is refused before a model is loaded
    loaded.at(layer, method or next(iter(loaded.weights)))
    neutral = load_battery(reference) if reference else None
    if model:
        config = {key: value for key, value in config.items() if key != "revision"}
    show = False if as_json else None
    lens = load_model(
        model or config.get("model") or loaded.model, device=device, dtype=dtype or config.get("dtype") or "float32",
        revision=revision or config.get("revision"), progress=show,
    )  # fmt: skip
    found = read_tokens(
        loaded, lens, given, layer=layer, method=method, emotion=emotion, reference=neutral, by_layer=by_layer,
        chat=chat, progress=show,
    )  # fmt: skip
    if html is not None:
        from affectlens.paths import write_text
        from affectlens.probing.tokens.heat import page

        write_text(html, page(found))
    _tell(found, html, as_json)


def gather(texts: list[str], file: Path | None) -> list[str]:
    """The texts of the arguments, of standard input where one is ``-``, and of a file.

    Raises:
        AffectLensError: if there are none, or the file is not UTF-8.
    """
    found: list[str] = []
    try:
        for text in texts:
            found += _lines(sys.stdin.read()) if text == "-" else [text]
        if file is not None:
            found += _lines(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise AffectLensError(f"{file or 'Standard input'} is not UTF-8: convert it first.") from None
    if not found:
        raise AffectLensError("There are no texts: give some as arguments, in --file, or on standard input with -.")
    return found


def find_probes(place: Path, target: str | None, emotion: str | None) -> "tuple[Path, Json]":
    """The file of probes, and the configuration of the run that it belongs to, if that is known.

    Raises:
        RunError: a folder that is no run, has no probes yet, or none of that target.
    """
    from affectlens.run import Run

    if not place.is_dir():
        if target is not None:
            raise RunError(f"--target picks probes of a run, and {place} is not a run folder: leave one of both out.")
        home = place.parent.parent
        return place, Run.open(home).info["config"] if (home / "run.json").is_file() else {}
    run = Run.open(place)
    there = sorted(path.stem for path in (place / "probes").glob("*.safetensors"))
    if not there:
        raise RunError(f"{place} holds no probes yet: continue it with affectlens probe --resume {place}.")
    name = target or _fitting(place, there, emotion)
    if name not in there:
        raise RunError(f"{place} has no probes of {name!r}; choose --target from {', '.join(there)}.")
    return place / "probes" / f"{name}.safetensors", run.info["config"]


def _fitting(place: Path, there: list[str], emotion: str | None) -> str:
    """Affect if it is there; with a class, the first target that tells it apart."""
    from affectlens.errors import BatteryError

    ranked = sorted(there, key=lambda name: name != "affect")
    if emotion is not None:
        from affectlens.probing.probes import Probes
        from affectlens.probing.tokens.reading import find_class

        for name in ranked:
            try:
                find_class(Probes.load(place / "probes" / f"{name}.safetensors"), emotion)
                return name
            except BatteryError:
                continue
    return ranked[0]


def _lines(text: str) -> list[str]:
    return [line for raw in text.split("\n") if (line := raw.removesuffix("\r")).strip()]


def _tell(found: "TokenScores", html: Path | None, as_json: bool) -> None:
    from affectlens.console import emit, say, table

    if as_json:
        emit(found.as_json(), as_json=True)
        return
    from rich.console import Console

    console = Console()
    console.print(found, soft_wrap=not console.is_terminal)
    if len(found.layers) > 1:
        rows = found.table().to_dict("records")
        said = [[row["item"], row["layer"], f"{row['score']:+.2f}", row["class"]] for row in rows]
        table("\nThe mean of each text, by layer", ["text", "layer", "score", "class"], said)
    if html is not None:
        say(f"\nPage: {html}")
