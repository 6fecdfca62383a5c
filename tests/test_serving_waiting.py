"""Before the queue and behind it: long prompts hold up nobody else, and what fails is answered as it should be."""

import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from affectlens.model import LensModel
from affectlens.steering.engines.request import Request
from affectlens.steering.serving.answering import Answer
from affectlens.steering.serving.prompting import Prompts
from affectlens.steering.serving.refusals import Refusal
from affectlens.steering.serving.schemas import ChatAsked, TextAsked
from affectlens.steering.serving.waiting import Patience
from tests.serving_parts import HI, NAME, Site, Slow, site, soon, streamed, talking_model

LONG = "x" * 5000  # characters: more than four for each token of the context


@pytest.fixture(scope="module")
def lens() -> LensModel:
    return talking_model()


def hold(one: Site, patch: pytest.MonkeyPatch) -> threading.Event:
    """Long prompts take until the event is set."""
    go = threading.Event()

    def chat(*_: Any) -> tuple[int, ...]:
        go.wait(30)
        return (1, 2, 3)

    patch.setattr(one.service.preparing.long[0], "chat", chat)
    return go


def test_long_prompts_hold_up_only_each_other(lens: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = [{"role": "user", "content": LONG}]
    with ThreadPoolExecutor(2) as pool, site(lens, runner=Slow(lens, 1), queue=2) as one:
        go, prepared = hold(one, monkeypatch), one.service.prepared
        asked = [pool.submit(one.post, messages=talk) for _ in range(2)]
        assert soon(lambda: len(prepared) == 2)
        assert one.post().status_code == 200, "a short one goes on its way"
        with socket.create_connection(one.place) as third:
            third.sendall(streamed(messages=talk))
            assert soon(lambda: len(prepared) == 3)
            refused = one.post()
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert soon(lambda: len(prepared) == 2), "whoever leaves is no longer waited for"
        assert one.post().status_code == 200
        go.set()
        assert [each.result().status_code for each in asked] == [200, 200]
        assert not prepared
        assert one.load.active == one.load.waiting == 0


def test_patience_begins_before_the_prompt_is_laid_out(lens: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with site(lens, timeout=1.0) as one:
        go, taken, submit = hold(one, monkeypatch), list[Request](), one.service.engine.submit

        def submitted(request: Request, *more: Any) -> Any:
            taken.append(request)
            return submit(request, *more)

        monkeypatch.setattr(one.service.engine, "submit", submitted)
        start = time.monotonic()
        late = one.post(messages=[{"role": "user", "content": LONG}])
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        assert 0.9 < time.monotonic() - start < 5
        assert not taken
        go.set()
        short, chat = one.service.preparing.short[0], one.service.preparing.short[0].chat

        def slowly(*given: Any) -> Any:
            time.sleep(0.4)
            return chat(*given)

        monkeypatch.setattr(short, "chat", slowly)
        assert one.post().status_code == 200
        assert 0 < taken[0].patience < 0.65


def test_what_fits_is_never_refused_by_its_size(lens: LensModel) -> None:
    prompts = Prompts(lens, 1024)
    longest = max(lens.tokenizer.get_vocab(), key=len)

    def ids(text: str, patience: float = 60.0) -> tuple[int, ...]:
        return prompts.text(TextAsked(model=NAME, prompt=text), Patience(patience))

    for text in ("x" * 1024, longest * 1024):
        assert ids(text) == tuple(lens.tokenizer(text)["input_ids"])
        assert len(ids(text)) == 1024
    for text, sentence in (("x" * 1025, "1025 tokens"), ("x" * 1_000_000, "1000000 characters")):
        with pytest.raises(Refusal, match=sentence) as refused:
            ids(text)
        assert refused.value.code == "context_length_exceeded"
    with pytest.raises(Refusal, match="took longer than 0 s"):
        ids("x" * 1100, 0.0)
    apart = prompts.apart()
    assert apart.model.tokenizer is not lens.tokenizer
    assert apart.model.hf is lens.hf


class Held:
    """A tokenizer that says when it is called, and goes on when it is told."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.called, self.go = tokenizer, threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, *given: Any, **how: Any) -> Any:
        self.called.set()
        assert self.go.wait(10)
        return self.tokenizer(*given, **how)


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_prompts_that_are_laid_out_at_a_time_leave_standard_error_where_it_was(lens: LensModel, kind: str) -> None:
    """Turning it away while a tokenizer works puts another thread's stream back, for good."""
    asked = (
        ChatAsked.model_validate({"model": NAME, "messages": HI})
        if kind == "chat"
        else TextAsked(model=NAME, prompt="hi")
    )
    both, before = [Prompts(lens, 1024).apart() for _ in range(2)], sys.stderr
    with ThreadPoolExecutor(2) as pool:
        held, running = [Held(one.model.tokenizer) for one in both], []
        for one, tokenizer in zip(both, held, strict=True):
            one.model.tokenizer = tokenizer
            running.append(pool.submit(getattr(one, kind), asked, Patience(60.0)))
            assert tokenizer.called.wait(10)
        for tokenizer, run in zip(held, running, strict=True):
            tokenizer.go.set()
            assert run.result(10)
    assert sys.stderr is before


def test_a_template_that_leaves_thoughts_out_is_served(lens: LensModel) -> None:
    """As a prompt its tokens are enough, wherever the messages went."""
    prompts = Prompts(lens, 1024).apart()
    prompts.model.tokenizer.chat_template = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"

    def ids(reply: str) -> tuple[int, ...]:
        talk = [*HI, {"role": "assistant", "content": reply}, *HI]
        return prompts.chat(ChatAsked.model_validate({"model": NAME, "messages": talk}), Patience(60.0))

    assert ids("<think>hm</think>yes") == ids("yes") != ids("no")


def test_an_engine_that_has_stopped_is_no_health(lens: LensModel) -> None:
    with site(lens) as one:
        assert one.get("/healthz").text == "ok"
        one.service.engine.close()
        health, new = one.get("/healthz"), one.post()
    assert (health.status_code, health.text) == (503, "the engine has stopped")
    assert (new.status_code, new.headers["retry-after"]) == (503, "10")
    assert "takes no more requests" in new.json()["error"]["message"]


def test_a_mistake_of_ours_is_answered_and_counted(
    lens: LensModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret")

    page, place = {"origin": "https://a.example"}, "/v1/chat/completions"
    body = {"model": NAME, "messages": HI, "max_tokens": 50}
    with site(lens, origin="https://a.example") as one:
        with monkeypatch.context() as patch:
            patch.setattr(one.service, "begin", broken)
            response = httpx.post(one.url + place, json=body, headers=page)
        assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
        assert response.headers["access-control-allow-origin"] == "https://a.example"
        assert "secret" not in response.text
        assert "RuntimeError: secret" in caplog.text
        assert one.metric("requests_total", endpoint=place, status="500") == 1
        with monkeypatch.context() as patch, pytest.raises(httpx.RemoteProtocolError):
            patch.setattr(Answer, "piece", broken)  # in the middle of a stream: no end that looks whole
            httpx.post(one.url + place, json=body | {"stream": True})
        assert soon(lambda: one.load.active == 0)
        assert not one.service.running
        assert one.post().status_code == 200
