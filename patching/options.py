"""The options that ``affectlens patch`` and ``affectlens ablate`` share."""

from pathlib import Path
from typing import Annotated

import typer

ModelName = Annotated[str | None, typer.Argument(help="Catalogue name, Hugging Face id, or folder.")]
BatteryName = Annotated[str, typer.Option(help="A battery of ours, or a JSONL file with matched pairs.")]
Contrast = Annotated[
    str | None,
    typer.Option(
        help="Which pairs: emotional/neutral, emotional/keyword, ax/bx... Default: emotional/neutral of a battery of "
        "ours, all that there are of your own."
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        help="affect, category, valence (read-outs of the residual stream), said_category, said_valence (the model's "
        "answer after the cue), kl; repeat for several. Default: affect, valence, said_category."
    ),
]
Groups = Annotated[
    int | None, typer.Option(min=2, help="Groups of pairs at most, spread over emotions. Default: 32, quick 12.")
]
Cue = Annotated[str | None, typer.Option(help="Written after each text. Default: ' It made them feel very'.")]
Chat = Annotated[bool, typer.Option("--chat", help="Make each text the user's message of a conversation.")]
Layer = Annotated[int | None, typer.Option(min=0, help="That read-outs read. Default: three quarters of the way up.")]
Quick = Annotated[bool, typer.Option("--quick", help="Every third layer, 12 groups of pairs, fewer controls.")]
Out = Annotated[Path | None, typer.Option(help="Run folder, which must not exist. Default: runs/MODEL-COMMAND-TIME.")]
Resume = Annotated[Path | None, typer.Option(help="A stopped run to continue, with its own settings.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of pairs, controls, folds and bootstraps.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Memory = Annotated[float, typer.Option(help="What a batch may take beside the model, in GB.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take in time and memory, and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No bars, no text: the report's path alone.")]
