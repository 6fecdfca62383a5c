"""Minimality: what each edge, node and pair of edges of a circuit costs when it alone is dropped.

The cost is ``f(C) - f(C without it)`` on held-out scenes. Two tests are made of it, each corrected over its family.

- *Needed*: f falls. Signs are flipped over scenes; max-T over all drops of a kind. It holds the family-wise
  error at 5% under the null that a drop changes nothing.
- *Superfluous* (edges alone; Shi et al. 2024, arXiv:2410.13032): random paths are added to the circuit and one added
  edge is dropped from each. Under the null the circuit's edge costs more, in size, than such a random edge at least 90%
  of the time; a count too small for that by the binomial test rejects it, and one rejection is enough to call the
  circuit not minimal. Theirs is a count over references on the data at hand. Corrected by Holm (1979).

The interaction of a pair is its cost less its edges' single costs: above zero each stood in for the other.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import binom

from affectlens.circuits.verifying.ratios import Sums
from affectlens.circuits.verifying.removing import ALL, EDGE, PAIR, Drop
from affectlens.circuits.verifying.sizing import put
from affectlens.stats import Estimate, SignFlips, Statistic, Weights, binomial, less, sign_flips

LEVEL, QUANTILE = 0.05, 0.9
COLUMNS = ["kind", "removed", "chosen", "cost", "cost_low", "cost_high", "p", "p_adjusted", "needed", "beats",
           "p_superfluous", "p_superfluous_adjusted", "superfluous", "interaction", "interaction_low",
           "interaction_high", "n"]  # fmt: skip


def dropped(at: int) -> str:
    """The name of the circuit without the thing at a place of the plan."""
    return f"drop {at}"


def costs(sums: Sums, circuit: str, plan: Sequence[Drop], *, seed: int = 0) -> pd.DataFrame:
    """One row a drop: ``kind, removed, chosen``, ``cost`` and ``interaction`` with ``_low`` and ``_high``, ``p`` and
    ``p_adjusted`` that it is zero, ``needed``, ``n`` scenes.

    Args:
        sums: with the drops named by :func:`dropped`.
        circuit: the name of the whole one.
        plan: what was dropped.
        seed: of bootstrap and flips.
    """  # fmt: skip
    rows = []
    single = {one.removed: sums.one(dropped(at)) for at, one in enumerate(plan) if one.kind == EDGE}
    whole = sums.one(circuit)
    for at, one in enumerate(plan):
        row = {"kind": one.kind, "removed": one.removed, "chosen": one.chosen, "n": len(sums.n)}
        numbers: dict[str, float] = {}
        put(numbers, "cost", sums.estimate(less(whole, sums.one(dropped(at))), seed))
        if one.kind == PAIR:
            found = sums.estimate(_beyond(whole, sums.one(dropped(at)), [single[name] for name in one.parts]), seed)
            put(numbers, "interaction", found)
        rows.append(row | numbers)
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    for _, part in table.groupby("kind", sort=False):
        tested = flipped(sums, circuit, [dropped(int(at)) for at in part.index], seed=seed)
        table.loc[part.index, "p"], table.loc[part.index, "p_adjusted"] = tested.p, tested.p_adjusted
    table["needed"] = (table["p_adjusted"] <= LEVEL) & (table["cost"] > 0)
    return table


def flipped(sums: Sums, circuit: str, parts: Sequence[str], *, seed: int = 0) -> SignFlips:
    """Whether the metric differs between a circuit and parts of it: signs flipped over scenes, max-T over the parts.

    Args:
        sums: of all of them.
        circuit: the name of the whole one.
        parts: those of the others.
        seed: of the flips.
    """
    change = sums.value[:, [sums.at[circuit]]] - sums.value[:, [sums.at[part] for part in parts]]
    return sign_flips(change / sums.n.mean(), seed=seed)


def superfluous(
    table: pd.DataFrame, references: Float[np.ndarray, " reference"], *, quantile: float = QUANTILE
) -> pd.DataFrame:
    """The same table with ``beats`` (the share of references that cost less), ``p_superfluous``, adjusted, and whether.

    Args:
        table: from :func:`costs`.
        references: what dropping a random added edge cost.
        quantile: how often a needed edge costs more than a random one.
    """
    edges = table.index[table["kind"] == EDGE]
    out = table.copy()
    if not len(edges) or not len(references):
        return out.assign(superfluous=False)
    cost = np.abs(table.loc[edges, "cost"].to_numpy(dtype=float))
    more = (cost[:, None] > np.abs(references)[None]).sum(1)
    p = binom.cdf(more, len(references), quantile)
    out.loc[edges, "beats"] = more / len(references)
    out.loc[edges, "p_superfluous"], out.loc[edges, "p_superfluous_adjusted"] = p, holm(p)
    return out.assign(superfluous=(out["p_superfluous_adjusted"] <= LEVEL).fillna(False))


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Holm's adjusted p values.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]

    Args:
        p: of the family.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty(len(p))
    out[order] = np.minimum(stepped, 1.0)
    return out


def shares(table: pd.DataFrame) -> dict[str, Estimate]:
    """The share of edges that are needed and superfluous, by how they were chosen.

    Exact binomial intervals, as of edges drawn from many: how sure each edge's own verdict is, its test says.

    Args:
        table: from :func:`superfluous`.
    """
    out: dict[str, Estimate] = {}
    edges = table[table["kind"] == EDGE]
    for chosen, part in edges.groupby("chosen", sort=False):
        for what in ("needed", "superfluous"):
            name = what if chosen == ALL else f"{what}, {chosen}"
            out[name] = binomial(float(part[what].sum()), len(part), "edge")
    return out


def _beyond(whole: Statistic, both: Statistic, single: Sequence[Statistic]) -> Statistic:
    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        at = whole(weights)
        return (at - both(weights)) - sum(at - one(weights) for one in single)

    return statistic
