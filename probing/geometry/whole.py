"""The geometry of emotion in a model's activations, in one call."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd

from affectlens.errors import BatteryError, CaptureError
from affectlens.probing.geometry.axes import axis_table, cosine_table
from affectlens.probing.geometry.carriers import word_means
from affectlens.probing.geometry.circle import Circumplex, circumplex
from affectlens.probing.geometry.clusters import silhouettes
from affectlens.probing.geometry.dendrograms import linkages, tree_agreement
from affectlens.probing.geometry.directions import Directions
from affectlens.probing.geometry.floors import lexical
from affectlens.probing.geometry.kernels import cka
from affectlens.probing.geometry.models import Norms, models, norm_contrast, trees
from affectlens.probing.geometry.nulls import DRAWS
from affectlens.probing.geometry.relating import rsa, rsa_curve
from affectlens.probing.geometry.report import GeometryReport
from affectlens.probing.geometry.scenes import agreement, means
from affectlens.store import Activations
from affectlens.types import Json

Tables = dict[str, pd.DataFrame]


@contextmanager
def _one_thread() -> Iterator[None]:
    """No threads in NumPy's products: there are many and they are small, so threads wait more than they compute."""
    with import_module("threadpoolctl").threadpool_limits(limits=1):  # comes with scikit-learn; has no types
        yield


