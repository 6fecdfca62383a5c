"""``erase``: take a concept out of the residual stream and see what is still read of it, and whether the model minds.

Erasers are fitted on training groups alone and applied to groups held out: whole domains where the battery has them,
else whole scenes. Erasers are affine, so pooled activations of erased tokens are erased pooled activations: what a run
lacks at every token is what the readers lacked. Single tokens vary more, and otherwise, than pooled activations do, so
the least change of these may be a large one of those: the loss says how large, and ``shrinkage`` bounds it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from affectlens.capturing import capture
from affectlens.errors import BatteryError, PatchError
from affectlens.metrics import metric_name
from affectlens.model import LensModel
from affectlens.pairing import matched_pairs
from affectlens.patching.engine import Engine
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair, encode
from affectlens.patching.subspaces.erasure import Erasure, read_scores, use_scores
from affectlens.patching.subspaces.leace import Leace
from affectlens.patching.subspaces.ratios import tells
from affectlens.patching.subspaces.rereading import reread
from affectlens.patching.subspaces.scrubbing import begin, fit_through
from affectlens.patching.subspaces.using import use
from affectlens.patching.sweeping import prepared
from affectlens.positions import Position
from affectlens.probing.parts import Stage, stage
from affectlens.probing.targets import select
from affectlens.progress import tracked
from affectlens.texts import as_table
from affectlens.types import Json, TextTable

RUNGS = ("domain", "pair")  # the first that applies
TOGETHER_CAPTURED = ("mean", "ending")  # the capture that probing makes and keeps
CONTRAST = "emotional/neutral"


def erase(
    model: LensModel,
    battery: TextTable,
    target: str = "affect",
    *,
    layers: Sequence[int] | None = None,
    position: str = "mean",
    metric: Metric | None = None,
    pairs: Sequence[PatchPair] | None = None,
    cue: str | None = None,
    chat: bool = False,
    together: bool = False,
    n_pairs: int = 64,
    draws: int = 5,
    shrinkage: float = 0.1,
    network: bool = True,
    seed: int = 0,
    memory: float = 1.0,
    progress: bool | None = None,
) -> Erasure:
    """Erase a target with LEACE, read it again, and with a metric run the model without it.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: its items are what erasers and readers are fitted on.
        target: see :mod:`affectlens.probing.targets`.
        layers: whose ``resid_post`` is changed; by default those at a quarter, a half and three quarters of the depth.
        position: how tokens are pooled for erasers and readers.
        metric: what the model is asked while it runs; without one, the first question alone is answered.
        pairs: prepared pairs of the battery's texts to run; by default emotional against neutral texts of the target.
        cue: what to write after each text of these; by default what the metric asks for, or nothing.
        chat: make each text the user's message of a conversation.
        together: in the runs, erase at all layers at once, each eraser fitted on the stream that the lower ones leave;
            every training text is then run through the layers once a fold.
        n_pairs: how many pairs are run at most, as many of each fold as possible.
        draws: random subspaces.
        shrinkage: of the erasers' covariance (:meth:`affectlens.patching.subspaces.leace.Leace.fit`); 0 is LEACE as
            published, whose change of single tokens may be large enough to damage the model.
        network: read with a small network too.
        seed: of folds, halves, subspaces and the choice of pairs.
        memory: what a batch of runs may take beyond the model, in GB.
        progress: show bars; by default where a person is looking.

    Raises:
        PatchError: a layer that does not exist, fewer than one draw, or no pair of the target's groups.
        BatteryError: a target that the battery can't answer, or groups that can't be held out.
        CaptureError: texts or labels that can't be read.
    """
    chosen = _layers(model, layers)
    if draws < 1 or n_pairs < 1:
        raise PatchError(f"draws and n_pairs are {draws} and {n_pairs}; each must be 1 or more.")
    items = battery.frame()
    question = _stage(items, target, seed)
    positions = TOGETHER_CAPTURED if position in TOGETHER_CAPTURED else position
    acts = capture(model, battery, positions=positions, chat=chat, progress=progress)
    x = np.asarray(acts.at(position)[question.part.rows][:, chosen], dtype=np.float64)
    logits = reread(x, question, shrinkage=shrinkage, draws=draws, network=network, seed=seed, progress=progress)
    scores, runs = read_scores(logits, question, chosen), pd.DataFrame()
    part = question.part
    meta: Json = {
        "model": model.name, "fingerprint": model.fingerprint, "battery": battery.name, "target": target,
        "layers": chosen, "position": position, "rung": question.rung, "folds": question.n_folds,
        "n_items": len(part.y), "rank": Leace.fit(x[:, 0], part.y).rank, "d_model": model.d_model,
        "measure": metric_name(part.n_classes), "chance": question.asked.chance, "draws": draws,
        "shrinkage": shrinkage, "together": together, "seed": seed,
    }  # fmt: skip
    if metric is not None:
        engine = Engine(model, memory=memory)
        job, fold_of = (
            Job(engine, [metric], ()),
            dict(zip(question.asked.items["group"], part.folds.tolist(), strict=True)),
        )
        ready = _pairs(model, battery, metric, pairs, fold_of, n_pairs, seed, cue=cue, chat=chat)
        fitted = (
            _through(engine, question, chosen, position, shrinkage, chat=chat, progress=progress)
            if together
            else _alone(x, question, chosen, shrinkage)
        )
        erasers = {pair.group: fitted[fold_of[pair.group]] for pair in ready}
        runs = use(engine, job, ready, erasers, together=together, draws=draws, seed=seed, progress=progress)
        used, gap = use_scores(runs, question.n_folds)
        scores = pd.concat([scores, used], ignore_index=True)
        meta |= {"metric": metric.name, "metric_unit": metric.unit, "n_pairs": len(ready),
                 "cue": ready[0].cue, "chat": ready[0].chat,
                 "gap": [gap.value, gap.low, gap.high], "n_groups": gap.n, "normalised": tells(gap)}  # fmt: skip
    return Erasure(scores, runs, meta)


def _layers(model: LensModel, layers: Sequence[int] | None) -> list[int]:
    n = model.n_layers
    chosen = sorted({n // 4, n // 2, 3 * n // 4}) if layers is None else sorted(set(layers))
    if not chosen or chosen[0] < 0 or chosen[-1] >= n:
        raise PatchError(f"layers are {chosen}; {model.name} has layers 0 to {n - 1}.")
    return chosen


def _stage(items: pd.DataFrame, target: str, seed: int) -> Stage:
    asked = select(items, target)
    reasons = []
    for rung in RUNGS:
        found = stage(items, asked, rung, seed=seed)
        if isinstance(found, Stage):
            return found
        reasons.append(f"{rung}: {found}")
    raise BatteryError(f"Nothing can be held out of {target} here ({'; '.join(reasons)}).")


def _alone(x: np.ndarray, question: Stage, layers: Sequence[int], shrinkage: float) -> dict[int, dict[int, Leace]]:
    """Of each fold, the erasers fitted on the others."""
    folds, y = question.part.folds, question.part.y
    return {
        int(fold): {layer: Leace.fit(x[folds != fold, i], y[folds != fold], shrinkage=shrinkage)
                    for i, layer in enumerate(layers)}
        for fold in np.unique(folds)
    }  # fmt: skip


def _through(
    engine: Engine, question: Stage, layers: Sequence[int], position: str, shrinkage: float, *, chat: bool,
    progress: bool | None,
) -> dict[int, dict[int, Leace]]:  # fmt: skip
    items, rule = question.asked.items, Position.parse(position)
    layouts, prompts = encode(engine.model, items, chat=chat)
    every = list(zip(prompts, layouts, strict=True))
    texts = [begin(engine, p, lay, layers[0], rule) for p, lay in tracked(every, "running texts", show=progress)]
    folds, out = question.part.folds, {}
    for fold in tracked(np.unique(folds).tolist(), "fitting erasers", show=progress):
        train = np.flatnonzero(folds != fold)
        out[int(fold)] = fit_through(engine, [texts[i] for i in train], question.part.y[train], layers,
                                     shrinkage=shrinkage)  # fmt: skip
    return out


def _pairs(
    model: LensModel, battery: TextTable, metric: Metric, given: Sequence[PatchPair] | None, fold_of: dict[str, int],
    most: int, seed: int, *, cue: str | None, chat: bool,
) -> list[PatchPair]:  # fmt: skip
    """The pairs to run: of groups that some eraser has not seen."""
    if given is not None:
        known = [pair for pair in given if pair.group in fold_of]
        chosen = [known[i] for i in _evenly([fold_of[pair.group] for pair in known], most, seed)]
        return prepared(model, chosen, [metric], cue=cue, chat=chat)
    rows = matched_pairs(battery)
    rows = rows[(rows["contrast"] == CONTRAST) & rows["group"].isin(set(fold_of))]
    rows = rows.iloc[_evenly([fold_of[group] for group in rows["group"]], most, seed)]
    frame = battery.frame()
    texts = frame[frame["id"].isin(set(rows["a"]) | set(rows["b"]))].reset_index(drop=True)
    ready = prepared(model, as_table(texts), [metric], cue=cue, chat=chat)
    return [pair for pair in ready if pair.contrast == CONTRAST]


def _evenly(folds: Sequence[int], most: int, seed: int) -> list[int]:
    """Up to ``most`` of these, at random, as many of each fold as there are."""
    if not folds:
        raise PatchError("No pair is of the target's groups, so none can be run with erasers that have not seen it.")
    order = pd.Series(folds).sample(frac=1, random_state=seed)
    return sorted(order.groupby(order).cumcount().sort_values(kind="stable").index[:most])
