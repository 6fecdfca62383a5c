"""``affectlens probe``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affectlens.console import emit, say
from affectlens.errors import AffectLensError

if TYPE_CHECKING:
    from affectlens.probing.report import ProbeReport


def probe(
    model: Annotated[str | None, typer.Argument(help="Catalogue name, Hugging Face id, or folder.")] = None,
    battery: Annotated[str, typer.Option(help="A battery of ours, or a JSONL file.")] = "starter",
    target: Annotated[
        list[str] | None,
        typer.Option(help="affect, category, valence, arousal, dominance, intensity, or a column; repeat for several."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder, which must not exist. Default: runs/MODEL-BATTERY-TIME.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="A stopped run to continue, with its own settings.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of folds and bootstraps.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Pair and domain folds alone, no transfer matrix, no asking.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take in time and memory, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bars, no table: the report's path alone.")] = False,
) -> None:
    """Read emotion off every layer of MODEL, beside lexical floors, and write a report.

    Example: affectlens probe smollm2-135m --battery starter
    """
    if resume is not None and (model or out or target):
        raise AffectLensError("--resume goes on with the run's own settings: leave out MODEL, --out and --target.")
    if resume is None and not model:
        raise AffectLensError("Name a model, for example: affectlens probe smollm2-135m (or --resume a stopped run).")
    chosen = list(dict.fromkeys(target)) if target else None
    if resume is not None:
        from affectlens.run import Run

        kept = Run.open(resume).info["config"]
        model, battery, seed, device, dtype, revision, quick = (
            kept[k] for k in ("model", "battery", "seed", "device", "dtype", "revision", "quick")
        )
        chosen, out = list(kept["targets"]), resume
    assert model
    if dry_run:
        from affectlens.probing.estimate import forecast

        emit(forecast(model, battery, chosen, quick=quick), as_json=as_json, title="This run will take about")
        return
    from affectlens.probing.study import study
    from affectlens.run import default_folder

    home = out or default_folder(model, Path(battery).stem)
    show = False if quiet or as_json else None
    try:
        run, reports = study(
            model, battery=battery, targets=chosen, out=home, resume=resume is not None, seed=seed,
            device=device, dtype=dtype, revision=revision, quick=quick, progress=show,
        )  # fmt: skip
    except KeyboardInterrupt:
        kept_in = (
            f" What was computed is kept; continue with: affectlens probe --resume {home}" if home.exists() else ""
        )
        raise AffectLensError(f"Stopped.{kept_in}") from None
    _tell(run.folder / "report.html", reports, run.info.get("unfit", {}), as_json, quiet)


def _tell(path: Path, reports: "list[ProbeReport]", unfit: dict[str, str], as_json: bool, quiet: bool) -> None:
    if quiet:
        print(path)
        return
    if as_json:
        found = {r.target: {"summary": r.summary(), "scores": r.table().to_dict("records")} for r in reports}
        emit({"report": str(path), "results": found, "not probed": unfit}, as_json=True)
        return
    from affectlens.console import table
    from affectlens.probing.names import READER_NAMES, plain
    from affectlens.probing.words import claim
    from affectlens.stats import Estimate

    rows = []
    for report in reports:
        for row in report.table().to_dict("records"):
            score = Estimate(row["value"], row["low"], row["high"], row["n"], row["unit"])
            reader, kind = READER_NAMES[row["reader"]], row["kind"].replace("_", " ")
            rows.append([report.target, row["rung"], reader, kind, score])
    table("Scores with 95% intervals", ["target", "held out", "reader", "kind", "score"], rows)
    for why in unfit.values():
        say(f"\nNot probed: {why}")
    for report in reports:
        say("\n" + plain(report.summary()[0]))
    say("\nWhat survives: " + plain("; ".join(claim(report) for report in reports)) + ".")
    say(f"\nReport: {path}")
