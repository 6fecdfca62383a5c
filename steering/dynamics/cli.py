"""``affectlens dynamics``."""

from pathlib import Path
from typing import Annotated

import typer

from affectlens import options
from affectlens.errors import SteerError
from affectlens.probing.features.find_cli import only_resumed


def dynamics(
    model: options.ModelName = None,
    rule: Annotated[str, typer.Option(help="How the mood moves: first, second or both.")] = "both",
    rate: Annotated[float, typer.Option(help="How strongly it is pulled, each turn.")] = 0.3,
    momentum: Annotated[float, typer.Option(help="Of the second order: the share of velocity that it keeps.")] = 0.6,
    feed: Annotated[
        str, typer.Option(help="What reads the texts that move it: encoder, lexicon, probe or likelihood.")
    ] = "encoder",
    instrument: Annotated[
        str | None, typer.Option(help="What measures the replies. Default: lexicon, or encoder if a lexicon feeds.")
    ] = None,
    probes: Annotated[Path | None, typer.Option(help="Of --feed probe: a file of category or valence probes.")] = None,
    lexicon: Annotated[
        Path | None, typer.Option(help="Of --feed lexicon: word, valence, arousal, dominance. Default: VADER.")
    ] = None,
    bounds: Annotated[str, typer.Option(help="Of --lexicon: the ends of its scale.")] = "1,9",
    directions: Annotated[
        Path | None, typer.Option(help="A file of directions with safe doses. Default: those bundled for MODEL.")
    ] = None,
    emotion: Annotated[
        list[str] | None, typer.Option("--emotion", "-e", help="Steer only these; repeat. Default: all.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="push (recovery), ramp (hysteresis) or both.")] = "both",
    scripts: Annotated[int, typer.Option(min=1, help="How many of our scripts.")] = 6,
    turns: Annotated[int, typer.Option(help="Of each script: 11 to 25.")] = 25,
    repeats: Annotated[int, typer.Option(min=1, help="Conversations a script, with other luck each.")] = 1,
    own: Annotated[float, typer.Option(min=0.0, help="The weight of the model's own last reply.")] = 0.25,
    full: Annotated[float, typer.Option(help="How far beyond --still the mood must go for the full dose.")] = 0.25,
    ceiling: Annotated[float, typer.Option(min=0.0, help="The largest sum of doses; 1.0 is safe.")] = 1.0,
    still: Annotated[
        float | None, typer.Option(min=0.0, help="A mood so near rest steers nothing. Default: where calm turns stay.")
    ] = None,
    history: Annotated[int, typer.Option(min=0, help="Exchanges that the model is shown.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 32,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.7,
    band: Annotated[
        float | None, typer.Option(help="Replies within it count as settled. Default: what noise stays within.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Three scripts of one protocol, short replies.")] = False,
    out: options.Out = None,
    resume: options.Resume = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Let a mood beside scripted conversations set MODEL's doses, and measure what that does to its replies.

    Example: affectlens dynamics smollm2-135m --rule second --momentum 0.6
    """
    typed = dict(locals())
    if resume is not None:
        only_resumed(dynamics, typed, {"resume", "as_json", "quiet"})
    elif not model:
        raise SteerError("Name a model, for example: affectlens dynamics smollm2-135m (or --resume a stopped run).")
    from affectlens.steering.dynamics.launching import launch

    for name in ("out", "resume", "dry_run", "as_json", "quiet"):
        del typed[name]
    launch(typed, out=out, resume=resume, dry_run=dry_run, as_json=as_json, quiet=quiet)
