"""Transfer: trained on one kind of item, tested on another, whole domains held out on both sides.

Kinds are the splits of a battery (keyword-free and keyword-rich vignettes against the same neutrals, milder versions,
quadruples) and whole other batteries captured from the same model. On ``crossed`` the score is the share of quadruples
with d > 0, elsewhere the target's metric within folds. Each cell stands beside the same transfer of a reader of words.
For affect, two more columns give the share of decoys and of vivid neutral items that the probe calls emotional.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import BatteryError
from affectlens.metrics import average, metric, metric_name
from affectlens.probing import folds
from affectlens.probing.floors import floor
from affectlens.probing.parts import keyword_items
from affectlens.probing.sweep import Part, Sweep, sweep
from affectlens.probing.targets import Target, select
from affectlens.stats import Statistic, estimate
from affectlens.stimuli.crossing import differences, quadruples
from affectlens.store import Activations

ALARMS = ("decoys", "vivid_neutral")


@dataclass(frozen=True)
class Kind:
    """Items of one kind: rows of all tables one after another, and labels."""

    rows: Int[np.ndarray, " item"]
    y: np.ndarray


def transfer(
    acts: Activations,
    others: Sequence[Activations] = (),
    *,
    target: str = "affect",
    position: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The transfer matrix of one target.

    Args:
        acts: from :func:`affectlens.capture`.
        others: captures of other batteries by the same model.
        target: affect, category or valence.
        position: which pooling to read; the first captured by default.
        seed: of folds.

    Returns:
        One row a trained kind, tested kind and reader: ``trained, tested, reader, metric, value, low, high, n, unit``.
        The interval is the cluster interval over held-out domains (or scenes, where there are no domains).

    Raises:
        BatteryError: captures of different models, or fewer than two kinds of item.
    """
    captures = (acts, *others)
    if len({a.fingerprint for a in captures}) > 1:
        raise BatteryError(f"transfer needs captures of one model, not of {', '.join(a.model for a in captures)}.")
    where = position or acts.positions[0]
    items = pd.concat([_named(a, place) for place, a in enumerate(captures)], ignore_index=True)
    asked = select(acts.items, target)
    kinds = _kinds(captures, target)
    if len(kinds) < 2:
        raise BatteryError(
            f"transfer needs two kinds of item with target {target}; there is {next(iter(kinds), 'none')}."
        )
    codes, unit = _topics(items)
    every = np.concatenate([kind.rows for kind in kinds.values()])
    labels = np.concatenate([kind.y for kind in kinds.values()])
    first = np.unique(every, return_index=True)[1]
    fold_of = dict(zip(codes[every[first]], folds.split(codes[every[first]], labels[first], folds.OUTER, seed=seed),
                       strict=True))  # fmt: skip
    fold = np.array([fold_of.get(code, -1) for code in codes])
    n_classes = len(asked.classes)
    parts = {n: Part(k.rows, k.y, n_classes, codes[k.rows], fold[k.rows]) for n, k in kinds.items()}
    tests = parts | (_alarms(items, codes, fold) if target == "affect" else {})
    x = np.concatenate([np.asarray(a.at(where)) for a in captures]) if others else acts.at(where)
    texts = [str(text) for text in items["text"]]
    rows = []
    for trained, part in parts.items():
        if len(np.unique(part.folds[part.folds >= 0])) < 2:
            continue
        read = {
            part.main: sweep(lambda _: x, part, tests=tests, methods=(part.main,), seed=seed),
            "tfidf": floor("tfidf", texts, part, tests=tests, seed=seed),
        }
        for reader, found in read.items():
            rows += [_row(trained, name, reader, found[name], tests[name], items, codes, unit) for name in tests]
    return pd.DataFrame(rows)


def _named(acts: Activations, place: int) -> pd.DataFrame:
    """A capture's table; groups of other batteries get a name of their own."""
    return acts.items.assign(group=f"{place}: " + acts.items["group"].astype(str)) if place else acts.items


