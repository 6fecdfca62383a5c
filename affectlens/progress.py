"""One progress bar for everything: on a terminal or in Jupyter, on stderr, gone when it is done."""

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def _console(show: bool | None) -> Console | None:
    """Where a bar goes; None if nobody looks. A quiet console would still put an empty widget into a notebook."""
    console = Console(file=sys.stderr)  # bound now: a later redirect, to silence a library, leaves our bar alone
    if show is None:  # without ipywidgets rich has no bar for a notebook, only warnings
        show = console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)
    return console if show else None


def tracked(things: Iterable[T], what: str, *, show: bool | None = None) -> Iterator[T]:
    """``things``, with a bar named ``what``; ``show=None`` shows it where a person is looking."""
    console = _console(show)
    yield from things if console is None else track(things, description=what, console=console, transient=True)


@contextmanager
def working(what: str, *, show: bool | None = None) -> Iterator[None]:
    """A spinner while one long step runs."""
    console = _console(show)
    with nullcontext() if console is None else console.status(what):
        yield
