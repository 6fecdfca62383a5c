"""``--dry-run``: what a run will take, from its pairs' real tokens and a few of its own batches, timed."""

import time
from dataclasses import dataclass

from affectlens.model import LensModel, load_model
from affectlens.needs import GIB, LIBRARIES, TOKENIZER, needs
from affectlens.patching.applying import READ_OUTS
from affectlens.patching.choosing import runner_for
from affectlens.patching.counting import Load, loads, needs_of, size
from affectlens.patching.engine import CPU_TOKENS, HEAD_ROWS, Engine
from affectlens.patching.parts import parts_of, question, remarks
from affectlens.patching.reading import Needs, Runner
from affectlens.patching.recorded import Tokens
from affectlens.patching.settings import AblatePlan, PatchPlan, Settings
from affectlens.stimuli import load_battery
from affectlens.types import Json

TIMED = 4  # batches that are timed
REPORT = 7.0  # seconds for statistics and figures, of a common run
STATISTICS = int(0.15 * GIB)  # draws of bootstraps and flips, with which figures are made


@dataclass(frozen=True)
class Amount:
    """What one part computes."""

    load: Load  # the text in the middle by what it costs
    needs: Needs
    cells: int
    blocks: float  # token-layers
    head: float


def forecast(settings: Settings, plan: PatchPlan | AblatePlan, *, progress: bool | None = None) -> Json:
    """Memory and rough times. The model is loaded if it is here; nothing is written.

    Args:
        settings: as for a run.
        plan: as for a run.
        progress: show bars.

    Raises:
        AffectLensError: what would stop the run before it begins.
    """
    table = load_battery(settings.battery)
    asked = question(table, settings, plan)
    facts = needs(settings.model, table)
    if "note" in facts:
        return facts
    start = time.perf_counter()
    model = load_model(
        settings.model, device=settings.device, dtype=settings.dtype, revision=settings.revision, progress=progress
    )
    parts = parts_of(model, asked, settings, plan)
    loaded = time.perf_counter() - start
    runner = runner_for(model, memory=settings.memory)
    amounts = []
    for part in parts:
        wanted = needs_of(model, part, settings, plan)
        each = [(load, *size(model, runner, load, wanted)) for load in loads(model, part, settings, plan)]
        each.sort(key=lambda one: one[1])
        amounts.append(Amount(each[len(each) // 2][0], wanted, sum(len(load.cells) for load, *_ in each),
                              sum(one[1] for one in each), sum(one[2] for one in each)))  # fmt: skip
    rate = measure(model, runner, amounts[0])
    swept = sum(one.blocks + one.head for one in amounts)
    tokens = next(count for name, count in facts.items() if name.startswith("tokens"))
    fitted = tokens * model.n_layers if any(set(READ_OUTS) & set(part.rules) for part in parts) else 0
    notes, unfit = remarks(parts, asked)
    return {
        "metrics": ", ".join(dict.fromkeys(name for part in parts for name in part.rules)),
        "not measured": " ".join(unfit.values()), "left out": " ".join(notes),
        "pairs": ", ".join(f"{len(part.pairs)} ({part.name})" for part in parts),
        "cells of all pairs": sum(one.cells for one in amounts),
        "token-layers (millions)": round(sum(one.blocks for one in amounts) / 1e6, 2),
        "token-layers a second, measured": round(rate),
        "load (seconds)": round(loaded, 1),
        "read-outs (seconds, unless captured before)": round(fitted / rate, 1),
        "sweep (seconds)": round(swept / rate, 1),
        "report (seconds)": REPORT,
        "peak memory (GiB)": round(memory(model, amounts, settings) / GIB, 2),
        "verdict": facts["verdict"],
    }  # fmt: skip


def measure(model: LensModel, runner: Runner, amount: Amount) -> float:
    """Token-layers a second, by running some of a part's own batches on one of its texts.

    Args:
        model: the model.
        runner: what will run the cells.
        amount: of the part.
    """
    load, cells = amount.load, amount.load.cells
    base = runner.record(load.prompt)
    plan = [list(range(len(cells)))[:2]]
    if isinstance(runner, Engine):
        plan = runner.batches(cells, len(base.tokens), amount.needs)
    done, spent = 0.0, 0.0
    for rows in plan[:: max(1, len(plan) // TIMED)][:TIMED]:
        some = Load(load.prompt, [cells[row] for row in rows], 0)
        start = time.perf_counter()
        for _ in runner.run(base, load.prompt, some.cells, amount.needs):
            pass
        spent += time.perf_counter() - start
        done += sum(size(model, runner, some, amount.needs))
    return done / spent


def memory(model: LensModel, amounts: list[Amount], settings: Settings) -> int:
    """The peak in bytes on a processor: the model, two texts' recorded runs, a batch, its logits, and statistics.

    Args:
        model: the model.
        amounts: of the parts.
        settings: of the run.
    """
    wide = next(model.hf.parameters()).element_size()
    parameters = sum(one.numel() for one in model.hf.parameters())
    longest = max(len(one.load.prompt) for one in amounts)
    token = wide * (32 * model.d_model + 3 * model.n_heads * longest)
    batch = min(settings.memory * 1e9, CPU_TOKENS * token)
    recorded = 4 * longest * model.n_layers * model.d_model * wide
    vocabulary = int(model.hf.get_output_embeddings().weight.shape[0])
    tails = max(len(Tokens.of(one.load.prompt)) - len(one.load.prompt.ids) for one in amounts)
    logits = 2 * min(settings.memory * 1e9 / 8, 4 * HEAD_ROWS * (1 + tails) * vocabulary)
    mine = parameters * wide + batch + recorded + logits
    return int(LIBRARIES + STATISTICS + TOKENIZER * vocabulary + mine)
