"""The options that ``affectlens patch`` and ``affectlens ablate`` share."""

from typing import Annotated

import typer

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
Layer = Annotated[int | None, typer.Option(min=0, help="That read-outs read. Default: three quarters of the way up.")]
Quick = Annotated[bool, typer.Option("--quick", help="Every third layer, 12 groups of pairs, fewer controls.")]
Memory = Annotated[float, typer.Option(help="What a batch may take beside the model, in GB.")]
