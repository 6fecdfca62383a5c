"""The server over a real socket: replies are the library's own, whoever else asks; limits hold; slots come back."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import openai
import pytest

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering import write
from affectlens.steering.serving import Settings, served
from tests.serving_parts import (
    HI,
    NAME,
    Scripted,
    Site,
    Slow,
    moods_of,
    raw_post,
    said_by,
    site,
    soon,
    streamed,
    talking_model,
)

LONG: dict[str, Any] = {"doses": {"joy": 1.5, "fear": -1.2}, "schedule": "decay(4)", "positions": "response",
                        "operator": "add", "layers": [0, 1], "conflict": "orthogonal", "raw": False}  # fmt: skip


@pytest.fixture(scope="module")
def lens() -> LensModel:
    return talking_model()


@pytest.fixture(scope="module")
def tiny(lens: LensModel) -> Iterator[Site]:
    with site(lens) as one:
        yield one


@pytest.fixture(scope="module")
def slow(lens: LensModel) -> Iterator[Site]:
    """Two at a time, one waits, 10 ms a token."""
    with site(lens, runner=Slow(lens, 2), queue=1, timeout=30.0) as one:
        yield one


def alone(model: LensModel, prompt: Any, **how: Any) -> str:
    if how.get("doses"):
        how["directions"] = moods_of(model)
    return write(model, [prompt], progress=False, **how)[0]


# ------------------------------------------------------------------------------------------------ replies


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("luck", [{"temperature": 0.0}, {"temperature": 0.9, "top_p": 0.8, "seed": 5}], ids=str)
def test_a_reply_is_what_write_gives(tiny: Site, lens: LensModel, streaming: bool, luck: dict[str, Any]) -> None:
    client, doses = tiny.client(), {"joy": 2.0, "fear": -1.5}
    talk: Any = [{"role": "system", "content": "Be kind."}, *HI]
    own: dict[str, Any] = {"model": NAME, "max_tokens": 24, "extra_body": {"emotion": doses}, **luck}
    whole = {"max_new_tokens": 24, "doses": doses, **luck}
    if not streaming:
        reply = client.chat.completions.create(messages=talk, **own)
        text = client.completions.create(prompt="The door", **own)
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage is not None
        assert (reply.usage.completion_tokens, reply.usage.total_tokens) == (24, reply.usage.prompt_tokens + 24)
        found = [str(reply.choices[0].message.content), text.choices[0].text]
    else:
        chunks = list(
            client.chat.completions.create(messages=talk, stream=True, stream_options={"include_usage": True}, **own)
        )
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [c.usage is not None for c in chunks] == [False] * (len(chunks) - 1) + [True]
        assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
        texts = client.completions.create(prompt="The door", stream=True, **own)
        found = ["".join(c.choices[0].delta.content or "" for c in chunks[:-1]),
                 "".join(c.choices[0].text for c in texts)]  # fmt: skip
    assert found == [alone(lens, talk, **whole), alone(lens, "The door", chat=False, **whole)]
    assert found[0] != alone(lens, talk, **whole | {"doses": None})


def test_tokens_parts_and_the_long_form_are_understood(tiny: Site, lens: LensModel) -> None:
    ids = lens.tokenizer("The door")["input_ids"]
    how = {"max_new_tokens": 16, **LONG}
    expected = alone(lens, "The door", chat=False, **how)
    for prompt in ("The door", ["The door"], ids, [ids]):
        reply = tiny.post("/v1/completions", prompt=prompt, max_tokens=16, emotion=LONG).json()
        assert reply["choices"][0]["text"] == expected
    parts = [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}], "name": "A"}]
    reply = tiny.post(messages=parts, max_tokens=..., max_completion_tokens=16, emotion=LONG).json()
    assert reply["choices"][0]["message"]["content"] == alone(lens, "hi", **how)
    assert reply["emotion"]["doses"] == LONG["doses"]
    assert "joy dose +1.5: add, +0.750 of the norm" in reply["emotion"]["plan"]


@pytest.mark.parametrize("more", [{"gate": "anger>50"}, {"loop": "joy<75"}, {"operator": "project_out"}], ids=str)
def test_gates_loops_and_operators_are_the_librarys(tiny: Site, lens: LensModel, more: dict[str, str]) -> None:
    how: dict[str, Any] = {"doses": {"joy": 1.0}, **more}
    reply = tiny.post(max_tokens=20, emotion=how).json()
    assert reply["choices"][0]["message"]["content"] == alone(lens, "hi", max_new_tokens=20, **how)
    assert next(iter(more.values())).partition("<")[0].partition(">")[0] in reply["emotion"]["plan"]


def test_32_clients_with_doses_of_their_own_get_what_each_gets_alone(tiny: Site, lens: LensModel) -> None:
    asked = [
        {"emotion": {"joy": 0.3 * i - 4, "fear": 2 - 0.2 * i}, "temperature": 0.7 * (i % 4 > 0),
         "seed": i % 16, "max_tokens": 8 + i}
        for i in range(32)
    ]  # fmt: skip
    together = threading.Barrier(32)

    def ask(body: dict[str, Any]) -> str:
        together.wait()
        return str(tiny.post(**body).json()["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, asked))
    expected = [
        alone(
            lens, "hi", doses=a["emotion"], max_new_tokens=a["max_tokens"], temperature=a["temperature"], seed=a["seed"]
        )
        for a in asked
    ]
    assert found == expected
    assert len({text[:8] for text in found}) > 16, "the doses write different texts"


def test_no_dose_is_the_plain_model_and_defaults_can_be_taken_back(tiny: Site, lens: LensModel) -> None:
    plain = alone(lens, "hi", max_new_tokens=12)
    asked: list[Any] = [{}, None, {"joy": 0}, {"doses": {}}]
    for emotion in asked:
        reply = tiny.post(max_tokens=12, emotion=emotion).json()
        assert reply["choices"][0]["message"]["content"] == plain
        assert (reply["emotion"] is None) == (emotion != {"joy": 0})
    assert "Every dose is 0" in tiny.post(emotion={"joy": 0}).json()["emotion"]["plan"]
    with site(lens, doses={"joy": 3.0}) as other:
        replies = [other.post(max_tokens=12, emotion=e).json()["choices"][0]["message"]["content"]
                   for e in (..., {"positions": "response"}, {}, {"fear": 2.0})]  # fmt: skip
    doses: list[dict[str, Any]] = [
        {"doses": {"joy": 3.0}},
        {"doses": {"joy": 3.0}, "positions": "response"},
        {},
        {"doses": {"fear": 2.0}},
    ]
    assert replies == [alone(lens, "hi", max_new_tokens=12, **how) for how in doses]
    assert len(set(replies)) > 2


def test_stop_texts_end_a_reply_and_are_not_in_it(lens: LensModel) -> None:
    with site(lens, runner=Scripted(lens, "one two three four")) as one:
        for stop, rest in ((" three", "one two"), (["x", "two"], "one "), ("zz", "one two three four")):
            reply = one.post(stop=stop, max_tokens=100).json()["choices"][0]
            assert (reply["message"]["content"], reply["finish_reason"]) == (rest, "stop")
            pieces = one.client().completions.create(model=NAME, prompt="x", stop=stop, stream=True, max_tokens=100)
            assert "".join(piece.choices[0].text for piece in pieces) == rest


def test_signs_are_never_broken_in_pieces(lens: LensModel) -> None:
    text = "héllo 🙂 wörld 漢字 e\u0301 👩‍👩‍👧"
    assert len(lens.tokenizer(text)["input_ids"]) > len(text), "signs take several tokens"
    with site(lens, runner=Scripted(lens, text)) as one:
        stream = one.stream(max_tokens=200)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > 10


def test_models_are_listed(tiny: Site) -> None:
    client = tiny.client()
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).object == "model"
    with pytest.raises(openai.NotFoundError, match="only 'tiny'"):
        client.models.retrieve("gpt/4")
    assert "joy" in tiny.get("/").text
    assert tiny.get("/healthz").text == "ok"


# ------------------------------------------------------------------------------------------------ refusals

SHORT = "x" * 3
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"emotion": {"hope": 1}}, "emotion", "There is no direction of 'hope'; there are joy"),
    ({"emotion": {"trust": 1}}, "emotion", "No safe dose of trust is known"),
    ({"emotion": {"joy": 1, "ecstasy": 1}}, "emotion", "named twice"),
    ({"emotion": {"joy": "0.6"}}, "emotion.joy", "must be a valid number"),
    ({"emotion": {"joy": True}}, "emotion.joy", "must be a valid number"),
    ({"emotion": {"joy": 10**400}}, "emotion.joy", "number"),
    ({"emotion": ["joy"]}, "emotion", 'write {"joy": 0.6}'),
    ({"emotion": "joy"}, "emotion", 'write {"joy": 0.6}'),
    ({"emotion": {f"e{i}": 1 for i in range(200)}}, "emotion", "at most 100"),
    ({"emotion": {"schedule": "decay(3)"}}, "emotion", "no doses are given"),
    ({"emotion": {"doses": {"joy": 1}, "shedule": "decay(3)"}}, "emotion", "'shedule' is not known"),
    ({"emotion": {"doses": {"joy": 1}, "schedule": "dekay"}}, "emotion", "schedule='dekay' is not known"),
    ({"emotion": {"doses": {"joy": 1}, "schedule": 3}}, "emotion.schedule", "valid string"),
    ({"emotion": {"doses": {"joy": 1}, "layers": [7]}}, "emotion", "joy has no direction at layers [7]"),
    ({"emotion": {"doses": {"joy": 1}, "gate": "nonsense"}}, "emotion", "nonsense"),
    ({"emotion": {"doses": {"joy": 1}, "gate": "fear>50"}}, "emotion", "fear"),
    ({"emotion": {"doses": {"joy": 1}, "gate": "probe:joy>0"}}, "emotion", "probes"),
    ({"emotion": {"doses": {"joy": 1}, "operator": "clamp(90)"}, "n": 2}, "n", "n other than 1"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "not supported here"),
    ({"presence_penalty": 0.5}, "presence_penalty", "not supported here"),
    ({"tools": [{}]}, "tools", "not supported here"),
    ({"response_format": {"type": "json_object"}}, "response_format", "other than {'type': 'text'}"),
    ({"logprobs": True}, "logprobs", "not supported here"),
    ({"emotions": {"joy": 1}}, "emotions", "not known here"),
    ({"top_k": 5}, "top_k", "not known here"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "belong to stream=true"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 5000}, "max_tokens", "this server writes at most 1024"),
    ({"max_tokens": 1024}, "max_tokens", "the context of tiny holds 1024"),
    ({"max_completion_tokens": 7}, "max_tokens", "differ"),
    ({"temperature": 3}, "temperature", "less than or equal to 2"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"stop": list("abcde")}, "stop", "5 items, and from 1 to 4"),
    ({"stop": ""}, "stop", "1 to 1000 characters"),
    ({"seed": 1.5}, "seed", "valid integer"),
    ({"messages": ...}, "messages", "missing"),
    ({"messages": []}, "messages", "0 items"),
    ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role", "must be 'system'"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type", "'text'"),
    ({"messages": [*HI, {"role": "assistant", "content": "x"}]}, "messages", "end with the user's"),
    ({"messages": [{"role": "user", "content": "x" * 1100}]}, "messages", "1118 tokens, and the context holds 1024"),
    ({"messages": [{"role": "user", "content": "x" * 9000}]}, "messages", "9000 characters, and the context holds"),
    ({"messages": [{"role": "user", "content": "x" * 1500}]}, "messages", "1500 tokens, and the context holds 1024"),
    ({"prompt": "x"}, "prompt", "not known here"),
    ({"model": 3}, "model", "valid string"),
]  # fmt: skip
REFUSED_TEXTS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ["a", "b"]}, "2 prompts"), ({"prompt": [1, 999]}, "Token 999"), ({"prompt": [-1]}, "Token -1"),
    ({"prompt": []}, "write a text"), ({"prompt": [[]]}, "write a text"), ({"prompt": {"a": 1}}, "write a text"),
    ({"prompt": [1.5]}, "write a text"), ({"prompt": [True]}, "write a text"), ({"prompt": ""}, "no tokens"),
    ({"prompt": ...}, "it is missing"), ({"echo": True}, "echo is not supported"),
    ({"best_of": 3}, "best_of other than 1"),
    ({"logprobs": 0}, "logprobs is not supported"), ({"n": 0}, "n other than 1"),
    ({"prompt": [5] * 1025}, "1025 tokens"), ({"suffix": "x"}, "suffix is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param", "sentence"), REFUSED, ids=lambda x: str(x)[:50])
def test_what_cannot_be_is_a_sentence(tiny: Site, body: dict[str, Any], param: str, sentence: str) -> None:
    response = tiny.post(**body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert sentence in error["message"]
    assert "Traceback" not in response.text


@pytest.mark.parametrize(("body", "sentence"), REFUSED_TEXTS, ids=lambda x: str(x)[:50])
def test_what_cannot_be_gone_on_with_is_a_sentence(tiny: Site, body: dict[str, Any], sentence: str) -> None:
    response = tiny.post("/v1/completions", **body)
    assert (response.status_code, sentence in response.json()["error"]["message"]) == (400, True), response.text


def test_what_changes_nothing_is_ignored(tiny: Site) -> None:
    same = tiny.post(user="me", metadata={"a": "b"}, store=False, n=1, logit_bias={}, presence_penalty=0, tools=None,
                     response_format={"type": "text"}, logprobs=False, parallel_tool_calls=True)  # fmt: skip
    assert same.status_code == 200
    assert same.json()["choices"] == tiny.post().json()["choices"]
    blank: dict[str, Any] = dict.fromkeys(("n", "best_of", "logprobs", "seed", "stop", "stream", "response_format"))
    assert tiny.post("/v1/completions", temperature=0, **blank).status_code == 200


def test_bodies_that_are_no_requests(tiny: Site) -> None:
    def sent(body: bytes, kind: str = "application/json") -> httpx.Response:
        return httpx.post(tiny.url + "/v1/completions", content=body, headers={"content-type": kind})

    for body, sentence in (
        (b"{", "The body is not JSON: "), (b"[" * 100_000, "can't be read as JSON"), (b"\xff\xff", "can't be read"),
        (b"9" * 5000, "can't be read"), (b"[]", "must be a JSON object"), (b"", "must be a JSON object"),
        (b"3", "must be a JSON object"), (b'{"model": "\\ud800", "prompt": "x"}', "There is no model"),
        (b'{"model": "tiny", "prompt": "\\ud800"}', "half a character"),
    ):  # fmt: skip
        response = sent(body)
        assert response.status_code in (400, 404)
        assert sentence in response.json()["error"]["message"]
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "text/plain; application/json",
    ):
        other = sent(b'{"model": "tiny", "prompt": "x"}', kind)
        assert other.status_code == 415
        assert "Content-Type: application/json" in other.json()["error"]["message"]
    bare = httpx.post(tiny.url + "/v1/completions", content=b'{"model": "tiny", "prompt": "x"}')
    assert ("content-type" in bare.request.headers, bare.status_code) == (False, 415)
    assert sent(b'{"model": "tiny", "prompt": "x"}', "Application/JSON; charset=utf-8").status_code == 200
    missing = tiny.get("/v1/nowhere")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert tiny.get("/v1/completions").status_code == 405
    wrong = tiny.post(model="gpt-4")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "model_not_found")
    with pytest.raises(openai.NotFoundError, match="only 'tiny'"):
        tiny.client().completions.create(model="gpt-4", prompt="x")


def test_wrong_emotions_among_right_ones(tiny: Site) -> None:
    bodies: list[dict[str, Any]] = [{"emotion": {"joy": 1.0}}, {"emotion": {"hope": 1}}, {"emotion": {"joy": 1e30}}] * 8
    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda body: tiny.post(max_tokens=12, **body), bodies))
    good = {r.json()["choices"][0]["message"]["content"] for r in found[::3]}
    assert len(good) == 1
    assert good == {tiny.post(max_tokens=12, emotion={"joy": 1.0}).json()["choices"][0]["message"]["content"]}
    assert {r.status_code for r in found[1::3]} == {400}
    assert {r.status_code for r in found[2::3]} <= {200, 400}
    assert tiny.load.active == 0


# ------------------------------------------------------------------------------------------------ who may ask


def test_a_token_is_asked_for(lens: LensModel) -> None:
    with site(lens, token="s3cret") as one:
        foreign = {"Authorization": "Bearer s3cre\xe9".encode("latin-1")}
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}, foreign):
            for path in ("/v1/models", "/metrics", "/", "/openapi.json", "/nowhere"):
                response = httpx.get(one.url + path, headers=header)  # type: ignore[arg-type]
                assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
                assert response.json()["error"]["code"] == "invalid_api_key"
        assert one.get("/healthz").status_code == 200
        assert one.get("/metrics", authorization="Bearer s3cret").status_code == 200
        with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
            one.client(api_key="s3cre").models.list()
        reply = one.client(api_key="s3cret").completions.create(model=NAME, prompt="x", max_tokens=2)
        assert reply.choices[0].finish_reason == "length"
        assert "s3cret" not in repr(one.service.settings)


def test_others_are_let_in_only_with_a_token(lens: LensModel) -> None:
    everywhere = served(lens, directions=moods_of(lens), host="0.0.0.0")
    with pytest.raises(SteerError, match="Others can reach 0"), everywhere:
        pass
    with served(lens, directions=moods_of(lens), settings=Settings(NAME)) as url:
        assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == NAME
        assert httpx.get(f"{url.replace('127.0.0.1', 'localhost')}/healthz").status_code == 200
        bad = httpx.get(f"{url}/v1/models", headers={"host": "evil.example:8000"})
        assert (bad.status_code, "its own machine" in bad.json()["error"]["message"]) == (403, True)
        port = int(url.rpartition(":")[2])
        with (
            pytest.raises(SteerError, match="choose another --port"),
            served(lens, directions=moods_of(lens), port=port),
        ):
            pass


def test_web_pages_are_let_in_only_if_named(tiny: Site, lens: LensModel) -> None:
    ask = {"origin": "https://a.example", "access-control-request-method": "POST"}
    assert httpx.options(f"{tiny.url}/v1/completions", headers=ask).status_code == 405
    assert "access-control-allow-origin" not in tiny.get("/v1/models", origin="https://a.example").headers
    with site(lens, origin="https://a.example", token="t") as one:
        official = {
            "access-control-request-headers": "authorization,content-type,x-stainless-os,x-stainless-retry-count"
        }
        assert httpx.options(f"{one.url}/v1/completions", headers=ask | official).status_code == 200
        allowed = one.get("/v1/models", origin="https://a.example").headers
        assert allowed["access-control-allow-origin"] == "https://a.example"
        assert allowed["access-control-expose-headers"] == "retry-after"
        assert "access-control-allow-origin" not in one.get("/v1/models", origin="https://b.example").headers


# ------------------------------------------------------------------------------------------------ limits


def test_a_body_too_large_is_refused_as_it_comes(lens: LensModel) -> None:
    with site(lens, max_body=20_000) as one:
        big = "x" * 30_000
        stated = one.post("/v1/completions", prompt=big)
        assert (stated.status_code, stated.json()["error"]["code"]) == (413, "request_too_large")
        with pytest.raises(openai.APIStatusError, match="larger than 20000 bytes") as refused:
            one.client().completions.create(model=NAME, prompt=big)
        assert refused.value.status_code == 413
        chunked = httpx.post(f"{one.url}/v1/completions", content=(b"x" * 1000 for _ in range(40)),
                             headers={"content-type": "application/json"})  # fmt: skip
        assert chunked.status_code == 413
        sent = 0
        with socket.create_connection(one.place) as line:  # a body without an end
            line.settimeout(10)
            line.sendall(raw_post(b"", "Transfer-Encoding: chunked"))
            with pytest.raises(ConnectionError):
                for _ in range(100_000):
                    line.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
                    sent += 1000
        assert sent < 100_000_000
        lengths = ("99999999999999999999", "-1", "1e3", "x")
        for length in lengths:
            with socket.create_connection(one.place) as line:
                line.sendall(raw_post(b"", f"Content-Length: {length}"))
                assert said_by(line)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413")
        assert one.post().status_code == 200


def test_what_never_comes_is_not_waited_for(lens: LensModel) -> None:
    with site(lens, body_patience=0.3, head_patience=0.4) as one:
        for first, answer in (
            (b"", b""), (b"POST /v1/comp", b""), (raw_post(b'{"mo', "Content-Length: 50"), b"HTTP/1.1 408"),
            (raw_post(b"5\r\nab", "Transfer-Encoding: chunked"), b"HTTP/1.1 408"),
        ):  # fmt: skip
            with socket.create_connection(one.place) as line:
                line.settimeout(10)
                start = time.monotonic()
                line.sendall(first)
                assert said_by(line)[: len(answer) or 1] == answer
                assert time.monotonic() - start < 5
        with httpx.Client() as client:  # a connection that is kept, and used again later than a head may take
            for pause in (0.6, 0):
                assert client.get(f"{one.url}/healthz").status_code == 200
                time.sleep(pause)


def test_garbage_is_answered_and_forgotten(tiny: Site, capfd: pytest.CaptureFixture[str]) -> None:
    for junk in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
                 b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                 raw_post(b"zz\r\nxx", "Transfer-Encoding: chunked"),
                 raw_post(b'{"a', "Content-Length: 2", "Content-Length: 3"),
                 raw_post(b"{}GARBAGE\r\n\r\n\r\n", "Content-Length: 2")):  # fmt: skip
        with socket.create_connection(tiny.place) as line:
            line.settimeout(10)
            line.sendall(junk)
            line.shutdown(socket.SHUT_WR)
            assert said_by(line)[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 404"), junk
    assert tiny.post().status_code == 200
    assert capfd.readouterr().err == ""


def test_a_full_queue_says_so_at_once(slow: Site) -> None:
    def ask(_: int) -> int:
        return slow.post(max_tokens=200).status_code

    with ThreadPoolExecutor(8) as pool:
        running = []
        for seats in ((1, 0), (2, 0), (2, 1)):
            running.append(pool.submit(ask, 0))
            assert soon(partial(_seated, slow, *seats))
        with pytest.raises(openai.RateLimitError) as refused:
            slow.stream(max_tokens=5)
        assert refused.value.response.headers["retry-after"] == "1"
        assert refused.value.code == "queue_full"
        assert list(pool.map(ask, range(5))) == [429] * 5
        assert [one.result() for one in running] == [200] * 3
    assert slow.load.active == slow.load.waiting == 0


def test_a_reply_that_takes_too_long_is_cut(lens: LensModel) -> None:
    with site(lens, runner=Slow(lens, 1), timeout=0.5) as one:
        late = one.post(max_tokens=900)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        stream = one.stream(max_tokens=900)
        with pytest.raises(openai.APIError, match=r"longer than 0\.5 s"):
            for chunk in stream:
                assert chunk.choices[0].finish_reason is None
        assert soon(lambda: one.load.active == 0)
        assert one.metric("replies_total", reason="timeout") == 2


# ------------------------------------------------------------------------------------------------ clients that leave


def _seated(one: Site, active: int, waiting: int) -> bool:
    load = one.load
    return (load.active, load.waiting) == (active, waiting)


def test_whoever_leaves_frees_a_slot(slow: Site) -> None:
    stream = slow.stream(max_tokens=900)
    next(iter(stream))
    assert soon(lambda: slow.load.active == 1)
    stream.close()
    assert soon(lambda: slow.load.active == 0, 2)
    for asked in ({"max_tokens": 900}, {"max_tokens": 900, "stream": True}):
        lines = []
        for seats in ((1, 0), (2, 0), (2, 1)):  # two are written, one waits
            lines.append(socket.create_connection(slow.place))
            lines[-1].sendall(streamed(**{"stream": False} | asked))
            assert soon(partial(_seated, slow, *seats))
        lines.pop().close()
        lines.pop(0).close()
        assert soon(lambda: slow.load.active + slow.load.waiting == 1, 2)
        lines.pop().close()
        assert soon(lambda: slow.load.active + slow.load.waiting == 0, 2)
    assert slow.service.running == set()


def test_a_client_that_does_not_read_holds_nobody_up(lens: LensModel) -> None:
    name = "long" * 500  # makes pieces that no buffer takes all of
    with site(lens, runner=Slow(lens, 2), timeout=6.0, send_buffer=4096, name=name) as one:
        one.service.engine.runner.pause = 0.0  # type: ignore[attr-defined]
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            line.connect(one.place)
            line.sendall(streamed(max_tokens=400, model=name))
            assert soon(lambda: one.load.active == 1)
            quick = one.post(max_tokens=8)
            assert quick.status_code == 200
            assert soon(lambda: one.load.active == 0, 20), "the engine ends a reply that nobody reads"
            assert one.service.running, "and its text still waits for the client"
            assert soon(lambda: not one.service.running, 10), "but not for ever"
            line.settimeout(10)
            assert b"[DONE]" not in said_by(line)


# ------------------------------------------------------------------------------------------------ the end


def test_a_stop_ends_what_runs_and_takes_nothing_new(lens: LensModel) -> None:
    with ThreadPoolExecutor(2) as pool, site(lens, runner=Slow(lens, 2)) as one:
        running = pool.submit(lambda: one.post(max_tokens=100))
        stream = one.stream(max_tokens=100)
        assert soon(lambda: one.load.active == 2)
        one.host.begin_stop()
        health, new = one.get("/healthz"), one.post()
        assert (health.status_code, health.text) == (503, "stopping")
        assert (new.status_code, new.json()["error"]["code"]) == (503, "stopping")
        assert new.headers["retry-after"] == "10"
        assert running.result().json()["usage"]["completion_tokens"] == 100
        assert [c.choices[0].finish_reason for c in stream][-1] == "length"
    with pytest.raises(httpx.ConnectError):
        one.get("/healthz")


def test_a_stop_waits_no_longer_than_it_may(lens: LensModel, capfd: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as pool, site(lens, runner=Slow(lens, 2), drain=0.3) as one:
        running = pool.submit(lambda: one.post(max_tokens=900))
        stream = one.stream(max_tokens=900)
        with socket.create_connection(one.place) as half:
            half.sendall(raw_post(b'{"mo', "Content-Length: 50"))
            assert soon(lambda: one.load.active == 2)
            start = time.monotonic()
            one.host.begin_stop()
            assert (running.result().status_code, running.result().json()["error"]["code"]) == (503, "stopping")
            with pytest.raises(openai.APIError, match="stopped before the reply was over"):
                list(stream)
            assert time.monotonic() - start < 3
    assert time.monotonic() - start < 10
    assert capfd.readouterr().err == ""


def test_what_is_counted(lens: LensModel) -> None:
    with site(lens) as one:
        first = one.post(max_tokens=6, emotion={"joy": 1.0, "fear": 0}).json()
        one.post(max_tokens=5, stream=True)
        one.post(emotion={"hope": 1})
        one.get("/some/where")
        text = one.get("/metrics").text
        place = "/v1/chat/completions"
        assert one.metric("requests_total", endpoint=place, status="200") == 2
        assert one.metric("requests_total", endpoint=place, status="400") == 1
        assert one.metric("requests_total", endpoint="other", status="404") == 1
        assert one.metric("written_tokens_total") == 11
        assert one.metric("prompt_tokens_total") == 2 * first["usage"]["prompt_tokens"]
        assert (
            one.metric("steered_requests_total", emotion="joy"),
            one.metric("steered_requests_total", emotion="fear"),
        ) == (1, 0)
        assert one.metric("first_token_seconds_count") == one.metric("token_seconds_count") == 2
        assert one.metric("active_requests") == 0
    assert 'affectlens_steered_requests_total{emotion="joy"} 1.0' in text