def _kinds(captures: Sequence[Activations], target: str) -> dict[str, Kind]:
    """The kinds of item that have labels of the target, by name."""
    out: dict[str, Kind] = {}
    shift = 0
    for place, acts in enumerate(captures):
        name = "" if not place else f"{acts.battery}: "
        asked = select(acts.items, target)
        out[f"{name}keyword-free"] = Kind(asked.rows + shift, asked.y)
        taught = keyword_items(acts.items, asked)
        if not isinstance(taught, str):
            out[f"{name}keyword-rich"] = Kind(taught[0] + shift, taught[1])
        if target == "affect":
            out |= {name + n: Kind(k.rows + shift, k.y) for n, k in _affect_kinds(acts.items, asked).items()}
        shift += len(acts.items)
    return out


def _affect_kinds(items: pd.DataFrame, asked: Target) -> dict[str, Kind]:
    out = {}
    neutral = asked.items[asked.items["role"] == "neutral"]
    for role in ("mild", "moderate"):
        emotional = items[(items["role"] == role) & items["group"].isin(neutral["group"])]
        partners = neutral[neutral["group"].isin(emotional["group"])]
        if len(emotional):
            rows = np.concatenate([emotional.index.to_numpy(), partners.index.to_numpy()])
            out[role] = Kind(rows, np.repeat([1, 0], [len(emotional), len(partners)]))
    cells = quadruples(items, "crossed")
    if len(cells):
        rows = np.sort(cells.ravel())
        out["crossed"] = Kind(rows, (items["role"].to_numpy()[rows] == "emotional").astype(int))
    return out


def _topics(items: pd.DataFrame) -> tuple[Int[np.ndarray, " item"], str]:
    """What is held out on both sides: domains, where all items have one, else scenes."""
    unit = (
        "domain" if "domain" in items and items["domain"].notna().all() and items["domain"].nunique() > 2 else "group"
    )
    return np.asarray(pd.factorize(items[unit])[0]), "domain" if unit == "domain" else "scene"


def _alarms(items: pd.DataFrame, codes: np.ndarray, fold: np.ndarray) -> dict[str, Part]:
    out = {}
    for role, name in zip(("decoy", "vivid"), ALARMS, strict=True):
        rows = np.flatnonzero((items["role"] == role).to_numpy() & (fold >= 0))
        if len(rows):
            out[name] = Part(rows, np.zeros(len(rows), dtype=int), 2, codes[rows], fold[rows])
    return out


def _row(
    trained: str, tested: str, reader: str, found: Sweep, part: Part, items: pd.DataFrame, codes: np.ndarray, unit: str
) -> dict[str, object]:
    logits = found.headline
    clusters = np.asarray(pd.factorize(codes[part.rows])[0])
    name, statistic = _worth(tested, logits, part, items, clusters)
    one = estimate(statistic, int(clusters.max()) + 1, unit, folds=len(np.unique(part.folds)))
    return {"trained": trained, "tested": tested, "reader": reader, "metric": name, "value": one.value,
            "low": one.low, "high": one.high, "n": one.n, "unit": one.unit}  # fmt: skip


def _worth(
    tested: str, logits: Float[np.ndarray, "item k"], part: Part, items: pd.DataFrame, clusters: np.ndarray
) -> tuple[str, Statistic]:
    if tested in ALARMS:
        return "called emotional", average((logits[:, 0] > 0).astype(float), clusters)
    if tested.endswith("crossed"):
        whole = np.full(len(items), np.nan)
        whole[part.rows] = logits[:, 0]
        cells = quadruples(items, "crossed")
        cells = cells[np.isin(cells[:, 0], part.rows)]
        d = differences(whole, cells)
        place = dict(zip(part.rows, clusters, strict=True))
        return "quadruples won", average((d > 0) + 0.5 * (d == 0), np.array([place[row] for row in cells[:, 0]]))
    return metric_name(part.n_classes), metric(logits, part.y, part.folds, clusters)
