"""Where the user's lines come from: a prompt with editing, history and completion, or whatever is piped in."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from affectlens.paths import cache_dir
from affectlens.steering.talking.commands import COMMANDS

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer

PROMPT = "you> "


def completions(typed: str, emotions: tuple[str, ...]) -> list[str]:
    """What may stand in the place of the last word of a line that is being typed.

    >>> completions("/te", ("joy",)), completions("/beside o", ("joy",)), completions("hello", ("joy",))
    (['/temperature'], ['on', 'off'], [])

    Args:
        typed: the line so far.
        emotions: that can be steered.
    """
    if not typed.startswith("/") or typed.startswith("//"):
        return []
    *before, last = typed.split(" ")
    names = [f"/{command.name}" for command in COMMANDS] if not before else []
    options = [f"/{name}" for name in emotions]
    for command in COMMANDS:
        if before and before[0] == f"/{command.name}":
            options = [*command.offers, *(emotions if command.name in ("doses", "colours") else ())]
    return [option for option in [*options, *names] if option.startswith(last) and option != last]


def _completer(emotions: tuple[str, ...]) -> "Completer":
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    files = {f"/{command.name}" for command in COMMANDS if command.file}

    class Words(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            typed = document.text_before_cursor
            name, space, rest = typed.partition(" ")
            if space and name in files:
                yield from PathCompleter(expanduser=True).get_completions(Document(rest), complete_event)
                return
            last = typed.split(" ")[-1]
            for option in completions(typed, emotions):
                yield Completion(option, -len(last))

    return Words()


def prompting(emotions: tuple[str, ...]) -> "PromptSession[str]":
    """A prompt that remembers what was typed, in this chat and in those before.

    Args:
        emotions: that Tab completes.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory

    home = cache_dir() / "chats"
    home.mkdir(parents=True, exist_ok=True)
    return PromptSession(
        history=FileHistory(str(home / "typed")), completer=_completer(emotions), complete_while_typing=False
    )


def piped_lines() -> Iterator[str]:
    """The lines of standard input."""
    for line in sys.stdin:
        yield line.rstrip("\n")
