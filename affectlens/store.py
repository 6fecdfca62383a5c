"""Activations and their store: safetensors and a manifest in a folder named by its content's address.

The key covers the model's fingerprint, the battery's hash, the site, the positions and the format. Batches are kept as
they are computed, so that an interrupted capture goes on where it stopped; the finished folder appears by a rename.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from affectlens.errors import CaptureError, StoreError
from affectlens.paths import cache_dir, file_sha256, replacing, written_whole
from affectlens.types import Json

FORMAT = 1


@dataclass(frozen=True)
class Activations:
    """Pooled activations of a battery's items at every layer.

    ``acts.at("mean")`` is an array ``[item, layer, d_model]`` in float32; ``acts.items`` the battery's table in the
    same order.
    """

    values: dict[str, np.ndarray]  # position -> [item, layer, d_model]
    items: pd.DataFrame  # one row an item: id, text and whatever the battery knows
    site: str  # "resid_post"
    model: str  # the name that was loaded
    fingerprint: str  # of the model: weights, config, tokenizer, template, dtype
    battery: str  # its name
    battery_sha256: str

    @property
    def positions(self) -> tuple[str, ...]:
        """The pooling rules that were captured, the first one being the default."""
        return tuple(self.values)

    @property
    def n_layers(self) -> int:
        return int(next(iter(self.values.values())).shape[1])

    @property
    def d_model(self) -> int:
        return int(next(iter(self.values.values())).shape[2])

    def __len__(self) -> int:
        return len(self.items)

    def at(self, position: str | None = None) -> Float32[np.ndarray, "item layer d_model"]:
        """The activations pooled by ``position`` (the first captured, if none is named).

        Raises:
            CaptureError: if that position was not captured.
        """
        name = position or self.positions[0]
        if name not in self.values:
            raise CaptureError(
                f"Position {name!r} was not captured, only {', '.join(self.positions)}: "
                f"capture again with positions={[*self.positions, name]}."
            )
        return self.values[name]

    def __repr__(self) -> str:
        return (
            f"Activations({len(self)} items x {self.n_layers} layers x {self.d_model}, {self.site}, "
            f"{'+'.join(self.positions)}, {self.model}, {self.battery})"
        )

    def save(self, folder: str | Path) -> Path:
        """Write the tensors, the table and the manifest to ``folder``, which must not exist yet."""
        target = Path(folder)
        if target.exists():
            raise StoreError(f"{target} exists already: choose another name or remove it.")
        self.put(target)
        return target

    def put(self, target: Path) -> None:
        """Write as :meth:`save` does; if another process was first, theirs stays."""
        with written_whole(target) as work:
            save_file(self.values, work / "activations.safetensors")
            self.items.drop(columns="meta", errors="ignore").to_parquet(work / "items.parquet", index=False)
            files = {name: file_sha256(work / name) for name in ("activations.safetensors", "items.parquet")}
            manifest: Json = {
                "format": FORMAT, "site": self.site, "positions": list(self.positions), "model": self.model,
                "fingerprint": self.fingerprint, "battery": self.battery,
                "battery_sha256": self.battery_sha256, "files": files,
            }  # fmt: skip
            (work / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Activations":
        """Read what :meth:`save` wrote.

        Raises:
            StoreError: if the folder is not one of ours, or a file in it is missing or not as it was written.
        """
        home = Path(folder)
        try:
            manifest = json.loads((home / "manifest.json").read_text(encoding="utf-8"))
            for name, digest in manifest["files"].items():
                if file_sha256(home / name) != digest:
                    raise StoreError(f"{home / name} is damaged: remove {home} and capture again.")
            tensors = load_file(home / "activations.safetensors")
            items = pd.read_parquet(home / "items.parquet")
            values = {name: tensors[name] for name in manifest["positions"]}
            return cls(values, items, manifest["site"], manifest["model"], manifest["fingerprint"],
                       manifest["battery"], manifest["battery_sha256"])  # fmt: skip
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, SafetensorError) as error:
            raise StoreError(f"{home} holds no readable activations ({error!r}).") from None


def key(fingerprint: str, battery_sha256: str, site: str, positions: tuple[str, ...]) -> str:
    """The address of a capture in the store."""
    parts = json.dumps([FORMAT, fingerprint, battery_sha256, site, positions])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def folder(address: str) -> Path:
    """Where the capture with this address lives, or will."""
    return cache_dir() / "activations" / address


class Batches:
    """The batches of one capture plan, kept on disk as they come."""

    def __init__(self, address: str, plan: list[list[int]]) -> None:
        digest = hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:12]
        self.home = cache_dir() / "partial" / f"{address}-{digest}"
        self.home.mkdir(parents=True, exist_ok=True)

    def read(self, index: int) -> dict[str, np.ndarray] | None:
        """Batch ``index`` if it is there and whole."""
        try:
            return dict(load_file(self.home / f"{index:06d}.safetensors"))
        except (OSError, SafetensorError):
            return None

    def write(self, index: int, values: dict[str, np.ndarray]) -> None:
        """Keep batch ``index``: a temporary name first, then a rename."""
        with replacing(self.home / f"{index:06d}.safetensors") as work:
            save_file(values, work)

    def clear(self) -> None:
        """Remove the batches: the finished capture has taken their place."""
        shutil.rmtree(self.home, ignore_errors=True)
