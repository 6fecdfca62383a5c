"""``affectlens circuit``."""

from pathlib import Path
from typing import Annotated

import typer

from affectlens import options
from affectlens.errors import AffectLensError
from affectlens.patching import options as given
from affectlens.probing.features.find_cli import only_resumed


def circuit(
    model: options.ModelName = None,
    emotion: Annotated[
        list[str] | None,
        typer.Option("--emotion", "-e", help="By its basic or its peak word (sadness, grief); all for all; repeat."),
    ] = None,
    battery: options.BatteryName = "core",
    metric: Annotated[
        str,
        typer.Option(help="What the circuit is judged by: said_category, said_valence (the model's answer after the "
                     "cue), kl, affect, category, valence (read-outs of the residual stream)."),
    ] = "said_category",
    contrast: Annotated[str, typer.Option(help="Which pairs: emotional/neutral, ax/bx...")] = "emotional/neutral",
    layer: given.Layer = None,
    method: Annotated[str, typer.Option(help="eap, eap-ig or eap-ig-activations.")] = "eap-ig",
    steps: Annotated[int, typer.Option(min=1, help="Gradients along a path.")] = 5,
    rule: Annotated[str, typer.Option(help="How edges are chosen by their scores: greedy or threshold.")] = "greedy",
    pairs: Annotated[
        int | None, typer.Option(min=8, help="Scenes of each emotion at most. Default: 32, quick 12.")
    ] = None,
    randoms: Annotated[
        int | None, typer.Option(min=0, help="Random circuits of equal size. Default: 100, quick 19.")
    ] = None,
    cue: given.Cue = None,
    chat: options.Chat = False,
    read: Annotated[
        bool, typer.Option("--read", help="Probe each emotion at each layer too, unless an earlier run has.")
    ] = False,
    runs: Annotated[Path, typer.Option(help="Where earlier runs of this model are looked for.")] = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="12 scenes, fewer sizes and random circuits.")] = False,
    out: options.Out = None,
    resume: options.Resume = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    memory: given.Memory = 1.0,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Find the circuit of an emotion in MODEL, verify it edge by edge, and set it beside what other runs found.

    Example: affectlens circuit smollm2-135m --emotion grief
    """
    if resume is not None:
        only_resumed(circuit, locals(), {"resume", "dry_run", "as_json", "quiet"})
        asked = None
    elif not model or not emotion:
        raise AffectLensError(
            "Name a model and an emotion, for example: affectlens circuit smollm2-135m --emotion grief "
            "(or --resume a stopped run)."
        )
    else:
        from affectlens.circuits.settings import Asked
        from affectlens.stimuli.taxonomy import EMOTIONS

        names = tuple(EMOTIONS) if "all" in emotion else tuple(dict.fromkeys(emotion))
        asked = Asked(model, names, battery, metric, contrast, layer, method, steps, rule, pairs, randoms, cue, chat,
                      quick, str(runs), read, seed, device, dtype, revision, memory)  # fmt: skip
    from affectlens.circuits.launching import launch

    launch(asked, out=out, resume=resume, dry_run=dry_run, as_json=as_json, quiet=quiet)
