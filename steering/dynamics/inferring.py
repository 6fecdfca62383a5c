"""Estimates of the figures over scripts, and their null by turn order.

A script is a cluster: figures are computed in each (values averaged over repeats first), then averaged over scripts,
with the intervals of :func:`affectlens.stats.estimate`. The replies' values are put into another order within each
script, each time the same for all figures of a protocol; p is the share of orders whose mean is at least as far from
the orders' mean, in their own standard deviations; corrected over rules and figures by the largest (max-T, Westfall
and Young 1993).

Turn order alone is no proof of the loop's work: users' lines differ by turn too, and plain replies follow them. A
figure is the loop's only where the controls do not have it (:mod:`affectlens.steering.dynamics.contrasting`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.stats import DRAWS, Estimate, Statistic, Weights, estimate
from affectlens.steering.dynamics.measuring import LAGS, PUSHED, RAMPED, Rest, figure_of, tracking
from affectlens.steering.dynamics.policies import CLOSED, PLAIN, POLICIES
from affectlens.steering.dynamics.scripts import Phases

UNIT = "script"


@dataclass(frozen=True, eq=False)
class Measured:
    """The replies' values of one protocol.

    Attributes:
        protocol: push or ramp.
        values: by rule and policy; ``[script, turn]``, averaged over repeats. Plain replies are under each rule.
        states: by rule, the valence of the mood that the user's lines alone would make: the same for every policy.
        phases: of the turns.
    """

    protocol: str
    values: dict[tuple[str, str], Float[np.ndarray, "script turn"]]
    states: dict[str, Float[np.ndarray, "script turn"]]
    phases: Phases

    @property
    def rest(self) -> Rest:
        """The mean of plain replies to the calm turns before the push, script by script."""
        plain = next(values for (_, policy), values in self.values.items() if policy == PLAIN)
        return plain[:, self.phases.calm].mean(1, keepdims=True)


def measured(rows: pd.DataFrame, protocol: str, *, sign: int = -1) -> Measured | None:
    """The values of one protocol from the table of turns; None if it was not run.

    Args:
        rows: one a conversation and turn, with ``measured`` and ``alone``.
        protocol: push or ramp.
        sign: of the push.
    """
    mine = rows[rows["protocol"] == protocol]
    if mine.empty:
        return None
    scripts = sorted(set(mine["script"]))  # one order under every protocol: differences are pairs

    def grid(part: pd.DataFrame, column: str) -> Float[np.ndarray, "script turn"]:
        return part.pivot_table(index="script", columns="turn", values=column).loc[scripts].to_numpy(dtype=float)

    first = mine[mine["script"] == scripts[0]].drop_duplicates("turn").sort_values("turn")
    plain, values, states = grid(mine[mine["policy"] == PLAIN], "measured"), {}, {}
    for rule in [name for name in dict.fromkeys(mine["rule"]) if name]:
        own = mine[mine["rule"] == rule]
        values[rule, PLAIN] = plain
        values |= {(rule, policy): grid(own[own["policy"] == policy], "measured") for policy in POLICIES[1:]
                   if (own["policy"] == policy).any()}  # fmt: skip
        states[rule] = grid(own[own["policy"] == CLOSED], "alone")
    return Measured(protocol, values, states, Phases.of(first["level"].tolist(), sign))


def figures(
    protocols: Sequence[Measured], *, band: float, window: int, seed: int = 0, draws: int = DRAWS - 1
) -> pd.DataFrame:
    """Every figure of every rule and policy, with its interval, its null by turn order and p.

    Args:
        protocols: push and ramp, or one of them.
        band: of settling.
        window: of smoothing.
        seed: of bootstrap and orders.
        draws: orders of turns.

    Returns:
        A row a figure, rule and policy: ``value, low, high, n, method, null`` (the mean over orders of turns), ``p,
        p_adjusted`` (of the closed loops), and ``censored``, the share of scripts that never settle.
    """
    rows, seen, null = [], [], []
    for one in protocols:
        for (rule, policy), values in one.values.items():
            for name in names_of(one):
                of = figure_of(name, band=band, window=window)
                by_script = of(values, one.states[rule], one.phases, one.rest)
                found = estimate(mean_of(by_script), len(by_script), UNIT, seed=seed, bounds=None)
                row = {"figure": name, "rule": rule, "policy": policy, **said(found)}
                if name == "settling":
                    row["censored"] = float(figure_of("censored", band=band, window=window)(
                        values, one.states[rule], one.phases, one.rest).mean())  # fmt: skip
                rows.append(row)
                if policy == CLOSED:
                    seen.append(len(rows) - 1)
                    shuffled = _orders(values, draws, seed)
                    null.append(_mean_known(of(shuffled, one.states[rule], one.phases, one.rest)))
    table = pd.DataFrame(rows)
    drawn = np.stack(null, axis=1)
    p, adjusted = exceeding(table["value"].to_numpy(dtype=float)[seen], drawn)
    for column, got in (("null", _mean_known(drawn.T)), ("p", p), ("p_adjusted", adjusted)):
        table[column] = np.nan
        table.loc[seen, column] = got
    return table


def lags(one: Measured, *, seed: int = 0) -> pd.DataFrame:
    """Tracking by lag: the replies' values so many turns after the mood that the user's lines alone would make.

    Args:
        one: of the push.
        seed: of the bootstrap.

    Returns:
        A row a rule, policy and lag: ``value, low, high, n, method``.
    """
    rows = []
    for (rule, policy), values in one.values.items():
        for lag in range(min(LAGS, values.shape[1] - 3)):
            by_script = tracking(values, one.states[rule], lag=lag)
            found = estimate(mean_of(by_script), len(by_script), UNIT, seed=seed, bounds=None)
            rows.append({"rule": rule, "policy": policy, "lag": lag, **said(found)})
    return pd.DataFrame(rows)


def exceeding(
    seen: Float[np.ndarray, " figure"], drawn: Float[np.ndarray, "draw figure"]
) -> tuple[Float[np.ndarray, " figure"], Float[np.ndarray, " figure"]]:
    """Two-sided p of figures among draws, each by itself and by max-T, (1 + hits) / (1 + draws).

    Args:
        seen: the figures.
        drawn: the same under the null.
    """
    centre, spread = drawn.mean(0), drawn.std(0)
    spread = np.where(spread > 1e-12, spread, np.inf)
    far, drawn_far = np.abs(seen - centre) / spread, np.abs(drawn - centre) / spread
    far, drawn_far = np.nan_to_num(far), np.nan_to_num(drawn_far)
    hits = (drawn_far >= far - 1e-9).sum(0)
    hits_any = (drawn_far.max(1, keepdims=True) >= far - 1e-9).sum(0)
    return (1 + hits) / (1 + len(drawn)), (1 + hits_any) / (1 + len(drawn))


def names_of(one: Measured) -> tuple[str, ...]:
    """The figures that are read on a protocol.

    Args:
        one: its values.
    """
    return RAMPED if one.protocol == "ramp" else PUSHED


def _orders(values: Float[np.ndarray, "script turn"], draws: int, seed: int) -> Float[np.ndarray, "draw script turn"]:
    """The values with their turns in other orders, each script in its own."""
    luck = np.random.default_rng(seed).random((draws, *values.shape))
    return np.take_along_axis(np.broadcast_to(values, luck.shape), luck.argsort(-1), axis=-1)


def _mean_known(values: Float[np.ndarray, "draw any"]) -> Float[np.ndarray, " draw"]:
    """The mean of each row over what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total = known.sum(1)
    return np.where(total > 0, np.where(known, values, 0.0).sum(1) / np.maximum(total, 1), np.nan)


def mean_of(by_script: Float[np.ndarray, " script"]) -> Statistic:
    """The weighted mean over the scripts that have the figure.

    Args:
        by_script: the figure, NaN where it is not to be had.
    """
    there = np.isfinite(by_script)
    known = np.where(there, by_script, 0.0)

    def mean(weights: Weights) -> Float[np.ndarray, " draw"]:
        total = weights @ there.astype(float)
        return np.divide(weights @ known, total, out=np.full(len(weights), np.nan), where=total > 0)

    return mean


def said(found: Estimate) -> dict[str, object]:
    """An estimate as columns.

    Args:
        found: with its interval.
    """
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n, "method": found.method}
