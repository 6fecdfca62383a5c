"""A conversation with a steered model: what it is sent, what is shown and kept; a tiny model, planted directions."""

import io
import json
import math
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console

import affectlens.model
from affectlens.cli import main
from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.hooks import watch
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel, load_model
from affectlens.probing.probes import Probes
from affectlens.quiet import quiet_transformers
from affectlens.steering import Direction, Directions, beside
from affectlens.steering.cli import steer
from affectlens.steering.engines.engine import Engine
from affectlens.steering.engines.request import Piece, Request
from affectlens.steering.engines.together import Together
from affectlens.steering.plan import SteeringPlan
from affectlens.steering.talking import launch, writers
from affectlens.steering.talking.asking import completions
from affectlens.steering.talking.chat import Chat
from affectlens.steering.talking.commands import COMMANDS, help_text
from affectlens.steering.talking.drawing import drawn
from affectlens.steering.talking.events import Breaks, Ends, Event, Grows, Says
from affectlens.steering.talking.keeping import as_json
from affectlens.steering.talking.launch import answer
from affectlens.steering.talking.session import Session
from affectlens.steering.talking.showing import Lines, Terminal
from affectlens.steering.talking.summing import read_out
from affectlens.steering.talking.writers import ByEngine, ByModel, Plans
from affectlens.steering.writing import write
from affectlens.testing import tiny_hf, tiny_tokenizer
from affectlens.texts import as_table

