"""Who shows a session's events: plain lines for pipes, and a terminal, where replies are redrawn once they are read."""

import sys
import time
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from affectlens.probing.tokens.pieces import visible
from affectlens.steering.talking.drawing import Tail, columns, drawn
from affectlens.steering.talking.events import Begins, Breaks, Ends, Event, Grows, Says
from affectlens.steering.talking.session import Session
from affectlens.steering.talking.summing import read_out

_PAUSE = 0.06  # seconds between two drawings of a reply that grows


@runtime_checkable
class Shower(Protocol):
    """Shows events as they come."""

    def show(self, event: Event) -> None:
        """Show one."""
        ...


class Lines:
    """Plain lines on standard output: replies as they are written, one below the other.

    Args:
        quiet: replies and answers to commands alone.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._sides: tuple[str, ...] = ()
        self._held: dict[str, str] = {}  # of replies that wait for one above them

    def show(self, event: Event) -> None:
        """Print an event.

        Args:
            event: of a session.
        """
        match event:
            case Says(text):
                _put(f"{text}\n")
            case Begins(sides):
                self._sides, self._held = sides, dict.fromkeys(sides, "")
                _put(f"{sides[0]}: " if len(sides) > 1 else "")
            case Grows(side, text) if side == self._sides[0]:
                _put(text)
            case Grows(side, text):
                self._held[side] += text
            case Breaks():
                _put("\n")
            case Ends(exchange):
                _put("\n" + "".join(f"{side}: {self._held[side]}\n" for side in self._sides[1:]))
                _put("(stopped)\n" if exchange.stopped and not self.quiet else "")
                said = "" if self.quiet else read_out(exchange)
                _put(f"{said}\n" if said else "")


def _put(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class Terminal:
    """A terminal that can be drawn on.

    Args:
        console: of rich.
        session: whose settings say whether tokens are coloured.
        quiet: replies and answers to commands alone.
    """

    def __init__(self, console: Console, session: Session, *, quiet: bool) -> None:
        self.console, self.session, self.quiet = console, session, quiet
        self._live: Live | None = None
        self._texts: dict[str, str] = {}
        self._drawn = 0.0
        self._explained: set[str] = set()  # whose colours were explained

    def show(self, event: Event) -> None:
        """Draw an event.

        Args:
            event: of a session.
        """
        match event:
            case Says(text, wrong):
                self.console.print(Text(text, style="yellow" if wrong else "cyan"))
            case Begins(sides):
                self._texts = dict.fromkeys(sides, "")
                self._live = Live(console=self.console, transient=True, auto_refresh=False)
                self._live.start()
            case Grows(side, text):
                self._texts[side] += text
                self._redraw()
            case Breaks():
                self._stop()
            case Ends(exchange):
                self._stop()
                if self.quiet:
                    self.console.print(Text(visible(exchange.reply.text)))
                    return
                column = exchange.columns[exchange.column].says if exchange.column is not None else ""
                coloured = self.session.settings.colours
                self.console.print(drawn(exchange, coloured=coloured, explained=column not in self._explained))
                self._explained |= {column} if coloured else set()

    def _redraw(self) -> None:
        if self._live is None or time.monotonic() - self._drawn < _PAUSE:
            return
        cells = [Text(visible(text)) for text in self._texts.values()]
        self._live.update(Tail(columns(list(self._texts), cells)), refresh=True)
        self._drawn = time.monotonic()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
