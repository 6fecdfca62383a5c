"""What is read of runs, and by whom: the contract between those who run cells and those who judge them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from affectlens.patching.cells import Cell
from affectlens.patching.metrics import Metric
from affectlens.patching.recorded import Recorded
from affectlens.sites import Site
from affectlens.verbalisers import Prompt


@dataclass(frozen=True)
class Needs:
    """What is to be read of each run."""

    logprobs: bool = False  # of the verbalisers
    logits: bool = False  # of the last token
    layers: frozenset[int] = frozenset()  # the stream that leaves these
    generate: int = 0  # how many tokens to write
    top: bool = False  # the likeliest next token

    @classmethod
    def of(cls, metrics: Sequence[Metric]) -> "Needs":
        """What all these metrics need."""
        return cls(
            any(metric.labels for metric in metrics),
            any(metric.logits for metric in metrics),
            frozenset().union(*(metric.layers for metric in metrics)),
            max(metric.generate for metric in metrics),
        )

    def last(self, n_layers: int) -> int:
        """The last layer that has to be computed."""
        whole = self.logprobs or self.logits or self.top or not self.layers
        return n_layers - 1 if whole else max(self.layers)


@dataclass(frozen=True, eq=False)
class Out:
    """What was read, a row a run; the streams hold the whole prompt."""

    logprobs: Float[Tensor, "row verbaliser"] | None = None  # float64
    logits: Float[Tensor, "row d_vocab"] | None = None
    streams: dict[int, Float[Tensor, "row pos d_model"]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    top: Int[Tensor, " row"] | None = None


@runtime_checkable
class Runner(Protocol):
    """Runs cells on texts: the engine, or one forward a cell."""

    def record(self, prompt: Prompt, sites: Sequence[Site] = ()) -> Recorded: ...

    def unpatched(self, base: Recorded, prompt: Prompt, needs: Needs) -> Out: ...

    def run(
        self, base: Recorded, prompt: Prompt, cells: Sequence[Cell], needs: Needs
    ) -> Iterator[tuple[list[int], Out]]: ...
