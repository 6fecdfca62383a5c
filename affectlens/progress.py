"""One progress bar for everything: on a terminal or in Jupyter, on stderr, gone when it is done."""

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def _console(show: bool | None) -> Console:
    console = Console(file=sys.stderr)  # bound now: a later redirect, to silence a library, leaves our bar alone
    if show is None:  # without ipywidgets rich has no bar for a notebook, only warnings
        show = console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)
    return console if show else Console(file=sys.stderr, quiet=True)


def tracked(things: Iterable[T], what: str, *, show: bool | None = None) -> Iterator[T]:
    """``things``, with a bar named ``what``; ``show=None`` shows it where a person is looking."""
    yield from track(things, description=what, console=_console(show), transient=True)


@contextmanager
def working(what: str, *, show: bool | None = None) -> Iterator[None]:
    """A spinner while one long step runs."""
    with _console(show).status(what):
        yield
