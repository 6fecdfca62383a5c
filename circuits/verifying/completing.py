"""Completeness: does the circuit lose what the model loses?

After Wang et al. (2023, arXiv:2211.00593): for a set K of the circuit's nodes, ``|F(C without K) - F(M without K)|`` is
small if nothing outside of the circuit stands in for K. F is given in units of f. Sets are random; theirs are also
chosen greedily to be bad, which takes many more passes. The size of a difference is never below zero, so its mean
over sets is above zero even of a complete circuit, by as much as the differences are uncertain: read it beside the
signed ones. And most sets hold no node that something outside stands in for, so the mean hides what one set shows: the
worst set stands beside it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from affectlens.circuits.verifying.needing import LEVEL
from affectlens.circuits.verifying.ratios import UNIT, Sums
from affectlens.circuits.verifying.sizing import put, sizes_within
from affectlens.stats import Estimate, band, less, sign_flips

MEAN, WORST = "incompleteness", "incompleteness, worst"
METHOD = "simultaneous band (sup-t) of the differences"


def cut_circuit(at: int) -> str:
    """The name of the circuit without a set of nodes."""
    return f"circuit without set {at}"


def cut_model(at: int) -> str:
    """The name of the model without a set of nodes."""
    return f"model without set {at}"


def incompleteness(
    sums: Sums, sets: Sequence[Sequence[str]], *, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, Estimate]]:
    """One row a set: ``set, nodes, names, circuit, model, difference`` (circuit less model; the last three with
    ``_low`` and ``_high``), ``p, p_adjusted`` (signs flipped over scenes, max-T over sets), ``differs``,
    ``worst`` (of one, that of the largest difference); and the figures :data:`MEAN` and :data:`WORST`, the mean and the
    largest size of the differences. Their simultaneous band knows that the worst was picked.

    Args:
        sums: with circuits named by :func:`cut_circuit` and :func:`cut_model`.
        sets: the names of the nodes of each.
        seed: of bootstrap and flips.
    """  # fmt: skip
    if not sets:
        return pd.DataFrame(), {}
    rows, change = [], []
    for at, names in enumerate(sets):
        ours, theirs = cut_circuit(at), cut_model(at)
        numbers: dict[str, float] = {}
        put(numbers, "circuit", sums.estimate(sums.one(ours), seed))
        put(numbers, "model", sums.estimate(sums.one(theirs), seed))
        put(numbers, "difference", sums.estimate(less(sums.one(ours), sums.one(theirs)), seed))
        rows.append({"set": at, "nodes": len(names), "names": " ".join(names)} | numbers)
        change.append((sums.value[:, sums.at[ours]] - sums.value[:, sums.at[theirs]]) / sums.n.mean())
    tested = sign_flips(np.stack(change, axis=1), seed=seed)
    table = pd.DataFrame(rows).assign(p=tested.p, p_adjusted=tested.p_adjusted, differs=tested.p_adjusted <= LEVEL)

    family = [less(sums.one(cut_circuit(at)), sums.one(cut_model(at))) for at in range(len(sets))]
    away, least, most = sizes_within(band(family, len(sums.n), seed=seed), 0.0)
    found = {name: Estimate(float(of(away)), float(of(least)), float(of(most)), len(sums.n), UNIT, method=METHOD)
             for name, of in ((MEAN, np.mean), (WORST, np.max))}  # fmt: skip
    return table.assign(worst=table.index == int(away.argmax())), found
