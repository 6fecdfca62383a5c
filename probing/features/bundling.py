"""Put a trained dictionary among the package's own: ``python -m affectlens.probing.features.bundling RUN/sae NAME``.

Weights are kept in float16, which halves them.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from affectlens.errors import AffectLensError, StoreError
from affectlens.paths import write_text, written_whole
from affectlens.probing.sae import FACTS
from affectlens.probing.sae_files import DATA, load_sae

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"  # SAELens' names


def bundle(folder: str | Path, name: str, *, home: Path = DATA) -> Path:
    """Write ``home/sae_NAME`` from a dictionary's folder.

    Args:
        folder: of the dictionary.
        name: the model that it is found by.
        home: where bundled data is kept.

    Raises:
        StoreError: no dictionary there, or weights beyond what float16 holds.
    """
    source, target = Path(folder), home / f"sae_{name}"
    sae = load_sae(source)
    halves = {key: value.to(torch.float16) for key, value in load_file(source / WEIGHTS).items()}
    if not all(torch.isfinite(value).all() for value in halves.values()):
        raise StoreError(f"The weights in {folder} are beyond what float16 holds.")
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    if target.exists():
        raise StoreError(f"{target} exists already: remove it first.")
    with written_whole(target) as work:
        save_file(halves, work / WEIGHTS)
        (work / WEIGHTS).chmod(0o644)
        write_text(work / CONFIG, json.dumps(config | {"device": "cpu"}))
        write_text(work / FACTS, json.dumps(sae.facts | {"name": name, "site": str(sae.site)}, indent=1) + "\n")
    return target


if __name__ == "__main__":
    try:
        print(bundle(*sys.argv[1:3]))
    except (AffectLensError, TypeError) as error:
        sys.exit(f"bundling: {error}")
