"""``extract``: from a model and a battery to a set of directions with their provenance.

1. Capture (from the store where it is there), and the contrast that the battery holds.
2. Fit every class at every layer of a site at once, on all items.
3. Purify, in the order given.
4. Score: 2 and 3 again without each fold of whole domains (or scenes), and read the items left out.
5. The site's median norm over tokens, and the percentiles of neutral tokens' projections.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from affectlens.capturing import capture
from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering.directions import Direction, Directions, unit
from affectlens.steering.extracting.contrasts import Contrast, LeaveOut, contrast
from affectlens.steering.extracting.methods import contrasted, fit
from affectlens.steering.extracting.norming import over_tokens, pooled_norms
from affectlens.steering.extracting.places import Place, Sites, places, wanted
from affectlens.steering.extracting.purifying import Step, purified
from affectlens.steering.extracting.scoring import held_out
from affectlens.stimuli.battery import load_battery
from affectlens.store import Activations
from affectlens.texts import Texts
from affectlens.types import Json


def extract(
    model: LensModel | Activations,
    battery: str | Path | Texts = "core",
    *,
    emotions: Sequence[str] | None = None,
    method: str = "centred",
    sites: Sites = "resid_post",
    position: str = "mean",
    against: str | None = None,
    purify: Sequence[str | np.ndarray] = (),
    label: str = "emotion",
    positive: str | None = None,
    negative: str | None = None,
    leave_out: LeaveOut | None = None,
    norms: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Directions:
    """Directions of every class at every site, each scored on groups that had no part in it.

    Args:
        model: from :func:`affectlens.load_model`; or activations of a battery, which then gives its own items.
        battery: a battery, its name, a JSONL file, or a table with a column ``text``.
        emotions: which get a direction, basic or peak words; all that the battery has if None. The others still are
            what these are contrasted with.
        method: see :mod:`affectlens.steering.extracting.methods`.
        sites: ``resid_post`` (every layer), layers as numbers, ``L12.H3``, ``L9.N17``: any that the model has. Neurons
            of one layer together make one sparse direction at ``L9.neurons``.
        position: how tokens are pooled (:mod:`affectlens.positions`).
        against: ``others`` or ``neutral`` (matched partners), where the method knows both; by default neutral for
            mean_difference and pca, others for all else.
        purify: what to take out, in order (:mod:`affectlens.steering.extracting.purifying`).
        label: the column of the classes, for an axis of your own.
        positive: the one value of it that gets a direction, against ``negative``.
        negative: the value that stands against it; all other values if None.
        leave_out: column to values: groups that hold such an item have no part in anything.
        norms: the median norm by site, if you know it; activations alone don't tell it, and then the items' is taken.
            Nor do they tell percentiles over tokens, and then those of the pooled items are taken (``levels_over``).
        seed: of folds and bootstraps.
        progress: show a bar; by default where a person is looking.

    Returns:
        One direction a class and site. ``facts`` hold the held-out ``auroc`` with its interval, the numbers of items
        and groups, what was ``left`` after purifying, and what the method found.

    Raises:
        SteerError: a method, contrast, column, class or step that is not there, or nothing left after purifying.
        SiteError: a site that the model lacks.
        CaptureError: a site or position that the activations lack.
        BatteryError: a battery that is missing or malformed.
    """
    steps = tuple(Step.of(one) for one in purify)
    acts, where = _given(model, battery, sites, position, progress)
    asked = contrast(acts.items, emotions=emotions, label=label, positive=positive, negative=negative,
                     leave_out=leave_out)  # fmt: skip
    how = contrasted(method, against, asked)
    sized = pooled_norms(acts, where, position, asked, norms)
    groups: dict[tuple[str, int], list[Place]] = {}
    for place in where:
        groups.setdefault((place.site.what, place.site.layer if place.neurons else -1), []).append(place)
    found: list[Direction] = []
    recipe: Json = {"method": method, "against": how, "seed": seed, "label": label}
    recipe |= {name: value for name, value in (("positive", positive), ("negative", negative)) if value is not None}
    if leave_out:
        recipe["leave_out"] = {
            name: [values] if isinstance(values, str) else list(values) for name, values in leave_out.items()
        }
    for group in groups.values():
        found += _directions(acts, group, asked, steps, recipe, position, sized)
    if isinstance(model, LensModel):
        found = over_tokens(model, found, acts, asked, progress)
    order = {place.site.text: i for i, place in enumerate(where)}
    return Directions(sorted(found, key=lambda d: (asked.names.index(d.emotion), order[d.site])))


def _given(
    model: LensModel | Activations, battery: str | Path | Texts, sites: Sites, position: str, progress: bool | None
) -> tuple[Activations, list[Place]]:
    if isinstance(model, Activations):
        width = model.values["neurons"][model.positions[0]].shape[-1] if "neurons" in model.values else 0
        return model, places(model, sites, width)
    if not isinstance(model, LensModel):
        raise SteerError(f"extract takes a model of load_model or activations, not {type(model).__name__}.")
    table = load_battery(battery) if isinstance(battery, str | Path) else battery
    named = wanted(sites)
    asked = model.sites.expand(named)
    stream = "resid_post" if all(site.kind == "resid_post" for site in asked) else asked
    at = ("mean", "ending") if position in ("mean", "ending") else (position,)
    acts = capture(model, table, sites=stream, positions=at, progress=progress)  # all layers: what probing stored
    neurons = [site for site in asked if site.kind == "neurons"]
    width = model.sites.shape(Site("neurons", neurons[0].layer))[0] if neurons else 0
    return acts, places(acts, named, width)


def _directions(
    acts: Activations, where: list[Place], asked: Contrast, steps: tuple[Step, ...], recipe: Json, position: str,
    norms: dict[str, tuple[float, str]],
) -> list[Direction]:  # fmt: skip
    """Those at places of one size."""
    x = np.stack([place.values(acts, position)[asked.rows] for place in where], axis=1)
    if not np.isfinite(x).all():
        raise SteerError(f"The activations at {where[0].site.what} are not all finite: is the dtype too small?")
    method, against, seed = recipe["method"], recipe["against"], recipe["seed"]
    fitted = fit(method, x, asked, against, seed=seed)
    pure = purified(fitted.vectors, steps, x, asked, seed=seed)
    scored = held_out(x, asked, method=method, against=against, steps=steps, seed=seed)
    calm = asked.baseline >= 0 if (asked.baseline >= 0).any() else asked.code >= 0
    out = []
    for i, k in enumerate(asked.asked):
        mine = (asked.code == k) | ((asked.baseline == k) if against == "neutral" else (asked.code >= 0))
        valence = asked.valence[asked.code == k]
        said = {key: value for key, value in recipe.items() if key != "method"} | {
            "n_items": int(mine.sum()), "n_groups": len(np.unique(asked.group[mine])),
            "valence": float(valence.mean()) if np.isfinite(valence).all() else None,
        }  # fmt: skip
        for j, place in enumerate(where):
            vector = unit(pure.vectors[i, j])
            norm, over = norms[place.site.text]
            facts = said | scored[i][j] | {"norm_over": over, "length": float(np.linalg.norm(fitted.vectors[i, j]))}
            facts |= {"contrast_sha256": asked.sha256, "levels_over": "items"}
            facts |= {name: float(value[i, j]) for name, value in fitted.facts.items()}
            if steps:
                facts["left"] = float(pure.left[i, j])
            if place.neurons:
                facts["neurons"] = list(place.neurons)
            out.append(Direction(
                asked.names[i], place.site.text, place.whole(vector), norm, method, acts.model, acts.fingerprint,
                acts.battery, acts.battery_sha256, position, tuple(pure.taken),
                place.whole(pure.fixed[i][j]).astype(np.float32), None,
                np.percentile(x[calm, j] @ vector.astype(np.float64), np.arange(101)).astype(np.float32), facts,
            ))  # fmt: skip
    return out
