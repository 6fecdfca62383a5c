"""The passes of a verification, a few pairs at a time, each table kept as soon as it is there.

A table's name is a digest of all that it depends on: the model, the metric, the pairs' tokens, the circuits. So a
stopped verification goes on where it was, one with more of something computes only what is new of it, and a table is
never taken for another's.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.circuits.space import Edges, EdgeSpace
from affectlens.circuits.verifying.tools import Tools
from affectlens.model import LensModel
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair, read_of
from affectlens.paths import write_parquet
from affectlens.progress import tracked
from affectlens.types import Json

DIGITS = 24  # of the digest in a table's name
BLOCK = 4  # pairs a table: what a stop loses at most
Run = Callable[[Sequence[PatchPair]], pd.DataFrame]


@dataclass(frozen=True, eq=False)
class Bench:
    """What runs circuits and patches edges.

    Attributes:
        model: the model.
        metric: what circuits are judged by.
        space: the edges that there are.
        tools: what makes the passes.
        keep: a folder for their tables; None keeps none.
        memory: GB that activations may take.
        progress: show bars.
    """

    model: LensModel
    metric: Metric
    space: EdgeSpace
    tools: Tools
    keep: Path | None = None
    memory: float = 1.0
    progress: bool | None = None

    def values(self, part: str, circuits: Mapping[str, Edges], pairs: Sequence[PatchPair]) -> pd.DataFrame:
        """``circuit_values`` with the circuits by their names.

        Args:
            part: what it is for; said on the bar and in the tables' names.
            circuits: by name.
            pairs: on which they are run.
        """
        names, sets = list(circuits), list(circuits.values())
        asked = [_bits(one) for one in sets]

        def run(some: Sequence[PatchPair]) -> pd.DataFrame:
            table = self.tools.values(
                self.model, some, self.metric, self.space, sets, memory=self.memory, progress=False
            )
            return table.assign(circuit=[names[int(at)] for at in table["circuit"]])

        return self._each(part, {"circuits": dict(zip(names, asked, strict=True))}, pairs, run, len(names))

    def patch(self, edges: Sequence[str], pairs: Sequence[PatchPair]) -> pd.DataFrame:
        """``path_patch`` of some edges.

        Args:
            edges: their names.
            pairs: on which they are patched.
        """

        def run(some: Sequence[PatchPair]) -> pd.DataFrame:
            return self.tools.patch(
                self.model, some, self.metric, self.space, list(edges), memory=self.memory, progress=False
            )

        return self._each("patches", {"edges": list(edges)}, pairs, run, len(edges))

    def _each(self, part: str, asked: Json, pairs: Sequence[PatchPair], run: Run, n: int) -> pd.DataFrame:
        if not n:
            return pd.DataFrame()
        facts = asked | {"model": self.model.fingerprint, "space": self.space.to_json(), "metric": self.metric.facts}
        blocks = [pairs[at : at + BLOCK] for at in range(0, len(pairs), BLOCK)]
        bar = tracked(blocks, f"{part}: {n} passes a pair", show=self.progress)
        return pd.concat([self._kept(part, facts, some, run) for some in bar], ignore_index=True)

    def _kept(self, part: str, facts: Json, some: Sequence[PatchPair], run: Run) -> pd.DataFrame:
        if self.keep is None:
            return run(some)
        key = json.dumps(facts | {"pairs": read_of(some)}, sort_keys=True)
        path = self.keep / f"{part}-{hashlib.sha256(key.encode()).hexdigest()[:DIGITS]}.parquet"
        if path.is_file():
            try:
                return pd.read_parquet(path)
            except (ValueError, OSError):  # damaged: computed again
                path.unlink()
        table = run(some)
        write_parquet(path, table)
        return table


def _bits(edges: Edges) -> str:
    return hashlib.sha256(np.packbits(edges).tobytes()).hexdigest()
