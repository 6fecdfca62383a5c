"""Tokens to text as they come: no sign is broken, and nothing of a text that ends the reply is told."""

from collections.abc import Sequence
from typing import Any


class Speller:
    """The text of a reply that is being written."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops = tokenizer, tuple(stop for stop in stops if stop)
        self.ids: list[int] = []
        self.text = ""  # all that was spelled; told of it is the beginning
        self.told = 0
        self._start = self._end = 0  # the tokens whose text is the window's, and of those the ones that are spelled

    def add(self, token: int) -> bool:
        """Spell one more token; whether a stop text is complete, after which the text ends before it.

        Args:
            token: its id.
        """
        self.ids.append(token)
        before = self._decoded(self._start, self._end)
        after = self._decoded(self._start, len(self.ids))
        if len(after) > len(before) and not after.endswith("\ufffd"):  # else a sign that is not complete
            self._spell(after[len(before) :])
        return self._cut()

    def tell(self) -> str:
        """What can be told by now and was not yet."""
        sure = len(self.text) - self._doubtful()
        new, self.told = self.text[self.told : max(sure, self.told)], max(sure, self.told)
        return new

    def end(self) -> str:
        """What is left to tell once the reply is over, incomplete signs included."""
        before = self._decoded(self._start, self._end)
        self.text += self._decoded(self._start, len(self.ids))[len(before) :]
        self._cut()
        new, self.told = self.text[self.told :], len(self.text)
        return new

    def _spell(self, new: str) -> None:
        self.text += new
        self._start, self._end = self._end, len(self.ids)

    def _cut(self) -> bool:
        found = [at for stop in self.stops if (at := self.text.find(stop, max(self.told - len(stop), 0))) >= 0]
        if not found:
            return False
        self.text = self.text[: min(found)]
        self._start = self._end = len(self.ids)
        return True

    def _doubtful(self) -> int:
        """How many signs at the end may be the beginning of a stop text."""
        longest = max((len(stop) for stop in self.stops), default=0)
        sizes = (n for n in range(min(longest - 1, len(self.text)), 0, -1))
        return next((n for n in sizes if any(stop.startswith(self.text[-n:]) for stop in self.stops)), 0)

    def _decoded(self, start: int, end: int) -> str:
        text: str = self.tokenizer.decode(self.ids[start:end], skip_special_tokens=True)
        return text
