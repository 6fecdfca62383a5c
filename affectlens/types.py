"""The axis vocabulary and the one protocol that the core needs of a battery.

Axis names in shape annotations, everywhere: ``item layer pos head d_model d_head d_mlp d_vocab emotion fold``,
with ``position`` for a token-pooling rule, ``group`` for a pair, triplet or quadruple, and ``draw`` for a resample.
"""

from typing import Any, Protocol, runtime_checkable

import pandas as pd


@runtime_checkable
class TextTable(Protocol):
    """What capture needs of a battery: a name, a hash, and a frame with at least ``id`` and ``text``."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    def frame(self) -> pd.DataFrame: ...


Json = dict[str, Any]
