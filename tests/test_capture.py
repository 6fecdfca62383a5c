"""Capture against a hand-written hook, one text at a time; batching, padding and early stop never change a value."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from affectlens import capturing, passes
from affectlens.capturing import capture, plan_batches
from affectlens.errors import CaptureError, SiteError
from affectlens.foreign import from_cache
from affectlens.hooks import edit, record
from affectlens.layouts import ending_start
from affectlens.model import LensModel
from affectlens.paths import cache_dir
from affectlens.positions import Position
from affectlens.sites import Site
from affectlens.store import Activations
from affectlens.testing import FAMILIES, tiny_model

TEXTS = [
    "The post came late. Nobody minded.",
    "A.",
    "Three boats lay at the quay, and a fourth was coming in. It was red. It blew its horn twice, and turned.",
    "She said 'Wait.' and went on. The lamp swung.",
    "Two words",
]


def by_hand(model: LensModel, text: str) -> dict[str, np.ndarray]:
    """[layer, d_model] by position: one text, one plain forward hook a block, pooling after the fact."""
    encoded = model.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _args: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    handles = [block.register_forward_hook(keep) for block in model.blocks]
    with torch.no_grad():
        model.hf(input_ids=torch.tensor([encoded["input_ids"]]), use_cache=False)
    for handle in handles:
        handle.remove()
    resid = torch.stack([s[0] for s in seen]).numpy()  # [layer, pos, d]
    text_tokens = [i for i, special in enumerate(encoded["special_tokens_mask"]) if not special]
    later = [i for i in text_tokens if i > 0] or text_tokens
    start = ending_start(text)
    ending = [i for i in text_tokens if encoded["offset_mapping"][i][1] > start]
    ending = [i for i in ending if i > 0] or ending
    rows = {"mean": later, "last": text_tokens[-1:], "ending": ending}
    return {name: resid[:, chosen].mean(1) for name, chosen in rows.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [1, 150, 10_000])
def test_equals_a_hand_written_hook_whatever_the_batches(family: str, budget: int) -> None:
    model = tiny_model(family, check=False)
    acts = capture(model, TEXTS, positions=("mean", "last", "ending"), token_budget=budget, cache=False)
    for row, text in enumerate(TEXTS):
        for position, expected in by_hand(model, text).items():
            np.testing.assert_allclose(acts.at(position)[row], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [1, 150, 10_000])
def test_every_site_pooled_equals_pooling_after_the_fact(family: str, budget: int) -> None:
    """Against one text at a time through :func:`record`, which other tests hold against hooks written by hand."""
    model = tiny_model(family, check=False)
    kinds, rules = model.sites.kinds, ("mean", "mean_from(2)", "last", "ending")
    texts = [text for text in TEXTS if len(text) > 3]
    acts = capture(model, texts, sites=kinds, positions=rules, token_budget=budget, cache=False)
    every = capture(
        model, texts, sites=[k for k in kinds if k != "pattern"], positions="all", token_budget=budget, cache=False
    )
    layouts = passes_layouts(model, texts)
    for row, layout in enumerate(layouts):
        with torch.no_grad(), record(model, kinds) as seen:
            model.body(input_ids=torch.tensor([layout.ids]), use_cache=False)
        for site, value in seen.items():
            for rule in rules:
                weights = torch.from_numpy(Position.parse(rule).weights(layout))
                if site.kind == "pattern":
                    pooled = torch.einsum("q,hqk->kh", weights, value[0])
                    ours = acts.item(row, rule, "pattern")[:, site.layer]
                else:
                    pooled = torch.tensordot(weights, value[0], dims=1)
                    ours = acts.at(rule, site.kind)[row, site.layer]
                np.testing.assert_allclose(ours, pooled, atol=1e-4, rtol=1e-4)
            if site.kind != "pattern":
                np.testing.assert_allclose(
                    every.item(row, site=site.kind)[:, site.layer], value[0], atol=1e-4, rtol=1e-4
                )


def passes_layouts(model: LensModel, texts: list[str]) -> list[Any]:
    from affectlens.layouts import lay_out
    from affectlens.texts import TextList

    return lay_out(model, TextList(texts).frame())


def test_sites_may_be_mixed_and_keep_their_order(llama: LensModel) -> None:
    acts = capture(llama, TEXTS, sites=["H3", "L1.N17", "blocks.0.attn.hook_z", "resid_post"], cache=False)
    assert acts.sites == ("H3", "N17", "z", "resid_post")
    assert acts.layers == {"H3": (0, 1), "N17": (1,), "z": (0,), "resid_post": (0, 1)}
    assert acts["L0.H3"].shape == (5, 8)
    assert acts["L1.N17"].shape == (5,)
    np.testing.assert_array_equal(acts["L0.z"][:, 3], acts["L0.H3"])
    np.testing.assert_array_equal(acts["L0.H2", "ending"], acts["L0.z", "ending"][:, 2])
    np.testing.assert_array_equal(acts["blocks.1.hook_resid_post"], acts.at("mean", "resid_post")[:, 1])
    with pytest.raises(
        CaptureError, match=r"L1.z was not captured. There are H3 at layers \[0, 1\]; N17 at layers \[1\]"
    ):
        acts["L1.z"]
    with pytest.raises(CaptureError, match="mlp_out was not captured, only H3, N17, z, resid_post"):
        acts.at("mean", "mlp_out")


def test_the_pass_stops_after_the_last_site_that_is_needed(llama: LensModel) -> None:
    ran: list[int] = []
    handles = [
        block.get_submodule("mlp").register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(llama.blocks)
    ]
    handles.append(llama.hf.lm_head.register_forward_hook(lambda *_: pytest.fail("the language-model head ran")))
    try:
        early = capture(llama, TEXTS, sites="L0.resid_post", cache=False, token_budget=10_000)
        assert ran == [0]
        whole = capture(llama, TEXTS, sites="resid_post", cache=False, token_budget=10_000)
    finally:
        for handle in handles:
            handle.remove()
    np.testing.assert_array_equal(early["L0.resid_post"], whole["L0.resid_post"])


def test_plan_holds_every_row_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 90, 200).tolist()
    plan = plan_batches(lengths, 500)
    assert sorted(row for batch in plan for row in batch) == list(range(200))
    assert all(len(batch) == 1 or len(batch) * max(lengths[r] for r in batch) <= 500 for batch in plan)


def test_batches_shrink_when_memory_runs_out(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = capture(llama, TEXTS, positions=("mean", "all"), token_budget=10_000, cache=False)
    sizes: list[int] = []
    real = passes.run_batch

    def limited(model: LensModel, batch: list[Any], *rest: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, batch, *rest)

    monkeypatch.setattr(passes, "run_batch", limited)
    shrunk = capture(llama, TEXTS, positions=("mean", "all"), token_budget=10_000)
    assert sizes == [5, 3, 2, 1, 1, 1]
    for position in ("mean", "all"):
        np.testing.assert_allclose(shrunk.at(position), whole.at(position), atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(passes, "run_batch", lambda *_: (_ for _ in ()).throw(RuntimeError("can't allocate memory")))
    with pytest.raises(CaptureError, match="Item 't2' with 104 tokens does not fit into memory, even alone"):
        capture(llama, TEXTS, cache=False)
    monkeypatch.setattr(passes, "run_batch", lambda *_: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        capture(llama, TEXTS, cache=False)


def test_values_that_are_not_finite_are_refused() -> None:
    model = tiny_model("llama", check=False)
    with (
        edit(model, {"L0.resid_post": lambda v, _: v * float("inf")}),
        pytest.raises(CaptureError, match="is not finite"),
    ):
        capture(model, TEXTS)


def test_inside_an_edit_the_store_is_neither_read_nor_written(llama: LensModel) -> None:
    plain = capture(llama, TEXTS)
    with edit(llama, {"L0.resid_post": lambda v, _: v * 2}):
        edited = capture(llama, TEXTS)
    assert not np.allclose(edited.at(), plain.at())
    assert len(list((cache_dir() / "activations").iterdir())) == 1
    np.testing.assert_array_equal(capture(llama, TEXTS).at(), plain.at())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_from_a_transformer_lens_cache(family: str, side: str) -> None:
    """The same texts, padded on either side by hand and run by transformer-lens's own cache, or by ours."""
    model = tiny_model(family, check=False)
    acts = capture(
        model, TEXTS[3:], sites=("resid_post", "z", "mlp_out"), positions=("mean", "last", "all"), cache=False
    )
    if side == "left":
        with torch.no_grad(), record(model, acts.sites) as seen:
            ids, mask = padded(model, TEXTS[3:], side)
            model.body(
                input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False
            )
        names = {"resid_post": "hook_resid_post", "z": "attn.hook_z", "mlp_out": "hook_mlp_out"}
        cache: Any = {f"blocks.{site.layer}.{names[site.kind]}": value for site, value in seen.items()}
    else:
        ids, mask = padded(model, TEXTS[3:], side)
        with torch.no_grad():
            _, cache = model.bridge.run_with_cache(ids)
    theirs = from_cache(cache, items=TEXTS[3:], attention_mask=mask, model=model.name)
    assert theirs.site == "resid_post"
    bos = family == "gemma3"  # our mean leaves out the first token, which is the BOS in this family
    assert bos == bool(model.tokenizer("a").input_ids[0] == 0)
    for position in ("mean", "last", "all"):
        for what in acts.sites:
            np.testing.assert_allclose(theirs.at(position, what), acts.at(position, what), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(theirs["blocks.1.hook_resid_post", "last"], acts["L1.resid_post", "last"], atol=1e-4)


def padded(model: LensModel, texts: list[str], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [model.tokenizer(text).input_ids for text in texts]
    width = max(map(len, rows))
    full = [([2] * (width - len(r)) + r) if side == "left" else r + [2] * (width - len(r)) for r in rows]
    mask = [
        [0] * (width - len(r)) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * (width - len(r)) for r in rows
    ]
    return torch.tensor(full), torch.tensor(mask)


@pytest.mark.parametrize(
    ("cache", "options", "sentence"),
    [
        ({"ln_final.hook_scale": torch.zeros(1, 2, 1)}, {}, "holds no site that AffectLens knows"),
        ({"blocks.0.hook_resid_post": torch.zeros(1, 2, 4)}, {"items": ["a", "b"]}, "has 1 texts of 2 tokens"),
        ({"blocks.0.hook_resid_post": torch.zeros(1, 2, 4)}, {"positions": "ending"}, "positions mean, last, all"),
    ],
)
def test_a_cache_that_does_not_fit_says_why(cache: Any, options: Any, sentence: str) -> None:
    with pytest.raises(CaptureError, match=sentence):
        from_cache(cache, **options)


@pytest.mark.parametrize(
    ("texts", "options", "sentence"),
    [
        ([], {}, "has no items: there is nothing to capture"),
        (["ok", ""], {}, "Item 't1' has no tokens"),
        (["x" * 2000], {}, "Item 't0' has 2000 tokens and the context .* holds 1024"),
        (["ok"], {"positions": "middle"}, "Position 'middle' is not known; choose from mean, last, ending"),
        (["ok"], {"positions": ()}, "No position is named"),
        (["ok"], {"sites": "pattern", "positions": "all"}, "pooled over queries: name a position other than all"),
        ("one text", {}, "put a single text into a list"),
        ({"a": "text"}, {}, "not dict: put a single text into a list"),
        (pd.DataFrame({"text": ["ok", float("nan")]}), {}, "Item t1 is float: give strings, or lists of messages"),
        ([[{"role": "user", "content": None}]], {}, "Text 0 has a message whose content is NoneType"),
        (["half \ud83d"], {}, "Text 0 has half a character"),
        (pd.DataFrame({"words": ["a"]}), {}, "The table has no column 'text', only words"),
        (pd.DataFrame({"id": [1, 1], "text": ["a", "b"]}), {}, "several items with the id '1'"),
        (["ok", "a longer text"], {"positions": "mean_from(5)"}, "picks no token of item 't0'"),
        ([[]], {}, "Text 0 is list: give strings, or lists of messages"),
    ],
)
def test_what_cannot_be_captured(llama: LensModel, texts: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CaptureError, match=sentence):
        capture(llama, texts, **options)


def test_what_is_no_model_is_refused(llama: LensModel) -> None:
    with pytest.raises(CaptureError, match="capture takes what load_model gives, not LlamaForCausalLM"):
        vars(capturing.capture)["__wrapped__"](llama.hf, TEXTS)


def test_a_table_of_ones_own(llama: LensModel) -> None:
    table = pd.DataFrame({"id": ["b", "a"], "text": TEXTS[:2], "mood": [1, 2]}, index=[7, 9])
    acts = capture(llama, table)
    np.testing.assert_array_equal(acts.at(), capture(llama, TEXTS[:2], cache=False).at())
    assert acts.items["id"].tolist() == ["b", "a"]
    assert acts.items["mood"].tolist() == [1, 2]


def test_names_may_be_written_in_any_way(llama: LensModel) -> None:
    acts = capture(llama, TEXTS[:1], positions=["span('came late')", "mean"], cache=False)
    np.testing.assert_array_equal(acts.at("span('came late')"), acts.at('span("came late")'))
    np.testing.assert_array_equal(acts.at(Position("mean")), acts.at("mean"))
    for unknown in ("middle", "mean_from"):
        with pytest.raises(CaptureError, match="is not known; choose from"):
            Position(unknown)
    with pytest.raises(CaptureError, match="one row an item; resid_post at 'all' has one a token"):
        Activations.from_arrays({"all": np.zeros((3, 2, 4))}, pd.DataFrame({"id": ["a"]}))


def test_a_position_that_was_not_captured_says_how(llama: LensModel) -> None:
    acts = capture(llama, ["ok"], positions="mean", cache=False)
    with pytest.raises(CaptureError, match=r"only mean: capture again with positions=\['mean', 'last'\]"):
        acts.at("last")
    with pytest.raises(CaptureError, match="was pooled by 'all'|was not captured"):
        acts.item(0)
    with pytest.raises(SiteError, match="is not a site"):
        acts["resid"]


def test_planted_arrays_become_activations() -> None:
    values = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    acts = Activations.from_arrays({"mean": values}, pd.DataFrame({"id": ["a", "b"]}), layers=(4, 5, 6))
    np.testing.assert_array_equal(acts[Site("resid_post", 5)], values[:, 1])
    assert (acts.n_layers, acts.d_model, len(acts)) == (3, 4, 2)
