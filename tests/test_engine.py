"""Engines: what a request gets does not depend on who else is there, and nobody is lost on the way."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from affectlens.errors import CaptureError, SteerError
from affectlens.generating import Decoding
from affectlens.layouts import lay_out
from affectlens.model import LensModel
from affectlens.steering import Gate, applying, plan_for, steer, write
from affectlens.steering.directions import Directions
from affectlens.steering.engines import together
from affectlens.steering.engines.engine import Busy, Closed, Engine
from affectlens.steering.engines.request import End, Piece, Request
from affectlens.steering.engines.spelling import Speller
from affectlens.steering.engines.suiting import context
from affectlens.steering.engines.together import Together
from affectlens.steering.plan import SteeringPlan
from affectlens.testing import FAMILIES, tiny_model, tiny_tokenizer
from affectlens.texts import as_table
from tests.test_steering import direction, directions

TEXTS = [
    "A bell.",
    "The rain went on until the roof gave way.",
    "No",
    "Three letters came, and none was opened at all.",
]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


def asked(model: LensModel, text: str, plan: SteeringPlan | None = None, n: int = 8, **more: Any) -> Request:
    (layout,) = lay_out(model, as_table([text]).frame())
    decoding = Decoding(n, more.pop("temperature", 0.0), more.pop("top_p", 1.0), more.pop("seed", 0))
    return Request(tuple(layout.ids), decoding, plan, **more)


def many_plans(model: LensModel) -> list[SteeringPlan | None]:
    mine = directions(model, joy="L1.resid_post", fear="L0.resid_post", anger="L1.mlp_out", sadness="L1.resid_post")
    gate = Gate.of_direction(direction(model, "fear", "L0.resid_post"), 50)
    return [
        None,
        plan_for(model, {"joy": 3.0}, directions=mine),
        plan_for(model, {"joy": -2.0, "fear": 3.0, "anger": 2.0}, directions=mine),
        plan_for(model, {"joy": 3.0}, directions=mine, positions="response", schedule="decay(3)"),
        plan_for(model, {"fear": 4.0}, directions=mine, positions="first(4)"),
        plan_for(model, {"fear": 4.0}, directions=mine, positions="prompt"),
        plan_for(model, {"sadness": 1.0}, directions=mine, operator="project_out"),
        plan_for(model, {"fear": 1.0}, directions=mine, operator="clamp(90)"),
        plan_for(model, {"joy": 1.0}, directions=mine, operator="rotate(30)"),
        plan_for(model, {"joy": 4.0}, directions=mine, gate=gate),
        plan_for(model, {"joy": 4.0}, directions=mine, positions="response", loop="fear<60, gain 0.5"),
        plan_for(model, {"joy": 0.0}, directions=mine),
        plan_for(model, {"anger": 3.0}, directions=mine, schedule="ramp(4)"),
    ]


class Recording(Together):
    """Keeps every request's logits, and counts passes."""

    def __init__(self, model: LensModel, slots: int = 16) -> None:
        self.seen: dict[int, list[Tensor]] = {}
        self.passes = 0
        super().__init__(model, slots)  # which tries the model out
        self.seen, self.passes = {}, 0

    def read(self, new: Mapping[int, Request]) -> Iterator[Mapping[int, Tensor] | None]:
        for part in super().read(new):
            self.passes += 1
            self._keep(part or {})
            yield part

    def step(self, tokens: Mapping[int, int]) -> Mapping[int, Tensor]:
        self.passes += 1
        return self._keep(super().step(tokens))

    def _keep(self, logits: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
        for key, row in logits.items():
            self.seen.setdefault(key, []).append(row.clone())
        return logits


class Told:
    """What a request was told."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.done = threading.Event()
        self.end: End | None = None

    def __call__(self, event: Piece | End) -> None:
        assert self.end is None, "something was told after the end"
        if isinstance(event, Piece):
            self.pieces.append(event)
        else:
            self.end = event
            self.done.set()

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def wait(self) -> End:
        assert self.done.wait(60)
        assert self.end
        return self.end


def alone(model: LensModel, request: Request, reply: list[int]) -> Tensor:
    """The reference: one pass over prompt and reply, uncached and by itself. ``[step, d_vocab]``."""
    ids, n = torch.tensor([[*request.ids, *reply]]), len(request.ids)
    with torch.inference_mode():
        if request.plan is None or request.plan.is_nothing:
            return model.hf(ids, use_cache=False).logits[0, n - 1 : -1]
        with steer(model, request.plan, prompt_tokens=n):
            return model.hf(ids, use_cache=False).logits[0, n - 1 : -1]


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_company_never_matters(model: LensModel, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_CHUNK", 48)  # prompts are read in parts
    requests = [asked(model, TEXTS[i % 4], plan, n=3 + 5 * (i % 3)) for i, plan in enumerate(many_plans(model))]
    runner = Recording(model, slots)
    with Engine(runner) as engine:
        told = [Told() for _ in requests]
        tickets = []
        for request, one in zip(requests, told, strict=True):
            tickets.append(engine.submit(request, one))
            time.sleep(0.004)  # they come while others are being written
        ends = [one.wait() for one in told]
    assert not runner.writing.keys
    for ticket, request, one, end in zip(tickets, requests, told, ends, strict=True):
        expected = alone(model, request, ticket.ids)
        torch.testing.assert_close(torch.stack(runner.seen[ticket.key]), expected, atol=1e-4, rtol=0)
        assert one.text == model.tokenizer.decode(ticket.ids, skip_special_tokens=True)
        assert end.tokens == len(ticket.ids) <= request.decoding.max_new_tokens
        assert [i for piece in one.pieces for i in piece.ids] == ticket.ids[: sum(len(p.ids) for p in one.pieces)]


def test_columns_that_nobody_needs_go(model: LensModel) -> None:
    """A long text leaves a short one behind, whose columns are moved, and which goes on as if nothing had been."""
    runner = Recording(model)
    long, short = asked(model, "Long. " * 40, n=4), asked(model, TEXTS[0], many_plans(model)[3], n=30)
    (_,) = (part for part in runner.read({0: long}) if part)
    (_,) = (part for part in runner.read({1: short}) if part)
    runner.step({0: 9, 1: 10})
    width = runner.writing.storage.width
    runner.free(0)
    assert runner.writing.storage.width == len(short.ids) + 1 < width - 200
    reply = [10, 11, 12, 13]
    for token in reply[1:]:
        runner.step({1: token})
    (_,) = (part for part in runner.read({2: long}) if part)  # and now the columns move back
    runner.step({1: 14, 2: 9})
    expected = alone(model, short, [*reply, 14, 15])
    torch.testing.assert_close(torch.stack(runner.seen[1]), expected, atol=1e-4, rtol=0)


@pytest.mark.real
def test_company_never_matters_on_real_weights(smol: LensModel) -> None:
    names = ["joy", "fear", "sadness", "anger"]
    requests = [
        asked(smol, TEXTS[i % 4], plan_for(smol, {names[i % 4]: 0.1 * i, names[(i + 1) % 4]: -0.05 * i}), n=4 + i % 9)
        for i in range(32)
    ]
    runner = Recording(smol, 32)
    with Engine(runner) as engine:
        told = [Told() for _ in requests]
        tickets = [engine.submit(request, one) for request, one in zip(requests, told, strict=True)]
        for one in told:
            one.wait()
    assert runner.passes < 40  # of 254 tokens and 32 prompts
    for ticket, request in zip(tickets, requests, strict=True):
        expected = alone(smol, request, ticket.ids)
        torch.testing.assert_close(torch.stack(runner.seen[ticket.key]), expected, atol=1e-4, rtol=0)
    assert len({tuple(ticket.ids[:8]) for ticket in tickets}) > 4


def test_plans_differ_in_what_they_write(model: LensModel) -> None:
    """Else the law above would hold of steering that is never applied."""
    plans = [plan for plan in many_plans(model) if plan is not None and not plan.is_nothing]
    plain = alone(model, asked(model, TEXTS[1]), [5, 6, 7])
    for plan in plans:
        assert (alone(model, asked(model, TEXTS[1], plan), [5, 6, 7]) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "top_p": 0.9, "seed": 3}], ids=["greedy", "sampled"])
def test_a_reply_is_what_write_gives(model: LensModel, how: dict[str, Any]) -> None:
    plans = many_plans(model)[:4]
    with Engine(Together(model, 4)) as engine:
        told = [Told() for _ in plans]
        for text, plan, one in zip(TEXTS, plans, told, strict=True):
            engine.submit(asked(model, text, plan, **how), one)
        for text, plan, one in zip(TEXTS, plans, told, strict=True):
            one.wait()
            assert one.text == write(model, [text], doses=plan, chat=False, max_new_tokens=8, **how)[0]
        assert "".join(engine.stream(asked(model, TEXTS[0], **how))) == told[0].text
        assert engine.write(asked(model, TEXTS[0], **how))[0] == told[0].text


def test_requests_share_their_passes(llama: LensModel) -> None:
    runner = Recording(llama)
    mine = directions(llama, joy="L1.resid_post")
    with Engine(runner) as engine:
        held = threading.Event()
        with llama.lock:  # the engine waits here until all have come
            engine.submit(asked(llama, "A", n=12), lambda _event: None)
            told = [Told() for _ in range(12)]
            for i, one in enumerate(told):
                engine.submit(asked(llama, "One.", plan_for(llama, {"joy": i / 2}, directions=mine), n=12), one)
        held.set()
        for one in told:
            one.wait()
    assert runner.passes <= 12 + 4  # thirteen replies of twelve tokens; one at a time it would be 156 and more


def test_a_cancelled_request_frees_its_slot(llama: LensModel) -> None:
    runner = Recording(llama, 1)
    with Engine(runner) as engine:
        first, second = Told(), Told()
        one = engine.submit(asked(llama, TEXTS[0], n=900), first)
        engine.submit(asked(llama, TEXTS[1], n=4), second)
        while not one.ids:
            time.sleep(0.001)
        assert engine.load().active == 1
        assert engine.load().waiting == 1
        one.cancel()
        assert first.wait().reason == "cancelled"
        assert second.wait().reason in ("length", "stop")
        assert len(one.ids) < 900
    assert engine.load().active == 0
    assert not runner.writing.keys


def test_what_takes_too_long_ends(llama: LensModel) -> None:
    with Engine(Together(llama, 1)) as engine:
        writing, waiting = Told(), Told()
        engine.submit(asked(llama, TEXTS[0], n=900, patience=0.15), writing)
        engine.submit(asked(llama, TEXTS[1], n=4, patience=0.05), waiting)
        assert (writing.wait().reason, waiting.wait().reason) == ("timeout", "timeout")
        assert waiting.end == End("timeout", 0)
        assert engine.write(asked(llama, TEXTS[1], n=4))[1].tokens > 0


def test_the_queue_is_bounded(llama: LensModel) -> None:
    with Engine(Together(llama, 1), room=2) as engine:
        first = engine.submit(asked(llama, TEXTS[0], n=900), Told())
        while not first.ids:
            time.sleep(0.001)
        told = [Told(), Told()]
        for one in told:
            engine.submit(asked(llama, TEXTS[2], n=2), one)
        with pytest.raises(Busy, match="room for no more"):
            engine.submit(asked(llama, TEXTS[2], n=2), Told())
        first.cancel()
        assert [one.wait().tokens for one in told] == [2, 2]


def test_closing_ends_what_was_taken(llama: LensModel) -> None:
    engine = Engine(Together(llama, 1))
    told = [Told() for _ in range(3)]
    for one in told:
        engine.submit(asked(llama, TEXTS[0], n=4), one)
    engine.close()
    assert all(one.end and one.end.reason in ("length", "stop") for one in told)
    with pytest.raises(Closed, match="closing"):
        engine.submit(asked(llama, TEXTS[0]), Told())
    hasty, left = Engine(Together(llama, 1)), [Told(), Told()]
    for one in left:
        hasty.submit(asked(llama, TEXTS[0], n=1000), one)
    hasty.close(patience=0.0)
    assert [one.wait().reason for one in left] == ["cancelled", "cancelled"]


def test_a_listener_that_fails_fails_alone(llama: LensModel, caplog: pytest.LogCaptureFixture) -> None:
    def gone(_event: object) -> None:
        raise OSError("gone")

    with Engine(Together(llama)) as engine:
        engine.submit(asked(llama, TEXTS[0], n=900), gone)
        assert engine.write(asked(llama, TEXTS[0], n=4))[1].tokens == 4
        while engine.load().active:
            time.sleep(0.001)
    assert "A listener failed" in caplog.text


def test_a_failing_pass_ends_those_who_were_in_it(llama: LensModel, caplog: pytest.LogCaptureFixture) -> None:
    class Breaking(Together):
        broken = False

        def step(self, tokens: Mapping[int, int]) -> Mapping[int, Tensor]:
            if self.broken:
                self.broken = False
                raise RuntimeError("out of memory")
            return super().step(tokens)

    runner = Breaking(llama)
    runner.broken = True
    with Engine(runner) as engine:
        told = Told()
        engine.submit(asked(llama, TEXTS[0]), told)
        assert (told.wait().reason, told.wait().ours) == ("error", True)
        assert told.wait().error == "The engine failed: out of memory"
        assert engine.load().active == 0
        assert engine.write(asked(llama, TEXTS[0], n=4))[1].tokens == 4


def test_logits_that_are_lost_are_told(llama: LensModel) -> None:
    huge = Directions([direction(llama, "joy", "L0.resid_post", safe=3e38)])
    with Engine(Together(llama)) as engine:
        told = Told()
        engine.submit(asked(llama, TEXTS[1], n=4), told)
        with pytest.raises(SteerError, match="no finite logits"):
            engine.write(asked(llama, TEXTS[0], plan_for(llama, {"joy": 100.0}, directions=huge)))
        assert told.wait().reason in ("length", "stop")
        beside = asked(llama, TEXTS[1] * 3, n=40)
        engine.submit(beside, Told())
        for text in (TEXTS[1], "A"):  # in rows that lost ones had
            broken = asked(llama, TEXTS[3] * 2, plan_for(llama, {"joy": 100.0}, directions=huge))
            with pytest.raises(SteerError, match="no finite logits"):
                engine.write(broken)
            assert engine.write(asked(llama, text, n=4))[0] == write(llama, [text], chat=False, max_new_tokens=4)[0]


def test_a_plan_without_effect_is_refused_alone(llama: LensModel) -> None:
    model = tiny_model("llama", seed=5)
    last: Any = model.blocks[1]
    with torch.no_grad():
        last.self_attn.o_proj.weight.zero_()
    dead = plan_for(model, {"joy": 1.0}, directions=directions(model, joy="L1.z"))
    with Engine(Together(model)) as engine:
        told = Told()
        engine.submit(asked(model, TEXTS[1], n=4), told)
        with pytest.raises(SteerError, match="changes no logit"):
            engine.write(asked(model, TEXTS[0], dead))
        refused = Told()
        engine.submit(asked(model, TEXTS[0], dead), refused)
        assert not refused.wait().ours
        assert told.wait().reason in ("length", "stop")
    with Engine(Together(llama)) as engine, pytest.raises(SteerError, match="This plan is for"):
        engine.write(asked(llama, TEXTS[0], dead))


def test_what_does_not_fit_is_refused_at_once(llama: LensModel) -> None:
    with Engine(Together(llama)) as engine:
        with pytest.raises(CaptureError, match="the context holds 1024"):
            engine.write(asked(llama, TEXTS[0], n=1020))
        with pytest.raises(CaptureError, match="needs one at least"):
            engine.write(Request((), Decoding(3)))
        with steer(llama, {"joy": 1.0}, directions=directions(llama, joy="L1.resid_post")), \
                pytest.raises(SteerError, match="a thread of its own"):  # fmt: skip
            engine.write(asked(llama, TEXTS[0]))
    for wrong in (lambda: Engine(Together(llama), room=0), lambda: Together(llama, 0)):
        with pytest.raises(SteerError, match="at least"):
            wrong()


def test_a_stop_text_ends_the_reply_before_it(llama: LensModel) -> None:
    whole = write(llama, [TEXTS[1]], chat=False, max_new_tokens=40, temperature=1.0, seed=1)[0]
    stop = whole[12:15]
    with Engine(Together(llama)) as engine:
        told = Told()
        engine.submit(asked(llama, TEXTS[1], n=40, temperature=1.0, seed=1, stops=("never", stop)), told)
        assert told.wait().reason == "stop"
    assert told.text == whole[: whole.index(stop)]
    assert told.end
    assert told.end.tokens < 40


@pytest.mark.parametrize("stops", [(), ("ab",), ("é!", "zzz")])
def test_spelling_breaks_no_sign(stops: tuple[str, ...]) -> None:
    tokenizer, rng = tiny_tokenizer(), np.random.default_rng(0)
    texts = ["naïve café, 5 €", "日本語のテキスト", "👩‍👩‍👧 family é! end", "xaab aab"]
    texts += ["".join(map(chr, rng.integers(32, 0x2FFF, 20))) for _ in range(20)]
    for text in texts:
        speller, told = Speller(tokenizer, stops), ""
        for token in tokenizer(text).input_ids:
            stopped = speller.add(token)
            piece = speller.tell()
            assert "\ufffd" not in piece
            told += piece
            if stopped:
                break
        told += speller.end()
        cut = min((text.index(stop) for stop in stops if stop in text), default=len(text))
        assert told == text[:cut]


def test_spelling_of_any_tokens_is_the_tokenizers(llama: LensModel) -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        ids = rng.integers(0, 260, 24).tolist()
        speller = Speller(llama.tokenizer)
        told = ""
        for token in ids:
            speller.add(token)
            told += speller.tell()
        assert told + speller.end() == llama.tokenizer.decode(ids, skip_special_tokens=True)


class Faulty(Together):
    """Fails as it is told to."""

    reading = freeing = slow = False

    def read(self, new: Mapping[int, Request]) -> Iterator[Mapping[int, Tensor] | None]:
        for part in super().read(new):
            if self.reading and any(len(request.ids) > 100 for request in new.values()):
                raise RuntimeError("out of memory")
            if self.slow and part is None:
                time.sleep(0.05)
            yield part

    def free(self, key: int) -> None:
        if self.freeing:
            raise RuntimeError("the device is lost")
        super().free(key)


def test_what_fails_while_it_is_read_ends_alone(llama: LensModel, caplog: pytest.LogCaptureFixture) -> None:
    runner = Faulty(llama)
    runner.reading = True
    with Engine(runner) as engine:
        told = Told()
        beside = engine.submit(asked(llama, TEXTS[0], n=900), told)
        while not beside.ids:
            time.sleep(0.001)
        with pytest.raises(SteerError, match="out of memory"):
            engine.write(asked(llama, "Long. " * 40))
        assert not told.done.is_set()
        engine.close(0.0)
    assert told.wait().reason in ("cancelled", "stop")
    assert "out of memory" in caplog.text


def test_a_lost_device_leaves_nobody_waiting(llama: LensModel, caplog: pytest.LogCaptureFixture) -> None:
    runner = Faulty(llama, 1)
    engine = Engine(runner)
    told = [Told(), Told()]
    for one in told:
        engine.submit(asked(llama, TEXTS[0], n=400), one)
    runner.freeing = True
    engine.close(0.0)
    assert all(one.wait().reason in ("cancelled", "error") for one in told)
    assert "could not be freed" in caplog.text


def test_a_long_prompt_holds_nobody_up(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_CHUNK", 16)
    runner = Faulty(llama)
    runner.slow = True
    with Engine(runner) as engine:
        long, short = Told(), Told()
        begun = time.monotonic()
        ticket = engine.submit(asked(llama, "Long. " * 100, n=2), long)  # 38 parts, 0.05 s each
        time.sleep(0.01)
        engine.submit(asked(llama, "A", n=2), short)
        short.wait()
        assert time.monotonic() - begun < 1.0
        assert not long.done.is_set()
        ticket.cancel()
        assert long.wait() == End("cancelled", 0)
        assert time.monotonic() - begun < 1.5
        assert engine.load().active == 0


def test_nothing_is_held_once_all_is_over(llama: LensModel) -> None:
    runner = Together(llama)
    with Engine(runner) as engine:
        for text in TEXTS:
            engine.write(asked(llama, text, n=3))
        assert not runner.writing.storage.cache.layers
        assert not engine._desk.groups


def test_long_requests_wait_for_room(llama: LensModel) -> None:
    runner = Recording(llama, 2)
    assert runner.fits([1024, 1024])
    assert not runner.fits([10, 10, 1024])
    assert runner.fits([1024])
    with Engine(Recording(llama, 3)) as engine:
        told = [Told() for _ in range(3)]
        for one in told:
            engine.submit(asked(llama, TEXTS[0], n=1000), one)
        while engine.load().waiting:
            time.sleep(0.001)
        assert engine.load().active == 3
        engine.close(0.0)


def test_rows_near_the_end_of_the_context(llama: LensModel) -> None:
    """A batch is never wider than the model's tables, whoever was in it before."""
    model = tiny_model("gpt2")
    runner = Recording(model)
    (_,) = (part for part in runner.read({0: Request((7,) * 900, Decoding(4))}) if part)
    (_,) = (part for part in runner.read({1: Request((8,) * 850, Decoding(150))}) if part)
    runner.free(0)
    reply = [9] * 149
    for token in reply:
        runner.step({1: token})
    assert runner.writing.storage.width == 850 + 149 <= model.n_ctx
    expected = alone(model, Request((8,) * 850, Decoding(150)), [*reply, 9])
    torch.testing.assert_close(torch.stack(runner.seen[1]), expected, atol=1e-4, rtol=0)


def test_a_model_that_keeps_its_past_elsewhere_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=260, state_size=4)
    from affectlens.model import load_model

    model = load_model(model=MambaForCausalLM(config), tokenizer=tiny_tokenizer(), check=False)
    with pytest.raises(SteerError, match="can't write several replies in one batch"):
        Together(model)


