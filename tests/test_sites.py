"""Addresses print and parse; every site on every family is what a hook written by hand, and transformer-lens, see."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from affectlens.errors import SiteError
from affectlens.hooks import record
from affectlens.model import LensModel
from affectlens.model_sites import Dictionary
from affectlens.sites import KINDS, Site
from affectlens.testing import FAMILIES, tiny_model

TL = {
    "resid_pre": "hook_resid_pre", "q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v",
    "pattern": "attn.hook_pattern", "z": "attn.hook_z", "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid", "neurons": "mlp.hook_post", "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}  # fmt: skip

# module names inside a block: attention, its matrices, what adds to the stream, the norm before the MLP
LLAMA: dict[str, str] = {
    "block": "model.layers", "attn": "self_attn", "o": "self_attn.o_proj", "attn_out": "self_attn", "mlp_out": "mlp",
    "down": "mlp.down_proj", "ln2": "post_attention_layernorm",
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
}  # fmt: skip
BY_HAND: dict[str, dict[str, str]] = {
    "llama": LLAMA,
    "qwen": LLAMA,
    "gemma3": LLAMA | {"attn_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm",
                       "ln2": "pre_feedforward_layernorm"},
    "gpt2": {"block": "transformer.h", "attn": "attn", "o": "attn.c_proj", "attn_out": "attn", "mlp_out": "mlp",
             "down": "mlp.c_proj", "ln2": "ln_2", "qkv": "attn.c_attn"},
    "gpt_neox": {"block": "gpt_neox.layers", "attn": "attention", "o": "attention.dense", "attn_out": "attention",
                 "mlp_out": "mlp", "down": "mlp.dense_4h_to_h", "ln2": "", "qkv": "attention.query_key_value"},
}  # fmt: skip


def by_hand(model: LensModel, family: str, layer: int, ids: Tensor) -> dict[str, Tensor]:
    """Every site of one block, through plain hooks on modules found by their names."""
    names = BY_HAND[family]
    block = model.hf.get_submodule(f"{names['block']}.{layer}")
    seen: dict[str, Tensor] = {}

    def ins(key: str) -> Any:
        return lambda _m, args, kwargs: seen.__setitem__(key, (args[0] if args else kwargs["hidden_states"]).clone())

    def outs(key: str, at: int = 0) -> Any:
        return lambda _m, _a, out: seen.__setitem__(key, (out[at] if isinstance(out, tuple) else out).clone())

    def sub(name: str) -> nn.Module:
        return block.get_submodule(name)

    handles = [
        block.register_forward_pre_hook(ins("resid_pre"), with_kwargs=True),
        block.register_forward_hook(outs("resid_post")),
        sub(names["o"]).register_forward_pre_hook(ins("z"), with_kwargs=True),
        sub(names["attn"]).register_forward_hook(outs("pattern", 1)),
        sub(names["attn_out"]).register_forward_hook(outs("attn_out")),
        sub(names["mlp_out"]).register_forward_hook(outs("mlp_out")),
        sub(names["down"]).register_forward_pre_hook(ins("neurons"), with_kwargs=True),
    ]  # fmt: skip
    if names["ln2"]:
        handles.append(sub(names["ln2"]).register_forward_pre_hook(ins("resid_mid"), with_kwargs=True))
    handles += [sub(names[kind]).register_forward_hook(outs(kind)) for kind in ("q", "k", "v", "qkv") if kind in names]
    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    with torch.no_grad():
        model.hf(input_ids=ids, use_cache=False)
    model.hf.set_attn_implementation(before)
    for handle in handles:
        handle.remove()
    if "qkv" in seen:
        fused, n = seen.pop("qkv"), model.n_heads
        apart = fused.chunk(3, -1) if family == "gpt2" else fused.reshape(*fused.shape[:2], n, 3, -1).unbind(3)
        seen |= dict(zip("qkv", apart, strict=True))
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_of_every_family_equals_a_hand_written_hook(family: str) -> None:
    model = tiny_model(family, check=False)
    ids = torch.randint(5, 200, (2, 24), generator=torch.Generator().manual_seed(0))
    for layer in range(model.n_layers):
        expected = by_hand(model, family, layer, ids)
        sites = [Site(kind, layer) for kind in expected]
        assert len(sites) == 10 + (family != "gpt_neox")
        with torch.no_grad(), record(model, sites) as seen:
            model.body(input_ids=ids, use_cache=False)
        for site in sites:
            torch.testing.assert_close(
                seen[site].reshape(expected[site.kind].shape), expected[site.kind], atol=1e-6, rtol=1e-5
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_of_every_family_equals_transformer_lens(family: str) -> None:
    model = tiny_model(family, check=False)
    ids = torch.randint(5, 200, (2, 24), generator=torch.Generator().manual_seed(1))
    sites = model.sites.expand(model.sites.kinds)
    with torch.no_grad():
        with record(model, sites) as seen:
            model.body(input_ids=ids, use_cache=False)
        _, cache = model.bridge.run_with_cache(ids)
    for site in sites:
        theirs = cache[f"blocks.{site.layer}.{TL[site.kind]}"]
        torch.testing.assert_close(seen[site], theirs.reshape(seen[site].shape), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_laws_of_a_residual_block(family: str) -> None:
    model = tiny_model(family, check=False)
    with torch.no_grad(), record(model, model.sites.kinds) as seen:
        model.body(input_ids=torch.randint(5, 200, (3, 9)), use_cache=False)
    for layer in range(model.n_layers):
        at = {kind: seen[Site(kind, layer)] for kind in model.sites.kinds}
        torch.testing.assert_close(
            at["resid_pre"] + at["attn_out"] + at["mlp_out"], at["resid_post"], atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(at["pattern"].sum(-1), torch.ones(3, 4, 9))
        assert at["pattern"].triu(1).abs().max() == 0
        assert at["z"].shape == (3, 9, 4, 8)
        if layer:
            assert torch.equal(at["resid_pre"], seen[Site("resid_post", layer - 1)])


EVERY = [Site(kind, 3) for kind in KINDS if kind != "features"] + [
    Site.head(3, 1), Site.neuron(3, 40), Site.pattern(3, 0), Site.feature("joy/sae-2.b", 3, 7), Site("q", 3, 11),
    Site("k", 3, 0), Site("v", 3, 1),
    Site("features", 3, None, "joy/sae-2.b"),
]  # fmt: skip


@pytest.mark.parametrize("site", EVERY, ids=str)
def test_print_and_parse_round_trip(site: Site) -> None:
    assert Site.parse(str(site)) == site
    assert str(site).startswith("L3.")


def test_transformer_lens_names_parse() -> None:
    for kind, name in TL.items():
        assert Site.parse(f"blocks.7.{name}") == Site(kind, 7)


def test_sites_sort_in_the_order_of_computing() -> None:
    listed = [
        Site("resid_post", 0),
        Site("mlp_out", 0),
        Site("resid_pre", 0),
        Site("z", 0),
        Site.head(0, 2),
        Site("resid_pre", 1),
        Site("pattern", 0),
        Site("v", 0),
        Site("q", 0, 3),
        Site("q", 0),
    ]
    assert [str(s) for s in sorted(listed)] == [
        "L0.resid_pre",
        "L0.q",
        "L0.H3.q",
        "L0.v",
        "L0.pattern",
        "L0.z",
        "L0.H2",
        "L0.mlp_out",
        "L0.resid_post",
        "L1.resid_pre",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("resid_post", "write it as L12.resid_post"),
        ("L1.residual", "There is no site 'residual'; choose from resid_pre"),
        ("blocks.1.ln2.hook_scale", "is not a site here; of a block there are attn.hook_k, attn.hook_pattern"),
        ("L1.F7", "names its dictionary"),
        ("L1.H3@x", "no other site does"),
        ("L1.H3.o", "is not a site: write it as .* L12.H3.q"),
        ("L1.H3.z", "is not a site"),
        ("L-1.H3", "is not a site"),
    ],
)
def test_what_is_not_a_site_says_what_is(text: str, sentence: str) -> None:
    with pytest.raises(SiteError, match=sentence):
        Site.parse(text)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("L2.resid_post", "has layers 0 to 1"),
        ("H4", "counts from 0 to 3"),
        ("H4.q", "counts from 0 to 3"),
        ("L0.N64", "counts from 0 to 63"),
        (
            "resid_mid",
            "has no L0.resid_mid; layer 0 has resid_pre, q, k, v, pattern, z, attn_out, neurons, mlp_out, resid_post",
        ),
        ("L0.F1@joy", r"No dictionary is attached .* as 'joy' \(there are: none\)"),
        ((), "No site is named"),
    ],
)
def test_a_site_that_the_model_lacks_says_what_exists(asked: Any, sentence: str) -> None:
    with pytest.raises(SiteError, match=sentence):
        tiny_model("gpt_neox", check=False).sites.expand(asked)


def test_names_expand_to_layers(llama: LensModel) -> None:
    assert [str(s) for s in llama.sites.expand(["H3", "L1.resid_mid", "blocks.0.hook_mlp_out"])] == [
        "L0.H3", "L1.H3", "L1.resid_mid", "L0.mlp_out",
    ]  # fmt: skip
    assert [str(s) for s in llama.sites.expand("H0.pattern")] == ["L0.H0.pattern", "L1.H0.pattern"]
    assert "L0..1.resid_mid" in repr(llama.sites)


def test_parts_are_cut_from_the_whole(llama: LensModel) -> None:
    with torch.no_grad(), record(llama, ["z", "H2", "neurons", "L1.N5", "pattern", "H1.pattern"]) as seen:
        llama.body(input_ids=torch.randint(5, 200, (2, 7)), use_cache=False)
    assert torch.equal(seen["L1.H2"], seen["L1.z"][:, :, 2])
    assert torch.equal(seen["L1.N5"], seen["L1.neurons"][..., 5])
    assert torch.equal(seen["L1.H1.pattern"], seen["L1.pattern"][:, 1])
    with pytest.raises(SiteError, match=r"L1.mlp_out was not recorded; there are L0.z"):
        seen["L1.mlp_out"]


def test_an_attached_dictionary_makes_features_sites() -> None:
    model = tiny_model("llama", check=False)
    weight = torch.randn(32, 50, generator=torch.Generator().manual_seed(0))
    model.sites.attach("toy", Dictionary(Site("resid_post", 1), lambda x: torch.relu(x @ weight), 50, "0" * 64))
    with torch.no_grad(), record(model, ["L1.resid_post", "features@toy", "F7@toy"]) as seen:
        model.body(input_ids=torch.randint(5, 200, (2, 7)), use_cache=False)
    torch.testing.assert_close(seen["L1.features@toy"], torch.relu(seen["L1.resid_post"] @ weight))
    assert torch.equal(seen["L1.F7@toy"], seen["L1.features@toy"][..., 7])
    assert "L1.features@toy [50]" in repr(model.sites)
    with pytest.raises(SiteError, match="reads L1.resid_post, not layer 0"):
        model.sites.expand("L0.F7@toy")
    with pytest.raises(SiteError, match="from 0 to 49"):
        model.sites.expand("F50@toy")


def test_a_sequential_gpt_neox_has_resid_mid() -> None:
    """What exists is found by running the model, not by the family's name."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from affectlens.model import load_model
    from affectlens.testing import tiny_hf, tiny_tokenizer

    config = GPTNeoXConfig(**tiny_hf("gpt_neox").config.to_dict() | {"use_parallel_residual": False})
    model = load_model(model=GPTNeoXForCausalLM(config), tokenizer=tiny_tokenizer(bos=False))
    assert "resid_mid" in model.sites.kinds
    expected = by_hand_mid(model, torch.arange(5, 12)[None])
    with torch.no_grad(), record(model, "L0.resid_mid") as seen:
        model.body(input_ids=torch.arange(5, 12)[None], use_cache=False)
    torch.testing.assert_close(seen["L0.resid_mid"], expected)


