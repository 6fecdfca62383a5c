"""``compare``: finished runs side by side, and how far each differs from the first.

1. Runs that read the same items under the same folds (of whole domains, seeds may differ) are paired: the difference of
   held-out scores under the same cluster weights; p by sign flips of the clusters' pseudo-values (Tukey 1958).
2. Others are unpaired: the interval is put together from both runs' own (Zou and Donner 2008), as if independent; on
   another battery it is the distances from the floors that are compared.
3. Benjamini and Hochberg (1995) correct over all pairs of a target and a run.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from affectlens.errors import RunError
from affectlens.metrics import metric
from affectlens.probing.contexts import formatting
from affectlens.probing.names import FLOOR_NAMES
from affectlens.probing.report import NESTED, ProbeReport
from affectlens.probing.study import COMMAND, reload
from affectlens.run import Run
from affectlens.stats import Estimate, Statistic, estimate, less, sign_flips
from affectlens.stats import paired as subtract
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SCORE, OVER, LESS, AGREEMENT = "score", "over its floor", "less the first", "agreement with the first"
SAME = "identical held-out logits"
SETTINGS = ("model", "fingerprint", "revision", "dtype", "battery_sha256", "seed", "quick")
FACTS = ("folder", "source", "n_layers", "d_model", "battery", "started", "versions")
Opened = list[tuple[Run, dict[str, ProbeReport]]]
Row = tuple[str, str, str, Estimate]  # what, case, note, and the value


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The outcome of :func:`compare`.

    ``table`` has one row a target, run and quantity: ``target, run, what, case, note, value, low, high, n, unit, p,
    p_adjusted, method``. ``what`` is score, floor, over its floor, over its neutral partners; less the first (``note``
    is paired, or why not) and agreement with the first; quadruples won, called emotional, asked, transfer. ``layers``
    has the score by layer: ``target, run, layer, depth`` (layer / (n_layers - 1)), ``value, low, high``.
    """

    runs: tuple[Json, ...]  # one a run: name, folder, model, settings, hashes; others are compared with the first
    table: pd.DataFrame
    layers: pd.DataFrame

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that all runs have."""
        return tuple(self.table["target"].unique())

    def summary(self, target: str | None = None) -> list[str]:
        """What survives, in sentences, of one target or all; Markdown."""
        from affectlens.probing.compare_cli import summary

        return summary(self, target)

    def plot(self, target: str | None = None) -> "Figure":
        """Score by relative depth, one curve a run with its pointwise interval; of the first target by default."""
        from affectlens.probing.compare_cli import depth_curves

        return depth_curves(self, target or self.targets[0])

    def __repr__(self) -> str:
        from affectlens.probing.names import plain

        return "\n".join(plain(line) for line in self.summary())

    def _repr_html_(self) -> str:
        from affectlens.probing.compare_cli import as_html

        return as_html(self)


def compare(*runs: Path | str, target: str | Sequence[str] | None = None) -> Comparison:
    """Lay finished probe runs side by side, and test each against the first.

    Args:
        runs: folders of two or more finished runs; the others are compared with the first.
        target: one target or several; by default all that every run has.

    Raises:
        RunError: fewer than two runs, a folder that is no finished probe run, or no target in common.
    """
    if len(runs) < 2:
        raise RunError(f"Comparing takes two finished probe runs or more, not {len(runs)}: name their folders.")
    opened: Opened = [_opened(Path(run)) for run in runs]
    targets = _common(opened, [target] if isinstance(target, str) else list(dict.fromkeys(target or ())))
    facts, rows, curves = _facts(opened), list[Json](), list[pd.DataFrame]()
    for name in targets:
        first = opened[0][1][name]
        for place, (_, reports) in enumerate(opened):
            label = {"target": name, "run": facts[place]["name"]}
            found = _alone(reports[name]) + (_against(reports[name], first) if place else [])
            rows += [label | {"what": w, "case": c, "note": note} | asdict(e) for w, c, note, e in found]
            curves.append(_by_depth(reports[name]).assign(**label))
    table = pd.DataFrame(rows).astype({"p": float, "p_adjusted": float})
    family = (table["what"] == LESS) & table["p"].notna()
    if family.any():
        table.loc[family, "p_adjusted"] = stats.false_discovery_control(table.loc[family, "p"])
    return Comparison(facts, table, pd.concat(curves, ignore_index=True))


def _opened(folder: Path) -> tuple[Run, dict[str, ProbeReport]]:
    info = Run.open(folder).info
    if info["command"] == COMMAND and info["status"] != "done":
        raise RunError(f"{folder} is unfinished ({info['status']}): finish it with affectlens probe --resume {folder}.")
    run, reports = reload(folder)
    return run, {report.target: report for report in reports}


def _common(opened: Opened, wanted: list[str]) -> list[str]:
    for run, has in opened:
        if missing := [name for name in wanted if name not in has]:
            raise RunError(f"{run.folder} has no target {missing[0]!r}; it has {', '.join(has)}.")
    if found := wanted or [name for name in opened[0][1] if all(name in has for _, has in opened)]:
        return found
    said = "; ".join(f"{run.folder} has {', '.join(has)}" for run, has in opened)
    raise RunError(f"These runs have no target in common: {said}.")


def _facts(opened: Opened) -> tuple[Json, ...]:
    """What each run was made of, and a name for it that is as short as tells the runs apart."""
    facts: list[Json] = []
    for run, reports in opened:
        meta = next(iter(reports.values())).meta
        told = run.info | run.info["config"] | meta | {"folder": str(run.folder)}
        facts.append({key: told.get(key) for key in (*SETTINGS, *FACTS)})
    ways = [[form.format(place=place, end=Path(f["folder"]).name, **f) for place, f in enumerate(facts, 1)]
            for form in ("{model}", "{model}@{revision}", "{model} ({end})", "{model} ({end}, {place})")]  # fmt: skip
    names = next(names for names in ways if len(set(names)) == len(names))
    return tuple({"name": name} | f for name, f in zip(names, facts, strict=True))


def _alone(report: ProbeReport) -> list[Row]:
    """What one run found: its score with its floor, and what stands beside its ladder."""
    meta, best = report.meta, report.strongest_floor
    name = FLOOR_NAMES.get(best, best)
    rows: list[Row] = [(SCORE, meta["metric"], meta["rung"], report.headline)]
    rows += [("floor", "", name, report.estimate("floor", best))] if best in FLOOR_NAMES else []
    rows.append((OVER, "", name, report.estimate("difference", best)))
    if report.has("beyond_control", "neutral_pseudo_label"):
        rows.append(("over its neutral partners", "", "", report.estimate("beyond_control", "neutral_pseudo_label")))
    here, asked = {"method": report.main}, {"wording": "mean", "calibration": "batch", "metric": meta["metric"]}
    for what, table, only, case, share, unit in (
        ("quadruples won", report.crossed, here | {"chosen": True}, "{split}", "wins", "quadruple"),
        ("called emotional", report.false_alarms, here, "{split}", "share", "item"),
        ("asked", report.asked, asked, "{shots} exemplars of each class", "value", "scene"),
        ("transfer", report.transfer, {"reader": report.main}, "{trained} to {tested}", "value", "domain"),
    ):
        named: Any = table.rename(columns={share: "value", "wins_low": "low", "wins_high": "high"}).to_dict("records")
        for row in named:
            if all(row[key] == wanted for key, wanted in only.items()):
                found = Estimate(row["value"], row["low"], row["high"], int(row["n"]), row.get("unit", unit))
                rows.append((what, case.format(**row), "", found))
    return rows


def _by_depth(report: ProbeReport) -> pd.DataFrame:
    table, keys = report.scores, {"rung": report.meta["rung"], "kind": "probe", "reader": report.main}
    curve = table[(table[list(keys)] == pd.Series(keys)).all(axis=1) & (table["layer"] != NESTED)].sort_values("layer")
    return curve[["layer", "value", "low", "high"]].assign(depth=curve["layer"] / max(report.meta["n_layers"] - 1, 1))


def _against(report: ProbeReport, first: ProbeReport) -> list[Row]:
    """The difference from the first run, paired if that can be, and how far the two agree item by item."""
    if [report.meta[k] for k in ("metric", "classes")] != [first.meta[k] for k in ("metric", "classes")]:
        return [(LESS, "", "not compared: other classes", Estimate(np.nan, np.nan, np.nan, 0, ""))]
    if report.meta["battery_sha256"] != first.meta["battery_sha256"]:
        gaps = [one.estimate("difference", one.strongest_floor) for one in (report, first)]
        return [(LESS, OVER, "unpaired: another battery", unpaired(*gaps))]
    ours, theirs, why = _held(report), _held(first), ""
    for column, name in {"id": "items", "y": "labels", "fold": "folds", "cluster": "units resampled"}.items():
        why = why or ("" if ours[column].equals(theirs[column]) else f"other {name}")
    for held, one in ((ours, report), (theirs, first)):
        given = _worth(held)(np.ones((1, held["cluster"].max() + 1)))[0]
        why = why or ("" if abs(given - one.headline.value) < 1e-9 else "held-out logits that do not give the score")
    if why:
        return [(LESS, SCORE, f"unpaired: {why}", unpaired(report.headline, first.headline))]
    unit, seed = report.headline.unit, first.meta["seed"]
    return [(LESS, SCORE, "paired", paired(ours, theirs, unit, seed=seed)), *_agreements(ours, theirs, unit, seed)]


def _held(report: ProbeReport) -> pd.DataFrame:
    """The headline's held-out logits in the order of ids; folds and clusters numbered as they come."""
    mine = report.held_out[report.held_out["reader"] == report.main].sort_values("id", ignore_index=True)
    rows = mine[mine["rung"] == report.meta["rung"]].dropna(axis=1, how="all").reset_index(drop=True)
    fold = rows["fold"].astype(str)
    if report.target == "intensity":  # steps are compared inside a scene: a cluster of the pair rung
        fold += " " + rows["id"].map(mine[mine["rung"] == "pair"].set_index("id")["cluster"]).astype(str)
    y = rows["y"].astype(int if report.meta["classes"] else float)
    return rows.assign(y=y, fold=pd.factorize(fold)[0], cluster=pd.factorize(rows["cluster"])[0])


