"""``read_tokens``: what a probe says of each token of a text, to be looked at as a heat map.

1. Each text is one forward pass; the probe's weights and bias are applied to every token's activation by itself. A
   probe is linear, so the mean of these logits over the tokens that its position pools is the logit of the text.
2. The first token, and any whose norm is over ten times the median, are attention sinks (Xiao et al. 2024, arXiv
   2309.17453; Sun et al. 2024, arXiv 2402.17762): they are shown grey and do not stretch the scale.
3. Scores are logits, or standard deviations from the mean of a reference, such as the neutral items of a battery.
4. What is coloured are characters: see :func:`affectlens.probing.tokens.pieces.cut`.

A probe that was fitted on means is used here on what it never saw, single tokens. And a token's activation holds what
came before it: a bright word is where the probe reads, which need not be the word that says it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from affectlens.capturing import TOKEN_BUDGET, budget, plan_batches
from affectlens.errors import BatteryError, CaptureError, StoreError
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.passes import run_splitting
from affectlens.positions import Position
from affectlens.probing.probes import Probes
from affectlens.probing.tokens.scores import Scale, TextScores, TokenScores
from affectlens.progress import tracked
from affectlens.stimuli.taxonomy import canonical
from affectlens.store import Activations
from affectlens.texts import Texts, as_table

SINK = 10.0  # a norm above so many times the median of its text's is a sink's
_EVERY, _MEAN = Position("all"), Position("mean")


def read_tokens(
    probes: Probes,
    model: LensModel,
    texts: str | Texts,
    *,
    layer: int | None = None,
    method: str | None = None,
    emotion: str | None = None,
    reference: Activations | Texts | None = None,
    by_layer: bool = False,
    chat: bool = False,
    progress: bool | None = None,
) -> TokenScores:
    """The score of every token of the texts.

    Args:
        probes: fitted on this very model.
        model: from :func:`affectlens.load_model`.
        texts: one text, or what :func:`affectlens.capture` takes.
        layer: the layer that colours the text; the probes' own by default.
        method: ``logistic`` or ``mean_difference``; the first that there is by default.
        emotion: which class to show, peak names too (``grief``). By default the second of two, and of more the one that
            wins at each token, by its margin over the next.
        reference: show standard deviations from its mean instead of logits. Texts or a battery are read token by token;
            activations as they were pooled, or their tokens if they have position ``all``. Where items have a role,
            the neutral ones alone.
        by_layer: read every layer that has a probe, for :meth:`TokenScores.plot`.
        chat: make each text the user's message of a conversation.
        progress: show a bar; by default where a person is looking.

    Raises:
        StoreError: probes of another model, or a layer or method that is not there.
        BatteryError: a class that the probes don't tell apart.
        CaptureError: a text without tokens or too long for the model, or a reference that can't be one.
    """
    probes.expect(model.fingerprint, model.name)
    used = method or ("logistic" if "logistic" in probes.weights else next(iter(probes.weights)))
    where = probes.layer if layer is None else layer
    probes.at(where, used)
    layers = tuple(range(len(probes.weights[used]))) if by_layer else (where,)
    column, sign, shown = find_class(probes, emotion)
    frame = as_table([texts] if isinstance(texts, str) else texts).frame()
    if frame.empty:
        raise CaptureError("There are no texts to read: give one at least.")
    read = _read(probes, model, frame, layers, used, chat, progress)
    centre, spread, said = _against(reference, probes, model, layers, used, chat, progress)
    return TokenScores(read, probes, used, where, layers, shown, Scale(column, sign, centre, spread, said))


def find_class(probes: Probes, emotion: str | None) -> tuple[int | None, float, str]:
    """The column of logits to show, its sign, and its name.

    Raises:
        BatteryError: a class that the probes don't tell apart.
    """
    classes, k = probes.classes, next(iter(probes.weights.values())).shape[1]
    if emotion is None:
        return (0, 1.0, classes[-1] if classes else probes.target) if k == 1 else (None, 1.0, "")
    name = emotion.strip().lower()
    if name not in classes:
        same = [c for c in classes if _basic(c) == _basic(name)]
        if not same:
            raise BatteryError(
                f"The probes of {probes.target} tell {', '.join(classes)} apart, and {emotion!r} is none of these: "
                "choose one, or the probes of another target."
            )
        name = same[0]
    at = classes.index(name)
    return (0, 1.0 if at else -1.0, name) if k == 1 else (at, 1.0, name)


def _basic(name: str) -> str:
    """The basic name of an emotion; any other class as it is."""
    try:
        return canonical(name)
    except BatteryError:
        return name


def _read(
    probes: Probes, model: LensModel, frame: pd.DataFrame, layers: Sequence[int], method: str, chat: bool,
    progress: bool | None,
) -> tuple[TextScores, ...]:  # fmt: skip
    """Phase 1, a batch at a time: only logits and norms are kept."""
    layouts = lay_out(model, frame, chat=chat)
    rule = Position.parse(probes.position)
    marks = [((_MEAN if rule.ragged else rule).mask(one), _MEAN.mask(one)) for one in layouts]
    sites = model.sites.expand([f"L{layer}.{probes.site}" for layer in layers])
    weights = np.stack([probes.at(layer, method).weights for layer in layers])
    bias = np.stack([probes.at(layer, method).bias for layer in layers])
    room = min(TOKEN_BUDGET, budget(model, None)) if len(layers) > 1 else budget(model, None)
    batches, parts = plan_batches([len(one) for one in layouts], room), 1
    out: dict[int, TextScores] = {}
    for rows in tracked(batches, "reading tokens", show=progress):
        batch = [layouts[row] for row in rows]
        values, parts = run_splitting(model, batch, sites, (_EVERY,), {probes.site: list(layers)}, parts)
        x = values[probes.site]["all"].astype(np.float64)
        logits = np.einsum("tld,lkd->tlk", x, weights) + bias
        norms, at = np.linalg.norm(x, axis=-1), np.cumsum([len(one) for one in batch])[:-1]
        for row, some, size in zip(rows, np.split(logits, at), np.split(norms, at), strict=True):
            out[row] = _text(layouts[row], some, size, *marks[row])
    return tuple(out[row] for row in range(len(layouts)))


def _text(
    layout: Layout, logits: Float[np.ndarray, "pos layer k"], norms: Float[np.ndarray, "pos layer"],
    pooled: Bool[np.ndarray, "pos"], scored: Bool[np.ndarray, "pos"],
) -> TextScores:  # fmt: skip
    sinks = norms > SINK * np.median(norms[scored], axis=0)
    sinks[0] = True
    return TextScores(layout.name, layout.text, tuple(layout.spans), logits, scored, pooled, sinks)


def _against(
    given: Activations | Texts | None, probes: Probes, model: LensModel, layers: Sequence[int], method: str, chat: bool,
    progress: bool | None,
) -> tuple[np.ndarray, np.ndarray, str]:  # fmt: skip
    """Phase 3: the mean and standard deviation of a reference, ``[layer, k]``, and what it is in words."""
    shape = len(layers), probes.weights[method].shape[1]
    if given is None:
        return np.zeros(shape), np.ones(shape), ""
    if isinstance(given, Activations):
        logits, said = _of_activations(given, probes, layers, method)
    else:
        table = as_table(given)
        frame = _neutral(table.frame())
        if frame.empty:
            raise CaptureError(f"{table.name} has no items: a reference needs some.")
        read = _read(probes, model, frame, layers, method, chat, progress)
        kept = [np.where(one.sinks[..., None], np.nan, one.logits)[one.scored] for one in read]
        logits, said = np.concatenate(kept), f"the tokens of {_counted(frame, table.name)}"
    there = np.isfinite(logits).any(0).all()  # a reference may be nothing but sinks
    spread = np.nanstd(logits, axis=0) if there else np.zeros(shape)
    if not (spread > 0).all():
        raise CaptureError(f"The reference, {said}, has one score alone: give texts or items that differ.")
    return np.nanmean(logits, axis=0), spread, said


def _of_activations(
    acts: Activations, probes: Probes, layers: Sequence[int], method: str
) -> tuple[Float[np.ndarray, "row layer k"], str]:
    probes.expect(acts.fingerprint, acts.model)
    there = acts.layers.get(probes.site, ())
    if missing := [layer for layer in layers if layer not in there]:
        raise StoreError(
            f"The reference lacks {probes.site} of layer {missing[0]}, which these probes read: capture it there too."
        )
    kept = _neutral(acts.items)
    rows = acts.items.index.isin(kept.index)
    by_token = str(_EVERY) in acts.positions
    if by_token:
        rows = np.repeat(rows, np.diff(acts.offsets))
        rows[acts.offsets[:-1]] = False
    position = str(_EVERY) if by_token else probes.position
    logits = []
    for layer in layers:
        x = acts.at(position, probes.site)[rows, there.index(layer)].astype(np.float64)
        size = np.linalg.norm(x, axis=-1, keepdims=True)
        sink = by_token & (size > SINK * np.median(size)) if len(x) else size > 0
        logits.append(np.where(sink, np.nan, probes.at(layer, method)(x)))
    how = "the tokens of " if by_token else f"the {position} of "
    return np.stack(logits, axis=1), how + _counted(kept, acts.battery)


def _neutral(items: pd.DataFrame) -> pd.DataFrame:
    """The neutral items, where some have that role."""
    neutral = items[items["role"] == "neutral"] if "role" in items else items.iloc[:0]
    return items if neutral.empty else neutral


def _counted(items: pd.DataFrame, name: str) -> str:
    if "role" not in items:
        return f"{len(items)} texts"
    return f"{len(items)} {'neutral ' if (items['role'] == 'neutral').all() else ''}items of {name}"
