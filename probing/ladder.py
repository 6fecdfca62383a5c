"""``probe``: from captured activations to a report with its floors, its controls and its intervals."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from affectlens.errors import BatteryError
from affectlens.metrics import metric_name
from affectlens.probing import crossed, folds, targets
from affectlens.probing.estimators import C_GRID
from affectlens.probing.probes import Probes
from affectlens.probing.report import ProbeReport
from affectlens.probing.rung import score_rung
from affectlens.probing.sweep import METHODS, choose, fit
from affectlens.probing.targets import Target
from affectlens.progress import tracked
from affectlens.stats import binomial
from affectlens.stimuli.crossing import differences, quadruples
from affectlens.store import Activations


def probe(
    acts: Activations,
    *,
    target: str = "affect",
    position: str | None = None,
    rungs: str | Sequence[str] = folds.RUNGS,
    seed: int = 0,
    source: str = "",
    progress: bool | None = None,
) -> ProbeReport:
    """Probe a target at every layer, beside its lexical floors, under grouped folds.

    Args:
        acts: from :func:`affectlens.capture`.
        target: ``affect`` (emotional against matched neutral), ``category`` (eight ways) or ``valence``.
        position: which pooling to read; the first captured by default.
        rungs: ``pair`` and ``domain``; the stricter one that applies, ``domain``, carries the headline.
        seed: of folds and bootstraps.
        source: a note on the weights, for the report.
        progress: show bars; by default where a person is looking.

    Returns:
        A :class:`ProbeReport`. The headline's layer and C are chosen inside each fold.

    Raises:
        BatteryError: fewer than two classes, missing columns, or no rung that applies.
    """
    where = position or acts.positions[0]
    if (
        acts.layers[acts.site] != tuple(range(acts.n_layers))
        or acts.at(where).ndim != 3
        or len(acts.at(where)) != len(acts)
    ):
        raise BatteryError(
            f"probe reads one vector an item at every layer from 0 on, not {acts!r}: capture sites='resid_post'."
        )
    asked = targets.select(acts.items, target)
    control = _control(acts, asked)
    wanted = (rungs,) if isinstance(rungs, str) else tuple(rungs)
    if unknown := [rung for rung in wanted if rung not in folds.RUNGS]:
        raise BatteryError(f"There is no rung {unknown[0]!r}; choose from {', '.join(folds.RUNGS)}.")
    tables: list[pd.DataFrame] = []
    skipped: dict[str, str] = {}
    for rung in folds.RUNGS:
        if rung not in wanted:
            continue
        keys = folds.keys(asked.items, rung)
        if isinstance(keys, str):
            skipped[rung] = keys
            continue
        bar = partial(_bar, what=f"{target}, {rung} folds", show=progress)
        partners = None if isinstance(control, str) else control
        try:
            tables.append(score_rung(acts.at(where), asked, partners, rung, keys, seed, bar))
        except BatteryError as error:
            skipped[rung] = str(error)
    if not tables:
        raise BatteryError(f"No rung applies to {target}: " + "; ".join(f"{k}: {v}" for k, v in skipped.items()) + ".")
    scores = pd.concat(tables, ignore_index=True)
    probes = fit_all(acts, asked, where, seed)
    meta = {
        "target": target, "metric": metric_name(len(asked.classes)), "classes": list(asked.classes),
        "chance": 0.5 if asked.binary else 1 / len(asked.classes), "n_items": len(asked.y),
        "n_groups": int(asked.items["group"].nunique()), "n_layers": acts.n_layers, "d_model": acts.d_model,
        "model": acts.model, "source": source, "fingerprint": acts.fingerprint, "site": acts.site,
        "position": where, "battery": acts.battery, "battery_sha256": acts.battery_sha256, "seed": seed,
        "skipped": skipped, "layer": probes.layer, "no_control": control if isinstance(control, str) else None,
    }  # fmt: skip
    if target != "affect":
        return ProbeReport(meta, scores, probes)
    reading = crossed.reading_position(acts)
    readers = probes if reading == where else fit_all(acts, asked, reading, seed)
    wins = crossed.score(acts, readers, seed=seed)
    beyond = _beyond(acts, readers)
    meta |= {"crossed_position": reading, "crossed_layer": readers.layer, "beyond_binding": beyond}
    return ProbeReport(meta, scores, probes, wins, false_alarms(acts, probes))


def fit_all(acts: Activations, target: Target, position: str, seed: int) -> Probes:
    """Probes of every layer on all items of the target; the layer and each C by folds over groups."""
    x = acts.at(position)[target.rows]
    groups, _ = pd.factorize(target.items["group"])
    choice = choose(x, target.y, len(target.classes), groups, seed=seed)
    fitted = [
        fit(x[:, layer], target.y, len(target.classes), C_GRID[c], scale=True) for layer, c in enumerate(choice.c)
    ]
    return Probes(
        target.name, target.classes, choice.layer, acts.site, position, acts.model, acts.fingerprint,
        acts.battery, acts.battery_sha256,
        {m: np.stack([f[m].weights for f in fitted]) for m in METHODS},
        {m: np.stack([f[m].bias for f in fitted]) for m in METHODS},
    )  # fmt: skip


def false_alarms(acts: Activations, probes: Probes) -> pd.DataFrame:
    """How often items without affect, never seen in training, are called emotional by the chosen layer's probe."""
    called = probes.score(acts)[:, 0] > 0
    rows = []
    for role, split in (("decoy", "decoys"), ("vivid", "vivid_neutral")):
        chosen = (acts.items["role"] == role).to_numpy()
        if chosen.any():
            share = binomial(float(called[chosen].sum()), int(chosen.sum()), "item")
            rows.append({"split": split, "layer": probes.layer, "share": share.value, "low": share.low,
                         "high": share.high, "n": share.n})  # fmt: skip
    return pd.DataFrame(rows)


def _control(acts: Activations, asked: Target) -> Int[np.ndarray, " row"] | str | None:
    """Rows of the neutral partners in the target's order, or why there are none; None where no control belongs."""
    if asked.name != "category":
        return None
    groups = asked.items["group"]
    neutral = acts.items[(acts.items["role"] == "neutral") & acts.items["group"].isin(groups)]
    if groups.duplicated().any() or sorted(neutral["group"]) != sorted(groups):
        return "not every emotional item has one neutral partner"
    rows = pd.Series(neutral.index.to_numpy(), index=neutral["group"]).loc[groups].to_numpy()
    if (acts.items.loc[rows, "emotion"].to_numpy() != asked.items["emotion"].to_numpy()).any():
        return "some neutral items do not carry their partner's emotion"
    return rows


def _bar(folds_: Iterable[int], what: str, show: bool | None) -> Iterable[int]:
    return tracked(list(folds_), what, show=show)


def _beyond(acts: Activations, readers: Probes) -> dict[str, Any] | None:
    rows = {split: quadruples(acts.items, split) for split in crossed.SPLITS}
    if min(len(r) for r in rows.values()) < crossed.FEWEST:
        return None
    scores = readers.score(acts)[:, 0]
    found = crossed.beyond_binding(*(differences(scores, rows[s]) for s in crossed.SPLITS))
    return {"value": found.value, "low": found.low, "high": found.high, "p": found.p, "n": found.n}