def _logits(held: pd.DataFrame) -> Float[np.ndarray, "item k"]:
    return held.filter(regex="^logit_").to_numpy(dtype=float)


def _worth(held: pd.DataFrame) -> Statistic:
    return metric(_logits(held), *(held[column].to_numpy() for column in ("y", "fold", "cluster")))


def paired(ours: pd.DataFrame, theirs: pd.DataFrame, unit: str, *, seed: int = 0) -> Estimate:
    """The metric of ``ours`` less that of ``theirs``, the same items in the same order, clusters resampled together."""
    n = int(ours["cluster"].max()) + 1
    if np.array_equal(_logits(ours), _logits(theirs)):
        return Estimate(0.0, 0.0, 0.0, n, unit, p=1.0, method=SAME)
    gap = less(a := _worth(ours), b := _worth(theirs))
    pseudo = np.nan_to_num(n * gap(np.ones((1, n))) - (n - 1) * gap(np.ones((n, n)) - np.eye(n)))
    flips = sign_flips(pseudo[:, None], seed=seed)
    found = subtract(a, b, n, unit, seed=seed, folds=ours["fold"].nunique())
    return replace(found, p=float(flips.p[0]), method=f"{found.method}; p: sign flips, at least {flips.attainable:.2g}")


def unpaired(ours: Estimate, theirs: Estimate) -> Estimate:
    """``ours`` less ``theirs`` as if independent; p is where the interval's side towards zero would touch it."""
    gap = ours.value - theirs.value
    below = float(np.hypot(ours.value - ours.low, theirs.high - theirs.value))
    above = float(np.hypot(ours.high - ours.value, theirs.value - theirs.low))
    p = float(2 * stats.norm.sf(stats.norm.ppf(0.975) * abs(gap) / max(below if gap > 0 else above, 1e-12)))
    n, how = ours.n + theirs.n, "from both intervals; p by the normal"
    return Estimate(gap, gap - below, gap + above, n, ours.unit, p, method=how)


