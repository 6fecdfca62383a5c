"""The edits of one pair: both its texts with each step's change, read by every metric."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from affectlens.patching.cells import Cell
from affectlens.patching.features.editing import Edits, Step, Text
from affectlens.patching.features.surveying import encoded, places
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric, Reading
from affectlens.patching.pairs import PatchPair, Side
from affectlens.patching.reading import Runner
from affectlens.patching.recorded import Recorded

AT_ONCE = 256  # steps whose changed values are held together


class Working:
    """Runs steps on pairs."""

    def __init__(
        self, runner: Runner, metrics: Sequence[Metric], edits: Edits, steps: Sequence[Step], span: str
    ) -> None:
        self.runner, self.metrics, self.edits, self.steps, self.span = runner, metrics, edits, steps, span
        self.job = Job(runner, metrics, [edits.site], top=True)

    def rows(self, pair: PatchPair) -> pd.DataFrame:
        """The pair's rows: each metric of both texts, before and after each step."""
        sides = {"clean": pair.clean, "corrupt": pair.corrupt}
        own = {name: self.runner.record(side.prompt, [self.edits.site]) for name, side in sides.items()}
        ends = self.job.ends(pair, own["clean"], own["corrupt"])
        facts = pd.DataFrame([step.facts for step in self.steps])
        tables = [facts.assign(metric=metric.name) for metric in self.metrics]
        for name, side in sides.items():
            found = self._side(pair, side, own[name], ends, name)
            for table, metric in zip(tables, self.metrics, strict=True):
                table[name] = float(metric(ends[name])[0])
                table[f"{name}_left"] = found.pop(metric.name)
            tables = [table.assign(**{f"{name}_{key}": value for key, value in found.items()}) for table in tables]
        about = {"pair": pair.name, "group": pair.group, "contrast": pair.contrast, "emotion": pair.emotion}
        return pd.concat(tables, ignore_index=True).assign(**about)

    def _side(
        self, pair: PatchPair, side: Side, run: Recorded, ends: dict[str, Reading], name: str
    ) -> dict[str, Any]:  # fmt: skip
        """By metric its values after each step; and of each step the tokens changed, their norm, and the next token."""
        text = Text(*encoded(run, self.edits.sae), places(pair, side, self.span))
        before, n = ends[name].top, len(self.steps)
        assert before is not None
        out = {metric.name: np.full(n, float(metric(ends[name])[0])) for metric in self.metrics}
        changed, size, other = np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n, dtype=bool)
        for first in range(0, n, AT_ONCE):
            numbers, cells = list[int](), list[Cell]()
            for number in range(first, min(first + AT_ONCE, n)):
                change, size[number] = self.edits.change(text, self.steps[number])
                if change:
                    changed[number] = len(change.at)
                    numbers.append(number)
                    cells.append((change,))
            if cells:
                values, tops = self.job.read(pair, side, run, cells, ends)
                for metric in self.metrics:
                    out[metric.name][numbers] = values[metric.name]
                other[numbers] = [top != int(before[0]) for top in tops]
        return out | {"top_changed": other, "tokens": len(text.at), "changed": changed, "norm": size}
