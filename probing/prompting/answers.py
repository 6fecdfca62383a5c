"""What a model answered: label log-probabilities of items, calibrated, scored as probes are scored.

Labels have a probability before any text is read. It is taken off in one of two ways, both a constant a label in
log-probability, so that a bias of the model towards a label cancels exactly.

``batch`` subtracts each label's mean over the items that met the same prompt, without their labels: all items in
zero-shot, a fold's in few-shot (Zhou et al. 2024, arXiv:2309.17249). ``contextual`` subtracts what the label gets where
the text is "N/A", "[MASK]" or empty (Zhao et al. 2021, arXiv:2102.09690; they average probabilities, here logarithms
are averaged, since a constant a label then cancels). ``raw`` subtracts nothing.

``batch`` is the default, because a bias after stories is best measured on stories: after no text it can have the other
sign. It is rough where a fold has few items; ``contextual``, in which items don't touch one another, is better there.

Scores are within-fold AUROC for two classes and balanced accuracy for more. AUROC compares items that met one prompt,
so no calibration moves it. The balanced accuracy of the sign, which calibration does move, stands beside it.
"""

from dataclasses import asdict, dataclass, replace
from html import escape

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.metrics import accuracy, metric, metric_name
from affectlens.probing.targets import Target
from affectlens.stats import AT_BOUND, Estimate, Statistic, binomial, estimate

CALIBRATIONS = ("batch", "contextual", "raw")  # the first is the default
MEAN = "mean"  # of the wordings
UNITS = {"scene": "group", "domain": "domain"}


