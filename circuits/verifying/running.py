"""The passes of a verification, a few pairs at a time, each table kept as soon as it is there.

A table's name is a digest of what all its rows depend on: the model, the metric, the edges that there are, the pairs'
tokens. Its rows are told apart by a digest of the circuit, or by the edge's name. So a stopped verification goes on
where it was, one with other amounts runs only what was not run, circuits that are equal are run once, and a table is
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
from affectlens.patching.keeping import kept_table
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair, read_of
from affectlens.paths import write_parquet
from affectlens.progress import tracked

DIGITS = 24  # of the digest in a table's name
BLOCK = 2  # pairs a table: what a stop loses at most
Run = Callable[[Sequence[PatchPair], list[str]], pd.DataFrame]


@dataclass(frozen=True, eq=False)
class Passes:
    """Runs circuits and patches edges.

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
            part: what it is for; said on the bar.
            circuits: by name.
            pairs: on which they are run.
        """
        if not circuits:
            return pd.DataFrame()
        digests = pd.DataFrame({"name": list(circuits), "circuit": [_digest(one) for one in circuits.values()]})
        sets = dict(zip(digests["circuit"], circuits.values(), strict=True))

        def run(some: Sequence[PatchPair], new: list[str]) -> pd.DataFrame:
            table = self.tools.values(
                self.model, some, self.metric, self.space, [sets[one] for one in new], memory=self.memory,
                progress=False,
            )  # fmt: skip
            return table.assign(circuit=[new[int(at)] for at in table["circuit"]])

        found = self._each(part, "circuit", list(sets), pairs, run).merge(digests, on="circuit")
        return found.drop(columns="circuit").rename(columns={"name": "circuit"})

    def patch(self, edges: Sequence[str], pairs: Sequence[PatchPair]) -> pd.DataFrame:
        """``path_patch`` of some edges.

        Args:
            edges: their names.
            pairs: on which they are patched.
        """

        def run(some: Sequence[PatchPair], new: list[str]) -> pd.DataFrame:
            return self.tools.patch(
                self.model, some, self.metric, self.space, new, memory=self.memory, progress=False
            )  # fmt: skip

        return self._each("patches", "edge", list(edges), pairs, run) if edges else pd.DataFrame()

    def _each(self, part: str, by: str, wanted: list[str], pairs: Sequence[PatchPair], run: Run) -> pd.DataFrame:
        blocks = [pairs[at : at + BLOCK] for at in range(0, len(pairs), BLOCK)]
        bar = tracked(blocks, f"{part}: {len(wanted)} passes a pair", show=self.progress)
        return pd.concat([self._block(by, wanted, some, run) for some in bar], ignore_index=True)

    def _block(self, by: str, wanted: list[str], some: Sequence[PatchPair], run: Run) -> pd.DataFrame:
        """Of some pairs, the rows that are wanted: those that are kept, and what is new."""
        if self.keep is None:
            return run(some, wanted)
        facts = {"model": self.model.fingerprint, "space": self.space.to_json(), "metric": self.metric.facts}
        key = json.dumps(facts | {"pairs": read_of(some)}, sort_keys=True)
        path = self.keep / f"{by}-{hashlib.sha256(key.encode()).hexdigest()[:DIGITS]}.parquet"
        there = kept_table(path)
        known = set() if there is None else set(there[by])
        new = [one for one in wanted if one not in known]
        if there is None or new:
            there = pd.concat([there, run(some, new)], ignore_index=True)
            write_parquet(path, there)
        return there[there[by].isin(wanted)]


def _digest(edges: Edges) -> str:
    return hashlib.sha256(np.packbits(edges).tobytes()).hexdigest()
