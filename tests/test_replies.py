"""Capture while the model writes equals capture of the written text, shifted by one: cached equals uncached."""

from typing import Any

import numpy as np
import pytest
import torch

from affectlens import replies
from affectlens.capturing import capture
from affectlens.errors import CaptureError
from affectlens.hooks import edit, record
from affectlens.model import LensModel
from affectlens.replies import capture_replies
from affectlens.testing import FAMILIES, tiny_model

PROMPTS = ["The post came", "A", "Three boats lay at the quay, and a fourth was", "She said 'Wait.' and"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_each_step_equals_a_pass_over_the_whole_text(family: str, budget: int) -> None:
    model = tiny_model(family, check=False)
    sites = [kind for kind in model.sites.kinds if kind != "pattern"]
    acts = capture_replies(
        model,
        PROMPTS,
        max_new_tokens=6,
        sites=sites,
        positions=("all", "mean", "last", "mean_from(2)"),
        token_budget=budget,
    )
    assert acts.items["n_new"].between(1, 6).all()
    for row, prompt in enumerate(PROMPTS):
        before = model.tokenizer(prompt).input_ids
        new = acts.ids[acts.offsets[row] : acts.offsets[row + 1]].tolist()
        with torch.no_grad(), record(model, sites) as seen:
            logits = model.hf(input_ids=torch.tensor([before + new]), use_cache=False).logits[0]
        states = slice(len(before) - 1, len(before) + len(new) - 1)
        assert logits[states].argmax(-1).tolist() == new  # greedy, and the rows are those that chose the tokens
        for site, value in seen.items():
            expected = value[0, states].numpy()
            np.testing.assert_allclose(acts.item(row, site=site.kind)[:, site.layer], expected, atol=1e-4, rtol=1e-4)
            np.testing.assert_allclose(acts[site, "mean"][row], expected.mean(0), atol=1e-4, rtol=1e-4)
            np.testing.assert_allclose(acts[site, "last"][row], expected[-1], atol=1e-4, rtol=1e-4)
            if len(new) > 2:
                np.testing.assert_allclose(acts[site, "mean_from(2)"][row], expected[2:].mean(0), atol=1e-4, rtol=1e-4)


def test_the_reply_ends_with_the_end_token(llama: LensModel) -> None:
    plain = capture_replies(llama, PROMPTS, max_new_tokens=8, positions="all")
    end = int(plain.ids[plain.offsets[2] + 3])
    before = llama.hf.generation_config.eos_token_id
    llama.hf.generation_config.eos_token_id = end
    try:
        ended = capture_replies(llama, PROMPTS, max_new_tokens=8, positions="all")
    finally:
        llama.hf.generation_config.eos_token_id = before
    for row in range(len(PROMPTS)):
        whole = plain.ids[plain.offsets[row] : plain.offsets[row + 1]].tolist()
        expected = whole[: whole.index(end) + 1] if end in whole else whole
        assert ended.ids[ended.offsets[row] : ended.offsets[row + 1]].tolist() == expected
    assert ended.items["n_new"][2] <= 4


def test_an_edit_is_in_what_is_read(llama: LensModel) -> None:
    ramp = 5 * torch.linspace(-1, 1, 32)
    with edit(llama, {"L0.resid_post": lambda v, _: v + ramp}):
        edited = capture_replies(llama, PROMPTS, max_new_tokens=4, positions="all")
    plain = capture_replies(llama, PROMPTS, max_new_tokens=4, positions="all")
    assert not np.array_equal(edited.ids, plain.ids)
    first = edited.offsets[:-1]
    np.testing.assert_allclose(
        edited["L0.resid_post"][first] - plain["L0.resid_post"][first], np.tile(ramp, (4, 1)), atol=1e-4
    )


def test_sampling_follows_its_seed_and_leaves_the_global_one(llama: LensModel) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    runs = [
        capture_replies(llama, PROMPTS, temperature=1.0, seed=s, max_new_tokens=8).items["reply"].tolist()
        for s in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(torch.rand(2), expected)


def test_a_conversation_is_answered(llama: LensModel) -> None:
    model = tiny_model("llama", check=False)
    model.tokenizer.chat_template = "{% for m in messages %}[{{ m.content }}]{% endfor %}>"
    chat = capture_replies(model, ["Who?"], chat=True, max_new_tokens=5)
    text = capture_replies(model, ["[Who?]>"], max_new_tokens=5)
    np.testing.assert_allclose(chat.at("mean"), text.at("mean"), atol=1e-5)
    assert capture(model, ["[Who?]>"], positions="last", cache=False).at().shape == chat.at("last").shape


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens of 1 or more"),
        ({"temperature": -1.0}, "temperature of 0 or more"),
        ({"positions": "ending"}, "Of a reply there are mean, mean_from, last, all, not ending"),
        (
            {"positions": "mean_from(3)", "max_new_tokens": 3},
            r"mean_from\(3\) begins after the longest reply, which has 3",
        ),
        ({"sites": "pattern"}, "A pattern grows with each step"),
        ({"max_new_tokens": 1020}, "Item 't2' has 45 tokens, and 1020 more do not fit into the context"),
    ],
)
def test_what_cannot_be_captured(llama: LensModel, options: Any, sentence: str) -> None:
    with pytest.raises(CaptureError, match=sentence):
        capture_replies(llama, PROMPTS, **options)


def test_the_models_own_generation_settings_do_not_enter() -> None:
    model = tiny_model("llama", check=False)
    plain = capture_replies(model, PROMPTS, max_new_tokens=8, positions="all")
    model.hf.generation_config.repetition_penalty = 5.0
    model.hf.generation_config.num_beams = 3
    own = model.hf.generation_config
    again = capture_replies(model, PROMPTS, max_new_tokens=8, positions="all")
    assert model.hf.generation_config is own
    np.testing.assert_array_equal(again.ids, plain.ids)
    np.testing.assert_array_equal(again.at(), plain.at())


def test_a_reply_that_ends_too_early_has_nan(llama: LensModel) -> None:
    plain = capture_replies(llama, PROMPTS, max_new_tokens=8, positions="all")
    end = int(plain.ids[plain.offsets[2] + 1])
    own = llama.hf.generation_config.eos_token_id
    llama.hf.generation_config.eos_token_id = end
    try:
        ended = capture_replies(llama, PROMPTS, max_new_tokens=8, positions=("mean", "mean_from(5)"))
    finally:
        llama.hf.generation_config.eos_token_id = own
    short = (ended.items["n_new"] <= 5).to_numpy()
    assert short[2]
    np.testing.assert_array_equal(np.isnan(ended.at("mean_from(5)")).any((1, 2)), short)
    assert np.isfinite(ended.at("mean")).all()


def test_replies_are_written_in_halves_where_memory_runs_out(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = capture_replies(llama, PROMPTS, max_new_tokens=6, positions=("all", "mean"), token_budget=9999)
    real, sizes = replies._write, []

    def limited(model: LensModel, batch: Any, *rest: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return real(model, batch, *rest)

    monkeypatch.setattr(replies, "_write", limited)
    halves = capture_replies(llama, PROMPTS, max_new_tokens=6, positions=("all", "mean"), token_budget=9999)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    np.testing.assert_array_equal(halves.ids, whole.ids)
    np.testing.assert_allclose(halves.at("all"), whole.at("all"), atol=1e-4)
