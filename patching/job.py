"""One pair of a sweep: both texts run once, then every cell from every source, read by every metric."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from affectlens.patching.cells import Cell, Change
from affectlens.patching.metrics import Metric, Reading
from affectlens.patching.pairs import PatchPair, Side
from affectlens.patching.reading import Needs, Out, Runner
from affectlens.patching.recorded import Recorded
from affectlens.patching.sources import MATCHED, Source
from affectlens.patching.units import Unit
from affectlens.sites import Site
from affectlens.types import Json


@dataclass(frozen=True)
class Job:
    """What is done with each pair, whose ``clean`` is the source and whose ``corrupt`` is the base."""

    runner: Runner
    metrics: Sequence[Metric]
    sites: Sequence[Site]
    denoise: bool = True  # else source and base are exchanged: the base is the clean text
    layers: frozenset[int] = frozenset()  # whose stream is read, whether the metrics need it or not
    top: bool = False  # whether the likeliest next token is read as well

    @cached_property
    def needs(self) -> Needs:
        own = Needs.of(self.metrics)
        return replace(own, layers=own.layers | self.layers, top=self.top)

    def rows(self, pair: PatchPair, chosen: Sequence[Unit], froms: Sequence[Source]) -> pd.DataFrame:
        """The pair's rows of the tidy table."""
        source = self.runner.record(pair.clean.prompt, self.sites)
        base = self.runner.record(pair.corrupt.prompt)
        ends = self.ends(pair, source, base)
        facts, cells = [], []
        for one in froms:
            values = source if one.side is pair.clean else self._values(one.side)
            for fact, cell in self._cells(one, chosen, values, pair.equal_length):
                facts.append(fact)
                cells.append(cell)
        rows = pd.DataFrame(facts)
        tables = []
        found, _ = self.read(pair, pair.corrupt, base, cells, ends)
        for metric in self.metrics:
            at_ends = {name: float(metric(one)[0]) for name, one in ends.items()}
            tables.append(rows.assign(metric=metric.name, **at_ends, value=found[metric.name]))
        named = pd.concat(tables, ignore_index=True)
        named.insert(0, "pair", pair.name)
        named.insert(1, "group", pair.group)
        named.insert(2, "contrast", pair.contrast)
        named.insert(3, "emotion", pair.emotion)
        return named

    def ends(self, pair: PatchPair, source: Recorded, base: Recorded) -> dict[str, Reading]:
        """What a metric gets to see of both unpatched runs, ``clean`` and ``corrupt``, whichever is the base."""
        read = [
            self.reading(pair, side, self.runner.unpatched(run, side.prompt, self.needs))
            for side, run in ((pair.clean, source), (pair.corrupt, base))
        ]
        names = ("clean", "corrupt") if self.denoise else ("corrupt", "clean")
        found: dict[str, Reading] = dict(zip(names, read, strict=True))
        return {name: one.beside(found) for name, one in found.items()}

    def reading(self, pair: PatchPair, side: Side, out: Out) -> Reading:
        """What a metric gets to see of runs of one text."""
        true = pair if self.denoise else pair.swapped()  # a metric's clean text is the pair's, whichever is run
        return Reading(side, true, pair.words, out.logprobs, out.logits, out.streams, out.texts, out.top)

    def read(
        self, pair: PatchPair, side: Side, base: Recorded, cells: Sequence[Cell], ends: Mapping[str, Reading]
    ) -> tuple[dict[str, list[float]], list[int]]:
        """Each metric's value of each cell that is run on one of the texts, and its likeliest token if that is read."""
        values, tops = {metric.name: [0.0] * len(cells) for metric in self.metrics}, [-1] * len(cells)
        for rows, out in self.runner.run(base, side.prompt, cells, self.needs):
            reading = self.reading(pair, side, out).beside(ends)
            for metric in self.metrics:
                for row, value in zip(rows, metric(reading).tolist(), strict=True):
                    values[metric.name][row] = value
            if out.top is not None:
                for row, token in zip(rows, out.top.tolist(), strict=True):
                    tops[row] = token
        return values, tops

    def _values(self, side: Side) -> Recorded:
        return self.runner.record(replace(side.prompt, tails=((),)), self.sites)

    def _cells(
        self, source: Source, chosen: Sequence[Unit], values: Recorded, fitting: bool
    ) -> Iterator[tuple[Json, Cell]]:
        for unit in chosen:
            at, places = tuple(base for _, base in unit.matches), source.of(unit)
            for site in self.sites if places else ():
                if site.kind == "pattern" and not (source.kind == MATCHED and fitting):
                    continue  # another text, or another token, has other keys
                value = values.sites[site]
                new = value[..., places, :] if site.kind == "pattern" else value[places]
                fact = {"source": source.kind, "kind": site.kind, "layer": site.layer,
                        "index": -1 if site.index is None else site.index,
                        "segment": unit.segment, "position": unit.position}  # fmt: skip
                yield fact, (Change(site, at, new),)
