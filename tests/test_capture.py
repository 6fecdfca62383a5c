"""Capture against a hand-written hook, one text at a time; batching, resuming and the store never change a value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens import capturing
from affectlens.capturing import capture, encode, plan_batches
from affectlens.errors import CaptureError, StoreError
from affectlens.hooks import watch
from affectlens.model import LensModel
from affectlens.paths import cache_dir
from affectlens.positions import ending_start
from affectlens.store import Activations
from affectlens.testing import FAMILIES, tiny_model
from affectlens.texts import TextList

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


def test_mean_leaves_out_the_first_token_with_and_without_bos() -> None:
    for bos in (False, True):
        model = tiny_model("llama", bos=bos, check=False)
        (item,) = encode(model, TextList(["abc"]).frame(), ("mean",))
        assert item.weights[0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3] if bos else [0, 0.5, 0.5])


def test_an_items_own_ending_is_used(llama: LensModel) -> None:
    frame = TextList(["One. Two and three."]).frame()
    given = frame.assign(ending=[9])
    default, own = (encode(llama, f, ("ending",))[0].weights[0] for f in (frame, given))
    assert np.flatnonzero(default).tolist() == list(range(5, 19))
    assert np.flatnonzero(own).tolist() == list(range(9, 19))


def test_no_head_and_no_hook_left(llama: LensModel) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the language-model head ran")

    handle = llama.hf.lm_head.register_forward_hook(refuse)
    before = [list(block._forward_hooks) for block in llama.blocks]
    try:
        capture(llama, TEXTS, cache=False)
    finally:
        handle.remove()
    assert [list(block._forward_hooks) for block in llama.blocks] == before


def test_hooks_are_gone_after_an_error_and_the_users_stay(llama: LensModel) -> None:
    theirs = llama.blocks[0].register_forward_hook(lambda *_: None)
    before = list(llama.blocks[0]._forward_hooks)
    with pytest.raises(RuntimeError), watch(llama.blocks, lambda *_: None):
        raise RuntimeError
    assert theirs.id in before
    assert list(llama.blocks[0]._forward_hooks) == before
    theirs.remove()


def test_plan_holds_every_row_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 90, 200).tolist()
    plan = plan_batches(lengths, 500)
    assert sorted(row for batch in plan for row in batch) == list(range(200))
    assert all(len(batch) == 1 or len(batch) * max(lengths[r] for r in batch) <= 500 for batch in plan)


def test_a_stopped_capture_goes_on_where_it_was(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = capture(llama, TEXTS, token_budget=60, cache=False)
    real = capturing.run_batch
    ran: list[int] = []

    def counted(model: LensModel, batch: Any) -> Any:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(len(batch))
        return real(model, batch)

    monkeypatch.setattr(capturing, "run_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        capture(llama, TEXTS, token_budget=60)
    total = len(plan_batches([len(e.ids) for e in encode(llama, TextList(TEXTS).frame(), ("mean",))], 60))

    def rest(model: LensModel, batch: Any) -> Any:
        ran.append(len(batch))
        return real(model, batch)

    monkeypatch.setattr(capturing, "run_batch", rest)
    resumed = capture(llama, TEXTS, token_budget=60)
    assert len(ran) == total > 2
    for position in whole.positions:
        assert resumed.at(position).tobytes() == whole.at(position).tobytes()
    assert not list((cache_dir() / "partial").iterdir())


def kept_folder() -> Path:
    (folder,) = (cache_dir() / "activations").iterdir()
    return folder


def test_the_second_time_comes_from_the_store(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = capture(llama, TEXTS)
    monkeypatch.setattr(capturing, "run_batch", None)
    again = capture(llama, TEXTS)
    assert again.at("mean").tobytes() == first.at("mean").tobytes()
    assert again.items["text"].tolist() == TEXTS


def test_another_model_text_or_position_is_another_address(llama: LensModel) -> None:
    capture(llama, TEXTS)
    capture(llama, TEXTS[:4])
    capture(llama, TEXTS, positions="last")
    capture(tiny_model("llama", seed=1, check=False), TEXTS)
    assert len(list((cache_dir() / "activations").iterdir())) == 4


@pytest.mark.parametrize("name", ["activations.safetensors", "items.parquet", "manifest.json"])
def test_a_damaged_file_is_noticed_and_computed_again(
    llama: LensModel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = capture(llama, TEXTS)
    path = kept_folder() / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    if name != "manifest.json":
        with pytest.raises(StoreError, match="is damaged: remove .* and capture again"):
            Activations.load(path.parent)
    ran: list[int] = []
    real = capturing.run_batch

    def counted(model: LensModel, batch: Any) -> Any:
        ran.append(len(batch))
        return real(model, batch)

    monkeypatch.setattr(capturing, "run_batch", counted)
    again = capture(llama, TEXTS)
    assert ran or name == "manifest.json"  # one flipped bit of the manifest may leave it readable and true
    assert again.at("mean").tobytes() == first.at("mean").tobytes()
    assert again.items["text"].tolist() == TEXTS


def test_two_processes_at_once_do_not_disturb_each_other(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one finishes, and clears up, while ours is in the middle."""
    real, state = capturing.run_batch, {"nested": False}

    def interrupted(model: LensModel, batch: Any) -> Any:
        if not state["nested"]:
            state["nested"] = True
            capture(model, TEXTS, token_budget=60)
        return real(model, batch)

    monkeypatch.setattr(capturing, "run_batch", interrupted)
    ours = capture(llama, TEXTS, token_budget=60)
    monkeypatch.setattr(capturing, "run_batch", real)
    assert ours.at().tobytes() == capture(llama, TEXTS, cache=False, token_budget=60).at().tobytes()


def test_the_store_gives_back_todays_names(llama: LensModel) -> None:
    from affectlens.texts import TextList

    capture(llama, TextList(TEXTS, name="old"))
    assert capture(llama, TextList(TEXTS, name="new")).battery == "new"


def test_save_and_load(llama: LensModel, tmp_path: Path) -> None:
    acts = capture(llama, TEXTS, cache=False)
    acts.save(tmp_path / "acts")
    loaded = Activations.load(tmp_path / "acts")
    assert repr(loaded) == repr(acts)
    assert loaded.at("ending").tobytes() == acts.at("ending").tobytes()
    with pytest.raises(StoreError, match="exists already"):
        acts.save(tmp_path / "acts")
    with pytest.raises(StoreError, match="holds no readable activations"):
        Activations.load(tmp_path)


@pytest.mark.parametrize(
    ("texts", "options", "sentence"),
    [
        ([], {}, "has no items: there is nothing to capture"),
        (["ok", ""], {}, "Item 't1' has no tokens"),
        (["x" * 2000], {}, "Item 't0' has 2000 tokens and the context .* holds 1024"),
        (["ok"], {"positions": "middle"}, r"Positions \['middle'\] are not known; choose from mean, last, ending"),
        (["ok"], {"positions": ()}, "are not known"),
        ("one text", {}, "put a single text into a list"),
    ],
)
def test_what_cannot_be_captured(llama: LensModel, texts: list[str], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CaptureError, match=sentence):
        capture(llama, texts, **options)


def test_a_position_that_was_not_captured_says_how(llama: LensModel) -> None:
    with pytest.raises(CaptureError, match=r"only mean: capture again with positions=\['mean', 'last'\]"):
        capture(llama, ["ok"], positions="mean", cache=False).at("last")
