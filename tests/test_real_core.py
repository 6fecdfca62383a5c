"""Sites, positions, capture, replies on the embedded default: real weights, with the attention sinks tiny ones lack."""

import numpy as np
import pytest
import torch

from affectlens.capturing import capture
from affectlens.check import difference
from affectlens.hooks import edit, record
from affectlens.layouts import lay_out
from affectlens.model import LensModel
from affectlens.positions import Position
from affectlens.replies import capture_replies
from affectlens.sites import Site
from affectlens.stimuli import load_battery
from affectlens.texts import TextList
from tests.test_sites import TL, by_hand

pytestmark = pytest.mark.real
TEXTS = [item.text for item in load_battery("starter").where(split="vignettes")][:5]


def test_every_site_equals_transformer_lens_and_a_hand_written_hook(smol: LensModel) -> None:
    ids = smol.tokenizer(TEXTS[0], return_tensors="pt").input_ids
    kinds = smol.sites.kinds
    assert len(kinds) == 11
    with torch.no_grad():
        with record(smol, kinds) as seen:
            smol.body(input_ids=ids, use_cache=False)
        _, cache = smol.bridge.run_with_cache(ids)
    assert len(seen) == 11 * 30
    for site, value in seen.items():
        theirs = cache[f"blocks.{site.layer}.{TL[site.kind]}"].reshape(value.shape)
        assert difference(value, theirs) < 1e-4, site
    for layer in (0, 11, 29):
        for kind, expected in by_hand(smol, "llama", layer, ids).items():
            assert difference(seen[Site(kind, layer)].reshape(expected.shape), expected) < 1e-4, (kind, layer)


def test_batches_and_early_stop_change_nothing_at_any_site(smol: LensModel) -> None:
    """Relative to each vector's own norm: a sink token's is a hundred times that of the others."""
    kinds = [kind for kind in smol.sites.kinds if kind != "pattern"]
    together = capture(smol, TEXTS, sites=kinds, positions=("mean", "last"), cache=False)
    alone = capture(smol, TEXTS, sites=kinds, positions=("mean", "last"), token_budget=1, cache=False)
    early = capture(smol, TEXTS, sites="L9.z", positions=("mean", "last"), cache=False)
    for kind in kinds:
        for position in ("mean", "last"):
            a, b = together.at(position, kind), alone.at(position, kind)
            axes = tuple(range(2, a.ndim))
            off = np.sqrt(((a - b) ** 2).sum(axes) / (b**2).sum(axes))
            assert off.max() < 1e-4, (kind, position, off.max())
    np.testing.assert_allclose(early["L9.z"], together["L9.z"], rtol=1e-4, atol=1e-5)


def test_replies_step_by_step_equal_a_pass_over_the_whole(smol: LensModel) -> None:
    prompts = ["The capital of France is", "Once, in a small town by the sea, there lived"]
    acts = capture_replies(smol, prompts, max_new_tokens=12, positions="all")
    assert "Paris" in acts.items["reply"][0]
    for row, prompt in enumerate(prompts):
        before = smol.tokenizer(prompt).input_ids
        new = acts.ids[acts.offsets[row] : acts.offsets[row + 1]].tolist()
        with torch.no_grad(), record(smol, "resid_post") as seen:
            smol.body(input_ids=torch.tensor([before + new]), use_cache=False)
        states = slice(len(before) - 1, len(before) + len(new) - 1)
        for site, value in seen.items():
            assert difference(torch.from_numpy(acts.item(row)[:, site.layer]), value[0, states]) < 1e-4


def test_a_conversation_in_the_models_own_template(smol: LensModel) -> None:
    talk = [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "hi"},
            {"role": "user", "content": "Thanks for that. Go on."}]  # fmt: skip
    (one,) = lay_out(smol, TextList([talk]).frame())

    def words(rule: str) -> str:
        chosen = Position.parse(rule).mask(one)
        return str(smol.tokenizer.decode([token for token, yes in zip(one.ids, chosen, strict=True) if yes]))

    assert words("turn(1)") == "hi"
    assert words("role(user)") == "Say hi.Thanks for that. Go on."
    assert words("ending").strip() == "Go on."
    assert one.text.endswith("<|im_start|>assistant\n")
    assert words("template_end") == "\n"
    own = smol.tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert one.ids == own


def test_an_edit_at_one_layer_is_what_the_next_reads_and_moves_the_answer(smol: LensModel) -> None:
    ids = smol.tokenizer("The capital of France is", return_tensors="pt").input_ids
    other = smol.tokenizer("The capital of Italy is", return_tensors="pt").input_ids
    assert ids.shape == other.shape
    with torch.no_grad(), record(smol, "L20.resid_post") as clean:
        smol.body(input_ids=other, use_cache=False)
    with torch.no_grad(), edit(smol, {"L20.resid_post": lambda _v, _c: clean["L20.resid_post"]}, idle="raise"):
        moved = smol.hf(input_ids=ids, use_cache=False).logits[0, -1]
    with torch.no_grad():
        there = smol.hf(input_ids=other, use_cache=False).logits[0, -1]
        here = smol.hf(input_ids=ids, use_cache=False).logits[0, -1]
    assert difference(moved, there) < 1e-4
    assert difference(moved, here) > 1e-2
