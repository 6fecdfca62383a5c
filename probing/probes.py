"""Saved probes: one safetensors file, its manifest in the header, refused by any model but the one it was fitted on."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from affectlens.errors import StoreError
from affectlens.model import LensModel
from affectlens.paths import replacing
from affectlens.probing.linear import Linear
from affectlens.store import Activations
from affectlens.types import Json

_TAG = "affectlens.probes"


@dataclass(frozen=True)
class Probes:
    """The probes of one target at every layer, fitted on all its items.

    ``weights[method]`` is ``[layer, k, d_model]`` and ``bias[method]`` ``[layer, k]``, in the raw space of the
    activations; k is 1 for two classes (positive: the second) and for an order, else the number of classes.
    """

    target: str
    classes: tuple[str, ...]
    layer: int  # chosen by folds over the training items
    site: str
    position: str
    model: str
    fingerprint: str
    battery: str
    battery_sha256: str
    weights: dict[str, np.ndarray]
    bias: dict[str, np.ndarray]

    @property
    def main(self) -> str:
        """The method that chose the layer: logistic, or ridge for a target in an order."""
        return "logistic" if "logistic" in self.weights else "ridge"

    def at(self, layer: int | None = None, method: str | None = None) -> Linear:
        """The probe of one layer, the chosen one by default; its main method by default.

        Raises:
            StoreError: a layer or method that is not there.
        """
        where, method = self.layer if layer is None else layer, method or self.main
        if method not in self.weights or not 0 <= where < len(self.weights[method]):
            raise StoreError(
                f"There is no {method} probe of layer {where}: methods are {', '.join(self.weights)}, layers 0 to "
                f"{len(next(iter(self.weights.values()))) - 1}."
            )
        return Linear(self.weights[method][where], self.bias[method][where])

    def score(
        self,
        acts: Activations,
        *,
        layer: int | None = None,
        method: str | None = None,
        position: str | None = None,
    ) -> Float[np.ndarray, "item k"]:
        """The logits of captured items.

        Raises:
            StoreError: if the activations come from another model or another site.
        """
        self.expect(acts.fingerprint, acts.model)
        if acts.site != self.site:
            raise StoreError(f"These probes read {self.site}, the activations are {acts.site}.")
        where = self.layer if layer is None else layer
        return self.at(where, method)(acts.at(position or self.position)[:, where].astype(np.float64))

    def expect(self, fingerprint: str, name: str) -> None:
        """Raise a :class:`StoreError` unless ``fingerprint`` is that of the model these probes were fitted on."""
        if fingerprint != self.fingerprint:
            raise StoreError(
                f"These probes were fitted on {self.model} ({self.fingerprint[:12]}) and cannot read {name} "
                f"({fingerprint[:12]}): weights, dtype, tokenizer and template must be the same. Fit them anew: "
                f"affectlens probe {name}."
            )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, under a temporary name first."""
        target = Path(path)
        tensors = {f"{m}.weights": np.ascontiguousarray(v) for m, v in self.weights.items()}
        tensors |= {f"{m}.bias": np.ascontiguousarray(v) for m, v in self.bias.items()}
        with replacing(target) as work:
            save_file(tensors, work, metadata={_TAG: json.dumps(_header(self))})
        return target

    @classmethod
    def load(cls, path: str | Path, model: LensModel | None = None) -> "Probes":
        """Read a file of probes; with ``model``, refuse those of another.

        Raises:
            StoreError: a missing, damaged or foreign file, or probes of another model.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                header = json.loads((file.metadata() or {})[_TAG])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            header["classes"] = tuple(header["classes"])
            weights = {name.removesuffix(".weights"): t for name, t in tensors.items() if name.endswith(".weights")}
            bias = {name.removesuffix(".bias"): t for name, t in tensors.items() if name.endswith(".bias")}
            probes = cls(**header, weights=weights, bias=bias)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise StoreError(f"{path} is not a readable file of AffectLens probes ({error!r}).") from None
        if model is not None:
            probes.expect(model.fingerprint, model.name)
        return probes


def _header(probes: Probes) -> Json:
    return {f.name: getattr(probes, f.name) for f in fields(Probes) if f.name not in ("weights", "bias")}
