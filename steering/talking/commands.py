"""The commands of a chat: one table, from which help and completion are made too."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from affectlens.errors import SteerError
from affectlens.steering.talking import doing, filing
from affectlens.steering.talking.events import Event, Says

if TYPE_CHECKING:
    from affectlens.steering.talking.session import Session


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str
    takes: str  # what comes after it
    helps: str  # what it does
    act: Callable[["Session", str], Iterator[Event]]
    offers: tuple[str, ...] = ()  # what Tab completes after it
    file: bool = False  # a file's name comes after it
    example: str = ""  # what comes after it, for instance


def _help(_session: "Session", _rest: str) -> Iterator[Event]:
    yield Says(help_text())


def _quit(session: "Session", _rest: str) -> Iterator[Event]:
    session.over = True
    yield Says("Goodbye.")


ON_OFF = ("on", "off")
COMMANDS = (
    Command("doses", "[joy 0.6 fear -0.2]", "says the doses, or sets some", doing.doses, example="joy 0.6 fear -0.2"),
    Command("off", "", "sets all doses aside: replies are plain", doing.off),
    Command("on", "", "brings the doses back that /off set aside", doing.on),
    Command("beside", "[on|off]", "writes the unsteered reply too", doing.beside, ON_OFF),
    Command("colours", "[on|off|EMOTION]", "colours tokens by what is read", doing.colours, ON_OFF, example="off"),
    Command("gate", "fear>90|off", "steers only where a reading passes a threshold", doing.gate, ("off",),
            example="fear>90"),
    Command("loop", "joy<75|off", "turns doses down as the reply reaches a threshold", doing.loop, ("off",),
            example="joy<75"),
    Command("schedule", "decay(16)", "how doses change over the reply", doing.schedule,
            ("constant", "decay(16)", "ramp(16)"), example="decay(16)"),
    Command("positions", "response", "the tokens that are steered", doing.positions,
            ("all", "prompt", "response", "first(8)"), example="response"),
    Command("temperature", "0.7", "0 takes the likeliest token", doing.temperature, example="0.7"),
    Command("top_p", "0.9", "samples from the likeliest tokens of this share", doing.top_p, example="0.9"),
    Command("seed", "3", "of the sampling", doing.seed, example="3"),
    Command("tokens", "64", "the longest reply", doing.tokens, example="5"),
    Command("history", "", "shows the conversation", doing.history),
    Command("undo", "", "drops the last exchange", doing.undo),
    Command("retry", "", "writes the last reply anew, with another seed", doing.retry),
    Command("save", "[FILE]", "writes the conversation with all readings to a JSON file", filing.save, file=True),
    Command("save!", "FILE", "the same, over a file of something else", filing.save_over, file=True),
    Command("load", "FILE", "goes on with a saved conversation of this model", filing.load, file=True),
    Command("reset", "", "begins anew; doses stay", filing.reset),
    Command("help", "", "lists the commands", _help),
    Command("quit", "", "ends the chat, as Ctrl-D does", _quit),
)  # fmt: skip
BY_NAME = {command.name: command for command in COMMANDS} | {"exit": COMMANDS[-1]}


def do(session: "Session", line: str) -> Iterator[Event]:
    """Carry out a command.

    Args:
        session: of which.
        line: as typed, without its slash.

    Raises:
        SteerError: no such command, or one that can't be done.
    """
    name, _, rest = line.strip().partition(" ")
    command = BY_NAME.get(name.lower())
    if command is None:
        yield from doing.doses(session, _doses(line))
    elif rest.strip() and not command.takes:
        raise SteerError(f"/{command.name} takes nothing after it: leave out {rest.strip()!r}.")
    else:
        yield from command.act(session, rest.strip())


def _doses(line: str) -> str:
    """``joy 0.6 /fear -0.2`` without slashes, if it can be doses at all."""
    words = line.split()
    if not words:
        raise SteerError("That is no command: /help lists them.")
    if len(words) == 1:
        raise SteerError(f"/{words[0]} is no command, and as an emotion it needs a dose, /joy 0.6: /help lists all.")
    if len(words) % 2:
        raise SteerError(f"/{line.strip()} is no command, and no list of doses, /joy 0.6 /fear -0.2: /help lists all.")
    return re.sub(r"(^|\s)/", r"\1", line)


def help_text() -> str:
    """Every command in a line of its own."""
    rows = [("/joy 0.6", "sets a dose, 1.0 is the safe one; 0 ends it; /joy 0.6 /fear -0.2 sets several")]
    rows += [(f"/{one.name} {one.takes}".rstrip(), one.helps) for one in COMMANDS]
    rows += [("//text", "says /text to the model"), ("Ctrl-C", "stops the reply; what was written is kept")]
    wide = max(len(left) for left, _ in rows)
    return "\n".join(f"{left:<{wide}}  {right}" for left, right in rows)
