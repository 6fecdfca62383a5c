"""One strict set-up: no sockets beyond this machine, no hub, a cache of one's own, small synthetic data."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pandas as pd
import pytest

from affectlens.cli import main
from affectlens.model import LensModel, load_model
from affectlens.paths import cache_dir
from affectlens.store import Activations
from affectlens.testing import tiny_model

REAL_CACHE = cache_dir()
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests write to a cache of their own; those on the real model read its weights from the user's."""
    if "real" not in request.keywords:
        monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def llama() -> LensModel:
    return tiny_model("llama")


@pytest.fixture(scope="session")
def smol() -> LensModel:
    return load_model("smollm2-135m")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """``affectlens ARGS``: the exit code, standard output and standard error."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["affectlens", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run


def battery_frame(n_scenes: int = 40, n_domains: int = 8, n_quads: int = 0) -> pd.DataFrame:
    """The table of a battery of pairs (and quadruples) with empty-handed texts."""
    emotions = ["joy", "trust", "fear", "sadness", "disgust", "anger", "surprise", "anticipation"]
    rows: list[tuple[object, ...]] = []
    for scene in range(n_scenes):
        emotion = emotions[(scene // n_domains) % 8]
        for role in ("emotional", "neutral"):
            valence = 0 if role == "neutral" else 1 if scene % 2 else -1
            rows.append((f"s{scene}.{role}", f"text {scene}", "vignettes", role, emotion, valence,
                         f"d{scene % n_domains}", f"s{scene}", None))  # fmt: skip
    for split in ("crossed", "crossed_fact"):
        for quad in range(n_quads):
            for cell in ("ax", "ay", "bx", "by"):
                role = "emotional" if split == "crossed" and cell in ("ax", "by") else "neutral"
                rows.append((f"{split}{quad}.{cell}", f"text {quad} {cell}", split, role, "fear", 0, "d0",
                             f"{split}{quad}", cell))  # fmt: skip
    columns = ["id", "text", "split", "role", "emotion", "valence", "domain", "group", "cell"]
    return pd.DataFrame(rows, columns=columns)


def activations(items: pd.DataFrame, values: np.ndarray, **positions: np.ndarray) -> Activations:
    """Activations of nobody's model."""
    every = {"mean": values.astype(np.float32)} | {k: v.astype(np.float32) for k, v in positions.items()}
    return Activations.from_arrays(
        every, items, model="planted", fingerprint="f" * 32, battery="planted", battery_sha256="b" * 64
    )
