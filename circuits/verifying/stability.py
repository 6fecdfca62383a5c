"""Would other scenes have given the same circuit? Edges are selected again from other means of the same scores.

Overlap is Jaccard's: shared over joint, of edges and of nodes. Resampled scenes share most of their scenes with all, so
the bootstrap's overlap is the most that can be hoped for; halves share none. Both stand beside what random circuits of
the same size and layers share with the circuit. Ranges are 95% of the selections, or from the least to the greatest
domain; they are no confidence intervals.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.circuits.linking import on
from affectlens.circuits.overlapping import jaccard
from affectlens.circuits.scoring import EdgeScores
from affectlens.circuits.space import Edges, EdgeSpace

BOOTSTRAP, HALVES, LEFT, OWN, RANDOM = "bootstrap", "halves", "leave one domain out", "one domain", "random circuits"
COLUMNS = ["kind", "edges", "edges_low", "edges_high", "nodes", "nodes_low", "nodes_high", "selections", "least", "n",
           "note"]  # fmt: skip
Two = tuple[Edges, Edges]
Select = Callable[[Float[np.ndarray, "sender receiver"]], Edges]


def stability(
    scores: EdgeScores, select: Select, circuit: Edges, randoms: Sequence[Edges], *, resamples: int = 50, seed: int = 0
) -> pd.DataFrame:
    """One row a way of choosing other scenes: mean ``edges`` and ``nodes`` shared with their ranges, how many
    ``selections``, the ``least`` alike, ``n`` scenes, and a ``note`` where it does not apply.

    Args:
        scores: of each discovery pair.
        select: from mean scores to a circuit of the size.
        circuit: what all scenes give.
        randoms: of the same size and layers.
        resamples: selections from resampled scenes, and pairs of halves.
        seed: of resamples and halves.
    """  # fmt: skip
    group, names = pd.factorize(scores.pairs["group"])
    n, rng = len(names), np.random.default_rng(seed)

    def again(weight: np.ndarray) -> Edges:
        total = np.tensordot(weight.astype(np.float32), scores.values, axes=1) / weight.sum()
        return select(np.asarray(total, dtype=np.float64))

    found: dict[str, list[Two]] = {BOOTSTRAP: [], HALVES: []}
    for _ in range(resamples if n > 1 else 0):
        found[BOOTSTRAP].append((again(rng.multinomial(n, np.full(n, 1 / n))[group]), circuit))
        first = np.isin(group, rng.permutation(n)[: n // 2])
        found[HALVES].append((again(first), again(~first)))
    domain = scores.pairs["domain"].fillna("").astype(str) if "domain" in scores.pairs else pd.Series("", index=group)
    there = sorted(set(domain) - {""})
    many = there if len(there) > 1 else []
    found[LEFT] = [(again((domain != one).to_numpy()), circuit) for one in many]
    found[OWN] = [(again((domain == one).to_numpy()), circuit) for one in many]
    found[RANDOM] = [(one, circuit) for one in randoms]
    rows = [_row(scores.space, kind, twos, many, n) for kind, twos in found.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(space: EdgeSpace, kind: str, twos: Sequence[Two], domains: Sequence[str], n: int) -> dict[str, object]:
    if not twos:
        why = "not applicable: one domain alone" if kind in (LEFT, OWN) else "not run: no selection was asked for"
        return {"kind": kind, "selections": 0, "n": n, "note": why, "least": ""}
    named = kind in (LEFT, OWN)
    row: dict[str, object] = {"kind": kind, "selections": len(twos), "n": n, "note": ""}
    edges = np.array([jaccard(a.ravel(), b.ravel()) for a, b in twos])
    nodes = np.array([jaccard(on(space, a), on(space, b)) for a, b in twos])
    for what, shared in (("edges", edges), ("nodes", nodes)):
        low, high = np.quantile(shared, (0.0, 1.0) if named else (0.025, 0.975))
        row |= {what: float(shared.mean()), f"{what}_low": float(low), f"{what}_high": float(high)}
    return row | {"least": domains[int(edges.argmin())] if named else ""}
