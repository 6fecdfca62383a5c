"""What turns a language model's scores into a posterior: an offset a class and a scale, and the record of it.

Offset: the class's mean score over development texts that hold each emotion equally often, so that no class is favoured
before a text is read (contextual calibration, Zhao et al. 2021, arXiv:2102.09690; over real texts instead of empty
ones, Zhou et al. 2024, arXiv:2309.17249). It needs no labels, so trust and anticipation have one too. Scale: one number
by which the summed forms are multiplied, so that the posterior is as sure as it is right (least log loss on the same
texts). Texts for calibrating and texts for the record must be different ones.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.paths import write_text
from affectlens.steering.judging.scores import FORMS, LABELS, Scores
from affectlens.steering.judging.scoring import Record
from affectlens.types import Json

FILE = "judge_likelihood.json"


@dataclass(frozen=True, eq=False)
class Calibration:
    """How one model's scores are read.

    Attributes:
        model, fingerprint: of the model that the numbers are of.
        forms: the names of the forms whose scores are added, of :data:`affectlens.steering.judging.scores.FORMS`.
        offsets: what is taken from each form's score of each class.
        spreads: what each form's scores are then divided by: their standard deviation on the development texts.
        scale: what the sum is then multiplied by.
        records: figures on other texts than those it was made on.
        facts: how it was made, as JSON.
    """

    model: str
    fingerprint: str
    forms: tuple[str, ...]
    offsets: Float[np.ndarray, "form label"]
    spreads: Float[np.ndarray, " form"]
    scale: float
    records: tuple[Record, ...]
    facts: Json

    def posterior(self, scores: dict[str, Scores]) -> Scores:
        """The probabilities of the classes; rows sum to one.

        Args:
            scores: of each form, ``[item, label]``.
        """
        stacked = np.stack([scores[form] for form in self.forms])
        logits = self.scale * _summed(stacked, self.offsets, self.spreads)
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

    def as_json(self) -> Json:
        """As plain values."""
        return {
            "model": self.model, "fingerprint": self.fingerprint, "labels": list(LABELS), "forms": list(self.forms),
            "offsets": np.round(self.offsets, 5).tolist(), "spreads": np.round(self.spreads, 5).tolist(),
            "scale": round(self.scale, 5), "records": [one.as_json() for one in self.records], "facts": self.facts,
        }  # fmt: skip

    @classmethod
    def from_json(cls, said: Json) -> "Calibration":
        """From :meth:`as_json`.

        Raises:
            SteerError: another list of classes, an unknown form, or something missing.
        """
        try:
            if tuple(said["labels"]) != LABELS or not set(said["forms"]) <= set(FORMS):
                raise ValueError(f"classes {said['labels']}, forms {said['forms']}")
            return cls(
                said["model"], said["fingerprint"], tuple(said["forms"]), np.array(said["offsets"], dtype=float),
                np.array(said["spreads"], dtype=float), float(said["scale"]),
                tuple(Record.from_json(one) for one in said["records"]), said["facts"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise SteerError(f"This is no calibration of a likelihood judge ({error!r}).") from None


def calibrate(
    model: LensModel, scores: dict[str, Scores], truth: Sequence[str], *, forms: Sequence[str] | None = None
) -> Calibration:
    """Offsets and scale from development texts.

    Args:
        model: whose scores these are.
        scores: by form, ``[item, label]``; of texts that hold each class equally often.
        truth: the texts' classes.
        forms: the forms to add; by default all of ``scores``.

    Raises:
        SteerError: no texts, or a truth that is none of the classes.
    """
    names = tuple(forms if forms is not None else scores)
    if not truth or set(truth) - set(LABELS):
        raise SteerError(f"Calibration needs texts whose truths are among {', '.join(LABELS)}.")
    stacked = np.stack([scores[form] for form in names]).astype(float)
    offsets = stacked.mean(1)
    spreads = np.maximum((stacked - offsets[:, None]).std(axis=(1, 2)), 1e-6)
    logits = _summed(stacked, offsets, spreads)
    rows, columns = np.arange(len(truth)), [LABELS.index(name) for name in truth]

    def loss(power: float) -> float:
        scaled = np.exp(power) * logits
        top = scaled.max(1)
        return float((np.log(np.exp(scaled - top[:, None]).sum(1)) + top - scaled[rows, columns]).mean())

    found: Any = minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded")
    scale = float(np.exp(found.x))
    return Calibration(model.name, model.fingerprint, names, offsets, spreads, scale, (), {"n": len(truth)})


def bundled(path: str | Path | None = None) -> list[Calibration]:
    """The calibrations in a file; by default those that come with the package.

    Args:
        path: a file as :func:`save_calibrations` writes it.

    Raises:
        SteerError: an unreadable file.
    """
    where = Path(path) if path is not None else Path(str(resources.files("affectlens.steering") / "data" / FILE))
    try:
        said = json.loads(where.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SteerError(f"{where} is not a readable file of calibrations ({error!r}).") from None
    return [Calibration.from_json(one) for one in said.values()]


def save_calibrations(path: str | Path, found: Sequence[Calibration]) -> Path:
    """Write calibrations, one a model.

    Args:
        path: the file to write.
        found: of different models.
    """
    write_text(Path(path), json.dumps({one.fingerprint: one.as_json() for one in found}, indent=1) + "\n")
    return Path(path)


def _summed(
    stacked: Float[np.ndarray, "form item label"],
    offsets: Float[np.ndarray, "form label"],
    spreads: Float[np.ndarray, " form"],
) -> Scores:
    return ((stacked - offsets[:, None]) / spreads[:, None, None]).sum(0)
