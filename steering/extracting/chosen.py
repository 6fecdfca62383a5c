"""The outcome of a selection of heads or neurons."""

from dataclasses import dataclass

import pandas as pd

from affectlens.sites import Site
from affectlens.steering.directions import Directions


@dataclass(frozen=True, eq=False)
class Selection:
    """What was selected.

    Attributes:
        directions: the vectors, one a head, or one sparse vector a layer of neurons.
        table: one row a part, best first: ``part``, ``chosen`` (the score it was chosen by), and on the other half
            ``confirmed`` with ``low``, ``high``, ``p`` and ``p_adjusted``.
        considered: how many parts were looked at.
    """

    directions: Directions
    table: pd.DataFrame
    considered: int

    @property
    def parts(self) -> tuple[Site, ...]:
        """The sites, best first."""
        return tuple(Site.parse(name) for name in self.table["part"])

    def __repr__(self) -> str:
        rows = self.table.to_string(index=False, float_format="{:.2f}".format)
        return f"{len(self.table)} of {self.considered} parts, chosen on one half and confirmed on the other:\n{rows}"

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False, float_format="{:.3g}".format))
