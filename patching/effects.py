"""What a sweep's table says: effects with intervals, beside their controls, for a whole grid of cells at once.

1. *Pairs.* A pair whose baselines are equal within rounding is left out of that metric, which is decided before any
   patched value is seen. A metric *tells* clean from corrupt if the 95% interval of its mean gap excludes zero.
2. *Effects.* The sum of the changes over the sum of the gaps, of the pairs that have the cell: a ratio of means, not a
   mean of ratios. 0 is nothing, 1 all of the gap. Where the gap of a cell's pairs may be zero nothing is divided: the
   effect is then the mean change, in the metric's unit.
3. *Intervals and tests.* Groups are resampled as in :func:`affectlens.stats.estimate`. Signs of their summed changes
   are flipped, with max-T over the family (Westfall and Young 1993); a group without the cell counts as unchanged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from scipy import stats

from affectlens.errors import PatchError
from affectlens.stats import DRAWS, FEW_CLUSTERS, multinomial, sign_flips

ROUNDING = 1e-5  # of a metric's size: what is smaller is the arithmetic's
LEVEL = 0.05
CELL = ["metric", "kind", "layer", "index", "segment", "extent"]
MATCHED, NOTHING = "matched", "nothing"
NULLS = {"denoise": ("random", "neutral", "wrong_position"),
         "noise": ("same_emotion", "wrong_position", "random_change")}  # fmt: skip
_HELD = 10_000_000  # flips times columns that are held at once


@dataclass(frozen=True, eq=False)
class Grid:
    """The changes of one metric's pairs at every cell; pairs that their baselines leave out are not among them."""

    cells: pd.DataFrame  # CELL; extent: segment (patched as a whole) or token (the mean over its tokens, one by one)
    names: list[str]  # of the pairs
    group: Int[np.ndarray, " pair"]  # numbered
    gap: Float[np.ndarray, " pair"]
    change: dict[str, Float[np.ndarray, "pair cell"]]  # by source; NaN where a pair has no such cell


def lay_out(table: pd.DataFrame, metric: str, direction: str) -> Grid:
    """The grid of one metric, from the tidy table of a sweep.

    Raises:
        PatchError: an unknown direction, or values that are not finite.
    """
    if direction not in NULLS:
        raise PatchError(f"There is no direction {direction!r}: it is {' or '.join(NULLS)}.")
    rows = table[table["metric"] == metric]
    ends, least = usable(rows)
    rows = rows[rows["pair"].isin(ends.index)]
    if len(bad := rows[~np.isfinite(rows["value"])]):
        pair, layer, kind = bad[["pair", "layer", "kind"]].to_numpy()[0]
        raise PatchError(f"{metric} is not finite with L{layer}.{kind} of {pair} patched: run the model in float32.")
    moved = rows["value"] - rows["corrupt"] if direction == "denoise" else rows["clean"] - rows["value"]
    change = moved.where(moved.abs() > rows["pair"].map(least), 0.0).to_numpy(dtype=float)
    keys = rows.assign(extent=np.where(rows["position"] < 0, "segment", "token")).groupby(CELL, sort=True)
    cells = keys.size().reset_index()[CELL]
    size = len(ends), len(cells)
    at = ends.index.get_indexer(pd.Index(rows["pair"])) * size[1] + keys.ngroup().to_numpy()
    found = {}
    for source in rows["source"].unique():
        here = (rows["source"] == source).to_numpy()
        total, count = (np.bincount(at[here], w, size[0] * size[1]).reshape(size) for w in (change[here], None))
        found[str(source)] = _over(total, count)
    gap = (ends["clean"] - ends["corrupt"]).to_numpy(dtype=float)
    return Grid(cells, ends.index.tolist(), pd.factorize(ends["group"])[0], gap, found)


