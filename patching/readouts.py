"""Metrics that read an emotion off the residual stream, by directions and probes that were fitted on other groups.

A direction fitted on the very pairs that are patched would show their own difference, whatever it is of. So groups are
dealt into folds, and each pair is read by what was fitted without the folds of both its texts.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from affectlens.capturing import capture
from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.metrics import Metric, Reading, Values
from affectlens.patching.pairs import deal
from affectlens.positions import Position
from affectlens.probing.fits import logistic, mean_difference
from affectlens.probing.linear import Linear
from affectlens.probing.targets import Target, select
from affectlens.types import TextTable

Fit = Callable[[Float[np.ndarray, "item 1 d"], np.ndarray, int], Linear]
METHODS: dict[str, Fit] = {
    "mean_difference": mean_difference,
    "logistic": lambda x, y, k: logistic(x, y, k, np.array([[0.01]]))[0],
}


def readout(
    model: LensModel,
    battery: TextTable,
    target: str = "affect",
    *,
    layer: int,
    position: str = "mean",
    method: str = "mean_difference",
    cue: str = "",
    chat: bool = False,
    folds: int = 8,
    seed: int = 0,
    progress: bool | None = None,
) -> Metric:
    """The projection of the pooled stream on a direction, or a probe's logit, fitted on other groups than the pair's.

    For two classes the value is the second one's (emotional, pleasant); for ``category``, that of the pair's emotion
    less the log-sum-exp of the others'. ``valence`` is turned to the clean text's sign, so that clean is expected above
    corrupt. Pairs of groups that are not in the battery are read by what was fitted on all of it.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: what to fit on; its groups are never split.
        target: ``affect``, ``category``, ``valence``, or a column of classes.
        layer: whose ``resid_post`` is read; a patch above it changes nothing.
        position: how tokens are pooled (:mod:`affectlens.positions`); with a cue, its tokens count too.
        method: ``mean_difference`` (a unit direction) or ``logistic`` (C = 0.01 on standardised activations).
        cue: what the sweep writes after each text; the texts are captured with it.
        chat: make each text the user's message of a conversation, as the sweep does.
        folds: how many parts the groups are dealt into.
        seed: of the dealing.
        progress: show bars.

    Raises:
        PatchError: an unknown method, fewer than two folds, or a target without classes.
        SiteError: a layer that the model lacks.
        BatteryError: a target that the battery has no items for.
    """
    if method not in METHODS:
        raise PatchError(f"There is no method {method!r}; choose from {', '.join(METHODS)}.")
    items = battery.frame()
    question = select(items, target)
    if question.ordered:
        raise PatchError(f"{target} is an order here, and a read-out needs classes: affect, category, valence.")
    groups = items["group"].astype(str).to_numpy()[question.rows].tolist()
    fold_of = deal(groups, folds, seed=seed)
    given = items.assign(text=items["text"] + cue) if cue else battery
    acts = capture(model, given, sites=f"L{layer}.resid_post", positions=position, chat=chat, progress=progress)
    x = np.asarray(acts.at(position), dtype=np.float64)[question.rows]
    fold = np.array([fold_of[group] for group in groups])
    rule = Position.parse(position)

    @cache
    def without(left_out: frozenset[int]) -> Linear:
        return _fit(method, x, question, ~np.isin(fold, list(left_out)))

    def value(reading: Reading) -> Values:
        sides = (reading.pair.clean, reading.pair.corrupt)
        mine = frozenset(
            fold_of[group] for group in (reading.pair.group, *(s.group for s in sides)) if group in fold_of
        )
        return _oriented(_apply(without(mine), reading.pooled(layer, rule)), question, reading)

    said = "projection" if method == "mean_difference" else "logit"
    settings = f"{target} {layer} {position} {method} {cue!r} {chat} {folds} {seed}"
    name = f"{target} {said} at L{layer}.resid_post ({position})"
    return Metric(name, value, unit="norm" if method == "mean_difference" else "logits", layers=frozenset({layer}),
                  key=f"{model.fingerprint} {battery.sha256} {settings}",
                  cue=cue, chat=chat)  # fmt: skip


def _fit(method: str, x: Float[np.ndarray, "item 1 d"], question: Target, rows: np.ndarray) -> Linear:
    return METHODS[method](x[rows], question.y[rows], len(question.classes)).at(0)


def _apply(fit: Linear, x: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row k"]:
    weights, bias = (torch.from_numpy(part).to(x.device) for part in (fit.weights, fit.bias))
    return x.double() @ weights.double().T + bias.double()


def _oriented(logits: Float[torch.Tensor, "row k"], question: Target, reading: Reading) -> Values:
    """One number a row, expected higher in the clean text."""
    if len(question.classes) > 2:
        own = reading.pair.emotion if question.name == "category" else reading.side.emotion
        if own not in question.classes:
            raise PatchError(f"{reading.side.name} is of {own!r}, which is none of {', '.join(question.classes)}.")
        at = question.classes.index(str(own))
        others = torch.cat((logits[:, :at], logits[:, at + 1 :]), dim=1)
        return logits[:, at] - others.logsumexp(-1)
    value = logits[:, 0]
    if question.name != "valence":
        return value
    if not reading.pair.valence:
        raise PatchError(f"{reading.pair.name} is neither pleasant nor unpleasant: leave it out.")
    return reading.pair.valence * value
