"""``screen``: what every site would do if it were patched, estimated from gradients, to choose what to patch exactly.

One forward and one backward pass a pair (or one a step of a path) estimate all cells at once
(:mod:`affectlens.patching.gradients`), where :func:`affectlens.patching.patch` needs a run a cell. The estimates rank;
they are not findings. :func:`affectlens.patching.confirming.confirm` patches the first of them exactly, and a random
sample of the others, and says how well both agree.

A patch of one head is made in the base's own run, and there the gradient is the right one to first order; an average
over runs whose whole input moves is right only for the sum over the whole input. On the embedded default (12 pairs of
``core``, heads at the changed clause) the first ranks cells as exact patches do with 0.87 [0.77, 0.96], the second with
0.45 [0.15, 0.74]; so it is the default. Neither ranks whole residual streams well where many tokens are patched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.choosing import runner_for
from affectlens.patching.columns import CELL, Columns, Place, Screened
from affectlens.patching.engine import Engine
from affectlens.patching.gradients import Ends, gradients
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair
from affectlens.patching.sweeping import check_direction, described, facts, prepared
from affectlens.patching.tabling import Given
from affectlens.patching.units import EACH, Positions, Sites, Unit, expand_positions, expand_sites, units
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.types import Json

METHODS = ("attribution", "integrated")
NEURONS = "neurons.each"


@dataclass(frozen=True, eq=False, repr=False)
class Screen:
    """The outcome of :func:`screen`.

    ``table`` has the columns of a sweep's table, one row a pair and cell, all from the source ``matched``; ``value`` is
    the base's metric and what the patch is estimated to add to it. ``pairs`` and ``meta`` are as a sweep's.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    meta: Json
    metric: Metric

    def cells(self) -> pd.DataFrame:
        """One row a cell, the largest first: ``kind, layer, index, segment, position, pair, estimate, n``.

        ``estimate`` is the mean over the ``n`` pairs that have the cell of the estimated change towards the source, in
        the metric's unit; it is positive where the patch closes a positive gap, in both directions.
        """
        rows = self.table.assign(estimate=change(self.table, self.meta["direction"]))
        rows["pair"] = rows["pair"].where(rows["position"] >= 0, "")
        found = rows.groupby([*CELL, "pair"], sort=False)["estimate"].agg(["mean", "size"]).reset_index()
        found = found.rename(columns={"mean": "estimate", "size": "n"})
        order = np.argsort(-found["estimate"].abs().to_numpy(), kind="stable")
        return found.iloc[order].reset_index(drop=True)

    def top(self, n: int = 20) -> list[Place]:
        """The ``n`` cells whose mean estimate is largest in size, whatever its sign."""
        if n < 1:
            raise PatchError(f"top is {n}: ask for one cell or more.")
        return places(self.cells().head(n))

    def __repr__(self) -> str:
        first = self.cells().head(3)
        said = (f"{place.text} {estimate:+.3f}"
                for place, estimate in zip(places(first), first["estimate"], strict=True))  # fmt: skip
        unit = self.metric.unit
        return (
            f"Screen({self.meta['method']}, {self.meta['direction']}, {self.meta['n_pairs']} pairs; "
            f"{self.metric.name} ({unit}); largest estimates: {'; '.join(said)})"
        )

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(repr(self))}</p>{self.cells().head(20).to_html(index=False, border=0)}"


