"""What an ablation found: the share of the gap that is lost, the drop in accuracy, and how often tokens change."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from affectlens.errors import PatchError
from affectlens.metrics import average
from affectlens.patching.results import PatchSweep
from affectlens.paths import write_parquet, write_text
from affectlens.stats import Estimate, estimate
from affectlens.types import Json

STEP = ["source", "kind", "layer", "index", "segment", "together"]


@dataclass(frozen=True, eq=False, repr=False)
class AblationSweep:
    """One row of ``table`` a pair, metric, source and step.

    ``clean`` and ``corrupt`` are the metric before, ``clean_left`` and ``corrupt_left`` after;
    ``clean_top_changed`` and ``corrupt_top_changed`` say whether the likeliest next token is another one. ``source`` is
    ``matched`` for the ablation and ``random_change`` for its control; ``together`` counts the sites (of a knockout,
    layers) of a step.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    meta: Json

    @cached_property
    def sweep(self) -> PatchSweep:
        """The share of the gap that is lost, as effects: 0 where the gap stays, 1 where nothing is left of it."""
        left = self.table["clean_left"] - self.table["corrupt_left"]
        return PatchSweep(self.table.assign(value=self.table["corrupt"] + left), self.pairs, self.meta)

    @cached_property
    def rates(self) -> pd.DataFrame:
        """``accuracy``, ``accuracy_left``, ``accuracy_drop`` and ``change_rate`` of each step, with 95% intervals.

        Accuracy is the share of pairs whose clean text has the higher value (of ``kl``, where clean is zero, it is one
        by construction); the change rate is the share of texts whose likeliest next token is another one than before.
        """
        rows = []
        for key, part in self.table.groupby(["metric", *STEP], sort=False):
            facts = dict(zip(["metric", *STEP], key, strict=True))
            for name, values in _measures(part).items():
                found = _over_groups(values, part["group"], (-1.0 if name == "accuracy_drop" else 0.0, 1.0))
                rows.append(facts | {"measure": name, "value": found.value, "low": found.low, "high": found.high,
                                     "n": found.n})  # fmt: skip
        return pd.DataFrame(rows)

    def rate(self, measure: str, *, source: str = "matched", metric: str | None = None, **step: object) -> Estimate:
        """One of :meth:`rates`.

        Args:
            measure: ``accuracy``, ``accuracy_left``, ``accuracy_drop`` or ``change_rate``.
            source: ``matched``, or ``random_change``.
            metric: needed where there are several.
            step: columns that name the step: ``kind``, ``layer``, ``index``, ``segment``, ``together``.

        Raises:
            PatchError: if that names no step, or several.
        """
        named = {"measure": measure, "source": source, **step} | ({"metric": metric} if metric else {})
        if unknown := set(named) - set(self.rates):
            raise PatchError(f"Steps have no {', '.join(unknown)}; they are told apart by metric, {', '.join(STEP)}.")
        rows = self.rates[np.logical_and.reduce([self.rates[name] == value for name, value in named.items()])]
        if len(rows) != 1:
            said = ", ".join(f"{name}={value}" for name, value in named.items())
            raise PatchError(f"{said} names {len(rows)} steps: name one, by metric, {', '.join(STEP)}.")
        row = rows.iloc[0]
        return Estimate(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]), "group")

    def summary(self) -> list[str]:
        """What was found, in sentences; the baselines come first."""
        return [*self.sweep.summary(), *self._rates_said()]

    def _rates_said(self) -> list[str]:
        out = []
        for metric in self.table["metric"].unique():
            here = self.rates[(self.rates["metric"] == metric) & (self.rates["source"] == "matched")]
            drops = here[here["measure"] == "accuracy_drop"]
            most = drops.loc[drops["value"].idxmax()]
            same = np.logical_and.reduce([here[c] == most[c] for c in STEP])
            by = {name: part.iloc[0] for name, part in here[same].groupby("measure")}
            where = f"{most['kind']} of layer {most['layer']}" + (f", {most['index']}" if most["index"] >= 0 else "")
            out.append(
                f"{metric}: pairs told apart before {_said(by['accuracy'])}. The largest true drop, picked among "
                f"{len(drops)} steps, is {_said(most)} ({where}, {most['segment']}); there the likeliest token "
                f"changes in {_said(by['change_rate'])} of the texts."
            )
        return out

    def plot(self, **options: object) -> go.Figure:
        """The share of the gap that is lost, as :meth:`PatchSweep.plot` draws effects."""
        return self.sweep.plot(**options)

    def save(self, folder: str | Path) -> None:
        """Write the ablation into a run folder."""
        home = Path(folder) / "results"
        write_parquet(home / "ablation.parquet", self.table)
        write_parquet(home / "pairs.parquet", self.pairs)
        write_text(home / "ablation.json", json.dumps(self.meta, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> "AblationSweep":
        """Read what :meth:`save` wrote.

        Raises:
            PatchError: if there is none.
        """
        home = Path(folder) / "results"
        if not (home / "ablation.json").is_file():
            raise PatchError(f"{folder} holds no ablation: it has no results/ablation.json.")
        meta = json.loads((home / "ablation.json").read_text(encoding="utf-8"))
        return cls(pd.read_parquet(home / "ablation.parquet"), pd.read_parquet(home / "pairs.parquet"), meta)

    def __repr__(self) -> str:
        return f"AblationSweep({self.meta['ablation']} of {self.meta['n_pairs']} pairs on {self.meta['model']})"

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        return "".join(f"<p>{markdown(line)}</p>" for line in self.summary())


def _measures(part: pd.DataFrame) -> dict[str, Float[np.ndarray, " pair"]]:
    before = _right(part["clean"], part["corrupt"])
    after = _right(part["clean_left"], part["corrupt_left"])
    changed = (part["clean_top_changed"].astype(float) + part["corrupt_top_changed"].astype(float)) / 2
    return {"accuracy": before, "accuracy_left": after, "accuracy_drop": before - after,
            "change_rate": changed.to_numpy()}  # fmt: skip


def _right(clean: pd.Series, corrupt: pd.Series) -> Float[np.ndarray, " pair"]:
    """1 where the clean text has the higher value, one half at a tie."""
    return np.sign(clean.to_numpy() - corrupt.to_numpy()) / 2 + 0.5


def _over_groups(values: Float[np.ndarray, " pair"], groups: pd.Series, bounds: tuple[float, float]) -> Estimate:
    codes, names = pd.factorize(groups)
    return estimate(average(values, np.asarray(codes)), len(names), "group", bounds=bounds)


def _said(row: pd.Series) -> str:
    return str(Estimate(row["value"], row["low"], row["high"], int(row["n"]), "group"))
