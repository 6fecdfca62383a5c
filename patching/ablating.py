"""``ablate`` and ``knockout``: is what a site computes used?

Both texts of each pair are run with the site's values replaced, or with attention cut, and two things are told apart:

- the *true change*: of the metric's gap between the two texts, the share that is lost, and of the share of pairs that
  the metric orders right, the drop;
- the *change rate*: the share of texts whose likeliest next token is another one, which any damage can bring about.

Each ablation of values stands beside a random change of the same norm at the same place. The tokens of a verbaliser
after its first are read as they are: what is ablated is the prompt.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.ablation import AblationSweep
from affectlens.patching.choosing import runner_for
from affectlens.patching.deleting import Deleting, Plan, cut_steps, value_steps
from affectlens.patching.keeping import Kept
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair, read_of
from affectlens.patching.replacing import KINDS, Replacing
from affectlens.patching.spans import spans
from affectlens.patching.sweeping import described, facts, listed, prepared
from affectlens.patching.tabling import Given
from affectlens.patching.units import Sites, expand_sites
from affectlens.progress import tracked
from affectlens.sites import Site


def ablate(
    model: LensModel,
    pairs: Given | Sequence[PatchPair],
    sites: Sites = "attn_out",
    positions: str | Sequence[str] = "text",
    *,
    metric: Metric | Sequence[Metric],
    kind: str = "mean",
    directions: Mapping[int, np.ndarray] | None = None,
    cumulative: bool = False,
    control: bool = True,
    cue: str | None = None,
    chat: bool = False,
    seed: int = 0,
    memory: float = 1.0,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> AblationSweep:
    """Replace a site's values in both texts of every pair, and see what is left of their difference.

    Args:
        model: from :func:`affectlens.load_model`.
        pairs: as for :func:`affectlens.patching.patch`.
        sites: ``attn_out``, ``heads``, ``mlp_out``, ``L3.N17``, ``L15.F7@NAME``, or several.
        positions: ``text`` (every token but the first, which is an attention sink), ``changed``, ``shared``,
            ``ending``, ``cue``, ``last``; or several, each by itself.
        metric: one, or several.
        kind: ``zero``; ``mean`` (of other groups' texts, over the same tokens); ``resample`` (another group's text, as
            far from the end); ``direction`` (project a direction out).
        directions: for ``direction``, by layer ``[d]``, or ``[k, d]`` for a subspace; of any length.
        cumulative: ablate the first site, the first two, and so on, in the order in which they are named.
        control: also change each value by a random vector of the same norm.
        cue: what to write after each text; by default what the metrics ask for, or nothing.
        chat: make each text the user's message of a conversation.
        seed: of resampled texts and random vectors.
        memory: what a batch may take beyond the model, in GB.
        folder: where each pair's rows are kept; a folder that has some is continued.
        progress: show a bar; by default where a person is looking.

    Raises:
        PatchError: a kind or position that is none, patterns, or directions that are missing or don't fit.
    """
    if kind not in KINDS:
        raise PatchError(f"There is no ablation {kind!r}; choose from {', '.join(KINDS)} (or knockout).")
    found = expand_sites(model, sites)
    if any(site.kind == "pattern" for site in found):
        raise PatchError("Patterns are not ablated: knockout() cuts attention, and renormalises what is left.")
    if kind == "direction" and (coded := [site for site in found if site.kind == "features"]):
        raise PatchError(f"{coded[0]} is a direction itself: kind='zero' takes it out.")
    names = spans(positions)
    steps = value_steps(found, names, cumulative=cumulative)
    bases = _directions(model, found, directions) if kind == "direction" else {}
    return _run(model, pairs, Plan(kind, steps, control), bases, listed(metric), cue, chat, seed, memory, folder,
                progress, {"cumulative": cumulative, "positions": list(names)})  # fmt: skip


def knockout(
    model: LensModel,
    pairs: Given | Sequence[PatchPair],
    edges: Sequence[tuple[str, str]] = (("changed", "last"),),
    *,
    metric: Metric | Sequence[Metric],
    window: int = 1,
    heads: bool = False,
    cue: str | None = None,
    chat: bool = False,
    seed: int = 0,
    memory: float = 1.0,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> AblationSweep:
    """Forbid attention from the tokens of one span to those of another, in some layers at a time.

    Args:
        model: from :func:`affectlens.load_model`.
        pairs: as for :func:`affectlens.patching.patch`.
        edges: ``(from, to)``: information of the tokens ``from`` (as keys) can't reach those of ``to`` (as queries).
        metric: one, or several.
        window: how many layers are cut together; the one named and those after it.
        heads: cut each head by itself.
        cue: what to write after each text; by default what the metrics ask for, or nothing.
        chat: make each text the user's message of a conversation.
        seed: recorded; nothing is drawn.
        memory: what a batch may take beyond the model, in GB.
        folder: where each pair's rows are kept; a folder that has some is continued.
        progress: show a bar; by default where a person is looking.

    Raises:
        PatchError: a window or a span that is none.
    """
    if not 1 <= window <= model.n_layers:
        raise PatchError(f"window is {window}; it counts layers, so 1 to {model.n_layers}.")
    if any(isinstance(edge, str) or len(edge) != 2 for edge in edges):
        raise PatchError(f"edges is {edges!r}: give a list of pairs, for example [('changed', 'last')].")
    names = [(spans(a)[0], spans(b)[0]) for a, b in edges]
    steps = cut_steps(model, names, window=window, heads=heads)
    return _run(model, pairs, Plan("knockout", steps, False), {}, listed(metric), cue, chat, seed, memory, folder,
                progress, {"window": window, "positions": [f"{a} to {b}" for a, b in names]})  # fmt: skip


def _directions(
    model: LensModel, sites: Sequence[Site], given: Mapping[int, np.ndarray] | None
) -> dict[int, np.ndarray]:
    """An orthonormal basis a layer."""
    out = {}
    for site in sites:
        found, size = (given or {}).get(site.layer), model.sites.shape(site)
        rows = np.atleast_2d(np.zeros(0) if found is None else found).astype(np.float64)
        if rows.shape[1:] != size:
            raise PatchError(f"{site} needs a direction of {size} numbers: give directions={{{site.layer}: vector}}.")
        if not np.isfinite(rows).all() or np.linalg.matrix_rank(rows) < len(rows):
            raise PatchError(f"The directions of layer {site.layer} are zero, not finite, or not independent.")
        out[site.layer] = np.linalg.qr(rows.T)[0].T
    return out


def _run(
    model: LensModel, pairs: Given | Sequence[PatchPair], plan: Plan, bases: dict[int, np.ndarray],
    metrics: list[Metric], cue: str | None, chat: bool, seed: int, memory: float, folder: str | Path | None,
    progress: bool | None, more: dict[str, object],
) -> AblationSweep:  # fmt: skip
    ready = prepared(model, pairs, metrics, cue=cue, chat=chat)
    meta = facts(model, pairs, metrics, plan.sites, (), ready[0], seed) | more | {
        "direction": "noise", "ablation": plan.kind, "controls": ["random_change"] if plan.control else [],
        "n_pairs": len(ready), "n_steps": len(plan.steps),
    }  # fmt: skip
    runner = runner_for(model, memory=memory, generating=any(one.generate for one in metrics))
    spanned = dict.fromkeys(step.span for step in plan.steps)
    values = Replacing(plan.kind, runner, ready, plan.sites, spanned, seed, bases, model.sites.dictionaries)
    work = Deleting(runner, metrics, plan, values)
    kept = Kept(folder, meta | {
        "texts": read_of(ready), "steps": [str(step) for step in plan.steps],
        "bases": {layer: basis.tolist() for layer, basis in bases.items()},
    })  # fmt: skip
    refused = [f"{pair.name} has no tokens at {span}" for pair in ready for span in work.lacking(pair)]
    if not any(work.possible(pair) for pair in ready):
        raise PatchError(f"No pair can be ablated there: {'; '.join(refused[:3])}.")
    tables = [
        kept.get(number, partial(work.rows, pair))
        for number, pair in enumerate(tracked(ready, "ablating pairs", show=progress))
        if work.possible(pair)
    ]
    about = pd.DataFrame([described(pair, "denoise") for pair in ready])
    return AblationSweep(pd.concat(tables, ignore_index=True), about, meta | {"refused": refused})
