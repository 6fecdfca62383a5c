"""Queries, keys and values are found and edited by head; edited attention weights do what the arithmetic says."""

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache

from affectlens.anatomy import Call
from affectlens.attention import EXPLICIT, explicit
from affectlens.cursors import Cursor
from affectlens.errors import SiteError
from affectlens.heads import Heads, Heard, locate
from affectlens.hooks import attach, edit, record, watch
from affectlens.model import LensModel, load_model
from affectlens.sites import Site
from affectlens.testing import FAMILIES, tiny_hf, tiny_model, tiny_tokenizer

IDS = torch.randint(5, 200, (2, 20), generator=torch.Generator().manual_seed(0))
hf: Any = transformers


def logits(model: LensModel, ids: Tensor = IDS, **options: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = model.hf(input_ids=ids, **({"use_cache": False} | options)).logits
    return out


def same(weights: Tensor, _cursor: Cursor) -> Tensor:
    return weights.clone()


def other(name: str, **options: Any) -> LensModel:
    """A tiny model of a family that does something more to its queries, keys or weights."""
    sizes = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128, "pad_token_id": 2,
             "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = getattr(hf, f"{name}ForCausalLM")(getattr(hf, f"{name}Config")(**sizes | options))
    return load_model(model=made, tokenizer=tiny_tokenizer(), check=False)


MORE: dict[str, Callable[[], LensModel]] = {
    "softcap": lambda: other("Gemma2", head_dim=8, sliding_window=16, attn_logit_softcapping=0.5),
    "sinks": lambda: other("GptOss", head_dim=8, num_local_experts=4, num_experts_per_tok=2, rope_parameters={
        "rope_type": "default", "rope_theta": 1e4}),
    "norms of each head, after heads are apart": lambda: other("Qwen3", head_dim=8),
    "norms with a matrix of weights": lambda: other("Cohere", use_qk_norm=True),
    "q, k and v side by side, with fewer k and v": lambda: other("Phi3"),
    "turned and scaled": lambda: other("Llama", rope_parameters={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}),
}  # fmt: skip
EVERY: dict[str, Callable[[], LensModel]] = {f: partial(tiny_model, f, check=False) for f in FAMILIES} | MORE


@pytest.mark.parametrize("name", EVERY)
def test_weights_times_values_are_what_the_heads_give(name: str) -> None:
    """On the plain model, with the values of the site ``v``, whose heads are shared in order."""
    model = EVERY[name]()
    with torch.no_grad(), record(model, ["pattern", "v", "z"]) as seen:
        model.body(input_ids=IDS, use_cache=False)
    for layer in range(2):
        v = seen[Site("v", layer)].repeat_interleave(4 // model.sites.shape(Site("v", layer))[0], 2)
        z = torch.einsum("bhqk,bkhd->bqhd", seen[Site("pattern", layer)], v)
        torch.testing.assert_close(seen[Site("z", layer)], z, atol=1e-6, rtol=1e-5)


def test_queries_and_keys_make_the_weights_where_nothing_turns_them() -> None:
    model = tiny_model("gpt2", check=False)
    with torch.no_grad(), record(model, ["q", "k", "pattern"]) as seen:
        model.body(input_ids=IDS, use_cache=False)
    scores = torch.einsum("bqhd,bkhd->bhqk", seen["L1.q"], seen["L1.k"]) / 8**0.5
    weights = scores.masked_fill(torch.ones(20, 20).triu(1).bool(), -torch.inf).softmax(-1)
    torch.testing.assert_close(seen["L1.pattern"], weights, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", MORE)
def test_queries_and_keys_are_found_before_norms_rotation_and_scaling(name: str) -> None:
    model = MORE[name]()
    attention: Any = model.blocks[1].self_attn
    fused = name.startswith("q, k and v")
    for kind in "qkv":
        tap = model.sites.find(Site(kind, 1))
        assert tap.module is (attention.qkv_proj if fused else getattr(attention, f"{kind}_proj"))
        assert model.sites.shape(Site(kind, 1)) == ((4 if kind == "q" else 2), 8)


# by hand: the module that gives q, k and v in layer 1, and the slice of its output's last axis that head 1 has
FUSED: dict[str, tuple[str, dict[str, slice]]] = {
    "gpt2": ("transformer.h.1.attn.c_attn", {"q": slice(8, 16), "k": slice(40, 48), "v": slice(72, 80)}),
    "gpt_neox": ("gpt_neox.layers.1.attention.query_key_value",
                 {"q": slice(24, 32), "k": slice(32, 40), "v": slice(40, 48)}),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kinds", ["q", "k", "v", "qkv"])
def test_editing_one_head_equals_a_hand_written_hook(family: str, kinds: str) -> None:
    model = tiny_model(family, check=False)

    def by_hand(where: slice, _module: Any, _args: Any, out: Tensor) -> Tensor:
        out = out.clone()
        out[..., where] *= -3
        return out

    with ExitStack() as handles:
        for kind in kinds:
            name, where = f"model.layers.1.self_attn.{kind}_proj", slice(8, 16)
            if family in FUSED:
                name, where = FUSED[family][0], FUSED[family][1][kind]
            module = model.hf.get_submodule(name)
            handles.callback(module.register_forward_hook(partial(by_hand, where)).remove)
        expected = logits(model)
    with edit(model, {f"L1.H1.{kind}": lambda value, _: -3 * value for kind in kinds}, idle="raise"):
        found = logits(model)
    assert torch.equal(found, expected)
    assert not torch.equal(found, logits(model))


def test_a_key_value_head_serves_its_own_query_heads(llama: LensModel) -> None:
    with torch.no_grad(), record(llama, "L0.z") as plain:
        llama.body(input_ids=IDS, use_cache=False)
    with torch.no_grad(), edit(llama, {"L0.H1.v": lambda v, _: v * 0}), record(llama, ["L0.z", "L0.v"]) as seen:
        llama.body(input_ids=IDS, use_cache=False)
    assert seen["L0.z"][:, :, 2:].abs().max() == 0
    assert torch.equal(seen["L0.z"][:, :, :2], plain["L0.z"][:, :, :2])
    assert seen["L0.v"].shape == (2, 20, 2, 8)
    with pytest.raises(SiteError, match=r"L0.H2.k is beyond .* layer 0 counts key-value heads from 0 to 1 there"):
        llama.sites.expand("H2.k")


@pytest.mark.parametrize("name", EVERY)
def test_an_identity_edit_of_weights_is_the_plain_model(name: str) -> None:
    model = EVERY[name]()
    mask = torch.ones_like(IDS)
    mask[0, :6] = 0
    given = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    before = model.hf.config._attn_implementation
    plain, padded = logits(model), logits(model, **given)
    with edit(model, {"pattern": same}, idle="ignore"):
        assert model.hf.config._attn_implementation == EXPLICIT
        torch.testing.assert_close(logits(model), plain, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logits(model, **given)[mask == 1], padded[mask == 1], atol=1e-5, rtol=1e-5)
    assert model.hf.config._attn_implementation == before
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("outer", [True, False])
def test_edited_weights_are_multiplied_with_the_values(name: str, outer: bool) -> None:
    """One head looks at its first key alone, another at nothing; a recording in or around the edit sees just that."""
    model = EVERY[name]()

    def first_key(weights: Tensor, _cursor: Cursor) -> Tensor:
        return torch.zeros_like(weights).index_fill(-1, torch.tensor([0]), 1.0)

    change = edit(model, {"L1.H2.pattern": first_key, "L1.H0.pattern": lambda w, _: w * 0}, idle="raise")
    sites = ["L1.pattern", "L1.v", "L1.z", "L1.q"]
    with torch.no_grad(), record(model, sites) as plain:
        model.body(input_ids=IDS, use_cache=False)
    look = record(model, sites)
    with torch.no_grad():
        if outer:
            with look as seen, change:
                model.body(input_ids=IDS, use_cache=False)
        else:
            with change, look as seen:
                model.body(input_ids=IDS, use_cache=False)
    shared = 4 // model.sites.shape(Site("v", 1))[0]
    assert torch.equal(seen["L1.z"][:, :, 2], seen["L1.v"][:, :1, 2 // shared].expand(-1, 20, -1))
    assert seen["L1.z"][:, :, 0].abs().max() == 0
    assert seen["L1.pattern"][:, 0].abs().max() == 0
    assert (seen["L1.pattern"][:, 2, :, 0] == 1).all()
    for head in (1, 3):
        torch.testing.assert_close(seen["L1.z"][:, :, head], plain["L1.z"][:, :, head], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunks", [[7, 13], [7, 1, 1, 11], [1] * 20])
def test_rows_are_edited_at_absolute_positions_under_cache(family: str, chunks: list[int]) -> None:
    """A query is the row of its token, whatever the chunk; keys are all that came before."""
    model = tiny_model(family, check=False)

    def blind(weights: Tensor, cursor: Cursor) -> Tensor:
        rows = (cursor.positions == 9)[:, None, :, None]
        return weights.where(~rows, torch.zeros_like(weights))

    with edit(model, {"L0.pattern": blind}), record(model, "L0.z") as seen:
        whole = logits(model)
    assert seen["L0.z"][:, 9].abs().max() == 0
    assert (seen["L0.z"][:, [8, 10]].abs().amax((-1, -2)) > 0).all()
    cache, at, parts = DynamicCache(config=model.hf.config), 0, []
    with edit(model, {"L0.pattern": blind}):
        for size in chunks:
            parts.append(logits(model, IDS[:, at : at + size], past_key_values=cache, use_cache=True))
            at += size
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)


def test_edits_of_weights_nest_and_are_watched(llama: LensModel) -> None:
    sums: list[Tensor] = []
    with edit(llama, {"L0.pattern": lambda w, _: w * 2}), edit(llama, {"L0.pattern": lambda w, _: w * 3}):
        twice = logits(llama)
        with torch.no_grad(), watch(llama, "L0.pattern", lambda _, w: sums.append(w.sum(-1)), stop=True):
            llama.body(input_ids=IDS, use_cache=False)
    with edit(llama, {"L0.z": lambda z, _: z * 6}):
        torch.testing.assert_close(twice, logits(llama), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sums[0], torch.full((2, 4, 20), 6.0))


def test_blocks_called_one_by_one_take_any_mask_and_give_gradients(llama: LensModel) -> None:
    """As a patching engine calls them: no forward of the body, its own masks, gradients on."""
    x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    turned = llama.body.rotary_emb(x, torch.arange(9)[None])
    allowed = torch.ones(1, 1, 9, 9).tril().bool()
    additive = torch.zeros(1, 1, 9, 9).masked_fill(~allowed, torch.finfo(x.dtype).min)
    block, tap = llama.blocks[0], llama.sites.find(Site("pattern", 0))
    plain = block(x, position_embeddings=turned, attention_mask=additive)
    gain = torch.ones((), requires_grad=True)
    seen: list[Tensor] = []
    with explicit(llama), ExitStack() as handles:
        attach(handles, tap, lambda weights: weights * gain, writing=True)
        attach(handles, tap, seen.append)
        for mask in (additive, allowed, None):
            torch.testing.assert_close(block(x, position_embeddings=turned, attention_mask=mask), plain)
        block(x, position_embeddings=turned, attention_mask=None)[0].square().sum().backward()
    assert len(seen) == 4
    assert all(weights.triu(1).abs().max() == 0 for weights in seen)
    ends = []
    for amount in (1.01, 0.99):
        with torch.no_grad(), edit(llama, {"L0.pattern": lambda w, _, a=amount: w * a}, idle="ignore"):
            ends.append(block(x, position_embeddings=turned)[0].double().square().sum())
    assert gain.grad is not None
    assert float(gain.grad) == pytest.approx(float(ends[0] - ends[1]) / 0.02, rel=1e-2)
    assert llama.hf.config._attn_implementation == "sdpa"
    torch.testing.assert_close(block(x, position_embeddings=turned, attention_mask=additive), plain)


def test_all_is_as_it_was_after_an_error(llama: LensModel) -> None:
    plain = logits(llama)

    def refuse(*_: Any) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), edit(llama, {"L1.pattern": refuse}):
        logits(llama)
    assert llama.hf.config._attn_implementation == "sdpa"
    with explicit(llama):
        torch.testing.assert_close(logits(llama), plain)  # no act is left in place
    with ExitStack() as handles, pytest.raises(SiteError, match="inside affectlens.attention.explicit"):
        attach(handles, llama.sites.find(Site("pattern", 0)), lambda w: w, writing=True)
    with edit(llama, {"L0.pattern": same}, idle="ignore"), explicit(llama):
        pass
    assert llama.hf.config._attn_implementation == "sdpa"


def test_weights_that_are_not_what_attention_computes_with_stay_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attention whose heads give half of weights times values, as a gate inside it would."""

    def halved(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> Any:
        out, weights = hf.integrations.sdpa_attention.sdpa_attention_forward(module, q, k, v, mask, **options)
        return out / 2, weights

    monkeypatch.setitem(AttentionInterface._global_mapping, "halved", halved)
    plain = tiny_hf("llama")
    plain.set_attn_implementation("halved")
    model = load_model(model=plain, tokenizer=tiny_tokenizer(), check=False)
    assert model.sites.kinds[1:5] == ("q", "k", "v", "pattern")
    sentence = "L0.pattern can be watched but not edited: what the attention of Llama"
    with pytest.raises(SiteError, match=sentence), edit(model, {"pattern": same}):
        pass
    with ExitStack() as handles, explicit(model), pytest.raises(SiteError, match="not edited; edit z"):
        attach(handles, model.sites.find(Site("pattern", 0)), lambda w: w, writing=True)
    assert model.hf.config._attn_implementation == "halved"


def test_an_attention_that_fails_in_its_explicit_form_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError

    monkeypatch.setattr("affectlens.attention._eager_form", refuse)
    model = tiny_model("qwen", check=False)
    assert model.sites.kinds[1:3] == ("pattern", "z")
    with torch.no_grad(), record(model, "pattern") as seen:
        model.body(input_ids=IDS, use_cache=False)
    torch.testing.assert_close(seen["L0.pattern"].sum(-1), torch.ones(2, 4, 20))
    with pytest.raises(SiteError, match="L0.pattern can be watched but not edited"), edit(model, {"pattern": same}):
        pass


def test_a_fresh_adapter_is_edited_after_what_it_adds() -> None:
    """Its additions are zero still, so that base and adapter give the same; training changes that."""
    import peft

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated")
        wrapped = peft.get_peft_model(tiny_hf("llama"), peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    model = load_model(model=wrapped, tokenizer=tiny_tokenizer(), check=False)
    for kind in "qv":
        assert isinstance(model.sites.find(Site(kind, 1)).module, peft.tuners.lora.LoraLayer)
    with edit(model, {"pattern": same}, idle="ignore"):
        edited = logits(model)
    torch.testing.assert_close(edited, logits(model), atol=1e-5, rtol=1e-5)


LAYOUTS = [Heads(3, 1, 4, 0, 4), Heads(3, 1, 8, 4, 6), Heads(3, 2, 4, 0, 2), Heads(3, 2, 4, 3, 4)]


@pytest.mark.parametrize("heads", LAYOUTS, ids=str)
def test_heads_are_put_back_where_they_were_cut(heads: Heads) -> None:
    value = torch.randn(2, 5, heads.groups * heads.members * 3, generator=torch.Generator().manual_seed(0))
    cut = heads.cut(value)
    assert cut.shape == (2, 5, heads.count, 3)
    assert torch.equal(heads.put(value, cut), value)
    moved = heads.put(value, cut + 1)
    assert int((moved != value).sum()) == cut.numel()
    torch.testing.assert_close(heads.cut(moved), cut + 1)


def test_grouped_queries_are_found_interleaved_with_their_key_and_value() -> None:
    """``[key-value head, queries of it + key + value, d_head]``, a layout that none of the tiny families has."""
    fused = torch.randn(2, 6, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    heard = Heard(
        nn.Identity(),
        fused[..., :2, :].reshape(2, 6, 4, 3).transpose(1, 2),
        fused[..., 2, :].transpose(1, 2),
        fused[..., 3, :].transpose(1, 2),
    )
    turn = torch.linspace(1, 2, 6)[:, None]  # stands for a rotation, which leaves the first position
    turned = Heard(heard.module, heard.query * turn, heard.key * turn, heard.value)
    call = Call("qkv", nn.Linear(5, 24), torch.zeros(2, 6, 5), fused.flatten(2))
    found = locate([call], turned)
    assert {kind: heads for kind, (_, heads) in found.items()} == {
        "q": Heads(3, 2, 4, 0, 2), "k": Heads(3, 2, 4, 2, 3), "v": Heads(3, 2, 4, 3, 4),
    }  # fmt: skip
    assert not locate([call], Heard(heard.module, heard.query + 1, heard.key + 1, heard.value * turn))


@pytest.mark.real
def test_smollm2_is_its_explicit_self_and_its_key_value_heads_are_edited(smol: LensModel) -> None:
    ids = smol.tokenizer("The letter lay unopened on the table.", return_tensors="pt").input_ids
    plain = logits(smol, ids)
    with edit(smol, {"pattern": same}, idle="ignore"):
        torch.testing.assert_close(logits(smol, ids), plain, atol=1e-3, rtol=1e-4)
    assert smol.sites.shape(Site("v", 0)) == (3, 64)
    module = smol.hf.get_submodule("model.layers.7.self_attn.v_proj")
    handle = module.register_forward_hook(lambda _m, _a, out: torch.cat((out[..., :128], 0 * out[..., 128:]), -1))
    by_hand = logits(smol, ids)
    handle.remove()
    with edit(smol, {"L7.H2.v": lambda v, _: 0 * v}, idle="raise"):
        assert torch.equal(logits(smol, ids), by_hand)
    blind = {f"L7.H{head}.pattern": lambda w, _: 0 * w for head in (6, 7, 8)}
    with edit(smol, blind, idle="raise"):
        torch.testing.assert_close(logits(smol, ids), by_hand, atol=1e-3, rtol=1e-4)
