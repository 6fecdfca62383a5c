"""``persistence``: how long after an emotional passage has ended its difference from a neutral one can still be read.

1. Directions are fitted on the passages, one a fold of whole domains, from the other domains' scenes.
2. The same neutral words follow every passage, once for each of several continuations, and each of their tokens is
   scored in the hook by the direction of its own fold, and by two sets of placebo directions.
3. Scores of the emotional passage less those of its neutral partner are taken token by token: the words are the same
   on both sides, so what differs is what the passage left behind. Continuations are averaged within a scene.
4. Placebos: unit directions drawn at random (is this direction special?), and directions refitted after the labels of
   whole scenes were flipped, whose differences flip too (is there a difference at all?). The second is exact under
   exchange of labels within scenes; the first takes no account of what cross-fitted directions have in common, so a
   claim needs both.

That emotion lasts for hundreds of tokens is a finding of arXiv 2510.04064.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.capturing import budget, plan_batches
from affectlens.errors import CaptureError
from affectlens.hooks import watch
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.probing.contexts.fading import fade
from affectlens.probing.contexts.matching import (
    Fit,
    Matched,
    Reader,
    activations_of,
    cross_fitted,
    matched,
    mean_difference,
    random_directions,
    read,
    spread,
    table_of,
)
from affectlens.probing.contexts.results import Persistence
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.store import Activations
from affectlens.texts import Texts

BETWEEN = "\n\n"
CONTINUATIONS = (
    "The town library keeps its catalogue in two parts. The first lists the books by author, the second by shelf. Each "
    "card has a number, a title and a year of printing, and one drawer is checked every Monday. Maps lie flat in the "
    "room at the back. Readers may take three volumes at a time and bring them back to the desk by the door.",
    "Concrete is mixed from cement, sand, gravel and water. The share of water sets how fast it hardens and how much "
    "weight it bears. It is poured into wooden forms in layers of about a hand's width, and each layer is shaken to "
    "let the air out. The forms stay on for a week, and the surface is kept damp under sheets of cloth.",
)


def persistence(
    model: LensModel,
    battery: Activations | Texts,
    *,
    layer: int,
    target: str = "affect",
    continuation: str | Sequence[str] = CONTINUATIONS,
    position: str = "mean",
    rung: str = "domain",
    method: Fit = mean_difference,
    draws: int = 199,
    seed: int = 0,
    token_budget: int | None = None,
    progress: bool | None = None,
) -> Persistence:
    """Score every token after a passage by directions that were fitted on other domains' passages.

    The cost is one pass up to ``layer`` over each passage with each continuation (some 180 tokens, twice) and
    ``draws`` fits a fold, which are quick for the difference of means alone. Of the activations nothing is kept: the
    scores of a continuation take ``4 * scenes * tokens * (1 + 2 * draws)`` bytes, 13 MB for 100 scenes.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: a battery, or its activations by this model with ``layer`` and ``position`` in them.
        layer: which layer's ``resid_post`` is read. One that was chosen on these same items favours the passages; the
            tokens after them were not looked at.
        target: ``affect``, or ``valence``: then directions are fitted on emotional items, and a scene's difference
            counts as negative if it is unpleasant.
        continuation: neutral words, or several; the shortest sets how many tokens are read.
        position: how passages are pooled for the fit.
        rung: what is held out whole: ``domain``, ``pair``, ``author`` or ``emotion``.
        method: fits a direction, see :func:`affectlens.probing.contexts.matching.cross_fitted`.
        draws: of each placebo; 199 can give p = 0.005.
        seed: of folds, placebos and bootstraps.
        token_budget: padded tokens a batch; see :func:`affectlens.capture`.
        progress: show a bar; by default where a person is looking.

    Returns:
        A :class:`~affectlens.probing.contexts.results.Persistence`. Differences are in standard deviations of the
        neutral passages' held-out scores.

    Raises:
        BatteryError: no scenes told both ways, or too few domains.
        CaptureError: no continuation, one that is cut into other tokens after another passage, or fewer than 19 draws.
        StoreError: activations of another model.
    """
    words = (continuation,) if isinstance(continuation, str) else tuple(continuation)
    if not words or not all(text.strip() for text in words):
        raise CaptureError("There is no continuation to read: give words, or leave the default.")
    if draws < 19:
        raise CaptureError(f"{draws} draws can't give a p below 0.05: draw at least 19, better 199.")
    frame, origin = table_of(battery, model, layer)
    pairs = matched(frame, target=target, rung=rung, seed=seed)
    site = f"L{layer}.resid_post"
    if isinstance(battery, Activations):
        x = battery[site, position][pairs.rows].astype(np.float64)
    else:
        x = activations_of(model, pairs.items, layer=layer, position=position, progress=progress)
    readers = cross_fitted(x, pairs.labels, pairs.folds, fitted=pairs.fitted, method=method)
    held = read(readers, x, pairs.folds)
    unit = float(spread(held, pairs.folds, ~pairs.emotional))
    flips = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, pairs.n))
    directions = _directions(x, pairs, readers, flips, method, seed)
    found = [
        _differences(model, pairs, after(model, pairs, text), directions, layer, token_budget, progress)
        for text in words
    ]
    n_tokens = min(one.shape[1] for one in found)
    found = [one[:, :n_tokens] for one in found]
    mean = sum(found[1:], start=found[0]) / len(found)
    meta = origin | {
        "target": target, "position": position, "rung": rung, "continuations": list(words), "n_tokens": n_tokens,
        "n_items": len(pairs.items), "n_folds": len(readers), "draws": draws, "seed": seed,
    }  # fmt: skip
    return fade(
        np.stack([one[..., 0] for one in found]).astype(np.float64) / unit,
        np.moveaxis(mean[..., 1 : 1 + draws], -1, 0).astype(np.float64),
        np.moveaxis(mean[..., 1 + draws :], -1, 0).astype(np.float64) * flips[:, :, None],
        passage=pairs.contrasts @ held / unit,
        meta=meta,
    )


def _directions(
    x: Float[np.ndarray, "item d"], pairs: Matched, readers: list[Reader], flips: Float[np.ndarray, "draw group"],
    method: Fit, seed: int,
) -> Float[np.ndarray, "fold k d"]:  # fmt: skip
    """Of each fold its own direction, the random ones, and those refitted to flipped labels."""
    random = random_directions(len(flips), x.shape[1], seed + 1)
    refitted = [
        cross_fitted(x, relabelled(pairs, flip), pairs.folds, fitted=pairs.fitted, method=method) for flip in flips
    ]
    return np.stack([
        np.concatenate([one.direction[None], random, [other[fold].direction for other in refitted]])
        for fold, one in enumerate(readers)
    ])  # fmt: skip


def relabelled(pairs: Matched, flip: Float[np.ndarray, " group"]) -> Int[np.ndarray, " item"]:
    """The items' classes once those of the scenes at -1 have changed places."""
    return np.where(flip[pairs.scenes] < 0, 1 - pairs.labels, pairs.labels)


