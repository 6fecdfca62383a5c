"""What a click on a head shows: where its attention goes in one text, and the texts on which its edges carry most."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.picture.data import Detail, rows_of
from affectlens.circuits.scoring import EdgeScores
from affectlens.errors import CircuitError
from affectlens.hooks import record
from affectlens.model import LensModel
from affectlens.patching.pairs import PatchPair
from affectlens.paths import write_text


def details_of(
    model: LensModel, graph: CircuitGraph, pairs: Sequence[PatchPair], *, top: int = 12,
    scores: EdgeScores | None = None, items: int = 6, example: int = 0,
) -> Detail:  # fmt: skip
    """Attention patterns of a circuit's most important heads on one clean text, and the top texts of every node.

    A node's value on a text is the sum of its outgoing circuit edges' estimated drops on that pair; without scores
    there are no top texts.

    Args:
        model: from :func:`affectlens.load_model`.
        graph: the circuit.
        pairs: what it was found on.
        top: how many heads' patterns.
        scores: every pair's estimates.
        items: how many texts a node.
        example: whose clean text the patterns are of, counted in ``pairs``.

    Raises:
        CircuitError: no such pair, scores of another space, or a scored pair that is not among ``pairs``.
    """
    if not 0 <= example < len(pairs):
        raise CircuitError(f"example={example} is none of {len(pairs)} pairs: count from 0.")
    prompt = pairs[example].clean.prompt
    heads = important(graph, top)
    patterns: dict[str, Float[np.ndarray, "query key"]] = {}
    if heads:
        ids = torch.tensor([prompt.ids], device=model.device)
        with torch.inference_mode(), model.lock, record(model, [f"{head}.pattern" for head in heads]) as seen:
            model.body(input_ids=ids, use_cache=False)
        patterns = {head: seen[f"{head}.pattern"][0].float().cpu().numpy() for head in heads}
    tokens = tuple(str(model.tokenizer.decode([one])) for one in prompt.ids)
    found = {} if scores is None else top_items(graph, pairs, scores, n=items)
    return Detail(tokens, patterns, found, unit=str(graph.meta.get("unit") or ""))


def save_details(detail: Detail, path: Path) -> None:
    """Write them as JSON, patterns in thousandths, as the page shows them.

    Args:
        detail: what to write.
        path: of the file.
    """
    patterns = {head: rows_of(one) for head, one in detail.patterns.items()}
    write_text(path, json.dumps(vars(detail) | {"patterns": patterns}))


def load_details(path: Path) -> Detail:
    """Read what :func:`save_details` wrote.

    Args:
        path: of the file.

    Raises:
        CircuitError: if it is damaged.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        tokens, items = tuple(told["tokens"]), {node: [(str(text), float(value)) for text, value in some]
                                                for node, some in told["items"].items()}  # fmt: skip
        patterns = {head: np.zeros((len(tokens), len(tokens))) for head in told["patterns"]}
        for head, rows in told["patterns"].items():
            for at, row in enumerate(rows):
                patterns[head][at, : len(row)] = np.array(row) / 1000
        return Detail(**told | {"tokens": tokens, "patterns": patterns, "items": items})
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OSError) as error:
        said = str(error).splitlines()[0]
        raise CircuitError(f"{path} is damaged ({said}): remove it, and the report is drawn without it.") from None


def important(graph: CircuitGraph, top: int) -> list[str]:
    """The heads whose outgoing circuit edges have the largest sum of |score|.

    Args:
        graph: the circuit.
        top: how many.
    """
    sums = graph.edges["score"].abs().groupby(graph.edges["sender"].astype(str)).sum()
    heads = sums[[".H" in str(name) for name in sums.index]]
    return [str(name) for name in heads.sort_values(ascending=False, kind="stable").index[:top]]


def top_items(
    graph: CircuitGraph, pairs: Sequence[PatchPair], scores: EdgeScores, *, n: int = 6
) -> Mapping[str, list[tuple[str, float]]]:
    """For each sender of the circuit the clean texts on which its circuit edges' drops have the largest |sum|.

    Args:
        graph: the circuit.
        pairs: those that were scored, in any order, and others.
        scores: every pair's estimates.
        n: how many texts.

    Raises:
        CircuitError: scores of another space, or a scored pair that is not among ``pairs``.
    """
    space = scores.space
    if space != graph.space:
        raise CircuitError("The scores are of another model or another end than the circuit: score its own edges.")
    texts = {pair.name: pair.clean.layout.text for pair in pairs}
    names = [str(name) for name in scores.pairs["pair"]]
    if lacking := [name for name in names if name not in texts]:
        raise CircuitError(f"{lacking[0]!r} was scored but is none of the pairs given: give all that were scored.")
    out: dict[str, list[tuple[str, float]]] = {}
    for sender, part in graph.edges.groupby(graph.edges["sender"].astype(str)):
        columns = [space.receiver[str(name)] for name in part["receiver"]]
        sums = np.asarray(scores.values[:, space.sender[str(sender)], columns]).sum(axis=1, dtype=np.float64)
        order = np.argsort(-np.abs(sums), kind="stable")[:n]
        out[str(sender)] = [(texts[names[i]], float(sums[i])) for i in order]
    return out
