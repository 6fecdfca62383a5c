"""A conversation with a steered model, in a terminal or through a pipe.

The history is kept as messages in the model's own chat template; the model's side of it is what it said while steered.
Lines that begin with a slash set doses and the like, and are not part of the conversation.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from affectlens.errors import AffectLensError, CaptureError, SteerError
from affectlens.layouts import Message
from affectlens.model import LensModel
from affectlens.steering.directions import spelled
from affectlens.steering.plan import named, plan_for
from affectlens.steering.typed import dose
from affectlens.steering.writing import stream

COMMANDS = "/joy 0.6 sets a dose (0 ends it), /doses, /plain (unsteered replies too), /reset, /help, /quit"


@dataclass
class Chat:
    """A conversation that is going on."""

    model: LensModel
    doses: dict[str, float]
    how: dict[str, Any]  # what plan_for takes besides
    decoding: dict[str, Any]  # max_new_tokens, temperature, top_p, seed
    plain: bool = False  # answer unsteered too
    history: list[Message] = field(default_factory=list)
    over: bool = False

    def reply(self, line: str) -> Iterator[str]:
        """What to print after a line of the user's, in pieces; what is wrong is a sentence, and the chat goes on."""
        try:
            if line.startswith("/"):
                yield self._told(line[1:].split()) + "\n"
            elif line.strip():
                yield from self._answer(line.strip())
        except CaptureError as error:  # the conversation has outgrown the context
            yield f"{error} /reset begins the conversation anew.\n"
        except AffectLensError as error:
            yield f"{error}\n"

    def _answer(self, said: str) -> Iterator[str]:
        asked: list[Message] = [*self.history, {"role": "user", "content": said}]
        seed = int(self.decoding.get("seed", 0)) + len(self.history)  # a question that is asked again has other luck
        decoding: dict[str, Any] = self.decoding | {"seed": seed}
        if self.plain:
            yield "plain: "
            yield from stream(self.model, asked, **decoding)
            yield "\nsteered: "
        steering: dict[str, Any] = {"doses": self.doses, **self.how} if self.doses else {}
        pieces = []
        for piece in stream(self.model, asked, **steering, **decoding):
            pieces.append(piece)
            yield piece
        self.history = [*asked, {"role": "assistant", "content": "".join(pieces).strip()}]
        yield "\n"

    def _told(self, words: list[str]) -> str:
        match words:
            case ["quit" | "exit"]:
                self.over = True
                return "Goodbye."
            case ["help"]:
                return COMMANDS
            case ["reset"]:
                self.history = []
                return f"The conversation begins anew; {self.stated()}"
            case ["plain"]:
                self.plain = not self.plain
                return f"Unsteered replies too: {'yes' if self.plain else 'no'}."
            case ["doses"]:
                return self.stated()
            case [name, number]:
                return self._dose(name, number)
            case [name]:
                raise SteerError(f"/{name} is no command, and as an emotion it needs a dose: {COMMANDS}")
            case _:
                raise SteerError(f"That is no command: {COMMANDS}")

    def _dose(self, name: str, number: str) -> str:
        doses = {**named(self.doses), spelled(name): dose(name, number)}
        plan_for(self.model, doses, **self.how)  # refused before anything is set
        self.doses = {emotion: value for emotion, value in doses.items() if value}
        return self.stated()

    def stated(self) -> str:
        """The doses and what they do, in one line."""
        if not self.doses:
            return "No dose is set, and replies are plain."
        return one_line(plan_for(self.model, self.doses, **self.how).explain())


def converse(chat: Chat, lines: Iterable[str]) -> None:
    """Print a reply to each line until there are no more, or ``/quit``.

    Args:
        chat: the conversation.
        lines: what the user says.
    """
    for line in lines:
        for piece in chat.reply(line):
            print(piece, end="", flush=True)
        if chat.over:
            return


def typed_lines() -> Iterator[str]:
    """The lines of standard input, asked for where a person types them."""
    from rich.console import Console

    console, asks = Console(), sys.stdin.isatty()
    while True:
        try:
            yield console.input("[bold]you>[/] ") if asks else input()
        except EOFError:
            return


def one_line(explained: str) -> str:
    """A plan's explanation without its line breaks.

    >>> one_line("L3.resid_post:\\n  joy dose +1\\nWarning: weak.")
    'L3.resid_post: joy dose +1; Warning: weak.'

    Args:
        explained: from :meth:`SteeringPlan.explain`.
    """
    return "; ".join(line.strip() for line in explained.splitlines()).replace(":; ", ": ")
