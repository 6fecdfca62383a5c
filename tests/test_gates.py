"""Gates as text, loops on the reply's own score, ceilings: laws on tiny families, a planted rise, a plain reference."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

import affectlens.model
from affectlens.errors import AffectLensError, SteerError
from affectlens.generating import Decoding, generate
from affectlens.hooks import record
from affectlens.layouts import lay_out
from affectlens.model import LensModel, load_model
from affectlens.probing.probes import Probes
from affectlens.quiet import quiet_transformers
from affectlens.sites import Site
from affectlens.steering import (
    Directions,
    Gate,
    Loop,
    SteeringPlan,
    beside,
    load_directions,
    parse_gate,
    parse_loop,
    plan_for,
    steer,
    stream,
    write,
)
from affectlens.steering.applying import Steering
from affectlens.steering.engines.engine import Engine
from affectlens.steering.engines.request import Request
from affectlens.steering.engines.together import Together
from affectlens.steering.exporting.summing import constant
from affectlens.steering.operators import Operator, add, bounded
from affectlens.steering.readers import Reader, read
from affectlens.steering.running import Running
from affectlens.testing import FAMILIES, tiny_model
from affectlens.texts import as_table
from tests.conftest import Typed
from tests.test_steering import PROMPTS, batch, close, direction, directions, logits_of

SITE = "L1.resid_post"


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


def joyful(model: LensModel) -> Directions:
    return directions(model, joy=SITE)


def loop_at(model: LensModel, site: str, target: float | None = None, *, above: bool = False, **how: Any) -> Loop:
    """A random loop in units of what it reads in texts, so wide that its share is mostly neither 0 nor 1."""
    weights = np.random.default_rng(7).normal(size=model.d_model)
    with record(model, site) as seen:
        model.hf(**batch(model, PROMPTS))
    scores = (seen[site].float() @ torch.as_tensor(weights, dtype=torch.float32)).numpy()
    middle, spread = float(np.mean(scores)), float(np.std(scores))
    aim = (-2.0 if above else 2.0) if target is None else target
    setting: dict[str, Any] = {"gain": 0.25, "memory": 3.0} | how
    return Loop(Site.parse(site), weights / spread, -middle / spread, aim, above, fingerprint=model.fingerprint,
                **setting)  # fmt: skip


def probes_of(model: LensModel, classes: tuple[str, ...] = ("anger", "joy", "terror"), layer: int = 1) -> Probes:
    k = 1 if len(classes) == 2 else len(classes)
    rng = np.random.default_rng(3)
    return Probes("category", classes, layer, "resid_post", "mean", model.name, model.fingerprint, "planted", "b" * 64,
                  {"logistic": rng.normal(size=(model.n_layers, k, model.d_model))},
                  {"logistic": rng.normal(size=(model.n_layers, k))})  # fmt: skip


def reference(scores: list[float], target: float, *, above: bool, gain: float, memory: float) -> list[float]:
    """The share at each token of a reply, as the method is stated: one token after the other."""
    shares = []
    for k in range(len(scores)):
        weights = [0.5 ** ((k - j) / memory) for j in range(k + 1)]
        mean = sum(w * x for w, x in zip(weights, scores, strict=False)) / sum(weights)
        lacking = mean - target if above else target - mean
        shares.append(min(max(gain * lacking, 0.0), 1.0))
    return shares


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("site", ["L0.resid_post", SITE])
def test_caching_and_batching_never_matter_to_a_loop(model: LensModel, site: str, above: bool) -> None:
    loop = loop_at(model, site, above=above)
    with steer(model, {"joy": 4.0}, directions=joyful(model), loop=loop) as steering:
        cached = logits_of(model, 12)
        mean = steering.share
        uncached = logits_of(model, 12, use_cache=False)
        single = logits_of(model, 12, texts=PROMPTS[:1])
    assert 0.02 < mean < 0.98, "the loop is at work"
    close(cached, uncached)
    close([step[:1] for step in cached], single)


def test_a_loop_that_never_closes_is_the_plain_dose_bitwise(model: LensModel) -> None:
    open_ = loop_at(model, SITE, 1e9)
    hows: list[dict[str, Any]] = [{}, {"positions": "response", "schedule": "ramp(3)"}]
    for how in hows:
        with steer(model, {"joy": 1.3}, directions=joyful(model), **how):
            plain = logits_of(model, 8)
        with steer(model, {"joy": 1.3}, directions=joyful(model), loop=open_, **how) as steering:
            looped = logits_of(model, 8)
        assert steering.share == 1.0
        assert steering.looped == 2 * 7, "the last token of a reply is never read"
        assert all(torch.equal(a, b) for a, b in zip(plain, looped, strict=True))


def test_a_loop_that_is_always_closed_steers_no_token_of_the_reply(model: LensModel) -> None:
    shut = loop_at(model, SITE, -1e9)
    with steer(model, {"joy": 4.0}, directions=joyful(model), positions="first(1)"):
        first = logits_of(model, 8)
    with steer(model, {"joy": 4.0}, directions=joyful(model), positions="response", loop=shut) as steering:
        looped = logits_of(model, 8)
    assert steering.share == 0.0
    assert all(torch.equal(a, b) for a, b in zip(first, looped, strict=True))
    given = batch(model, PROMPTS[1:])
    with record(model, SITE) as plain:
        model.hf(**given)
    with steer(model, {"joy": 4.0}, directions=joyful(model), loop=shut, prompt_tokens=5), record(model, SITE) as seen:
        model.hf(**given)
    assert torch.equal(plain[SITE][:, 5:], seen[SITE][:, 5:])
    assert bool((plain[SITE][:, :5] != seen[SITE][:, :5]).any(-1).all()), "nothing of the reply was read there yet"


@pytest.mark.parametrize("above", [False, True])
def test_the_share_is_that_of_a_plain_reference(model: LensModel, above: bool) -> None:
    given = batch(model, PROMPTS[1:])
    loop = loop_at(model, "L0.resid_post", above=above, memory=2.5)
    with record(model, ["L0.resid_post", SITE]) as plain:
        model.hf(**given)
    with steer(model, {"joy": 2.0}, directions=joyful(model), raw=True, loop=loop, prompt_tokens=4) as steering, \
            record(model, SITE) as seen:  # fmt: skip
        model.hf(**given)
    scores = plain["L0.resid_post"][0].double().numpy() @ loop.weights + loop.bias
    expected = [1.0] * 4 + reference(list(scores[4:]), loop.target, above=above, gain=0.25, memory=2.5)
    u = torch.as_tensor(joyful(model)["joy"][0].vector)
    moved = ((seen[SITE] - plain[SITE])[0] @ u / (2.0 * 6.0)).numpy()
    np.testing.assert_allclose(moved, expected, atol=1e-4)
    assert len({round(x, 3) for x in expected}) >= 3, "the reference says something"
    assert steering.share == pytest.approx(float(np.mean(expected[4:])), abs=1e-5)


def test_words_that_rise_take_the_dose_away(llama: LensModel) -> None:
    """Planted: the score is that of the words themselves, and each word has more of it than the one before."""
    weights = np.random.default_rng(1).normal(size=llama.d_model)
    table = llama.hf.get_input_embeddings().weight.detach().numpy() @ weights
    rising = np.argsort(table)[:: len(table) // 12][:12]
    middle, spread = float(table.mean()), float(table.std())
    loop = Loop(Site.parse("L0.resid_pre"), weights / spread, -middle / spread, 0.0, memory=2.0, gain=0.6,
                fingerprint=llama.fingerprint)  # fmt: skip
    ids = torch.as_tensor(np.concatenate([[1, 5, 9], rising]))[None]
    with record(llama, SITE) as plain:
        llama.hf(input_ids=ids)
    for reply, falls in ((rising, True), (rising[::-1], False)):
        ids[0, 3:] = torch.as_tensor(reply.copy())
        with record(llama, SITE) as plain:
            llama.hf(input_ids=ids)
        with steer(llama, {"joy": 1.0}, directions=joyful(llama), raw=True, loop=loop, prompt_tokens=3), \
                record(llama, SITE) as seen:  # fmt: skip
            llama.hf(input_ids=ids)
        share = (seen[SITE] - plain[SITE])[0].norm(dim=-1).numpy() / 6.0
        expected = reference(list((table[reply] - middle) / spread), 0.0, above=False, gain=0.6, memory=2.0)
        np.testing.assert_allclose(share, [1.0] * 3 + expected, atol=1e-4)
        assert (np.diff(share[3:]) <= 1e-6).all() == falls
        assert (share[3] > 0.9) == falls == (share[-1] < 0.1)


def test_padding_never_matters_to_a_loop(model: LensModel) -> None:
    """Before the prompt, between prompt and reply, and behind a reply: a row is what it is alone."""
    loop, rng = loop_at(model, SITE), np.random.default_rng(4)
    prompts, replies = ([rng.integers(3, 60, n).tolist() for n in sizes] for sizes in ((3, 6), (9, 5)))
    plan = plan_for(model, {"joy": 3.0}, directions=joyful(model), loop=loop)

    def run(rows: list[list[int | None]], width: int) -> list[Tensor]:
        ids = torch.tensor([[0 if token is None else token for token in row] for row in rows])
        mask = torch.tensor([[token is not None for token in row] for row in rows]).long()
        with steer(model, plan, prompt_tokens=width), torch.inference_mode():
            logits = model.hf(input_ids=ids, attention_mask=mask,
                              position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits  # fmt: skip
        return [row[kept.bool()] for row, kept in zip(logits, mask, strict=True)]

    alone = [run([[*p, *r]], len(p))[0] for p, r in zip(prompts, replies, strict=True)]
    tail: list[list[int | None]] = [[*r, *[None] * (9 - len(r))] for r in replies]
    left = run([[*[None] * 3, *prompts[0], *tail[0]], [*prompts[1], *tail[1]]], 6)
    gap = run([[*prompts[0], *[None] * 3, *tail[0]], [*prompts[1], *tail[1]]], 6)
    close(left, alone)
    close(gap, alone)
    close(run([[*prompts[0], *[None] * 3, *tail[0]]], 3), alone[:1])


def test_a_prompt_in_parts_and_a_cache_that_is_cut_are_the_same(llama: LensModel) -> None:
    loop = loop_at(llama, SITE)
    ids = batch(llama, PROMPTS[1:])["input_ids"]
    width = 6
    with steer(llama, {"joy": 3.0}, directions=joyful(llama), loop=loop, prompt_tokens=width), torch.inference_mode():
        whole = llama.hf(input_ids=ids).logits
        cache, found = DynamicCache(), []
        for part in torch.split(ids, [4, 5, 1, 3, ids.shape[1] - 13], dim=1):
            found.append(llama.hf(input_ids=part, past_key_values=cache).logits)
        close([whole], [torch.cat(found, dim=1)])
        cache.crop(9 - ids.shape[1])  # as where proposed tokens are not taken
        again = llama.hf(input_ids=ids[:, 9:], past_key_values=cache).logits
        close([whole[:, 9:]], [again])
        cache.crop(2 - ids.shape[1])
        close([whole[:, 2:]], [llama.hf(input_ids=ids[:, 2:], past_key_values=cache).logits])


def test_each_generation_begins_anew(llama: LensModel) -> None:
    loop = loop_at(llama, SITE)
    plan = plan_for(llama, {"joy": 4.0}, directions=joyful(llama), loop=loop)
    with steer(llama, plan):
        first, other = logits_of(llama, 8), logits_of(llama, 4, texts=PROMPTS[1:])
        again, rest = logits_of(llama, 8), logits_of(llama, 4, texts=PROMPTS[1:])
    assert all(torch.equal(a, b) for a, b in zip([*first, *other], [*again, *rest], strict=True))


def test_what_a_loop_has_not_read_is_refused() -> None:
    loop, h = Loop(Site.parse("L0.resid_post"), np.ones(4), 0.0, 0.0), torch.zeros(2, 1, 4)
    real, one = torch.ones(2, 1, dtype=torch.bool), Running(loop)
    assert torch.equal(one.read(h, real, 4, 5), torch.ones(2, 1))
    assert torch.equal(one.read(h, real, 5, 5), torch.zeros(2, 1))
    with pytest.raises(SteerError, match="has not read the reply from its first token on"):
        one.read(h[:1], real[:1], 6, 5)
    with pytest.raises(SteerError, match="begin each generation inside"):
        Running(loop).read(h, real, 9, 5)


def test_writing_and_streaming_have_the_loop(llama: LensModel) -> None:
    luck: dict[str, Any] = {"chat": False, "max_new_tokens": 12, "temperature": 0.2, "seed": 5}
    plan = plan_for(llama, {"joy": 8.0}, directions=joyful(llama), loop=loop_at(llama, SITE, 0.0, gain=1.0))
    dose = plan_for(llama, {"joy": 8.0}, directions=joyful(llama))
    whole = write(llama, PROMPTS, doses=plan, progress=False, **luck)
    assert whole[0] == "".join(stream(llama, PROMPTS[0], doses=plan, **luck))
    assert whole[0] == write(llama, PROMPTS[:1], doses=plan, progress=False, **luck)[0]
    for other in (None, dose):
        assert whole != write(llama, PROMPTS, doses=other, progress=False, **luck)
    assert beside(llama, PROMPTS[:1], plan, progress=False, **luck).pairs[0].steered.text == whole[0]


def test_an_engine_keeps_each_rows_gate_and_loop_apart(llama: LensModel) -> None:
    mine = Directions([*joyful(llama), direction(llama, "fear", "L0.resid_post")])
    hows: list[dict[str, Any]] = [{"loop": loop_at(llama, SITE)}, {"loop": loop_at(llama, "L0.resid_post", above=True)},
                                  {"gate": "fear>50"}, {"gate": "fear<50", "loop": "joy<60"}, {}]  # fmt: skip
    plans = [plan_for(llama, {"joy": 8.0}, directions=mine, **how) for how in hows]
    decoding = Decoding(16, 0.2, 1.0, 5)
    table = as_table([PROMPTS[row % 2] for row in range(len(plans))]).frame()
    prompts = [tuple(one.ids) for one in lay_out(llama, table, chat=False)]
    with Engine(Together(llama, slots=len(plans))) as engine, ThreadPoolExecutor(len(plans)) as pool:
        asked = [Request(ids, decoding, plan) for ids, plan in zip(prompts, plans, strict=True)]
        together = [text for text, _ in pool.map(engine.write, asked)]
    how: dict[str, Any] = {"chat": False, "max_new_tokens": 16, "temperature": 0.2, "seed": 5, "progress": False}
    alone = [write(llama, [PROMPTS[row % 2]], doses=plan, **how)[0] for row, plan in enumerate(plans)]
    assert together == alone
    assert len(set(alone)) >= 4, "gates and loops make a difference"


def test_beams_are_refused(llama: LensModel) -> None:
    given = batch(llama, PROMPTS)
    config = GenerationConfig(num_beams=3, max_new_tokens=4, pad_token_id=2)
    plan = plan_for(llama, {"joy": 1.0}, directions=joyful(llama), loop=loop_at(llama, SITE))
    asked: list[dict[str, Any]] = [{"num_beams": 2, "max_new_tokens": 4}, {"generation_config": config}]
    for how in asked:
        with steer(llama, plan), pytest.raises(SteerError, match="leave out the loop, or num_beams"):
            llama.hf.generate(**given, **how)
        with steer(llama, {"joy": 1.0}, directions=joyful(llama), positions="response"):
            llama.hf.generate(**given, **({"pad_token_id": 2} | how))
    with steer(llama, plan):
        llama.hf.generate(**given, generation_config=config, num_beams=1)


def test_a_loop_must_know_where_the_reply_begins(llama: LensModel) -> None:
    with steer(llama, {"joy": 1.0}, directions=joyful(llama), loop="joy<75"), \
            pytest.raises(SteerError, match="a loop needs to know where the reply begins"):  # fmt: skip
        llama.hf(**batch(llama, PROMPTS))


def test_texts_name_gates(llama: LensModel) -> None:
    mine, probes = directions(llama, fear="L0.resid_post"), probes_of(llama)
    (fear,) = mine["fear"]
    h = 3 * torch.randn(2, 20, llama.d_model, generator=torch.Generator().manual_seed(0))
    for text, expected in (
        ("fear>90", Gate.of_direction(fear, 90)),
        (" Terror < 50.5 ", Gate.of_direction(fear, 50.5, below=True)),
        ("fear@0>10", Gate.of_direction(fear, 10)),
        ("probe:joy>0.5", Gate.of_probe(probes, name="joy", threshold=0.5)),
        ("probe:fear@L0<-1e-1", Gate.of_probe(probes, name="terror", layer=0, threshold=-0.1, below=True)),
    ):
        found = parse_gate(text, llama, directions=mine, probes=probes)
        assert (found.site, found.below, found.says, found.bias, found.fingerprint) == (
            expected.site, expected.below, expected.says, expected.bias, llama.fingerprint)  # fmt: skip
        assert torch.equal(found.open(h), expected.open(h))
        assert 0 < int(found.open(h).sum()) < h.shape[0] * h.shape[1]
    two = probes_of(llama, ("calm", "joy"))
    yes, no = (parse_gate(f"probe:{name}>0", llama, probes=two).open(h) for name in ("joy", "calm"))
    assert torch.equal(yes, ~no)
    assert torch.equal(parse_gate("probe:category>0", llama, probes=two).open(h), yes)


def test_of_several_layers_the_first_is_read(llama: LensModel) -> None:
    mine = Directions([direction(llama, "fear", SITE), direction(llama, "fear", "L0.resid_post", seed=1)])
    assert parse_gate("fear>50", llama, directions=mine).site == Site.parse("L0.resid_post")
    assert parse_loop("fear@1<50", llama, directions=mine).site == Site.parse(SITE)


def test_texts_name_loops_in_units_that_mean_something(llama: LensModel) -> None:
    mine, probes = joyful(llama), probes_of(llama)
    (joy,) = mine["joy"]
    loop = parse_loop("joy<75, memory 4, gain 2.5", llama, directions=mine)
    assert (loop.above, loop.gain, loop.memory, loop.emotion) == (False, 2.5, 4.0, "joy")
    middle, low, high, aim = (float(joy.levels[p]) for p in (50, 16, 84, 75))
    spread = (high - low) / 2
    assert loop.target == pytest.approx((aim - middle) / spread)
    values = torch.as_tensor(np.outer([middle, middle + spread, aim], joy.vector), dtype=torch.float32)[None]
    torch.testing.assert_close(loop.score(values), torch.tensor([[0.0, 1.0, loop.target]]), atol=1e-5, rtol=0)
    above = parse_loop("probe:fear>1.0", llama, probes=probes)
    assert (above.above, above.target, above.gain, above.memory, above.emotion) == (True, 1.0, 1.0, 8.0, "terror")
    linear = probes.at(1)
    h = torch.randn(1, 4, llama.d_model)
    expected = h[0].double().numpy() @ linear.weights[2] + linear.bias[2]
    np.testing.assert_allclose(above.score(h)[0].numpy(), expected, atol=1e-4)


def test_a_text_does_what_its_object_does(llama: LensModel) -> None:
    mine = Directions([*joyful(llama), direction(llama, "fear", "L0.resid_post")])
    texts: dict[str, Any] = {"gate": "fear>50", "loop": "joy<60"}
    objects = {
        "gate": parse_gate("fear>50", llama, directions=mine),
        "loop": parse_loop("joy<60", llama, directions=mine),
    }
    for names in (("gate",), ("loop",), ("gate", "loop")):
        found = []
        for how in (texts, objects):
            these: dict[str, Any] = {name: how[name] for name in names}
            with steer(llama, {"joy": 1.5}, directions=mine, **these) as steering:
                found.append((logits_of(llama, 6), steering.opened, steering.seen, steering.share))
        assert found[0][1:] == found[1][1:]
        assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    said = plan_for(llama, {"joy": 0.5}, directions=mine, **texts).explain()
    assert "where fear at L0.resid_post above percentile 50" in said
    assert f"by how far the reply's joy at {SITE} is below percentile 60 (gain 1, memory 8)" in said
    assert "Warning" not in said
    assert "write joy>" in plan_for(llama, {"joy": -0.5}, directions=mine, loop="joy<60").explain()
    assert "write joy<" in plan_for(llama, {"joy": 0.5}, directions=mine, loop="joy>60").explain()
    assert "Warning" not in plan_for(llama, {"joy": -0.5}, directions=mine, loop="joy>60").explain()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"gate": "fear"}, "The gate 'fear' is not known: write fear>90"),
        ({"gate": "fear>=90"}, "is not known"),
        ({"gate": "fear>high"}, "is not known"),
        ({"gate": "fear>nan"}, "is not known"),
        ({"gate": ">90"}, "is not known"),
        ({"gate": "1<fear<90"}, "is not known"),
        ({"gate": "fear>101"}, "percentile 101 of neutral texts: give one of 0 to 100"),
        ({"gate": "envy>50"}, "There is no direction of 'envy'"),
        ({"gate": "fear@7>50"}, "fear has no direction at layer 7, only at 0"),
        ({"gate": "probe:joy>0"}, "names a probe: give its file too, --probes FILE"),
        ({"gate": "probe:envy>0", "probes": True}, "'envy' is none of these"),
        ({"gate": "probe:joy@9>0", "probes": True}, "no logistic probe of layer 9"),
        ({"gate": "trust>50"}, "reads L1.resid_post, which is computed after L0.resid_post.*Name an earlier layer"),
        ({"loop": "trust<50"}, "The loop .* reads L1.resid_post, which is computed after L0.resid_post"),
        ({"loop": "fear<50, haste 2"}, "The loop 'fear<50, haste 2' is not known"),
        ({"loop": "fear<50, gain 0"}, "gain and memory are above zero"),
        ({"loop": "fear<50, gain 1, gain 2"}, "is not known"),
        ({"loop": "fear<50, memory"}, "is not known"),
        ({"loop": "fear"}, "The loop 'fear' is not known"),
        ({"loop": "probe:joy<0"}, "names a probe"),
        ({"loop": Loop(Site.parse("L0.resid_pre"), np.ones(4), 0.0, 0.0, fingerprint="f")}, "another model"),
        ({"operator": "ceiling"}, "no operator 'ceiling'"),
        ({"operator": "ceiling(101)"}, "of ceiling goes from 0 to 100"),
    ],
    ids=str,
)
def test_bad_input_gets_a_sentence(llama: LensModel, how: dict[str, Any], message: str) -> None:
    mine = directions(llama, joy="L0.resid_post", fear="L0.resid_post", trust=SITE)
    how = how | ({"probes": probes_of(llama)} if how.get("probes") else {})
    with pytest.raises(AffectLensError, match=message):
        plan_for(llama, {"joy": 1.0}, directions=mine, **how)


def test_other_models_and_bare_directions_are_refused(llama: LensModel) -> None:
    other = tiny_model("llama", seed=3)
    with pytest.raises(AffectLensError, match="fitted on"):
        parse_gate("probe:joy>0", llama, probes=probes_of(other))
    with pytest.raises(SteerError, match="can't steer"):
        parse_loop("joy<50", llama, directions=joyful(other))
    flat = Directions([direction(llama, "joy", SITE)])
    flat.all[0].levels[:] = 1.0
    with pytest.raises(SteerError, match="Neutral texts don't differ on joy"):
        parse_loop("joy<50", llama, directions=flat)
    with pytest.raises(SteerError, match="memory is -1"):
        Loop(Site.parse(SITE), np.ones(4), 0.0, 0.0, memory=-1.0)


def test_a_loop_sees_nothing_that_is_added(llama: LensModel) -> None:
    """What it reads is the same under any dose to the same words, so it must come before all that is steered."""
    early = plan_for(llama, {"joy": 1.0}, directions=directions(llama, joy="L0.resid_post"))
    late = plan_for(llama, {"fear": 1.0}, directions=directions(llama, fear=SITE), loop=loop_at(llama, SITE))
    with pytest.raises(SteerError, match="computed after L0.resid_post"), steer(llama, early + late):
        pass
    scores = []
    for dose in (0.5, 5.0):
        plan = plan_for(llama, {"joy": dose}, directions=joyful(llama), loop=loop_at(llama, SITE))
        with steer(llama, plan, prompt_tokens=3) as steering:
            llama.hf(**batch(llama, PROMPTS[1:]))
        scores.append(steering.given)
    assert scores[0] == scores[1] > 0


def test_a_sum_that_is_steered_before_it_is_read_is_refused(llama: LensModel) -> None:
    mine = directions(llama, joy="L1.resid_mid")
    hows: list[dict[str, Any]] = [{"gate": "joy>50"}, {"loop": "joy<50"}]
    for how in hows:
        with pytest.raises(SteerError, match="is a sum that is steered before it can be read"):
            plan_for(llama, {"joy": 1.0}, directions=mine, **how)


def test_a_loop_is_not_exported(llama: LensModel) -> None:
    plan = plan_for(llama, {"joy": 1.0}, directions=joyful(llama), loop="joy<75")
    with pytest.raises(SteerError, match="has a loop: export a plan with"):
        constant(plan)
    with pytest.raises(SteerError, match=r"operator ceiling\(90\)"):
        constant(plan_for(llama, {"joy": 1.0}, directions=joyful(llama), operator="ceiling(90)"))


def test_a_ceiling_adds_but_never_beyond_its_level() -> None:
    generator = torch.Generator().manual_seed(0)
    h = 3 * torch.randn(4, 50, 8, generator=generator)
    u = torch.nn.functional.normalize(torch.randn(8, generator=generator), dim=0)
    before = h @ u
    for step in (0.5, 2.0, 100.0, torch.full((4, 1, 1), 1.5)):
        after = bounded(h, u, step, 1.0)
        moved = after @ u - before
        assert bool(((after @ u <= 1.0 + 1e-5) | (before > 1.0)).all())
        assert bool((moved >= -1e-5).all())
        assert torch.equal(after[before > 1.0], h[before > 1.0]), "what is beyond it is never moved back"
        expected = torch.minimum(torch.as_tensor(step).reshape(-1, 1), (1.0 - before).clamp(min=0)).expand(4, 50)
        torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)
        across = (after - h) - (after - h) @ u[:, None] * u
        assert float(across.abs().max()) < 1e-4, "nothing else is moved"
        mirrored = -bounded(-h, u, -step, -1.0)
        torch.testing.assert_close(mirrored, after)
    assert torch.equal(bounded(h, u, 0.0, 1.0), h)
    torch.testing.assert_close(bounded(h, u, 0.7, 1e6), add(h, u, 0.7, 1.0))


@pytest.mark.parametrize("dose", [0.2, -0.2])
def test_a_ceiling_in_a_plan_stops_at_its_percentile(model: LensModel, dose: float) -> None:
    mine, given = joyful(model), batch(model, PROMPTS)
    (joy,) = mine["joy"]
    u, real = torch.as_tensor(joy.vector), given["attention_mask"].bool()
    with record(model, SITE) as plain:
        model.hf(**given)
    before = plain[SITE][real] @ u
    joy.levels[:] = np.percentile(before.numpy(), np.arange(101))
    goal = float(joy.levels[70 if dose > 0 else 30])
    with steer(model, {"joy": dose}, directions=mine, raw=True, operator="ceiling(70)"):
        with record(model, SITE) as seen:
            model.hf(**given)
        cached, uncached = logits_of(model), logits_of(model, use_cache=False)
    close(cached, uncached)
    after = seen[SITE][real] @ u
    step = dose * 6.0
    expected = torch.minimum(before + step, torch.maximum(before, torch.tensor(goal))) if dose > 0 else torch.maximum(
        before + step, torch.minimum(before, torch.tensor(goal)))  # fmt: skip
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=0)
    stays = before >= goal if dose > 0 else before <= goal
    assert 0 < int(stays.sum()) < len(stays)
    assert torch.equal(seen[SITE][~real], plain[SITE][~real]), "padding is left alone"


def test_a_ceiling_counts_doses_as_add_does(llama: LensModel) -> None:
    mine = joyful(llama)
    plan = plan_for(llama, {"joy": -3.0}, directions=mine, operator="ceiling(95)")
    assert plan.terms[0].strength == -1.5
    assert "-1.500 of the norm (6), not beyond percentile 5 of neutral" in plan.explain()
    assert "beyond the 0.50 that was safe" in plan.explain()
    assert str(Operator.parse("ceiling(95)")) == "ceiling(95)"
    mine.all[0].levels[:] = np.linspace(-1e6, -9e5, 101)  # every token of any text is beyond it
    with steer(llama, {"joy": 1.0}, directions=mine, operator="ceiling(95)"):
        steered = logits_of(llama)
    assert all(torch.equal(a, b) for a, b in zip(steered, logits_of(llama), strict=True))


@pytest.fixture(scope="module")
def home(llama: LensModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model, its directions and its probes."""
    folder = tmp_path_factory.mktemp("tiny")
    with quiet_transformers():
        llama.hf.save_pretrained(folder)
    llama.tokenizer.save_pretrained(folder)
    model = load_model(str(folder))
    Directions([*joyful(model), direction(model, "fear", "L0.resid_post")]).save(folder / "directions")
    probes_of(model).save(folder / "probes")
    return folder


