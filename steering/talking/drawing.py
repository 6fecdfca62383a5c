"""How exchanges look in a terminal: coloured tokens, side by side where there are two replies, and what was read.

The palette is that of :mod:`affectlens.steering.colouring`: blue below the scale's zero, orange above it, ink and
ground both set. One scale holds for both replies; its ends are printed, and what was read is in words below.
"""

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from affectlens.probing.tokens.heat import GROUND, INK, over, shade
from affectlens.probing.tokens.pieces import Shown, limit, visible
from affectlens.steering.talking.exchanges import Exchange
from affectlens.steering.talking.summing import legend, read_out


def columns(heads: Sequence[str], cells: Sequence[RenderableType]) -> RenderableType:
    """Replies beside each other under their names; one alone without a name.

    Args:
        heads: the names.
        cells: the replies.
    """
    if len(cells) == 1:
        return cells[0]
    grid = Table(*heads, box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", expand=True)
    for one in grid.columns:
        one.ratio, one.overflow = 1, "fold"
    grid.add_row(*cells)
    return grid


def drawn(exchange: Exchange, *, coloured: bool, explained: bool) -> RenderableType:
    """The finished replies.

    Args:
        exchange: whose.
        coloured: colour the tokens by what was read.
        explained: say what the colours are.
    """
    rows = [exchange.pieces(side) for _, side in exchange.sides]
    end = limit(rows)
    paint = coloured and exchange.column is not None
    doses = ", ".join(f"{name} {dose:+g}" for name, dose in exchange.doses.items())
    heads = [f"steered: {doses}" if name == "steered" else name for name, _ in exchange.sides]
    parts = [columns(heads, [_painted(row, end if paint else None) for row in rows])]
    if exchange.stopped:
        parts.append(Text("(stopped)", style="dim"))
    if paint and exchange.column is not None:
        parts.append(_scale(exchange.columns[exchange.column].emotion, end))
    if said := read_out(exchange):
        parts.append(Text(said, style="dim"))
    if paint and explained:
        parts.append(Text(legend(exchange), style="dim"))
    return Group(*parts)


def _painted(row: Sequence[Shown], end: float | None) -> Text:
    text = Text()
    for s in row:
        text.append(visible(s.text), style=_style(s.score / end) if end and not s.why_grey else "")
    return text


def _scale(emotion: str, end: float) -> Text:
    scale = Text(f"{emotion} {-end:+.3f} ")
    for share in range(-10, 11):
        scale.append(" ", style=_style(share / 10))
    return scale.append(f" {end:+.3f}")


def _style(share: float) -> str:
    r, g, b = (int(GROUND[i : i + 2], 16) for i in (1, 3, 5))
    return "{} on #{:02x}{:02x}{:02x}".format(INK, *over(*shade(share), (r, g, b)))


class Tail:
    """The last lines of something that may be taller than the screen."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        lines = console.render_lines(self.inner, options, pad=False)
        for line in lines[-max(console.size.height - 2, 1) :]:
            yield from line
            yield Segment.line()
