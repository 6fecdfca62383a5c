"""``modulation_of``: a circuit's parts with their means over training scenes; ``modulate``: every pass with them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from affectlens.capturing import capture
from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.modulating.modulation import Modulation
from affectlens.circuits.modulating.parts import Parts, chosen, effects_of, weights_of, whole
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.steering.applying import Steering, steer
from affectlens.steering.directions import spelled
from affectlens.stimuli.battery import Battery, load_battery


def modulation_of(
    model: LensModel,
    parts: Parts,
    *,
    emotion: str | None = None,
    battery: str | Path | Battery = "core",
    groups: Sequence[str] | None = None,
    top: int | None = None,
    weigh: str = "equal",
    signed: bool = False,
    progress: bool | None = None,
) -> Modulation:
    """The parts with their mean activations over an emotion's training scenes and over their neutral partners.

    A mean is over items, an item's over its tokens without the sequence's first, which is an attention sink.

    Parts that oppose are scaled as all others by default: a circuit's opposers are part of what it computes, gain 0 is
    then the mean ablation of the circuit as a whole, and signs of small effects are not sure. ``signed`` moves them the
    other way: gain 1.5 is 0.5 for them.

    Args:
        model: from :func:`affectlens.load_model`.
        parts: a circuit graph, effects by name (``{"L12.H3": 0.4}``), or names.
        emotion: basic or peak word; by default a graph's own.
        battery: where the scenes come from.
        groups: the training scenes by name; all of the emotion if None.
        top: only so many parts, those of the largest absolute effect.
        weigh: ``equal``, or ``effect``: a part's weight is its absolute effect over the largest.
        signed: negative effects have weights below zero.
        progress: show a bar; by default where a person is looking.

    Raises:
        CircuitError: parts that can't be modulated, no emotion, or no scenes of it; a graph of another model.
        SiteError: a part that the model lacks.
    """
    if isinstance(parts, CircuitGraph):
        emotion = emotion or parts.meta.get("emotion")
        if parts.meta.get("fingerprint", model.fingerprint) != model.fingerprint:
            raise CircuitError(f"This graph was found in {parts.meta.get('model')}, not in {model.name}.")
    if not emotion:
        raise CircuitError("No emotion is named, and the means are of its scenes: give emotion=.")
    effects = chosen(effects_of(parts), top)
    for part in effects:
        model.sites.find(part)
    name = spelled(emotion)
    table = load_battery(battery) if isinstance(battery, str | Path) else battery
    scenes = training(table, name, groups)
    whole_sites = dict.fromkeys(whole(part) for part in effects)
    kinds = {site.kind for site in whole_sites} & {"mlp_out", "attn_out"}  # a placebo is one of another layer
    sites = (
        [*(s for s in whole_sites if s.kind not in kinds), *model.sites.expand(sorted(kinds))]
        if kinds
        else [*whole_sites]
    )
    acts = capture(model, scenes, sites=sites, positions="mean", progress=progress)
    shows = (acts.items["role"] == "emotional").to_numpy()
    neutral, target = (
        {str(site): np.asarray(acts[site][rows], dtype=np.float64).mean(0).astype(np.float32) for site in sites}
        for rows in (~shows, shows)
    )
    values = np.array([*effects.values()])
    return Modulation(
        name, tuple(map(str, effects)), values, weights_of(values.tolist(), weigh, signed), neutral, target,
        model=model.name, fingerprint=model.fingerprint, battery=table.name, battery_sha256=table.sha256,
        groups=tuple(dict.fromkeys(scenes["group"].astype(str))),
        facts={"weigh": weigh, "signed": signed, "items": int(shows.sum()), "neutral_items": int((~shows).sum())},
    )  # fmt: skip


def training(battery: Battery, emotion: str, groups: Sequence[str] | None) -> pd.DataFrame:
    """An emotion's keyword-free items and their neutral partners, of some scenes or all.

    Args:
        battery: whose they are.
        emotion: Plutchik's basic word.
        groups: the scenes.

    Raises:
        CircuitError: no emotional or no neutral item among them.
    """
    items = battery.frame()
    if "split" in items:
        items = items[~items["split"].isin(("crossed", "crossed_fact"))]
    if groups is not None:
        items = items[items["group"].isin([str(one) for one in groups])]
    mine = items[items["role"].isin(("emotional", "neutral")) & (items["emotion"] == emotion)]
    if set(mine["role"]) != {"emotional", "neutral"}:
        raise CircuitError(
            f"{battery.name} has {len(mine)} emotional and neutral items of {emotion} among the scenes that are meant: "
            "means need both."
        )
    return mine.reset_index(drop=True)


@contextmanager
def modulate(
    model: LensModel, modulation: Modulation, *, gain: float = 1.0, replace: float = 0.0, **how: Any
) -> Iterator[Steering]:
    """Modulate every pass of ``model`` inside the ``with``; as :func:`affectlens.steering.steer` in all else.

    Args:
        model: from :func:`affectlens.load_model`; call ``model.hf.generate`` or ``model.hf`` as ever.
        modulation: of this model.
        gain: what deviations from neutral are multiplied with; 1 changes nothing.
        replace: the dose of the emotion's mean; 0 changes nothing.
        how: what else :meth:`Modulation.plan` takes: ``by``, ``positions``, ``schedule``, ``gate``; and
            ``prompt_tokens``, as :func:`affectlens.steering.steer` takes it.

    Raises:
        CircuitError: another model's modulation.
        SteerError: nothing changes, though it should.
    """
    modulation.expect(model)
    width = how.pop("prompt_tokens", None)
    with steer(model, modulation.plan(gain, replace=replace, **how), prompt_tokens=width) as steering:
        yield steering
