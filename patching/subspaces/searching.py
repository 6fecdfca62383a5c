"""``das``: does a subspace of a few dimensions carry what a metric tells of two texts?

1. Groups are dealt into folds. On the other folds' pairs a subspace of each size is searched for
   (:mod:`affectlens.patching.subspaces.learning`), at the same layer and the same kind of tokens in every pair.
2. The pairs held out are run with it interchanged, beside random subspaces of the same size, the direction of the mean
   difference, the search's own control with random signs, the whole site, and the part of the subspace in which
   natural values vary (:mod:`affectlens.patching.subspaces.naturalness`).
3. The effect is the sum of the changes over the sum of the gaps: 0 nothing, 1 all of the gap.

Searching with as many free parameters as a subspace has finds what is in a model that does not use it as well, with
few pairs: what counts is the effect on pairs held out, less that of the controls.
"""

from collections.abc import Sequence

import pandas as pd

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.engine import Engine
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair, deal
from affectlens.patching.subspaces.interchange import Exchange, check_site
from affectlens.patching.subspaces.judging import described, judge, subspaces
from affectlens.patching.subspaces.learning import search
from affectlens.patching.subspaces.naturalness import Natural
from affectlens.patching.subspaces.outcomes import SubspaceSearch
from affectlens.patching.sweeping import check_direction, prepared
from affectlens.patching.tabling import Given
from affectlens.progress import tracked
from affectlens.types import Json


def das(
    model: LensModel,
    pairs: Given | Sequence[PatchPair],
    *,
    metric: Metric,
    layer: int,
    segment: str = "all",
    sizes: Sequence[int] = (1, 2, 4, 8),
    direction: str = "denoise",
    folds: int = 2,
    epochs: int = 4,
    batch: int = 2,
    rate: float = 0.2,
    turned: bool = True,
    draws: int = 5,
    cue: str | None = None,
    chat: bool = False,
    seed: int = 0,
    memory: float = 1.0,
    progress: bool | None = None,
) -> SubspaceSearch:
    """Distributed alignment search at one site, tested on groups that were held out.

    Runs of all pairs are kept while it works, some 10 MB a pair of 80 tokens on a model of 135 million parameters.

    Args:
        model: from :func:`affectlens.load_model`.
        pairs: a battery with matched pairs, tuples of a clean and a corrupt text, or prepared pairs.
        metric: what is to be moved; it must be differentiable, so it reads no generated text.
        layer: the site is the stream that leaves it.
        segment: which matched tokens (:mod:`affectlens.patching.pairs`); all have the same subspace.
        sizes: dimensions of the subspaces.
        direction: ``denoise`` brings the clean text's part into the corrupt run, ``noise`` the reverse.
        folds: how many parts the groups are dealt into; the search is done once for each.
        epochs: how often the search sees each pair.
        batch: pairs a step.
        rate: how far the first steps go, in lengths of a basis vector; it falls to zero on a line.
        turned: search the control with random signs too, which doubles the search's time.
        draws: random subspaces of each size.
        cue: what to write after each text; by default what the metric asks for, or nothing.
        chat: make each text the user's message of a conversation.
        seed: of the folds, first bases, random signs and random subspaces.
        memory: what a batch may take beyond the model, in GB.
        progress: show bars; by default where a person is looking.

    Raises:
        PatchError: a layer, segment, size or direction that does not exist, a metric that can't be followed by
            gradients, no gap in any pair, or too few groups.
        BatteryError: no pairs.
        CaptureError: texts or labels that can't be read.
    """
    job = Job(Engine(model, memory=memory), [metric], (), denoise=direction == "denoise")
    check_site(job, layer, segment, model.n_layers)
    _check(direction, sizes, model.d_model, epochs, batch, draws)
    ready = prepared(model, pairs, [metric], cue=cue, chat=chat)
    kept = [pair for pair in ready if pair.segments[segment]]
    fold_of = deal([pair.group for pair in kept], folds, least=2, seed=seed)
    turn = (lambda pair: pair) if direction == "denoise" else PatchPair.swapped
    every = [Exchange.of(job, turn(pair), layer, segment) for pair in tracked(kept, "running pairs", show=progress)]
    tables, facts, found = [], [], []
    for fold in range(folds):
        train = [one for one in every if fold_of[one.pair.group] != fold]
        held = [one for one in every if fold_of[one.pair.group] == fold]
        bases, other = search(train, sizes, epochs=epochs, batch=batch, rate=rate, turned=turned, seed=seed + fold,
                              progress=progress, what=f"searching, fold {fold + 1} of {folds}")  # fmt: skip
        natural = Natural.of(train)
        by_size = dict(zip(sizes, bases, strict=True))
        all_of = subspaces(train, natural, by_size, dict(zip(sizes, other, strict=False)), draws, seed + fold)
        tables.append(judge(held, all_of, natural, progress=progress).assign(fold=fold))
        facts.append(described(all_of, natural).assign(fold=fold))
        found.append({k: basis.cpu().double().numpy() for k, basis in by_size.items()})
    meta: Json = {
        "model": model.name, "fingerprint": model.fingerprint, "metric": metric.name, "unit": metric.unit,
        "layer": layer, "segment": segment, "sizes": list(sizes), "direction": direction, "folds": folds,
        "epochs": epochs, "batch": batch, "rate": rate, "draws": draws, "seed": seed,
        "cue": ready[0].cue, "chat": ready[0].chat, "d_model": model.d_model, "n_pairs": len(every),
        "left_out": [p.name for p in ready if not p.segments[segment]],
    }  # fmt: skip
    return SubspaceSearch(pd.concat(tables, ignore_index=True), pd.concat(facts, ignore_index=True), tuple(found), meta)


def _check(direction: str, sizes: Sequence[int], d_model: int, epochs: int, batch: int, draws: int) -> None:
    check_direction(direction)
    if not sizes or len(set(sizes)) < len(sizes) or min(sizes) < 1 or max(sizes) >= d_model:
        raise PatchError(f"sizes are {tuple(sizes)}; give different numbers of dimensions, from 1 to {d_model - 1}.")
    if min(epochs, batch, draws) < 1:
        raise PatchError(f"epochs, batch and draws are {epochs}, {batch} and {draws}; each must be 1 or more.")
