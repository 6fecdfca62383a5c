"""Shares of replies with intervals that resample prompts.

A prompt is the cluster. A share is the sum of hits over the sum of replies, both by prompt, so that resampling prompts
resamples all seeds of a prompt, and two conditions of the same prompts, together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.stats import AT_BOUND, Estimate, Statistic, Weights, estimate, paired
from affectlens.types import Json

RECORD = ("value", "low", "high", "n", "unit", "p", "p_adjusted", "interval")


def summed(
    rows: pd.DataFrame, values: Float[np.ndarray, " reply"], prompts: Sequence[str]
) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
    """Sums of values and numbers of replies by prompt; NaN values and other prompts' are left out.

    Args:
        rows: with a column ``prompt``.
        values: of each row.
        prompts: the clusters, in order.
    """
    code = pd.Index(prompts).get_indexer(pd.Index(rows["prompt"]))
    kept = (code >= 0) & np.isfinite(values)
    count = np.bincount(code[kept], minlength=len(prompts)).astype(float)
    return np.bincount(code[kept], weights=values[kept], minlength=len(prompts)), count


def mean_of(rows: pd.DataFrame, values: Float[np.ndarray, " reply"], prompts: Sequence[str]) -> Statistic:
    """The mean over replies as a function of prompt weights; NaN where no weight is left.

    Args:
        rows: with a column ``prompt``.
        values: of each row.
        prompts: the clusters.
    """
    total, count = summed(rows, values, prompts)

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        under = weights @ count
        return np.divide(weights @ total, under, out=np.full(len(weights), np.nan), where=under > 0)

    return statistic


def common(*parts: pd.DataFrame) -> list[str]:
    """The prompts that all parts have, in order.

    Args:
        parts: tables with a column ``prompt``.
    """
    return sorted(set.intersection(*(set(part["prompt"]) for part in parts)))


def share(rows: pd.DataFrame, hits: Float[np.ndarray, " reply"], *, seed: int = 0) -> Estimate:
    """The share of replies that hit, prompts resampled.

    Args:
        rows: the replies.
        hits: 1 or 0 of each.
        seed: of the bootstrap.
    """
    prompts = common(rows)
    return sound(estimate(mean_of(rows, hits, prompts), len(prompts), "prompt", seed=seed))


def gap(
    rows: pd.DataFrame, hits: Float[np.ndarray, " reply"], other: pd.DataFrame, others: Float[np.ndarray, " other"],
    *, seed: int = 0,
) -> Estimate | None:  # fmt: skip
    """The share in ``rows`` less that in ``other``, paired by prompt; None if they have no prompt in common.

    Args:
        rows: the replies of one condition.
        hits: 1 or 0 of each.
        other: those of another.
        others: 1 or 0 of each.
        seed: of the bootstrap.
    """
    prompts = common(rows, other) if len(rows) and len(other) else []
    if not prompts:
        return None
    one, two = mean_of(rows, hits, prompts), mean_of(other, others, prompts)
    return sound(paired(one, two, len(prompts), "prompt", seed=seed))


def called(rows: pd.DataFrame, column: str, label: str) -> Float[np.ndarray, " reply"]:
    """Whether each reply got a label: 1 or 0.

    Args:
        rows: the replies.
        column: of labels.
        label: the one that counts.
    """
    return (rows[column] == label).to_numpy(dtype=float)


def sound(found: Estimate) -> Estimate:
    """An estimate whose interval says what one prompt can: nothing.

    Args:
        found: the estimate.
    """
    if found.n == 1 and found.method != AT_BOUND:
        return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0), method="one prompt: no interval")
    return found


def record(found: Estimate) -> dict[str, object]:
    """An estimate as columns of a table; ``interval`` is how the interval was made.

    Args:
        found: the estimate.
    """
    values = (found.value, found.low, found.high, found.n, found.unit, found.p, found.p_adjusted, found.method)
    return dict(zip(RECORD, values, strict=True))


def read(row: Mapping[Any, Any]) -> Estimate:
    """The estimate that a row of a table holds.

    Args:
        row: with the columns that :func:`record` writes.
    """
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    p, adjusted = (None if pd.isna(row[name]) else float(row[name]) for name in ("p", "p_adjusted"))
    return Estimate(value, low, high, int(row["n"]), str(row["unit"]), p, adjusted, str(row["interval"]))


def first(rows: pd.DataFrame) -> Json | None:
    """The first row, by column; None of an empty table.

    Args:
        rows: of a table.
    """
    return None if rows.empty else {str(name): value for name, value in rows.iloc[0].items()}


def tabled(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a table with these columns first and always, and numbers where numbers belong.

    Args:
        rows: of estimates and what they are about.
        columns: that the table has, whether or not there are rows.
    """
    table = pd.DataFrame(list(rows))
    table = table.reindex(columns=[*columns, *(name for name in RECORD if name not in columns)])
    numbers = [name for name in ("value", "low", "high", "p", "p_adjusted", "dose", *NUMBERS) if name in table]
    return table.astype(dict.fromkeys(numbers, float))


NUMBERS = ("draws", "attainable", "detectable")