def test_an_engine_is_not_closed_inside_steering(llama: LensModel) -> None:
    engine = Engine(Together(llama))
    with steer(llama, {"joy": 1.0}, directions=directions(llama, joy="L1.resid_post")), \
            pytest.raises(SteerError, match="a thread of its own"):  # fmt: skip
        engine.close()
    engine.close()


def test_one_direction_is_proved_once_for_doses_alike(llama: LensModel) -> None:
    mine = directions(llama, joy="L1.resid_post")
    passes: list[int] = []
    handle = llama.hf.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        for dose in np.linspace(1.0, 1.9, 10):
            applying.prove(llama, plan_for(llama, {"joy": float(dose)}, directions=mine))
        once = len(passes)
        applying.prove(llama, plan_for(llama, {"joy": -1.5}, directions=mine))
        applying.prove(llama, plan_for(llama, {"joy": 0.01}, directions=mine))
    finally:
        handle.remove()
    assert once <= 2
    assert len(passes) == once + 4


def test_a_model_with_other_angles_for_long_texts_is_kept_to_short_ones() -> None:
    model = tiny_model("llama", seed=7)
    assert context(model) == 1024
    model.hf.config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    assert context(model) == Together(model).n_ctx == 64


def test_refused_plans_are_refused_each(llama: LensModel) -> None:
    """Several that are let in together, with one that is sound."""
    dead = [plan_for(llama, {"joy": 1e-12 * k}, directions=directions(llama, joy="L1.resid_post")) for k in (1, 3, 9)]
    requests = [asked(llama, TEXTS[0], plan, n=3) for plan in (*dead[:2], None, dead[2])]
    with Engine(Together(llama)) as engine:
        told = [Told() for _ in requests]
        with llama.lock:
            engine.submit(asked(llama, "A", n=3), Told())
            for request, one in zip(requests, told, strict=True):
                engine.submit(request, one)
        ends = [one.wait() for one in told]
    assert [end.reason for end in ends] == ["error", "error", "length", "error"]
    assert all("changes no logit" in end.error and not end.ours for end in ends if end.error)


