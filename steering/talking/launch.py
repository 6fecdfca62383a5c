"""``affectlens steer MODEL --interactive``: the session, who writes for it, and what shows it, until the end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from affectlens.console import say
from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.steering.directions import Directions
from affectlens.steering.engines.engine import Engine
from affectlens.steering.engines.together import Together
from affectlens.steering.shipped import load_directions
from affectlens.steering.talking.asking import PROMPT, piped_lines, prompting
from affectlens.steering.talking.events import Event, Says
from affectlens.steering.talking.keeping import keep
from affectlens.steering.talking.session import Session
from affectlens.steering.talking.settings import Settings
from affectlens.steering.talking.showing import Lines, Shower, Terminal
from affectlens.steering.talking.writers import ByEngine

if TYPE_CHECKING:
    from affectlens.steering.launching import Asked

HINT = "/help lists commands, /quit ends."


def talk(asked: "Asked", *, engine: Engine | None = None, probes: Path | None = None) -> None:
    """A conversation, until its end; what was not saved is kept.

    Args:
        asked: what was typed, with the model loaded.
        engine: that writes, of the same model; by default the model itself, both replies in one pass.
        probes: a file of probes that read the replies.

    Raises:
        SteerError: a model without a chat template, or doses that can't be.
        StoreError: probes that can't be read, or of another model.
    """
    model = asked.model
    if not model.tokenizer.chat_template:
        raise SteerError(f"{model.name} has no chat template, so it can't hold a conversation.")
    how = {name: value for name, value in asked.how.items() if value is not None}
    given = how.pop("directions", None)
    directions = given if isinstance(given, Directions) else load_directions(given, model)
    file = how.pop("probes", probes)
    read = Probes.load(file, model) if file is not None else None
    settings = Settings(directions, dict(asked.doses), how, Decoding(**asked.decoding), probes=read)
    opening = settings.planned(model).stated(model)
    with _engine(model, engine) as writing:
        session = Session(model, ByEngine(writing), settings)
        session.take(settings)
        if not asked.quiet:
            say(f"{opening}\n{HINT}")
        converse(session, quiet=asked.quiet)


@contextmanager
def _engine(model: LensModel, given: Engine | None) -> Iterator[Engine]:
    """The engine that was given, or one of our own, which ends with the chat."""
    if given is not None:
        yield given
        return
    with Engine(Together(model, slots=2)) as own:
        yield own


def converse(session: Session, *, quiet: bool) -> None:
    """Answer line by line, from a terminal or a pipe, and keep what was not saved at the end, except of a quiet pipe.

    Args:
        session: the conversation.
        quiet: show replies and answers to commands alone.
    """
    console = Console()
    typed = sys.stdin.isatty() and sys.stdout.isatty()
    drawn = typed and not console.is_dumb_terminal
    shower: Shower = Terminal(console, session, quiet=quiet) if drawn else Lines(quiet=quiet)
    keeping = typed or not quiet  # a quiet pipe has it all
    try:
        if typed:
            _typed(session, shower)
        else:
            _piped(session, shower)
    except BaseException:
        try:
            _keep(session, keeping)
        except (SteerError, OSError) as error:  # what ended the chat is told after it, not hidden by it
            print(f"The conversation could not be kept: {error}", file=sys.stderr)
        raise
    _keep(session, keeping)


def _keep(session: Session, keeping: bool) -> None:
    """Keep what was not saved, and say where: on standard error, for all who have it kept."""
    if keeping and (path := keep(session)):
        print(f"The conversation is kept in {path}; /load goes on with it.", file=sys.stderr)


def _piped(session: Session, shower: Shower) -> None:
    for line in piped_lines():
        answer(session, line, shower.show)
        if session.over:
            return


def _typed(session: Session, shower: Shower) -> None:
    """A prompt until the end; Ctrl-C stops a reply, and two in a row, or one and a stopped reply, end the chat."""
    prompt, broke = prompting(session.settings.directions.emotions), False
    while not session.over:
        try:
            line = prompt.prompt(PROMPT)
        except EOFError:
            return
        except KeyboardInterrupt:
            if broke:
                return
            broke = True
            shower.show(Says("Ctrl-C once more leaves, as Ctrl-D and /quit do."))
            continue
        broke = answer(session, line, shower.show)


def answer(session: Session, line: str, show: Callable[[Event], None]) -> bool:
    """Show all that comes of a line; whether Ctrl-C stopped it.

    Args:
        session: that hears the line.
        line: as typed.
        show: shows one event.
    """
    events, broke = session.hear(line), False
    event: Event | None = next(events, None)
    while event is not None:
        try:
            show(event)
            event = next(events, None)
        except KeyboardInterrupt:  # while it was shown: the session is told, and ends the reply
            broke = True
            try:
                event = events.throw(KeyboardInterrupt())
            except (KeyboardInterrupt, StopIteration):  # not while a reply was written
                event = None
    return broke or session.stopped
