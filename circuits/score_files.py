"""Edge scores in a folder: of the edges that there are, their pairs, and a JSON, written last."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.circuits.scoring import EdgeScores
from affectlens.circuits.space import EdgeSpace
from affectlens.errors import CircuitError
from affectlens.paths import replacing, write_parquet, write_text

TABLE, PAIRS, META = "scores.safetensors", "score_pairs.parquet", "scores.json"


def save_scores(scores: EdgeScores, home: Path) -> None:
    """Write them.

    Args:
        scores: what to write.
        home: the folder.
    """
    from safetensors.numpy import save_file

    home.mkdir(parents=True, exist_ok=True)
    with replacing(home / TABLE) as work:
        save_file({"scores": np.ascontiguousarray(scores.values[:, scores.space.allowed])}, work)
    write_parquet(home / PAIRS, scores.pairs)
    write_text(home / META, json.dumps({"space": scores.space.to_json(), "meta": scores.meta}, indent=1))


def load_scores(home: Path) -> EdgeScores:
    """Read them.

    Raises:
        CircuitError: there are none, or they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (home / META).is_file():
        raise CircuitError(f"{home} holds no edge scores: it has no {META}.")
    try:
        told = json.loads((home / META).read_text(encoding="utf-8"))
        space = EdgeSpace.from_json(told["space"])
        flat, pairs = load_file(home / TABLE)["scores"], pd.read_parquet(home / PAIRS)
        values = np.zeros((len(pairs), *space.allowed.shape), dtype=np.float32)
        values[:, space.allowed] = flat
    except (ValueError, TypeError, OSError, KeyError, SafetensorError) as error:
        raise CircuitError(
            f"The edge scores in {home} are damaged ({str(error).splitlines()[0]}): score again."
        ) from None
    return EdgeScores(space, values, pairs, told["meta"])