def by_hand_mid(model: LensModel, ids: Tensor) -> Tensor:
    seen: list[Tensor] = []
    norm = model.hf.get_submodule("gpt_neox.layers.0.post_attention_layernorm")
    handle = norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        model.body(input_ids=ids, use_cache=False)
    handle.remove()
    return seen[0]


def other_family(name: str) -> LensModel:
    """Families whose blocks are unlike those of our five."""
    import transformers

    from affectlens.model import load_model
    from affectlens.testing import tiny_tokenizer

    sizes = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 64, "max_position_embeddings": 128}  # fmt: skip
    hf: Any = transformers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {
            "falcon": lambda: hf.FalconForCausalLM(
                hf.FalconConfig(**sizes, parallel_attn=True, new_decoder_architecture=False)
            ),
            "mixtral": lambda: hf.MixtralForCausalLM(
                hf.MixtralConfig(**sizes, num_local_experts=4, num_experts_per_tok=2, num_key_value_heads=2)
            ),
            "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**sizes)),
            "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**sizes, residual_multiplier=0.22)),
            "cohere": lambda: hf.CohereForCausalLM(hf.CohereConfig(**sizes, num_key_value_heads=4)),
            "opt": lambda: hf.OPTForCausalLM(
                hf.OPTConfig(
                    **{k: v for k, v in sizes.items() if k != "intermediate_size"}, ffn_dim=64, word_embed_proj_dim=32
                )
            ),
            "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**sizes)),
        }[name]()
    return load_model(model=made, tokenizer=tiny_tokenizer(bos=False))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("olmo2", "resid_pre q k v pattern z attn_out resid_mid neurons mlp_out resid_post"),
        ("phi", "resid_pre q k v pattern z attn_out neurons mlp_out resid_post"),  # parallel
        ("cohere", "resid_pre q k v pattern z attn_out neurons mlp_out resid_post"),  # parallel
        (
            "mixtral",
            "resid_pre q k v pattern z attn_out resid_mid mlp_out resid_post",
        ),  # experts: no one set of neurons
        ("granite", "resid_pre q k v pattern z neurons resid_post"),  # what is added is scaled first
        ("falcon", "resid_pre z attn_out neurons mlp_out resid_post"),  # its attention keeps its weights to itself
        ("opt", "resid_pre q k v pattern z resid_post"),  # its MLP flattens the batch
    ],
)
def test_other_families_have_the_sites_that_their_blocks_have(name: str, kinds: str) -> None:
    model = other_family(name)
    assert " ".join(model.sites.kinds) == kinds
    with torch.no_grad(), record(model, kinds.split()) as seen:
        model.body(input_ids=torch.randint(5, 200, (2, 9)), use_cache=False)
    for layer in range(2):
        if "mlp_out" in kinds:
            total = seen[Site("resid_pre", layer)] + seen[Site("attn_out", layer)] + seen[Site("mlp_out", layer)]
            torch.testing.assert_close(total, seen[Site("resid_post", layer)], atol=1e-5, rtol=1e-4)
        if "pattern" in kinds:
            torch.testing.assert_close(seen[Site("pattern", layer)].sum(-1), torch.ones(2, 4, 9))
        for kind in kinds.split():
            if kind in "qkv":
                matrix = model.blocks[layer].get_submodule(f"self_attn.{kind}_proj")
                assert model.sites.find(Site(kind, layer)).module is matrix
        if "neurons" in kinds:
            down = model.sites.find(Site("neurons", layer)).module
            assert seen[Site("neurons", layer)].shape == (2, 9, next(iter(down.parameters())).shape[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sites_are_found_where_the_stream_dwarfs_what_is_added(dtype: torch.dtype) -> None:
    """One block adds little beside the stream, so that in half precision the laws are blurred there."""
    from affectlens.model import load_model
    from affectlens.testing import tiny_hf, tiny_tokenizer

    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.model.embed_tokens.weight.mul_(100 if dtype == torch.bfloat16 else 400)
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            hf.model.layers[0].get_submodule(name).weight.mul_(400)
    model = load_model(model=hf.to(dtype), tokenizer=tiny_tokenizer(bos=False), check=False)
    assert [len(model.sites.expand(kind)) for kind in model.sites.kinds] == [2] * 11
    names = {id(module): name for name, module in model.hf.named_modules()}
    assert names[id(model.sites.find(Site("attn_out", 1)).module)] == "model.layers.1.self_attn"
    assert names[id(model.sites.find(Site("mlp_out", 1)).module)] == "model.layers.1.mlp"


def test_a_users_hook_does_not_bend_what_is_found() -> None:
    model = tiny_model("llama", check=False)
    calls: list[int] = []

    def double(_module: Any, _args: Any, out: Any) -> Any:
        calls.append(1)
        return out * 2

    handle = model.blocks[0].register_forward_hook(double)
    assert [str(site) for site in model.sites.expand("z")] == ["L0.z", "L1.z"]
    assert not calls
    model.body(input_ids=torch.tensor([[5, 6]]), use_cache=False)
    assert len(calls) == 1
    handle.remove()


def test_layers_that_lack_a_kind_are_named() -> None:
    model = tiny_model("llama", check=False)
    del model.sites._table[0, "z"]
    with pytest.warns(UserWarning, match=r"has no z at layers \[0\]: H2 leaves them out"):
        assert [str(site) for site in model.sites.expand("H2")] == ["L1.H2"]
