"""Plain texts and conversations as the smallest battery, so that what takes a battery takes a list."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from affectlens.errors import CaptureError
from affectlens.layouts import Message, ending_start


@dataclass(frozen=True)
class TextList:
    """Texts named t0, t1 and so on; each a string, or a list of ``{"role": ..., "content": ...}`` messages."""

    texts: Sequence[str | Sequence[Message]]
    name: str = "texts"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(list(self.texts)).encode()).hexdigest()

    def frame(self) -> pd.DataFrame:
        """Columns ``id``, ``text``, ``ending``; and ``messages`` if there are conversations."""
        for i, text in enumerate(self.texts):
            if not isinstance(text, str) and not (text and all(isinstance(m, dict) for m in text)):
                raise CaptureError(f"Text {i} is {type(text).__name__}: give strings, or lists of messages.")
        words = [text if isinstance(text, str) else text[-1].get("content", "") for text in self.texts]
        frame = pd.DataFrame({
            "id": [f"t{i}" for i in range(len(words))], "text": words, "ending": [ending_start(w) for w in words],
        })  # fmt: skip
        if any(not isinstance(text, str) for text in self.texts):
            frame["messages"] = pd.Series([None if isinstance(text, str) else list(text) for text in self.texts])
        return frame
