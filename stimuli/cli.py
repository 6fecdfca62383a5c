"""``affectlens stimuli``: looking at batteries. Auditing, importing and exporting have modules of their own."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from affectlens.stimuli.audit_cli import audit_command
from affectlens.stimuli.exchange_cli import export_command, import_command

app = typer.Typer(help="Stimulus batteries: what models are given to read.", no_args_is_help=True)
app.command("audit")(audit_command)
app.command("import")(import_command)
app.command("export")(export_command)
BatteryName = Annotated[str, typer.Option("--battery", help="A battery of ours, or a JSONL file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.command("list")
def list_(
    battery: BatteryName = "starter",
    plot: Annotated[Path | None, typer.Option(help="Write the battery's balance as a figure (.html).")] = None,
    as_json: AsJson = False,
) -> None:
    """Count a battery's items by split and role.

    Example: affectlens stimuli list --battery core --plot balance.html
    """
    from affectlens.console import emit, say, table
    from affectlens.stimuli import load_battery

    loaded = load_battery(battery)
    counts = loaded.counts()
    if plot is not None:
        from affectlens.paths import write_text
        from affectlens.stimuli.explorer import balance_figure

        write_text(plot, balance_figure(loaded).to_html(include_plotlyjs=True, full_html=True))
    if as_json:
        emit({"battery": loaded.name, "items": len(loaded), "sha256": loaded.sha256, "licence": loaded.licence,
              "source": loaded.source, "counts": counts.to_dict("records")}, as_json=True)  # fmt: skip
        return
    say(repr(loaded))
    table("", list(counts.columns), counts.to_numpy().tolist())
    if plot is not None:
        say(f"\nFigure: {plot}")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="An item's id, or a group's: v.joy.family.1 shows the whole triplet.")],
    battery: BatteryName = "full",
    as_json: AsJson = False,
) -> None:
    """Show an item, or a pair, triplet or quadruple side by side with its differences marked.

    Example: affectlens stimuli show x.fear.07
    """
    from rich.console import Console

    from affectlens.console import emit, say
    from affectlens.stimuli import load_battery
    from affectlens.stimuli.explorer import view

    loaded = load_battery(battery)
    if as_json:
        items = loaded.groups().get(name) or (loaded[name],)
        emit({"items": [asdict(item) for item in items]}, as_json=True)
        return
    found = view(loaded, name)
    if Console().is_terminal:
        Console().print(found)
    else:
        say(repr(found))
