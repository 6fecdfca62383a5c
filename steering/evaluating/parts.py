"""What stands beside the directions that are evaluated: placebos, another method, heads and neurons."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from affectlens.capturing import capture
from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.directions import Directions
from affectlens.steering.extracting import extract, placebos, select_parts
from affectlens.steering.extracting.methods import METHODS
from affectlens.stimuli.battery import Battery
from affectlens.stimuli.taxonomy import EMOTIONS
from affectlens.types import Json

KINDS = {"random": "random", "shuffled": "shuffled", "orthogonal": "orthogonal", "mean": "mean_of_all"}
SELECTED = {"heads": 10, "neurons": 50}  # at most a quarter of all


def placebo_vectors(
    model: LensModel,
    directions: Directions,
    battery: Battery,
    draws: int,
    beside: int,
    seed: int,
    progress: bool | None,
) -> dict[str, np.ndarray]:
    """Unit vectors ``[draw, site, d]`` by kind of placebo.

    Args:
        model: the model.
        directions: that are evaluated.
        battery: that they were fitted on.
        draws: of random directions.
        beside: of the other kinds; with 0 they are left out.
        seed: of the draws.
        progress: show bars; by default where a person is looking.
    """
    sites = list(dict.fromkeys(d.at for d in directions))
    acts = capture(model, battery, sites=sites, positions=directions.all[0].position, progress=progress)
    wanted = {"random": draws} | ({kind: beside for kind in KINDS if kind != "random"} if beside else {})
    return {
        kind: np.stack(
            [placebos(directions, acts, kind=KINDS[kind], draws=n, site=site, seed=seed) for site in sites], axis=1
        )
        for kind, n in wanted.items()
    }


def methods_beside(directions: Directions, methods: Sequence[str]) -> list[str]:
    """Those of the other methods that are not what is evaluated already.

    Args:
        directions: that are evaluated.
        methods: as :func:`by_method` names them.
    """
    first = directions.all[0]
    return [name for name in methods if not (name == "others" and first.facts.get("against") == "others")]


def checked(directions: Directions) -> None:
    """Raise a :class:`SteerError` unless an evaluation can do all that it will do with these directions.

    Args:
        directions: to be evaluated.
    """
    if strange := [name for name in directions.emotions if name not in EMOTIONS]:
        raise SteerError(f"Judges know Plutchik's emotions; {', '.join(strange)} is none: leave it out.")
    if len(called := {d.called for d in directions}) > 1:
        raise SteerError(f"These directions are by {', '.join(sorted(called))}: evaluate one method at a time.")
    first = directions.all[0]
    if first.method not in METHODS or not first.position:
        raise SteerError(
            f"Directions by {first.method!r} can't be evaluated: what stands beside them needs one of "
            f"{', '.join(METHODS)} and the position of their activations. Extract them from a battery."
        )


def by_method(
    model: LensModel, directions: Directions, battery: Battery, method: str, seed: int, progress: bool | None
) -> Directions:
    """The same emotions at the same sites by another method, or from texts that name them.

    Args:
        model: the model.
        directions: that are evaluated.
        battery: to fit on.
        method: ``others`` contrasts emotions with each other; ``keyword`` does so too, with keyword-rich items; else
            what :func:`affectlens.steering.extracting.extract` knows.
        seed: of folds.
        progress: show bars; by default where a person is looking.
    """
    first = directions.all[0]
    sites = list(dict.fromkeys(d.at for d in directions))
    how: Json = {"emotions": directions.emotions, "sites": sites, "position": first.position, "seed": seed,
                 "norms": {d.site: d.norm for d in directions}, "progress": progress}  # fmt: skip
    if method != "keyword":
        known: Json = {"method": first.method, "against": "others"} if method == "others" else {"method": method}
        return extract(model, battery, **known, **how)
    items = battery.frame()
    rich = items[items["role"] == "keyword"].drop(columns="role")
    found = extract(model, rich, method=first.method, against="others", **how)
    return Directions(replace(d, method=f"{first.method}, keyword-rich") for d in found)


def of_parts(
    model: LensModel, directions: Directions, battery: Battery, kind: str, seed: int, progress: bool | None
) -> Directions:
    """The heads or neurons that tell each emotion apart best, selected on half of the scenes.

    Args:
        model: the model.
        directions: whose emotions are meant.
        battery: to select on.
        kind: heads or neurons.
        seed: of the halves.
        progress: show bars; by default where a person is looking.
    """
    site = "z" if kind == "heads" else "neurons"
    shapes = [model.sites.shape(one) for one in model.sites.expand(site)]
    k = max(1, min(SELECTED[kind], sum(shape[0] for shape in shapes) // 4))
    found = [
        select_parts(model, battery, emotion, kind=kind, k=k, seed=seed, progress=progress).directions
        for emotion in directions.emotions
    ]
    return Directions(one for some in found for one in some)
