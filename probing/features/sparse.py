"""k-sparse probes on a dictionary's features, under the folds, the floors and the metric of the dense probes.

In each fold the k features that the labels explain best are chosen from the training items alone, and the penalised
logistic (for an order the ridge) of the ladder is fitted to them (Gurnee et al. 2023). k and the penalty of the
headline are chosen in inner folds of the rung's own grouping, in which the features are chosen anew. Beside it under
the same folds: the dense probe on all features, the dense probe on the residual stream that the dictionary reads (the
comparison of Kantamneni et al. 2025), the lexical floors and, for the headline's rung, k random features of the same
density and k random directions of the residual stream.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float32

from affectlens.errors import BatteryError
from affectlens.metrics import metric_name
from affectlens.probing import folds, targets
from affectlens.probing.features.codes import Codes
from affectlens.probing.features.sparse_report import SparseReport
from affectlens.probing.features.sparse_rung import Inputs, score_sparse
from affectlens.probing.parts import stages_of
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.store import Activations

KS = (1, 2, 5, 10, 20, 50, 100)
RUNGS = ("pair", "domain", "author", "emotion")


def sparse_probe(
    codes: Codes,
    dense: Activations,
    *,
    target: str = "affect",
    ks: Sequence[int] = KS,
    how: str = "mean",
    position: str | None = None,
    rungs: str | Sequence[str] = RUNGS,
    seed: int = 0,
    progress: bool | None = None,
) -> SparseReport:
    """Probe a target with k features of a dictionary, beside dense probes, lexical floors and random choices.

    Args:
        codes: from :func:`affectlens.probing.features.codes.encode_battery`.
        dense: the same items' activations; the site that the dictionary reads must be among them.
        target: as for :func:`affectlens.probing.probe`.
        ks: how many features; each is scored, and the headline's is chosen inside each fold.
        how: pooling of the features: mean, max, share or ending.
        position: pooling of the activations; ``how`` where it was captured, else the first captured.
        rungs: of the ladder, :mod:`affectlens.probing.folds`; ``domain`` carries the headline where it applies.
        seed: of folds, bootstraps and draws.
        progress: show a bar; by default where a person is looking.

    Raises:
        BatteryError: other items in ``dense`` than in ``codes``, a k below 1, too few classes, no rung that applies.
        CaptureError: activations without the dictionary's site.
    """
    sizes = tuple(sorted({int(k) for k in ks}))
    if not sizes or sizes[0] < 1:
        raise BatteryError(f"ks are numbers of features from 1 on, not {list(ks)}: name some, such as 1, 10, 100.")
    inputs, where = inputs_of(codes, dense, how, position)
    asked = targets.select(inputs.items, target)
    stages, skipped = stages_of(inputs.items, asked, rungs, seed)
    alone = [rung for rung in stages if rung != "split"]  # it learns from other items than it scores
    if not alone:
        skipped |= dict.fromkeys(stages, "it stands beside another rung only")
        raise BatteryError(f"No rung applies to {target}: " + "; ".join(f"{k}: {v}" for k, v in skipped.items()) + ".")
    first = next((rung for rung in folds.HEADLINE if rung in alone), alone[-1])
    scored = {}
    for rung in tracked(list(stages), f"{target}, sparse probes", show=progress):
        try:
            scored[rung] = score_sparse(inputs, stages[rung], sizes, headline=rung == first, seed=seed)
        except BatteryError as error:
            skipped[rung] = str(error)
    if first not in scored:
        raise BatteryError(f"No rung applies to {target}: " + "; ".join(f"{k}: {v}" for k, v in skipped.items()) + ".")
    meta = {
        "target": target, "metric": metric_name(len(asked.classes)), "classes": list(asked.classes),
        "chance": asked.chance, "n_items": len(asked.y), "n_groups": int(asked.items["group"].nunique()),
        "rung": first, "ks": list(sizes), "n_features": codes.n_features, "sae": codes.sae,
        "sae_sha256": codes.sae_sha256, "site": str(codes.site), "how": how, "position": where, "model": codes.model,
        "fingerprint": codes.fingerprint, "battery": codes.battery, "battery_sha256": codes.battery_sha256,
        "seed": seed, "skipped": skipped, "skipped_controls": scored[first].skipped,
    }  # fmt: skip
    tables = {
        name: pd.concat([getattr(one, name) for one in scored.values()], ignore_index=True)
        for name in ("scores", "chosen", "held_out")
    }
    return SparseReport(meta, curve=scored[first].curve, **tables)


def inputs_of(codes: Codes, dense: Activations, how: str, position: str | None) -> tuple[Inputs, str]:
    """Features and activations of the same items, and how the activations were pooled."""
    site = Site.parse(str(codes.site))
    if dense.items["id"].tolist() != codes.items["id"].tolist() or dense.fingerprint != codes.fingerprint:
        raise BatteryError(
            f"The activations are of {len(dense)} items of {dense.battery} in {dense.model}, the features of "
            f"{len(codes.items)} items of {codes.battery} in {codes.model}: capture and encode the same battery with "
            "the same model."
        )
    where = position or (how if how in dense.positions else dense.positions[0])
    residual = np.asarray(dense[site, where])
    if len(residual) != len(codes):
        raise BatteryError(f"The activations are token by token ({where}): capture them pooled, for example by mean.")
    items = codes.items if "group" in codes.items else codes.items.assign(group=codes.items["id"])
    return Inputs(_wide(codes.pooled(how)), _wide(residual.reshape(len(residual), -1)), codes.density, items), where


def _wide(x: Float32[np.ndarray, "item d"]) -> Float32[np.ndarray, "item 1 d"]:
    return x[:, None]
