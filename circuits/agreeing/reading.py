"""Is an emotion read at a layer? One-against-the-rest probes beside lexical floors and the neutral partners.

1. Of the emotional items, those of one emotion are told from those of the others, at every layer, by the logistic
   probe of :mod:`affectlens.probing.sweep`: whole domains are held out, penalties are chosen in inner folds.
2. The same labels and folds are given to the three lexical floors, and to the same probe on the *neutral* partners of
   the items, from which it can read only what a scene is about. The difference from the strongest floor and that from
   the partners at the same layer must both be above zero.
3. Standard errors are jackknifed over scenes and widened for the folds. p is max-T over layers, emotions and both
   controls (sup-t, Montiel Olea and Plagborg-Moller 2019), drawn with the jackknife's covariance.

Scenes, not domains, are resampled: the claim is about new scenes of these domains, read by probes that saw none of
their domain. With eight domains no cell of so many could be shown to hold in a ninth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import t as student

from affectlens.circuits.agreeing.layered import ByLayer
from affectlens.circuits.agreeing.marks import LEVEL
from affectlens.errors import BatteryError
from affectlens.probing import folds, targets
from affectlens.probing.floors import FLOORS, floor
from affectlens.probing.names import READER_NAMES
from affectlens.probing.parts import Stage, stage
from affectlens.probing.sweep import sweep
from affectlens.probing.targets import Target
from affectlens.progress import tracked
from affectlens.stats import Estimate, Statistic, estimate, jackknife, paired, shared
from affectlens.store import Activations

DRAWS = 2000
PARTNERS = "neutral_pseudo_label"


@dataclass(frozen=True)
class _Told:
    """One emotion's readers, as statistics over scenes."""

    emotion: str
    stage: Stage
    ours: list[Statistic]  # by layer
    partners: list[Statistic] | None
    floor: str
    floor_worth: Statistic

    def controls(self, row: int) -> dict[str, Statistic]:
        """What a layer's probe must beat."""
        beside = {PARTNERS: self.partners[row]} if self.partners else {}
        return {self.floor: self.floor_worth} | beside


def read_by_emotion(
    acts: Activations, *, position: str | None = None, seed: int = 0, progress: bool | None = None
) -> ByLayer:
    """Where each emotion is read, beside what words and topics give.

    Args:
        acts: from :func:`affectlens.capture`, one vector an item at some layers.
        position: which pooling to read; the first captured by default.
        seed: of folds and draws.
        progress: show a bar; by default where a person is looking.

    Returns:
        One row a layer and emotion: ``score`` (AUROC) with ``score_low, score_high``; ``value, low, high``, the
        difference from the ``control`` that is beaten least, with its 95% interval; ``floor`` (the strongest) and
        ``floor_score``; ``p_adjusted``, the larger of both controls', max-T over the table; ``n`` scenes; ``undone``:
        the score is surely above chance (max-T as well) and a control is not surely beaten.

    Raises:
        BatteryError: no two emotions, activations that are not pooled, or no folds that apply to any emotion.
    """
    where = position or acts.positions[0]
    asked = targets.select(acts.items, "category")
    values = acts.at(where)
    if values.ndim != 3 or len(values) != len(acts):
        raise BatteryError(f"read_by_emotion reads one vector an item, not {acts!r}: capture with positions=['mean'].")
    rung = next((r for r in folds.HEADLINE if not isinstance(folds.keys(asked.items, r), str)), folds.HEADLINE[-1])
    partners = _partners(acts, asked)
    texts = [str(text) for text in acts.items["text"]]
    told, skipped = [], {}
    for emotion in tracked(asked.classes, "emotions read", show=progress):
        one = _against_rest(acts.items, asked, emotion, rung, seed)
        if isinstance(one, str):
            skipped[emotion] = one
        else:
            told.append(_readers(emotion, one, values, texts, partners, seed))
    if not told:
        raise BatteryError("No emotion can be told from the rest: " + "; ".join(skipped.values()) + ".")
    meta = {
        "question": "read", "model": acts.model, "fingerprint": acts.fingerprint, "battery": acts.battery,
        "battery_sha256": acts.battery_sha256, "site": acts.site, "position": where, "rung": rung, "seed": seed,
        "partners": partners is not None, "skipped": skipped, "n_items": len(asked.y),
        "correction": "max-T over layers, emotions and controls; scenes resampled, " + f"{rung}s held out",
    }  # fmt: skip
    return ByLayer("read", _table(told, acts.layers[acts.site], seed), meta)


def _against_rest(items: pd.DataFrame, asked: Target, emotion: str, rung: str, seed: int) -> Stage | str:
    """The rung with scenes as clusters, or why it does not apply."""
    y = (asked.y == asked.classes.index(emotion)).astype(int)
    one = stage(items, replace(asked, name=emotion, y=y, classes=("other", emotion)), rung, seed=seed)
    if isinstance(one, str):
        return one
    return replace(one, clusters=np.asarray(pd.factorize(asked.items["group"])[0]), unit="scene")


