"""What a sweep found, in sentences, and how a choice that does not exist is answered. Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from affectlens.errors import PatchError
from affectlens.patching.effects import CELL, LEVEL, MATCHED, NOTHING, NULLS
from affectlens.probing.names import signed
from affectlens.sites import KINDS, Site
from affectlens.stats import Estimate
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.patching.results import PatchSweep

CONTROLS = {
    "random": "a random text",
    "same_emotion": "another scene of the same emotion",
    "neutral": "a neutral text",
    "wrong_position": "another position",
    "random_change": "a random change of the same norm",
}


def summary(sweep: "PatchSweep") -> list[str]:
    """The sentences: what controls undo, then of each metric its baselines, its cells and what could be found."""
    parts = [_Part.of(sweep, metric) for metric in sweep.metrics]
    return [*(line for part in parts for line in part.undone()), *(line for part in parts for line in part.lines()),
            *_refused(sweep)]  # fmt: skip


def place(cell: Mapping[Any, Any]) -> str:
    """Where a cell is: its site, and the tokens."""
    kind, layer, index = str(cell["kind"]), int(cell["layer"]), int(cell["index"])
    if kind in KINDS:
        name = Site(kind, layer, None if index < 0 else index).text
    else:
        name = f"L{layer}.{kind}" + (f".{index}" if index >= 0 else "")
    return f"`{name}` at `{cell['segment']}`" + (" token by token" if cell["extent"] == "token" else "")


def chosen(table: pd.DataFrame, **asked: object) -> pd.DataFrame:
    """The rows with these facts, of those that are not None.

    Raises:
        PatchError: if there are none; it says what there is.
    """
    rows = table
    for name, value in asked.items():
        if value is not None:
            there, rows = listed(rows[name]), rows[rows[name] == value]
            if rows.empty:
                raise PatchError(f"There is no {name} {value!r} there; there is {there}.")
    return rows.reset_index(drop=True)


def listed(values: "pd.Series[Any]") -> str:
    """What there is to choose from; of many, the first and the last."""
    every = sorted(values.unique())
    return ", ".join(map(str, every)) if len(every) <= 12 else f"{every[0]} to {every[-1]}"


def estimated(row: Mapping[Any, Any]) -> Estimate:
    """A row's value with its interval."""
    return Estimate(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]), "group")


def spoken(row: Mapping[Any, Any]) -> str:
    """A row's value with its interval: a share of the gap, or a change in the metric's unit."""
    return str(estimated(row)) if row["normalised"] else f"{sized(estimated(row))}, not divided by the gap"


def sized(found: Estimate) -> str:
    """A number of any size, with its sign.

    >>> sized(Estimate(0.00412, -0.0001, 0.0083, 32, "group"))
    '+0.00412 [-0.0001, +0.0083]'
    """
    return f"{found.value:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"


