"""Plain texts as the smallest battery, so that every function that takes a battery takes a list of strings."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from affectlens.positions import ending_start


@dataclass(frozen=True)
class TextList:
    """Texts named t0, t1 and so on."""

    texts: Sequence[str]
    name: str = "texts"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(list(self.texts)).encode()).hexdigest()

    def frame(self) -> pd.DataFrame:
        """Columns ``id``, ``text``, ``ending``."""
        ids = [f"t{i}" for i in range(len(self.texts))]
        endings = [ending_start(text) for text in self.texts]
        return pd.DataFrame({"id": ids, "text": list(self.texts), "ending": endings})
