"""What commands print: sentences and tables for people, JSON for machines."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def say(text: str) -> None:
    """A sentence on standard output, wrapped to the terminal."""
    Console().print(text, markup=False, highlight=False, soft_wrap=not Console().is_terminal)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on standard output."""
    grid = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False, title_style="bold")
    for name in columns:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(Text("" if value is None else str(value)) for value in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(grid)


def emit(facts: dict[str, Any], *, as_json: bool, title: str = "") -> None:
    """Named facts, as JSON or as a two-column table."""
    if as_json:
        print(json.dumps(facts, indent=1, default=str))
    else:
        table(title, ["", ""], list(facts.items()))
