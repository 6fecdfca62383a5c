"""How fast many logistic probes are, against scikit-learn's LogisticRegression in a loop, on this machine.

Every set of fits is timed from raw activations to weights on raw activations, scaling included. scikit-learn has its
default solver and tolerance (and leave to take its iterations), on rows scaled once for all fits that share them, in
double precision and in single. Only ratios within one run mean anything: the two run as a pair, in alternating order,
and the median and quartiles of the pairs' ratios are printed. Beside each stands how far the weights are from their
optimum at the worst fit looked at, in lengths of the optimum: scikit-learn's, run to convergence.

``tall``: 800 rows of 576 columns, 8 binary labels by 4 values of C, 32 fits that share their rows.
``wide``: the same of 4,096 columns. ``four``: ``tall`` with one label, 4 fits.
``sweep``: 30 layers of 384 rows, 576 columns, binary, 4 values of C: 120 fits. ``emotions``: the same with 192 rows
and eight classes. Rows are Gaussian; their spectrum falls as 1/rank, much as that of pooled activations does.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from affectlens.probing.fits import C_GRID, Standard, logistic
from affectlens.probing.problem import Problem
from affectlens.probing.solver import solve

WORKS = {  # rows, columns, layers, labels, classes
    "tall": (800, 576, 1, 8, 2),
    "wide": (800, 4096, 1, 8, 2),
    "four": (800, 576, 1, 1, 2),
    "sweep": (384, 576, 30, 1, 2),
    "emotions": (192, 576, 30, 1, 8),
}
PEERS = {"float64": np.float64, "float32": np.float32}
COLUMNS = (
    "ms a fit",
    "scikit-learn",
    "AffectLens's speed / its [quartiles]",
    "AffectLens off by",
    "scikit-learn off by",
)
Weights = np.ndarray  # [layer, fit, k, d], of raw activations


@dataclass(frozen=True)
class Work:
    """Fits that go together."""

    name: str
    x: np.ndarray  # [item, layer, d], float32 as captured
    y: np.ndarray  # [item, label]

    @property
    def fits(self) -> list[tuple[int, float]]:
        """(label, C) of each fit of a layer."""
        return [(label, c) for label in range(self.y.shape[1]) for c in C_GRID]

    def ours(self) -> Weights:
        """Labels of one set of rows in one solve; else as the sweep calls it."""
        if self.y.shape[1] == 1:
            grid, k = np.tile([C_GRID], (self.x.shape[1], 1)), int(self.y.max()) + 1
            return np.stack([fit.weights for fit in logistic(self.x, self.y[:, 0], k, grid)], axis=1)
        rows = Standard.of(self.x, True)
        labels = torch.as_tensor(self.y[:, [label for label, _ in self.fits], None], dtype=torch.float64)
        c = torch.tensor([[c for _, c in self.fits]] * self.x.shape[1], dtype=torch.float64)
        return rows.raw(*solve(Problem(rows.rows(), rows.spanned, labels, c)))[0]

    def theirs(self, dtype: type) -> Weights:
        return np.stack([self.one_layer(layer, dtype, range(len(self.fits))) for layer in range(self.x.shape[1])])

    def one_layer(self, layer: int, dtype: type, which: range, tol: float = 1e-4) -> np.ndarray:
        """scikit-learn's weights of some fits of a layer: ``[fit, k, d]``."""
        x = self.x[:, layer].astype(dtype)
        spread = x.std(0)
        z, out = (x - x.mean(0)) / spread, []
        for label, c in (self.fits[i] for i in which):
            fit = LogisticRegression(C=c, tol=tol, max_iter=100_000).fit(z, self.y[:, label])
            out.append(fit.coef_ / spread)
        return np.stack(out)


