"""How much a run computes, counted from its pairs' tokens before anything is run.

The unit is the token-layer: one block on one token. A cell costs the layers from the one that it changes up to the last
one that is read, times the tokens from where its batch begins; what reads words or logits costs the head too, as many
token-layers as its matrix has blocks' worth of parameters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from torch import Tensor

from affectlens.model import LensModel
from affectlens.patching.applying import READ_OUTS
from affectlens.patching.cells import Cell, Change, entry, start
from affectlens.patching.deleting import Step, cut_steps, value_steps
from affectlens.patching.engine import Engine
from affectlens.patching.parts import Part
from affectlens.patching.plans import controls_of, edges_of, positions_of, sites_of
from affectlens.patching.reading import Needs, Runner
from affectlens.patching.recorded import Tokens
from affectlens.patching.settings import AblatePlan, PatchPlan, Settings
from affectlens.patching.sources import MATCHED, sources
from affectlens.patching.spans import tokens
from affectlens.patching.sweeping import can_match
from affectlens.patching.units import Unit, expand_positions, expand_sites, units
from affectlens.verbalisers import Prompt


@dataclass(frozen=True)
class Load:
    """The cells that are run on one text, and the tokens of the texts that are recorded for them."""

    prompt: Prompt
    cells: list[Cell]
    recorded: int


def loads(model: LensModel, part: Part, settings: Settings, plan: PatchPlan | AblatePlan) -> Iterator[Load]:
    """What a part runs, text by text; the cells' values are those that the text has already.

    Args:
        model: the model.
        part: the part.
        settings: of the run.
        plan: of the run.
    """
    if isinstance(plan, AblatePlan):
        cutting = part.name == "knockout"
        steps = _steps(model, settings, plan, cutting=cutting)
        copies = 2 if plan.control and not cutting else 1  # once more for the random change
        times = 1 if cutting or plan.kind == "zero" else 2  # once more for means, or another text for samples
        for pair, end in product(part.pairs, (0, 1)):
            side = (pair.clean, pair.corrupt)[end]
            cells = [step.cell(pair, side, lambda *_: _same) for step in steps * copies
                     if all(tokens(pair, side, span) for span in step.spans)]  # fmt: skip
            if cells:
                yield Load(side.prompt, cells, times * len(Tokens.of(side.prompt)))
        return
    sites = expand_sites(model, sites_of(model, settings, plan))
    where, controls = expand_positions(positions_of(settings, plan)), controls_of(settings, plan)
    back = part.name.rpartition("/")[2] == "noise"
    turned = [pair.swapped() if back else pair for pair in part.pairs]
    for pair in (one for one in turned if can_match(one, sites)):
        chosen = [one for one in units(pair, where) if isinstance(one, Unit)]
        froms = list(sources(pair, chosen, turned, controls, settings.seed))
        found: list[Cell] = [
            (Change(site, tuple(base for _, base in unit.matches), _same),)
            for one, unit in product(froms, chosen) if one.of(unit) for site in sites
            if site.kind != "pattern" or (one.kind == MATCHED and pair.equal_length)
        ]  # fmt: skip
        foreign = [one.side for one in froms if one.side is not pair.clean]
        own = sum(len(Tokens.of(side.prompt)) for side in (pair.clean, pair.corrupt))
        recorded = own + sum(len(side.prompt.ids) for side in foreign)
        if found:
            yield Load(pair.corrupt.prompt, found, recorded)


def needs_of(model: LensModel, part: Part, settings: Settings, plan: PatchPlan | AblatePlan) -> Needs:
    """What the part's metrics read of each run.

    Args:
        model: the model.
        part: the part.
        settings: of the run.
        plan: of the run.
    """
    at = 3 * model.n_layers // 4 if settings.layer is None else settings.layer
    return Needs(
        logprobs=any(name.startswith("said_") for name in part.rules), logits="kl" in part.rules,
        layers=frozenset({at} if set(READ_OUTS) & set(part.rules) else ()), top=isinstance(plan, AblatePlan),
    )  # fmt: skip


def size(model: LensModel, runner: Runner, load: Load, needs: Needs) -> tuple[float, float]:
    """Token-layers in blocks, and in the head.

    Args:
        model: the model.
        runner: what runs the cells; without the engine every cell is a whole forward.
        load: the cells.
        needs: what is read.
    """
    n, last = len(Tokens.of(load.prompt)), needs.last(model.n_layers)
    passes = load.recorded * model.n_layers
    reads = (1 + (n - len(load.prompt.ids)) * needs.logprobs) * (needs.logprobs or needs.logits or needs.top)
    if not isinstance(runner, Engine):
        return passes + len(load.cells) * n * model.n_layers, len(load.cells) * n * _head(model)
    total = 0.0
    for rows in runner.batches(load.cells, n, needs):
        begin = min(*(start(load.cells[row]) for row in rows), len(load.prompt.ids) - 1)
        total += (n - begin) * sum(max(0, last + 1 - entry(load.cells[row])) for row in rows)
    return passes + total, len(load.cells) * reads * _head(model)


def _head(model: LensModel) -> float:
    """The head's cost on a token, in token-layers."""
    block = sum(one.numel() for one in model.blocks[0].parameters())
    return float(model.hf.get_output_embeddings().weight.numel()) / block


def _same(value: Tensor) -> Tensor:
    return value


def _steps(model: LensModel, settings: Settings, plan: AblatePlan, *, cutting: bool) -> list[Step]:
    if cutting:
        return cut_steps(model, edges_of(plan), window=plan.window, heads=plan.heads)
    return value_steps(expand_sites(model, sites_of(model, settings, plan)), plan.positions, cumulative=plan.cumulative)
