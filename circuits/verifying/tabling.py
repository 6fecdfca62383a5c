"""From the passes' tables to the tables of a result."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from affectlens.circuits.scoring import EdgeScores
from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.circuits.verifying import completing, needing, predicting, ranking
from affectlens.circuits.verifying.plan import Amounts
from affectlens.circuits.verifying.ratios import Sums, cpr
from affectlens.circuits.verifying.removing import Drop
from affectlens.circuits.verifying.sizing import cmd_of, curve, kept, rest, size_at
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair
from affectlens.stats import Estimate, Weights, less, sign_flips
from affectlens.types import Json

Tables = dict[str, pd.DataFrame]


def divides(sums: Sums, seed: int = 0) -> bool:
    """Whether the gap between full and none is told from zero, so that it may be divided by.

    Args:
        sums: of the curve.
        seed: of the bootstrap.
    """
    found = sums.estimate(sums.gap_mean, seed)
    return found.low > 0 or found.high < 0


def statistics(
    values: pd.DataFrame, amounts: Amounts, at: float | None, *, plan: Sequence[Drop] = (),
    sets: Sequence[Sequence[str]] = (), edges: pd.DataFrame | None = None, effects: pd.DataFrame | None = None,
    stable: pd.DataFrame | None = None, seed: int = 0,
) -> Tables:  # fmt: skip
    """The tables of a :class:`~affectlens.circuits.verifying.result.Verification` but ``values`` and ``circuit``.

    Args:
        values: of every circuit that was run.
        amounts: what was asked.
        at: the size that was tested; None if the gap is not told from zero.
        plan: what was dropped.
        sets: names of the nodes of each random set.
        edges: those that were patched.
        effects: of their patches.
        stable: the table of stability.
        seed: of bootstrap and flips.
    """
    sums = Sums.of(values)
    gap = sums.estimate(sums.gap_mean, seed)
    figures = {"gap": _with_p(gap, sums, seed)}
    if at is None:
        return {"figures": figures_frame(figures)}
    table, whole = curve(sums, amounts.fractions, seed=seed)
    figures |= {"cpr": _area(sums, amounts), "cmd": cmd_of(amounts.fractions, whole, len(sums.n)),
                "size": size_at(amounts.fractions, whole, len(sums.n))}  # fmt: skip
    ours, theirs = sums.one(kept(at)), sums.one(rest(at))
    figures |= {"f": sums.estimate(ours, seed), "complement": sums.estimate(theirs, seed),
                "lead": sums.estimate(less(ours, theirs), seed)}  # fmt: skip
    drawn = ranking.randoms(sums, amounts.proper)
    if ranked := ranking.rank(sums, at, seed=seed):
        figures |= {"above_random": ranked, "near_random": ranking.near(sums, at)}
    missed, complete = completing.incompleteness(sums, sets, seed=seed)
    figures |= complete
    dropped, references = pd.DataFrame(), _references(sums)
    if plan:
        dropped = needing.superfluous(needing.costs(sums, kept(at), plan, seed=seed), references["cost"].to_numpy())
        figures |= needing.shares(dropped)
    patched = pd.DataFrame()
    if edges is not None and effects is not None and len(effects):
        patched = predicting.compared(edges, effects, gap.value, seed=seed)
        figures |= predicting.agreement(patched, effects)
    return {
        "figures": figures_frame(figures), "sizes": ranking.beside(drawn, table), "randoms": drawn, "sets": missed,
        "drops": dropped, "references": references, "edges": patched,
        "stability": pd.DataFrame() if stable is None else stable,
    }  # fmt: skip


def figures_frame(figures: dict[str, Estimate]) -> pd.DataFrame:
    """One row an estimate.

    Args:
        figures: by name.
    """
    return pd.DataFrame(
        [(name, one.value, one.low, one.high, one.n, one.unit, one.p, one.method) for name, one in figures.items()],
        columns=["name", "value", "low", "high", "n", "unit", "p", "method"],
    ).astype({"p": float})


def rows_of(space: EdgeSpace, circuit: Edges, scores: np.ndarray) -> pd.DataFrame:
    """One row an edge of a circuit: ``edge, score``, the largest first.

    Args:
        space: of the model.
        circuit: its edges.
        scores: mean score of every edge.
    """
    rows = [(space.name(int(row), int(column)), float(scores[row, column])) for row, column in np.argwhere(circuit)]
    table = pd.DataFrame(rows, columns=["edge", "score"])
    return table.sort_values("score", key=np.abs, ascending=False, kind="stable", ignore_index=True)


def facts_of(
    scores: EdgeScores, metric: Metric, pairs: Sequence[PatchPair], amounts: Amounts, rule: str, seed: int
) -> Json:
    """What there is to know about a verification, as JSON."""
    known = {name: scores.meta[name] for name in ("model", "fingerprint", "method", "steps") if name in scores.meta}
    return known | {
        "metric": metric.name, "unit": metric.unit, "rule": rule, "seed": seed, "size": None, "chosen_on": "",
        "n_edges": scores.space.n_edges, "fractions": list(amounts.fractions), "n_pairs": len(pairs),
        "n_scenes": len({pair.group for pair in pairs}), "n_discovery_pairs": len(scores.pairs),
        "n_discovery_scenes": int(scores.pairs["group"].nunique()),
    }  # fmt: skip


def _references(sums: Sums) -> pd.DataFrame:
    """What dropping a random added edge costs, one row a path. A distribution, so without intervals."""
    n = sum(name.startswith("more ") for name in sums.names)
    every = np.ones((1, len(sums.n)))
    more, fewer = (sums.f([f"{kind} {i}" for i in range(n)], every)[0] for kind in ("more", "less"))
    return pd.DataFrame({"path": np.arange(n), "cost": more - fewer})


def _area(sums: Sums, amounts: Amounts) -> Estimate:
    names = [kept(one) for one in amounts.fractions]

    def statistic(weights: Weights) -> np.ndarray:
        return cpr(amounts.fractions, sums.f(names, weights))

    return sums.by_jackknife(statistic)


def _with_p(gap: Estimate, sums: Sums, seed: int) -> Estimate:
    tested = sign_flips(sums.gap[:, None] / sums.n.mean(), seed=seed)
    return replace(gap, p=float(tested.p[0]))