def _agreements(ours: pd.DataFrame, theirs: pd.DataFrame, unit: str, seed: int) -> list[Row]:
    """Spearman's correlation of logits inside folds, and inside folds and labels; the interval by way of Fisher's z."""
    rows, groups = list[Row](), np.repeat(ours["cluster"].to_numpy(), _logits(ours).shape[1])
    for case, keys in {"all items": ["fold"], "items of one label": ["fold", "y"]}.items():
        a, b = (_ranks(held, keys) for held in (ours, theirs))
        if a.any() and b.any():  # else no two items to put in order
            z = estimate(formatting.correlation(a, b, groups), int(groups.max()) + 1, unit, seed=seed, bounds=None)
            value, low, high = (float(np.tanh(one)) for one in (z.value, z.low, z.high))
            rows.append((AGREEMENT, case, "", replace(z, value=value, low=low, high=high)))
    return rows


def _ranks(held: pd.DataFrame, keys: list[str]) -> Float[np.ndarray, " cell"]:
    """Ranks of logits, as shares, less their mean; of several classes, after each item's mean is taken off."""
    logits, strata = held.filter(regex="^logit_"), [held[key] for key in keys]
    ranks = (logits.sub(logits.mean(axis=1), axis=0) if logits.shape[1] > 1 else logits).groupby(strata).rank(pct=True)
    return (ranks - ranks.groupby(strata).transform("mean")).to_numpy().ravel()
