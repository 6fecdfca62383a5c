"""``FeatureEffects``: what editing features did, beside placebo features and random directions."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import false_discovery_control

from affectlens.errors import PatchError
from affectlens.metrics import average
from affectlens.patching.features.editing import DIRECTION, FEATURE, PLACEBO, TOGETHER
from affectlens.patching.features.said import summary
from affectlens.paths import write_parquet, write_text
from affectlens.stats import Estimate, detectable, estimate
from affectlens.types import Json

OF = ("clean", "corrupt", "gap", "top")
LEVEL = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class FeatureEffects:
    """One row of ``table`` a pair, metric and edit.

    ``source`` is ``feature``, ``placebo`` or ``direction``; ``feature`` whom the edit speaks for (-1: all together),
    ``draw`` which control (-1: the feature itself). ``clean`` and ``corrupt`` are the metric before, ``_left`` after;
    ``_top_changed`` whether the likeliest next token is another; ``_changed`` of ``_tokens`` tokens were changed, by
    ``_norm`` on average, in the units of the model's activations.
    """

    table: pd.DataFrame
    features: pd.DataFrame  # feature, density, mean activation where active, to: what it was set to
    placebos: pd.DataFrame  # feature, draw, placebo, and density and mean of both
    meta: Json

    def effects(self, *, of: str = "clean", metric: str | None = None, emotion: str | None = None) -> pd.DataFrame:
        """The effect of each feature, beside its controls.

        Args:
            of: ``clean``: the mean change of the metric in the clean (emotional) texts; ``corrupt``: in the others;
                ``gap``: of the difference between the two; ``top``: the share of all texts whose likeliest next token
                is another one, whatever the metric.
            metric: of one metric alone.
            emotion: over the pairs of one emotion alone.

        Returns:
            One row a metric and feature (-1: all together): ``value, low, high``, in the metric's unit; ``n`` groups,
            ``unit, method``; ``p`` = (1 + placebos with as large an absolute effect) / (1 + placebos), ``p_adjusted``
            (Benjamini-Hochberg over the metric's features; all together is a test by itself), ``attainable`` (the
            least p there is); ``placebo, placebo_low, placebo_high`` (mean and range of the placebos' effects);
            ``p_direction, p_direction_adjusted, direction_low, direction_high`` of the random directions;
            ``detectable`` (the least difference from zero found with 80% power); ``share`` of tokens that changed;
            ``norm`` of their change over the median norm at the site, and ``placebo_share, placebo_norm``;
            ``comparable``: placebos change tokens as often and as much, within a factor of two; and ``specific``:
            adjusted p at most 0.05, an interval without zero, and placebos that are comparable.

        Raises:
            PatchError: an outcome, metric or emotion that is none of these.
        """
        if of not in OF:
            raise PatchError(f"There is no outcome {of!r}; choose from {', '.join(OF)}.")
        return _effects(self, of, metric, emotion)

    def at(self, feature: int = TOGETHER, *, of: str = "clean", metric: str | None = None) -> Estimate:
        """One feature's effect, with p against its placebos.

        Args:
            feature: its number; -1 is all together.
            of: as for :meth:`effects`.
            metric: its name; needed where there are several.

        Raises:
            PatchError: if that names no effect, or several.
        """
        rows = self.effects(of=of, metric=metric)
        rows = rows[rows["feature"] == feature]
        if len(rows) != 1:
            there = ", ".join(map(str, self.features["feature"]))
            raise PatchError(f"That names {len(rows)} effects: name the metric, and a feature among {there}, or -1.")
        row = rows.iloc[0]
        return Estimate(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]), "group",
                        float(row["p"]), float(row["p_adjusted"]), str(row["method"]))  # fmt: skip

    def draws(self, feature: int = TOGETHER, *, of: str = "clean", metric: str | None = None,
              source: str = PLACEBO, emotion: str | None = None) -> Float[np.ndarray, " draw"]:  # fmt: skip
        """The effects of one feature's controls, one a draw.

        Args:
            feature: its number; -1 is all together.
            of: as for :meth:`effects`.
            metric: its name; the first if None.
            source: ``placebo`` or ``direction``.
            emotion: over the pairs of one emotion alone.
        """
        rows = self.table[(self.table["metric"] == (metric or self.metrics[0])) & (self.table["feature"] == feature)]
        rows = rows[(rows["source"] == source) & (True if emotion is None else rows["emotion"] == emotion)]
        return rows.assign(value=change(rows, of)).groupby("draw", sort=True)["value"].mean().to_numpy(dtype=float)

    @property
    def metrics(self) -> list[str]:
        """The metrics, in the order in which they were given."""
        return list(self.table["metric"].unique())

    def unit(self, metric: str) -> str:
        """The unit of a metric."""
        return str(self.meta["metrics"][metric]["unit"])

    def summary(self) -> list[str]:
        """What was found, in sentences; the controls' part comes with it."""
        return summary(self)

    def save(self, folder: str | Path) -> None:
        """Write ``results/feature_effects.parquet``, ``edited.parquet``, ``placebos.parquet``, and a JSON, last."""
        home = Path(folder) / "results"
        for name, table in _TABLES.items():
            write_parquet(home / f"{name}.parquet", getattr(self, table))
        write_text(home / "feature_effects.json", json.dumps(self.meta, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> "FeatureEffects":
        """Read what :meth:`save` wrote.

        Raises:
            PatchError: if there is none.
        """
        home = Path(folder) / "results"
        if not (home / "feature_effects.json").is_file():
            raise PatchError(f"{folder} holds no effects of features: it has no results/feature_effects.json.")
        meta = json.loads((home / "feature_effects.json").read_text(encoding="utf-8"))
        table, features, placebos = (pd.read_parquet(home / f"{name}.parquet") for name in _TABLES)
        return cls(table, features, placebos, meta)

    def __repr__(self) -> str:
        n, meta = len(self.features), self.meta
        return f"FeatureEffects({meta['kind']} {n} features of {meta['sae']} in {meta['n_pairs']} pairs)"

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        return "".join(f"<p>{markdown(line)}</p>" for line in self.summary())


_TABLES = {"feature_effects": "table", "edited": "features", "placebos": "placebos"}


def change(rows: pd.DataFrame, of: str) -> Float[np.ndarray, " row"]:
    """What an edit did in each row."""
    if of == "top":
        return ((rows["clean_top_changed"].astype(float) + rows["corrupt_top_changed"]) / 2).to_numpy(dtype=float)
    clean, corrupt = (rows[f"{one}_left"] - rows[one] for one in ("clean", "corrupt"))
    return {"clean": clean, "corrupt": corrupt, "gap": clean - corrupt}[of].to_numpy(dtype=float)


def _effects(found: FeatureEffects, of: str, metric: str | None, emotion: str | None) -> pd.DataFrame:
    table = found.table.assign(value=change(found.table, of))
    for name, wanted in (("metric", metric), ("emotion", emotion)):
        if wanted is not None:
            table = table[table[name] == wanted]
            if table.empty:
                there = ", ".join(map(str, found.table[name].dropna().unique()))
                raise PatchError(f"There is no {name} {wanted!r} here; there are {there}.")
    table = table[np.isfinite(table["value"])]
    parts = []
    for _, rows in table.groupby("metric", sort=False):
        out = pd.DataFrame([_row(part, of, found.meta) for _, part in rows.groupby("feature", sort=False)])
        single = (out["feature"] != TOGETHER).to_numpy()
        for name in ("p", "p_direction"):
            out[f"{name}_adjusted"] = out[name]
            if single.any() and out.loc[single, name].notna().all():
                out.loc[single, f"{name}_adjusted"] = false_discovery_control(out.loc[single, name])
        out["comparable"] = _alike(out["placebo_share"], out["share"]) & _alike(out["placebo_norm"], out["norm"])
        out["specific"] = (out["p_adjusted"] <= LEVEL) & ((out["low"] > 0) | (out["high"] < 0)) & out["comparable"]
        parts.append(out)
    return pd.concat(parts, ignore_index=True)


def _alike(one: pd.Series, other: pd.Series) -> pd.Series:
    """Within a factor of two."""
    return (one <= 2 * other) & (other <= 2 * one)


def _row(rows: pd.DataFrame, of: str, meta: Json) -> Json:
    """One feature's effect on one metric, and what its controls did."""
    by = {name: rows[rows["source"] == name] for name in (FEATURE, PLACEBO, DIRECTION)}
    own = by[FEATURE]
    codes, names = pd.factorize(own["group"])
    value = estimate(average(own["value"].to_numpy(dtype=float), np.asarray(codes)), len(names), "group",
                     seed=int(meta["seed"]), bounds=(0.0, 1.0) if of == "top" else None)  # fmt: skip
    out: Json = {"metric": own["metric"].iloc[0], "feature": int(own["feature"].iloc[0]), "value": value.value,
                 "low": value.low, "high": value.high, "n": value.n, "unit": value.unit, "method": value.method,
                 "detectable": detectable(value), "pairs": len(own)}  # fmt: skip
    for name, p in ((PLACEBO, "p"), (DIRECTION, "p_direction")):
        if by[name].empty:
            out |= {p: np.nan, name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
            continue
        draws = by[name].groupby("draw")["value"].mean().to_numpy(dtype=float)
        hits = int((np.abs(draws) >= abs(value.value) - 1e-9 * (1 + abs(value.value))).sum())
        out |= {p: (1 + hits) / (1 + len(draws)), name: draws.mean(), f"{name}_low": draws.min(),
                f"{name}_high": draws.max()}  # fmt: skip
        if name == PLACEBO:
            out["attainable"] = 1 / (1 + len(draws))
            out |= {f"placebo_{key}": one for key, one in _size(by[name], meta).items()}
    return out | _size(own, meta)


def _size(rows: pd.DataFrame, meta: Json) -> Json:
    """The share of tokens that were changed, and the norm of their change in units of the site's median norm."""
    changed = rows["clean_changed"] + rows["corrupt_changed"]
    total = (rows["clean_norm"] * rows["clean_changed"] + rows["corrupt_norm"] * rows["corrupt_changed"]).sum()
    n = changed.sum()
    return {"share": n / max((rows["clean_tokens"] + rows["corrupt_tokens"]).sum(), 1),
            "norm": total / n / meta["median_norm"] if n else 0.0}  # fmt: skip
