"""``formats``: whether what is read from a text survives another way of writing it down.

For each format directions are fitted on other domains' scenes in that format, and read the held-out scenes in every
format: a transfer matrix of AUROC. The diagonal is the score without transfer; what a cell lacks of its row's diagonal
is what a user of that direction loses by the format alone. Cells are many and the worst is picked afterwards, so the
intervals of drops are simultaneous. The correlation is between the scores that one direction gives the same items in
two formats, within folds.
"""

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import CaptureError
from affectlens.layouts import Message
from affectlens.metrics import auroc
from affectlens.model import LensModel
from affectlens.probing.contexts.matching import (
    Fit,
    Matched,
    activations_of,
    cross_fitted,
    matched,
    mean_difference,
    read,
    table_of,
)
from affectlens.probing.contexts.results import UNIT, Formats
from affectlens.stats import Statistic, Weights, band, estimate, less, paired
from affectlens.stimuli.lexical import sentences
from affectlens.texts import Texts
from affectlens.types import Json

Style = Callable[[str], str | list[Message]]  # messages make a conversation in the model's template
CHAT = "chat message"
STYLES: dict[str, Style] = {
    "plain": str,
    "quoted": lambda text: f'"{text}"',
    "titled": lambda text: f"# Page 12\n\n{text}",
    CHAT: lambda text: [{"role": "user", "content": text}],
    "newline": lambda text: text + "\n",
    "lower case": str.lower,
    "bullets": lambda text: "\n".join(f"- {sentence}" for sentence in sentences(text)),
}


def formats(
    model: LensModel,
    battery: Texts,
    *,
    layer: int,
    styles: Mapping[str, Style] | None = None,
    position: str = "mean",
    rung: str = "domain",
    method: Fit = mean_difference,
    seed: int = 0,
    progress: bool | None = None,
) -> Formats:
    """Fit in every format and read in every format, on held-out domains.

    The cost is one pass up to ``layer`` over every emotional and neutral item in each format.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: a battery, or a table like one.
        layer: which layer's ``resid_post`` is read.
        styles: ways to write a text, by name: from the text to another, or to messages. By default seven of ours:
            plain, quoted, titled, chat message (not where there is no chat template), newline, lower case, bullets.
        position: how tokens are pooled; quotation marks and titles are among them, a chat template's words are not.
        rung: what is held out whole: ``domain``, ``pair``, ``author`` or ``emotion``.
        method: fits a direction, see :func:`affectlens.probing.contexts.matching.cross_fitted`.
        seed: of folds and bootstraps.
        progress: show a bar; by default where a person is looking.

    Raises:
        CaptureError: fewer than two formats, or messages for a model without a chat template.
        BatteryError: no scenes told both ways, or too few domains.
    """
    ways = dict(STYLES if styles is None else styles)
    left_out = {}
    if styles is None and not getattr(model.tokenizer, "chat_template", None):
        left_out[CHAT] = f"{model.name} has no chat template"
        del ways[CHAT]
    if len(ways) < 2:
        raise CaptureError("There is no transfer between fewer than two formats: name at least two.")
    frame, origin = table_of(battery, model, layer)
    pairs = matched(frame, rung=rung, seed=seed)
    x = {
        name: activations_of(model, written(pairs.items, way), layer=layer, position=position, progress=progress)
        for name, way in ways.items()
    }
    meta = origin | {
        "formats": list(ways), "left_out": left_out, "position": position, "rung": rung, "seed": seed,
        "n_items": len(pairs.items), "n_scenes": pairs.n, "n_folds": int(pairs.folds.max()) + 1,
    }  # fmt: skip
    return Formats(meta, transfer(x, pairs, method=method, seed=seed))


def written(items: pd.DataFrame, way: Style) -> pd.DataFrame:
    """The items in one format."""
    out = [way(str(text)) for text in items["text"]]
    column = "text" if isinstance(out[0], str) else "messages"
    return items[["id", "text"]].assign(**{column: pd.Series(out, dtype=object)})


def transfer(
    x: Mapping[str, Float[np.ndarray, "item d"]], pairs: Matched, *, method: Fit = mean_difference, seed: int = 0
) -> pd.DataFrame:
    """The cells of :class:`~affectlens.probing.contexts.results.Formats` from activations by format.

    Args:
        x: activations of the same items in each format.
        pairs: the items.
        method: fits a direction.
        seed: of bootstraps.
    """
    scores: dict[tuple[str, str], np.ndarray] = {}
    for fitted, values in x.items():
        readers = cross_fitted(values, pairs.labels, pairs.folds, fitted=pairs.fitted, method=method)
        scores |= {(fitted, other): read(readers, x[other], pairs.folds) for other in x}
    k = len(np.unique(pairs.folds))
    worth = {cell: auroc(one, pairs.emotional.astype(int), pairs.folds, pairs.scenes) for cell, one in scores.items()}
    across = [(a, b) for a, b in product(x, x) if a != b]
    together = band([less(worth[a, b], worth[a, a]) for a, b in across], pairs.n, seed=seed, folds=k)
    limits = dict(zip(across, zip(together.low, together.high, strict=True), strict=True))
    rows = []
    for a, b in product(x, x):
        own = estimate(worth[a, b], pairs.n, UNIT, seed=seed, folds=k)
        row: Json = {"fitted": a, "read": b, "auroc": own.value, "low": own.low, "high": own.high}
        if a != b:
            drop = paired(worth[a, b], worth[a, a], pairs.n, UNIT, seed=seed, folds=k)
            behind = paired(worth[a, b], worth[b, b], pairs.n, UNIT, seed=seed, folds=k)
            low, high = limits[a, b]
            row |= {
                "drop": drop.value, "drop_low": min(drop.low, low), "drop_high": max(drop.high, high),
                "behind": behind.value, "behind_low": behind.low, "behind_high": behind.high,
                **alike(scores[a, a], scores[a, b], pairs, seed),
            }  # fmt: skip
        rows.append(row | {"n": pairs.n})
    return pd.DataFrame(rows)


def alike(
    one: Float[np.ndarray, " item"], other: Float[np.ndarray, " item"], pairs: Matched, seed: int
) -> dict[str, float]:
    """Pearson's correlation of two scores of the same items within folds; the interval by way of Fisher's z."""
    a, b = (_centred(values, pairs.folds) for values in (one, other))
    found = estimate(correlation(a, b, pairs.scenes), pairs.n, UNIT, seed=seed, bounds=None)
    value, low, high = (float(np.tanh(z)) for z in (found.value, found.low, found.high))
    return {"correlation": value, "correlation_low": low, "correlation_high": high}


def correlation(
    a: Float[np.ndarray, " item"], b: Float[np.ndarray, " item"], groups: Int[np.ndarray, " item"]
) -> Statistic:
    """Fisher's z of the correlation of two centred scores, as a statistic over groups."""
    sums = np.stack([np.bincount(groups, weights=w) for w in (a * b, a * a, b * b)], axis=1)

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        both, left, right = (weights @ sums).T
        r = both / np.sqrt(np.maximum(left * right, 1e-300))
        return np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))

    return statistic


def _centred(values: Float[np.ndarray, " item"], split: Int[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """The values less their fold's mean: scores of different folds come from different directions."""
    means = np.bincount(split, weights=values) / np.maximum(np.bincount(split), 1)
    return values - means[split]