Typed = Callable[..., tuple[int, str, str]]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
THOUGHTFUL = """{%- for m in messages %}
{%- set said = m.content %}
{%- if m.role == "assistant" %}{% set said = said.split("</think>")[-1] %}{% endif %}
{{- "<" + m.role + ">" + said + "\n" }}
{%- endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""
TOKENIZER = tiny_tokenizer()
PLAIN = "No dose is set, and replies are plain."


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    with quiet_transformers():
        tiny_hf("llama").save_pretrained(home)
    tokenizer.save_pretrained(home)
    return home


@pytest.fixture(scope="module")
def lens(tiny: Path) -> LensModel:
    return load_model(str(tiny))


@pytest.fixture(scope="module")
def directions(lens: LensModel) -> Directions:
    """Random directions of joy and fear at the first layer."""
    rng = np.random.default_rng(0)

    def one(emotion: str) -> Direction:
        v, nothing = rng.standard_normal(lens.d_model), np.zeros((0, lens.d_model), np.float32)
        return Direction(emotion, "L0.resid_post", (v / np.linalg.norm(v)).astype(np.float32), 5.0, "random",
                         lens.name, lens.fingerprint, fixed=nothing, safe=0.5,
                         levels=np.linspace(-3, 3, 101).astype(np.float32))  # fmt: skip

    return Directions([one("joy"), one("fear")])


@pytest.fixture(scope="module")
def vectors(directions: Directions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directions.save(tmp_path_factory.mktemp("directions") / "tiny.safetensors")


@pytest.fixture
def chat(lens: LensModel, directions: Directions) -> Chat:
    return Chat(lens, doses={"joy": 1.0}, directions=directions, max_new_tokens=8, beside=False)


@pytest.fixture(scope="module")
def probes(lens: LensModel) -> Probes:
    rng = np.random.default_rng(1)
    weights, bias = rng.standard_normal((lens.n_layers, 3, lens.d_model)), rng.standard_normal((lens.n_layers, 3))
    return Probes("category", ("anger", "fear", "joy"), 1, "resid_post", "mean", lens.name, lens.fingerprint, "planted",
                  "b" * 64, {"logistic": weights}, {"logistic": bias})  # fmt: skip


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def model_said(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def heard(session: Session, line: str) -> list[Event]:
    return list(session.hear(line))


def told(session: Session, line: str) -> str:
    return "\n".join(event.text for event in heard(session, line) if isinstance(event, Says))


class Scripted:
    """A writer that says what it was given, and notes what it was asked."""

    n_ctx = 1024

    def __init__(self, *replies: str, breaks: bool = False) -> None:
        self.replies, self.breaks = list(replies), breaks
        self.prompts: list[str] = []
        self.asked: list[tuple[tuple[str, ...], Decoding]] = []
        self.closed = 0

    def check(self, plan: SteeringPlan) -> None:
        """Any plan will do."""

    def stream(self, prompt: Layout, plans: Plans, decoding: Decoding) -> Generator[tuple[str, Piece], None, None]:
        self.prompts.append(prompt.text)
        self.asked.append((tuple(plans), decoding))
        try:
            for name in plans:
                for sign in self.replies[0] if name == "plain" or len(plans) == 1 else self.replies[-1]:
                    yield name, Piece(sign, tuple(TOKENIZER(sign)["input_ids"]))
                if self.breaks:
                    raise KeyboardInterrupt
        finally:
            self.closed += 1


def session_of(chat: Chat, writer: Any) -> Session:
    return Session(chat.session.model, writer, chat.session.settings)


# What the model is sent, and what it writes


def test_the_model_is_asked_with_the_whole_conversation(chat: Chat, lens: LensModel) -> None:
    writer = Scripted(" so it is\n")
    session = session_of(chat, writer)
    for line in ("one ", "//two"):
        heard(session, line)
    talk = [user("one"), model_said("so it is"), user("/two")]
    oracle = [lens.tokenizer.apply_chat_template(talk[:n], tokenize=False, add_generation_prompt=True) for n in (1, 3)]
    assert writer.prompts == oracle
    assert session.messages == [*talk, model_said("so it is")]
    assert [decoding.seed for _, decoding in writer.asked] == [0, 1]


def test_replies_are_those_of_write(chat: Chat, lens: LensModel, directions: Directions) -> None:
    how: dict[str, Any] = {"directions": directions, "max_new_tokens": 8}
    first = chat.say("hi")
    assert first.reply.text == write(lens, ["hi"], doses={"joy": 1.0}, **how)[0]
    chat.do("/fear -0.5")
    chat.do("/temperature 0.9")
    asked = [*first.messages, user("again")]
    (second,) = write(lens, [asked], doses={"joy": 1.0, "fear": -0.5}, temperature=0.9, seed=1, **how)
    assert chat.say("again").reply.text == second


def test_off_is_the_plain_reply_and_on_the_steered_one(chat: Chat, lens: LensModel) -> None:
    steered = chat.say("hi").reply
    assert chat.do("/off") == f"{PLAIN} Set aside: joy +1; /on brings back."
    chat.do("/undo")
    plain = chat.say("hi")
    assert plain.reply.text == write(lens, ["hi"], max_new_tokens=8)[0] != steered.text
    assert (plain.doses, plain.plan) == ({}, "")
    assert "joy dose +1" in chat.do("/on")
    chat.do("/undo")
    assert chat.say("hi").reply.ids == steered.ids
    with pytest.raises(SteerError, match="No doses were set aside"):
        chat.do("/on")


@pytest.mark.parametrize("by_engine", [False, True])
def test_beside_and_readings_are_those_of_beside(
    lens: LensModel, directions: Directions, probes: Probes, by_engine: bool
) -> None:
    with Engine(Together(lens, slots=2)) as engine:
        chat = Chat(lens, doses={"joy": 4.0}, directions=directions, probes=probes, max_new_tokens=8,
                    temperature=0.01, seed=3, engine=engine if by_engine else None)  # fmt: skip
        one = chat.say("hi")
    how: dict[str, Any] = {"directions": directions, "max_new_tokens": 8, "temperature": 0.01, "seed": 3}
    (pair,) = beside(lens, ["hi"], {"joy": 4.0}, probes=probes, **how).pairs
    assert one.plain is not None
    assert one.plain.ids != one.reply.ids
    assert (one.plain.text, one.reply.text) == (pair.plain.text, pair.steered.text)
    assert one.plain.text == write(lens, ["hi"], max_new_tokens=8, temperature=0.01, seed=3)[0]
    assert (one.plain.ids, one.reply.tokens) == (pair.plain.ids, pair.steered.tokens)
    assert one.columns[0].says == "logit of joy of the logistic probe of category at L1.resid_post"
    np.testing.assert_allclose(one.reply.readings[:, 0], pair.steered.anew[:, 0], atol=1e-5)
    np.testing.assert_allclose(one.plain.readings[:, 0], pair.plain.anew[:, 0], atol=1e-5)
    (bare,) = beside(lens, ["hi"], {"joy": 4.0}, **how).pairs
    at = [column.kind for column in one.columns].index("projection")
    np.testing.assert_allclose(one.reply.readings[:, at], bare.steered.anew[:, 0], atol=1e-5)
    weights, bias = probes.weights["logistic"][1], probes.bias["logistic"][1]  # an oracle of our own
    prompt = lay_out(lens, as_table(["hi"]).frame(), chat=True)[0].ids
    seen: list[np.ndarray] = []
    with watch(lens, ["L1.resid_post"], lambda _, value: seen.append(value.detach().numpy())), torch.inference_mode():
        lens.hf(torch.tensor([[*prompt, *one.reply.ids]]))
    logits = (seen[0][0, len(prompt) :] @ weights.T + bias).mean(0)
    share = np.exp(logits) / np.exp(logits).sum()
    assert f"joy {logits[2]:+.2f}, {share[2]:.0%} (plain " in read_out(one)


def test_without_doses_every_direction_is_read(lens: LensModel, directions: Directions) -> None:
    one = Chat(lens, directions=directions, max_new_tokens=4).say("hi")
    assert one.plain is None
    assert [(column.emotion, column.site) for column in one.columns] == [
        ("joy", "L1.resid_post"),
        ("fear", "L1.resid_post"),
    ]
    assert re.fullmatch(
        r"Read anew, projection at L1.resid_post: joy [+-][\d.]+, fear [+-][\d.]+; means over \d tokens\.",
        read_out(one),
    )


# Ctrl-C


def test_a_stopped_reply_stays_and_is_marked(chat: Chat) -> None:
    writer = Scripted("begun", breaks=True)
    session = session_of(chat, writer)
    events = heard(session, "hi")
    assert isinstance(events[-1], Ends)
    assert (session.exchanges[0].text, session.exchanges[0].stopped, session.stopped) == ("begun", True, True)
    assert writer.closed == 1
    assert session.exchanges[0].reply.readings.shape == (5, 1)
    assert "model (joy +1, stopped)> begun" in told(session, "/history")
    assert session_of(chat, Scripted("ok")).messages == []
    heard(session, "more")
    assert "<assistant>begun\n<user>more" in writer.prompts[1]


def test_what_was_stopped_before_a_word_leaves_no_trace(chat: Chat) -> None:
    session = session_of(chat, Scripted("", breaks=True))
    events = heard(session, "hi")
    assert any(isinstance(event, Breaks) for event in events)
    assert events[-1] == Says("Stopped before a word was written: nothing of it is kept.")
    assert session.exchanges == []


def test_an_interrupt_while_a_piece_is_shown_reaches_the_session(chat: Chat) -> None:
    writer = Scripted("abc")
    session, seen = session_of(chat, writer), list[Event]()

    def show(event: Event) -> None:
        seen.append(event)
        if event == Grows("steered", "b"):
            raise KeyboardInterrupt

    assert answer(session, "hi", show)
    assert (session.exchanges[0].text, session.exchanges[0].stopped) == ("ab", True)
    assert isinstance(seen[-1], Ends)
    assert writer.closed == 1
    assert not answer(session, "/history", show)


@pytest.mark.parametrize("by_engine", [False, True])
def test_a_real_writer_stops_when_it_is_no_longer_read(lens: LensModel, chat: Chat, by_engine: bool) -> None:
    with Engine(Together(lens, slots=2)) as engine:
        session = session_of(chat, ByEngine(engine) if by_engine else ByModel(lens))
        session.settings = replace(session.settings, decoding=Decoding(600))
        count = 0

        def show(event: Event) -> None:
            nonlocal count
            count += isinstance(event, Grows)
            if count == 3:
                count += 1
                raise KeyboardInterrupt

        began = time.monotonic()
        assert answer(session, "hi", show)
        assert time.monotonic() - began < 10
        assert 0 < len(session.exchanges[0].reply.ids) < 300
        assert len(session.exchanges[0].reply.readings) == len(session.exchanges[0].reply.ids)
        session.settings = replace(session.settings, decoding=Decoding(4))
        assert isinstance(heard(session, "and on")[-1], Ends)  # the model and the engine are free again


def test_nobody_waits_for_a_reply_that_was_stopped(
    lens: LensModel, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes while no piece does; and the patience of servers is none of a chat's."""

    class Stopped(SimpleQueue[Any]):
        def get(self, *_how: Any, **_more: Any) -> Any:
            raise KeyboardInterrupt

    asked: list[Any] = []
    gone: list[Any] = []

    def submit(request: Any, _tell: object) -> Any:
        asked.append(request)
        return SimpleNamespace(ids=[], cancel=partial(gone.append, request))

    monkeypatch.setattr(writers, "SimpleQueue", Stopped)
    with Engine(Together(lens, slots=2)) as engine:
        monkeypatch.setattr(engine, "submit", submit)
        session = session_of(chat, ByEngine(engine))
        told(session, "/beside on")
        assert told(session, "hi") == "Stopped before a word was written: nothing of it is kept."
    assert gone == asked
    assert [request.patience for request in gone] == [math.inf] * 2