@_one_thread()
def geometry(
    acts: Activations,
    *,
    layer: int | None = None,
    terms: Activations | None = None,
    against: Activations | None = None,
    position: str | None = None,
    terms_position: str | None = None,
    site: str | None = None,
    norms: Norms | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> GeometryReport:
    """Directions, their similarity to what people and theories say, their clusters, and how layers and models compare.

    Every analysis is made at every layer, p corrected over layers by max-T, and beside it on vectors of words alone.

    Args:
        acts: pooled activations of a battery.
        layer: the layer that sentences and pictures speak of, fixed before anything is seen; by default the one at two
            thirds of those captured.
        terms: activations of :func:`affectlens.probing.geometry.terms` in the same model: the geometry of emotion
            words, of which the nouns are kept.
        against: activations of the same battery in another model, for CKA.
        position: of the battery's activations; the first captured by default.
        terms_position: of the terms'; the first captured by default.
        site: a name without its layer; the first captured by default.
        norms: valence, arousal and dominance by name; the Glasgow Norms by default.
        seed: of every random order.
        draws: random orders of names where there are more than eight.

    Returns:
        A report that prints and draws itself; every number is a row of one of its ``tables``.

    Raises:
        BatteryError: too few emotions have scenes with neutral partners.
        CaptureError: ``layer`` was not captured, ``terms`` are of another model, or ``against`` is of other items.
    """
    emotions = means(acts, position=position, site=site)
    chosen = emotions.layers[round(2 / 3 * (len(emotions.layers) - 1))] if layer is None else layer
    sets = [(emotions, means(lexical(acts)))]
    if chosen not in emotions.layers:
        raise CaptureError(f"Layer {chosen} was not captured; there are {list(emotions.layers)}.")
    if terms is not None:
        if terms.fingerprint != acts.fingerprint:
            raise CaptureError(f"The terms are of {terms.model} and the battery of {acts.model}: capture both in one.")
        words = word_means(terms, position=terms_position, site=site)
        if chosen not in words.layers:
            raise CaptureError(f"Layer {chosen} was not captured of the terms; there are {list(words.layers)}.")
        sets.append((words, word_means(lexical(terms))))
    notes: dict[str, str] = {}
    parts = [part for pair in sets for part in _shape(*pair, chosen, norms, seed, draws, notes)]
    parts += list(_clusters(*sets[0], seed))
    parts.append(("cka", cka(acts, position=position, site=site, seed=seed).assign(models=acts.model)))
    for rows in ("items", "scenes") if against is not None else ():
        found = cka(acts, against, rows=rows, position=position, site=site, seed=seed)
        parts.append(("cka", found.assign(models=f"{acts.model} and {against.model}" if against else "")))
    names = list(dict.fromkeys(name for name, _ in parts))
    tables = {name: pd.concat([t for n, t in parts if n == name and not t.empty], ignore_index=True) for name in names
              if any(n == name and not t.empty for n, t in parts)}  # fmt: skip
    meta: Json = {
        **emotions.about, "fingerprint": acts.fingerprint, "battery_sha256": acts.battery_sha256, "layer": chosen,
        "layers": list(emotions.layers), "emotions": list(emotions.names), "scenes": len(emotions.table),
        "terms": len(sets[1][0].names) if terms is not None else 0, "against": against.model if against else "",
        "carriers": sets[1][0].about["carriers"] if terms is not None else 0, "seed": seed, "draws": draws,
        "notes": notes,
    }  # fmt: skip
    return GeometryReport(meta, tables)


def _shape(
    ours: Directions, floor: Directions, layer: int, norms: Norms | None, seed: int, draws: int, notes: dict[str, str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Everything that is asked of a set of directions, whether of emotions or of words, and of its floor."""
    try:
        contrast = ours.valence_contrast() if ours.kind == "emotions" else norm_contrast(ours.names, norms)
    except BatteryError as error:
        contrast, notes[f"valence axis of {ours.kind}"] = None, str(error)
    found, skipped = models(ours.names, norms)
    notes |= {f"{what} of {ours.kind}": why for what, why in (skipped | trees(ours.names)[1]).items()}
    yield "cosines", cosine_table(ours, contrast) if ours.kind == "emotions" else pd.DataFrame()
    for one, kind in ((ours, "model"), (floor, "floor")):
        yield "reliability", one.reliability().assign(kind=kind)
        if contrast is not None:
            yield "axis", axis_table(one, contrast, seed=seed, draws=draws).assign(kind=kind)
        yield "trees", tree_agreement(one, seed=seed, draws=draws).assign(kind=kind)
        if found:
            yield "rsa", rsa(one, norms=norms, seed=seed, draws=draws).assign(kind=kind)
        if (circle := _circle(one, norms, seed, draws, notes)) is not None:
            yield "circumplex", circle.table.assign(kind=kind)
            yield "coordinates", circle.coordinates.assign(kind=kind)
    if found:
        gaps = rsa_curve(ours, found).less(rsa_curve(floor, found), ours.layers.index(layer))
        table = gaps.rows(replace(ours, layers=(layer,)), [m.name for m in found], [None] * len(found), "model",
                          [-2.0] * len(found))  # fmt: skip
        yield "differences", table.drop(columns=["p", "p_adjusted", "attainable"])
    yield (
        "linkage",
        pd.DataFrame(linkages(ours, layer), columns=["left", "right", "height", "size"]).assign(
            set=ours.kind, names=["|".join(ours.names)] + [""] * (len(ours.names) - 2)
        ),
    )


def _circle(
    directions: Directions, norms: Norms | None, seed: int, draws: int, notes: dict[str, str]
) -> Circumplex | None:
    try:
        return circumplex(directions, norms=norms, seed=seed, draws=draws)
    except BatteryError as error:
        notes[f"circumplex of {directions.kind}"] = str(error)
        return None


def _clusters(ours: Directions, floor: Directions, seed: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """Whether scenes of an emotion agree and lie together."""
    for one, kind in ((ours, "model"), (floor, "floor")):
        yield "agreement", agreement(one, seed=seed).assign(kind=kind)
        yield "silhouettes", silhouettes(one, seed=seed).assign(kind=kind)
        if np.abs(one.table["valence"]).sum() > 0:
            try:
                yield "silhouettes", silhouettes(one.without_valence(), seed=seed).assign(kind=kind)
            except BatteryError:
                continue  # the reason stands in the notes on the valence axis