def p_value(p: float) -> str:
    """A p value in words.

    >>> p_value(0.0004)
    'p < 0.001'
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


@dataclass(frozen=True, eq=False)
class _Part:
    """What one metric says."""

    sweep: "PatchSweep"
    base: Json  # its baselines
    cells: pd.DataFrame  # matched, all of them
    live: pd.DataFrame  # those that a claim can be made of: a share of the gap, and not all of it in every pair
    beside: pd.DataFrame

    @classmethod
    def of(cls, sweep: "PatchSweep", metric: str) -> "_Part":
        rows = chosen(sweep.baselines, metric=metric).to_dict("records")
        base = {str(name): value for name, value in rows[0].items()}
        if not base["pairs"]:
            return cls(sweep, base, *[pd.DataFrame()] * 3)
        cells, beside = sweep.effects(metric=metric, source=MATCHED), sweep.beside(metric=metric)
        verdict = beside.loc[beside["control"] == NOTHING, [*CELL, "specific"]]
        live = cells[cells["normalised"] & ~cells["complete"]].merge(verdict, on=CELL)
        return cls(sweep, base, cells, live, beside)

    @property
    def name(self) -> str:
        return str(self.base["metric"])

    @property
    def verb(self) -> str:
        return "restore" if self.sweep.meta["direction"] == "denoise" else "remove"

    @property
    def up(self) -> pd.DataFrame:
        """The cells that are shown to carry some of the gap."""
        return self.live[(self.live["p_adjusted"] <= LEVEL) & (self.live["value"] > 0)] if len(self.live) else self.live

    @property
    def nulls(self) -> str:
        """The null controls that were run."""
        run = [name for name in self.beside["control"].unique() if name in NULLS[self.sweep.meta["direction"]]]
        return ", ".join(CONTROLS[name] for name in run)

    def undone(self) -> list[str]:
        """That controls do as much, if they do."""
        if not len(self.up) or not self.nulls or self.up["specific"].any():
            return []
        return [
            f"**Controls undo the finding in {self.name}**: {len(self.up)} of {len(self.live)} cells {self.verb} some "
            f"of the gap, but none is shown to {self.verb} more than every control does ({self.nulls})."
        ]

    def lines(self) -> list[str]:
        """Everything else."""
        if not self.base["pairs"]:
            return [
                f"**{self.name} is the same for clean and corrupt text in every pair**: nothing can be patched back."
            ]
        if not self.base["tells"]:
            return [self.baseline(), self.untold(), self.least()]
        return [self.baseline(), *self.found(), *([self.largest()] if len(self.up) else []), self.least()]

    def baseline(self) -> str:
        """The unpatched texts, and the pairs left out."""
        base = self.base
        clean, corrupt, gap = (
            sized(Estimate(base[name], base[f"{name}_low"], base[f"{name}_high"], base["n"], "group"))
            for name in ("clean", "corrupt", "gap")
        )
        lead = ""
        if not base["tells"]:
            lead = f"**{self.name} does not tell clean from corrupt texts**, so changes are not divided by its gap. "
        elif base["gap"] < 0:
            lead = f"**{self.name} is lower on clean texts**, and effects are shares of that gap. "
        every = base["left_out"] + base["pairs"]
        left = f"{base['left_out']} of {every} pairs ({base['share']:.0%})" if base["left_out"] else "No pair"
        return (
            f"{lead}Unpatched, {self.name} is {clean} on clean texts and {corrupt} on corrupt ones, a gap of {gap} "
            f"{self.sweep.unit(self.name)} over {base['pairs']} pairs in {base['n']} groups. {left} left out for "
            "baselines that are equal within rounding."
        )

    def untold(self) -> str:
        """How many cells change a metric without a gap."""
        sure = int((self.cells["p_adjusted"] <= LEVEL).sum())
        return (
            f"{sure} of {len(self.cells)} cells change it ({self.tests()}); without a gap nothing is claimed of them."
        )

    def found(self) -> list[str]:
        """How many cells carry some of the gap, and how many of them beyond the controls."""
        n, up, verb = len(self.live), self.up, self.verb
        said = f"{len(up)} of {n} cells {verb}" if len(up) else f"No cell of {n} is shown to {verb}"
        said = f"**{said} some of the gap** ({self.tests()})"
        if len(up) and self.nulls:
            more = int(up["specific"].sum()) or "none of them"
            said += f"; {more} more than {self.nulls} (max-T over cells and these controls)"
        elif len(up):
            said += "; no null control was run, so none of them is shown to be specific"
        if down := int(((self.live["p_adjusted"] <= LEVEL) & (self.live["value"] < 0)).sum()):
            said += f"; in {down} the gap grows" if verb == "remove" else f"; in {down} the patch leads away from clean"
        lines = [f"{said}."]
        if whole := int(self.cells["complete"].sum()):
            lines.append(
                f"{whole} more cells carry the whole gap in every pair, as a cell must through which all passes."
            )
        if apart := int((~self.cells["normalised"]).sum()):
            lines.append(f"{apart} more cells are of pairs whose gap may be zero: their changes are not divided by it.")
        return lines

    def largest(self) -> str:
        """The largest effect, of specific cells if there are any, beside every control."""
        specific = self.up["specific"].any()
        best = (self.up[self.up["specific"]] if specific else self.up).sort_values("value").to_dict("records")[-1]
        cell = {name: best[name] for name in CELL}
        effects = {row["source"]: row for row in chosen(self.sweep.effects(), **cell).to_dict("records")}
        less = {row["control"]: row for row in chosen(self.beside, **cell).to_dict("records")}
        said = [
            f"{CONTROLS.get(name, name)} {estimated(effects[name])} (difference {signed(estimated(row))}, "
            f"{p_value(row['p_adjusted'])})"
            for name, row in less.items() if name != NOTHING
        ]  # fmt: skip
        return (
            f"The largest effect{' beyond the controls' if specific else ''}, picked among those that pass: "
            f"{place(best)} {self.verb}s {estimated(best)} of the gap ({p_value(best['p_adjusted'])})"
            f"{'; in its place ' + '; '.join(said) if said else ''}."
        )

    def least(self) -> str:
        """What the sweep could have found."""
        sizes = self.cells.loc[~self.cells["complete"] & (self.cells["high"] > self.cells["low"]), "detectable"]
        n = len(self.cells)
        if not len(sizes):
            return "No cell's effect varies over groups, so none could have been missed for want of pairs."
        if sizes.min() == float("inf"):
            return f"{self.base['n']} groups can't give an adjusted p of {LEVEL}: no effect of any size could be shown."
        unit = "of the gap" if self.base["tells"] else self.sweep.unit(self.name)
        return (
            f"With 80% power, corrected over {n} cells, half of the cells show effects from {sizes.median():.2g} "
            f"{unit} on, all of them from {sizes.max():.2g} on."
        )

    def tests(self) -> str:
        """How the cells were tested."""
        least = self.cells["attainable"].iloc[0]
        return f"p at most {LEVEL} by sign flips, max-T over {len(self.cells)} cells; least attainable p {least:.2g}"


def _refused(sweep: "PatchSweep") -> list[str]:
    """What could not be patched."""
    refused = list(sweep.meta.get("refused", ()))
    more = f"; and {len(refused) - 3} more" if len(refused) > 3 else ""
    return [f"Not patched: {'; '.join(refused[:3])}{more}."] if refused else []
