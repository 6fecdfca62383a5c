"""The likelihood judge: a language model's posterior over Plutchik's eight emotions and neutral.

Nothing is generated and nothing is fitted but a calibration (:mod:`affectlens.steering.judging.calibrating`). The model
must not be steered while it judges, and one of another family than the steered one is the better witness: a model that
judges its own replies may share the mistake that it is asked about. A small model is a poor judge; ``trust()`` says how
poor. Its accuracy on trust and anticipation can be measured on our battery alone, which has no replies in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.judging.calibrating import Calibration, bundled, calibrate
from affectlens.steering.judging.scores import FORMS, LABELS, read_forms
from affectlens.steering.judging.scoring import Record, record
from affectlens.steering.judging.verdicts import Verdicts, as_verdicts, present


@dataclass(frozen=True, eq=False, repr=False)
class LikelihoodJudge:
    """A judge that reads a language model's likelihoods. Made by :func:`likelihood_judge`.

    Attributes:
        model: the language model.
        calibration: of this model.
        name: in tables.
    """

    model: LensModel
    calibration: Calibration
    name: str = "likelihood"

    def __post_init__(self) -> None:
        if self.calibration.fingerprint != self.model.fingerprint:
            raise SteerError(
                f"This calibration is of {self.calibration.model} ({self.calibration.fingerprint[:12]}), not of "
                f"{self.model.name} ({self.model.fingerprint[:12]}): calibrate the model itself."
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it can name: Plutchik's eight and neutral."""
        return LABELS

    def judge(self, texts: Sequence[str], *, progress: bool | None = None) -> Verdicts:
        """The verdicts on texts, in their order; equal texts are read once.

        Args:
            texts: any number; on an empty one it abstains.
            progress: show bars; by default where a person is looking.
        """
        rows = present(texts)
        unique = list(dict.fromkeys(texts[row] for row in rows))
        place = {text: i for i, text in enumerate(unique)}
        found = self.calibration.posterior(read_forms(self.model, unique, self.calibration.forms, progress=progress))
        return as_verdicts(self.name, self.labels, len(texts), rows, found[[place[texts[row]] for row in rows]])

    @property
    def records(self) -> tuple[Record, ...]:
        """Its figures on held-out texts, a record a source."""
        return self.calibration.records

    def trust(self) -> pd.DataFrame:
        """Its held-out recall, precision and false alarms by source and class, with 95% intervals."""
        return pd.concat([one.table() for one in self.records], ignore_index=True) if self.records else pd.DataFrame()

    def __repr__(self) -> str:
        return "\n".join([f"LikelihoodJudge by {self.model.name}", *(f"  {one}" for one in self.records)])


def likelihood_judge(model: LensModel, *, calibration: Calibration | None = None) -> LikelihoodJudge:
    """The judge by likelihood.

    Args:
        model: any language model, not steered while it judges.
        calibration: of this model, from :func:`calibrated`; by default the bundled one, which is there for
            ``smollm2-135m`` alone.

    Raises:
        SteerError: no bundled calibration of this model, or a calibration of another.
    """
    found = calibration or next((one for one in bundled() if one.fingerprint == model.fingerprint), None)
    if found is None:
        raise SteerError(
            f"There is no bundled calibration of {model.name}, and uncalibrated likelihoods judge nothing: make one "
            "with affectlens.steering.judging.calibrated(model, texts, truth), from texts whose emotion is known."
        )
    return LikelihoodJudge(model, found)


def calibrated(
    model: LensModel, texts: Sequence[str], truth: Sequence[str], *, held_out: tuple[Sequence[str], Sequence[str]],
    source: str = "held-out texts", forms: Sequence[str] = tuple(FORMS), groups: Sequence[str] | None = None,
    unit: str = "text", progress: bool | None = None,
) -> Calibration:  # fmt: skip
    """Calibrate a model as a judge, with its record on texts that the calibration did not see.

    Args:
        model: the language model.
        texts: to calibrate on, each class about equally often.
        truth: their classes, of Plutchik's eight and ``neutral``.
        held_out: other texts and their classes, for the record.
        source: of those.
        forms: the forms whose scores are added.
        groups: the cluster of each held-out text.
        unit: what a cluster is.
        progress: show bars; by default where a person is looking.

    Raises:
        SteerError: texts that are in both lists, truths that are no classes, or an unknown form.
    """
    if both := set(texts) & set(held_out[0]):
        raise SteerError(f"{len(both)} texts are both calibrated on and held out: a record needs texts of its own.")
    if unknown := [form for form in forms if form not in FORMS]:
        raise SteerError(f"There is no form {unknown[0]!r}; there are {', '.join(FORMS)}.")
    found = calibrate(model, read_forms(model, texts, forms, progress=progress), truth)
    said = LikelihoodJudge(model, found).judge(held_out[0], progress=progress).best
    one = record(held_out[1], said, LABELS, source=source, groups=groups, unit=unit)
    return replace(found, records=(one,))
