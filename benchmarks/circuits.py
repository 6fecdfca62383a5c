"""What edges cost, against transformers' own passes of the same texts: a forward with a backward, and a forward.

``edges``: EAP-IG over all edges, a pair's two unpatched runs included, against one forward and one backward pass of the
plain Hugging Face model. ``circuits``: random circuits of several sizes run exactly, each against one forward pass.
``paths``: single edges patched exactly, each against one forward pass. Rounds alternate; the median and quartiles of
the rounds' ratios are printed: only ratios within one run mean anything.

Memory is the peak resident size of a fresh process during ``edges``, over what it holds with the model loaded.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from memory import in_child, peak, resident
from rich.console import Console
from rich.table import Table

import affectlens as al
from affectlens.circuits.evaluating import values_on
from affectlens.circuits.pathing import values_of
from affectlens.circuits.scoring import estimates
from affectlens.circuits.trials import Bench
from affectlens.patching import PatchPair, named_metrics, prepare, words_of

MB = 1 << 20
SIZES = (0.01, 0.1, 0.5)


def main(
    model: Annotated[str, typer.Option(help="A model's name, as load_model takes it.")] = "smollm2-135m",
    pairs: Annotated[int, typer.Option(help="How many pairs, each a round.")] = 32,
    tokens: Annotated[int, typer.Option(help="About how many tokens a text has.")] = 80,
    steps: Annotated[int, typer.Option(help="Gradients along the path.")] = 5,
    circuits: Annotated[int, typer.Option(help="Circuits, and edges, of a round.")] = 16,
    threads: Annotated[int, typer.Option(help="PyTorch's threads.")] = torch.get_num_threads(),
    memory: Annotated[bool, typer.Option(help="Measure memory (Linux).")] = sys.platform == "linux",
    json_to: Annotated[Path | None, typer.Option("--json", help="Write every number here.")] = None,
    child: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Time edge attribution, circuits and path patches against transformers' own passes."""
    torch.set_num_threads(threads)
    lens = al.load_model(model, progress=False)
    bench, chosen = choose(lens, pairs, tokens)
    if child:
        loaded = resident()
        typer.echo(json.dumps({"loaded": loaded, "peak": peak(lambda: score(bench, chosen[0], steps))}))
        return
    score(bench, chosen[0], 1), both_ways(lens, chosen[0])  # both are warm before a clock starts
    rounds = [one_round(lens, bench, pair, steps, circuits, turn) for turn, pair in enumerate(chosen)]
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"{len(chosen)} pairs of about {tokens} tokens, one a round; {bench.space.n_edges:,} edges")
    for column in ("what", "AffectLens, ms", "transformers, ms", "times as long [quartiles]"):
        table.add_column(column, justify="right")
    for ours, theirs in (("edges", "both ways"), ("circuits", "forward"), ("paths", "forward")):
        low, middle, high = np.percentile([r[ours] / r[theirs] for r in rounds], [25, 50, 75])
        means = (f"{1e3 * np.mean([r[name] for r in rounds]):.0f}" for name in (ours, theirs))
        table.add_row(f"{ours}, against {theirs}", *means, f"{middle:.2f} [{low:.2f}, {high:.2f}]")
    console.print(table)
    facts: dict[str, Any] = {
        "edges of all pairs, s": round(sum(r["edges"] for r in rounds), 1), "steps": steps, "model": model,
        "threads": threads, "cores": os.cpu_count(), "tokens": float(np.mean([len(p.clean) for p in chosen])),
        "torch": version("torch"), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    if memory:
        options = ["--model", model, "--pairs", "1", "--tokens", str(tokens), "--threads", str(threads)]
        found = in_child(__file__, [*options, "--steps", str(steps), "--child"])
        facts["peak over model, MB"] = round((found["peak"] - found["loaded"]) / MB)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()))
    if json_to:
        json_to.write_text(json.dumps({"facts": facts, "rounds": rounds}, indent=1), encoding="utf-8")


def choose(lens: al.LensModel, n: int, tokens: int) -> tuple[Bench, list[PatchPair]]:
    """Emotional texts of `core` with their neutral twins, nearest to so many tokens; and what scores them."""
    battery = al.load_battery("core")
    (metric,) = named_metrics(lens, battery, ["said_category"], progress=False)
    every = prepare(lens, battery, labels=words_of([metric]), cue=metric.cue or "")
    twins = [pair for pair in every if pair.contrast == "emotional/neutral"]
    return Bench.of(lens, metric, 1.0), sorted(twins, key=lambda pair: abs(len(pair.clean) - tokens))[:n]


def score(bench: Bench, pair: PatchPair, steps: int) -> None:
    estimates(bench.trial(pair), "eap-ig", steps)


def both_ways(lens: al.LensModel, pair: PatchPair) -> None:
    """One forward and one backward pass, to the input embeddings."""
    ids = torch.tensor([pair.clean.prompt.ids])
    given = lens.hf.get_input_embeddings()(ids).detach().requires_grad_()
    lens.hf(inputs_embeds=given, use_cache=False).logits[0, -1].logsumexp(-1).backward()


@torch.no_grad()
def forward(lens: al.LensModel, pair: PatchPair) -> None:
    lens.hf(torch.tensor([pair.clean.prompt.ids]), use_cache=False)


def one_round(lens: al.LensModel, bench: Bench, pair: PatchPair, steps: int, n: int, turn: int) -> dict[str, float]:
    """Seconds of each; of circuits, paths and forward passes a single one's."""
    rng, allowed = np.random.default_rng(turn), bench.space.allowed
    trial = bench.trial(pair)
    sets = [allowed & (rng.random(allowed.shape) < SIZES[at % len(SIZES)]) for at in range(n)]
    places = np.argwhere(allowed)
    edges = [(int(row), int(column)) for row, column in places[rng.choice(len(places), n, replace=False)]]
    work: dict[str, tuple[Callable[[], Any], int]] = {
        "edges": (lambda: score(bench, pair, steps), 1), "both ways": (lambda: both_ways(lens, pair), 1),
        "circuits": (lambda: values_on(trial, sets), n), "paths": (lambda: values_of(trial, edges), n),
        "forward": (lambda: [forward(lens, pair) for _ in range(3)], 3),
    }  # fmt: skip
    found = {}
    for name in sorted(work, reverse=bool(turn % 2)):
        act, times = work[name]
        start = time.perf_counter()
        act()
        found[name] = (time.perf_counter() - start) / times
    return found


if __name__ == "__main__":
    typer.run(main)