# The context


def test_thoughts_that_a_template_drops_are_no_end_of_the_chat(chat: Chat, lens: LensModel) -> None:
    own = lens.tokenizer.chat_template
    lens.tokenizer.chat_template = THOUGHTFUL
    try:
        writer = Scripted("<think>hm</think>fine")
        session = session_of(chat, writer)
        assert [told(session, line) for line in ("one", "two", "three")] == [""] * 3
    finally:
        lens.tokenizer.chat_template = own
    assert writer.prompts[2] == "<user>one\n<assistant>fine\n<user>two\n<assistant>fine\n<user>three\n<assistant>"
    assert session.messages[1]["content"] == "<think>hm</think>fine"


def test_the_oldest_exchanges_are_left_out_and_said(chat: Chat, lens: LensModel) -> None:
    writer = Scripted("ok")
    session = session_of(chat, writer)
    said = [f"{n}" * 300 for n in range(5)]
    events = [told(session, line) for line in said]
    assert events[:3] == ["", "", ""]
    assert events[3] == "The context of 1024 tokens is full: the oldest exchange is no longer sent; /history keeps all."
    assert "the oldest 2 exchanges are no longer sent" in events[4]
    assert [m["content"] for m in session.messages[::2]] == said
    recent = [*session.messages[4:8], user(said[4])]
    assert writer.prompts[4] == lens.tokenizer.apply_chat_template(recent, tokenize=False, add_generation_prompt=True)
    lines = told(session, "/history").splitlines()
    assert ["no longer sent" in line for line in lines[1::2]] == [True, True, False, False, False]
    assert session.exchanges[4].left_out == 2
    assert len(lens.tokenizer(writer.prompts[4])["input_ids"]) + 8 <= 1024


def test_a_message_that_never_fits_is_refused_and_the_chat_goes_on(chat: Chat) -> None:
    session = chat.session
    heard(session, "hi")
    said = told(session, "x" * 1020)
    assert "has 1038 tokens, and with 8 more" in said
    assert len(session.exchanges) == 1
    assert "\udc80 is half".encode("utf-8", "replace")  # and a broken sign too
    assert "half a character" in told(session, "\udc80 is half")
    assert len(session.exchanges) == 1