def screen(
    model: LensModel,
    pairs: Given | Sequence[PatchPair],
    sites: Sites = "heads",
    positions: Positions = "all",
    *,
    metric: Metric,
    direction: str = "denoise",
    method: str = "attribution",
    steps: int = 8,
    neurons: int = 32,
    cue: str | None = None,
    chat: bool = False,
    memory: float = 1.0,
    progress: bool | None = None,
) -> Screen:
    """Estimate what patching every site at every position would change.

    >>> from affectlens.patching.metrics import label_difference
    >>> from affectlens.testing import tiny_model
    >>> pair = ("She won the race. Then", "She lost a race. Then")
    >>> metric = label_difference({"good": " good", "bad": " bad"}, "good", "bad")
    >>> found = screen(tiny_model(), [pair], ["heads", "mlp_out"], metric=metric)
    >>> len(found.table), len(found.top(3))
    (10, 3)

    Args:
        model: from :func:`affectlens.load_model`.
        pairs: a battery with matched pairs, tuples of a clean and a corrupt text, or prepared pairs.
        sites: as :func:`affectlens.patching.patch` takes them, but no patterns; and ``neurons.each``, every neuron by
            itself.
        positions: as there: segments, ``each``, ``span:words``, offsets from the end; of single neurons, no ``each``.
        metric: what is read of each run.
        direction: ``denoise`` patches the clean text's values into the corrupt run, ``noise`` the reverse.
        method: ``attribution`` takes the gradient at the base; ``integrated`` averages gradients along the path from
            the base's input embeddings to the source's.
        steps: gradients along that path.
        neurons: how many single neurons to keep of each layer and segment, those with the largest mean estimate.
        cue: what to write after each text; by default what the metric asks for, or nothing.
        chat: make each text the user's message of a conversation.
        memory: what a batch may take beyond the model, in GB.
        progress: show a bar; by default where a person is looking.

    Raises:
        PatchError: a method, direction, site or position that is none, a metric without a gradient, a model whose
            blocks can't be walked through, or no pair that can be patched.
        BatteryError: no pairs.
        CaptureError: texts or labels that can't be read.
    """
    _check(direction, method, steps, neurons)
    asked = [sites] if isinstance(sites, str | Site) else list(sites)
    plain = [one for one in asked if one != NEURONS]
    found = expand_sites(model, plain) if plain else ()
    singly = expand_sites(model, "neurons") if NEURONS in asked else ()
    where = expand_positions(positions)
    if patterns := [site for site in found if site.kind == "pattern"]:
        raise PatchError(f"{patterns[0]} has no estimate here: patch it exactly, or screen z.")
    if coded := [site for site in found if site.kind == "features"]:
        raise PatchError(f"{coded[0]} has no estimate here, as encoding has no gradient: patch it exactly.")
    if singly and EACH in where:
        raise PatchError("Single neurons at single tokens are too many to keep: name segments, or screen whole layers.")
    ready = prepared(model, pairs, [metric], cue=cue, chat=chat)
    turned = [pair if direction == "denoise" else pair.swapped() for pair in ready]
    whole = tuple(dict.fromkeys(replace(site, index=None) for site in (*found, *singly)))
    engine = gradient_engine(model, memory)
    job = Job(engine, [metric], whole, denoise=direction == "denoise")
    columns, seen, refused = Columns.of(model, found, singly), [], []
    for pair in tracked(turned, "screening pairs", show=progress):
        every = list(units(pair, where)) if pair.segments["all"] else [f"{pair.name}: no token has a match"]
        refused += [one for one in every if isinstance(one, str)]
        chosen = [one for one in every if isinstance(one, Unit)]
        if chosen:
            ends = Ends.of(job, pair)
            slope = gradients(engine, ends, metric, steps=steps if method == "integrated" else 0)
            seen.append(Screened(pair, chosen, *ends.metric(metric), columns.estimates(slope, chosen)))
    if not seen:
        raise PatchError(f"No pair can be patched there: {'; '.join(refused[:3])}.")
    meta = facts(model, pairs, [metric], (*found, *singly), where, ready[0], 0) | {
        "direction": direction, "controls": [], "n_pairs": len(ready), "method": method,
        "steps": steps if method == "integrated" else 0, "refused": refused,
    }  # fmt: skip
    about = pd.DataFrame([described(pair, direction) for pair in turned])
    return Screen(columns.table(seen, metric.name, direction, neurons), about, meta, metric)


def gradient_engine(model: LensModel, memory: float) -> Engine:
    """An engine whose batches leave room for what a backward pass keeps of every layer.

    Args:
        model: the model.
        memory: what a batch may take, in GB.

    Raises:
        PatchError: a model whose blocks can't be walked through.
    """
    runner = runner_for(model, memory=2 * memory / model.n_layers)
    if not isinstance(runner, Engine):
        raise PatchError(f"{model.name} can't be walked through block by block, which gradients need: patch exactly.")
    return runner


def change(table: pd.DataFrame, direction: str) -> "pd.Series[float]":
    """What each row's patch does, towards the source: value - corrupt, or clean - value if it is noise.

    Args:
        table: with ``clean``, ``corrupt`` and ``value``.
        direction: ``denoise`` or ``noise``.
    """
    return table["value"] - table["corrupt"] if direction == "denoise" else table["clean"] - table["value"]


def places(cells: pd.DataFrame) -> list[Place]:
    """The cells of a table with the columns of a place."""
    return [Place(*row) for row in cells[[*CELL, "pair"]].itertuples(index=False)]


def _check(direction: str, method: str, steps: int, neurons: int) -> None:
    check_direction(direction)
    if method not in METHODS:
        raise PatchError(f"method is {method!r}; choose {' or '.join(METHODS)}.")
    if steps < 1 or neurons < 1:
        raise PatchError(f"steps is {steps} and neurons is {neurons}: both need to be one or more.")
