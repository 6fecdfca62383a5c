"""``affectlens cache``: what the store of activations holds, and clearing it."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from affectlens.keeping import Kept

app = typer.Typer(help="Captured activations that are kept for reuse.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.command("list")
def cache_list(as_json: AsJson = False) -> None:
    """List the captures in the store: of which model and battery, which sites, how large, when last used."""
    from affectlens.console import emit, say, table
    from affectlens.keeping import kept
    from affectlens.paths import cache_dir

    found = kept()
    if as_json:
        emit({"folder": str(cache_dir()), "captures": [_row(one) for one in found]}, as_json=True)
    elif not found:
        say(f"Nothing is kept in {cache_dir()}.")
    else:
        rows = [list(_row(one).values()) for one in found]
        table(f"Captures in {cache_dir()}, {sum(one.megabytes for one in found):,.0f} MB", list(_row(found[0])), rows)


@app.command("prune")
def cache_prune(
    older_than: Annotated[float | None, typer.Option(help="Also what was not used for so many days.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All captures (models stay).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove captures that can't be used any more, and with the options those that you no longer want."""
    from affectlens.console import emit, say
    from affectlens.keeping import prune

    gone, busy = prune(older_than=older_than, everything=everything, dry_run=dry_run)
    freed = sum(one.megabytes for one in gone)
    if as_json:
        emit(
            {"removed": [_row(one) for one in gone], "busy": [_row(one) for one in busy], "dry_run": dry_run},
            as_json=True,
        )
        return
    say(f"{'Would remove' if dry_run else 'Removed'} {len(gone)} captures, {freed:,.0f} MB.")
    if busy:
        say(f"{len(busy)} are being written by a running process and stay.")


def _row(one: "Kept") -> dict[str, object]:
    return {"id": one.path.name[:12], "model": one.model, "battery": one.battery, "sites": one.sites,
            "positions": one.positions, "items": one.items, "MB": round(one.megabytes, 1),
            "idle days": round(one.idle_days, 1), "state": one.state}  # fmt: skip
