"""How much a verification runs, known before it runs."""

from dataclasses import dataclass

import pandas as pd

from affectlens.circuits.selecting import FRACTIONS
from affectlens.errors import CircuitError

FEWER = 20  # at sizes that no test is made at, so many times fewer random circuits: for the picture


@dataclass(frozen=True)
class Amounts:
    """How much of each part is run. Passes are counted a held-out pair.

    Attributes:
        fractions: the sizes of the curve, as shares of all edges.
        randoms: random circuits at the size that is tested; a twentieth as many at every other size.
        sets: random sets of the circuit's nodes that circuit and model both lose.
        drops: edges that are dropped one at a time (half of them the first by score, half drawn from the others; all if
            there are no more); half as many nodes, and half as many pairs of those edges.
        references: random paths added to the circuit, of each of which one edge is then dropped.
        patches: edges that are patched exactly: half the first by score, half drawn from all others.
        resamples: selections from resampled discovery scenes. They take no pass.
    """

    fractions: tuple[float, ...] = FRACTIONS
    randoms: int = 100
    sets: int = 8
    drops: int = 16
    references: int = 30
    patches: int = 32
    resamples: int = 50

    def __post_init__(self) -> None:
        counts = (self.randoms, self.sets, self.drops, self.references, self.patches, self.resamples)
        if min(counts) < 0 or not self.fractions or not all(0 < one <= 1 for one in self.fractions):
            raise CircuitError(
                f"These amounts can't be run: {self}. Give no negative number, and fractions above 0 and at most 1."
            )
        if list(self.fractions) != sorted(set(self.fractions)) or not any(one < 1 for one in self.fractions):
            raise CircuitError(f"The fractions {self.fractions} must rise, and one at least must be below 1.")

    @property
    def proper(self) -> tuple[float, ...]:
        """The sizes below the whole model."""
        return tuple(one for one in self.fractions if one < 1)


def cost(n_pairs: int, amounts: Amounts | None = None, *, choosing: int = 0) -> pd.DataFrame:
    """The forward passes that each part takes, at most: a small circuit has fewer edges and nodes to drop, and of
    circuits that are equal one is run.

    Args:
        n_pairs: held-out pairs.
        amounts: how much is run.
        choosing: discovery pairs on which the size is chosen.

    Returns:
        One row a part: ``part, a_pair, passes``; the last row is the ``total``. A pair's two unpatched runs are extra.
    """
    one = amounts or Amounts()
    sizes = len(one.fractions)
    parts = {
        "choosing": (sizes, choosing),
        "curve": (sizes + len(one.proper), n_pairs),
        "randoms": (one.randoms + (len(one.proper) - 1) * (one.randoms // FEWER), n_pairs),
        "sets": (2 * one.sets, n_pairs),
        "drops": (one.drops + 2 * (one.drops // 2), n_pairs),
        "references": (2 * one.references, n_pairs),
        "patches": (one.patches, n_pairs),
    }
    table = pd.DataFrame([(part, each, each * n) for part, (each, n) in parts.items()],
                         columns=["part", "a_pair", "passes"])  # fmt: skip
    total = pd.DataFrame([("total", int(table["a_pair"].sum()), int(table["passes"].sum()))], columns=table.columns)
    return pd.concat([table, total], ignore_index=True)