# Commands


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_works(chat: Chat, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = chat.session
    heard(session, "hi")
    told(session, "/save saved.json")
    if command.name == "on":
        told(session, "/off")
    rest = "saved.json" if command.file else command.example
    events = heard(session, f"/{command.name.upper()} {rest}")
    assert events
    assert not [event.text for event in events if isinstance(event, Says) and event.wrong]
    assert f"/{command.name} {command.takes}".strip() in help_text()
    assert command.helps in help_text()
    if not command.takes:
        assert "takes nothing after it" in told(session, f"/{command.name} more")
    assert session.over == (command.name == "quit")


def test_commands_change_the_next_reply(chat: Chat) -> None:
    session = session_of(chat, Scripted("ok"))

    def now() -> dict[str, Any]:
        heard(session, "hi")
        one = session.exchanges[-1]
        return {"plan": one.plan, "decoding": one.decoding, "doses": one.doses}

    told(session, "/joy 0.6 /fear -0.2")
    assert now()["doses"] == {"joy": 0.6, "fear": -0.2}
    told(session, "/Joy 0")
    assert now()["doses"] == {"fear": -0.2}
    told(session, "/schedule decay(16)")
    told(session, "/positions response")
    assert "response, decay(16)" in now()["plan"]
    told(session, "/schedule off")
    assert "decay" not in now()["plan"]
    told(session, "/gate fear>90")
    assert "where fear at L0.resid_post above percentile 90" in now()["plan"]
    told(session, "/gate off")
    assert "where" not in now()["plan"]
    for line in ("/temperature 0.7", "/top_p 0.9", "/seed 30", "/tokens 5"):
        told(session, line)
    n = len(session.exchanges)
    assert now()["decoding"] == Decoding(5, 0.7, 0.9, 30 + n)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/hunger 1", "There is no direction of 'hunger'; there are joy, fear."),
        ("/joy much", "The dose of joy is 'much', which is not a number"),
        ("/joy", "/joy is no command, and as an emotion it needs a dose"),
        ("/", "That is no command: /help lists them."),
        ("/joy 1 2", "is no command, and no list of doses"),
        ("/joy 1 /ecstasy 2", "joy is named twice"),
        ("/doses joy", "'joy' is no list of doses"),
        ("/plain", "/plain is no command"),
        ("/beside perhaps", "write /beside on or /beside off"),
        ("/colours green", "choose on, off, joy, fear."),
        ("/gate", "/gate needs more, for example /gate fear>90; it is not set now"),
        ("/gate fear", "fear"),
        ("/gate hunger>3", "hunger"),
        ("/gate probe:joy>0.5", "probe"),
        ("/schedule odd", "schedule='odd' is not known"),
        ("/positions odd", "positions='odd' is not known"),
        ("/temperature hot", "/temperature hot is not a number"),
        ("/temperature nan", "/temperature nan is not a number"),
        ("/temperature -1", "temperature of 0 or more"),
        ("/top_p 2", "top_p above 0"),
        ("/tokens 0", "max_new_tokens of 1 or more"),
        ("/tokens ²", "is not a whole number"),
        ("/seed -1", "/seed -1 is not a whole number"),
        ("/undo", "There is no exchange to drop."),
        ("/retry", "There is no reply to write anew."),
        ("/on", "No doses were set aside"),
        ("/load", "/load needs a file"),
        ("/load nowhere.json", "nowhere.json is not a conversation that /save wrote"),
        ("/save!", "/save! needs the file"),
        ("/save /proc/nowhere/x.json", "/proc/nowhere/x.json can't be written"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_a_sentence_and_changes_nothing(chat: Chat, line: str, sentence: str) -> None:
    session, before = chat.session, chat.session.settings
    (said,) = heard(session, line)
    assert isinstance(said, Says)
    assert said.wrong
    assert sentence in said.text
    assert "\n" not in said.text
    assert session.settings is before
    assert isinstance(heard(session, "hi")[-1], Ends)


def test_gates_are_checked_while_no_dose_is_set(chat: Chat) -> None:
    chat.do("/off")
    assert chat.do("/gate fear>90") == f"{PLAIN} gate fear>90 is kept for later doses."
    with pytest.raises(SteerError, match="hunger"):
        chat.do("/gate hunger>90")
    assert "where fear" in chat.do("/on")


class AddsOnly(Together):
    """As llama.cpp's: gates are beyond it."""

    def check(self, request: Request) -> None:
        super().check(request)
        terms = [] if request.plan is None else [term for each in request.plan.acting.values() for term in each]
        if any(term.gate or term.loop for term in terms):
            raise SteerError("nothing but adding here")


def test_what_an_engine_cannot_do_is_refused_when_it_is_typed(
    lens: LensModel, chat: Chat, directions: Directions, tmp_path: Path
) -> None:
    gated = Chat(lens, directions=directions, gate="fear>90")
    gated.save(tmp_path / "gated.json")
    with Engine(AddsOnly(lens, slots=2)) as engine:
        session = session_of(chat, ByEngine(engine))
        for line in ("/gate fear>90", "/off", "/gate fear>90", f"/load {tmp_path / 'gated.json'}"):
            before = session.settings
            (said,) = heard(session, line)
            assert isinstance(said, Says)
            assert said.wrong is (line != "/off")
            if said.wrong:
                assert said.text == "nothing but adding here"
                assert session.settings is before
        assert isinstance(heard(session, "hi")[-1], Ends)
        with pytest.raises(SteerError, match="nothing but adding here"):
            Chat(lens, directions=directions, engine=engine, gate="fear>90")


def test_a_dose_begun_by_one_word_is_changed_by_the_other(lens: LensModel, directions: Directions) -> None:
    chat = Chat(lens, doses={"ecstasy": 0.2}, directions=directions)
    assert "joy dose +0.2" in chat.do("/fear -0.5")
    assert "joy dose +0.3" in chat.do("/Joy 0.3")
    assert "fear" not in chat.do("/terror 0")
    assert chat.do("/joy 0") == PLAIN


def test_undo_and_retry_keep_what_they_drop(chat: Chat) -> None:
    session = session_of(chat, Scripted("ok"))
    heard(session, "one")
    heard(session, "two")
    assert told(session, "/retry").startswith("It is the same: at temperature 0")
    assert [one.said for one in session.exchanges] == ["one", "two"]
    assert session.exchanges[1].decoding.seed == 2
    told(session, "/temperature 1")
    assert told(session, "/retry") == ""
    assert session.exchanges[1].decoding.seed == 3
    assert told(session, "/undo") == "Dropped: 'two'. 1 left."
    assert [m["content"] for m in as_json(session)["dropped"][::2]] == ["two"] * 3
    session.writer = Scripted("", breaks=True)
    heard(session, "/retry")
    assert [one.text for one in session.exchanges] == ["ok"]  # a retry that is stopped leaves the reply


def test_no_two_replies_share_their_luck(chat: Chat, tmp_path: Path) -> None:
    writer = Scripted("ok")
    session = session_of(chat, writer)
    for line in ("a", "/retry", "/retry", "b", "/undo", "b", "/undo", "/undo", "a", "/retry", "b"):
        heard(session, line)
    seeds = [decoding.seed for _, decoding in writer.asked]
    assert seeds == list(range(8))
    told(session, f"/save {tmp_path / 'talk.json'}")
    heard(session, "/reset")
    heard(session, f"/load {tmp_path / 'talk.json'}")
    heard(session, "c")
    assert session.exchanges[-1].decoding.seed == 8


def test_a_space_before_the_slash_is_none(chat: Chat) -> None:
    session = session_of(chat, Scripted("ok"))
    assert "fear dose -0.2" in told(session, "  /fear -0.2 ")
    heard(session, " //joy ")
    assert session.messages[0] == user("/joy")


def test_peak_words_of_probes_colour_and_come_first(chat: Chat, lens: LensModel, probes: Probes) -> None:
    """The class "terror" is the direction "fear"."""
    named = replace(probes, classes=("anger", "joy", "terror"))
    session = session_of(chat, Scripted("ok"))
    session.settings = replace(session.settings, probes=named)
    told(session, "/joy 0 /fear 1")
    heard(session, "hi")
    assert [column.emotion for column in session.exchanges[0].columns] == ["terror", "anger", "joy", "fear"]
    assert session.exchanges[0].column == 0
    for typed_name, name, at in (("terror", "terror", 0), ("Joy", "joy", 2), ("fear", "fear", 3), ("rage", "anger", 1)):
        assert told(session, f"/colours {typed_name}") == f"Tokens are coloured by {name}, where it is read."
        heard(session, "hi")
        assert session.exchanges[-1].column == at
    told(session, "/joy 1 /fear 0")
    told(session, "/colours fear")
    heard(session, "hi")  # the direction of fear is not read now: the probe of the same emotion is
    assert session.exchanges[-1].columns[session.exchanges[-1].column or 0].emotion == "terror"


# Files


def test_a_saved_conversation_goes_on_as_it_would_have(
    lens: LensModel, directions: Directions, chat: Chat, tmp_path: Path
) -> None:
    chat.do("/temperature 0.9")
    chat.do("/positions response")
    chat.do("/beside on")
    first = chat.say("hé 🙂")
    file = chat.save(tmp_path / "talk.json")
    went_on = chat.say("and?")
    other = Chat(lens, directions=directions)
    assert other.do(f"/load {file}").startswith(f"{file}: 1 exchange. L0.resid_post: joy dose +1")
    again = other.say("and?")
    assert (again.reply.ids, again.decoding, again.doses) == (went_on.reply.ids, went_on.decoding, went_on.doses)
    assert again.plain is not None
    assert went_on.plain is not None
    assert again.plain.ids == went_on.plain.ids
    loaded = other.exchanges[0]
    assert repr(loaded) == repr(first)
    assert loaded._repr_html_() == first._repr_html_()
    facts = json.loads(file.read_text(encoding="utf-8"))
    assert (facts["model"], facts["fingerprint"]) == (lens.name, lens.fingerprint)
    user_said, model_told = facts["messages"]
    assert user_said == user("hé 🙂")
    assert {k: model_told[k] for k in ("role", "content")} == model_said(first.text)
    assert model_told["doses"] == {"joy": 1.0}
    assert model_told["plan"] == first.plan
    assert model_told["decoding"]["temperature"] == 0.9
    assert len(model_told["reply"]["readings"]) == len(model_told["reply"]["tokens"]) == len(first.reply.ids)
    assert model_told["plain"]["text"] == first.plain.text if first.plain else False
    assert "hé 🙂" in file.read_text(encoding="utf-8")


def test_a_file_of_something_else_is_not_written_over(chat: Chat, tmp_path: Path) -> None:
    session, file = chat.session, tmp_path / "notes.json"
    file.write_text("{}")
    heard(session, "hi")
    assert "is there already, and this chat did not write it so: /save! " in told(session, f"/save {file}")
    assert file.read_text() == "{}"
    assert told(session, f"/save! {file}") == f"Saved to {file}: 1 exchange."
    assert not session.unsaved
    heard(session, "more")
    assert session.unsaved
    assert told(session, "/save") == f"Saved to {file}: 2 exchanges."  # its own by now
    file.write_text(file.read_text() + " ")
    assert "did not write it so" in told(session, "/save")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["notes.json"]  # nothing half-written


def test_what_cannot_be_loaded_is_said(chat: Chat, lens: LensModel, tmp_path: Path) -> None:
    chat.say("hi")
    facts = as_json(chat.session)

    def after(**changes: Any) -> str:
        file = tmp_path / "x.json"
        file.write_text(json.dumps({**facts, **changes}))
        before = chat.exchanges
        said = told(chat.session, f"/load {file}")
        assert chat.exchanges == before
        return said.splitlines()[-1]

    assert "is a conversation with other (ffffffffffff), not with" in after(model="other", fingerprint="f" * 64)
    assert "is not a conversation that /save wrote" in after(format="something")
    assert "is not a conversation that /save wrote" in after(messages=facts["messages"][:1])
    assert "its settings can't be read" in after(settings={})
    hungry = {**facts["settings"], "doses": {"hunger": 1.0}}
    assert "There is no direction of 'hunger'" in after(settings=hungry)


def test_other_directions_are_noticed(chat: Chat, lens: LensModel, directions: Directions, tmp_path: Path) -> None:
    chat.say("hi")
    file = chat.save(tmp_path / "talk.json")
    turned = Directions([replace(one, vector=-one.vector) for one in directions])
    assert "was steered by other directions" in Chat(lens, directions=turned).do(f"/load {file}")
    assert "other directions" not in Chat(lens, directions=directions).do(f"/load {file}")


def test_a_reset_keeps_what_was_not_saved(chat: Chat, tmp_path: Path) -> None:
    first = chat.say("hi").reply.text
    kept, anew = chat.do("/reset").splitlines()
    assert anew.startswith("The conversation begins anew; L0.resid_post: joy dose +1")
    file = Path(kept.removeprefix("The conversation so far is kept in ").removesuffix("."))
    assert chat.messages == []
    assert chat.say("hi").reply.text == first
    chat.do("/reset")
    assert "1 exchange." in chat.do(f"/load {file}")
    assert chat.exchanges[0].reply.text == first
    assert len(chat.do("/reset").splitlines()) == 1  # it is in that file


# What is shown


def test_lines_for_a_pipe(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    session = session_of(chat, Scripted("plain words", "other words"))
    told(session, "/beside on")
    for quiet in (True, False):
        lines = Lines(quiet=quiet)
        answer(session, "hi", lines.show)
    out = capsys.readouterr().out
    assert out.startswith(
        "plain: plain words\nsteered: other words\nplain: plain words\nsteered: other words\nRead anew, "
    )
    assert out.count("\n") == 5


def test_a_terminal_shows_both_replies_in_colour(chat: Chat) -> None:
    session = session_of(chat, Scripted("plain \x1b[31mwords", "[bold]other words"))
    told(session, "/beside on")
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=100, height=30)
    shower = Terminal(console, session, quiet=False)
    answer(session, "hi", shower.show)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "steered: joy +1" in text
    assert "[bold]other words" in text
    assert "plain ␛[31mwords" in text
    assert "\x1b[31m" not in out.getvalue()
    assert "direction of joy, found at L0.resid_post" in " ".join(text.split())
    assert "Read anew, projection at L1.resid_post: joy" in text
    coloured = out.getvalue().count("48;2;")
    assert coloured > 20
    told(session, "/colours off")
    answer(session, "hi", shower.show)
    assert out.getvalue().count("48;2;") == coloured
    assert text.count("Colours: ") == 1


def test_colours_are_signed_from_the_plain_median(chat: Chat) -> None:
    chat.do("/beside on")
    one = chat.say("hi")
    assert one.plain is not None
    assert one.centre(0) == pytest.approx(float(np.median(one.plain.readings[:, 0])))
    values = [s.score for s in one.pieces(one.reply) for _ in range(s.tokens)]
    assert np.mean(values) == pytest.approx(one.reply.readings[:, 0].mean() - one.centre(0))
    assert "".join(s.text for s in one.pieces(one.reply)) == "".join(one.reply.tokens)
    html = one._repr_html_()
    assert html.count("<span style='background:rgba(") >= len(one.pieces(one.reply))
    assert drawn(one, coloured=True, explained=True)


def test_pages_escape_every_word(chat: Chat) -> None:
    session = session_of(chat, Scripted("<script>alert('1')</script>"))
    heard(session, "<b>hi</b>")
    page = session.exchanges[0]._repr_html_()
    assert "<script>" not in page
    assert "<" not in re.sub(r"</?(?:div|span|b|br)\b[^<>]*>", "", page)
    assert "<b>hi" not in page
    assert "&lt;b&gt;hi&lt;/b&gt;" in page


def test_tab_completes_commands_emotions_and_what_they_take() -> None:
    emotions = ("joy", "fear")
    assert completions("/jo", emotions) == ["/joy"]
    assert completions("/sa", emotions) == ["/save", "/save!"]
    assert completions("/joy 0.6 /f", emotions) == ["/fear"]
    assert completions("/gate o", emotions) == ["off"]
    assert completions("/colours ", emotions) == ["on", "off", "joy", "fear"]
    assert completions("//jo", emotions) == completions("jo", emotions) == []
    every = completions("/", emotions)
    assert {f"/{command.name}" for command in COMMANDS} <= set(every)


# The command


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lens: LensModel, vectors: Path) -> Typed:
    """``affectlens steer MODEL --interactive ARGS`` with lines piped in: exit code, standard output and error."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(steer)
    app.callback()(lambda: None)
    monkeypatch.setattr("affectlens.cli.app", app)
    monkeypatch.setattr(affectlens.model, "load_model", lambda *_a, **_k: lens)
    given = ["affectlens", "steer", lens.name, "-i", "--directions", str(vectors), "--max-new-tokens", "8"]

    def run(*args: object, said: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [*given, *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return run


def test_a_conversation_through_a_pipe(typed: Typed, lens: LensModel, directions: Directions) -> None:
    how: dict[str, Any] = {"directions": directions, "max_new_tokens": 8}
    (first,) = write(lens, ["hi"], doses={"joy": 1.0}, **how)
    asked = [user("hi"), model_said(first.strip()), user("again")]
    doses = {"joy": 1.0, "fear": -0.5}
    (second,), (bare,) = write(lens, [asked], doses=doses, **how), write(lens, [asked], max_new_tokens=8)
    lines = ["hi", "/fear -0.5", "/beside", "again", "/quit", "never said"]
    code, out, err = typed("-q", "--emotion", "joy=1", said="\n".join(lines))
    assert (code, err) == (0, "")
    told_of = out.removeprefix(f"{first}\n").split("\n")[0]
    assert "joy dose +1" in told_of
    assert "fear dose -0.5" in told_of
    rest = f"{told_of}\nUnsteered replies too.\nplain: {bare}\nsteered: {second}\nGoodbye.\n"
    assert out == f"{first}\n{rest}"


def test_the_end_keeps_what_was_not_saved_and_says_where(typed: Typed, tmp_path: Path) -> None:
    code, out, err = typed("--emotion", "joy=1", said="hi\n")
    assert code == 0
    opening, hint, *_ = out.splitlines()
    assert opening.startswith("L0.resid_post: joy dose +1")
    assert hint == "/help lists commands, /quit ends."
    assert "Read anew, projection at L1.resid_post: joy " in out
    assert typed("--emotion", "joy=1", said="hi\n")[1] == out  # the same every time
    file = Path(err.removeprefix("The conversation is kept in ").partition(";")[0])
    assert json.loads(file.read_text(encoding="utf-8"))["messages"][0] == user("hi")
    assert typed("--emotion", "joy=1", said=f"hi\n/save {tmp_path / 'a.json'}\n")[2] == ""
    assert typed(said="/doses\n")[1:] == (f"{PLAIN}\n/help lists commands, /quit ends.\n{PLAIN}\n", "")


def test_a_quiet_pipe_keeps_nothing_and_others_say_where(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path))
    assert typed("-q", said="hi\n")[2] == ""
    assert not list(tmp_path.rglob("*.json"))
    (line,) = typed(said="hi\n")[2].splitlines()
    (file,) = tmp_path.rglob("*.json")
    assert line == f"The conversation is kept in {file}; /load goes on with it."


def test_what_ended_the_chat_is_not_hidden(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be kept, and something went wrong before that."""
    (tmp_path / "chats").write_text("a file, and no folder")
    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path))
    code, _, err = typed(said="hi\n")
    assert code == 2
    assert "can't be written" in err

    def broken() -> Generator[str, None, None]:
        yield "hi"
        raise SteerError("The line broke.")

    monkeypatch.setattr(launch, "piped_lines", broken)
    code, _, err = typed()
    first, last = err.strip().splitlines()
    assert code == 2
    assert first.startswith("The conversation could not be kept: ")
    assert "The line broke." in last


