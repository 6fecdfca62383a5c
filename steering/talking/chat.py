"""A conversation in a notebook or a program: :class:`Chat`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.layouts import Message
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.steering.directions import Directions
from affectlens.steering.engines.engine import Engine
from affectlens.steering.plan import named
from affectlens.steering.shipped import load_directions
from affectlens.steering.talking.commands import do
from affectlens.steering.talking.events import Says
from affectlens.steering.talking.exchanges import Exchange
from affectlens.steering.talking.keeping import write_chat
from affectlens.steering.talking.session import Session
from affectlens.steering.talking.settings import Settings
from affectlens.steering.talking.writers import ByEngine, ByModel


class Chat:
    """A conversation with a steered model.

    >>> from affectlens import load_model
    >>> chat = Chat(load_model("smollm2-135m"), doses={"joy": 0.6}, max_new_tokens=8)  # doctest: +SKIP
    >>> chat.say("How was your day?").text  # doctest: +SKIP

    Args:
        model: from :func:`affectlens.load_model`, with a chat template.
        doses: by emotion; none to begin plainly.
        directions: a set, its file, or None for the one that is bundled for the model.
        probes: read the replies with these, or those of a file.
        beside: write the plain reply too.
        max_new_tokens: the longest reply.
        temperature: 0 takes the likeliest token; above, tokens are sampled.
        top_p: sample from the likeliest tokens that have this probability together.
        seed: of the sampling.
        engine: that writes; by default the model itself.
        how: what else :func:`affectlens.steering.plan_for` takes.

    Raises:
        SteerError: a model without a chat template, or doses that can't be.
        StoreError: probes that can't be read, or of another model.
    """

    def __init__(
        self, model: LensModel, *, doses: Mapping[str, float] | None = None,
        directions: Directions | str | Path | None = None, probes: Probes | str | Path | None = None,
        beside: bool = True, max_new_tokens: int = 64, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0,
        engine: Engine | None = None, **how: Any,
    ) -> None:  # fmt: skip
        if not model.tokenizer.chat_template:
            raise SteerError(f"{model.name} has no chat template, so it can't hold a conversation.")
        found = directions if isinstance(directions, Directions) else load_directions(directions, model)
        found.expect(model)
        read = probes if isinstance(probes, Probes) or probes is None else Probes.load(probes)
        if read is not None:
            read.expect(model.fingerprint, model.name)
        decoding = Decoding(max_new_tokens, temperature, top_p, seed)
        settings = Settings(found, {}, how, decoding, beside=beside, probes=read).planned(model)
        if doses:
            settings = settings.dosed(model, named(doses))
        self.session = Session(model, ByModel(model) if engine is None else ByEngine(engine), settings)
        self.session.take(settings)

    def say(self, said: str) -> Exchange:
        """Say something, and get the reply, which draws itself in a notebook.

        Args:
            said: the message.

        Raises:
            AffectLensError: a message that is empty or does not fit.
        """
        if not said.strip():
            raise SteerError("There is nothing to reply to: say something.")
        for _ in self.session.answer(said.strip()):
            pass
        if self.session.stopped:
            raise KeyboardInterrupt
        return self.session.exchanges[-1]

    def do(self, command: str) -> str:
        """Carry out a command of the terminal's chat, ``/joy 0.3`` or ``/undo``; what it says.

        Args:
            command: with its slash or without.

        Raises:
            AffectLensError: one that can't be done.
        """
        events = do(self.session, command.strip().removeprefix("/"))
        return "\n".join(event.text for event in events if isinstance(event, Says))

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """All exchanges, the last one too."""
        return tuple(self.session.exchanges)

    @property
    def messages(self) -> list[Message]:
        """The conversation as a chat template takes it."""
        return self.session.messages

    def save(self, path: str | Path) -> Path:
        """Write the conversation with all readings as JSON; a file that is there is replaced.

        Args:
            path: of the file.

        Raises:
            SteerError: a file that can't be written.
        """
        write_chat(self.session, Path(path))
        return Path(path)

    def _repr_html_(self) -> str:
        from affectlens.steering.talking.pages import as_html

        last = len(self.exchanges) - 1
        return "".join(as_html(one, explained=at == last) for at, one in enumerate(self.exchanges))

    def __repr__(self) -> str:
        return "\n".join(f"you> {one.said}\n{one!r}" for one in self.exchanges) or "Nothing was said yet."
