"""Would other scenes have given the same circuit? Edges are selected again from other means of the same scores.

Overlap is Jaccard's: shared over joint, of edges and of nodes. Resampled scenes share most of their scenes with all, so
the bootstrap's overlap is the most that can be hoped for; halves share none. Both stand beside what random circuits of
the same size and layers share with the circuit. Ranges are 95% of the selections, or from the least to the greatest
domain; they are no confidence intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.circuits.scoring import EdgeScores
from affectlens.circuits.space import Edges
from affectlens.circuits.verifying.removing import nodes_of

BOOTSTRAP, HALVES, LEFT, OWN, RANDOM = "bootstrap", "halves", "leave one domain out", "one domain", "random circuits"
COLUMNS = ["kind", "edges", "edges_low", "edges_high", "nodes", "nodes_low", "nodes_high", "selections", "least", "n",
           "note"]  # fmt: skip
Select = Callable[[Float[np.ndarray, "sender receiver"]], Edges]


@dataclass(frozen=True)
class Overlap:
    """Of two circuits."""

    edges: float
    nodes: float
    name: str = ""


def overlap(a: Edges, b: Edges, name: str = "") -> Overlap:
    """Jaccard's index of edges and of nodes; of two empty circuits 1.

    Args:
        a: a circuit.
        b: another.
        name: what the two are.
    """
    mine, theirs = set(nodes_of(a).tolist()), set(nodes_of(b).tolist())
    either, joint = int((a | b).sum()), len(mine | theirs)
    return Overlap(int((a & b).sum()) / either if either else 1.0, len(mine & theirs) / joint if joint else 1.0, name)


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

    found: dict[str, list[Overlap]] = {BOOTSTRAP: [], HALVES: []}
    for _ in range(resamples if n > 1 else 0):
        found[BOOTSTRAP].append(overlap(again(rng.multinomial(n, np.full(n, 1 / n))[group]), circuit))
        first = np.isin(group, rng.permutation(n)[: n // 2])
        found[HALVES].append(overlap(again(first), again(~first)))
    domain = scores.pairs["domain"].fillna("").astype(str) if "domain" in scores.pairs else pd.Series("", index=group)
    there = sorted(set(domain) - {""})
    many = there if len(there) > 1 else []
    found[LEFT] = [overlap(again((domain != one).to_numpy()), circuit, one) for one in many]
    found[OWN] = [overlap(again((domain == one).to_numpy()), circuit, one) for one in many]
    found[RANDOM] = [overlap(one, circuit) for one in randoms]
    return pd.DataFrame([_row(kind, overlaps, n) for kind, overlaps in found.items()], columns=COLUMNS)


def _row(kind: str, overlaps: Sequence[Overlap], n: int) -> dict[str, object]:
    if not overlaps:
        why = "not applicable: one domain alone" if kind in (LEFT, OWN) else "not run: no selection was asked for"
        return {"kind": kind, "selections": 0, "n": n, "note": why, "least": ""}
    row: dict[str, object] = {"kind": kind, "selections": len(overlaps), "n": n, "note": ""}
    ends = (0.0, 1.0) if kind in (LEFT, OWN) else (0.025, 0.975)
    for what in ("edges", "nodes"):
        shared = np.array([getattr(one, what) for one in overlaps])
        low, high = np.quantile(shared, ends)
        row |= {what: float(shared.mean()), f"{what}_low": float(low), f"{what}_high": float(high)}
    return row | {"least": min(overlaps, key=lambda one: one.edges).name}
