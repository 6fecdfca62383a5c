"""What a verification runs, named once: the passes, and the choices of edges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.circuits.space import Edges, EdgeSpace


@dataclass(frozen=True)
class Tools:
    """The passes and the choices of edges.

    Attributes:
        values: :func:`affectlens.circuits.evaluating.circuit_values`.
        patch: :func:`affectlens.circuits.pathing.path_patch`.
        select: from space, mean scores and sizes to a circuit of each size.
        randomise: :func:`affectlens.circuits.sampling.random_circuits`.
    """

    values: Callable[..., pd.DataFrame]
    patch: Callable[..., pd.DataFrame]
    select: Callable[[EdgeSpace, Float[np.ndarray, "sender receiver"], Sequence[float]], dict[float, Edges]]
    randomise: Callable[..., Sequence[Edges]]

    @classmethod
    def of(cls, rule: str) -> "Tools":
        """Ours.

        Args:
            rule: by which edges are chosen: ``greedy`` or ``threshold``.
        """
        from affectlens.circuits.evaluating import circuit_values
        from affectlens.circuits.pathing import path_patch
        from affectlens.circuits.sampling import random_circuits
        from affectlens.circuits.selecting import at_sizes

        def select(
            space: EdgeSpace, scores: Float[np.ndarray, "sender receiver"], fractions: Sequence[float]
        ) -> dict[float, Edges]:
            return at_sizes(space, scores, fractions, rule)

        return cls(circuit_values, path_patch, select, random_circuits)