def _partners(acts: Activations, asked: Target) -> Int[np.ndarray, " item"] | None:
    """Rows of the neutral partners in the target's order; None unless each item has just one."""
    neutral = acts.items[(acts.items["role"] == "neutral") & acts.items["group"].isin(asked.items["group"])]
    by_group = neutral.groupby("group").size()
    if len(by_group) < asked.items["group"].nunique() or (by_group > 1).any():
        return None
    rows = pd.Series(neutral.index.to_numpy(), index=neutral["group"])
    return rows.loc[asked.items["group"]].to_numpy()


def _readers(
    emotion: str, one: Stage, values: Float[np.ndarray, "item layer d"], texts: Sequence[str],
    partners: Int[np.ndarray, " partner"] | None, seed: int,
) -> _Told:  # fmt: skip
    part = one.part
    found = [sweep(lambda _: values, p, methods=(part.main,), seed=seed)[""].logits[part.main]
             for p in ([part] if partners is None else [part, replace(part, rows=partners)])]  # fmt: skip
    worth = [[one.worth(logits[:, row]) for row in range(values.shape[1])] for logits in found]
    floors = {name: one.worth(floor(name, list(texts), part, seed=seed)[""].headline) for name in FLOORS}
    floors["chance"] = lambda weights: np.full(len(weights), 0.5)
    best = max(floors, key=lambda name: float(floors[name](np.ones((1, one.n)))[0]))
    return _Told(emotion, one, worth[0], worth[1] if partners is not None else None, best, floors[best])


def _table(told: list[_Told], layers: Sequence[int], seed: int) -> pd.DataFrame:
    """Every cell with the control that it beats least, and p over all of them."""
    gaps: list[tuple[_Told, int, str, Estimate]] = []
    alone: list[Estimate] = []
    parts: list[np.ndarray] = []
    own_parts: list[np.ndarray] = []
    for one in told:
        own = [*one.ours, one.floor_worth, *(one.partners or ())]
        part = jackknife(own, one.stage.n) * shared(one.stage.n_folds)
        for row in range(len(one.ours)):
            alone.append(estimate(one.ours[row], one.stage.n, "scene", seed=seed, folds=one.stage.n_folds))
            own_parts.append(part[:, row])
            for number, (name, control) in enumerate(one.controls(row).items()):
                found = paired(one.ours[row], control, one.stage.n, "scene", seed=seed, folds=one.stage.n_folds)
                gaps.append((one, row, name, found))
                parts.append(part[:, row] - part[:, len(one.ours) + number * (1 + row)])
    adjusted = _corrected([gap[3] for gap in gaps], parts, 0.0, seed)
    chance = _corrected(alone, own_parts, 0.5, seed)
    rows = []
    for number, one in enumerate(told):
        for row, layer in enumerate(layers):
            score, p_score = alone[number * len(layers) + row], chance[number * len(layers) + row]
            mine = [(name, found, p) for (t, r, name, found), p in zip(gaps, adjusted, strict=True)
                    if t is one and r == row]  # fmt: skip
            name, found, _ = min(mine, key=lambda gap: gap[1].low)
            floor_score = float(one.floor_worth(np.ones((1, one.stage.n)))[0])
            undone = score.low > 0.5 and p_score <= LEVEL and any(gap.low <= 0 for _, gap, _ in mine)
            rows.append({
                "layer": int(layer), "emotion": one.emotion, "score": score.value, "score_low": score.low,
                "score_high": score.high, "floor": one.floor, "floor_score": floor_score, "value": found.value,
                "low": found.low, "high": found.high, "control": READER_NAMES.get(name, name),
                "p_adjusted": max(p for _, _, p in mine), "n": found.n, "undone": bool(undone),
                "why": f"AUROC {score}",
            })  # fmt: skip
    return pd.DataFrame(rows)


def _corrected(
    found: Sequence[Estimate], parts: Sequence[Float[np.ndarray, " cluster"]], null: float, seed: int
) -> Float[np.ndarray, " member"]:
    value = np.array([one.value - null for one in found])
    error = np.array([(one.high - one.low) / 2 / float(student.ppf(0.975, max(one.n - 1, 1))) for one in found])
    return max_t(value, np.nan_to_num(np.stack(parts, axis=1)), error, seed=seed)


def max_t(
    value: Float[np.ndarray, " member"], part: Float[np.ndarray, "cluster member"],
    error: Float[np.ndarray, " member"] | None = None, *, seed: int = 0,
) -> Float[np.ndarray, " member"]:  # fmt: skip
    """p of each value against zero, two-sided and corrected for the family, from the jackknife's parts.

    Args:
        value: of each member.
        part: by how much each cluster moves it; the squares sum to its variance.
        error: a standard error that is used where it is the larger one, as for a score at its bound, which no
            cluster moves.
        seed: of the draws.
    """
    own = np.sqrt((part**2).sum(0))
    n, rng, moved = len(part), np.random.default_rng(seed), own > 1e-9
    spread = own if error is None else np.maximum(own, np.nan_to_num(error))
    studentised = np.sqrt(rng.chisquare(max(n - 1, 1), size=(DRAWS, 1)) / max(n - 1, 1))
    every = rng.normal(size=(DRAWS, n)) @ np.where(moved, part / np.where(moved, own, 1.0), n**-0.5)
    drawn = np.abs(every / studentised).max(1)
    seen = np.where(spread > 1e-9, np.abs(value) / np.maximum(spread, 1e-9), 0.0)
    return (1 + (drawn[:, None] >= seen).sum(0)) / (1 + DRAWS)
