"""Capture: any set of sites of every text in one pass, pooled where it is computed.

1. Texts are laid out as tokens, sorted by length and batched under a budget of padded tokens. Padding is on the right,
   where causal attention makes it invisible, so no mask is built; the load check has shown that for this model.
2. The decoder's body runs, without the language-model head, and stops at the last site that is wanted.
3. Each site is reduced in its hook to one vector a text and position, so little leaves the block; with position
   ``all`` the texts' own tokens leave it, and the padding does not.
4. What comes goes into its place in the store at once, so a stopped capture goes on where it was.
"""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from jaxtyping import Int

from affectlens import store
from affectlens.errors import CaptureError
from affectlens.layouts import Layout, lay_out
from affectlens.manifests import Plan
from affectlens.model import LensModel
from affectlens.passes import run_splitting, shapes
from affectlens.positions import Position, parse_positions
from affectlens.progress import tracked
from affectlens.shards import InMemory
from affectlens.sites import Site
from affectlens.store import Activations
from affectlens.stored import opened
from affectlens.taps import foreign_hooks
from affectlens.texts import Texts, as_table
from affectlens.types import TextTable

TOKEN_BUDGET = 1024  # on a processor: larger batches are slower, as their memory is handed back and faulted in again
GPU_TOKEN_BUDGET = 16_384


def capture(
    model: LensModel,
    battery: Texts,
    *,
    sites: str | Site | Iterable[str | Site] = "resid_post",
    positions: str | Position | Iterable[str | Position] = ("mean", "ending"),
    chat: bool = False,
    token_budget: int | None = None,
    cache: bool = True,
    progress: bool | None = None,
) -> Activations:
    """Activations of every item at the sites named, pooled over tokens or token by token.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: a battery, a table with a column ``text``, plain texts, or conversations as lists of messages.
        sites: ``resid_post`` (every layer), ``L12.resid_post``, ``L12.H3``, ``N17``...: any mixture, all from the same
            pass. See :mod:`affectlens.sites`; ``print(model.sites)`` lists what the model has.
        positions: see :mod:`affectlens.positions`; the first is the default of what follows. ``all`` keeps every token.
        chat: make each text the user's message of a conversation, in the model's own template.
        token_budget: padded tokens a batch, 1,024 on a processor and 16,384 on a GPU unless given; a batch that is too
            large for memory is split.
        cache: keep and reuse results in the cache folder; an interrupted capture then continues. Not done inside
            :func:`affectlens.edit` or under hooks of your own: the store is of models as they were loaded.
        progress: show a bar; by default where a person is looking.

    Returns:
        :class:`Activations`, ``[item, layer, ...]`` in float32 for each site and position.

    Raises:
        CaptureError: no texts, a text with no tokens or longer than the model's context, a position that picks nothing.
        SiteError: a site that the model lacks.
        StoreError: no room on the disk.
    """
    table = as_table(battery)
    if not isinstance(model, LensModel):
        raise CaptureError(
            f"capture takes what load_model gives, not {type(model).__name__}: load_model(model=, tokenizer=)."
        )
    wanted, rules = model.sites.expand(sites), parse_positions(positions)
    frame = table.frame()
    if frame.empty:
        raise CaptureError(f"{table.name} has no items: there is nothing to capture.")
    layouts = lay_out(model, frame, chat=chat)
    pooled = _pooled(rules, layouts)
    ids, offsets = flat(layouts)
    plan = plan_capture(model, table, wanted, rules, layouts, token_budget)
    address = store.key(
        plan.fingerprint,
        plan.battery_sha256,
        sorted(s.text for s in wanted),
        sorted(plan.positions),
        _extra(model, wanted, ids, pooled),
    )
    place = (
        opened(store.folder(address), plan, frame, ids, offsets, progress=progress)
        if cache and _unchanged(model)
        else nullcontext(InMemory(plan, offsets))
    )
    with place as sink, _threads(sink.plan.threads):
        parts = max((line.parts for line in sink.done.values()), default=1)
        for batch in tracked(sink.missing, f"capturing {table.name}", show=progress):
            rows = [layouts[row] for row in sink.plan.batches[batch]]
            values, parts = run_splitting(model, rows, wanted, rules, plan.layers, sink.were.get(batch, parts))
            sink.write(batch, parts, values)
    layers = {what: tuple(at) for what, at in plan.layers.items()}
    there = sink.arrays()
    values = {what: {p: there[what][p] for p in group} for what, group in plan.shapes.items()}  # in the order asked
    return Activations(
        values, layers, frame, plan.model, plan.fingerprint, plan.battery, plan.battery_sha256, ids, offsets
    )


