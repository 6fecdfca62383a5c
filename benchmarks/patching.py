"""How fast exact patching is, against one transformer-lens forward a cell, and how much memory it takes.

``resid``: every layer and every token from the first differing one on, ``resid_pre``, as transformer-lens's
``get_act_patch_resid_pre`` patches them. ``heads``: every head's z at all positions, as its
``get_act_patch_attn_head_out_all_pos`` does. The peer runs a ``TransformerBridge`` forward a cell with a hook of its
own; its cells are sampled, since each takes as long as any other, and its results are compared with ours on them. Ours
does the whole sweep, the two unpatched runs included. Both start from tokens. Rounds alternate, and the median and
quartiles of the rounds' ratios are printed: only ratios within one run mean anything.

Memory is the peak resident size of a fresh process during a sweep, over what it holds with the model loaded.
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
from rich.console import Console
from rich.table import Table

import affectlens as al
from affectlens.patching import PatchPair, logit_difference, patch, prepare

MB = 1 << 20
WORDS = (" good", " bad")
SWEEPS = {"resid": ("resid_pre", "each"), "heads": ("heads", "all")}


def main(
    model: Annotated[str, typer.Option(help="A model's name, as load_model takes it.")] = "smollm2-135m",
    pairs: Annotated[int, typer.Option(help="How many pairs, each a round.")] = 4,
    tokens: Annotated[int, typer.Option(help="About how many tokens a text has.")] = 80,
    sample: Annotated[int, typer.Option(help="Cells of the peer's in a round.")] = 24,
    sweeps: Annotated[str, typer.Option(help="With commas between them.")] = ",".join(SWEEPS),
    threads: Annotated[int, typer.Option(help="PyTorch's threads.")] = torch.get_num_threads(),
    memory: Annotated[bool, typer.Option(help="Measure memory (Linux).")] = sys.platform == "linux",
    json_to: Annotated[Path | None, typer.Option("--json", help="Write every number here.")] = None,
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Time exact sweeps against one bridge forward a cell, and compare what they give."""
    torch.set_num_threads(threads)
    lens = al.load_model(model, progress=False)
    chosen = choose(lens, pairs, tokens)
    if child:
        loaded = resident()
        typer.echo(json.dumps({"loaded": loaded, "peak": peak(lambda: sweep(lens, chosen[0], child))}))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    facts = {"model": model, "threads": threads, "cores": os.cpu_count(), "texts": [len(p.corrupt) for p in chosen],
             "first difference": [p.alignment.b.changed[0] for p in chosen], "torch": version("torch"),
             "transformer-lens": version("transformer-lens"), "load before": round(os.getloadavg()[0], 1)}  # fmt: skip
    table = Table(title=f"{len(chosen)} pairs of about {tokens} tokens, one a round")
    for column in ("sweep", "cells", "AffectLens, ms a cell", "a forward a cell, ms", "speed [quartiles]",
                   "largest difference", "peak over model, MB"):  # fmt: skip
        table.add_column(column, justify="right")
    results = []
    for name in sweeps.split(","):
        rounds = [compare(lens, pair, name, sample, turn) for turn, pair in enumerate(chosen)]
        line: dict[str, Any] = {"sweep": name, "rounds": rounds}
        if memory:
            options = ["--model", model, "--pairs", str(pairs), "--tokens", str(tokens), "--threads", str(threads)]
            line |= in_child(__file__, [*options, "--child", name])
        low, middle, high = np.percentile([r["theirs"] / r["ours"] for r in rounds], [25, 50, 75])
        table.add_row(name, str(sum(r["cells"] for r in rounds)), f"{1e3 * np.mean([r['ours'] for r in rounds]):.1f}",
                      f"{1e3 * np.mean([r['theirs'] for r in rounds]):.1f}", f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                      f"{max(r['off'] for r in rounds):.1e}",
                      f"{(line['peak'] - line['loaded']) / MB:.0f}" if memory else "")  # fmt: skip
        results.append(line)
    console.print(table)
    facts["load after"] = round(os.getloadavg()[0], 1)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()))
    if json_to:
        json_to.write_text(json.dumps({"facts": facts, "results": results}, indent=1), encoding="utf-8")


