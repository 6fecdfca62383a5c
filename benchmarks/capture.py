"""How fast capture is, against the bare model and against its peers, on this machine.

Every peer gives the same array, all resid_post mean-pooled, which is checked before a clock starts. Only ratios within
one run mean anything: AffectLens and a peer run as a pair, in alternating order, and the median and quartiles of the
pairs' ratios are printed.

``equal``: 24 texts of 124 tokens in one batch, the same for all. ``mixed``: the starter battery; AffectLens plans its
own batches, its peers get a plain user's (the given order, 16 texts, padded). ``many``: the battery over and over,
1,600 items, for memory: ``--texts many --rounds 0``. The bare body always runs AffectLens's batches and pools nothing:
it is the limit. Peers get tokens, AffectLens tokenises within its time. Padding is on the right; nobody builds a mask.

Memory is the peak resident size of a fresh process during one run, over what it holds with the model loaded.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from memory import in_child, peak, resident
from peers import OURS, PEERS, Run, Work, check, lay_out
from rich.console import Console
from rich.table import Table

import affectlens as al

MB = 1 << 20
COLUMNS = ("seconds", "tokens/s", "AffectLens's speed / its [quartiles]", "loaded, MB", "peak over it, MB")


def main(
    model: Annotated[str, typer.Option(help="A model's name, as load_model takes it.")] = "smollm2-135m",
    texts: Annotated[str, typer.Option(help="equal, mixed, both, or many.")] = "both",
    peers: Annotated[str, typer.Option(help="With commas between them.")] = ",".join(list(PEERS)[1:]),
    rounds: Annotated[int, typer.Option(help="Pairs of runs for each peer; 0 measures memory alone.")] = 20,
    items: Annotated[int, typer.Option(help="Take so many texts (0: all).")] = 0,
    threads: Annotated[int, typer.Option(help="PyTorch's threads.")] = torch.get_num_threads(),
    memory: Annotated[bool, typer.Option(help="Measure memory (Linux).")] = sys.platform == "linux",
    json_to: Annotated[Path | None, typer.Option("--json", help="Write every number here.")] = None,
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Time capture against its peers, in alternating pairs, and measure each one's peak memory."""
    torch.set_num_threads(threads)
    chosen = [peer for peer in peers.split(",") if peer]
    if unknown := [peer for peer in chosen if peer not in PEERS or peer == OURS]:
        raise typer.BadParameter(f"{unknown} unknown: choose from {', '.join(list(PEERS)[1:])}", param_hint="--peers")
    lens = al.load_model(model, progress=False)
    if child:
        typer.echo(json.dumps(peak_memory(lens, texts, items, child)))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    facts, results = describe(model, threads, chosen), []
    for name in ("equal", "mixed") if texts == "both" else (texts,):
        before, work = os.getloadavg()[0], lay_out(lens, name, items)
        times = time_pairs(work, chosen, rounds)
        facts[f"load, {name}"] = f"{before:.1f} before, {os.getloadavg()[0]:.1f} after"
        options = ["--model", model, "--texts", name, "--items", str(items), "--threads", str(threads)]
        table = Table(title=f"{name}: {len(work.texts)} texts, {work.n_tokens} tokens, {rounds} pairs a peer")
        table.add_column("", no_wrap=True)
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for peer in (OURS, *chosen):
            line = {"texts": name, "peer": peer, "tokens": work.n_tokens} | summarise(peer, times)
            line |= in_child(__file__, [*options, "--child", peer]) if memory else {}
            table.add_row(peer, *cells(line))
            results.append(line)
        console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()))
    if json_to:
        json_to.write_text(json.dumps({"facts": facts, "results": results}, indent=1), encoding="utf-8")


def time_pairs(work: Work, peers: list[str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Peer -> (AffectLens's seconds, the peer's) for each round; the first run of each is checked, and not timed."""
    times: dict[str, list[tuple[float, float]]] = {peer: [] for peer in peers}
    if not rounds:
        return times
    want, runs = work.ours(), {peer: PEERS[peer](work.model) for peer in peers}
    for peer, run in runs.items():
        check(peer, run(work), want)
    for turn in range(rounds):
        for peer, run in runs.items():
            if turn % 2:
                ours, theirs = seconds(Work.ours, work), seconds(run, work)
            else:
                theirs, ours = seconds(run, work), seconds(Work.ours, work)
            times[peer].append((ours, theirs))
    return times


def seconds(run: Run, work: Work) -> float:
    start = time.perf_counter()
    run(work)
    return time.perf_counter() - start


def peak_memory(model: Any, texts: str, items: int, peer: str) -> dict[str, int]:
    """Resident bytes of this fresh process: with the model loaded, and at the peak while the peer worked."""
    loaded = resident()
    work, run = lay_out(model, texts, items), PEERS[peer](model)
    if peer == "body":
        _ = work.calls
    return {"loaded": loaded, "peak": peak(lambda: run(work))}


def summarise(peer: str, times: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    if peer == OURS:
        return {"seconds": [ours for pairs in times.values() for ours, _ in pairs]}
    return {"seconds": [theirs for _, theirs in times[peer]], "ratios": [theirs / ours for ours, theirs in times[peer]]}


def cells(line: dict[str, Any]) -> list[str]:
    """A line of the table."""
    out = ["", "", "", "", ""]
    if line["seconds"]:
        out[0], out[1] = f"{np.median(line['seconds']):.3f}", f"{line['tokens'] / np.median(line['seconds']):.0f}"
    if line.get("ratios"):
        low, middle, high = np.percentile(line["ratios"], [25, 50, 75])
        out[2] = f"{middle:.3f} [{low:.3f}, {high:.3f}]"
    if "peak" in line:
        out[3], out[4] = f"{line['loaded'] / MB:.0f}", f"{(line['peak'] - line['loaded']) / MB:.0f}"
    return out


def describe(model: str, threads: int, peers: list[str]) -> dict[str, Any]:
    packages = ["torch", "transformers", "transformer-lens", *(["nnsight"] if "nnsight" in peers else [])]
    return {"model": model, "threads": threads, "cores": os.cpu_count()} | {name: version(name) for name in packages}


if __name__ == "__main__":
    typer.run(main)
