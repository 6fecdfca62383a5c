"""The ablations of one pair: which values go, and what takes their place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from affectlens.model import LensModel
from affectlens.patching.cells import Cell, Change, Cut
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair, Side
from affectlens.patching.reading import Runner
from affectlens.patching.recorded import Recorded
from affectlens.patching.replacing import New, Replacing
from affectlens.patching.spans import tokens
from affectlens.sites import Site
from affectlens.types import Json

RANDOM = "random_change"


@dataclass(frozen=True)
class Step:
    """What is ablated together."""

    sites: tuple[Site, ...]
    span: str
    keys: str = ""  # of a knockout: the span that is not attended to
    layers: range = range(0)
    head: int | None = None

    @property
    def spans(self) -> tuple[str, ...]:
        """The spans that it needs tokens of."""
        return (self.span, self.keys) if self.keys else (self.span,)

    def cell(self, pair: PatchPair, side: Side, new: Callable[[Site, list[int]], New]) -> Cell:
        """What it changes in one of the pair's texts; ``new`` gives a site's values at these positions."""
        at, *keys = (tokens(pair, side, span) for span in self.spans)
        if keys:
            return tuple(Cut(layer, tuple(at), tuple(keys[0]), self.head) for layer in self.layers)
        return tuple(Change(site, tuple(at), new(site, at)) for site in self.sites)

    @property
    def facts(self) -> Json:
        """The columns that name it; of several sites the last one, with their number."""
        if self.keys:
            head = -1 if self.head is None else self.head
            return {"kind": "attention", "layer": self.layers[0], "index": head,
                    "segment": f"{self.keys} to {self.span}", "together": len(self.layers)}  # fmt: skip
        last = self.sites[-1]
        return {"kind": last.kind, "layer": last.layer, "index": -1 if last.index is None else last.index,
                "segment": self.span, "together": len(self.sites)}  # fmt: skip


def value_steps(sites: Sequence[Site], spans: Sequence[str], *, cumulative: bool = False) -> list[Step]:
    """Each site over each span; or the first site, the first two, and so on."""
    return [Step(tuple(sites[0 if cumulative else n : n + 1]), span) for span in spans for n in range(len(sites))]


def cut_steps(
    model: LensModel, edges: Sequence[tuple[str, str]], *, window: int = 1, heads: bool = False
) -> list[Step]:  # fmt: skip
    """Attention cut between each two spans, at so many layers together, in all heads or in each by itself."""
    which = range(model.n_heads) if heads else (None,)
    return [Step((), b, keys=a, layers=range(first, first + window), head=head)
            for a, b in edges for first in range(model.n_layers - window + 1) for head in which]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All steps of an ablation."""

    kind: str
    steps: Sequence[Step]
    control: bool

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        return tuple(dict.fromkeys(site for step in self.steps for site in step.sites))


class Deleting:
    """Runs a plan on pairs."""

    def __init__(self, runner: Runner, metrics: Sequence[Metric], plan: Plan, values: Replacing) -> None:
        self.runner, self.metrics, self.plan, self.values = runner, metrics, plan, values
        self.job = Job(runner, metrics, plan.sites, top=True)

    def possible(self, pair: PatchPair) -> list[Step]:
        """The steps whose spans have tokens in both texts."""
        lacking = set(self.lacking(pair))
        return [step for step in self.plan.steps if not lacking.intersection(step.spans) and self._sees(pair, step)]

    def lacking(self, pair: PatchPair) -> list[str]:
        """The spans that have no tokens in one of the texts."""
        names = dict.fromkeys(span for step in self.plan.steps for span in step.spans)
        return [span for span in names if not all(tokens(pair, side, span) for side in (pair.clean, pair.corrupt))]

    def _sees(self, pair: PatchPair, step: Step) -> bool:
        """Whether attention that is cut could have been there: keys go before queries."""
        return not step.keys or all(
            min(tokens(pair, side, step.keys)) <= max(tokens(pair, side, step.span))
            for side in (pair.clean, pair.corrupt)
        )

    def rows(self, pair: PatchPair) -> pd.DataFrame:
        """The pair's rows: what each step leaves of each text's metric."""
        sides = {"clean": pair.clean, "corrupt": pair.corrupt}
        own = {name: self.runner.record(side.prompt, self.plan.sites) for name, side in sides.items()}
        ends = self.job.ends(pair, own["clean"], own["corrupt"])
        every = [(step, source) for source in self._sources() for step in self.possible(pair)]
        out = [pd.DataFrame([step.facts | {"source": source, "metric": metric.name} for step, source in every])
               for metric in self.metrics]  # fmt: skip
        for name, side in sides.items():
            cells = [self._cell(pair, side, own[name], step, source) for step, source in every]
            before = ends[name].top
            assert before is not None
            values, tops = self.job.read(pair, side, own[name], cells, ends)
            for table, metric in zip(out, self.metrics, strict=True):
                table[name] = float(metric(ends[name])[0])
                table[f"{name}_left"] = values[metric.name]
                table[f"{name}_top_changed"] = [one != int(before[0]) for one in tops]
        found = pd.concat(out, ignore_index=True)
        about = {"pair": pair.name, "group": pair.group, "contrast": pair.contrast, "emotion": pair.emotion}
        return found.assign(position=-1, **about)

    def _sources(self) -> tuple[str, ...]:
        return ("matched", RANDOM) if self.plan.control else ("matched",)

    def _cell(self, pair: PatchPair, side: Side, run: Recorded, step: Step, source: str) -> Cell:
        def new(site: Site, at: list[int]) -> New:
            return self.values.new(pair, side, step.span, site, run.sites[site][at])

        cell = step.cell(pair, side, new)
        return self.values.scrambled(side, cell) if source == RANDOM else cell
