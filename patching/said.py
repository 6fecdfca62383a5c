"""What one part of a run says: its sentences, its facts for machines, and its effects, whichever kind it is."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from affectlens.patching.ablation import AblationSweep
from affectlens.patching.results import PatchSweep
from affectlens.types import Json


@dataclass(frozen=True)
class Said:
    """A finished part."""

    name: str
    swept: PatchSweep | AblationSweep

    @cached_property
    def sweep(self) -> PatchSweep:
        """The effects; of an ablation, shares of the gap that are lost."""
        return self.swept.sweep if isinstance(self.swept, AblationSweep) else self.swept

    @property
    def metrics(self) -> list[str]:
        return self.sweep.metrics

    def summary(self) -> list[str]:
        """The sentences, Markdown."""
        return self.swept.summary()

    def facts(self) -> Json:
        """The sentences, baselines, effects and (of an ablation) rates, for machines."""
        out: Json = {"summary": self.summary(), "meta": self.sweep.meta, "baselines": records(self.sweep.baselines)}
        if self.sweep.baselines["pairs"].any():
            out |= {"effects": records(self.sweep.effects()), "beside controls": records(self.sweep.beside())}
        if isinstance(self.swept, AblationSweep):
            out["rates"] = records(self.swept.rates)
        return out


def records(table: pd.DataFrame) -> list[Json]:
    """A table's rows."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def load_part(home: Path) -> PatchSweep | AblationSweep | None:
    """A finished part from its folder; None if it is not finished.

    Raises:
        PatchError: if it is damaged.
    """
    if (home / "results" / "sweep.json").is_file():
        return PatchSweep.load(home)
    return AblationSweep.load(home) if (home / "results" / "ablation.json").is_file() else None
