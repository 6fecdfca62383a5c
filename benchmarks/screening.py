"""What a gradient screen of one pair costs, in plain forward passes of the text that is patched.

    python benchmarks/screening.py
    python benchmarks/screening.py --model ./my-finetune --rounds 30 --json out.json

All heads, MLPs and positions of a pair from the battery ``starter`` are screened; the unit is one forward of the base's
prompt through the body and the head, by the model itself. Both alternate, and the ratio is that of each pair of times.
Verbalisers are single tokens, except in the line that says otherwise. Beside it the number of cells: a sweep runs each.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

import affectlens as al
from affectlens.patching.metrics import label_difference
from affectlens.patching.pairs import prepare
from affectlens.patching.screening import screen

SHORT = {"good": [" joy", " love"], "bad": [" fear", " anger"]}
LONG = {"good": [" great joy", " love"], "bad": [" deep grief", " anger"]}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "attribution": (SHORT, {}),
    "attribution, verbalisers of two tokens": (LONG, {}),
    "attribution, neurons too": (SHORT, {"sites": ["heads", "mlp_out", "neurons.each"], "positions": "all"}),
    "integrated, 4 steps": (SHORT, {"method": "integrated", "steps": 4}),
    "integrated, 8 steps": (SHORT, {"method": "integrated", "steps": 8}),
}


def main(
    model: Annotated[str, typer.Option(help="A model's name, as load_model takes it.")] = "smollm2-135m",
    pair: Annotated[int, typer.Option(help="Which pair of the battery's vignettes.")] = 0,
    rounds: Annotated[int, typer.Option(help="Pairs of runs for each case.")] = 10,
    threads: Annotated[int, typer.Option(help="PyTorch's threads.")] = torch.get_num_threads(),
    json_to: Annotated[Path | None, typer.Option("--json", help="Write every number here.")] = None,
) -> None:
    """Time a screen against one forward, in alternating pairs."""
    torch.set_num_threads(threads)
    lens = al.load_model(model, progress=False)
    battery = al.load_battery("starter").where(split="vignettes")
    table = Table("", "screen, s", "forward, s", "ratio, with quartiles", "cells")
    results = []
    for name, (labels, options) in CASES.items():
        metric = label_difference(labels, "good", "bad")
        one = prepare(lens, battery, labels=labels, cue=" The feeling here is")[pair]
        ids = torch.tensor(one.corrupt.prompt.ids)[None].to(lens.device)
        asked = {"sites": ["heads", "mlp_out"], "positions": "each", "metric": metric, "progress": False} | options

        def plain(ids: torch.Tensor = ids) -> None:
            with torch.inference_mode():
                lens.hf(input_ids=ids, use_cache=False)

        def ours(pairs: list[Any] = [one], asked: dict[str, Any] = asked) -> int:  # noqa: B006
            return len(screen(lens, pairs, **asked).table)

        cells = ours()  # the first run checks the engine on this model, and is not timed
        plain()
        times = [(seconds(ours), seconds(plain)) for _ in range(rounds)]
        ratios = [a / b for a, b in times]
        results.append({"case": name, "tokens": ids.shape[1], "cells": cells, "times": times, "ratios": ratios})
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        a, b = (statistics.median(column) for column in zip(*times, strict=True))
        table.add_row(name, f"{a:.3f}", f"{b:.3f}", f"{middle:.2f} [{low:.2f}, {high:.2f}]", str(cells))
    facts = {"model": model, "threads": threads, "cores": os.cpu_count(), "torch": torch.__version__,
             "tokens": results[0]["tokens"], "load": round(os.getloadavg()[0], 1)}  # fmt: skip
    Console(width=120).print(table, ", ".join(f"{key} {value}" for key, value in facts.items()))
    if json_to:
        json_to.write_text(json.dumps({"facts": facts, "results": results}, indent=1), encoding="utf-8")


def seconds(run: Callable[[], Any]) -> float:
    """The time that it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
