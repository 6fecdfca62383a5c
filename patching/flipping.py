"""``flip``: in the crossed quadruples, does patching the facts turn what the ending means?

d = s(ax) + s(by) - s(ay) - s(bx) is what a model makes of facts and ending together (see
:mod:`affectlens.stimuli.crossing`). Two of a quadruple's pairs have one ending and different facts: ax, bx and by, ay.
If the runs of each are given the other's values where the facts are kept, d must turn into -d. With both directions of
both pairs patched,

    d - d' = changes of denoising + changes of noising,  2 d = twice the two pairs' gaps,

so the share of d that is turned, (d - d') / 2d, is a ratio of means over both directions: 0 nothing, 1 all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import choose
from affectlens.patching.results import PatchSweep
from affectlens.patching.sweeping import listed, patch, prepared
from affectlens.patching.units import Positions, Sites
from affectlens.plots import BLUE, GREY, ORANGE, band, figure, level
from affectlens.stimuli import Battery

CELLS = frozenset({"ax", "ay", "bx", "by"})
CONTEXTS = ("ax/bx", "by/ay")
SPLITS = ("crossed", "crossed_fact")


@dataclass(frozen=True, eq=False, repr=False)
class Flip:
    """The sweeps of both directions as one, a split each. An effect is the share of d that is turned."""

    sweeps: dict[str, PatchSweep]

    def table(self) -> pd.DataFrame:
        """Every split's effects, and below them each emotion's own."""
        rows = []
        for split, sweep in self.sweeps.items():
            rows.append(sweep.effects().assign(split=split, emotion="all"))
            for emotion, part in of_emotions(sweep).items():
                rows.append(part.effects().assign(split=split, emotion=emotion))
        return pd.concat(rows, ignore_index=True)

    def summary(self) -> list[str]:
        """What each split says, d first: twice the mean gap of a quadruple's two pairs."""
        out = []
        for split, sweep in self.sweeps.items():
            for row in sweep.baselines.to_dict("records"):
                d, low, high = (2 * row[name] for name in ("gap", "gap_low", "gap_high"))
                said = "" if row["tells"] else ": no d is shown, so none can be turned"
                out.append(
                    f"**{split}**: d of {row['metric']} is {d:+.3g} [{low:+.3g}, {high:+.3g}] "
                    f"{sweep.unit(row['metric'])} over {row['n']} quadruples{said}."
                )
            out += [f"**{split}**: {line}" for line in sweep.summary()]
        return out

    def plot(self, *, segment: str = "changed", metric: str | None = None) -> go.Figure:
        """The share of d that is turned at each layer, both splits in one figure; pointwise 95% intervals.

        Args:
            segment: where was patched.
            metric: needed where there are several.

        Raises:
            PatchError: a segment that was not patched.
        """
        fig = figure(f"crossed: d turned by patching {segment}", "layer", "share of d turned")
        for (split, sweep), colour in zip(self.sweeps.items(), (BLUE, ORANGE), strict=False):
            rows = sweep.effects(metric=metric, source="matched")
            rows = rows[rows["segment"] == segment].sort_values("layer")
            if rows.empty:
                raise PatchError(
                    f"{segment} was not patched in {split}; there are {', '.join(sweep.meta['positions'])}."
                )
            x, low, value, high = (rows[c].astype(float).tolist() for c in ("layer", "low", "value", "high"))
            band(fig, x, low, value, high, split, colour)
            level(fig, x, 0.0, "nothing", GREY)
        return fig

    def __repr__(self) -> str:
        sizes = ", ".join(f"{s.pairs['group'].nunique()} {split}" for split, s in self.sweeps.items())
        return f"Flip({sizes} quadruples)"

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        return "".join(f"<p>{markdown(line)}</p>" for line in self.summary())


def flip(
    model: LensModel,
    battery: Battery,
    sites: Sites = "resid_post",
    positions: Positions = ("changed", "shared", "ending", "last"),
    *,
    metric: Metric | Sequence[Metric],
    quadruples: int | None = None,
    controls: Sequence[str] = ("wrong_position", "random"),
    seed: int = 0,
    folder: str | Path | None = None,
    **options: Any,
) -> Flip:
    """Patch the pairs with one ending and different facts, both ways, in ``crossed`` and beside it in ``crossed_fact``.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: with crossed quadruples, such as ``core``.
        sites: as for :func:`affectlens.patching.patch`.
        positions: likewise; ``changed`` are the facts.
        metric: whose d is to be turned.
        quadruples: take so many of each split, spread over emotions; all by default.
        controls: other sources.
        seed: of the choice.
        folder: where each pair's rows are kept; a folder that has some is continued.
        options: further arguments of :func:`affectlens.patching.patch`, but ``direction``.

    Raises:
        PatchError: a battery without crossed quadruples, or a split in which all of them lack a cell.
    """
    sweeps = {}
    prompting = {name: options.pop(name, default) for name, default in (("cue", None), ("chat", False))}
    for split in SPLITS:
        if not any(item.split == split for item in battery):
            continue
        every = prepared(model, whole_quadruples(battery, split), listed(metric), **prompting)
        pairs = choose([pair for pair in every if pair.contrast in CONTEXTS], quadruples, seed)
        both = [
            patch(model, pairs, sites, positions, metric=metric, direction=way, controls=controls, seed=seed,
                  folder=Path(folder) / split / way if folder else None, **options)
            for way in ("denoise", "noise")
        ]  # fmt: skip
        sweeps[split] = united(*both)
    if not sweeps:
        raise PatchError(f"{battery.name} has no crossed quadruples: take core or full.")
    return Flip(sweeps)


def whole_quadruples(battery: Battery, split: str) -> Battery:
    """A split's quadruples that have all four cells.

    Raises:
        PatchError: if there is none.
    """
    found = battery.where(split=split)
    groups = {name for name, items in found.groups().items() if {item.cell for item in items} >= CELLS}
    kept = tuple(item for item in found if item.group in groups and item.cell in CELLS)
    if not kept:
        raise PatchError(f"{split} of {battery.name} has no quadruple with all four cells: d needs them.")
    return Battery(found.name, kept, found.licence, found.source)


def united(denoise: PatchSweep, noise: PatchSweep) -> PatchSweep:
    """Both directions as one: what noising takes from a clean run counts like what denoising adds to a corrupt one."""
    turned = noise.table.assign(value=noise.table["corrupt"] + noise.table["clean"] - noise.table["value"])
    meta = denoise.meta | {"refused": [*denoise.meta["refused"], *noise.meta["refused"]], "both": True}
    return PatchSweep(pd.concat([denoise.table, turned], ignore_index=True), denoise.pairs, meta)


def of_emotions(sweep: PatchSweep) -> dict[str, PatchSweep]:
    """A sweep's pairs by emotion."""
    return {
        str(emotion): PatchSweep(part, sweep.pairs[sweep.pairs["emotion"] == emotion], sweep.meta)
        for emotion, part in sweep.table.groupby("emotion", sort=True)
    }
