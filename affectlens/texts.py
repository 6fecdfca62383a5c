"""Plain texts, conversations and tables as the smallest batteries, so that what takes a battery takes any of them."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from affectlens.errors import CaptureError
from affectlens.layouts import Message, ending_start
from affectlens.types import TextTable

Texts = TextTable | pd.DataFrame | Iterable[str | Sequence[Message]]


@dataclass(frozen=True)
class TextList:
    """Texts named t0, t1 and so on; each a string, or a list of ``{"role": ..., "content": ...}`` messages."""

    texts: Sequence[str | Sequence[Message]]
    name: str = "texts"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(list(self.texts)).encode()).hexdigest()

    def frame(self) -> pd.DataFrame:
        """Columns ``id``, ``text``, ``ending``; and ``messages`` if there are conversations.

        Raises:
            CaptureError: something that is neither a text nor a conversation.
        """
        words = [_words(text, f"Text {i}") for i, text in enumerate(self.texts)]
        frame = pd.DataFrame({
            "id": [f"t{i}" for i in range(len(words))], "text": words, "ending": [ending_start(w) for w in words],
        })  # fmt: skip
        if any(not isinstance(text, str) for text in self.texts):
            talks = [None if isinstance(text, str) else list(text) for text in self.texts]
            frame["messages"] = pd.Series(talks, dtype=object)
        return frame


@dataclass(frozen=True)
class TextFrame:
    """A table of the user's own with a column ``text``; ``id``, ``ending`` and ``messages`` are used if there."""

    table: pd.DataFrame
    name: str = "table"

    @property
    def sha256(self) -> str:
        used = self.table[[c for c in ("id", "text", "ending", "messages") if c in self.table]]
        return hashlib.sha256(json.dumps([list(used), used.values.tolist()], default=str).encode()).hexdigest()

    def frame(self) -> pd.DataFrame:
        """The table, with ids.

        Raises:
            CaptureError: no column ``text``, ids that repeat, or a text that is none.
        """
        if "text" not in self.table:
            raise CaptureError(f"The table has no column 'text', only {', '.join(map(str, self.table.columns))}.")
        out = self.table.reset_index(drop=True)
        ids = out["id"].astype(str) if "id" in out else pd.Series([f"t{i}" for i in range(len(out))])
        if ids.duplicated().any():
            raise CaptureError(f"The table has several items with the id {ids[ids.duplicated()].iloc[0]!r}.")
        for name, text in zip(ids, out["text"], strict=True):
            _words(text, f"Item {name}")
        return out.assign(id=ids)


def as_table(given: Texts) -> TextTable:
    """A battery as it is; texts, conversations and tables as batteries.

    Raises:
        CaptureError: a single text, or something else that is not a list of texts.
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable | TextTable):
        raise CaptureError(
            f"Give a battery, a table or a list of texts, not {type(given).__name__}: put a single text into a list."
        )
    if isinstance(given, pd.DataFrame):
        return TextFrame(given)
    return given if isinstance(given, TextTable) else TextList(list(given))


def _words(text: object, name: str) -> str:
    """The text, or a conversation's last message, if it is one."""
    if isinstance(text, str):
        said = [text]
    elif isinstance(text, Sequence) and text and all(isinstance(m, Mapping) for m in text):
        said = [m.get("content") for m in text]
    else:
        raise CaptureError(f"{name} is {type(text).__name__}: give strings, or lists of messages.")
    for words in said:
        if not isinstance(words, str):
            raise CaptureError(f"{name} has a message whose content is {type(words).__name__}: give strings.")
        if any("\ud800" <= c <= "\udfff" for c in words):
            raise CaptureError(f"{name} has half a character (a lone surrogate) in it: read its file as UTF-8.")
    return str(said[-1])
