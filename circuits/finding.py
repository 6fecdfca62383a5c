"""One emotion's circuit: scored, chosen and its size read on one half of the scenes, everything else on the other."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.circuits.agreeing.carrying import circuit_by_layer
from affectlens.circuits.agreeing.layered import ByLayer
from affectlens.circuits.asking import Question
from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.sampling import random_circuits
from affectlens.circuits.scoring import EdgeScores, score_edges
from affectlens.circuits.selecting import FRACTIONS, at_sizes
from affectlens.circuits.settings import Asked
from affectlens.circuits.space import Edges
from affectlens.circuits.verifying.result import Verification
from affectlens.circuits.verifying.running import Passes
from affectlens.circuits.verifying.study import verify
from affectlens.circuits.verifying.tools import Tools
from affectlens.model import LensModel
from affectlens.types import Json

KEPT, PASSES, SCORES, HELD, GRAPH = "kept", "passes", "scores", "held", "graph.json"
SHOWN = 0.01  # of the edges are drawn where no size can be told
LAYERED = 20  # random circuits that a layer's part stands beside


@dataclass(frozen=True, eq=False)
class Found:
    """One emotion's circuit and what held of it."""

    emotion: str
    graph: CircuitGraph
    verification: Verification
    scores: EdgeScores  # of the scenes that chose it
    held: EdgeScores  # of the others
    layers: ByLayer  # what its edges out of each layer carry

    def save(self, home: Path) -> None:
        """Write everything, the graph last.

        Args:
            home: the emotion's folder in the run.
        """
        self.scores.save(home / SCORES)
        self.held.save(home / HELD)
        self.verification.save(home)
        self.layers.save(home)
        self.graph.save(home / GRAPH)

    @classmethod
    def load(cls, home: Path, emotion: str) -> "Found":
        """Read what :meth:`save` wrote.

        Args:
            home: the emotion's folder in the run.
            emotion: its name.

        Raises:
            AffectLensError: if it is not whole.
        """
        graph = CircuitGraph.load(home / GRAPH)
        chose, held = (EdgeScores.load(home / name) for name in (SCORES, HELD))
        return cls(emotion, graph, Verification.load(home), chose, held, ByLayer.load(home, "circuit"))


def found(
    model: LensModel, question: Question, asked: Asked, facts: Json, home: Path, progress: bool | None = None
) -> Found:
    """Find and verify a circuit; what a stopped run has computed is taken from its folder.

    Args:
        model: from :func:`affectlens.load_model`.
        question: the emotion's pairs and metric.
        asked: the settings.
        facts: of the battery, for the graph's ``meta``.
        home: the emotion's folder in the run.
        progress: show bars.

    Raises:
        CircuitError: edges that can't be told apart, or scores that no edge has.
    """
    if (home / GRAPH).is_file():
        return Found.load(home, question.emotion)
    kept = home / KEPT
    scored = partial(score_edges, model, metric=question.metric, method=asked.method, steps=asked.steps,
                     memory=asked.memory, progress=progress)  # fmt: skip
    scores = scored(pairs=question.discovery, folder=kept / SCORES)
    verification = verify(
        model, scores, question.held, question.metric, amounts=asked.amounts, rule=asked.rule,
        choosing=question.discovery, seed=asked.seed, keep=kept / PASSES, memory=asked.memory, progress=progress,
    )  # fmt: skip
    held = scored(pairs=question.held, folder=kept / HELD)
    size = float(verification.meta["size"]) if verification.divided else SHOWN
    sizes = at_sizes(scores.space, scores.mean(), [one for one in (*FRACTIONS, size) if one >= size], asked.rule)
    size = next(one for one in sorted(sizes) if sizes[one].any())
    mask = sizes[size]
    effects = _exact(model, question, scores, mask, asked, kept, progress)
    meta = scores.meta | facts | {
        "emotion": question.emotion, "selection": asked.rule, "size": size, "n_pairs": len(question.discovery),
        "n_held": len(question.held), "verified": verification.divided,
    }  # fmt: skip
    graph = CircuitGraph.of(scores, mask, effects=effects, meta=meta, seed=asked.seed)
    randoms = list(random_circuits(scores.space, mask, LAYERED, seed=asked.seed))
    layers = circuit_by_layer(graph, held, randoms, found=scores, seed=asked.seed)
    out = Found(question.emotion, graph, verification, scores, held, layers)
    out.save(home)
    shutil.rmtree(kept, ignore_errors=True)
    return out


def _exact(
    model: LensModel, question: Question, scores: EdgeScores, mask: Edges, asked: Asked, kept: Path,
    progress: bool | None,
) -> pd.DataFrame:  # fmt: skip
    """The exact effects of the circuit's edges with the largest scores, on held-out pairs."""
    rows, columns = np.nonzero(mask)
    order = np.argsort(-np.abs(scores.mean()[rows, columns]), kind="stable")[: asked.exact]
    edges = [scores.space.name(int(rows[at]), int(columns[at])) for at in order]
    tools = Tools.of(asked.rule)
    passes = Passes(model, question.metric, scores.space, tools, kept / PASSES, asked.memory, progress)
    return passes.patch(edges, question.held)
