"""Label log-probabilities against one plain pass a prompt and verbaliser; batches, caches and windows never show."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from affectlens.cursors import Cursor
from affectlens.errors import CaptureError, ModelError
from affectlens.hooks import edit
from affectlens.labels import LabelScores, label_logprobs
from affectlens.layouts import lay_out
from affectlens.model import LensModel
from affectlens.readout import pool_labels, token_logprobs
from affectlens.stimuli import load_battery
from affectlens.testing import FAMILIES, tiny_model
from affectlens.texts import TextList
from affectlens.verbalisers import encode_prompts

LABELS = {"joy": [" joy", " happiness"], "grief": " grief", "other": ["é\n", "."]}
PROMPTS = [
    "The day was long, and",
    "So",
    "She was at the sea when the letter came, and nobody minded it at all. She felt",  # beyond Gemma's window of 16
    "Zoé said: «no»",
    "A boat lay at the quay and its crew, who had not slept since Thursday, looked at the sky without a word.",
]


def by_hand(model: LensModel, prompt: str, verbaliser: str) -> float:
    """One sequence, one forward pass of the plain model, no cache, no padding, float64 from the logits on."""
    start = len(model.tokenizer(prompt).input_ids)
    ids = model.tokenizer(prompt + verbaliser).input_ids
    with torch.no_grad():
        logits = model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    table = logits.log_softmax(-1)
    return float(sum(table[i - 1, ids[i]] for i in range(start, len(ids))))


def agree(
    model: LensModel, prompts: Sequence[str], labels: Mapping[str, str | Sequence[str]], **how: Any
) -> LabelScores:
    scores = label_logprobs(model, prompts, labels, **how)
    expected = np.array([[by_hand(model, p, v) for _, v in scores.verbalisers] for p in prompts])
    np.testing.assert_allclose(scores.by_verbaliser, expected, atol=1e-4)
    for column, label in enumerate(scores.labels):
        mine = [i for i, (owner, _) in enumerate(scores.verbalisers) if owner == label]
        np.testing.assert_allclose(scores.logprobs[:, column], np.log(np.exp(expected[:, mine]).sum(1)), atol=1e-4)
    return scores


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [1, 150, 10_000])
def test_equals_one_plain_pass_a_prompt_and_verbaliser(family: str, budget: int) -> None:
    agree(tiny_model(family, check=False), PROMPTS, LABELS, token_budget=budget)


def test_a_sliding_window_with_lengths_on_both_sides_of_it() -> None:
    model = tiny_model("gemma3", check=False)
    assert model.hf.config.sliding_window == 16
    text = "The mill stood by the lane and the rain had not stopped for a week."
    prompts = [text[:n] for n in (1, 12, 13, 14, 15, 16, 17, 30, 60)]  # with BOS and a long verbaliser: across the edge
    agree(model, prompts, {"long": " and by morning the lane was gone", "short": "x"})


@pytest.mark.parametrize("family", FAMILIES)
def test_order_and_company_change_nothing(family: str) -> None:
    model = tiny_model(family, check=False)
    whole = label_logprobs(model, PROMPTS, LABELS).by_verbaliser
    turned = label_logprobs(model, PROMPTS[::-1], LABELS).by_verbaliser[::-1]
    alone = np.concatenate([label_logprobs(model, [p], LABELS).by_verbaliser for p in PROMPTS])
    few = label_logprobs(model, PROMPTS, {"grief": " grief"}).by_verbaliser
    np.testing.assert_allclose(turned, whole, atol=1e-4)
    np.testing.assert_allclose(alone, whole, atol=1e-4)
    np.testing.assert_allclose(few[:, 0], whole[:, 2], atol=1e-4)


def test_a_single_token_is_the_last_logit(llama: LensModel) -> None:
    scores = label_logprobs(llama, PROMPTS, {"a": "!", "b": "?"})
    for row, prompt in enumerate(PROMPTS):
        ids = llama.tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            logits = llama.hf(input_ids=ids).logits[0, -1]
        wanted = logits[[llama.tokenizer("!").input_ids[0], llama.tokenizer("?").input_ids[0]]]
        np.testing.assert_allclose(scores.logprobs[row], wanted - logits.logsumexp(-1), atol=1e-5)
        assert scores.difference("a", "b")[row] == pytest.approx(float(wanted[0] - wanted[1]), abs=1e-5)


@pytest.mark.parametrize(("labels", "passes"), [({"a": "!", "b": "?"}, 1), ({"a": ["!", " joy"], "b": " woe"}, 3)])
def test_a_prompt_runs_once_and_only_what_is_read_meets_the_head(
    llama: LensModel, labels: dict[str, str | list[str]], passes: int
) -> None:
    body, head = [], []
    handles = [
        llama.body.register_forward_pre_hook(
            lambda _m, _a, kwargs: body.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
        ),
        llama.hf.lm_head.register_forward_hook(lambda _m, args, _o: head.append(tuple(args[0].shape[:2]))),
    ]
    try:
        label_logprobs(llama, ["One two", "Three four five"], labels)
    finally:
        for handle in handles:
            handle.remove()
    assert body == [(2, 15), *[(2, 3)] * (passes - 1)]  # " joy" is four tokens, and the last is not run
    assert head == [(2, 1), *[(2, 3)] * (passes - 1)]


def test_capped_logits_are_read_capped() -> None:
    model = tiny_model("gemma3", check=False)
    free = label_logprobs(model, PROMPTS, LABELS).logprobs
    model.hf.config.final_logit_softcapping = 0.01
    capped = agree(model, PROMPTS, LABELS).logprobs
    assert np.abs(free - capped).max() > 1e-3


def test_half_precision_is_summed_in_float32() -> None:
    model = tiny_model("llama", check=False)
    model.hf.to(torch.bfloat16)
    scores = label_logprobs(model, PROMPTS, LABELS)
    assert scores.logprobs.dtype == np.float32
    # bfloat16 holds 8 bits: sums of about -30 could only be multiples of 0.125
    assert len(np.unique(np.round(scores.by_verbaliser * 8 % 1, 3))) > 5


def test_labels_are_log_sum_exps_and_probabilities_sum_to_one(llama: LensModel) -> None:
    one = label_logprobs(llama, PROMPTS, LABELS)
    split = label_logprobs(llama, PROMPTS, {"joy": " joy", "happiness": " happiness"})
    joined = np.logaddexp(split.at("joy"), split.at("happiness"))
    np.testing.assert_allclose(one.at("joy"), joined, atol=1e-4)
    np.testing.assert_allclose(one.probabilities.sum(1), 1, atol=1e-6)
    odds = np.log(one.probabilities[:, 0] / one.probabilities[:, 1])
    np.testing.assert_allclose(one.difference("joy", "grief"), odds, atol=1e-4)
    np.testing.assert_allclose(one.mass, np.exp(one.logprobs).sum(1), rtol=1e-5)
    assert one.best == [one.labels[i] for i in one.logprobs.argmax(1)]
    assert set(one.best) == {"other"}  # one token against four: length tells here, and it is documented


def test_a_battery_keeps_its_ids_and_the_frame_is_tidy(llama: LensModel) -> None:
    battery = load_battery("starter").where(split="decoys")
    scores = label_logprobs(llama, battery, {"joy": " joy", "fear": [" fear", " dread"]})
    frame = scores.frame()
    assert list(frame.columns) == ["id", "label", "logprob", "probability"]
    assert len(frame) == 2 * len(battery)
    table = frame.pivot(index="id", columns="label", values="logprob").loc[
        [item.id for item in battery], ["joy", "fear"]
    ]
    np.testing.assert_array_equal(table.to_numpy(), scores.logprobs)
    assert "16 items" not in repr(scores)
    assert f"{len(battery)} items, 2 labels, 3 verbalisers" in repr(scores)


def test_a_bos_is_read_once_and_no_eos_comes_between() -> None:
    from tokenizers import processors

    model = tiny_model("gemma3", check=False)
    plain = label_logprobs(model, PROMPTS, LABELS).logprobs
    written = label_logprobs(model, ["<bos>" + prompt for prompt in PROMPTS], LABELS).logprobs
    np.testing.assert_allclose(written, plain, atol=1e-5)
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    assert model.tokenizer("a").input_ids[-1] == 1
    np.testing.assert_allclose(label_logprobs(model, PROMPTS, LABELS).logprobs, plain, atol=1e-5)


def test_a_conversation_is_read_where_the_reply_begins() -> None:
    model = tiny_model("gemma3", check=False)
    model.tokenizer.chat_template = "<bos>{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<a>"
    read = label_logprobs(model, ["It rained."], {"joy": "Joy", "grief": "Grief"}, chat=True).logprobs
    same = label_logprobs(model, ["<user>It rained.\n<a>"], {"joy": "Joy", "grief": "Grief"}).logprobs
    talk = label_logprobs(
        model, [[{"role": "user", "content": "It rained."}]], {"joy": "Joy", "grief": "Grief"}
    ).logprobs
    np.testing.assert_allclose(read, same, atol=1e-5)
    np.testing.assert_allclose(talk, same, atol=1e-5)
    model.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<a>"
    frame = TextList(["It rained."]).frame()
    (prompt,) = encode_prompts(model, frame, ["Joy"], chat=True)
    (layout,) = lay_out(model, frame, chat=True)
    assert list(prompt.ids) == layout.ids  # as captured: this template writes no BOS, so there is none


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({}, "no labels"),
        ({"joy": []}, "'joy' has no verbaliser"),
        ({"joy": [" joy", ""]}, "'joy' has an empty verbaliser"),
        ({"joy": " joy", "grief": [" grief", " joy"]}, "' joy' is given twice, for 'joy' and for 'grief'"),
        ({"joy": [" joy", " joy"]}, "given twice"),
        ({"joy": [" joy", " joyful"]}, "' joy' begins ' joyful'"),
        ({"hope": " hope", "despair": " hopeless"}, "' hope' begins ' hopeless'"),
    ],
)
def test_labels_that_cannot_be_read(llama: LensModel, labels: dict[str, Any], said: str) -> None:
    with pytest.raises(CaptureError, match=said):
        label_logprobs(llama, PROMPTS, labels)


def test_prompts_that_cannot_be_read(llama: LensModel) -> None:
    good = {"joy": " joy"}
    for prompts, said in (
        ("one", "a list of prompts"),
        ([], "nothing to read"),
        (["ok", ""], "'t1' has no tokens"),
        (["a" * 1021], "'t0' has 1024 tokens|1024"),
    ):
        if said.startswith("'t0'"):
            label_logprobs(llama, prompts, good)  # 1,021 and three more fill the context of 1,024
            with pytest.raises(CaptureError, match="'t0' has 1025 tokens with its longest verbaliser"):
                label_logprobs(llama, ["a" * 1022], good)
        else:
            with pytest.raises(CaptureError, match=said):
                label_logprobs(llama, prompts, good)
    with pytest.raises(CaptureError, match="no label 'woe'; these were read: joy"):
        label_logprobs(llama, ["a"], good).at("woe")


def merging(*merges: tuple[str, str], normalizer: Any = None) -> LensModel:
    """A tiny model whose tokenizer merges these symbols (as in BPE; a space is Ġ)."""
    from tokenizers import Tokenizer

    model = tiny_model("llama", check=False)
    state = json.loads(model.tokenizer.backend_tokenizer.to_str())
    symbols = state["model"]["vocab"]
    for spare, pair in zip(("ÿ", "þ"), merges, strict=False):  # bytes that no text here has
        symbols["".join(pair)] = symbols.pop(spare)
    state["model"]["merges"] = [list(pair) for pair in merges]
    core = Tokenizer.from_str(json.dumps(state))
    if normalizer:
        core.normalizer = normalizer
    model.tokenizer._tokenizer = core
    return model


def test_a_prompt_that_the_verbaliser_would_change_is_refused() -> None:
    spaced = merging(("Ġ", "j"))
    assert len(spaced.tokenizer("a joy").input_ids) == 4
    with pytest.raises(CaptureError, match=r"'t1' .*End the prompt without its last space.*\(' joy'\)"):
        label_logprobs(spaced, ["It is", "It is "], {"joy": "joy"})
    agree(spaced, ["It is", "It"], {"joy": " joy"})
    joined = merging(("s", "j"))
    with pytest.raises(CaptureError, match=r"tokenizer joins them. Begin the verbaliser with .*\(' joy'\)"):
        label_logprobs(joined, ["It is"], {"joy": "joy"})


def test_one_token_that_begins_another_word_is_no_double_count() -> None:
    model = merging(
        ("o", "y"), ("oy", "f")
    )  # "joy" is j+oy, "joyf" is j+oyf: disjoint though one string begins the other
    agree(model, PROMPTS, {"joy": [" joy", " joyf"]})


def test_a_verbaliser_that_the_tokenizer_drops_or_makes_equal_is_refused() -> None:
    from tokenizers import normalizers

    with pytest.raises(CaptureError, match="adds no token to prompt 't0'"):
        label_logprobs(merging(normalizer=normalizers.Replace("~", "")), ["a"], {"joy": " joy", "none": "~"})
    with pytest.raises(CaptureError, match="begins"):
        label_logprobs(merging(normalizer=normalizers.Lowercase()), ["a"], {"joy": [" joy", " Joy"]})


def test_tails_may_differ_from_prompt_to_prompt() -> None:
    """After some prompts " joy" has fewer tokens: lengths within a column differ; the padding there never counts."""
    from tokenizers import normalizers

    model = merging(normalizer=normalizers.Replace("m joy", "m j"))
    lengths = [
        len(p.tails[0]) for p in encode_prompts(model, pd.DataFrame({"id": ["a", "b"], "text": ["am", "is"]}), [" joy"])
    ]
    assert lengths == [2, 4]
    agree(model, ["am", "is", "I am", "Here it is"], {"joy": " joy", "one": "!"})


def test_a_model_without_a_cache_reads_single_tokens_only() -> None:
    model = tiny_model("llama", check=False)
    forward = model.hf.forward

    def forgets(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.past_key_values = None
        return out

    model.hf.forward = forgets
    assert label_logprobs(model, PROMPTS, {"a": "!"}).logprobs.shape == (len(PROMPTS), 1)
    with pytest.raises(ModelError, match="no key-value cache"):
        label_logprobs(model, PROMPTS, LABELS)


def test_the_parts_serve_patching_and_let_gradients_through() -> None:
    logits = torch.randn(3, 5, 11, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(0, 11, (3, 5, 4))
    read = token_logprobs(logits, ids)
    expected = logits.log_softmax(-1).gather(-1, ids)
    assert torch.allclose(read.double(), expected, atol=1e-5)
    pooled = pool_labels(read, [1, 0, 1, 0])
    assert torch.allclose(pooled[..., 0], torch.logaddexp(read[..., 1], read[..., 3]))
    (slope,) = torch.autograd.grad((pooled[..., 0] - pooled[..., 1]).sum(), logits)
    assert float(slope.abs().sum()) > 0


@pytest.mark.real
def test_real_weights_agree_and_know_what_a_prize_is_like(smol: LensModel) -> None:
    texts = [item.text + " The feeling here is" for item in load_battery("starter")][:24:8]
    labels = {"joy": [" joy", " happiness"], "surprise": [" astonishment"], "disgust": [" revulsion", " disgust"]}
    scores = agree(smol, [*texts, "I feel"], labels, token_budget=300)
    assert {len(smol.tokenizer(v).input_ids) for _, v in scores.verbalisers} == {1, 2}
    pair = ["She won the prize and hugged everyone. She felt full of", "The dog died in her arms. She felt full of"]
    happy, sad = label_logprobs(smol, pair, {"joy": " joy", "grief": [" grief", " sadness"]}).difference("joy", "grief")
    assert happy > sad + 1


@pytest.mark.real
def test_real_tokens_refuse_a_prompt_that_ends_with_a_space(smol: LensModel) -> None:
    with pytest.raises(CaptureError, match="End the prompt without its last space"):
        label_logprobs(smol, ["She felt "], {"joy": "joy"})


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_under_an_edit_at_an_absolute_position(family: str) -> None:
    """Left padding and the cached continuation don't move the edit."""
    model = tiny_model(family, check=False)

    def bump(value: torch.Tensor, cursor: Cursor) -> torch.Tensor:
        return value + 9 * (cursor.positions == 3)[..., None] * torch.linspace(-1, 1, value.shape[-1])

    with edit(model, {"L0.resid_post": bump}, idle="raise"):
        together = label_logprobs(model, PROMPTS, LABELS)
        alone = [label_logprobs(model, [prompt], LABELS).logprobs[0] for prompt in PROMPTS if len(prompt) > 3]
    rows = [i for i, prompt in enumerate(PROMPTS) if len(prompt) > 3]
    assert len(rows) > 1
    np.testing.assert_allclose(together.logprobs[rows], alone, atol=1e-4)
    assert not np.allclose(together.logprobs[rows], label_logprobs(model, PROMPTS, LABELS).logprobs[rows], atol=1e-3)


def test_a_cue_goes_after_each_text(llama: LensModel) -> None:
    cued = label_logprobs(llama, ["It rained.", "He ran."], LABELS, cue=" So")
    np.testing.assert_array_equal(
        cued.logprobs, label_logprobs(llama, ["It rained. So", "He ran. So"], LABELS).logprobs
    )
    with pytest.raises(CaptureError, match="A cue goes after plain texts"):
        label_logprobs(llama, [[{"role": "user", "content": "x"}]], LABELS, cue=" So")
