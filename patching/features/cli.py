"""``affectlens features effects``: are the features that a search has found used?"""

from pathlib import Path
from typing import Annotated

import typer

from affectlens.errors import AffectLensError


def effects_command(
    run: Annotated[Path, typer.Argument(help="A run folder of features find.")],
    top: Annotated[
        int, typer.Option(min=1, help="How many features: the largest effects of each emotion in turn.")
    ] = 8,
    kind: Annotated[
        list[str] | None, typer.Option("--class", help="Of these classes alone: keyword, affect, both, style; repeat.")
    ] = None,
    emotion: Annotated[
        list[str] | None, typer.Option("--emotion", "-e", help="Of these alone, affect (all) among them; repeat.")
    ] = None,
    clamp: Annotated[
        str | None, typer.Option(help="Set features to a number, or to p95 of their own activation, not to zero.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="affect, category, valence, said_category, said_valence, kl; repeat.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of the battery, spread over emotions.")] = 24,
    placebos: Annotated[int, typer.Option(min=1, help="Other features of the same frequency, for each.")] = 39,
    directions: Annotated[int, typer.Option(min=0, help="Random directions of the same norm, for each.")] = 0,
    memory: Annotated[float, typer.Option(help="What a batch may take beyond the model, in GB.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of pairs, placebos and the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bars, no table: the report's path alone.")] = False,
) -> None:
    """Ablate or clamp features that were found, beside placebo features, and add the outcome to the run's report.

    What the dictionary fails to rebuild stays as it is. A call that was stopped goes on where it was.

    Example: affectlens features effects runs/smollm2-135m-features --class affect --class keyword
    """
    from affectlens.console import emit, say
    from affectlens.patching.features.running import METRICS, effects_of_run
    from affectlens.probing.names import plain

    try:
        found, path = effects_of_run(
            run, top=top, classes=kind or (), emotions=emotion or (), clamp=clamp, metrics=metric or METRICS,
            pairs=pairs, placebos=placebos, directions=directions, memory=memory, seed=seed,
            progress=False if quiet or as_json else None,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise AffectLensError("Stopped. What was computed is kept; the same command goes on.") from None
    if quiet:
        print(path)
    elif as_json:
        rows = found.effects().to_dict("records")
        emit({"report": str(path), "summary": found.summary(), "effects": rows}, as_json=True)
    else:
        for line in found.summary():
            say(plain(line) + "\n")
        say(f"Report: {path}")