def flat(layouts: list[Layout]) -> tuple[Int[np.ndarray, "token"], Int[np.ndarray, "item_plus_one"]]:
    """All token ids, item after item, and where each item's begin."""
    ids = np.concatenate([np.asarray(layout.ids, dtype=np.int32) for layout in layouts])
    return ids, np.cumsum([0, *(len(layout) for layout in layouts)], dtype=np.int64)


def plan_capture(
    model: LensModel,
    table: TextTable,
    sites: tuple[Site, ...],
    rules: tuple[Position, ...],
    layouts: list[Layout],
    token_budget: int | None,
) -> Plan:
    """What will be captured, its shapes and its batches; also what a dry run needs to know."""
    lengths = [len(layout) for layout in layouts]
    layers, sizes = shapes(model, sites, rules, len(layouts), sum(lengths))
    return Plan(model.name, model.fingerprint, table.name, table.sha256, [str(rule) for rule in rules], layers, sizes,
                plan_batches(lengths, budget(model, token_budget)), torch.get_num_threads())  # fmt: skip


def budget(model: LensModel, asked: int | None) -> int:
    """The padded tokens of a batch: what was asked for, or what suits the model's device."""
    if asked is not None and asked < 1:
        raise CaptureError(f"token_budget is {asked}; it counts the tokens of a batch, so 1 or more.")
    return asked or (TOKEN_BUDGET if model.device.type == "cpu" else GPU_TOKEN_BUDGET)


def plan_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Rows by batch: longest first, so that a batch too large for memory shows at once; ties in the given order.

    >>> plan_batches([3, 9, 4, 8], budget=18)
    [[1, 3], [2, 0]]
    """
    plan: list[list[int]] = []
    width = 0
    for row in sorted(range(len(lengths)), key=lambda r: -lengths[r]):
        if plan and (len(plan[-1]) + 1) * width <= budget:
            plan[-1].append(row)
        else:
            plan.append([row])
            width = lengths[row]
    return plan


def _pooled(rules: tuple[Position, ...], layouts: list[Layout]) -> str:
    """A digest of which tokens each rule picks; what picks nothing is said here, before anything is computed."""
    digest = hashlib.sha256()
    for rule in sorted(rules, key=str):
        digest.update(str(rule).encode())
        for layout in layouts:
            digest.update(rule.mask(layout).tobytes())
    return digest.hexdigest()


def _unchanged(model: LensModel) -> bool:
    """Whether the model computes what it computed when it was loaded; a warning if that can't be told."""
    if not model.editing and foreign_hooks(model):
        warnings.warn(
            "Hooks that are not AffectLens's are on the model, so nothing is read from the store or kept in it.",
            stacklevel=3,
        )
        return False
    return not model.editing


def _extra(model: LensModel, sites: tuple[Site, ...], ids: np.ndarray, pooled: str) -> list[str]:
    """The tokens and what is pooled, as a template or a tokenizer may change under a model; and the dictionaries."""
    used = sorted({site.sae for site in sites if site.sae})
    return [
        hashlib.sha256(ids.tobytes()).hexdigest(),
        pooled,
        *(f"{name}={model.sites.dictionaries[name].sha256}" for name in used),
    ]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """The number of threads that the plan was made with: sums depend on it in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
