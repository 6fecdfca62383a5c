"""Steered llama.cpp beside plain llama.cpp, through the same runner, in turns.

Each round writes the same number of tokens greedily, one request, plain and steered, with the key-value cache. The
figure is the ratio of tokens a second, steered to plain: the rounds' median with their quartiles. A vector that stays
is set once; a schedule sets another at every token, which costs llama.cpp a new reservation of its graph each time.

    pip install 'affectlens[llamacpp]'
    python benchmarks/llama.py --tokens 64 --rounds 15
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import affectlens as al
from affectlens.generating import Decoding
from affectlens.model import LensModel
from affectlens.steering import Direction, Directions, SteeringPlan, plan_for
from affectlens.steering.engines.gguf_files import find_gguf
from affectlens.steering.engines.llama import LlamaCpp
from affectlens.steering.engines.request import Request

PROMPT = "Tell me about your day."
RAW = 0.2


def main(
    model: Annotated[str, typer.Option(help="A model's name, as load_model takes it.")] = "smollm2-135m",
    gguf: Annotated[Path | None, typer.Option(help="Its GGUF file.")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens a text.")] = 64,
    rounds: Annotated[int, typer.Option(help="Rounds, each of every way.")] = 15,
    threads: Annotated[int, typer.Option(help="Of llama.cpp.")] = torch.get_num_threads(),
    json_to: Annotated[Path | None, typer.Option("--json", help="Write every number here.")] = None,
) -> None:
    """Time plain and steered llama.cpp and print the ratios."""
    facts = compared(model, gguf, tokens=tokens, rounds=rounds, threads=threads)
    if json_to:
        json_to.write_text(json.dumps(facts), encoding="utf-8")


def compared(
    model: str, gguf: Path | None = None, *, tokens: int = 64, rounds: int = 15, threads: int | None = None
) -> dict[str, Any]:
    """Print a line a way; tokens, threads and the seconds of every round."""
    threads = threads or torch.get_num_threads()
    runner = LlamaCpp(al.load_model(model), gguf or find_gguf(model), slots=1, n_ctx=tokens + 256, threads=threads)
    print(f"{runner.says}; {threads} threads")
    seconds = llama_ratio(runner, tokens=tokens, rounds=rounds)
    runner.close()
    for name, took in seconds.items():
        low, middle, high = np.quantile(np.array(seconds["plain"]) / np.array(took), [0.25, 0.5, 0.75])
        print(f"{name:<18} {tokens / np.median(took):7.1f} tokens/s   {middle:.3f} of plain [{low:.3f}, {high:.3f}]")
    return {"tokens": tokens, "threads": threads, "seconds": seconds}


def llama_ratio(runner: LlamaCpp, *, tokens: int = 64, rounds: int = 15) -> dict[str, list[float]]:
    """Seconds of every round by way: ``plain``, ``steered``, and ``steered, decay``, in turns of alternating order."""
    ids = runner.model.tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_dict=False
    )
    plans = {"plain": None, "steered": _plan(runner.model), "steered, decay": _plan(runner.model, schedule="decay(32)")}
    wanted = {name: Request(tuple(ids), Decoding(tokens), plan) for name, plan in plans.items()}
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for turn in range(-1, rounds):  # the first warms up
        for name in plans if turn % 2 == 0 else reversed(plans):
            took = _timed(runner, wanted[name], tokens)
            if turn >= 0:
                seconds[name].append(took)
    return seconds


def _timed(runner: LlamaCpp, request: Request, tokens: int) -> float:
    runner.check(request)
    start = time.perf_counter()
    *_, logits = runner.read({0: request})
    for _ in range(tokens - 1):
        assert logits is not None
        logits = runner.step({0: int(logits[0].argmax())})
    took = time.perf_counter() - start
    runner.free(0)
    return took


def _plan(model: LensModel, **how: Any) -> SteeringPlan:
    vector = np.random.default_rng(0).normal(size=model.d_model)
    site = f"L{round(0.6 * model.n_layers)}.resid_post"
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    found = Directions([Direction("axis", site, unit, 100.0, "random", model.name, model.fingerprint)])
    return plan_for(model, {"axis": RAW}, directions=found, raw=True, **how)


if __name__ == "__main__":
    typer.run(main)
