"""``probe``: from captured activations to a report with its floors, its controls and its intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from affectlens.errors import BatteryError
from affectlens.metrics import metric_name
from affectlens.probing import crossed, folds, targets
from affectlens.probing.fits import C_GRID
from affectlens.probing.parts import stages_of
from affectlens.probing.probes import Probes
from affectlens.probing.report import ProbeReport
from affectlens.probing.rung import score_rung
from affectlens.probing.sweep import Part, choose, refit
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
    """Probe a target at every layer, beside its lexical floors and its controls, under grouped folds.

    Args:
        acts: from :func:`affectlens.capture`.
        target: affect, category, valence, arousal, dominance, intensity, or a column of the battery
            (:mod:`affectlens.probing.targets`).
        position: which pooling to read; the first captured by default.
        rungs: of the ladder, :mod:`affectlens.probing.folds`; ``domain`` carries the headline where it applies.
        seed: of folds, bootstraps and permutations.
        source: a note on the weights, for the report.
        progress: show bars; by default where a person is looking.

    Returns:
        A :class:`ProbeReport`. The headline's layer and penalty are chosen inside each fold.

    Raises:
        BatteryError: too few classes, missing columns, or no rung that applies.
    """
    where = position or acts.positions[0]
    if "group" not in acts.items:
        acts = replace(acts, items=acts.items.assign(group=acts.items["id"]))
    if (
        acts.layers[acts.site] != tuple(range(acts.n_layers))
        or acts.at(where).ndim != 3
        or len(acts.at(where)) != len(acts)
    ):
        raise BatteryError(
            f"probe reads one vector an item at every layer from 0 on, not {acts!r}: capture sites='resid_post'."
        )
    asked = targets.select(acts.items, target)
    stages, skipped = stages_of(acts.items, asked, rungs, seed)
    alone = [rung for rung in stages if rung != "split"]  # it learns from other items than it scores
    if not alone:
        skipped |= dict.fromkeys(stages, "it stands beside another rung only")
        raise BatteryError(f"No rung applies to {target}: " + "; ".join(f"{k}: {v}" for k, v in skipped.items()) + ".")
    first = next((rung for rung in folds.HEADLINE if rung in alone), alone[-1])
    control = _control(acts, asked)
    texts = [str(text) for text in acts.items["text"]]
    scored = {}
    for rung, one in stages.items():
        bar = partial(_bar, what=f"{target}, {rung} folds", show=progress)
        partners = control if rung == first and not isinstance(control, str) else None
        try:
            scored[rung] = score_rung(
                acts.at(where), texts, one, partners=partners, headline=rung == first, seed=seed, watch=bar
            )
        except BatteryError as error:
            skipped[rung] = str(error)
    if first not in scored:
        raise BatteryError(f"No rung applies to {target}: " + "; ".join(f"{k}: {v}" for k, v in skipped.items()) + ".")
    probes = fit_all(acts, asked, where, seed)
    meta = {
        "target": target, "metric": metric_name(len(asked.classes)), "classes": list(asked.classes),
        "chance": asked.chance, "n_items": len(asked.y), "rung": first,
        "n_groups": int(asked.items["group"].nunique()), "n_layers": acts.n_layers, "d_model": acts.d_model,
        "model": acts.model, "source": source, "fingerprint": acts.fingerprint, "site": acts.site,
        "position": where, "battery": acts.battery, "battery_sha256": acts.battery_sha256, "seed": seed,
        "skipped": skipped, "skipped_controls": scored[first].skipped, "layer": probes.layer,
        "no_control": control if isinstance(control, str) else None,
    }  # fmt: skip
    report = ProbeReport(
        meta,
        pd.concat([s.scores for s in scored.values()], ignore_index=True),
        probes,
        layers=scored[first].layers,
        held_out=pd.concat([s.held_out for s in scored.values()], ignore_index=True),
    )
    return report if target != "affect" else _with_quadruples(report, acts, asked, seed)


def _with_quadruples(report: ProbeReport, acts: Activations, asked: Target, seed: int) -> ProbeReport:
    """The report with its quadruples and false alarms."""
    reading = crossed.reading_position(acts)
    readers = report.probes if reading == report.meta["position"] else fit_all(acts, asked, reading, seed)
    wins = crossed.score(acts, readers, seed=seed)
    added = {"crossed_position": reading, "crossed_layer": readers.layer, "beyond_binding": _beyond(acts, readers)}
    return report.with_tables(
        report.meta | added,
        crossed=wins,
        quadruples=crossed.each(acts, readers),
        false_alarms=false_alarms(acts, report.probes),
    )


def fit_all(acts: Activations, target: Target, position: str, seed: int) -> Probes:
    """Probes of every layer on all items of the target; the layer and each penalty by folds over groups."""
    x = np.asarray(acts.at(position)[target.rows])
    groups = np.asarray(pd.factorize(target.items["group"])[0])
    part = Part(target.rows, target.y, len(target.classes), groups, groups)
    choice = choose(x, part, np.arange(len(target.y)), seed=seed)
    fitted = {method: refit(method, x, target.y, len(target.classes), choice, C_GRID, True) for method in part.methods}
    return Probes(
        target.name, target.classes, choice.layer, acts.site, position, acts.model, acts.fingerprint,
        acts.battery, acts.battery_sha256, {m: f.weights for m, f in fitted.items()},
        {m: f.bias for m, f in fitted.items()},
    )  # fmt: skip


def false_alarms(acts: Activations, probes: Probes) -> pd.DataFrame:
    """How often items without affect, never seen in training, are called emotional by each method's chosen layer."""
    rows = []
    for method in probes.weights:
        called = probes.score(acts, method=method)[:, 0] > 0
        for role, split in (("decoy", "decoys"), ("vivid", "vivid_neutral")):
            chosen = (acts.items["role"] == role).to_numpy()
            if chosen.any():
                share = binomial(float(called[chosen].sum()), int(chosen.sum()), "item")
                rows.append({"split": split, "method": method, "layer": probes.layer, "share": share.value,
                             "low": share.low, "high": share.high, "n": share.n})  # fmt: skip
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
