"""What every edge would do, estimated from gradients: edge attribution patching, plain and along a path.

The drop of the metric if the edge from u to v alone carries the counterfactual text's activation is, to first order,

    (what u writes in the clean text - what it writes in the other) . gradient by what v is given,

summed over tokens and dimensions, and one backward pass gives the gradients of all readers (Syed et al. 2023,
arXiv:2310.10348). ``eap`` takes them at the clean text; ``eap-ig`` averages them along the straight path of the input
embeddings from the clean text to the other (Hanna et al. 2024, arXiv:2403.17806), so that the estimates of all edges
from the embedding sum to the whole difference; ``eap-ig-activations`` moves what one layer's heads, or MLP, write along
its own path, a path a layer, and takes as many times longer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.slopes import Shift, slopes
from affectlens.circuits.space import EdgeSpace
from affectlens.circuits.trials import FACTS, Bench, Trial
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.patching.keeping import Kept
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair, read_of
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.types import Json

METHODS = ("eap", "eap-ig", "eap-ig-activations")
AT_REST = 1e-6  # of the gap; below it estimates are rounding


@dataclass(frozen=True, eq=False, repr=False)
class EdgeScores:
    """Each pair's estimate of every edge.

    ``values`` are drops of the metric, in its unit: positive where the edge holds the metric up, 0 where there is no
    edge. ``pairs`` has one row a pair: ``pair, group, domain, emotion, clean, corrupt``, the last two the metric of
    the unpatched texts.
    """

    space: EdgeSpace
    values: Float[np.ndarray, "pair sender receiver"]
    pairs: pd.DataFrame
    meta: Json  # model, fingerprint, metric, unit, method, steps

    def mean(self) -> Float[np.ndarray, "sender receiver"]:
        """The mean over pairs."""
        return np.asarray(self.values.mean(axis=0, dtype=np.float64))

    def only(self, keep: Sequence[bool] | np.ndarray) -> "EdgeScores":
        """The scores of some pairs.

        Args:
            keep: of each pair, whether it stays.
        """
        chosen = np.asarray(keep, dtype=bool)
        return EdgeScores(self.space, self.values[chosen], self.pairs[chosen].reset_index(drop=True), self.meta)

    def save(self, folder: str | Path) -> None:
        """Write ``scores.safetensors`` (the edges alone), ``score_pairs.parquet`` and, last, ``scores.json``."""
        from affectlens.circuits.score_files import save_scores

        save_scores(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> "EdgeScores":
        """Read what :meth:`save` wrote.

        Raises:
            CircuitError: if there is none, or it is damaged.
        """
        from affectlens.circuits.score_files import load_scores

        return load_scores(Path(folder))

    def __repr__(self) -> str:
        n = len(self.values)
        return f"EdgeScores({self.meta['method']}: {self.space.n_edges:,} edges, {n} pairs, {self.meta['metric']})"


def score_edges(
    model: LensModel,
    pairs: Sequence[PatchPair],
    metric: Metric,
    *,
    method: str = "eap-ig",
    steps: int = 5,
    memory: float = 1.0,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> EdgeScores:
    """Estimate the drop of a metric for every edge.

    >>> from affectlens.patching import label_difference, prepare
    >>> from affectlens.testing import tiny_model
    >>> model, labels = tiny_model(), {"good": " good", "bad": " bad"}
    >>> pairs = prepare(model, [("She won the race. Then", "She lost a race. Then")], labels=labels)
    >>> score_edges(model, pairs, label_difference(labels, "good", "bad"), method="eap")
    EdgeScores(eap: 82 edges, 1 pairs, log P(good) - log P(bad))

    Args:
        model: from :func:`affectlens.load_model`.
        pairs: from :func:`affectlens.patching.prepare`; circuits are of the first, ``clean`` text.
        metric: what circuits are judged by; it reads the logits or one layer's stream.
        method: ``eap``, ``eap-ig`` or ``eap-ig-activations``.
        steps: gradients along a path; ``eap`` takes one.
        memory: what a batch may take beyond the model, in GB.
        folder: where each pair's scores are kept, so that a stopped call goes on there.
        progress: show a bar; by default where a person is looking.

    Raises:
        PatchError: a folder in which other scores were begun.
        CircuitError: no pairs, an unknown method, a metric without one end or gradient, or at rest at the clean text, a
            model whose edges can't be told apart.
    """
    if method not in METHODS:
        raise CircuitError(f"method is {method!r}; choose {', '.join(METHODS)}.")
    if steps < 1 or not pairs:
        raise CircuitError(f"{len(pairs)} pairs and {steps} steps: give at least one of each.")
    bench = Bench.of(model, metric, memory)
    meta: Json = {
        "model": model.name, "fingerprint": model.fingerprint, "metric": metric.name, "unit": metric.unit,
        "method": method, "steps": 1 if method == "eap" else steps,
    }  # fmt: skip
    kept = Kept(folder, meta | {"of": metric.facts, "texts": read_of(pairs), "space": bench.space.to_json()})
    values = np.zeros((len(pairs), *bench.space.allowed.shape), dtype=np.float32)
    facts = []
    for row, pair in enumerate(tracked(pairs, "scoring edges", show=progress)):
        table = kept.get(row, partial(_scored, bench, pair, method, steps))
        values[row][bench.space.allowed] = table["score"]
        facts.append(table.iloc[0][FACTS].to_dict())
    about = pd.DataFrame(facts, columns=FACTS)
    gap = float((about["clean"] - about["corrupt"]).abs().mean())
    if float(np.abs(values).max()) < AT_REST * gap:
        raise CircuitError(
            f"{metric.name!r} hardly moves as the clean text is changed a little, so {method} can't tell edges apart: "
            "take another metric, or eap-ig."
        )
    return EdgeScores(bench.space, values, about, meta)


def _scored(bench: Bench, pair: PatchPair, method: str, steps: int) -> pd.DataFrame:
    """One row an edge: its score, and beside it what is known of the pair."""
    trial = bench.trial(pair)
    found = estimates(trial, method, steps).cpu().numpy()
    return pd.DataFrame({"score": found[bench.space.allowed]}).assign(**trial.facts)


def estimates(trial: Trial, method: str, steps: int) -> Float[Tensor, "sender receiver"]:
    """One pair's estimates, 0 where there is no edge.

    Args:
        trial: the pair.
        method: as :func:`score_edges` takes it.
        steps: gradients along a path.
    """
    away = (trial.clean - trial.corrupt).float()
    allowed = torch.from_numpy(trial.bench.space.allowed).to(away.device)
    if method == "eap-ig-activations":
        return _by_layer(trial, away, steps) * allowed
    points, shares = (torch.zeros(1), torch.ones(1)) if method == "eap" else _path(steps)
    start, out = trial.base.streams[0][None, trial.begin :], torch.zeros(allowed.shape, device=away.device)
    for rows in _batches(trial, len(points)):
        x = start - (points[rows].to(away)[:, None, None] * away[0]).to(start)
        out += slopes(trial, x, shares[rows], away)
    return out * allowed


def _by_layer(trial: Trial, away: Tensor, steps: int) -> Float[Tensor, "sender receiver"]:
    """Each layer's heads, and each MLP, moved along their own path; the embedding as in ``eap-ig``."""
    space, out = trial.bench.space, estimates(trial, "eap-ig", steps)
    points, shares = _path(steps)
    start = trial.base.streams[0][None, trial.begin :]
    for layer in range(space.n_layers):
        first = space.sender[f"L{layer}.H0"]
        upto = first + space.n_heads
        for kind, group in (("attn_out", slice(first, upto)), ("mlp_out", slice(upto, upto + 1))):
            out[group] = 0.0
            for rows in _batches(trial, steps):
                way = (-points[rows].to(away)[:, None, None] * away[group].sum(0)).to(start)
                x = start.expand(len(way), -1, -1)
                out[group] += slopes(trial, x, shares[rows], away[group], _moved(layer, kind, way))
    return out


def _moved(layer: int, kind: str, way: Tensor) -> Shift:
    return lambda at, what, out: out + way if (at, what) == (layer, kind) else out


def _path(steps: int) -> tuple[Float[Tensor, " step"], Float[Tensor, " step"]]:
    """Points from the clean text (0) to the other (1) by the rule of Gauss and Legendre, and their shares."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def _batches(trial: Trial, rows: int) -> Iterator[slice]:
    """As many runs at once as their backward pass leaves room for."""
    space, model = trial.bench.space, trial.bench.walker.engine.model
    pos, d_model = trial.clean.shape[1:]
    wide = model.sites.shape(Site("neurons", 0))[0] if model.sites.has(Site("neurons", 0)) else 4 * d_model
    kept = space.n_layers * (12 * d_model + 6 * wide + 4 * space.n_heads * len(trial.base.tokens))
    size = trial.clean.element_size() * pos * (kept + 4 * space.n_heads * d_model)
    fit = max(1, int(trial.bench.memory / size))
    return (slice(at, min(at + fit, rows)) for at in range(0, rows, fit))