@dataclass(frozen=True, eq=False, repr=False)
class Asked:
    """What a model answered about a target's items.

    Attributes:
        target: the items, in order, with their labels and classes.
        folds: of the items.
        logprobs: log P(label | prompt), natural, over the whole vocabulary.
        free: the same for content-free texts, averaged, under the prompt of the item's fold.
        wordings: their names, in order.
        shots: exemplars of each class.
        chat: whether the chat template was used.
        tokens: that the model read, verbalisers not counted.
        model: the model's name.
        seed: of exemplars and bootstraps.
    """

    target: Target
    folds: Int[np.ndarray, " item"]
    logprobs: Float[np.ndarray, "wording item label"]
    free: Float[np.ndarray, "wording item label"]
    wordings: tuple[str, ...]
    shots: int
    chat: bool
    tokens: int
    model: str
    seed: int

    def mass(self, wording: str = MEAN) -> Float[np.ndarray, " item"]:
        """The probability of all labels together: how much of the answer they cover.

        Args:
            wording: one of :attr:`wordings`, or ``mean`` of them.
        """
        return np.exp(self.logprobs[self._chosen(wording)]).sum(2).mean(0)

    def calibrated(self, calibration: str = CALIBRATIONS[0], wording: str = MEAN) -> Float[np.ndarray, "item label"]:
        """log P(label | prompt) less what the label has without the text.

        Args:
            calibration: ``batch``, ``contextual`` or ``raw``.
            wording: one of :attr:`wordings`, or ``mean`` of them.

        Raises:
            BatteryError: an unknown calibration or wording.
        """
        chosen = self._chosen(wording)
        values = self.logprobs[chosen].mean(0)
        if calibration == "contextual":
            return values - self.free[chosen].mean(0)
        if calibration == "batch":
            met = self.folds if self.shots else np.zeros_like(self.folds)
            return values - np.stack([values[met == prompt].mean(0) for prompt in met])
        if calibration != "raw":
            raise BatteryError(f"There is no calibration {calibration!r}; choose from {', '.join(CALIBRATIONS)}.")
        return values

    def logits(self, calibration: str = CALIBRATIONS[0], wording: str = MEAN) -> Float[np.ndarray, "item k"]:
        """Logits as probes give them: one column of log-odds of the second class for two, a column a class for more.

        Args:
            calibration: ``batch``, ``contextual`` or ``raw``.
            wording: one of :attr:`wordings`, or ``mean`` of them.
        """
        values = self.calibrated(calibration, wording)
        return values[:, 1:] - values[:, :1] if self.target.binary else values

    def statistic(
        self, calibration: str = CALIBRATIONS[0], wording: str = MEAN, *, unit: str = "scene", sign: bool = False
    ) -> Statistic:
        """The score as a function of cluster weights, to subtract from a probe's under the same folds.

        Args:
            calibration: ``batch``, ``contextual`` or ``raw``.
            wording: one of :attr:`wordings`, or ``mean`` of them.
            unit: what is resampled, ``scene`` or ``domain``.
            sign: of two classes, the balanced accuracy of the sign instead of the AUROC.
        """
        logits, (clusters, _) = self.logits(calibration, wording), self._clusters(unit)
        if sign and self.target.binary:
            return accuracy(np.hstack([np.zeros_like(logits), logits]), self.target.y, clusters)
        return metric(logits, self.target.y, self.folds, clusters)

    def estimate(
        self, calibration: str = CALIBRATIONS[0], wording: str = MEAN, *, unit: str = "scene", sign: bool = False
    ) -> Estimate:
        """The score with its interval.

        Args:
            calibration: ``batch``, ``contextual`` or ``raw``.
            wording: one of :attr:`wordings`, or ``mean`` of them.
            unit: what is resampled: whole scenes, as for probes, or whole domains, of which there are few.
            sign: of two classes, the balanced accuracy of the sign instead of the AUROC.

        Returns:
            An estimate over scenes or domains. A model that gives all items one answer has the same balanced accuracy
            in every resample; its interval is what the exact binomial limits of each class allow.
        """
        statistic = self.statistic(calibration, wording, unit=unit, sign=sign)
        found = estimate(statistic, self._clusters(unit)[1], unit, seed=self.seed)
        if found.low < found.high:
            return found
        size = np.bincount(self.target.y)
        may = binomial(0.0, int(size.min()), unit).high  # the share that none of so many may hide
        low, high = found.value - may / len(size), found.value + may * (1 - 1 / len(size))
        return replace(found, low=low, high=high, method=AT_BOUND)

    def frame(self, *, unit: str = "scene") -> pd.DataFrame:
        """One row a wording, calibration and metric, the mean of the wordings first.

        Columns: target, shots, wording, calibration, metric, value, low, high, n, unit, method, mass (the median over
        items of the labels' probability together).

        Args:
            unit: what is resampled, ``scene`` or ``domain``.
        """
        rows = []
        for wording in (MEAN, *self.wordings):
            mass = float(np.median(self.mass(wording)))
            for calibration in CALIBRATIONS:
                for sign in (False, True) if self.target.binary else (False,):
                    found = asdict(self.estimate(calibration, wording, unit=unit, sign=sign))
                    name = "balanced accuracy" if sign else metric_name(len(self.target.classes))
                    first = {"target": self.target.name, "shots": self.shots, "wording": wording}
                    kept = {k: found[k] for k in ("value", "low", "high", "n", "unit", "method")}
                    rows.append(first | {"calibration": calibration, "metric": name} | kept | {"mass": mass})
        return pd.DataFrame(rows)

    def _chosen(self, wording: str) -> list[int]:
        if wording != MEAN and wording not in self.wordings:
            raise BatteryError(f"There is no wording {wording!r}; choose from {', '.join((MEAN, *self.wordings))}.")
        return [i for i, name in enumerate(self.wordings) if wording in (MEAN, name)]

    def _clusters(self, unit: str) -> tuple[Int[np.ndarray, " item"], int]:
        if unit not in UNITS or self.target.items[UNITS[unit]].isna().any():
            raise BatteryError(f"Intervals resample whole scenes or domains that every item has, not {unit!r}.")
        codes, names = pd.factorize(self.target.items[UNITS[unit]])
        return codes, len(names)

    def __repr__(self) -> str:
        classes = self.target.classes
        found, chance = self.estimate(), 0.5 if self.target.binary else 1 / len(classes)
        verdict = "above chance" if found.low > chance else "below chance" if found.high < chance else "at chance"
        shots = f"{self.shots} exemplars of each class" if self.shots else "no exemplars"
        each = ", ".join(f"{name} {self.estimate(wording=name)}" for name in self.wordings)
        return (
            f"Asked for {self.target.name} with {shots}, {self.model} answers with {metric_name(len(classes))} "
            f"{found}, {verdict} ({chance:.3g}); by wording {each}. {CALIBRATIONS[0].capitalize()} calibration, "
            f"{len(self.target.y)} items in {found.n} scenes; the labels hold {np.median(self.mass()):.2g} of the "
            f"model's probability (median); {self.tokens} tokens read."
        )

    def _repr_html_(self) -> str:
        table = self.frame().to_html(index=False, border=0, float_format="{:.2f}".format)
        return f"<p>{escape(repr(self))}</p>{table}"
