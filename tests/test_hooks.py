"""Edits do what they say at absolute positions, whatever the cache, chunks and padding; and everything is restored."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from affectlens.cursors import Cursor, following
from affectlens.errors import SiteError
from affectlens.hooks import NothingChanged, edit, record, watch
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.testing import FAMILIES, tiny_model

IDS = torch.randint(5, 200, (2, 20), generator=torch.Generator().manual_seed(0))
OTHER = torch.randint(5, 200, (2, 20), generator=torch.Generator().manual_seed(1))
EDITABLE = ("resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "neurons", "mlp_out", "resid_post")


def logits(model: LensModel, ids: Tensor, **options: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = model.hf(input_ids=ids, use_cache=False, **options).logits
    return out


def hooks_of(model: LensModel) -> list[list[int]]:
    return [[*m._forward_hooks, *m._forward_pre_hooks] for m in model.hf.modules()]


def bump(at: int, amount: float = 3.0) -> Callable[[Tensor, Cursor], Tensor]:
    """An edit of the token at one absolute position; not by a constant, which a LayerNorm would take away."""

    def change(value: Tensor, cursor: Cursor) -> Tensor:
        here = (cursor.positions == at).view(*cursor.positions.shape, *[1] * (value.ndim - 2))
        return value + amount * here * torch.linspace(-1, 1, value.shape[-1])

    return change


@pytest.mark.parametrize("family", FAMILIES)
def test_patching_a_whole_layer_restores_the_other_run(family: str) -> None:
    model = tiny_model(family, check=False)
    for kind in ("resid_pre", "resid_post", "resid_mid"):
        if kind not in model.sites.kinds:
            continue
        with torch.no_grad(), record(model, kind) as clean:
            model.body(input_ids=OTHER, use_cache=False)
        last = clean[Site(kind, 1)]
        with edit(model, {Site(kind, 1): lambda _v, _c, last=last: last}):
            patched = logits(model, IDS)
        torch.testing.assert_close(patched, logits(model, OTHER), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "kind"), [(f, k) for f in FAMILIES for k in EDITABLE if (f, k) != ("gpt_neox", "resid_mid")]
)
def test_an_edit_moves_its_site_and_what_the_laws_say_follows(family: str, kind: str) -> None:
    """The edited value is what later hooks see, and the block's output follows by the block's own arithmetic."""
    model = tiny_model(family, check=False)
    site, after = Site(kind, 1), Site("resid_post", 1)
    with torch.no_grad(), record(model, [site, after]) as plain:
        model.body(input_ids=IDS, use_cache=False)
    with torch.no_grad(), edit(model, {site: bump(4)}), record(model, [site, after]) as edited:
        model.body(input_ids=IDS, use_cache=False)
    torch.testing.assert_close(
        edited[site], bump(4)(plain[site], Cursor(torch.arange(20).expand(2, 20))), atol=1e-5, rtol=1e-4
    )
    moved = (edited[after] - plain[after]).abs().amax(-1) > 1e-6
    later = kind in ("resid_pre", "k", "v")  # through attention
    assert moved[:, 4].all()
    assert not moved[:, :4].any()
    assert moved[:, 5:].any() == later
    if kind in ("attn_out", "mlp_out", "resid_mid", "resid_post") and family in ("llama", "qwen", "gpt2"):
        assert not torch.equal(edited[after], plain[after])
    if kind in ("mlp_out", "resid_post"):
        torch.testing.assert_close(
            edited[after][:, 4] - plain[after][:, 4], 3 * torch.linspace(-1, 1, 32).expand(2, 32), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(("site", "index"), [("L1.H2", 2), ("L1.N5", 5)])
def test_an_edit_of_a_part_leaves_the_other_parts(llama: LensModel, site: str, index: int) -> None:
    whole = "L1.z" if "H" in site else "L1.neurons"
    with torch.no_grad(), record(llama, whole) as plain:
        llama.body(input_ids=IDS, use_cache=False)
    with torch.no_grad(), edit(llama, {site: lambda v, _: torch.zeros_like(v)}), record(llama, whole) as edited:
        llama.body(input_ids=IDS, use_cache=False)
    kept = [i for i in range(plain[whole].shape[2]) if i != index]
    assert torch.equal(edited[whole][:, :, kept], plain[whole][:, :, kept])
    assert edited[whole][:, :, index].abs().max() == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["resid_post", "k", "z"])
@pytest.mark.parametrize("chunks", [[20], [7, 13], [7, 1, 1, 11], [1] * 20])
def test_positions_are_absolute_under_cache_and_chunking(family: str, kind: str, chunks: list[int]) -> None:
    model = tiny_model(family, check=False)
    with edit(model, {Site(kind, 0): bump(9)}):
        whole = logits(model, IDS)
    cache, at, parts = DynamicCache(config=model.hf.config), 0, []
    with torch.no_grad(), edit(model, {Site(kind, 0): bump(9)}), record(model, "resid_post") as seen:
        for size in chunks:
            parts.append(model.hf(input_ids=IDS[:, at : at + size], past_key_values=cache, use_cache=True).logits)
            at += size
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)
    assert seen["L1.resid_post"].shape == (2, 20, 32)
    assert not torch.allclose(whole, logits(model, IDS), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_are_absolute_under_padding(family: str, side: str) -> None:
    model = tiny_model(family, check=False)
    short, long = IDS[:1, :12], IDS[1:]
    pad, one, none = torch.full((1, 8), 2), torch.ones(1, 12, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long)
    row, mask = ((pad, short), (none, one)) if side == "left" else ((short, pad), (one, none))
    ids, masks = torch.cat((torch.cat(row, 1), long)), torch.cat((torch.cat(mask, 1), torch.ones_like(long)))
    places = (masks.cumsum(1) - 1).clamp(min=0)
    text = slice(8, None) if side == "left" else slice(None, 12)
    with edit(model, {"L0.resid_post": bump(9)}), following(model) as cursor:
        padded = logits(model, ids, attention_mask=masks, position_ids=places)[:1, text]
        assert cursor.positions[0].tolist() == (
            [-1] * 8 + list(range(12)) if side == "left" else [*range(12), *[-1] * 8]
        )
        alone = logits(model, short)
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edited_cached_generation_equals_the_uncached_one(family: str) -> None:
    """One edit in the prompt, one in the reply, in a left-padded batch."""
    model = tiny_model(family, check=False)
    ids = IDS.clone()
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    with edit(model, {"L0.resid_post": bump(3), "L1.mlp_out": bump(22, 30.0)}):
        cached, fresh = (
            model.hf.generate(
                ids, attention_mask=mask, max_new_tokens=8, do_sample=False, use_cache=use, pad_token_id=2
            )
            for use in (True, False)
        )
    plain = model.hf.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=2)
    assert torch.equal(cached, fresh)
    assert not torch.equal(cached, plain)


def test_a_watched_pass_stops_where_it_was_told(llama: LensModel) -> None:
    ran: list[str] = []
    handles = [m.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, m in llama.hf.named_modules()]
    seen: list[str] = []
    with torch.no_grad(), watch(llama, ["L0.resid_post", "L1.z"], lambda site, _: seen.append(str(site)), stop=True):
        llama.body(input_ids=IDS, use_cache=False)
        pytest.fail("the pass went on")
    for handle in handles:
        handle.remove()
    assert seen == ["L0.resid_post", "L1.z"]
    assert "model.layers.1.self_attn.v_proj" in ran
    assert not {"model.layers.1.self_attn.o_proj", "model.layers.1.mlp", "model.norm"} & set(ran)


@pytest.mark.parametrize("how", ["watch", "record", "edit"])
def test_all_is_restored_after_an_error_and_the_users_hooks_stay(llama: LensModel, how: str) -> None:
    calls: list[int] = []
    theirs = [m.register_forward_hook(lambda *_: calls.append(1)) for m in llama.blocks]

    def refuse(*_: Any) -> None:
        raise ZeroDivisionError

    before = hooks_of(llama)
    contexts: dict[str, Any] = {
        "watch": lambda: watch(llama, llama.sites.kinds, lambda *_: None),
        "record": lambda: record(llama, llama.sites.kinds),
        "edit": lambda: edit(llama, {kind: lambda v, _: v + 1 for kind in (*EDITABLE, "pattern")}),
    }
    with pytest.raises(ZeroDivisionError), contexts[how]():
        assert hooks_of(llama) != before
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), torch.no_grad(), watch(llama, "resid_post", refuse):
        llama.body(input_ids=IDS, use_cache=False)
    assert hooks_of(llama) == before
    assert llama.hf.config._attn_implementation == "sdpa"
    assert llama.editing == 0
    llama.body(input_ids=IDS, use_cache=False)
    assert len(calls) >= 2
    for handle in theirs:
        handle.remove()


def test_ours_see_what_the_users_hooks_changed(llama: LensModel) -> None:
    handle = llama.blocks[0].register_forward_hook(lambda _m, _a, out: torch.as_tensor(out) + 1)
    with torch.no_grad(), record(llama, ["L0.resid_post", "L1.resid_pre"]) as seen:
        llama.body(input_ids=IDS, use_cache=False)
    handle.remove()
    assert torch.equal(seen["L0.resid_post"], seen["L1.resid_pre"])


def test_edits_nest_and_add_up(llama: LensModel) -> None:
    with edit(llama, {"L0.resid_post": bump(3, 1.0)}), edit(llama, {"L0.resid_post": bump(3, 2.0)}):
        twice = logits(llama, IDS)
    with edit(llama, {"L0.resid_post": bump(3, 3.0)}):
        once = logits(llama, IDS)
    torch.testing.assert_close(twice, once, atol=1e-5, rtol=1e-5)


def test_what_changed_nothing_is_reported(llama: LensModel) -> None:
    with pytest.warns(NothingChanged, match=r"edit at L0.z, L1.z changed nothing"), edit(llama, {"z": lambda v, _: v}):
        logits(llama, IDS)
    with pytest.warns(NothingChanged, match="the site was not computed"), edit(llama, {"L1.z": lambda v, _: v + 1}):
        pass
    with pytest.raises(SiteError, match="changed nothing"), edit(llama, {"z": lambda v, _: v * 1}, idle="raise"):
        logits(llama, IDS)
    with warnings.catch_warnings(), edit(llama, {"z": lambda v, _: v}, idle="ignore"):
        assert torch.equal(logits(llama, IDS), logits(llama, IDS))


@pytest.mark.parametrize(
    ("edits", "options", "sentence"),
    [
        (
            {"L0.z": lambda v, _: v[:1]},
            {},
            r"The edit at L0.z returned \(1, 20, 4, 8\); it must return .* \(2, 20, 4, 8\)",
        ),
        ({"L0.z": lambda _v, _c: None}, {}, "returned NoneType"),
        ({"L0.z": lambda v, _: v}, {"idle": "no"}, "choose warn, raise or ignore"),
    ],
)
def test_an_edit_that_cannot_be_says_why(llama: LensModel, edits: Any, options: Any, sentence: str) -> None:
    with pytest.raises(SiteError, match=sentence), edit(llama, edits, **options):
        logits(llama, IDS)


def test_gradients_flow_through_edits(llama: LensModel) -> None:
    """Attribution patching needs them."""
    shift = torch.zeros(32, requires_grad=True)
    with edit(llama, {"L0.resid_mid": lambda v, _: v + shift}, idle="ignore"):
        llama.hf(input_ids=IDS, use_cache=False).logits.sum().backward()
    assert shift.grad is not None
    numeric = []
    for amount in (1e-2, -1e-2):
        with edit(llama, {"L0.resid_mid": lambda v, _, a=amount: v + a * nn.functional.one_hot(torch.tensor(3), 32)}):
            numeric.append(logits(llama, IDS).double().sum())
    assert float(shift.grad[3]) == pytest.approx(float(numeric[0] - numeric[1]) / 2e-2, rel=0.05, abs=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_under_left_padding_are_joined(family: str) -> None:
    model = tiny_model(family, check=False)
    mask = torch.ones_like(IDS)
    mask[0, :8] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), record(model, "resid_post") as whole:
        model.body(input_ids=IDS, attention_mask=mask, position_ids=places, use_cache=False)
    cache, at = DynamicCache(config=model.hf.config), 0
    with torch.no_grad(), record(model, "resid_post") as seen, following(model) as cursor:
        for size in (5, 10, 5):
            part = slice(at, at + size)
            model.body(
                input_ids=IDS[:, part], attention_mask=mask[:, : at + size], position_ids=places[:, part],
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            at += size
            assert cursor.positions[0].tolist() == (mask[0].cumsum(0) - 1)[part].where(mask[0, part] == 1, -1).tolist()
    for site, value in whole.items():
        torch.testing.assert_close(seen[site][mask == 1], value[mask == 1], atol=1e-4, rtol=1e-4)


def test_a_positional_mask_counts_too(llama: LensModel) -> None:
    mask = torch.tensor([[0, 0, 1, 1]])
    with torch.no_grad(), following(llama) as cursor:
        llama.body(IDS[:1, :4], mask)
    assert cursor.positions.tolist() == [[-1, -1, 0, 1]]


@pytest.mark.parametrize("outer", [True, False])
def test_resid_mid_is_right_whatever_is_edited_before_it(llama: LensModel, outer: bool) -> None:
    """Nested in either order: a recording, or an edit, of resid_mid and an edit of the block's input."""
    shift = torch.linspace(-5, 5, 32)
    first, second = (
        edit(llama, {"L1.resid_pre": lambda v, _: v + shift}),
        record(llama, ["L1.resid_mid", "L1.attn_out"]),
    )
    with torch.no_grad(), record(llama, "L0.resid_post") as before:
        if outer:
            with first, second as seen:
                llama.body(input_ids=IDS, use_cache=False)
        else:
            with second as seen, first:
                llama.body(input_ids=IDS, use_cache=False)
    torch.testing.assert_close(
        seen["L1.resid_mid"], before["L0.resid_post"] + shift + seen["L1.attn_out"], atol=1e-5, rtol=1e-5
    )
    zero, moved = (
        edit(llama, {"L1.resid_mid": lambda v, _: v * 0}),
        edit(llama, {"L1.resid_pre": lambda v, _: v + shift}),
    )
    with torch.no_grad(), zero if outer else moved, moved if outer else zero, record(llama, "L1.resid_mid") as seen:
        llama.body(input_ids=IDS, use_cache=False)
    assert seen["L1.resid_mid"].abs().max() < 1e-5


def test_one_site_is_edited_once(llama: LensModel) -> None:
    with pytest.raises(SiteError, match="L0.z is named twice"), edit(llama, {"z": bump(1), "L0.z": bump(2)}):
        pass
