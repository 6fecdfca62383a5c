"""The numbers of a circuit's edges: mean scores and exact effects, with intervals and tests over groups.

Groups (scenes) are resampled as everywhere (:func:`affectlens.patching.effects.measured`: cluster bootstrap, or the
jackknife with Student's t below 30 groups), all edges at once. Exact effects are tested by flipping signs of groups,
with max-T over every edge that was patched.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.circuits.space import Edges
from affectlens.errors import CircuitError
from affectlens.patching.effects import flipped, measured
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.circuits.graph import Scores

BLANK = ["effect", "effect_low", "effect_high", "p", "p_adjusted", "effect_n"]


def edge_table(
    scores: "Scores", mask: Edges, effects: pd.DataFrame | None = None, *, seed: int = 0
) -> tuple[pd.DataFrame, Json]:
    """One row an edge of the circuit, as :class:`affectlens.circuits.graph.CircuitGraph` wants it.

    Args:
        scores: of all edges, pair by pair.
        mask: the edges.
        effects: of exact path patching: columns ``pair, group, edge, effect``.
        seed: of bootstrap and flips.

    Returns:
        The table, and facts on the effects: how many edges were ``patched``, and ``attainable``, the least p.

    Raises:
        CircuitError: scores that are not finite, or effects of an edge that the space lacks.
    """
    space = scores.space
    rows, columns = np.nonzero(mask)
    values = scores.values[:, rows, columns].astype(np.float64)
    if not np.isfinite(values).all():
        raise CircuitError("Some scores of edges are not finite: run the model in float32.")
    group = pd.factorize(scores.pairs["group"])[0].astype(np.int64)
    table = pd.DataFrame({
        "sender": np.array(space.senders, dtype=object)[rows],
        "receiver": np.array(space.receivers, dtype=object)[columns],
    })  # fmt: skip
    table[["score", "score_low", "score_high"]] = _means(values, group, seed)[["value", "low", "high"]]
    facts: Json = {}
    table = table.assign(**dict.fromkeys(BLANK, np.nan), n=len(values))
    if effects is not None and len(effects):
        for edge in effects["edge"].unique():
            space.index(edge)
        exact, facts = exact_effects(effects, seed=seed)
        names = (table["sender"] + " -> " + table["receiver"]).to_numpy()
        table[BLANK] = exact.reindex(names)[BLANK].to_numpy(dtype=float)
    return table, facts


def exact_effects(effects: pd.DataFrame, *, seed: int = 0) -> tuple[pd.DataFrame, Json]:
    """Mean, interval and test of each patched edge.

    Args:
        effects: columns ``pair, group, edge, effect``, from exact path patching.
        seed: of bootstrap and flips.

    Returns:
        A table by edge: ``effect, effect_low, effect_high, p, p_adjusted, effect_n`` (pairs); and how many edges were
        ``patched``, and ``attainable``, the least p that this many groups can give.

    Raises:
        CircuitError: effects that are not finite.
    """
    if not np.isfinite(effects["effect"]).all():
        raise CircuitError("Some exact effects are not finite: run the model in float32.")
    wide = effects.pivot(index="pair", columns="edge", values="effect")
    groups = effects.drop_duplicates("pair").set_index("pair")["group"].reindex(wide.index)
    change, group = wide.to_numpy(dtype=float), pd.factorize(groups)[0].astype(np.int64)
    found = _means(change, group, seed)
    tested = flipped([change], group, seed)[0]
    out = pd.DataFrame({
        "effect": found["value"], "effect_low": found["low"], "effect_high": found["high"], "p": tested["p"],
        "p_adjusted": tested["p_adjusted"], "effect_n": wide.notna().sum().to_numpy(dtype=float),
    })  # fmt: skip
    facts = {"patched": int(wide.shape[1]), "attainable": float(tested["attainable"].iloc[0])}
    return out.set_index(wide.columns), facts


def _means(values: Float[np.ndarray, "pair edge"], group: np.ndarray, seed: int) -> pd.DataFrame:
    if not values.shape[1]:
        return pd.DataFrame({name: np.empty(0) for name in ("value", "low", "high")})
    return measured(values, np.ones(len(values)), group, seed)