def options(home: Path, *more: str) -> tuple[object, ...]:
    return ("steer", home, "The door", "-e", "joy=2", "--directions", home / "directions", "--no-chat",
            "--max-new-tokens", "8", *more)  # fmt: skip


def test_the_command_line_has_gates_loops_and_ceilings(typed: Typed, home: Path) -> None:
    given = ("--gate", "probe:joy>0", "--loop", "joy<60, gain 2", "--operator", "ceiling(99)", "--probes")
    code, out, err = typed(*options(home, *given, str(home / "probes"), "--explain"))
    assert (code, err) == (0, "")
    for part in (
        "ceiling(99)",
        "not beyond percentile 99",
        "where probe of joy at layer 1 above 0",
        "(gain 2, memory 8)",
    ):
        assert part in out
    model = load_model(str(home))
    how: dict[str, Any] = {"directions": home / "directions", "loop": "joy<60", "chat": False, "max_new_tokens": 8}
    (reply,) = write(model, ["The door"], doses={"joy": 2.0}, progress=False, **how)
    assert typed(*options(home, "--loop", "joy<60", "-q"))[1] == f"{reply}\n"
    (gated,) = write(model, ["The door"], doses={"joy": 2.0}, progress=False, gate="probe:joy>0",
                     probes=home / "probes", **how)  # fmt: skip
    assert typed(*options(home, "--loop", "joy<60", "-q", *given[:2], "--probes", str(home / "probes")))[1] == (
        f"{gated}\n")  # fmt: skip
    code, out, err = typed(*options(home, "--loop", "joy<60", *given[:2], "--probes", str(home / "probes")))
    assert (code, err) == (0, "")
    assert f"steered: {gated}\n" in out
    assert "Logit of joy" in out


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--gate", "fear=90"), "The gate 'fear=90' is not known: write fear>90"),
        (("--gate", "envy>90"), "There is no direction of 'envy'; there are joy, fear."),
        (("--gate", "probe:joy>0"), "'probe:joy>0' names a probe: give its file too, --probes FILE."),
        (("--loop", "joy<75, gain"), "The loop 'joy<75, gain' is not known"),
        (("--loop", "probe:joy<1", "--gate", "fear>90"), "names a probe"),
        (("--operator", "ceiling"), "There is no operator 'ceiling'; choose from add, ceiling(95)"),
        (("--engine", "vllm"), "--engine vllm is not known: choose torch or llama.cpp."),
        (("--gguf", "a.gguf"), "--gguf belongs to --engine llama.cpp"),
        (("--engine", "llama.cpp", "--gguf", "nowhere.gguf"), "There is no file nowhere.gguf"),
        (("--engine", "llama.cpp"), "is not a GGUF file"),
        (("--plain", "--probes", "p"), "--plain has no use for --probes"),
        (("--plain", "--probes", "p", "--gate", "fear>90"), "--plain has no use for --probes"),
        (("--evaluate", "--loop", "joy<75"), "--evaluate has no use for"),
    ],
    ids=str,
)
def test_it_is_refused_before_a_model_is_loaded(
    typed: Typed, home: Path, more: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affectlens.model, "load_model", None)
    code, out, err = typed(*options(home, *more))
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.real
def test_on_the_real_model_a_loop_gives_less_and_the_reply_stays_near_its_target(smol: LensModel) -> None:
    mine = load_directions("smollm2-135m")
    loop = parse_loop("joy<75", smol, directions=mine)
    read_by = Reader("joy", loop.site, loop.weights, loop.bias, "", zeroed=False, own=True)
    prompts = lay_out(smol, as_table(["Tell me about your day.", "How was the meeting?"]).frame(), chat=True)
    scores, steering = {}, Steering(SteeringPlan(()))
    how: dict[str, Any] = {"directions": mine, "raw": True, "positions": "response"}
    plans = {"plain": None, "dose": plan_for(smol, {"joy": 0.3}, **how),
             "loop": plan_for(smol, {"joy": 0.3}, loop=loop, **how)}  # fmt: skip
    for name, plan in plans.items():
        with steer(smol, plan) if plan else nullcontext(steering) as steering:
            written = generate(smol, prompts, Decoding(32))
        means = [read(smol, one.ids, ids, (read_by,)).mean() for one, ids in zip(prompts, written, strict=True)]
        scores[name] = float(np.mean(means))
    assert steering.looped > 40
    assert 0.0 < steering.share < 0.6, "the loop gives less"
    assert scores["plain"] < loop.target < scores["dose"]
    assert abs(scores["loop"] - loop.target) < min(abs(scores[name] - loop.target) for name in ("plain", "dose"))


@pytest.mark.real
def test_llama_cpp_writes_from_the_command_line(typed: Typed, smol: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    monkeypatch.setattr(affectlens.model, "load_model", lambda *_args, **_how: smol)
    given = ("steer", "smollm2-135m", "How are you?", "-e", "joy=1", "--max-new-tokens", "6", "--engine", "llama.cpp")
    code, alone, err = typed(*given, "-q")
    assert (code, err) == (0, "")
    assert len(alone) > 5
    assert typed(*given, "--stream", "-q")[1] == alone
    code, out, err = typed(*given)
    assert (code, err) == (0, "")
    assert f"steered: {alone}" in out
    assert "read anew: plain mean" in out
    code, out, err = typed(*given, "-q", "--loop", "joy<75")
    assert (code, out) == (2, "")
    assert "loop" in err
