"""``affectlens features find``."""

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.errors import AffectLensError

if TYPE_CHECKING:
    from affectlens.probing.features.report import FeatureReport
    from affectlens.run import Run


def only_resumed(command: Callable[..., None], given: Mapping[str, object], allowed: set[str]) -> None:
    """Refuse what was typed beside ``--resume``: a run goes on with its own settings.

    Args:
        command: whose options these are.
        given: its arguments by name.
        allowed: the names of options that change no result.
    """
    defaults = {name: one.default for name, one in signature(command).parameters.items()}
    typed = [name for name, value in given.items() if value not in (defaults[name], [])]
    if extra := [name for name in typed if name not in allowed]:
        names = ", ".join("MODEL" if name == "model" else f"--{name.replace('_', '-')}" for name in extra)
        raise AffectLensError(f"--resume goes on with the run's own settings: leave out {names}.")


def find_command(
    model: Annotated[str | None, typer.Argument(help="Catalogue name, Hugging Face id, or folder.")] = None,
    sae: Annotated[
        str | None, typer.Option(help="The dictionary: a folder or a release of SAELens. Default: the model's bundled.")
    ] = None,
    sae_id: Annotated[str | None, typer.Option("--id", help="Which one of a release.")] = None,
    battery: Annotated[str, typer.Option(help="A battery of ours, or a JSONL file.")] = "core",
    emotion: Annotated[
        list[str] | None,
        typer.Option("--emotion", "-e", help="Of which, affect (all) among them; repeat. Default: all."),
    ] = None,
    beside: Annotated[
        str | None, typer.Option(help="A dictionary of another seed, a folder: how many features come back in it.")
    ] = None,
    sparse: Annotated[
        list[str] | None, typer.Option(help="Also probe this target by few features, beside dense probes; repeat.")
    ] = None,
    q: Annotated[float, typer.Option(min=0.001, max=0.5, help="False discovery rate.")] = 0.05,
    draws: Annotated[int, typer.Option(min=19, help="Random labellings that counts are compared with.")] = 199,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder, which must not exist. Default: runs/MODEL-features-TIME."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="A stopped run to continue, with its own settings.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of halves, flips and draws.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take in time and memory, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bars, no table: the report's path alone.")] = False,
) -> None:
    """Find the features of each emotion in MODEL, and tell keyword features from affect features.

    Example: affectlens features find smollm2-135m
    """
    if resume is not None:
        only_resumed(find_command, locals(), {"resume", "as_json", "quiet", "dry_run"})
    from affectlens.probing.features import launching
    from affectlens.run import Run, default_folder

    if resume is not None:
        asked = launching.Asked(**Run.of(resume, launching.COMMAND).info["config"])
    elif not model:
        raise AffectLensError("Name a model, for example: affectlens features find smollm2-135m (or --resume a run).")
    else:
        asked = launching.Asked(
            model, sae or launching.bundled_for(model), sae_id, battery, emotion, beside,
            list(dict.fromkeys(sparse or ())), q, draws, seed, device, dtype, revision,
        )  # fmt: skip
    if dry_run:
        from affectlens.console import emit

        emit(launching.forecast(asked), as_json=as_json, title="This run will take about")
        return
    home = resume or out or default_folder(asked.model, "features")
    try:
        run, report = launching.study(
            asked, out=home, resume=resume is not None, progress=False if quiet or as_json else None
        )
    except KeyboardInterrupt:
        kept = f" What was computed is kept; continue with: affectlens features find --resume {home}"
        raise AffectLensError(f"Stopped.{kept if (home / 'run.json').exists() else ''}") from None
    tell(run, report, as_json=as_json, quiet=quiet)


def tell(run: "Run", report: "FeatureReport", *, as_json: bool = False, quiet: bool = False) -> None:
    """Print what a run has found: sentences and a table, JSON, or the report's path alone.

    Args:
        run: the run.
        report: its report.
        as_json: as JSON.
        quiet: the path alone.
    """
    from affectlens.console import emit, say, table
    from affectlens.probing.names import plain

    path, page = run.folder / "report.html", run.folder / "dashboard.html"
    if quiet:
        print(path)
        return
    if as_json:
        shown = {"summary": report.summary(), "enrichment": report.enrichment.to_dict("records"),
                 "features": report.placed.to_dict("records")}  # fmt: skip
        emit({"report": str(path), "dashboard": str(page) if page.is_file() else None, **shown}, as_json=True)
        return
    rows = [[r["emotion"], r["feature"], r["class"], f"{r['d']:.2f}", f"{r['auroc']:.2f} [{r['auroc_low']:.2f}, "
             f"{r['auroc_high']:.2f}]", f"{r['affect']:.2f} [{r['affect_low']:.2f}, {r['affect_high']:.2f}]",
             f"{r['words']:.2f} [{r['words_low']:.2f}, {r['words_high']:.2f}]"]
            for r in _first(report)]  # fmt: skip
    columns = ["emotion", "feature", "class", "d", "AUROC in pairs", "response to affect", "response to words"]
    table("The largest effects of each emotion (held-out half, 95% intervals)", columns, rows)
    for line in report.summary():
        say("\n" + plain(line))
    say(f"\nReport: {path}" + (f"\nBrowse the features: {page}" if page.is_file() else ""))


def redraw(folder: Path, *, quiet: bool = False) -> None:
    """Write the report of a run anew from its tables, and print it.

    Args:
        folder: of the run.
        quiet: print the report's path alone.
    """
    from affectlens.probing.features.launching import reload
    from affectlens.probing.features.sections import render

    run, report = reload(folder)
    render(run, report)
    tell(run, report, quiet=quiet)


def _first(report: "FeatureReport") -> "list[dict[Any, Any]]":
    if report.placed.empty:
        return []
    ranked = report.placed.assign(size=report.placed["d"].abs()).sort_values("size", ascending=False)
    return ranked.groupby("emotion", sort=False).head(3).sort_values("emotion", kind="stable").to_dict("records")
