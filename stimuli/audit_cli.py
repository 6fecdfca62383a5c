"""``affectlens stimuli audit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd


def audit_command(
    battery: Annotated[str, typer.Argument(help="A battery of ours (starter, core, full), or a file.")],
    reader: Annotated[
        str | None, typer.Option("--reader", help="Read the file as another's battery: see `stimuli import --help`.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with the worst items and leaking words.")] = None,
    fix_list: Annotated[
        Path | None, typer.Option("--fix-list", help="Write what to mend, one JSON object a line.")
    ] = None,
    bound: Annotated[
        list[str] | None, typer.Option("--bound", help="Another bound, for example words=0.8; repeat for several.")
    ] = None,
    lexicon: Annotated[
        list[Path] | None,
        typer.Option(help="A sentiment lexicon of yours: word and score, separated by a tab or comma, a line each."),
    ] = None,
    outside: Annotated[
        Path | None, typer.Option(help="A battery (JSONL) of other origin to train word readers on.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="A sentence encoder for its floor: wordllama, or a folder for sentence-transformers."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Measure what words alone tell, and check the design.

    Exit code 0 if all is within bounds, 1 if not, 2 on bad input.

    Example: affectlens stimuli audit core --report audit.html --fix-list fixes.jsonl
    """
    from textwrap import shorten

    from affectlens.console import emit, say, table
    from affectlens.progress import tracked
    from affectlens.stimuli.auditing import Bounds, audit
    from affectlens.stimuli.auditing.inputs import changed_bounds, find_encoder, read_lexicon
    from affectlens.stimuli.auditing.page import write_fixes, write_page
    from affectlens.stimuli.importing import open_battery

    loaded = open_battery(battery, reader)
    found = audit(
        loaded,
        bounds=changed_bounds(Bounds(), bound or []),
        outside=open_battery(str(outside), None) if outside else None,
        scores={path.stem: read_lexicon(path) for path in lexicon or []},
        encoder=find_encoder(encoder) if encoder else None,
        watch=lambda steps: tracked(steps, f"auditing {loaded.name}"),
    )
    if report is not None:
        write_page(report, found, loaded)
    if fix_list is not None:
        write_fixes(fix_list, found)
    if as_json:
        facts = {"battery": found.battery, "items": found.items, "sha256": found.sha256, "passed": found.passed}
        emit(facts | {"seconds": round(found.seconds, 1), "findings": _plain(found.frame())}, as_json=True)
    else:
        rows = [[f.verdict, f.name, f.said(), f.bound, f.note] for f in found.findings]
        table(f"Audit of {found.battery} ({found.items} items)", ["", "property", "figure", "bound", "note"], rows)
        for f in found.findings:
            if f.passed is False:
                worst = "; ".join(f"{w.item} ({shorten(w.say, 140)})" for w in f.worst[:3])
                leaking = ", ".join(f"{w.word} {w.emotional}:{w.neutral}" for w in f.words[:10])
                say(f"\n{f.name}: {worst}" + (f"\n  words (emotional:neutral): {leaking}" if leaking else ""))
        missing = [f.name for f in found.findings if f.verdict == "not applicable" and "<=" in f.bound]
        verdict = "No property is out of bounds." if found.passed else "Some properties are out of bounds."
        verdict += f" Not measured: {', '.join(missing)}." if missing else ""
        say(f"\n{verdict} ({found.seconds:.0f} s)")
        for path in (report, fix_list):
            if path is not None:
                say(f"Written: {path}")
    raise typer.Exit(0 if found.passed else 1)


def _plain(frame: "pd.DataFrame") -> list[dict[str, object]]:
    """Rows for JSON, which has no NaN."""
    return [{str(k): None if v != v else v for k, v in row.items()} for row in frame.to_dict("records")]
