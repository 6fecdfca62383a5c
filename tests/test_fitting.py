"""The prompt of a conversation that must fit, the same for a chat and for the replies of a study."""

from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from affectlens.errors import CaptureError, SteerError
from affectlens.generating import Decoding
from affectlens.layouts import Layout, Message, lay_out
from affectlens.model import LensModel, load_model
from affectlens.quiet import quiet_transformers
from affectlens.steering import starting
from affectlens.steering.directions import Direction, Directions
from affectlens.steering.dynamics import replying
from affectlens.steering.dynamics.replying import Asked, EngineWriter, fitting
from affectlens.steering.ends import without_end
from affectlens.steering.engines.engine import Engine
from affectlens.steering.engines.request import End, Request
from affectlens.steering.engines.together import Together
from affectlens.steering.fitting import fit, prompt_of
from affectlens.steering.writing import write
from affectlens.testing import tiny_hf, tiny_tokenizer
from affectlens.texts import as_table

TEMPLATE = (
    "{% for m in messages %}{% if 'no!' in m.content %}{{ raise_exception('not that') }}{% endif %}"
    "<{{ m.role }}>{{ m.content.split('</think>')[-1] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LensModel:
    home = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    with quiet_transformers():
        tiny_hf("llama").save_pretrained(home)
    tokenizer.save_pretrained(home)
    return load_model(str(home))


@pytest.fixture
def engine(tiny: LensModel) -> Iterator[Engine]:
    with Engine(Together(tiny, slots=2)) as made:
        yield made


def pair(line: str, reply: str) -> list[Message]:
    return [{"role": "user", "content": line}, {"role": "assistant", "content": reply}]


def laid_out(model: LensModel, talk: list[Message]) -> Layout:
    return lay_out(model, as_table([talk]).frame(), chat=True)[0]


def test_prompts_are_those_of_lay_out(tiny: LensModel) -> None:
    talk = [*pair("one", "two"), *pair("three", "four")][:-1]
    prompt, whole = prompt_of(tiny, talk), laid_out(tiny, talk)
    assert (prompt.ids, prompt.text, prompt.spans) == (whole.ids, whole.text, whole.spans)


def test_rewritten_messages_are_no_matter(tiny: LensModel) -> None:
    """lay_out can't tell them apart; as a prompt they are what they are without the thought."""
    talk = [*pair("one", "<think>hm</think>two"), *pair("three", "")][:-1]
    with pytest.raises(CaptureError, match="rewrites the messages"):
        laid_out(tiny, talk)
    assert prompt_of(tiny, talk).ids == laid_out(tiny, [*pair("one", "two"), *pair("three", "")][:-1]).ids
    ids, dropped = fitting(tiny, [("one", "<think>hm</think>two"), ("three", "")], 8)
    assert (list(ids), dropped) == (prompt_of(tiny, talk).ids, 0)


def test_only_length_leaves_exchanges_out(tiny: LensModel) -> None:
    """A template's refusal is said, and no reason to forget what it refuses."""
    with pytest.raises(CaptureError, match="refuses these messages .*not that"):
        fitting(tiny, [("no!", "ok"), ("hi", "")], 8)
    assert fitting(tiny, [("yes", "ok"), ("hi", "")], 8)[1] == 0
    with pytest.raises(CaptureError, match="half a character"):
        prompt_of(tiny, [{"role": "user", "content": "\udc80"}])


def test_the_first_cut_that_fits(tiny: LensModel) -> None:
    before = [pair("a" * 20, "b" * 20) for _ in range(4)]
    sizes = [len(prompt_of(tiny, [*(m for one in before[n:] for m in one), *pair("hi", "")[:1]])) for n in range(5)]
    for n, size in enumerate(sizes):
        assert fit(tiny, before, "hi", most=7, n_ctx=size + 7)[1] == n
        if n < 4:
            assert fit(tiny, before, "hi", most=7, n_ctx=size + 6)[1] == n + 1
    with pytest.raises(CaptureError, match=rf"has {sizes[4]} tokens, and with 7 more .*--engine torch has it for 1024"):
        fit(tiny, before, "hi", most=7, n_ctx=sizes[4] + 6)
    with pytest.raises(CaptureError, match=r"into the context of .*: shorten it, or say less\."):
        fit(tiny, [], "x" * tiny.n_ctx, most=7, n_ctx=2 * tiny.n_ctx, advice="say less")


def test_replies_for_who_waits(tiny: LensModel, engine: Engine) -> None:
    """They are those of write, and no patience ends them; what can't be is said before anything waits."""
    prompt = prompt_of(tiny, pair("hi", "")[:1])
    ids = starting.written(engine, prompt, Decoding(8), None)
    assert tiny.tokenizer.decode(ids, skip_special_tokens=True) == write(tiny, ["hi"], max_new_tokens=8)[0]
    assert starting.wanted(engine, prompt, Decoding(8), None).patience == float("inf")
    seen: list[Request] = []

    def refuse(request: Request) -> None:
        seen.append(request)
        raise SteerError("Not here.")

    small: Any = SimpleNamespace(runner=SimpleNamespace(check=refuse))
    with pytest.raises(SteerError, match="Not here"):
        starting.wanted(small, prompt, Decoding(8), None)
    assert len(seen) == 1


def test_an_end_token_is_no_word(tiny: LensModel) -> None:
    end = tiny.tokenizer.eos_token_id
    assert without_end(tiny, [5, end]) == [5]
    assert without_end(tiny, [end, 5]) == [end, 5]
    assert without_end(tiny, []) == []


@pytest.mark.parametrize("how", ["interrupt", "timeout", "error"])
def test_what_ends_a_study_frees_its_replies(tiny: LensModel, how: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[int] = []
    asked: list[Request] = []

    class Held:
        """Takes requests, and ends the second only."""

        def submit(self, request: Request, tell: Any) -> Any:
            asked.append(request)
            if len(asked) == 2 and how != "interrupt":
                tell(End(how, 0, "It failed." if how == "error" else ""))
            return SimpleNamespace(cancel=partial(gone.append, len(asked)))

    class Stopped(SimpleQueue[Any]):
        def get(self, *_how: Any, **_more: Any) -> Any:
            raise KeyboardInterrupt

    if how == "interrupt":
        monkeypatch.setattr(replying, "SimpleQueue", Stopped)
    held: Any = Held()
    unused = Directions([Direction("joy", "L0.resid_post", np.eye(tiny.d_model, dtype=np.float32)[0], 5.0, "random",
                                    tiny.name, tiny.fingerprint)])  # fmt: skip
    write_all = EngineWriter(tiny, held, unused, Decoding(4))
    sentence = {"interrupt": None, "timeout": "ended by timeout", "error": "It failed"}[how]
    with pytest.raises(KeyboardInterrupt if how == "interrupt" else SteerError, match=sentence):
        write_all([Asked(((line, ""),), {}, 0) for line in ("a", "b", "c")])
    assert sorted(gone) == ([1, 2, 3] if how == "interrupt" else [1, 3])
    assert {request.patience for request in asked} == {float("inf")}