def after(model: LensModel, pairs: Matched, words: str) -> list[tuple[Layout, Int[np.ndarray, " token"]]]:
    """Each passage with ``words`` after it, as tokens, and where those of ``words`` stand.

    Raises:
        CaptureError: if they are not the same tokens after every passage, or the context is too short.
    """
    frame = pairs.items[["id", "text"]].assign(text=pairs.items["text"] + BETWEEN + words)
    out, first = [], None
    for layout, text in zip(lay_out(model, frame), pairs.items["text"], strict=True):
        start = len(text) + len(BETWEEN)
        kept = np.flatnonzero(layout.content & layout.covers(start, start + len(words)))
        ids = [layout.ids[at] for at in kept]
        if first is not None and ids != first:
            raise CaptureError(
                f"The tokenizer of {model.name} cuts the continuation differently after item {layout.name!r} than "
                "after the others: end each passage with a full stop, and begin the continuation with a plain word."
            )
        first = ids
        out.append((layout, kept))
    return out


@torch.inference_mode()
def _differences(
    model: LensModel,
    pairs: Matched,
    laid: list[tuple[Layout, Int[np.ndarray, " token"]]],
    directions: Float[np.ndarray, "fold k d"],
    layer: int,
    token_budget: int | None,
    progress: bool | None,
) -> Float[np.ndarray, "group token k"]:
    """Of each scene and token the signed difference, emotional less neutral, along every direction of its fold."""
    contrasts = pairs.contrasts.astype(np.float32)
    out = np.zeros((pairs.n, len(laid[0][1]), directions.shape[1]), dtype=np.float32)
    aimed = torch.from_numpy(directions.astype(np.float32))
    lengths = [int(kept[-1]) + 1 for _, kept in laid]
    for batch in tracked(plan_batches(lengths, budget(model, token_budget)), "reading on", show=progress):
        ids = torch.zeros(len(batch), max(lengths[row] for row in batch), dtype=torch.long)
        for at, row in enumerate(batch):
            ids[at, : lengths[row]] = torch.tensor(laid[row][0].ids[: lengths[row]])

        def see(_site: Site, value: Tensor, batch: list[int] = batch) -> None:
            for at, row in enumerate(batch):
                tokens = value[at, torch.from_numpy(laid[row][1]).to(value.device)].float()
                scores = (tokens @ aimed[int(pairs.folds[row])].to(value.device).T).cpu().numpy()
                out[pairs.scenes[row]] += contrasts[pairs.scenes[row], row] * scores

        with model.lock, watch(model, f"L{layer}.resid_post", see, stop=True):
            model.body(input_ids=ids.to(model.device), use_cache=False)
    if not np.isfinite(out).all():
        raise CaptureError(
            f"Values at L{layer}.resid_post are not finite in {str(model.dtype).removeprefix('torch.')}: load the "
            "model in float32 or bfloat16."
        )
    return out