def test_probes_read_the_replies(typed: Typed, probes: Probes, tmp_path: Path) -> None:
    file = probes.save(tmp_path / "category.safetensors")
    code, out, _ = typed("--emotion", "joy=1", "--probes", file, said="hi\n")
    assert code == 0
    assert re.search(r"Read anew, probe of category at L1.resid_post: \w+ [+-][\d.]+, \d+%", out)


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "AFFECTLENS_CACHE": str(cache), "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm-256color",
            "COLORTERM": "truecolor", "COLUMNS": "100", "LINES": "40"}  # fmt: skip


def command_line(tiny: Path, vectors: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "affectlens.cli", "steer", str(tiny), "-i", "--directions", str(vectors),
            "--max-new-tokens", "8", *args]  # fmt: skip


def test_unicode_through_a_real_pipe(tiny: Path, vectors: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    said = f"Grüße 🙂 — 你好\n/save {file}\n"
    done = subprocess.run(command_line(tiny, vectors, "-q"), input=said.encode(), capture_output=True, timeout=300,
                          env={**environment(tmp_path / "cache"), "PYTHONUTF8": "1"})  # fmt: skip
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert json.loads(file.read_text(encoding="utf-8"))["messages"][0] == user("Grüße 🙂 — 你好")
    assert b"\x1b" not in done.stdout


class Screen:
    """A process on a pseudo-terminal, and what it has written."""

    def __init__(self, args: list[str], env: dict[str, str]) -> None:
        self.main, side = pty.openpty()
        self.process = subprocess.Popen(args, stdin=side, stdout=side, stderr=side, env=env, start_new_session=True,
                                        preexec_fn=_controlling)  # fmt: skip
        os.close(side)
        self.text, self.at = "", 0

    def until(self, words: str, patience: float | int = 60) -> str:
        """Read on until these words have come; all that came since the words before."""
        start, end = self.at, time.monotonic() + patience
        while words not in self.text[start:] and time.monotonic() < end:
            if select.select([self.main], [], [], 0.2)[0]:
                try:
                    new = os.read(self.main, 65536).decode("utf-8", "replace")
                except OSError:  # the process has gone
                    break
                self.text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", new)
        assert words in self.text[start:], self.text[-2000:]
        self.at = self.text.index(words, start) + len(words)
        return self.text[start : self.at]

    def type(self, keys: str) -> None:
        os.write(self.main, keys.encode())

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_how: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.main)


