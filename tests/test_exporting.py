"""Exports are what steering by hooks is: read back as each engine reads them, run, and compared step by step."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

import affectlens as al
from affectlens.errors import SteerError
from affectlens.model import LensModel, load_model
from affectlens.sites import Site
from affectlens.steering import exchange_cli
from affectlens.steering.directions import Direction, Directions, unit
from affectlens.steering.exporting import export, import_directions, summed
from affectlens.steering.gates import Gate
from affectlens.steering.norms import median_norms
from affectlens.steering.plan import plan_for
from affectlens.testing import FAMILIES, tiny_hf, tiny_model, tiny_tokenizer

STEPS = 6
BAKED = tuple(family for family in FAMILIES if family != "gemma3")


def directions(model: LensModel, *sites: str, safe: float | None = 0.5, norm: float = 2.0) -> Directions:
    """Of joy and fear at each site, at random."""
    rng = np.random.default_rng(7)
    found = []
    for emotion in ("joy", "fear"):
        for site in sites or ("L0.resid_post", "L1.resid_post"):
            size = int(np.prod(model.sites.shape(Site.parse(site))))
            vector = unit(rng.normal(size=size).astype(np.float32))
            found.append(Direction(emotion, site, vector, norm, "mean_difference", model.name, model.fingerprint,
                                   "starter", "ab" * 32, safe=safe, fixed=np.zeros((0, size), np.float32)))  # fmt: skip
    return Directions(found)


@pytest.fixture(params=FAMILIES)
def any_model(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(3, 250, (2, 20), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def stepwise(hf: Any, ids: Tensor) -> Tensor:
    """Logits of the prompt, then of each of the last tokens alone, from the cache."""
    out = hf(input_ids=ids[:, :-STEPS], use_cache=True)
    logits = [out.logits]
    for at in range(ids.shape[1] - STEPS, ids.shape[1]):
        out = hf(input_ids=ids[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
        logits.append(out.logits)
    return torch.cat(logits, dim=1)


@contextmanager
def hooked(model: LensModel, vectors: dict[int, np.ndarray]) -> Iterator[None]:
    """Plain forward hooks that add each vector to what its block puts out."""

    def adding(vector: np.ndarray) -> Any:
        def act(_module: Any, _args: Any, out: Any) -> Any:
            added = torch.from_numpy(vector)
            return (out[0] + added, *out[1:]) if isinstance(out, tuple) else out + added

        return act

    handles = [model.blocks[layer].register_forward_hook(adding(v)) for layer, v in vectors.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def raw_tensors(path: Path) -> dict[int, np.ndarray]:
    """What an engine finds in a control vector."""
    reader = gguf.GGUFReader(path)
    return {int(t.name.split(".")[1]): np.array(t.data) for t in reader.tensors if t.name.startswith("direction.")}


def text_of(path: Path, key: str) -> Any:
    field = gguf.GGUFReader(path).get_field(key)
    return None if field is None else field.contents()


# norms


def test_norms_are_medians_over_content_tokens_but_the_first() -> None:
    model = tiny_model("gemma3")  # puts a BOS first, which is no content
    plain = tiny_model("llama")
    texts = ["The rain fell all night on the mill.", "Nobody came.", "A longer text than the others, by a good deal."]
    for one in (model, plain):
        got = median_norms(one, ["L1.resid_post", "L0.z", "L0.H2", "L1.N3"], texts)
        seen: dict[str, list[float]] = {str(site): [] for site in got}
        for text in texts:
            ids = one.tokenizer(text, return_tensors="pt").input_ids
            with torch.inference_mode(), al.record(one, list(got)) as values:
                one.hf(input_ids=ids)
            for site in got:
                rows = values[site][0, 1:]
                seen[str(site)] += [float(np.linalg.norm(row.numpy().ravel())) for row in rows]
        for site, norm in got.items():
            assert norm == pytest.approx(np.median(seen[str(site)]), rel=1e-4), site


def test_a_first_token_as_large_as_one_likes_leaves_the_norm_as_it_is(llama: LensModel) -> None:
    texts = ["A bell rang.", "Nobody was there to hear it ring."]
    before = median_norms(llama, "L1.resid_post", texts)
    with al.edit(llama, {"L1.resid_post": lambda value, _: torch.cat((value[:, :1] * 1e4, value[:, 1:]), dim=1)}):
        assert median_norms(llama, "L1.resid_post", texts) == before


def test_norms_refuse_what_has_none(llama: LensModel) -> None:
    with pytest.raises(SteerError, match="no token beyond the first"):
        median_norms(llama, "L0.resid_post", ["a", "b"])
    with pytest.raises(SteerError, match="attention weights"):
        median_norms(llama, "L0.pattern", ["a bell"])
    hf = tiny_hf("llama")
    hf.model.layers[0].mlp.up_proj.weight.data.zero_()
    with pytest.raises(SteerError, match=r"median norm at L0.neurons is 0.0"):
        median_norms(load_model(model=hf, tokenizer=tiny_tokenizer()), "L0.neurons", ["a bell"])


# summing


def test_doses_are_shares_of_the_norm_and_add(llama: LensModel) -> None:
    found = directions(llama)
    joy, fear = ({d.at.layer: d.vector for d in found[name]} for name in ("joy", "fear"))
    both = summed(found, {"joy": 1.0, "fear": -0.3})
    for layer in (0, 1):
        np.testing.assert_allclose(both[layer], 2.0 * 0.5 * joy[layer] - 0.3 * 0.5 * 2.0 * fear[layer], atol=1e-6)
        np.testing.assert_allclose(summed(found, {"ecstasy": 0.4}, raw=True)[layer], 0.4 * 2.0 * joy[layer], atol=1e-6)
        assert both[layer].dtype == np.float32


def test_what_is_nothing_unknown_or_not_validated_is_refused(llama: LensModel, tmp_path: Path) -> None:
    found = directions(llama)
    for to in ("gguf", "repeng", "easysteer", "checkpoint"):
        with pytest.raises(SteerError, match="nothing to export"):
            export(found, tmp_path / "x.gguf", to=to, doses={"joy": 0.0, "fear": 0.0}, model=llama)
    with pytest.raises(SteerError, match="No safe dose of joy"):
        summed(directions(llama, safe=None), {"joy": 0.5})
    with pytest.raises(SteerError, match="no direction of 'anger'"):
        summed(found, {"anger": 0.5})
    with pytest.raises(SteerError, match="give a number"):
        summed(found, {"joy": float("nan")})
    with pytest.raises(SteerError, match="No emotion is named"):
        export(found, tmp_path / "x.gguf", to="gguf", doses={})
    with pytest.raises(SteerError, match="Say how much"):
        export(found, tmp_path / "x.gguf", to="gguf")
    with pytest.raises(SteerError, match="no format 'onnx'"):
        export(found, tmp_path / "x.gguf", to="onnx", doses={"joy": 1.0})
    with pytest.raises(SteerError, match=r"ends in \.gguf"):
        export(directions(llama, "L1.resid_post"), tmp_path / "x.bin", to="gguf", doses={"joy": 1.0})
    with pytest.raises(SteerError, match="found in"):
        export(found, tmp_path / "x.gguf", to="repeng", doses={"joy": 1.0}, model=tiny_model("llama", seed=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"operator": "project_out"}, "operator project_out"),
        ({"operator": "rotate(30)"}, r"operator rotate\(30\)"),
        ({"positions": "response"}, "positions response"),
        ({"schedule": "decay(4)"}, "schedule decay"),
        ({"gate": "a gate"}, "a gate"),
    ],
)
def test_a_plan_that_no_file_can_hold_is_refused(
    llama: LensModel, tmp_path: Path, how: dict[str, Any], words: str
) -> None:
    found = directions(llama, "L1.resid_post")
    if "gate" in how:
        gate = Gate(Site("resid_post", 0), found["fear"][0].vector, 0.0, fingerprint=llama.fingerprint)
        how = {"gate": gate}
    plan = plan_for(llama, {"joy": 0.5}, directions=found, **how)
    for to, name in (("gguf", "x.gguf"), ("checkpoint", "x")):
        with pytest.raises(SteerError, match=rf"added to every token alike, and joy at L1\.resid_post has {words}"):
            export(plan, tmp_path / name, to=to, model=llama)


def test_a_plan_is_exported_with_its_conflicts_settled(llama: LensModel, tmp_path: Path) -> None:
    found = directions(llama, "L1.resid_post")
    joy, fear = (found[name][0].vector.astype(float) for name in ("joy", "fear"))
    plan = plan_for(llama, {"joy": 1.0, "fear": 1.0}, directions=found, conflict="orthogonal")
    written = raw_tensors(export(plan, tmp_path / "x.gguf", to="gguf"))[1]
    np.testing.assert_allclose(written, joy + fear - (joy @ fear) * joy, atol=1e-5)
    with pytest.raises(SteerError, match="has its doses already"):
        export(plan, tmp_path / "y.gguf", to="gguf", doses={"joy": 1.0})


# control vectors


@pytest.mark.parametrize("to", ["gguf", "repeng", "easysteer"])
def test_a_control_vector_read_as_engines_do_steers_the_same(
    any_model: LensModel, ids: Tensor, tmp_path: Path, to: str
) -> None:
    """``direction.N`` added to the output of block N is the edit at ``LN.resid_post``, at the prompt and each step."""
    found = directions(any_model, "L1.resid_post")
    path = export(found, tmp_path / "v.gguf", to=to, doses={"joy": 1.0, "fear": -0.5}, model=any_model)
    total = torch.from_numpy(summed(found, {"joy": 1.0, "fear": -0.5})[1])
    with hooked(any_model, raw_tensors(path)):
        theirs = stepwise(any_model.hf, ids)
    with al.edit(any_model, {"L1.resid_post": lambda value, _: value + total}, idle="raise"):
        ours = stepwise(any_model.hf, ids)
    assert torch.equal(theirs, ours)
    assert (ours - stepwise(any_model.hf, ids)).abs().max() > 1e-2
    assert text_of(path, "general.architecture") == "controlvector"
    assert text_of(path, "controlvector.model_hint") == any_model.hf.config.model_type
    assert text_of(path, "controlvector.layer_count") == 1
    assert all(t.tensor_type.name == "F32" and t.data.shape == (32,) for t in gguf.GGUFReader(path).tensors)


def test_llama_cpp_has_no_layer_0_and_the_others_have(llama: LensModel, tmp_path: Path) -> None:
    found = directions(llama)
    with pytest.raises(SteerError, match="no control vector for layer 0"):
        export(found, tmp_path / "v.gguf", to="gguf", doses={"joy": 1.0})
    for to in ("repeng", "easysteer"):
        assert sorted(raw_tensors(export(found, tmp_path / f"{to}.gguf", to=to, doses={"joy": 1.0}))) == [0, 1]


def test_heads_and_neurons_are_refused_but_can_be_baked(llama: LensModel, tmp_path: Path) -> None:
    for site in ("L1.H2", "L1.neurons", "L1.resid_mid"):
        with pytest.raises(SteerError, match=rf'{site} is elsewhere: bake it into a checkpoint \(to="checkpoint"\)'):
            export(directions(llama, site), tmp_path / "v.gguf", to="gguf", doses={"joy": 1.0})


def test_easysteer_finds_the_component_and_the_method(llama: LensModel, tmp_path: Path) -> None:
    path = export(directions(llama), tmp_path / "v.gguf", to="easysteer", doses={"joy": 1.0})
    native = json.loads(text_of(path, "controlvector.easysteer"))
    assert native == {"version": 1, "component": "hidden_states", "metadata": None}
    assert text_of(path, "controlvector.method") == "mean_difference"


# import


@pytest.mark.parametrize("to", ["gguf", "repeng", "easysteer"])
def test_an_export_comes_back(llama: LensModel, tmp_path: Path, to: str) -> None:
    found = directions(llama, "L1.resid_post", norm=3.0)
    back = import_directions(export(found, tmp_path / "v.gguf", to=to, doses={"joy": 0.8}), llama, emotion="ecstasy")
    assert (back.emotions, back.fingerprint, len(back)) == (("joy",), llama.fingerprint, 1)
    one, was = back["joy"][0], found["joy"][0]
    np.testing.assert_allclose(one.vector, was.vector, atol=1e-6)
    assert (one.site, one.norm, one.safe) == (was.site, 3.0, None)  # the file states its norms
    assert one.facts["raw"] == pytest.approx(0.8 * 0.5)
    again = summed(back, {"joy": one.facts["raw"]}, raw=True)
    np.testing.assert_allclose(again[1], summed(found, {"joy": 0.8})[1], atol=1e-6)
    assert Directions.load(back.save(tmp_path / "back.safetensors"), llama)["joy"][0].facts == one.facts


def foreign(path: Path, vectors: dict[str, np.ndarray], *, architecture: str = "controlvector") -> Path:
    """A control vector as others write it: no keys but the three, a signed count, any float type."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_int32("controlvector.layer_count", len(vectors))
    for name, vector in vectors.items():
        writer.add_tensor(name, vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_foreign_files_are_read_and_their_norms_measured(llama: LensModel, tmp_path: Path, dtype: type) -> None:
    rng = np.random.default_rng(0)
    vectors: dict[str, np.ndarray] = {f"direction.{n}": (5 * rng.normal(size=32)).astype(dtype) for n in (0, 1)}
    path = foreign(tmp_path / "v.gguf", vectors)
    texts = ["The rain fell all night.", "Nobody came to the door."]
    found = import_directions(path, llama, emotion="whimsy", texts=texts)
    norms = median_norms(llama, "resid_post", texts)
    assert found.emotions == ("whimsy",)
    shares = [one.facts["length"] / norms[one.at] for one in found]
    for one, expected in zip(found, vectors.values(), strict=True):
        assert one.facts["norm_measured"] == norms[one.at]
        np.testing.assert_allclose(one.vector * one.facts["length"], expected, rtol=1e-5)
        assert one.facts["raw"] == pytest.approx(np.median(shares))
        assert one.facts["raw"] * one.norm == pytest.approx(one.facts["length"])
        assert (one.method, one.facts["model_hint"]) == ("imported", "llama")


def test_one_raw_dose_does_what_a_file_of_several_layers_does(llama: LensModel, ids: Tensor, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = {n: (size * unit(rng.normal(size=32))).astype(np.float32) for n, size in ((0, 0.02), (1, 3.0))}
    path = foreign(tmp_path / "v.gguf", {f"direction.{n}": vector for n, vector in vectors.items()})
    texts = ["The rain fell all night.", "Nobody came to the door."]
    found = import_directions(path, llama, emotion="whimsy", texts=texts)
    (dose,) = {one.facts["raw"] for one in found}
    for layer, total in summed(found, {"whimsy": dose}, raw=True).items():
        np.testing.assert_allclose(total, vectors[layer], atol=1e-6)
    with hooked(llama, vectors):
        theirs = stepwise(llama.hf, ids)
    with al.steering.steer(llama, {"whimsy": dose}, directions=found, raw=True):
        ours = stepwise(llama.hf, ids)
    assert (ours - theirs).abs().max() < 1e-5 < (ours - stepwise(llama.hf, ids)).abs().max()
    again = export(found, tmp_path / "again.gguf", to="repeng", doses={"whimsy": dose / 2}, raw=True, model=llama)
    back = import_directions(again, llama, emotion="whimsy")  # the file states what was measured
    for one, was in zip(back, found, strict=True):
        assert one.facts["norm_measured"] == was.facts["norm_measured"]
        assert one.facts["raw"] == pytest.approx(dose / 2)
        assert one.norm == pytest.approx(was.norm)
    single = import_directions(foreign(tmp_path / "one.gguf", {"direction.1": vectors[1]}), llama, emotion="x",
                               texts=texts).all[0]  # fmt: skip
    assert single.norm == pytest.approx(single.facts["norm_measured"])


def test_a_safe_dose_is_missed_in_the_words_of_a_plan(llama: LensModel) -> None:
    found = directions(llama, safe=None)
    with pytest.raises(SteerError) as planned:
        plan_for(llama, {"joy": 0.5}, directions=found)
    with pytest.raises(SteerError) as exported:
        summed(found, {"joy": 0.5})
    assert str(planned.value) == str(exported.value)


def test_what_is_there_is_not_written_over(llama: LensModel, tmp_path: Path) -> None:
    found = directions(llama, "L1.resid_post")
    target = tmp_path / "v.gguf"
    target.write_text("mine")
    for to in ("gguf", "repeng", "easysteer", "checkpoint"):
        with pytest.raises(SteerError, match=r"v\.gguf exists already: choose another name, or remove it\."):
            export(found, target, to=to, doses={"joy": 1.0}, model=llama)
    assert target.read_text() == "mine"


def test_a_readme_says_which_doses_are_raw(tmp_path: Path) -> None:
    model = tiny_model("llama")
    found = directions(model, "L1.resid_post")
    plan = plan_for(model, {"joy": 0.3}, directions=found, raw=True) + plan_for(model, {"fear": 0.8}, directions=found)
    told = (export(plan, tmp_path / "b", to="checkpoint", model=model) / "README.md").read_text(encoding="utf-8")
    assert "| joy | 0.3 (raw) | 0.3 |" in told
    assert "| fear | 0.8 | 0.4 |" in told
    set_raw = export(found, tmp_path / "c", to="checkpoint", doses={"joy": 0.3}, raw=True, model=model)
    assert "| joy | 0.3 (raw) | 0.3 |" in (set_raw / "README.md").read_text(encoding="utf-8")


def test_another_models_norms_are_not_taken_over(llama: LensModel, tmp_path: Path) -> None:
    path = export(directions(llama, "L1.resid_post", norm=77.0), tmp_path / "v.gguf", to="gguf", doses={"joy": 1.0})
    other = tiny_model("llama", seed=1)
    (one,) = import_directions(path, other, emotion="joy")
    assert one.norm == median_norms(other, "L1.resid_post", al.load_battery("starter"))[one.at] != 77


def test_files_that_are_no_control_vector_of_this_model_are_refused(llama: LensModel, tmp_path: Path) -> None:
    ones, texts = np.ones(32, np.float32), ["a bell rang"]

    def refused(path: Path, sentence: str) -> None:
        with pytest.raises(SteerError, match=sentence):
            import_directions(path, llama, emotion="joy", texts=texts)

    refused(tmp_path / "none.gguf", "There is no file")
    (tmp_path / "text.gguf").write_text("hello")
    refused(tmp_path / "text.gguf", "not a readable GGUF file")
    whole = foreign(tmp_path / "v.gguf", {"direction.1": ones})
    (tmp_path / "half.gguf").write_bytes(whole.read_bytes()[:-70])
    refused(tmp_path / "half.gguf", "not a readable GGUF file")
    refused(foreign(tmp_path / "l.gguf", {"direction.1": ones}, architecture="llama"), "no control vector")
    refused(foreign(tmp_path / "e.gguf", {"blk.0": ones}), "0 tensors direction.N")
    refused(foreign(tmp_path / "n.gguf", {"direction.x": ones}), "followed by a layer")
    refused(foreign(tmp_path / "2d.gguf", {"direction.1": np.ones((2, 32), np.float32)}), "one row of finite numbers")
    refused(foreign(tmp_path / "nan.gguf", {"direction.1": ones * np.float32("nan")}), "one row of finite numbers")
    refused(foreign(tmp_path / "w.gguf", {"direction.1": ones[:16]}), "16 numbers at layer 1")
    refused(foreign(tmp_path / "d.gguf", {"direction.2": ones}), "at layer 2")
    refused(foreign(tmp_path / "z.gguf", {"direction.1": ones * 0}), "all zero")


def test_repeng_reads_writes_and_steers_the_same(
    llama: LensModel, ids: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng 0.4 names it as NumPy 1 did
    repeng = pytest.importorskip("repeng", reason="repeng is not installed; it is an oracle, not a dependency")
    found, ids = directions(llama), ids[:1]  # it can't tell positions of several texts without a mask
    path = export(found, tmp_path / "v.gguf", to="repeng", doses={"joy": 1.0, "fear": -0.5}, model=llama)
    vector = repeng.ControlVector.import_gguf(path)
    with hooked(llama, summed(found, {"joy": 1.0, "fear": -0.5})):
        ours = stepwise(llama.hf, ids)
    wrapped = repeng.ControlModel(tiny_hf("llama"), sorted(vector.directions))
    wrapped.set_control(vector, 1.0)
    assert (stepwise(wrapped, ids) - ours).abs().max() < 1e-4
    vector.export_gguf(tmp_path / "theirs.gguf")
    back = import_directions(tmp_path / "theirs.gguf", llama, emotion="joy", texts=["a bell rang"])
    again = {d.at.layer: d.facts["length"] * d.vector for d in back}
    for layer, total in summed(found, {"joy": 1.0, "fear": -0.5}).items():
        np.testing.assert_allclose(again[layer], total, atol=1e-5)


# checkpoints


@pytest.mark.parametrize("family", BAKED)
def test_a_baked_checkpoint_is_the_steered_model(family: str, ids: Tensor, tmp_path: Path) -> None:
    """Saved, loaded anew, and equal to plain forward hooks on the original at the prompt and each cached step."""
    model = tiny_model(family)
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model.hf.generation_config.max_new_tokens = 17
    found = directions(model)
    weights = {name: value.clone() for name, value in model.hf.state_dict().items()}
    plain = stepwise(model.hf, ids)
    folder = export(found, tmp_path / "baked", to="checkpoint", doses={"joy": 1.0, "fear": -0.5}, model=model)
    baked = load_model(str(folder))
    with hooked(model, summed(found, {"joy": 1.0, "fear": -0.5})):
        steered = stepwise(model.hf, ids)
    assert (stepwise(baked.hf, ids) - steered).abs().max() < 1e-4
    assert (steered - plain).abs().max() > 1e-2
    assert torch.equal(stepwise(model.hf, ids), plain)
    assert all(torch.equal(value, weights[name]) for name, value in model.hf.state_dict().items())
    assert baked.tokenizer.chat_template == model.tokenizer.chat_template
    assert baked.hf.generation_config.max_new_tokens == 17
    told = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("not the original model", "joy", "-0.5", "starter", "abababababab", "L1.resid_post"):
        assert part in told
    assert model.fingerprint in told
    assert [path.name for path in tmp_path.iterdir()] == ["baked"]


@pytest.mark.parametrize(
    ("family", "site"),
    [
        (family, site)
        for family in FAMILIES
        for site in ("L1.mlp_out", "L0.neurons", "L0.N5", "L1.attn_out", "L0.z", "L1.H2", "L0.resid_mid")
        if (family, site) != ("gpt_neox", "L0.resid_mid")  # its blocks are parallel
    ],
)
def test_other_sites_are_baked_where_that_is_exact(family: str, site: str, ids: Tensor, tmp_path: Path) -> None:
    model = tiny_model(family)
    found = directions(model, site)
    if family == "gemma3" and site not in ("L0.z", "L1.H2"):
        with pytest.raises(SteerError, match=r"no bias that does exactly|is not the steered model"):
            export(found, tmp_path / "baked", to="checkpoint", doses={"joy": 1.0}, model=model)
        assert list(tmp_path.iterdir()) == []
        return
    folder = export(found, tmp_path / "baked", to="checkpoint", doses={"joy": 1.0}, model=model)
    one = found["joy"][0]
    added = torch.from_numpy(one.vector * np.float32(one.norm * 0.5)).reshape(model.sites.shape(one.at))
    with al.edit(model, {site: lambda value, _: value + added}, idle="raise"):
        steered = stepwise(model.hf, ids)
    assert (stepwise(load_model(str(folder)).hf, ids) - steered).abs().max() < 1e-4
    assert not torch.equal(steered, stepwise(model.hf, ids))


def test_generated_text_is_the_same(tmp_path: Path) -> None:
    model = tiny_model("llama")
    folder = export(directions(model), tmp_path / "b", to="checkpoint", doses={"joy": 2.0}, model=model)
    prompt = model.tokenizer("A bell rang", return_tensors="pt")
    settings = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 2}
    with hooked(model, summed(directions(model), {"joy": 2.0})):
        steered = model.hf.generate(**prompt, **settings)
    assert torch.equal(load_model(str(folder)).hf.generate(**prompt, **settings), steered)


def custom(kind: str, **settings: Any) -> LensModel:
    """A tiny model of a family that is not among ours."""
    import transformers

    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 260, "max_position_embeddings": 256, "bos_token_id": 0,
        "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    given: Any = transformers
    torch.manual_seed(0)
    hf = getattr(given, f"{kind}ForCausalLM")(getattr(given, f"{kind}Config")(**(sizes | settings)))
    return load_model(model=hf, tokenizer=tiny_tokenizer())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Mistral", {"sliding_window": None, "head_dim": 16}),
        ("Qwen2", {"rope_theta": 1e6, "tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
        ("Llama", {"tie_word_embeddings": True, "mlp_bias": True}),
    ],
)
def test_llamas_relatives_are_baked(kind: str, settings: dict[str, Any], ids: Tensor, tmp_path: Path) -> None:
    model = custom(kind, **settings)
    for parameter in model.hf.parameters():  # biases begin as zeros
        seeded = torch.Generator().manual_seed(parameter.numel())
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=seeded)
    model = load_model(model=model.hf, tokenizer=model.tokenizer)
    folder = export(directions(model), tmp_path / "b", to="checkpoint", doses={"joy": 1.0}, model=model)
    with hooked(model, summed(directions(model), {"joy": 1.0})):
        steered = stepwise(model.hf, ids)
    assert (stepwise(load_model(str(folder)).hf, ids) - steered).abs().max() < 1e-4
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("Mistral", {"sliding_window": 8}, "sliding window"),
        ("Qwen3", {"head_dim": 8}, "no bias that does exactly"),
        ("Granite", {"residual_multiplier": 0.5}, "is not the steered model"),
    ],
)
def test_families_that_cant_hold_it_exactly_are_refused(
    kind: str, settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    model = custom(kind, **settings)
    with pytest.raises(SteerError, match=sentence):
        export(directions(model), tmp_path / "b", to="checkpoint", doses={"joy": 1.0}, model=model)
    assert list(tmp_path.iterdir()) == []


def test_a_head_is_baked_where_the_mlp_has_no_bias(ids: Tensor, tmp_path: Path) -> None:
    model = custom("Qwen3", head_dim=8)
    one = directions(model, "L1.H2")["joy"][0]
    folder = export(Directions([one]), tmp_path / "b", to="checkpoint", doses={"joy": 1.0}, model=model)
    with al.edit(model, {"L1.H2": lambda value, _: value + torch.from_numpy(one.vector)}, idle="raise"):
        steered = stepwise(model.hf, ids)  # norm 2, safe dose 0.5
    assert (stepwise(load_model(str(folder)).hf, ids) - steered).abs().max() < 1e-4


def test_half_precision_is_baked_in_half_precision(tmp_path: Path) -> None:
    model = load_model(model=tiny_hf("llama").bfloat16(), tokenizer=tiny_tokenizer())
    folder = export(directions(model), tmp_path / "b", to="checkpoint", doses={"joy": 1.0}, model=model)
    assert load_model(str(folder), dtype="bfloat16").dtype == torch.bfloat16
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_what_cant_be_baked_says_why(llama: LensModel, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    found = directions(llama)
    with pytest.raises(SteerError, match="give export model="):
        export(found, tmp_path / "b", to="checkpoint", doses={"joy": 1.0})
    with pytest.raises(SteerError, match="exists already"):
        export(found, tmp_path, to="checkpoint", doses={"joy": 1.0}, model=llama)
    with (
        al.edit(llama, {"L0.resid_post": lambda value, _: value * 2}, idle="ignore"),
        pytest.raises(SteerError, match="leave its with block"),
    ):
        export(found, tmp_path / "b", to="checkpoint", doses={"joy": 1.0}, model=llama)
    with pytest.raises(SteerError, match=r"L1\.k can't be baked"):
        export(directions(llama, "L1.k"), tmp_path / "b", to="checkpoint", doses={"joy": 1.0}, model=llama)
    with warnings.catch_warnings():  # peft asks transformers by a name that is on its way out
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated")
        adapted: Any = get_peft_model(tiny_hf("llama"), LoraConfig(target_modules=["q_proj"], r=2))
    model = load_model(model=adapted, tokenizer=tiny_tokenizer())
    with pytest.raises(SteerError, match="merge them"):
        export(directions(model), tmp_path / "b", to="checkpoint", doses={"joy": 1.0}, model=model)
    assert list(tmp_path.iterdir()) == []


# command line


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command("export")(exchange_cli.export_command)
    made.command("import")(exchange_cli.import_command)
    return made


def test_the_command_line_exports_bakes_and_imports(app: typer.Typer, tmp_path: Path) -> None:
    home = tmp_path / "tiny"
    tiny_hf("llama").save_pretrained(home)
    tiny_tokenizer().save_pretrained(home)
    model = load_model(str(home))
    file = directions(model, "L1.resid_post").save(tmp_path / "d.safetensors")

    def run(*words: object) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.output

    vector = tmp_path / "v.gguf"
    said = run("export", file, "--to", "gguf", "-e", "joy=0.5", "-e", "fear=-0.2", "-o", vector)
    assert "--control-vector" in said
    np.testing.assert_allclose(raw_tensors(vector)[1], summed(Directions.load(file), {"joy": 0.5, "fear": -0.2})[1])
    run("export", file, "--to", "checkpoint", "-e", "joy=0.5", "--raw", "-o", tmp_path / "baked")
    assert load_model(str(tmp_path / "baked")).hf.config.mlp_bias
    assert "no dose" not in run("import", vector, home, "-e", "whimsy", "-o", tmp_path / "back.safetensors")
    assert Directions.load(tmp_path / "back.safetensors", model).emotions == ("whimsy",)
    assert "At raw dose" in run("import", vector, home, "-e", "joy", "-o", tmp_path / "more.safetensors")
    doses = [("joy",), ("joy=much",), ("joy=nan",), ("=1",), ("joy=1", "ecstasy=1")]
    for wrong in doses:
        given = [word for text in wrong for word in ("-e", text)]
        failed = CliRunner().invoke(app, ["export", str(file), "--to", "gguf", *given, "-o", str(tmp_path / "n.gguf")])
        assert isinstance(failed.exception, SteerError)


def test_the_command_line_writes_over_nothing(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("affectlens.model.load_model", None)
    there = tmp_path / "there.safetensors"
    there.write_text("mine")
    for words in (["export", "d", "--to", "checkpoint", "-e", "joy=1"], ["import", "v.gguf", "tiny", "-e", "joy"]):
        failed = CliRunner().invoke(app, [*words, "-o", str(there)])
        assert isinstance(failed.exception, SteerError)
        assert str(failed.exception).endswith("exists already: choose another --out, or remove it.")
    assert there.read_text() == "mine"