class Broken(Together):
    """Gives what is no logits, or can't say what fits."""

    odd = unsure = False

    def read(self, new: Mapping[int, Request]) -> Iterator[Any]:
        for part in super().read(new):
            yield dict.fromkeys(part, "no tensor") if part and self.odd else part

    def fits(self, tokens: Sequence[int]) -> bool:
        if self.unsure:
            raise RuntimeError("no room is known")
        return super().fits(tokens)


def test_an_engine_outlives_what_breaks_it(llama: LensModel, caplog: pytest.LogCaptureFixture) -> None:
    runner = Broken(llama)
    with Engine(runner) as engine:
        runner.odd = True
        with pytest.raises(SteerError, match="The engine failed"):
            engine.write(asked(llama, TEXTS[0], n=3))
        runner.odd, runner.unsure = False, True
        first, second = Told(), Told()
        one = engine.submit(asked(llama, TEXTS[0], n=900), first)
        while not one.ids:
            time.sleep(0.001)
        engine.submit(asked(llama, TEXTS[0], n=3), second)
        assert (second.wait().error, second.wait().ours) == ("The engine failed: no room is known", True)
        one.cancel()
        assert first.wait().reason == "cancelled"
        runner.unsure = False
        assert engine.write(asked(llama, TEXTS[0], n=3))[1].tokens == 3
        assert engine.alive
    assert not engine.alive