def _controlling() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_an_exchange_in_a_real_terminal(tiny: Path, vectors: Path, tmp_path: Path) -> None:
    with Screen(command_line(tiny, vectors, "-e", "joy=1"), environment(tmp_path / "cache")) as screen:
        screen.until("you>")
        screen.type("/besid\t")
        screen.until("/beside")
        screen.type("\r")
        screen.until("Unsteered replies too.")
        screen.type("hello\r")
        shown = screen.until("orange above")
        assert "steered: joy +1" in shown
        assert "Read anew, projection at L1.resid_post: joy" in shown
        screen.until("you>")
        screen.type("/tokens 900\r")
        screen.until("Replies of up to 900 tokens")
        screen.type("go on and on\r")
        screen.until("GGGG")
        screen.type("\x03")
        screen.until("(stopped)")
        screen.until("you>")
        screen.type("\x1b[A")  # up: what was typed before
        screen.until("go on and on")
        screen.type("\x15\x04")  # nothing, then Ctrl-D
        end = screen.until("The conversation is kept in ")
        assert "Traceback" not in screen.text, end
        assert screen.process.wait(60) == 0
        (file,) = (tmp_path / "cache" / "chats").glob("*.json")
        messages = json.loads(file.read_text(encoding="utf-8"))["messages"]
        assert [m["content"] for m in messages[::2]] == ["hello", "go on and on"]
        assert [m["stopped"] for m in messages[1::2]] == [False, True]


