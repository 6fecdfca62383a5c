"""``affectlens stimuli``."""

from dataclasses import asdict
from typing import Annotated

import typer

app = typer.Typer(help="Stimulus batteries: what models are given to read.", no_args_is_help=True)
BatteryName = Annotated[str, typer.Option("--battery", help="A battery of ours, or a JSONL file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.command("list")
def list_(battery: BatteryName = "starter", as_json: AsJson = False) -> None:
    """Count a battery's items by split and role."""
    from affectlens.console import emit, say, table
    from affectlens.stimuli import load_battery

    loaded = load_battery(battery)
    counts = loaded.counts()
    if as_json:
        emit({"battery": loaded.name, "items": len(loaded), "sha256": loaded.sha256, "licence": loaded.licence,
              "counts": counts.to_dict("records")}, as_json=True)  # fmt: skip
        return
    say(repr(loaded))
    table("", list(counts.columns), counts.to_numpy().tolist())


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="An item's id, or a group's: v.joy.family.1 shows the whole triplet.")],
    battery: BatteryName = "starter",
    as_json: AsJson = False,
) -> None:
    """Show an item, or a whole pair, triplet or quadruple."""
    from affectlens.console import emit, say
    from affectlens.stimuli import load_battery

    loaded = load_battery(battery)
    items = loaded.groups().get(name) or (loaded[name],)
    if as_json:
        emit({"items": [asdict(item) for item in items]}, as_json=True)
        return
    for item in items:
        facts = [item.role, item.emotion, item.domain, f"intensity {item.intensity}"]
        say(f"{item.id}  ({', '.join(str(f) for f in facts if f)})")
        say(f"  {item.text}")
        if check := item.meta.get("check"):
            say(f"  Check: {check['question']} {check['answer']}")
        say("")