def lay_out(name: str, shrink: int) -> Work:
    n, d, layers, labels, k = (size if i > 1 else max(16, size // shrink) for i, size in enumerate(WORKS[name]))
    rng = np.random.default_rng(0)
    layers = max(1, layers // shrink)
    turns = (rng.normal(size=(d, d)) / np.sqrt(1 + np.arange(d))[:, None] for _ in range(layers))
    x = np.stack([rng.normal(size=(n, d)) @ turn for turn in turns], axis=1)
    hidden = x[:, layers // 2] / x[:, layers // 2].std(0) @ rng.normal(size=(d, labels, k)).reshape(d, -1) / np.sqrt(d)
    noisy = hidden.reshape(n, labels, k) + rng.normal(size=(n, labels, k))
    if len(np.unique(y := noisy.argmax(2))) < k:
        raise typer.BadParameter(f"{shrink} leaves {name} without rows of some class", param_hint="--shrink")
    return Work(name, x.astype(np.float32), y)


def main(
    works: Annotated[str, typer.Option(help="With commas between them.")] = ",".join(WORKS),
    rounds: Annotated[int, typer.Option(help="Pairs of runs for each precision.")] = 5,
    checked: Annotated[int, typer.Option(help="Compare so many fits of a layer with their optimum.")] = 4,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch and of BLAS.")] = torch.get_num_threads(),
    cpu: Annotated[
        bool, typer.Option(help="Count processor time, not wall time: for a machine that is shared.")
    ] = False,
    shrink: Annotated[int, typer.Option(help="Divide rows, columns and layers by this.")] = 1,
    json_to: Annotated[Path | None, typer.Option("--json", help="Write every number here.")] = None,
) -> None:
    """Time sets of logistic fits against scikit-learn, in alternating pairs, and print how exact both are."""
    if unknown := [name for name in works.split(",") if name not in WORKS]:
        raise typer.BadParameter(f"{unknown} unknown: choose from {', '.join(WORKS)}", param_hint="--works")
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    clock = time.process_time if cpu else time.perf_counter
    table = Table(title=f"{rounds} pairs, {'processor' if cpu else 'wall'} time")
    for column in ("", "fits", *COLUMNS):
        table.add_column(column, justify="right" if column else "left")
    results = []
    with threadpool_limits(threads):
        for name in works.split(","):
            work = lay_out(name, shrink)
            for peer, dtype in PEERS.items():
                line = {"work": name, "peer": peer, "fits": len(work.fits) * work.x.shape[1]}
                line |= compare(work, dtype, checked) | {"seconds": time_pairs(work, dtype, rounds, clock)}
                table.add_row(f"{name}, {peer}", str(line["fits"]), *cells(line))
                results.append(line)
    facts = {"threads": threads, "cores": os.cpu_count(), "load": f"{os.getloadavg()[0]:.1f} after", "cpu": cpu}
    facts |= {package: version(package) for package in ("torch", "scikit-learn", "numpy")}
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()))
    if json_to:
        json_to.write_text(json.dumps({"facts": facts, "results": results}, indent=1), encoding="utf-8")


def compare(work: Work, dtype: type, checked: int) -> dict[str, float]:
    """How far the weights are from the optimum at the worst fit of the middle layer, in lengths of the optimum."""
    layer, which = work.x.shape[1] // 2, range(len(work.fits))[-checked:]
    best = work.one_layer(layer, np.float64, which, tol=1e-10)
    spread = work.x[:, layer].astype(np.float64).std(0)

    def off(weights: np.ndarray) -> float:
        lengths = (np.linalg.norm(w * spread, axis=(1, 2)) for w in (weights - best, best))
        return float(np.divide(*lengths).max())

    return {"off": off(work.ours()[layer][which.start :]), "peer_off": off(work.one_layer(layer, dtype, which))}


def time_pairs(work: Work, dtype: type, rounds: int, clock: Callable[[], float]) -> list[tuple[float, float]]:
    """(AffectLens's seconds, scikit-learn's) for each round."""
    times = []
    for turn in range(rounds):
        order = (work.ours, lambda: work.theirs(dtype))
        spent = {}
        for which in (0, 1) if turn % 2 else (1, 0):
            start = clock()
            order[which]()
            spent[which] = clock() - start
        times.append((spent[0], spent[1]))
    return times


def cells(line: dict) -> list[str]:
    """A line of the table."""
    ours, theirs = (1e3 * np.median(part) / line["fits"] for part in zip(*line["seconds"], strict=True))
    low, middle, high = np.percentile([b / a for a, b in line["seconds"]], [25, 50, 75])
    ratio = f"{middle:.1f} [{low:.1f}, {high:.1f}]"
    return [f"{ours:.2f}", f"{theirs:.2f}", ratio, f"{line['off']:.0e}", f"{line['peer_off']:.0e}"]


if __name__ == "__main__":
    typer.run(main)
