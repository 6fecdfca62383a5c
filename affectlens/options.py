"""Options that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

ModelName = Annotated[str | None, typer.Argument(help="Catalogue name, Hugging Face id, or folder.")]
BatteryName = Annotated[str, typer.Option(help="A battery of ours, or a JSONL file with matched pairs.")]
Chat = Annotated[bool, typer.Option("--chat", help="Make each text the user's message of a conversation.")]
Out = Annotated[Path | None, typer.Option(help="Run folder, which must not exist. Default: runs/MODEL-COMMAND-TIME.")]
Resume = Annotated[Path | None, typer.Option(help="A stopped run to continue, with its own settings.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of pairs, controls, folds and bootstraps.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take in time and memory, and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No bars, no text: the report's path alone.")]