def test_two_interrupts_leave_the_prompt(tiny: Path, vectors: Path, tmp_path: Path) -> None:
    with Screen(command_line(tiny, vectors), environment(tmp_path / "cache")) as screen:
        screen.until("you>")
        screen.type("\x03")
        screen.until("Ctrl-C once more leaves")
        screen.until("you>")
        screen.type("\x03")
        assert screen.process.wait(60) == 0
        assert "Traceback" not in screen.text


# The real model


@pytest.mark.real
def test_an_exchange_with_the_real_model(smol: LensModel) -> None:
    chat = Chat(smol, doses={"joy": 1.0}, max_new_tokens=12)
    first = chat.say("Tell me about your day.")
    assert first.plain is not None
    assert first.plain.text == write(smol, ["Tell me about your day."], max_new_tokens=12)[0] != first.reply.text
    (steered,) = write(smol, ["Tell me about your day."], doses={"joy": 1.0}, max_new_tokens=12)
    assert first.reply.text == steered
    second = chat.say("And then?")
    talk = [*first.messages, user("And then?")]
    assert second.plain is not None
    assert second.plain.text == write(smol, [talk], max_new_tokens=12)[0]
    (pair,) = beside(smol, [talk], {"joy": 1.0}, max_new_tokens=12).pairs
    np.testing.assert_allclose(second.reply.readings[:, 0], pair.steered.anew[:, 0], atol=1e-4)
    chat.do("/off")
    chat.do("/undo")
    assert chat.say("And then?").reply.text == second.plain.text
