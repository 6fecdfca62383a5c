"""The encoder judge's head: a softmax over classes on a sentence embedding, one small file with its record.

The file is a safetensors file whose header holds the manifest: classes, how it was fitted and on which file, which
encoder it reads, and its figures on held-out text. Reading it runs no code.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from affectlens.errors import SteerError
from affectlens.paths import replacing
from affectlens.types import Json

_TAG = "affectlens.judge"


@dataclass(frozen=True, eq=False)
class Head:
    """A linear classifier of embeddings.

    Attributes:
        classes: of the columns of its probabilities; ``other`` among them stands for none of the judge's classes.
        weight: one row a class.
        bias: one number a class.
        encoder: the SHA-256 of the encoder's weights that it was fitted on.
        facts: the rest of the manifest: how it was fitted, its records, the licence of its data.
    """

    classes: tuple[str, ...]
    weight: Float[np.ndarray, "class d_model"]
    bias: Float[np.ndarray, " class"]
    encoder: str
    facts: Json = field(default_factory=dict)

    def probabilities(self, embeddings: Float[np.ndarray, "item d_model"]) -> Float[np.ndarray, "item class"]:
        """Softmax over the classes, in float64."""
        logits = embeddings.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, under a temporary name first."""
        target = Path(path)
        header = {"classes": list(self.classes), "encoder": self.encoder, "facts": self.facts}
        with replacing(target) as work:
            arrays = {"weight": np.ascontiguousarray(self.weight, np.float32), "bias": self.bias.astype(np.float32)}
            save_file(arrays, work, metadata={_TAG: json.dumps(header)})
        return target

    @classmethod
    def load(cls, path: str | Path) -> "Head":
        """Read a head.

        Raises:
            SteerError: a missing, damaged or foreign file.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                header = json.loads((file.metadata() or {})[_TAG])
                head = cls(tuple(header["classes"]), file.get_tensor("weight"), file.get_tensor("bias"),
                           header["encoder"], header["facts"])  # fmt: skip
            if head.weight.shape[0] != len(head.classes) or head.bias.shape != (len(head.classes),):
                raise ValueError(f"{len(head.classes)} classes, but weights of {head.weight.shape}")
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise SteerError(f"{path} is not a readable judge's head ({error!r}).") from None
        return head
