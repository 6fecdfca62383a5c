"""A conversation's state, and what a line of the user's does to it, told as events: no terminal is needed.

A reply is written from the conversation so far, in which the model's side is what it said while steered. The plain
reply beside it is written from that same conversation, with the same luck. Then the plain model reads both.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from affectlens.errors import AffectLensError
from affectlens.generating import Decoding
from affectlens.layouts import Layout, Message
from affectlens.model import LensModel
from affectlens.steering.fitting import fit
from affectlens.steering.plan import SteeringPlan
from affectlens.steering.readers import Reader
from affectlens.steering.talking.commands import do
from affectlens.steering.talking.events import Begins, Breaks, Ends, Event, Grows, Says
from affectlens.steering.talking.exchanges import Column, Exchange, Side
from affectlens.steering.talking.reading import read_side, reading_of
from affectlens.steering.talking.settings import Settings, mark_of
from affectlens.steering.talking.writers import Plans, Writer

_SHORTER = "ask for shorter replies, /tokens 16"


@dataclass
class _Draft:
    """A reply that is being written."""

    text: str = ""
    ids: list[int] = field(default_factory=list)


@dataclass
class Session:
    """A conversation that is going on."""

    model: LensModel
    writer: Writer
    settings: Settings
    exchanges: list[Exchange] = field(default_factory=list)
    dropped: list[Exchange] = field(default_factory=list)  # undone, or written anew; kept in the file
    left_out: int = 0  # the oldest exchanges that are no longer sent
    unsaved: bool = False
    file: Path | None = None  # where it was saved last
    seen: dict[Path, str] = field(default_factory=dict)  # hashes of files as this session wrote or read them
    stopped: bool = False  # whether the user stopped the last reply
    over: bool = False

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, as a chat template takes it."""
        return [message for one in self.exchanges for message in one.messages]

    def take(self, changed: Settings) -> None:
        """Let other settings hold from now on; refused at once, and not at the next reply, if the writer can't.

        Args:
            changed: the new ones.

        Raises:
            SteerError: a plan that can't be, or that this writer can't follow.
        """
        if changed.doses or changed.how:
            self.writer.check(changed.trial(self.model))
        self.settings = changed

    def hear(self, line: str) -> Generator[Event, None, None]:
        """What comes of a line of the user's; what is wrong is a sentence, and the chat goes on.

        Args:
            line: a message; a command if it begins with a slash; a message that begins with a slash if with two.
        """
        self.stopped, line = False, line.strip()
        try:
            if line.startswith("/") and not line.startswith("//"):
                yield from do(self, line[1:])
            elif said := line.removeprefix("/"):
                yield from self.answer(said)
        except AffectLensError as error:
            yield Says(str(error), wrong=True)

    def answer(self, said: str, *, anew: bool = False) -> Iterator[Event]:
        """Let the model reply.

        Args:
            said: what it replies to.
            anew: instead of the last exchange, with another seed.

        Raises:
            AffectLensError: doses that can't be, or a message that does not fit.
        """
        kept = self.exchanges[:-1] if anew else self.exchanges
        plan = self.settings.plan(self.model)
        count = len(self.exchanges) + len(self.dropped)  # whatever is asked again has other luck
        decoding = replace(self.settings.decoding, seed=self.settings.decoding.seed + count)
        most, n_ctx = decoding.max_new_tokens, self.writer.n_ctx
        before = [one.messages for one in kept]
        prompt, left_out = fit(self.model, before, said, most=most, n_ctx=n_ctx, advice=_SHORTER)
        yield from self._told_of(left_out, n_ctx)
        plans: Plans = {"steered": plan} if plan else {"plain": None}
        if self.settings.beside and plan:
            plans = {"plain": None, "steered": plan}
        drafts = {name: _Draft() for name in plans}
        yield Begins(tuple(plans))
        self.stopped = yield from self._write(drafts, prompt, plans, decoding)
        if self.stopped and not drafts["steered" if plan else "plain"].text.strip():
            yield Breaks()
            yield Says("Stopped before a word was written: nothing of it is kept.")
            return
        exchange = Exchange(said, *self._read(drafts, prompt, plan), dict(self.settings.doses) if plan else {},
                            plan.explain() if plan else "", mark_of(plan), decoding, self.stopped, left_out,
                            self.settings.shown)  # fmt: skip
        self.dropped += self.exchanges[len(kept) :]
        self.exchanges, self.unsaved = [*kept, exchange], True
        yield Ends(exchange)

    def _told_of(self, left_out: int, n_ctx: int) -> Iterator[Says]:
        """Say it when more of the conversation is no longer sent than at the reply before."""
        if left_out > self.left_out:
            oldest = "exchange is" if left_out == 1 else f"{left_out} exchanges are"
            yield Says(
                f"The context of {n_ctx} tokens is full: the oldest {oldest} no longer sent; /history keeps all."
            )
        self.left_out = left_out

    def _write(
        self, drafts: dict[str, _Draft], prompt: Layout, plans: Plans, decoding: Decoding
    ) -> Generator[Event, None, bool]:  # fmt: skip
        """Fill the drafts; whether the user stopped it."""
        pieces = self.writer.stream(prompt, plans, decoding)
        try:
            for name, piece in pieces:
                drafts[name].text += piece.text
                drafts[name].ids += piece.ids
                if piece.text:
                    yield Grows(name, piece.text)
        except KeyboardInterrupt:
            return True
        except AffectLensError:
            yield Breaks()
            raise
        finally:
            pieces.close()
        return False

    def _read(
        self, drafts: dict[str, _Draft], prompt: Layout, plan: SteeringPlan | None
    ) -> tuple[Side, Side | None, tuple[Column, ...]]:  # fmt: skip
        """The replies with their readings, or without where the user does not wait for these."""

        def side(name: str) -> Side:
            return read_side(self.model, prompt, drafts[name].ids, drafts[name].text, readers)

        readers: tuple[Reader, ...] = ()
        columns: tuple[Column, ...] = ()
        try:
            readers, columns = reading_of(self.model, plan, self.settings.directions, self.settings.probes)
            read = {name: side(name) for name in drafts}
        except KeyboardInterrupt:
            readers, columns = (), ()
            read = {name: side(name) for name in drafts}
        return (read["steered"], read.get("plain"), columns) if plan else (read["plain"], None, columns)
