"""Looking at a battery: items side by side with their differences marked, and its balance as a figure."""

from difflib import SequenceMatcher
from html import escape
from itertools import zip_longest

import plotly.graph_objects as go

from affectlens.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, figure
from affectlens.stimuli.battery import Battery
from affectlens.stimuli.stimulus import CELLS, Stimulus

Piece = tuple[str, bool]  # words, and whether the item it is compared with lacks them
ORDER = ("emotional", "neutral", "mild", "moderate", "keyword")


def compared(text: str, other: str) -> list[Piece]:
    """``text`` in pieces, marked where ``other`` differs.

    >>> compared("He lit the lamp.", "He lit the fuse.")
    [('He lit the', False), ('lamp.', True)]
    """
    a, b = text.split(), other.split()
    out: list[Piece] = []
    for tag, start, end, _, _ in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if start < end:
            out.append((" ".join(a[start:end]), tag != "equal"))
    return out


def side_by_side(items: tuple[Stimulus, ...]) -> list[tuple[Stimulus, list[Piece]]]:
    """Each item with what tells it from its partner.

    The partner of a peak is its neutral, that of any other item the peak. Of a quadruple ax is compared with ay and bx
    with by, so that the endings are marked.
    """
    ordered = sorted(items, key=lambda s: (CELLS.index(s.cell) if s.cell in CELLS else 0,
                                           ORDER.index(s.role) if s.role in ORDER else len(ORDER)))  # fmt: skip
    cells = {s.cell: s for s in ordered if s.cell}
    roles = {s.role: s for s in ordered}
    twin = {"ax": "ay", "ay": "ax", "bx": "by", "by": "bx"}
    out = []
    for s in ordered:
        other = cells.get(twin[s.cell]) if s.cell else roles.get("neutral" if s.role == "emotional" else "emotional")
        out.append((s, compared(s.text, other.text) if other and other is not s else [(s.text, False)]))
    return out


def facts(s: Stimulus) -> str:
    """One line on an item."""
    parts = [s.cell, s.role, s.emotion, s.domain, f"intensity {s.intensity}" if s.intensity else None]
    check = s.meta.get("check")
    return ", ".join(str(p) for p in parts if p) + (
        f"; check: {check.get('question')} {check.get('answer')}" if isinstance(check, dict) else ""
    )


class View:
    """Items of one group, side by side: in a notebook as columns, in a terminal as rich panels."""

    def __init__(self, items: tuple[Stimulus, ...]) -> None:
        self.rows = side_by_side(items)

    def __repr__(self) -> str:
        return "\n\n".join(
            f"{s.id}  ({facts(s)})\n  " + " ".join(f"[{text}]" if marked else text for text, marked in pieces)
            for s, pieces in self.rows
        )

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<td style='vertical-align:top;text-align:left;width:{100 // min(len(self.rows), 2)}%;padding:.5em'>"
            f"<strong>{escape(s.id)}</strong><br><small>{escape(facts(s))}</small><p>{_html(pieces)}</p></td>"
            + ("</tr><tr>" if i % 2 else "")
            for i, (s, pieces) in enumerate(self.rows)
        )
        return f"<table style='width:100%;table-layout:fixed'><tr>{cells}</tr></table>"

    def __rich__(self) -> object:
        from rich.console import RenderableType
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(expand=True, padding=(0, 1))
        columns = 1 if len(self.rows) == 1 else 2
        for _ in range(columns):
            grid.add_column(ratio=1)
        panels: list[RenderableType] = []
        for s, pieces in self.rows:
            text = Text()
            for words, marked in pieces:
                text.append(words, style="bold reverse" if marked else "").append(" ")
            panels.append(Panel(text, title=s.id, subtitle=facts(s), title_align="left", subtitle_align="left"))
        for pair in zip_longest(*[iter(panels)] * columns, fillvalue=""):
            grid.add_row(*pair)
        return grid


def view(battery: Battery, name: str) -> View:
    """A group's items side by side, or one item.

    Raises:
        BatteryError: if the battery has neither.
    """
    return View(battery.groups().get(name) or (battery[name],))


def balance_figure(battery: Battery) -> go.Figure:
    """Items by emotion, one colour a split: equal bars are what a balanced battery shows."""
    fig = figure(f"Balance of {battery.name}", "", "items")
    frame = battery.frame()
    frame["emotion"] = frame["emotion"].fillna("none")
    colours = (BLUE, ORANGE, GREEN, PURPLE, GREY, "#c9566b")
    for i, (split, part) in enumerate(frame.groupby("split", sort=False)):
        counts = part["emotion"].value_counts()
        fig.add_bar(x=list(counts.index), y=list(counts), name=str(split), marker={"color": colours[i % len(colours)]})
    fig.update_layout(barmode="group", hovermode="closest")
    return fig


def _html(pieces: list[Piece]) -> str:
    return " ".join(f"<mark>{escape(text)}</mark>" if marked else escape(text) for text, marked in pieces)
