"""``feature_effects``: what a model loses, or gains, when single features are set to another value.

1. Read every text once: how often each feature is active, how strongly, at which tokens.
2. Draw placebos of each feature's frequency and size (:mod:`affectlens.patching.features.matching`).
3. Run both texts of each pair with each edit, from the dictionary's layer on, the reconstruction error kept. An edit
   that changes no token, because the feature is not active there, is not run: it changes nothing.
4. Judge each feature by the same statistic of its placebos, and of random directions of the same norm.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.choosing import runner_for
from affectlens.patching.features.editing import DIRECTION, FEATURE, PLACEBO, TOGETHER, Edits, Step
from affectlens.patching.features.matching import matched
from affectlens.patching.features.outcome import FeatureEffects
from affectlens.patching.features.surveying import Survey, survey
from affectlens.patching.features.working import Working
from affectlens.patching.keeping import Kept
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair, read_of
from affectlens.patching.spans import spans
from affectlens.patching.sweeping import facts, listed, prepared
from affectlens.patching.tabling import Given
from affectlens.probing.sae import Sae
from affectlens.progress import tracked

KINDS = ("ablate", "clamp")
PERCENTILE = 95.0


def feature_effects(
    model: LensModel,
    sae: Sae,
    features: Sequence[int],
    pairs: Given | Sequence[PatchPair],
    *,
    metric: Metric | Sequence[Metric],
    kind: str = "ablate",
    to: float | int | str | None = None,
    positions: str = "text",
    placebos: int = 20,
    directions: int | None = None,
    placed: Collection[int] = (),
    cue: str | None = None,
    chat: bool = False,
    seed: int = 0,
    memory: float = 1.0,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> FeatureEffects:
    """Edit each feature, and all together, in both texts of every pair, beside placebo features.

    Args:
        model: from :func:`affectlens.load_model`.
        sae: the dictionary, from :func:`affectlens.load_sae`.
        features: their numbers in it.
        pairs: a battery, whose matched pairs are taken, or prepared pairs, as for :func:`affectlens.patching.patch`.
        metric: one, or several; a read-out must read the dictionary's layer or a later one.
        kind: ``ablate`` sets activations to zero, ``clamp`` to another value, at every token of the span.
        to: of ``clamp``: a number; or ``p99``, that percentile of each feature's own activation where it is active in
            the emotional texts, which is ``p95`` if nothing is given.
        positions: ``text`` (every token but the first), or another span (:mod:`affectlens.patching.spans`).
        placebos: features of the same frequency and size, for each feature; the same edit is made of them.
        directions: random directions of the same norm, for each feature; as many as placebos if None.
        placed: other features that may not serve as placebos, for example all that respond to an emotion.
        cue: what to write after each text; by default what the metrics ask for, or nothing.
        chat: make each text the user's message of a conversation.
        seed: of placebos, directions and bootstrap.
        memory: what a batch may take beyond the model, in GB.
        folder: where each pair's rows are kept; a folder that has some is continued.
        progress: show bars; by default where a person is looking.

    Raises:
        PatchError: features that the dictionary lacks or that are active nowhere, a kind, value or position that is
            none, or too few features to draw placebos from.
        SiteError: a dictionary of another model's size.
    """
    chosen, percentile = _checked(sae, features, kind, to, placebos, directions)
    (span,) = spans(positions)
    sae.check_fits(model)
    metrics = listed(metric)
    ready = prepared(model, pairs, metrics, cue=cue, chat=chat)
    runner = runner_for(model, memory=memory, generating=any(one.generate for one in metrics))
    seen = survey(runner, sae, ready, span, progress=progress)
    own = percentile is not None
    chosen, silent = _active(chosen, seen, own)
    drawn = matched(seen.density, seen.mean, chosen, placebos, placed=placed, seed=seed,
                    allowed=seen.somewhere_emotional() if own else None)  # fmt: skip
    steps = _steps(chosen, drawn, placebos if directions is None else directions)
    levels = _levels(steps, seen, 0.0 if kind == "ablate" else to, percentile)
    aim = "0" if kind == "ablate" else str("p95" if to is None else to)
    random = placebos if directions is None else directions
    meta = facts(model, pairs, metrics, [sae.site], (span,), ready[0], seed) | {
        "sae": sae.name, "sae_sha256": sae.sha256, "kind": kind, "to": aim, "features": chosen, "silent": silent,
        "placebos": placebos, "directions": random, "placed": sorted({int(one) for one in placed}),
        "n_pairs": len(ready), "median_norm": seen.norm,
    }  # fmt: skip
    work = Working(runner, metrics, Edits(sae, levels, model.sites.shape(sae.site), seed), steps, span)
    kept = Kept(folder, meta | {"texts": read_of(ready), "levels": [levels[f] for s in steps for f in s.edited]})
    tables = [
        kept.get(number, partial(work.rows, pair))
        for number, pair in enumerate(tracked(ready, "editing features", show=progress))
    ]
    told = pd.DataFrame({"feature": chosen, "density": seen.density[chosen], "mean": seen.mean[chosen],
                         "to": [levels[one] for one in chosen]})  # fmt: skip
    return FeatureEffects(pd.concat(tables, ignore_index=True), told, drawn, meta)


def _active(chosen: list[int], seen: Survey, emotional: bool) -> tuple[list[int], list[int]]:
    """The features that these texts (their emotional ones) make active, and the others; all of them if none is."""
    there = seen.density > 0 if not emotional else seen.somewhere_emotional()
    some = [one for one in chosen if there[one]]
    return (some, [one for one in chosen if not there[one]]) if some else (chosen, [])


def _checked(
    sae: Sae, features: Sequence[int], kind: str, to: float | int | str | None, placebos: int, directions: int | None
) -> tuple[list[int], float | None]:
    """The features, and the percentile that each is clamped to, if it is one."""
    chosen = [int(one) for one in features]
    if kind not in KINDS:
        raise PatchError(f"There is no kind {kind!r}; choose from {', '.join(KINDS)}.")
    if not chosen or len(set(chosen)) < len(chosen):
        raise PatchError(f"features is {chosen}: name at least one, each once.")
    if odd := [one for one in chosen if not 0 <= one < sae.n_features]:
        raise PatchError(f"{sae.name} has no feature {odd[0]}; it has 0 to {sae.n_features - 1}.")
    if placebos < 1 or (directions is not None and directions < 0):
        raise PatchError(f"placebos={placebos}, directions={directions}: at least one placebo, and no fewer than none.")
    if kind == "ablate":
        if to is not None:
            raise PatchError(f"to={to!r} is for kind='clamp': an ablation sets activations to zero.")
        return chosen, None
    if to is None:
        return chosen, PERCENTILE
    if isinstance(to, str):
        number = to.removeprefix("p")
        if to == number or not number.replace(".", "", 1).isdigit() or not 0 <= float(number) <= 100:
            raise PatchError(f"to={to!r} is neither a number nor a percentile such as p95.")
        return chosen, float(number)
    if not np.isfinite(to):
        raise PatchError(f"to={to} is not finite: give an activation, or a percentile such as p95.")
    return chosen, None


def _steps(features: Sequence[int], drawn: pd.DataFrame, directions: int) -> list[Step]:
    """Each feature with its placebos and directions, then all together; a set's k-th placebo is of k-th placebos."""
    by_draw: Mapping[tuple[int, int], int] = {
        (int(f), int(k)): int(one)
        for f, k, one in drawn[["feature", "draw", "placebo"]].itertuples(index=False)
    }  # fmt: skip
    groups = [(one, (one,)) for one in features] + ([(TOGETHER, tuple(features))] if len(features) > 1 else [])
    out = []
    for name, members in groups:
        out.append(Step(FEATURE, name, -1, members))
        draws = range(int(drawn["draw"].max()) + 1)
        out += [Step(PLACEBO, name, k, tuple(by_draw[one, k] for one in members)) for k in draws]
        out += [Step(DIRECTION, name, k, members) for k in range(directions)]
    return out


def _levels(
    steps: Sequence[Step], seen: Survey, to: float | int | str | None, percentile: float | None
) -> dict[int, float]:
    every = dict.fromkeys(one for step in steps for one in step.edited)
    if percentile is not None:
        return {one: seen.level(one, percentile) for one in every}
    assert isinstance(to, float | int)
    return dict.fromkeys(every, float(to))
