"""A request on its way: its tokens, its text, and whom to tell."""

import logging
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from affectlens.generating import pick
from affectlens.steering.engines.request import End, Piece, Reason, Request, Tell
from affectlens.steering.engines.spelling import Speller

_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class Ticket:
    """A request that was taken; ``cancel`` ends it at the next token."""

    key: int
    request: Request
    speller: Speller
    ends: tuple[int, ...]  # tokens that end a reply
    tell: Tell
    born: float = field(default_factory=time.monotonic)
    ended: End | None = None
    cancelled: bool = False
    _spoken: int = 0  # tokens whose text was told

    @property
    def ids(self) -> list[int]:
        """The tokens that were written so far."""
        return self.speller.ids

    def cancel(self) -> None:
        """Write no more of it; its slot is free after the step that is running."""
        self.cancelled = True

    @property
    def lapsed(self) -> Reason | None:
        """Why it must end now, if it must."""
        if self.cancelled:
            return "cancelled"
        return "timeout" if time.monotonic() - self.born > self.request.patience else None

    def take(self, logits: Tensor) -> int | Reason:
        """Choose the next token and tell its text; or, once the reply is over, why.

        Args:
            logits: ``[d_vocab]``.
        """
        how = self.request.decoding
        token = pick(logits, how, step=len(self.ids))
        stopped = self.speller.add(token)
        if token in self.ends or stopped:
            return "stop"
        if len(self.ids) >= how.max_new_tokens:
            return "length"
        self._say(self.speller.tell())
        return token

    def end(self, reason: Reason, error: str = "", *, ours: bool = False) -> None:
        """Tell what is left, and that it is over.

        Args:
            reason: why.
            error: a sentence, where the reason is an error.
            ours: it is the engine's own.
        """
        if self.ended:
            return
        self._say(self.speller.end())
        self.ended = End(reason, len(self.ids), error, ours)
        self._call(self.ended)

    def _say(self, text: str) -> None:
        if text:
            self._call(Piece(text, tuple(self.ids[self._spoken :])))
            self._spoken = len(self.ids)

    def _call(self, event: Piece | End) -> None:
        try:
            self.tell(event)
        except Exception:  # whoever asked has gone; the others' replies go on
            _LOG.exception("A listener failed, and its reply is ended.")
            self.cancelled = True


def finite(logits: Tensor) -> bool:
    """Whether no logit is lost.

    Args:
        logits: of one request.
    """
    return bool(torch.isfinite(logits.max()))