def baselines(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """What each metric says of the unpatched texts, and which pairs can be used.

    Args:
        table: the tidy table of a sweep.
        seed: of the bootstrap.

    Returns:
        One row a metric: ``metric``; ``clean``, ``corrupt`` and ``gap`` (means over the pairs used, in the metric's
        unit), each with its 95% interval ``_low`` and ``_high``; ``n`` groups; ``unit``; ``pairs`` used; ``left_out``
        for equal baselines and the ``share`` of them; ``tells``; ``method``.
    """
    out = []
    for metric, rows in table.groupby("metric", sort=False):
        used, every = usable(rows)[0], rows["pair"].nunique()
        values = used[["clean", "corrupt"]].assign(gap=used["clean"] - used["corrupt"]).to_numpy(dtype=float)
        means = measured(values, np.ones(len(used)), pd.factorize(used["group"])[0], seed).to_dict("records")
        row: dict[str, object] = {"metric": metric}
        for name, one in zip(("clean", "corrupt", "gap"), means, strict=True):
            row |= {name: one["value"], f"{name}_low": one["low"], f"{name}_high": one["high"]}
        gap, left = means[2], every - len(used)
        row |= {"n": gap["n"], "unit": "group", "pairs": len(used), "left_out": left, "share": left / every}
        out.append(row | {"tells": gap["low"] > 0 or gap["high"] < 0, "method": gap["method"]})
    return pd.DataFrame(out)


def effects(table: pd.DataFrame, direction: str, *, seed: int = 0) -> pd.DataFrame:
    """The effect of each cell, with its interval. Positions patched one by one are averaged in their segment, by pair.

    Args:
        table: the tidy table of a sweep.
        direction: denoise or noise.
        seed: of bootstrap and flips.

    Returns:
        One row a source and cell: ``source, metric, kind, layer, index, segment, extent`` (segment: patched as a whole;
        token: one by one); ``value, low, high``, a share of the gap if ``normalised``, else in the metric's unit;
        ``n`` groups, ``unit``, ``change`` (mean, in the metric's unit), ``pairs``, ``method``; ``complete`` (each pair
        changes by its whole gap). Of source matched also ``p``, ``p_adjusted`` (max-T over the metric's cells),
        ``attainable`` (the least p that these groups can give) and ``detectable`` (what is found with 80% power at the
        cell's precision even under Bonferroni's correction, which max-T undercuts).

    Raises:
        PatchError: an unknown direction, values that are not finite, or no pair whose baselines differ.
    """
    parts = []
    for grid, tells in _grids(table, direction, seed):
        for source, change in grid.change.items():
            short = np.abs(change - grid.gap[:, None]) > 1e-3 * np.abs(grid.gap)[:, None]
            found = _found(grid, source, change, tells, seed).assign(complete=np.logical_not(short.any(0)))
            if source == MATCHED:
                df = np.maximum(found["n"] - 1, 1)
                t = stats.t.ppf(1 - LEVEL / 2 / len(found), df) + stats.t.ppf(0.8, df)
                error = (found["high"] - found["low"]) / 2 / stats.t.ppf(0.975, df)
                found = found.join(flipped([change], grid.group, seed)[0])
                found["detectable"] = (error * t).where(found["attainable"] <= LEVEL, np.inf)
            parts.append(found[found["n"] > 0])
    return pd.concat(parts, ignore_index=True)


def beside(table: pd.DataFrame, direction: str, *, nulls: Sequence[str] | None = None, seed: int = 0) -> pd.DataFrame:
    """Each cell's effect less that of every control, paired by pair, and which cells are specific.

    *The rule.* A cell is specific if its effect and its difference from every null control that was run are all above
    zero, with adjusted p at most 0.05. No strongest control is picked, which would be done on the same data: all must
    be beaten (an intersection-union test), so a single cell needs no correction for their number. But which of them is
    not truly beaten may differ from cell to cell, so max-T runs over cells and null controls together; then the chance
    that any cell is called specific wrongly is at most 0.05.

    *The null controls.* What a clean text restores (denoise) must exceed what a random text, a neutral one and another
    position restore. What a corrupt text removes (noise) random and neutral texts remove too: there it must exceed what
    another scene's text of the *same* emotion and another position remove, and in an ablation a random change of the
    same norm. Other controls are reported, each with max-T over its own cells.

    Args:
        table: the tidy table of a sweep.
        direction: denoise or noise.
        nulls: controls that a specific cell must beat, of those that were run; the ones above if not given.
        seed: of bootstrap and flips.

    Returns:
        One row a ``control`` and cell, as in :func:`effects`; ``value`` is matched less control, ``null`` whether
        the rule asks for it, ``specific`` a cell's verdict. Control ``nothing`` is the effect itself. Without a
        null control, or where nothing is normalised, no cell is specific.

    Raises:
        PatchError: as :func:`effects`, or if the pairs' own texts were not patched in.
    """
    parts = []
    for grid, tells in _grids(table, direction, seed):
        if MATCHED not in grid.change:
            raise PatchError("The pairs' own texts were not patched in: there is nothing to set beside the controls.")
        own = grid.change[MATCHED]
        less = {NOTHING: own} | {name: own - change for name, change in grid.change.items() if name != MATCHED}
        joint = [NOTHING, *(name for name in less if name in (NULLS[direction] if nulls is None else nulls))]
        for family in (joint, *([name] for name in less if name not in joint)):
            for name, p in zip(family, flipped([less[name] for name in family], grid.group, seed), strict=True):
                found = _found(grid, name, less[name], tells, seed).join(p)
                parts.append(found.assign(null=family is joint, asked=len(joint))[found["n"] > 0])
    out = pd.concat(parts, ignore_index=True).rename(columns={"source": "control"})
    passed = out["null"] & out["normalised"] & (out["value"] > 0) & (out["p_adjusted"] <= LEVEL)
    beaten = passed.groupby([out[name] for name in CELL]).transform("sum")
    return out.assign(specific=(beaten == out["asked"]) & (out["asked"] > 1)).drop(columns="asked")


def _grids(table: pd.DataFrame, direction: str, seed: int) -> Iterator[tuple[Grid, bool]]:
    """Of each metric that some pair can be used for, the grid and whether it tells."""
    known = baselines(table, seed=seed)
    if not known["pairs"].any():
        raise PatchError("No pair's baselines differ, so nothing can be patched back: choose another metric or cue.")
    for metric, tells in known.loc[known["pairs"] > 0, ["metric", "tells"]].itertuples(index=False):
        yield lay_out(table, metric, direction), tells


def _found(grid: Grid, source: str, change: Float[np.ndarray, "pair cell"], tells: bool, seed: int) -> pd.DataFrame:
    found = grid.cells.join(measured(change, grid.gap, grid.group, seed, tells))
    return found.assign(source=source)[["source", *found]]


def measured(
    change: Float[np.ndarray, "pair cell"], gap: Float[np.ndarray, " pair"], group: Int[np.ndarray, " pair"], seed: int,
    tells: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Value and interval of each column over the pairs that have it: a share of the gap if ``tells``, else a mean."""
    patterns, which = np.unique(np.isfinite(change), axis=1, return_inverse=True)
    parts = []
    for number, pairs in enumerate(patterns.T):
        columns, codes = np.flatnonzero(which.ravel() == number), np.unique(group[pairs], return_inverse=True)[1]
        total, gaps = _sums(change[np.ix_(pairs, columns)], codes), _sums(gap[pairs, None], codes)
        counts = _sums(np.ones((len(codes), 1)), codes)
        _, low, high = _interval(gaps, counts, seed)[:, 0]
        normalised = bool(tells and (low > 0 or high < 0))
        value, low, high = _interval(total, gaps if normalised else counts, seed)
        method = f"cluster bootstrap, {DRAWS} draws" if len(total) >= FEW_CLUSTERS else "cluster jackknife, Student's t"
        parts.append(pd.DataFrame({
            "value": value, "low": low, "high": high, "n": len(total), "unit": "group", "normalised": normalised,
            "change": _over(total.sum(0), counts.sum()), "pairs": len(codes), "method": method,
        }, index=columns))  # fmt: skip
    return pd.concat(parts).sort_index()


def _interval(total: Float[np.ndarray, "group cell"], base: Float[np.ndarray, "group 1"], seed: int) -> np.ndarray:
    """:func:`affectlens.stats.estimate` of many ratios of sums over groups: value, low and high, ``[3, cell]``."""
    n, value = len(total), _over(total.sum(0), base.sum())
    if n >= FEW_CLUSTERS:
        weights = multinomial(n, seed)
        kept = weights[(weights @ base)[:, 0] != 0]
        parts = [kept @ total[:, i : i + 512] / (kept @ base) for i in range(0, total.shape[1], 512)]
        return np.vstack([value, np.hstack([np.percentile(part, [2.5, 97.5], axis=0) for part in parts])])
    left = _over(total.sum(0) - total, base.sum() - base)
    k = np.isfinite(left).sum(0)
    part = left - np.nansum(left, axis=0) / np.maximum(k, 1)
    error = np.sqrt(np.nansum(part**2, axis=0) * (k - 1).clip(0) / np.maximum(k, 1))
    half = np.where(k > 1, stats.t.ppf(0.975, np.maximum(k - 1, 1)) * error, np.inf)
    return np.stack([value, value - half, value + half])


def flipped(changes: list[np.ndarray], group: Int[np.ndarray, " pair"], seed: int) -> list[pd.DataFrame]:
    """Sign flips of all columns of all ``changes`` as one family; a table each."""
    totals = _sums(np.nan_to_num(np.hstack(changes)), group)
    found = sign_flips(totals, seed=seed, draws=int(np.clip(_HELD // totals.shape[1], 999, 9999)))
    columns = zip(np.split(found.p, len(changes)), np.split(found.p_adjusted, len(changes)), strict=True)
    return [pd.DataFrame({"p": p, "p_adjusted": adjusted, "attainable": found.attainable}) for p, adjusted in columns]


def usable(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """The baselines of one metric's pairs that differ, and of every pair what counts as rounding."""
    ends = rows.drop_duplicates("pair").set_index("pair")
    size = ends[["clean", "corrupt"]].abs().max(axis=1)
    least = ROUNDING * size.clip(lower=size.median())
    return ends[(ends["clean"] - ends["corrupt"]).abs() > least], least


def _over(a: Float[np.ndarray, "*shape"], b: Shaped[np.ndarray, "..."] | float) -> Float[np.ndarray, "*shape"]:
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=np.not_equal(b, 0))


def _sums(values: Float[np.ndarray, "pair cell"], codes: Int[np.ndarray, " pair"]) -> Float[np.ndarray, "group cell"]:
    return (codes == np.arange(codes.max(initial=-1) + 1)[:, None]).astype(float) @ values
