"""Prompted baselines: what a model says when it is asked, beside what a probe reads from it.

1. Each held-out item is put to the model in at least two wordings, zero-shot or after exemplars from other folds
   (:mod:`affectlens.probing.prompting.prompts`).
2. The log-probability of each label is read, nothing is generated or parsed, and so is that of each label where there
   is no text.
3. Log-probabilities are averaged over wordings, and each wording is reported too; they are calibrated and scored as a
   probe's logits (:mod:`affectlens.probing.prompting.answers`).

Cost, in tokens that the model reads: for each wording and item its text and about 40 more, and in few-shot the
exemplars once a fold, not once an item (:mod:`affectlens.probing.prompting.prefixes`); ``Asked.tokens`` counts them.
Affect on ``starter`` (64 items) with SmolLM2's template takes 13,332 tokens zero-shot, 22,466 with two exemplars a
class.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.model import LensModel
from affectlens.probing import folds as folding
from affectlens.probing.prompting.answers import Asked
from affectlens.probing.prompting.prefixes import score_lists, tokens_read
from affectlens.probing.prompting.prompts import ASKABLE, Wording, compose, exchange, exemplars, wordings
from affectlens.probing.targets import Target, select
from affectlens.readout import pool_labels
from affectlens.texts import as_table
from affectlens.types import TextTable
from affectlens.verbalisers import Prompt, check_labels, encode_prompts

HELD_OUT = ("pair", "domain", "author", "emotion")  # the rungs that never split a scene
CONTENT_FREE = ("N/A", "[MASK]", "")  # those of Zhao et al. 2021


def ask(
    model: LensModel,
    battery: TextTable | pd.DataFrame,
    target: str = "affect",
    *,
    shots: int = 0,
    rung: str = "domain",
    folds: Int[np.ndarray, " item"] | None = None,
    chat: bool | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Asked:
    """Ask a model for a target, item by item, by the log-probability of the labels.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: a battery, or its table.
        target: ``affect`` (emotional against matched neutral), ``category`` (eight ways) or ``valence``.
        shots: exemplars of each class before each item, all from outside its fold; 0 for zero-shot.
        rung: what is held out whole, ``domain``, ``pair``, ``author`` or ``emotion``, as for
            :func:`affectlens.probing.probe`.
        folds: folds of the target's items instead, whole scenes each, in their order in the battery.
        chat: use the model's chat template; by default where it has one.
        seed: of folds, exemplars and bootstraps.
        progress: show a bar; by default where a person is looking.

    Returns:
        :class:`Asked`, with ``logits()`` of shape ``[item, k]`` in nats.

    Raises:
        BatteryError: fewer than two classes, missing columns, a rung that does not apply, folds that split a scene, or
            too few scenes for the exemplars.
        CaptureError: prompts longer than the context, or no chat template where one is asked for.
        ModelError: verbalisers of several tokens on a model without a key-value cache.
    """
    if shots < 0:
        raise BatteryError(f"shots is {shots}; it counts the exemplars of each class, so 0 or more.")
    if target not in ASKABLE:
        raise BatteryError(f"There is no wording for target {target!r}; ask for one of {', '.join(ASKABLE)}.")
    asked = select(as_table(battery).frame(), target)
    if not asked.classes:
        raise BatteryError(
            f"This battery rates {target} by numbers, and only classes can be asked for: probe it instead."
        )
    fold = _folds(asked, rung, seed) if folds is None else _given(asked, folds)
    talk = bool(getattr(model.tokenizer, "chat_template", None)) if chat is None else chat
    ways = wordings(target, asked.classes)
    parts = [np.flatnonzero(fold == f) for f in np.unique(fold)] if shots else [np.arange(len(fold))]
    lists: list[list[Prompt]] = []
    for way in ways:
        for rows in parts:
            shown = exemplars(asked, fold, int(fold[rows[0]]), shots, seed=seed) if shots else np.array([], dtype=int)
            lists.append(_prompts(model, asked, way, rows, shown, talk))
    scored = iter(score_lists(model, lists, progress=progress))
    shape = (len(ways), len(fold), len(asked.classes))
    values, free = np.empty(shape), np.empty(shape)
    for w, way in enumerate(ways):
        for rows in parts:
            found = _pooled(next(scored), way)
            values[w, rows], free[w, rows] = found[: len(rows)], found[len(rows) :].mean(0)
    tokens = sum(tokens_read(prompts) for prompts in lists)
    names = tuple(way.name for way in ways)
    return Asked(asked, fold, values, free, names, shots, talk, tokens, model.name, seed)


def _prompts(
    model: LensModel, asked: Target, way: Wording, rows: np.ndarray, shown: np.ndarray, chat: bool
) -> list[Prompt]:
    """The prompts of these items, then those of the content-free texts, after the same exemplars."""
    texts, ids = [str(t) for t in asked.items["text"]], [str(i) for i in asked.items["id"]]
    before = [exchange(way, texts[i], asked.classes[asked.y[i]], chat=chat) for i in shown]
    names = [ids[i] for i in rows] + [f"content-free {text!r}" for text in CONTENT_FREE]
    talks = [
        [*before, exchange(way, text, None, chat=chat)] for text in ([texts[i] for i in rows] + list(CONTENT_FREE))
    ]
    pairs = check_labels(way.verbalisers(chat))
    return encode_prompts(model, compose(names, talks, chat=chat), [text for _, text in pairs])


def _pooled(scored: torch.Tensor, way: Wording) -> Float[np.ndarray, "item label"]:
    labels = list(way.words)
    owners = [labels.index(label) for label, words in way.words.items() for _ in range(2 * len(words))]
    return pool_labels(scored, owners).numpy()


def _folds(asked: Target, rung: str, seed: int) -> Int[np.ndarray, " item"]:
    if rung not in HELD_OUT:
        raise BatteryError(f"There is no rung {rung!r} to ask under; choose from {', '.join(HELD_OUT)}.")
    keys = folding.keys(asked.items, rung, target=asked.name)
    if isinstance(keys, str):
        raise BatteryError(f"The {rung} rung does not apply to {asked.name}: {keys}; give another rung, or folds.")
    try:
        return folding.split(keys, asked.y, folding.OUTER, seed=seed)
    except BatteryError as error:
        raise BatteryError(f"The {rung} rung does not apply to {asked.name}: {error}; give another.") from None


def _given(asked: Target, folds: Int[np.ndarray, " item"]) -> Int[np.ndarray, " item"]:
    if len(folds) != len(asked.y):
        raise BatteryError(f"There are {len(folds)} folds for {len(asked.y)} items of {asked.name}: give one an item.")
    if (pd.Series(folds).groupby(asked.items["group"].to_numpy()).nunique() > 1).any():
        raise BatteryError("These folds split a scene: give all items of a group the same fold.")
    return folds
