"""Feeds by a model that reads: saved probes on the plain model, or a judge of the replies' evaluation."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from affectlens.capturing import capture
from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.sites import Site
from affectlens.steering.applying import steered_here
from affectlens.steering.dynamics.feeding import NEUTRAL, Readings, blended, points
from affectlens.steering.dynamics.state import AXES
from affectlens.steering.judging.verdicts import Judge, present
from affectlens.stimuli.taxonomy import EMOTIONS, canonical


class ProbeFeed:
    """A feed by saved probes, which read the plain model on each text by itself.

    Probes of several emotions: the sum of probabilities times coordinates. Of pleasant against unpleasant: twice the
    probability of pleasant, less 1, and no other axis.

    Args:
        model: that the probes are of.
        probes: of category or valence, or their file.

    Raises:
        StoreError: an unreadable file, or probes of another model.
        SteerError: probes of another target, or in an order.
    """

    def __init__(self, model: LensModel, probes: Probes | str | Path) -> None:
        self.model = model
        self.probes = probes if isinstance(probes, Probes) else Probes.load(probes)
        self.probes.expect(model.fingerprint, model.name)
        self.name = "probe"
        named = set(self.probes.classes)
        self._polar = named == {"pleasant", "unpleasant"}
        if not self._polar and (self.probes.main != "logistic" or not named <= {*EMOTIONS, NEUTRAL}):
            raise SteerError(
                f"These probes are of {self.probes.target} ({', '.join(self.probes.classes) or 'an order'}): a mood is "
                "fed by probes of category or of valence (affectlens probe MODEL --target category)."
            )
        self.axes: tuple[str, ...] = AXES[:1] if self._polar else AXES

    @property
    def digest(self) -> str:
        """The sha256 of the probes: where they read, their classes and weights."""
        one = self.probes
        said = sha256(repr((one.fingerprint, one.site, one.layer, one.position, one.classes, one.main)).encode())
        for kept in (one.weights, one.bias):
            for name in sorted(kept):
                said.update(name.encode() + np.ascontiguousarray(kept[name]).tobytes())
        return said.hexdigest()

    def read(self, texts: Sequence[str], *, progress: bool | None = None) -> Readings:
        """The readings of texts; an empty one is not read.

        Args:
            texts: any number.
            progress: show a bar; by default where a person is looking.

        Raises:
            SteerError: inside a ``with steer(...)`` of the model, which is not plain there.
        """
        if steered_here(self.model):
            raise SteerError("A probe's feed reads the plain model: use it outside of steer(...).")
        probabilities = np.full((len(texts), max(2, len(self.probes.classes))), np.nan)
        if rows := present(texts):
            site = Site(self.probes.site, self.probes.layer)
            acts = capture(self.model, [texts[row] for row in rows], sites=[site], positions=self.probes.position,
                           cache=False, progress=progress)  # fmt: skip
            values = acts.at(self.probes.position).reshape(len(rows), -1).astype(np.float64)
            probabilities[rows] = _softmax(self.probes.at()(values))
        if not self._polar:
            return blended(probabilities, self.probes.classes)
        values = np.full((len(texts), 3), np.nan)
        values[:, 0] = 2 * probabilities[:, self.probes.classes.index("pleasant")] - 1
        return Readings(values, np.isfinite(values[:, 0]).astype(float))


class JudgeFeed:
    """A feed by a judge's probabilities; ``coverage`` is what it gives to its classes together.

    Args:
        judge: any :class:`affectlens.steering.judging.Judge`.

    Raises:
        SteerError: a judge of none of Plutchik's emotions.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge, self.name = judge, judge.name
        self.axes: tuple[str, ...] = AXES
        points([canonical(label) if label != NEUTRAL else label for label in judge.labels])

    def read(self, texts: Sequence[str], *, progress: bool | None = None) -> Readings:
        """The readings of texts.

        Args:
            texts: any number.
            progress: show a bar; by default where a person is looking.
        """
        verdicts = self.judge.judge(list(texts), progress=progress)
        return blended(verdicts.probabilities.astype(np.float64), verdicts.labels)


def encoder_feed(*, progress: bool | None = None) -> JudgeFeed:
    """The feed by the bundled encoder judge, a sentence encoder of another family than the models that are steered.

    Args:
        progress: show a spinner while its weights are fetched; by default where a person is looking.
    """
    from affectlens.steering.judging import encoder_judge

    return JudgeFeed(encoder_judge(progress=progress))


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities; of two classes with one logit, which is the second's."""
    full = np.concatenate([np.zeros((len(logits), 1)), logits], axis=1) if logits.shape[1] == 1 else logits
    shifted = np.exp(full - full.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)
