"""Capture while the model writes: the state from which each token of a reply was chosen.

Row ``k`` of an item is the site at the position that predicted the reply's token ``k``: the prompt's last token for the
first, then each token of the reply as it goes in again. It is read at each step of a cached generation, so what edits
the model during it (steering, patching) is in what is read.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from affectlens.capturing import budget, flat, plan_batches
from affectlens.errors import CaptureError
from affectlens.generating import Decoding, check_fit, generate
from affectlens.hooks import watch
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.passes import out_of_memory, shapes
from affectlens.positions import Position, parse_positions
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.store import Activations
from affectlens.texts import Texts, as_table
from affectlens.types import TextTable

_POSITIONS = ("mean", "mean_from", "last", "all")


def capture_replies(
    model: LensModel,
    prompts: Texts,
    *,
    max_new_tokens: int = 32,
    sites: str | Site | Iterable[str | Site] = "resid_post",
    positions: str | Position | Iterable[str | Position] = ("mean", "last"),
    chat: bool = False,
    temperature: float = 0.0,
    seed: int = 0,
    token_budget: int | None = None,
    progress: bool | None = None,
) -> Activations:
    """Let the model write a reply to each prompt, and capture the reply's activations as it is written.

    Args:
        model: from :func:`affectlens.load_model`.
        prompts: a battery, plain texts to go on with, or conversations.
        max_new_tokens: the longest reply; it ends earlier with the model's end token, which is its last row.
        sites: as for :func:`affectlens.capture`, but for patterns.
        positions: ``mean``, ``mean_from(k)`` and ``last`` of the reply's tokens, or ``all``. A reply shorter than ``k``
            has NaN there.
        chat: make each text the user's message, in the model's own template.
        temperature: 0 takes the likeliest token; above, tokens are sampled, whatever else is in the batch.
        seed: of the sampling.
        token_budget: padded tokens a batch, the reply's included; as for :func:`affectlens.capture`.
        progress: show a bar; by default where a person is looking.

    Returns:
        :class:`Activations` whose ``items`` have the columns ``reply`` and ``n_new``; ``ids`` are the replies'.
        Nothing is kept in the store.

    Raises:
        CaptureError: as for :func:`affectlens.capture`; a reply that does not fit into the context.
    """
    table = as_table(prompts)
    wanted, rules = model.sites.expand(sites), parse_positions(positions)
    frame = table.frame()
    how = Decoding(max_new_tokens, temperature, seed=seed)
    if frame.empty:
        raise CaptureError("capture_replies needs a prompt.")
    if unfit := [str(rule) for rule in rules if rule.kind not in _POSITIONS]:
        raise CaptureError(f"Of a reply there are {', '.join(_POSITIONS)}, not {', '.join(unfit)}.")
    if late := [str(rule) for rule in rules if rule.kind == "mean_from" and int(rule.argument or 0) >= max_new_tokens]:
        raise CaptureError(f"{late[0]} begins after the longest reply, which has {max_new_tokens} tokens.")
    if any(site.kind == "pattern" for site in wanted):
        raise CaptureError("A pattern grows with each step: capture the whole text afterwards instead.")
    layouts = lay_out(model, frame, chat=chat)
    check_fit(model, layouts, max_new_tokens)
    replies: list[list[int]] = [[] for _ in layouts]
    states: list[dict[Site, np.ndarray]] = [{} for _ in layouts]
    with torch.inference_mode():
        plan = plan_batches([len(x) + max_new_tokens for x in layouts], budget(model, token_budget))
        for rows in tracked(plan, "replies", show=progress):
            written, seen = _shrinking(model, [layouts[row] for row in rows], list(rows), wanted, how)
            for at, row in enumerate(rows):
                replies[row] = written[at]
                states[row] = {
                    site: np.stack([step[at] for step in steps[: len(written[at])]]) for site, steps in seen.items()
                }
    said = [model.tokenizer.decode(reply, skip_special_tokens=True) for reply in replies]
    frame = frame.assign(reply=said, n_new=[len(reply) for reply in replies])
    return _pooled(model, table, frame, wanted, rules, replies, states)


def _shrinking(
    model: LensModel, batch: list[Layout], keys: list[int], sites: tuple[Site, ...], how: Decoding
) -> tuple[list[list[int]], dict[Site, list[np.ndarray]]]:
    """:func:`_write`, in halves where memory runs out."""
    try:
        return _write(model, batch, keys, sites, how)
    except (RuntimeError, MemoryError) as error:
        if len(batch) == 1 or not out_of_memory(error):
            raise
    half = len(batch) // 2
    (first, a), (second, b) = (
        _shrinking(model, batch[part], keys[part], sites, how) for part in (slice(half), slice(half, None))
    )
    steps = {site: max(len(a[site]), len(b[site])) for site in sites}
    blank = {site: np.zeros_like(a[site][0][:1]) for site in sites}

    def filled(part: list[np.ndarray], site: Site, n: int) -> list[np.ndarray]:
        return part + [np.repeat(blank[site], n, axis=0)] * (steps[site] - len(part))

    joined = {
        site: [
            np.concatenate(pair)
            for pair in zip(filled(a[site], site, half), filled(b[site], site, len(batch) - half), strict=True)
        ]
        for site in sites
    }
    return first + second, joined


def _write(
    model: LensModel, batch: list[Layout], keys: list[int], sites: tuple[Site, ...], how: Decoding
) -> tuple[list[list[int]], dict[Site, list[np.ndarray]]]:
    """The replies' ids, and of each site ``[step][item, ...]``."""
    seen: dict[Site, list[np.ndarray]] = {site: [] for site in sites}

    def see(site: Site, value: Tensor) -> None:
        seen[site].append(value[:, -1].float().cpu().numpy())

    with model.lock, watch(model, sites, see):
        return generate(model, batch, how, keys=keys), seen


def _pooled(
    model: LensModel,
    table: TextTable,
    frame: pd.DataFrame,
    sites: tuple[Site, ...],
    rules: tuple[Position, ...],
    replies: list[list[int]],
    states: list[dict[Site, np.ndarray]],
) -> Activations:
    texts = [
        Layout(str(name), "", reply, [(0, 0)] * len(reply), np.ones(len(reply), dtype=bool), 0)
        for name, reply in zip(frame["id"], replies, strict=True)
    ]
    ids, offsets = flat(texts)
    layers, sizes = shapes(model, sites, rules, len(texts), len(ids))
    values = {what: {p: np.empty(s, np.float32) for p, s in group.items()} for what, group in sizes.items()}
    for site in sites:
        at = layers[site.what].index(site.layer)
        for row in range(len(texts)):
            steps = states[row][site]
            for rule in rules:
                into = values[site.what][str(rule)]
                if rule.ragged:
                    into[offsets[row] : offsets[row + 1], at] = steps
                else:
                    chosen = slice(-1, None) if rule.kind == "last" else slice(int(rule.argument or 0), None)
                    into[row, at] = steps[chosen].mean(0) if len(steps[chosen]) else np.nan
    kept = {what: tuple(group) for what, group in layers.items()}
    return Activations(values, kept, frame, model.name, model.fingerprint, table.name, table.sha256, ids, offsets)