def choose(lens: al.LensModel, n: int, tokens: int) -> list[PatchPair]:
    """Pairs of `core` of equal length, nearest to so many tokens, spread over where they first differ."""
    every = [pair for pair in prepare(lens, al.load_battery("core")) if len(pair.clean) == len(pair.corrupt)]
    near = sorted(every, key=lambda pair: abs(len(pair.corrupt) - tokens))[: 20 * n]
    near.sort(key=lambda pair: pair.alignment.b.changed[0])
    return [near[round((i + 0.5) * len(near) / n)] for i in range(n)]


def sweep(lens: al.LensModel, pair: PatchPair, name: str) -> Any:
    sites, positions = SWEEPS[name]
    metric = logit_difference(lens, *WORDS)
    return patch(lens, [pair], sites, positions, metric=metric, controls=(), progress=False).table


def compare(lens: al.LensModel, pair: PatchPair, name: str, sample: int, turn: int) -> dict[str, Any]:
    """Seconds a cell of both, in alternating order, and the largest difference on the sampled cells."""
    ids = [lens.tokenizer(word, add_special_tokens=False).input_ids[0] for word in WORDS]
    clean, corrupt = (torch.tensor([side.prompt.ids]) for side in (pair.clean, pair.corrupt))
    with torch.no_grad():
        _, cache = lens.bridge.run_with_cache(clean)
        lens.bridge(corrupt)  # both are warm before a clock starts
    patch(lens, [pair], "L0.resid_pre", "last", metric=logit_difference(lens, *WORDS), controls=(), progress=False)
    ours: dict[str, Any] = {}

    def run_ours() -> None:
        start = time.perf_counter()
        ours["table"] = sweep(lens, pair, name)
        ours["seconds"] = (time.perf_counter() - start) / len(ours["table"])

    if turn % 2:
        run_ours()
    table = ours.get("table")
    n_cells = lens.n_layers * (len(pair.segments["all"]) if name == "resid" else lens.n_heads)
    rows = np.random.default_rng(turn).choice(n_cells, size=min(sample, n_cells), replace=False)
    cells = [divmod(int(row), n_cells // lens.n_layers) for row in rows]
    start = time.perf_counter()
    values = [forward(lens, cache, corrupt, pair, name, layer, at, ids) for layer, at in cells]
    theirs = (time.perf_counter() - start) / len(cells)
    if table is None:
        run_ours()
        table = ours["table"]
    indexed = table.set_index(["layer", "position" if name == "resid" else "index"])["value"]
    keys = [(layer, pair.segments["all"][at][1] if name == "resid" else at) for layer, at in cells]
    off = max(abs(value - float(indexed[key])) for value, key in zip(values, keys, strict=True))
    return {"cells": len(table), "ours": ours["seconds"], "theirs": theirs, "off": off}


def forward(
    lens: al.LensModel,
    cache: Any,
    corrupt: torch.Tensor,
    pair: PatchPair,
    name: str,
    layer: int,
    at: int,
    ids: list[int],
) -> float:
    """One cell by the peer: a whole forward with its hook."""

    def patched(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value = value.clone()
        if name == "resid":
            source, base = pair.segments["all"][at]
            value[:, base] = cache[hook.name][:, source]
        else:
            value[:, :, at] = cache[hook.name][:, :, at]
        return value

    site = f"blocks.{layer}.{'hook_resid_pre' if name == 'resid' else 'attn.hook_z'}"
    with torch.no_grad():
        logits = lens.bridge.run_with_hooks(corrupt, fwd_hooks=[(site, patched)])
    return float(logits[0, -1, ids[0]] - logits[0, -1, ids[1]])


if __name__ == "__main__":
    typer.run(main)
